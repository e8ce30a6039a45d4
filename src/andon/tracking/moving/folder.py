"""An MLflow store as a folder of files (`mlruns`), read and never written.

Every value is a file of its own; what has several fields is a `meta.yaml`. Symlinks are not followed out of the folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from andon.core.entities import Point
from andon.core.errors import Invalid, MissingExtra, SourceError
from andon.tracking.moving.values import (
    Counts,
    ForeignExperiment,
    ForeignInput,
    ForeignLoggedModel,
    ForeignModel,
    ForeignModelPoint,
    ForeignModelUse,
    ForeignRun,
    ForeignVersion,
)

PIECE = 2000
META = "meta.yaml"
TRACE = "trace_info.yaml"
_TRASH = ".trash"
_MODELS = "models"
_TRACES = "traces"
_BESIDES = frozenset({_MODELS, "tags", "datasets", _TRACES})
_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_DELETED = "Deleted_Internal"
_LARGEST = 1.7976931348623157e308


def open_folder(path: Path) -> FolderStore:
    """The store in a folder.

    Raises:
        SourceError: there is no such folder.
        Invalid: it holds no store, or is a file.
        MissingExtra: PyYAML is not installed.
    """
    if path.is_file():
        raise Invalid(
            f"{path} is a file and no folder mlruns",
            hint=f"a database in SQLite is sqlite:///{path.absolute()}",
        )
    if not path.is_dir():
        raise SourceError(f"there is no folder {path}", hint="name the folder that MLflow calls mlruns")
    root = path.resolve()
    empty = Invalid(
        f"{path} holds no MLflow store", hint="name the folder that has one folder for each experiment"
    )
    if not any((folder / META).is_file() for home in (root, root / _TRASH) for folder in _folders(home)):
        raise empty
    store = FolderStore(root)
    if next(store.experiments(), None) is None:
        raise empty
    return store


class FolderStore:
    """`values.ForeignStore` over files. What is written into it meanwhile may or may not be seen."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._yaml = _yaml()

    @property
    def name(self) -> str:
        return f"mlruns:{self._root}"

    @property
    def folders(self) -> tuple[str, ...]:
        return (str(self._root), str(self._root.parent / "mlartifacts"))

    def close(self) -> None:
        """Nothing is held open."""

    def experiments(self) -> Iterator[ForeignExperiment]:
        for folder, said in self._experiments():
            yield ForeignExperiment(
                id=int(said["experiment_id"]), name=str(said["name"]), location=_text(said.get("artifact_location")) or "",
                deleted=said.get("lifecycle_stage") == "deleted", created_ms=_ms(said.get("creation_time")),
                changed_ms=_ms(said.get("last_update_time")), tags=self._values(folder / "tags"),
            )  # fmt: skip

    def run_ids(self) -> Iterator[str]:
        for folder, _ in self._experiments():
            yield from (
                home.name
                for home in _folders(folder)
                if home.name not in _BESIDES and (home / META).is_file()
            )

    def logged_models(self) -> Iterator[ForeignLoggedModel]:
        for folder, experiment in self._experiments():
            for home in _folders(folder / _MODELS):
                said = self._read(home / META)
                if said is not None:
                    yield self._logged_model(home, int(experiment["experiment_id"]), said)

    def runs(self, wanted: Callable[[str], bool]) -> Iterator[ForeignRun | list[Point]]:
        for folder, experiment in self._experiments():
            number = int(experiment["experiment_id"])
            for home in _folders(folder):
                if home.name in _BESIDES or not wanted(home.name):
                    continue
                said = self._read(home / META)
                if said is None or not {"run_id", "run_uuid"} & set(said):
                    continue
                yield self._run(home, folder, number, said)
                yield from _pieces(self._points(home / "metrics"))

    def models(self) -> Iterator[ForeignModel]:
        for home in _folders(self._root / _MODELS):
            said = self._read(home / META)
            if said is None:
                continue
            aliases = {**(said.get("aliases") or {}), **self._values(home / "aliases")}
            yield ForeignModel(
                name=str(said["name"]), created_ms=_ms(said.get("creation_timestamp")),
                changed_ms=_ms(said.get("last_updated_timestamp")), description=_text(said.get("description")),
                tags=self._values(home / "tags"), aliases={str(key): int(value) for key, value in aliases.items()},
                versions=tuple(sorted(self._versions(home), key=lambda version: version.number)),
            )  # fmt: skip

    def counts(self) -> Counts:
        experiments = list(self.experiments())
        models = list(self.models())
        runs = params = tags = points = latest = inputs = uses = 0
        for each in self.runs(lambda _: True):
            if isinstance(each, list):
                points += len(each)
                continue
            runs += 1
            params, tags = params + len(each.params), tags + len(each.tags)
            inputs, uses = inputs + len(each.inputs), uses + len(each.models)
        for folder, _ in self._experiments():
            for home in _folders(folder):
                latest += sum(1 for _ in _files(home / "metrics")) if home.name not in _BESIDES else 0
        return Counts(
            experiments=len(experiments), experiment_tags=sum(len(each.tags) for each in experiments), runs=runs,
            params=params, tags=tags, points=points, latest_metrics=latest, inputs=inputs, model_uses=uses,
            logged_models=sum(1 for _ in self.logged_models()), models=len(models),
            versions=sum(len(model.versions) for model in models), aliases=sum(len(model.aliases) for model in models),
        )  # fmt: skip

    def others(self) -> Mapping[str, int]:
        traces = sum(
            1
            for experiment, _ in self._experiments()
            for home in _folders(experiment / _TRACES)
            if (home / TRACE).is_file()
        )
        return {"traces": traces} if traces else {}

    def _experiments(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for folder in (*_folders(self._root), *_folders(self._root / _TRASH)):
            if folder.name in (_TRASH, _MODELS):
                continue
            said = self._read(folder / META)
            if said is not None and "experiment_id" in said:
                yield folder, said

    def _run(self, home: Path, experiment: Path, number: int, said: Mapping[str, Any]) -> ForeignRun:
        status = said.get("status")
        return ForeignRun(
            id=home.name, experiment=number, status=_STATUS.get(status, "RUNNING") if isinstance(status, int) else str(status),
            name=_text(said.get("run_name")) or _text(said.get("name")) or "", user=_text(said.get("user_id")) or "",
            start_ms=_ms(said.get("start_time")), end_ms=_ms(said.get("end_time")),
            deleted=said.get("lifecycle_stage") == "deleted", deleted_ms=_ms(said.get("deleted_time")),
            artifacts=_text(said.get("artifact_uri")) or str(home / "artifacts"), params=self._values(home / "params"),
            tags=self._values(home / "tags"), inputs=tuple(self._inputs(home, experiment)), models=tuple(self._uses(home)),
        )  # fmt: skip

    def _inputs(self, home: Path, experiment: Path) -> Iterator[ForeignInput]:
        for folder in _folders(home / "inputs"):
            use = self._read(folder / META) or {}
            if use.get("source_type") != "DATASET":
                continue
            data = self._read(experiment / "datasets" / Path(str(use["source_id"])).name / META)
            if data is not None:
                yield ForeignInput(
                    name=str(data["name"]), digest=str(data["digest"]), source_type=str(data.get("source_type") or ""),
                    source=str(data.get("source") or ""), schema=_text(data.get("schema")), profile=_text(data.get("profile")),
                    tags={str(key): str(value) for key, value in (use.get("tags") or {}).items()},
                )  # fmt: skip

    def _uses(self, home: Path) -> Iterator[ForeignModelUse]:
        for folder in _folders(home / "inputs"):
            use = self._read(folder / META) or {}
            if use.get("source_type") in ("MODEL", "RUN_INPUT"):
                yield ForeignModelUse("input", str(use["destination_id"]))
        for folder in _folders(home / "outputs"):
            use = self._read(folder / META) or {}
            if use.get("destination_type") == "MODEL_OUTPUT":
                yield ForeignModelUse("output", str(use["destination_id"]), int(use.get("step") or 0))

    def _logged_model(self, home: Path, experiment: int, said: Mapping[str, Any]) -> ForeignLoggedModel:
        points: list[ForeignModelPoint] = []
        for key, file in _files(home / "metrics"):
            for line in file.read_text(encoding="utf-8").splitlines():
                at, value, step, run, *data = line.split(" ")
                name, digest = (" ".join(data[:-1]), data[-1]) if len(data) > 1 else (None, None)
                points.append(
                    ForeignModelPoint(
                        run=run, point=_point(key, at, value, step), dataset_name=name, dataset_digest=digest
                    )
                )
        return ForeignLoggedModel(
            id=str(said["model_id"]), experiment=experiment, name=str(said["name"]), status=int(said.get("status") or 0),
            artifacts=_text(said.get("artifact_location")) or str(home / "artifacts"),
            created_ms=_ms(said.get("creation_timestamp")) or 0, changed_ms=_ms(said.get("last_updated_timestamp")) or 0,
            deleted=said.get("lifecycle_stage") == "deleted", model_type=_text(said.get("model_type")),
            run=_text(said.get("source_run_id")), message=_text(said.get("status_message")),
            params=self._values(home / "params"), tags=self._values(home / "tags"), points=tuple(points),
        )  # fmt: skip

    def _versions(self, home: Path) -> Iterator[ForeignVersion]:
        for folder in _folders(home):
            said = self._read(folder / META) if folder.name.startswith("version-") else None
            if said is None:
                continue
            deleted = said.get("current_stage") == _DELETED
            source = "" if deleted else _text(said.get("source")) or ""
            yield ForeignVersion(
                number=int(said["version"]), stage="None" if deleted else _text(said.get("current_stage")) or "None",
                source=source, location="" if deleted else _text(said.get("storage_location")) or source,
                created_ms=_ms(said.get("creation_timestamp")), changed_ms=_ms(said.get("last_updated_timestamp")),
                deleted=deleted, description=_text(said.get("description")), user=_text(said.get("user_id")),
                run=None if deleted else _text(said.get("run_id")), run_link=_text(said.get("run_link")),
                tags=self._values(folder / "tags"),
            )  # fmt: skip

    def _points(self, folder: Path) -> Iterator[Point]:
        for key, file in _files(folder):
            seen: set[tuple[int, int, float | None]] = set()  # MLflow writes the same line again now and then
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    point = _line(file, key, line.rstrip("\n").split(" "))
                    one = point.step, point.at_ms, None if math.isnan(point.value) else point.value
                    if one not in seen:
                        seen.add(one)
                        yield point

    def _values(self, folder: Path) -> dict[str, str]:
        """Texts by key: files below a folder, whose paths are the keys."""
        return {key: file.read_text(encoding="utf-8") for key, file in _files(folder)}

    def _read(self, file: Path) -> dict[str, Any] | None:
        """What a file of YAML says; None when it is not there.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            said = self._yaml(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise SourceError(f"{file} cannot be read: {error}") from None
        if not isinstance(said, dict):
            raise SourceError(f"{file} is not what MLflow writes", hint="mend it or move its folder away")
        return said


def _yaml() -> Callable[[str], Any]:
    """A reader of YAML that makes plain values only.

    Raises:
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise MissingExtra("MLflow stores in folders", "mlflow") from None
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    def read(text: str) -> Any:
        try:
            return yaml.load(text, Loader=loader)  # noqa: S506  # a safe loader, in C where there is one
        except yaml.YAMLError as error:
            raise ValueError(str(error).splitlines()[0]) from None

    return read


def _folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name; none if it is not there. Symlinks are no folders of a store."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files below a folder with their paths in it, in order."""
    for home, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(home, name)
            if not file.is_symlink():
                yield file.relative_to(folder).as_posix(), file


def _line(file: Path, key: str, parts: list[str]) -> Point:
    """A point from its line: time, value, step, and the dataset it was measured on, which the logged model has as well.

    Raises:
        SourceError: the line is not one of MLflow's.
    """
    try:
        return _point(key, parts[0], parts[1], parts[2] if len(parts) > 2 else "0")
    except (IndexError, ValueError):
        raise SourceError(f"{file} has the line {' '.join(parts)[:100]!r}, which is no point") from None


def _point(key: str, at: str, value: str, step: str) -> Point:
    number = float(value)
    if math.isinf(number):
        number = math.copysign(_LARGEST, number)  # what MLflow's databases and clients make of it
    return Point(key, number, int(at), int(step))


def _pieces(points: Iterator[Point]) -> Iterator[list[Point]]:
    piece: list[Point] = []
    for point in points:
        piece.append(point)
        if len(piece) == PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def _ms(value: object) -> int | None:
    return int(value) if isinstance(value, int | str) and str(value).strip() else None


def _text(value: object) -> str | None:
    """Text if something is said."""
    return None if value in (None, "") else str(value)
