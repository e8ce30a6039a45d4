"""An MLflow store in SQLite or Postgres, read and never written.

All of it is read in one transaction, so what a server writes meanwhile is not seen. Tables and columns are looked for, not
assumed: what an older MLflow did not have yet reads as if nobody had used it. From 1.0 (metrics with steps) to 3.18 is known.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

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
"""So many rows are fetched at once, and so many points are in a piece."""
_DELETED = "Deleted_Internal"
_DEFAULT_WORKSPACE = "default"
_OTHERS: Mapping[str, str] = {
    "trace_info": "traces",
    "evaluation_datasets": "evaluation datasets",
    "scorers": "scorers",
    "webhooks": "webhooks",
    "endpoints": "gateway endpoints",
}
"""Tables of what has no place in Andon, and what is in them."""


class _Sqlite:
    """A SQLite file, opened to be read only."""

    binary = ""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise SourceError(f"there is no file {path}", hint="the source is sqlite:///<path of the file>")
        address = f"file:{quote(str(path))}?mode=ro"
        self._connection = sqlite3.connect(address, uri=True, isolation_level=None)
        try:
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            self._connection.close()
            raise SourceError(
                f"{path} cannot be read: {error}", hint="is it the file of an MLflow store?"
            ) from None

    def ask(self, statement: str) -> Iterator[tuple[Any, ...]]:
        cursor = self._connection.execute(statement)
        try:
            while rows := cursor.fetchmany(PIECE):
                yield from rows
        except sqlite3.Error as error:
            raise SourceError(f"the store cannot be read on: {error}") from None
        finally:
            cursor.close()

    def columns(self) -> Mapping[str, frozenset[str]]:
        tables = [row[0] for row in self.ask("SELECT name FROM sqlite_master WHERE type = 'table'")]
        quoted = {table: '"' + table.replace('"', '""') + '"' for table in tables}
        return {
            table: frozenset(row[1] for row in self.ask(f"PRAGMA table_info({name})"))
            for table, name in quoted.items()
        }

    def close(self) -> None:
        self._connection.close()


class _Postgres:
    """A Postgres database, in a transaction that can only read. Rows come through cursors of the server."""

    binary = ' COLLATE "C"'

    def __init__(self, address: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise MissingExtra("MLflow stores on Postgres", "postgres") from None
        self._errors: type[Exception] = psycopg.Error
        try:
            self._connection = psycopg.connect(address, autocommit=False)
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        except psycopg.Error as error:
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SourceError(f"the database does not answer: {said}", hint="check its address") from None
        self._opened = 0

    def ask(self, statement: str) -> Iterator[tuple[Any, ...]]:
        self._opened += 1
        try:
            with self._connection.cursor(name=f"andon_{self._opened}") as cursor:
                cursor.itersize = PIECE
                cursor.execute(statement)
                yield from cursor
        except self._errors as error:
            raise SourceError(f"the store cannot be read on: {str(error).strip()}") from None

    def columns(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        asked = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        for table, column in self.ask(asked):
            found.setdefault(table, set()).add(column)
        return {table: frozenset(names) for table, names in found.items()}

    def close(self) -> None:
        self._connection.close()


def open_database(address: str) -> DatabaseStore:
    """The store of an address as MLflow's own tools take it: `sqlite:///relative.db`, `sqlite:////absolute.db`,
    `postgresql://user@host/name`.

    Raises:
        SourceError: it is not there or cannot be read.
        Invalid: it is no MLflow store, or one of several workspaces.
        MissingExtra: it is on Postgres, and the driver is not installed.
    """
    scheme, _, rest = address.partition("://")
    kind = scheme.partition("+")[0]
    if kind == "sqlite":
        path = Path(unquote(rest.partition("?")[0].removeprefix("/"))).resolve()
        return DatabaseStore(
            _Sqlite(path),
            f"sqlite:{path}",
            tuple(str(path.parent / name) for name in ("mlruns", "mlartifacts")),
        )
    named = rest.rpartition("@")[2].partition("?")[0]
    return DatabaseStore(_Postgres(f"postgresql://{rest}"), f"postgresql:{named}", ())


class DatabaseStore:
    """`values.ForeignStore` over tables."""

    def __init__(self, rows: _Sqlite | _Postgres, name: str, folders: tuple[str, ...]) -> None:
        self._rows = rows
        self._name = name
        self._folders = folders
        try:
            self._columns = rows.columns()
            self._check()
        except BaseException:
            rows.close()
            raise

    @property
    def name(self) -> str:
        return self._name

    @property
    def folders(self) -> tuple[str, ...]:
        return self._folders

    def close(self) -> None:
        self._rows.close()

    def experiments(self) -> Iterator[ForeignExperiment]:
        tags = _Labels(
            self._select("experiment_tags", ("experiment_id", "key", "value"), order=("experiment_id",))
        )
        columns = (
            "experiment_id",
            "name",
            "artifact_location",
            "lifecycle_stage",
            "creation_time",
            "last_update_time",
        )
        rows = self._select("experiments", columns, order=("experiment_id",))
        for ident, name, location, stage, created, changed in rows:
            yield ForeignExperiment(
                id=int(ident), name=name, location=location or "", deleted=stage == "deleted", created_ms=created,
                changed_ms=changed, tags=tags.of(ident),
            )  # fmt: skip

    def run_ids(self) -> Iterator[str]:
        return (row[0] for row in self._select("runs", ("run_uuid",), order=(self._text("run_uuid"),)))

    def logged_models(self) -> Iterator[ForeignLoggedModel]:
        first = self._text("model_id")
        params = _Labels(
            self._select("logged_model_params", ("model_id", "param_key", "param_value"), order=(first,))
        )
        tags = _Labels(
            self._select("logged_model_tags", ("model_id", "tag_key", "tag_value"), order=(first,))
        )
        points = _Beside(
            self._select(
                "logged_model_metrics",
                ("model_id", "run_id", "metric_name", "metric_value", "metric_timestamp_ms", "metric_step", "dataset_name",
                 "dataset_digest"),
                order=(first,),
            )
        )  # fmt: skip
        columns = (
            "model_id", "experiment_id", "name", "status", "artifact_location", "creation_timestamp_ms",
            "last_updated_timestamp_ms", "lifecycle_stage", "model_type", "source_run_id", "status_message",
        )  # fmt: skip
        for row in self._select("logged_models", columns, order=(first,)):
            ident, experiment, name, status, artifacts, created, changed, stage, kind, run, message = row
            yield ForeignLoggedModel(
                id=ident, experiment=int(experiment), name=name, status=int(status), artifacts=artifacts or "",
                created_ms=created, changed_ms=changed, deleted=stage == "deleted", model_type=kind, run=run,
                message=message, params=params.of(ident), tags=tags.of(ident),
                points=tuple(_model_point(*rest) for _, *rest in points.of(ident)),
            )  # fmt: skip

    def runs(self, wanted: Callable[[str], bool]) -> Iterator[ForeignRun | list[Point]]:
        first = self._text("run_uuid")
        params = _Labels(self._select("params", ("run_uuid", "key", "value"), order=(first,)))
        tags = _Labels(self._select("tags", ("run_uuid", "key", "value"), order=(first,)))
        metrics = _Beside(
            self._select(
                "metrics", ("run_uuid", "key", "value", "timestamp", "step", "is_nan"), order=(first,)
            )
        )
        inputs, models = _Beside(self._inputs()), _Beside(self._model_uses())
        columns = (
            "run_uuid", "experiment_id", "status", "name", "user_id", "start_time", "end_time", "lifecycle_stage",
            "deleted_time", "artifact_uri",
        )  # fmt: skip
        for row in self._select("runs", columns, order=(first,)):
            ident, experiment, status, name, user, start, end, stage, deleted, artifacts = row
            streams = params.of(ident), tags.of(ident), list(inputs.of(ident)), list(models.of(ident))
            points = metrics.of(ident)
            if not wanted(ident):
                continue
            yield ForeignRun(
                id=ident, experiment=int(experiment or 0), status=status or "RUNNING", name=name or "", user=user or "",
                start_ms=start, end_ms=end, deleted=stage == "deleted", deleted_ms=deleted, artifacts=artifacts or "",
                params=streams[0], tags=streams[1], inputs=tuple(_datasets(streams[2])),
                models=tuple(ForeignModelUse(way, model, step or 0) for _, way, model, step in streams[3]),
            )  # fmt: skip
            yield from _pieces(_point(*rest) for _, *rest in points)

    def models(self) -> Iterator[ForeignModel]:
        name = self._text("name")
        tags = _Labels(self._select("registered_model_tags", ("name", "key", "value"), order=(name,)))
        aliases = _Beside(
            self._select("registered_model_aliases", ("name", "alias", "version"), order=(name,))
        )
        version_tags = _Beside(
            self._select("model_version_tags", ("name", "version", "key", "value"), order=(name, "version"))
        )
        columns = (
            "name", "version", "creation_time", "last_updated_time", "description", "user_id", "current_stage", "source",
            "run_id", "run_link", "storage_location",
        )  # fmt: skip
        versions = _Beside(self._select("model_versions", columns, order=(name, "version")))
        said = ("name", "creation_time", "last_updated_time", "description")
        for model, created, changed, description in self._select("registered_models", said, order=(name,)):
            texts: dict[int, dict[str, str]] = {}
            for _, number, key, value in version_tags.of(model):
                texts.setdefault(int(number), {})[key] = value or ""
            yield ForeignModel(
                name=model, created_ms=created, changed_ms=changed, description=description, tags=tags.of(model),
                aliases={alias: int(number) for _, alias, number in aliases.of(model)},
                versions=tuple(_version(texts, *rest) for _, *rest in versions.of(model)),
            )  # fmt: skip

    def counts(self) -> Counts:
        return Counts(
            experiments=self._count("experiments"), experiment_tags=self._count("experiment_tags"),
            runs=self._count("runs"), params=self._count("params"), tags=self._count("tags"),
            points=self._points(),
            latest_metrics=self._one("SELECT count(*) FROM (SELECT DISTINCT run_uuid, key FROM metrics) AS pairs"),
            inputs=self._used("'DATASET'", "'RUN'"),
            model_uses=self._used("'RUN_INPUT', 'RUN_OUTPUT'", "'MODEL_INPUT', 'MODEL_OUTPUT'"),
            logged_models=self._count("logged_models"), models=self._count("registered_models"),
            versions=self._count("model_versions"), aliases=self._count("registered_model_aliases"),
        )  # fmt: skip

    def others(self) -> Mapping[str, int]:
        found = {noun: self._count(table) for table, noun in _OTHERS.items()}
        return {noun: count for noun, count in found.items() if count}

    def _points(self) -> int:
        """How many points there are. Copied tables may have lost the key that keeps one from being there twice."""
        value = (
            "CASE WHEN is_nan THEN 0 ELSE value END, is_nan"
            if "is_nan" in self._columns["metrics"]
            else "value"
        )
        return self._one(
            f"SELECT count(*) FROM (SELECT DISTINCT key, timestamp, step, run_uuid, {value} FROM metrics) AS points"
        )

    def _check(self) -> None:
        missing = {"experiments", "runs", "params", "metrics", "tags"} - set(self._columns)
        if missing or "step" not in self._columns["metrics"]:
            what = f"it has no table {min(missing)!r}" if missing else "its metrics have no steps"
            raise Invalid(
                f"{self._name} is no MLflow store that can be read: {what}",
                hint="bring it up to date with 'mlflow db upgrade', or name another",
            )
        if "workspace" in self._columns["experiments"]:
            others = f"SELECT count(*) FROM experiments WHERE workspace <> '{_DEFAULT_WORKSPACE}'"
            if self._one(others):
                raise Invalid(
                    f"{self._name} holds several workspaces, whose names may be the same",
                    hint="take over a store that has the default workspace only",
                )

    def _select(
        self, table: str, columns: Sequence[str], *, order: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        """Rows of a table; nothing if it is not there, and NULL for a column that is not."""
        if table not in self._columns:
            return iter(())
        there = self._columns[table]
        shown = ", ".join(name if name in there else f"NULL AS {name}" for name in columns)
        return self._rows.ask(f"SELECT {shown} FROM {table} ORDER BY {', '.join(order)}")

    def _inputs(self) -> Iterator[tuple[Any, ...]]:
        """(run, use, tag, its value, dataset...) of each tag of each use, or one with no tag."""
        if not {"inputs", "datasets", "input_tags"} <= set(self._columns):
            return iter(())
        return self._rows.ask(
            "SELECT i.destination_id, i.input_uuid, t.name, t.value, d.name, d.digest, d.dataset_source_type, "
            "d.dataset_source, d.dataset_schema, d.dataset_profile FROM inputs i "
            "JOIN datasets d ON d.dataset_uuid = i.source_id "
            "LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid "
            "WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' "
            f"ORDER BY {self._text('i.destination_id')}, i.input_uuid"
        )

    def _model_uses(self) -> Iterator[tuple[Any, ...]]:
        if "logged_models" not in self._columns or "inputs" not in self._columns:
            return iter(())
        step = "i.step" if "step" in self._columns["inputs"] else "0"
        return self._rows.ask(
            "SELECT i.source_id, CASE WHEN i.source_type = 'RUN_INPUT' THEN 'input' ELSE 'output' END, i.destination_id, "
            f"{step} FROM inputs i JOIN logged_models m ON m.model_id = i.destination_id "
            "WHERE i.source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND i.destination_type IN ('MODEL_INPUT', 'MODEL_OUTPUT') "
            f"ORDER BY {self._text('i.source_id')}"
        )

    def _used(self, sources: str, destinations: str) -> int:
        if "inputs" not in self._columns:
            return 0
        return self._one(
            f"SELECT count(*) FROM inputs WHERE source_type IN ({sources}) AND destination_type IN ({destinations})"
        )

    def _count(self, table: str) -> int:
        return self._one(f"SELECT count(*) FROM {table}") if table in self._columns else 0

    def _one(self, statement: str) -> int:
        return int(next(self._rows.ask(statement))[0])

    def _text(self, column: str) -> str:
        """A column of texts, to be ordered by its bytes wherever it is."""
        return column + self._rows.binary


class _Beside:
    """A stream that runs beside another one; both are in the order of their first column."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._groups = groupby(rows, key=lambda row: row[0])
        self._now: tuple[Any, Iterator[tuple[Any, ...]]] | None = next(self._groups, None)

    def of(self, key: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of a key that is not before the last one; to be read before the next one is asked for."""
        while self._now is not None and self._now[0] < key:
            self._now = next(self._groups, None)
        if self._now is not None and self._now[0] == key:
            yield from self._now[1]


class _Labels:
    """Texts by key, of one owner after the other."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._rows = _Beside(rows)

    def of(self, owner: Any) -> dict[str, str]:
        """The texts of an owner."""
        return {key: value or "" for _, key, value in self._rows.of(owner)}


def _point(key: str, value: float | None, at_ms: int, step: int, nan: bool | int | None) -> Point:
    return Point(key, math.nan if nan or value is None else float(value), int(at_ms or 0), int(step or 0))


def _model_point(
    run: str, key: str, value: float | None, at_ms: int, step: int, name: str | None, digest: str | None
) -> ForeignModelPoint:
    return ForeignModelPoint(
        run=run, point=_point(key, value, at_ms, step, False), dataset_name=name, dataset_digest=digest
    )


def _pieces(points: Iterator[Point]) -> Iterator[list[Point]]:
    piece: list[Point] = []
    for point in points:
        piece.append(point)
        if len(piece) == PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def _datasets(rows: Sequence[tuple[Any, ...]]) -> Iterator[ForeignInput]:
    """Uses of datasets from a run's rows; those of one use are beside each other."""
    for _, group in groupby(rows, key=lambda row: row[1]):
        uses = list(group)
        _, _, _, _, name, digest, kind, source, schema, profile = uses[0]
        yield ForeignInput(
            name=name, digest=digest, source_type=kind or "", source=source or "", schema=schema, profile=profile,
            tags={row[2]: row[3] or "" for row in uses if row[2] is not None},
        )  # fmt: skip


def _version(
    texts: Mapping[int, Mapping[str, str]], number: int, created: int | None, changed: int | None, description: str | None,
    user: str | None, stage: str | None, source: str | None, run: str | None, link: str | None, location: str | None,
) -> ForeignVersion:  # fmt: skip
    deleted = stage == _DELETED
    return ForeignVersion(
        number=int(number), stage="None" if deleted else stage or "None", source="" if deleted else source or "",
        location="" if deleted else location or source or "", created_ms=created, changed_ms=changed, deleted=deleted,
        description=description, user=user, run=None if deleted else run or None, run_link=None if deleted else link or None,
        tags=texts.get(int(number), {}),
    )  # fmt: skip
