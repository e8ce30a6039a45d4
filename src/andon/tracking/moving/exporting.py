"""Writing a workspace's experiments, runs, models and artifacts as an MLflow store: a SQLite database and a folder of files.

A database and not the folder `mlruns`: MLflow 3.18 refuses to open such a folder unless it is told to, and a folder of
100,000 runs is one of millions of files. The database is of MLflow 3.0's form (`tables`), and gets its name when it is whole.
What MLflow has no place for stays here: who really did what, seals, verdicts, approvals, releases, and what a line's run was
made of.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec

from andon.core.canonical import Digest, digest_value, hex_part
from andon.core.clock import to_us
from andon.core.entities import (
    Entity,
    Experiment,
    LoggedModel,
    Model,
    ModelPoint,
    ModelVersion,
    Point,
    Run,
    RunInput,
    RunModel,
)
from andon.core.errors import Conflict, Invalid, NotFound
from andon.store.files import refusing_full, sync_folder
from andon.store.ports import Blobs, Collection, Reader, Store
from andon.tracking import limits
from andon.tracking.artifacts import check_path
from andon.tracking.moving.comparing import Progress
from andon.tracking.moving.importing import RUN_LINK
from andon.tracking.moving.tables import indexes, tables

DATABASE: Final = "mlflow.db"
ARTIFACTS: Final = "artifacts"
_PART: Final = "mlflow.db.part"
_PAGE: Final = 200
_POINTS: Final = 25_000
_STATUS: Mapping[str, str] = {
    "queued": "SCHEDULED", "running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED",
    "blocked": "FAILED",
}  # fmt: skip
_SAVED: Mapping[str, int] = {"pending": 1, "ready": 2, "failed": 3}
_OURS = "mlflow-artifacts:/"


class File(Protocol):
    """A file of a version: a blob's digest, or bytes that are made when somebody asks."""

    @property
    def digest(self) -> Digest | None: ...
    @property
    def data(self) -> bytes | None: ...


class Registry(Protocol):
    """What the registry says of models as clients see them."""

    def files(self, version: ModelVersion) -> Mapping[str, File]:
        """The files of a held version by path."""

    def aliases(self, model: str) -> Mapping[str, int]:
        """The aliases of a model, with the numbers that they point at."""

    def stage(self, version: ModelVersion) -> str:
        """The stage of a version."""


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """A store that was written: where, how many rows of each table, and how many bytes of files."""

    folder: str
    tracking_uri: str
    rows: dict[str, int]
    files: int
    bytes_written: int


def export_mlflow(
    store: Store,
    blobs: Blobs,
    registry: Registry,
    target: Path,
    *,
    artifact_root: str | None = None,
    progress: Progress = lambda *_: None,
) -> ExportReport:
    """Write an MLflow store into a folder. Others may use the workspace meanwhile; each page is read in one view.

    Args:
        store, blobs, registry: the workspace.
        target: a folder that is not there or empty, or holds an export that was interrupted.
        artifact_root: where MLflow will find the files that are written to `target/artifacts`; that folder itself by
            default. `mlflow-artifacts:/` is for a server that has the folder as its artifacts' destination.
        progress: is told now and then.

    Raises:
        Conflict: the folder holds other things.
        Corrupt: a stored file does not match its digest.
        StorageFull: there is no room; nothing there is a store yet.
    """
    target = target.resolve()
    _prepare(target)
    root = (artifact_root or f"file://{quote(str(target / ARTIFACTS))}").rstrip("/")
    with (
        refusing_full(target),
        contextlib.closing(sqlite3.connect(target / _PART, isolation_level=None)) as database,
    ):
        export = _Export(store, blobs, registry, database, target / ARTIFACTS, root, progress)
        try:
            export.write()
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise OSError(28, os.strerror(28), str(target)) from error
            raise
    _finish(target)
    return ExportReport(
        folder=str(target), tracking_uri=f"sqlite:///{target / DATABASE}", rows=export.rows, files=export.files,
        bytes_written=export.bytes_written,
    )  # fmt: skip


def _prepare(target: Path) -> None:
    if target.exists() and (
        not target.is_dir() or {path.name for path in target.iterdir()} - {_PART, ARTIFACTS}
    ):
        raise Conflict(
            f"{target} holds other things", hint="name an empty folder, or one that is not there yet"
        )
    if (target / ARTIFACTS).exists() and not (target / _PART).exists():
        raise Conflict(f"{target} holds a folder {ARTIFACTS!r}", hint="name an empty folder")
    target.mkdir(parents=True, exist_ok=True)
    (target / _PART).unlink(missing_ok=True)
    (target / _PART).touch(mode=0o600)


def _finish(target: Path) -> None:
    """Give the whole database its name, so that it is there after a power cut."""
    with (target / _PART).open("rb") as file:
        os.fsync(file.fileno())
    (target / _PART).replace(target / DATABASE)
    sync_folder(target)


class _Export:
    """One export."""

    def __init__(
        self, store: Store, blobs: Blobs, registry: Registry, database: sqlite3.Connection, folder: Path, root: str,
        progress: Progress,
    ) -> None:  # fmt: skip
        self._store, self._blobs, self._registry = store, blobs, registry
        self._database, self._folder, self._root, self._progress = database, folder, root, progress
        self._locations: dict[str, str] = {}
        self.rows: dict[str, int] = {}
        self.files = self.bytes_written = 0

    def write(self) -> None:
        """All of it; committed at the end."""
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")  # it gets its name when it is whole and synced
        self._database.execute("BEGIN")
        for statement in tables():
            self._database.execute(statement)
        for experiments in self._pages(lambda reader: reader.experiments):
            self._experiments(experiments)
        for logged in self._pages(lambda reader: reader.logged_models):
            self._logged_models(logged)
        total, done = self._store.read(lambda reader: reader.runs.count()), 0
        for runs in self._pages(lambda reader: reader.runs):
            self._runs(runs)
            done += len(runs)
            self._progress("runs", done, total)
        self._artifacts()
        for models in self._pages(lambda reader: reader.models):
            for model in models:
                self._model(model)
        for statement in indexes():
            self._database.execute(statement)
        self._database.execute("COMMIT")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(
            "PRAGMA user_version = 0"
        )  # the first write that is synced takes all before it along

    # --- rows ---

    def _insert(
        self, table: str, rows: Sequence[tuple[Any, ...]], columns: str = "", *, known: bool = False
    ) -> None:
        """Insert rows; with `known`, those that are there already change nothing."""
        if rows:
            places = ", ".join("?" * len(rows[0]))
            or_not = " OR IGNORE" if known else ""
            before = self._database.total_changes
            self._database.executemany(f"INSERT{or_not} INTO {table} {columns} VALUES ({places})", rows)
            self.rows[table] = self.rows.get(table, 0) + self._database.total_changes - before

    def _experiments(self, page: Sequence[Experiment]) -> None:
        tags = self._store.read(lambda reader: reader.experiment_tags.of([row.id for row in page]))
        for row in page:
            self._locations[row.id] = row.artifact_location or f"{self._root}/{row.id}"
        self._insert(
            "experiments",
            [
                (
                    row.number,
                    row.name,
                    self._locations[row.id],
                    _stage(row),
                    _ms(row.created_at),
                    _ms(row.changed_at),
                )
                for row in page
            ],
        )
        self._insert(
            "experiment_tags", [(key, text, row.number) for row in page for key, text in tags[row.id].items()]
        )

    def _logged_models(self, page: Sequence[LoggedModel]) -> None:
        ids = [row.id for row in page]

        def look(
            reader: Reader,
        ) -> tuple[Mapping[Any, Any], Mapping[Any, Any], Mapping[Any, list[ModelPoint]]]:
            return (
                reader.logged_model_params.of(ids),
                reader.logged_model_tags.of(ids),
                reader.metrics.of_models(ids),
            )

        params, tags, points = self._store.read(look)
        numbers = {row.id: int(row.experiment) for row in page}
        self._insert(
            "logged_models",
            [
                (
                    row.id, numbers[row.id], row.name, f"{self._locations[row.experiment]}/models/{row.id}/artifacts",
                    _ms(row.created_at), _ms(row.changed_at), _SAVED[row.state], _stage(row), row.model_type, row.run,
                    row.state_message,
                )
                for row in page
            ],
        )  # fmt: skip
        for table, texts in (("logged_model_params", params), ("logged_model_tags", tags)):
            self._insert(
                table,
                [(ident, numbers[ident], key, text) for ident in ids for key, text in texts[ident].items()],
            )
        self._insert(
            "logged_model_metrics",
            [
                (
                    ident, point.key, point.at_ms, point.step, _finite(point.value), numbers[ident], point.run, None,
                    point.dataset_name, point.dataset_digest,
                )
                for ident in ids
                for point in points[ident]
            ],
            known=True,
        )  # fmt: skip

    def _runs(self, page: Sequence[Run]) -> None:
        numbers, ids = [run.number for run in page], [run.id for run in page]

        def look(reader: Reader) -> tuple[Any, ...]:
            return (
                reader.params.of(numbers), reader.run_tags.of(numbers), reader.metrics.latest(page),
                _all(reader.run_inputs, ids), _all(reader.run_models, ids),
            )  # fmt: skip

        params, tags, latest, inputs, uses = self._store.read(look)
        self._insert("runs", [self._run(run) for run in page])
        for table, texts in (("params", params), ("tags", tags)):
            self._insert(
                table, [(key, text, run.id) for run in page for key, text in texts[run.number].items()]
            )
        self._insert(
            "latest_metrics",
            [
                (key, _number(point), point.at_ms, point.step, math.isnan(point.value), run.id)
                for run in page
                for key, point in latest[run.number].items()
            ],
        )
        for run in page:
            for key in latest[run.number]:
                self._history(run, key)
        self._inputs(inputs)
        self._uses(uses)

    def _run(self, run: Run) -> tuple[Any, ...]:
        return (
            run.id, run.name or run.line or "", "UNKNOWN", "", "", run.claimed_user or "", _STATUS[run.state],
            _ms(run.started_at or run.created_at), _ms(run.finished_at), "", _stage(run),
            f"{self._locations[run.experiment]}/{run.id}/artifacts", int(run.experiment), _ms(run.deleted_at),
        )  # fmt: skip

    def _history(self, run: Run, key: str) -> None:
        last: Point | None = None

        def look(reader: Reader) -> list[Point]:
            return reader.metrics.history(run, key, after=last, limit=_POINTS)

        while page := self._store.read(look):
            self._insert(
                "metrics",
                [(key, _number(one), one.at_ms, run.id, one.step, math.isnan(one.value)) for one in page],
                known=True,
            )
            if len(page) < _POINTS:
                return
            last = page[-1]

    def _inputs(self, rows: Sequence[RunInput]) -> None:
        datasets = {row.id: _short("dataset", row.experiment, row.name, row.digest) for row in rows}
        uses = {row.id: _short("input", row.id) for row in rows}
        self._insert(
            "datasets",
            [
                (
                    datasets[row.id], int(row.experiment), row.name, row.digest, row.source_type, row.source, row.schema,
                    row.profile,
                )
                for row in rows
            ],
            known=True,
        )  # fmt: skip
        self._insert(
            "inputs", [(uses[row.id], "DATASET", datasets[row.id], "RUN", row.run, 0) for row in rows]
        )
        self._insert(
            "input_tags", [(uses[row.id], key, text) for row in rows for key, text in row.tags.items()]
        )

    def _uses(self, rows: Sequence[RunModel]) -> None:
        self._insert(
            "inputs",
            [
                (
                    _short("use", row.id), f"RUN_{row.direction.upper()}", row.run, f"MODEL_{row.direction.upper()}",
                    row.model, row.step,
                )
                for row in rows
            ],
        )  # fmt: skip

    def _model(self, model: Model) -> None:
        name = model.id
        tags = self._store.read(lambda reader: reader.model_tags.of([name])[name])
        self._insert(
            "registered_models", [(name, _ms(model.created_at), _ms(model.changed_at), model.description)]
        )
        self._insert("registered_model_tags", [(key, text, name) for key, text in tags.items()])
        for page in self._pages(lambda reader: reader.model_versions, {"model": name}):
            ids = [version.id for version in page]
            texts = self._store.read(lambda reader: reader.version_tags.of(ids))  # noqa: B023  # done at once
            for version in page:
                self._version(version, texts[version.id])
        aliases = self._registry.aliases(name)
        self._insert("registered_model_aliases", [(alias, number, name) for alias, number in aliases.items()])

    def _version(self, version: ModelVersion, tags: dict[str, str]) -> None:
        link = tags.pop(RUN_LINK, None)
        stage = "Deleted_Internal" if version.deleted_at is not None else self._registry.stage(version)
        source = self._source(version)
        location = self._location(version) if version.held and version.deleted_at is None else source
        self._insert(
            "model_versions",
            [
                (
                    version.model, version.number, _ms(version.created_at), _ms(version.changed_at or version.created_at),
                    version.description, version.claimed_user, stage, source or location, version.run, "READY", None, link,
                    location,
                )
            ],
        )  # fmt: skip
        self._insert(
            "model_version_tags", [(key, text, version.model, version.number) for key, text in tags.items()]
        )

    def _source(self, version: ModelVersion) -> str | None:
        """Where the client said that a version lies, in the words that are true of the export."""
        text = version.source
        return f"{self._root}/{text[len(_OURS) :]}" if text and text.startswith(_OURS) else text

    def _location(self, version: ModelVersion) -> str:
        """Where the files of a version are: among the artifacts if they lie there unchanged, or in a place of their own."""
        files = self._registry.files(version)
        if version.source and version.source.startswith(_OURS):
            path = version.source[len(_OURS) :]
            there = self._store.read(lambda reader: _tree(reader, path, len(files)))
            if there == {name: file.digest for name, file in files.items()}:
                return f"{self._root}/{path}"
        for name, file in files.items():
            self._put(f"registry/{version.id}/{name}", file.digest, file.data)
        return f"{self._root}/registry/{version.id}"

    # --- files ---

    def _artifacts(self) -> None:
        total, done = self._store.read(lambda reader: reader.artifacts.count()), 0
        for page in self._pages(lambda reader: reader.artifacts):
            for row in page:
                self._put(row.id, row.digest, None)
            done += len(page)
            self._progress("files", done, total)

    def _put(self, path: str, digest: Digest | None, data: bytes | None) -> None:
        """Write a file below the folder. Its path was checked when it came, and is again."""
        file = self._folder / check_path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if digest is None and data is None:
            raise Invalid(f"the file {path!r} has neither a digest nor bytes")
        with file.open("wb") as stream:
            for chunk in (data,) if data is not None else self._blobs.chunks(digest or Digest("")):
                stream.write(chunk)
                self.bytes_written += len(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        self.files += 1

    def _pages(
        self, rows: Callable[[Reader], Collection[Any]], where: Mapping[str, str] | None = None
    ) -> Iterator[list[Any]]:
        last: Entity | None = None

        def look(reader: Reader) -> list[Any]:
            return rows(reader).select(where, after=last, limit=_PAGE)

        while page := self._store.read(look):
            yield page
            last = page[-1]


def _all(rows: Collection[Any], runs: Sequence[str]) -> list[Any]:
    """The rows of some runs, in pages."""
    found: list[Any] = []
    while True:
        page = rows.select({"run": runs}, after=found[-1] if found else None, limit=1000)
        found += page
        if len(page) < 1000:
            return found


def _tree(reader: Reader, path: str, most: int) -> dict[str, Digest]:
    """The digests of what lies in a folder of artifacts, if that is not more than is looked for."""
    try:
        rows = reader.files.under(path, limit=most + 1)
    except NotFound:
        return {}
    return {row.id[len(path) + 1 :]: row.digest for row in rows}


def _stage(row: Experiment | Run | LoggedModel) -> str:
    return "active" if row.deleted_at is None else "deleted"


def _ms(at: datetime | None) -> int | None:
    return None if at is None else to_us(at) // 1000


def _number(point: Point) -> float:
    """A value as MLflow's tables keep it beside the flag for NaN."""
    return 0.0 if math.isnan(point.value) else _clamped(point.value)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else _clamped(value)


def _clamped(value: float) -> float:
    return math.copysign(limits.LARGEST, value) if math.isinf(value) else value


def _short(kind: str, *words: str) -> str:
    """An id of 32 characters that is the same each time."""
    return hex_part(digest_value(f"andon.mlflow.{kind}/1", list(words)))[:32]
