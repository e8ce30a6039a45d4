"""The schema is what the entities are, what the migrations make, and what the hot queries need."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NewType, get_args, get_origin, get_type_hints

import msgspec
import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Double,
    Engine,
    Inspector,
    Table,
    Text,
    event,
    inspect,
    text,
)

from andon.core.clock import SystemClock
from andon.core.entities import Entity, Lease, ModelPoint, Point
from andon.core.events import Edge, Event
from andon.core.ids import LoggedModelId, Node
from andon.core.workspace import Layout
from andon.store.ports import Reader
from andon.store.sql import schema
from andon.store.sql.backend import Backend
from andon.store.sql.engine import SqlStore
from andon.store.sql.migrate import migrate
from andon.store.sql.postgres import Postgres
from andon.store.sql.schema import ENTITIES, METADATA
from andon.store.sql.sqlite import Sqlite
from andon.store.sql.types import Json, Moment
from andon.testing import rows
from andon.testing.rows import COLLECTIONS

OTHERS: dict[type[msgspec.Struct], tuple[Table, set[str]]] = {
    Point: (schema.metrics, {"owner", "nan"}),
    ModelPoint: (schema.logged_model_metrics, {"scope", "rank", "nan"}),
    Lease: (schema.leases, set()),
    Event: (schema.events, set()),
    Edge: (schema.edges, set()),
}
"""What is no entity, with the columns of its table that are no field of it."""


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """An empty database of either kind."""
    if request.param == "sqlite":
        made: Backend = Sqlite(tmp_path / "andon.db")
    else:
        made = Postgres(request.getfixturevalue("postgres_url"))
    yield made
    made.writer.dispose()
    made.close()


# --- what the entities are ---


@pytest.mark.parametrize("kind", ENTITIES, ids=lambda kind: kind.__name__)
def test_a_table_has_the_fields_of_its_entity(kind: type[Entity]) -> None:
    table = ENTITIES[kind]

    assert {column.name for column in table.c} == set(kind.__struct_fields__)
    for name, hint in get_type_hints(kind).items():
        assert (name, table.c[name].nullable) == (name, type(None) in get_args(hint))
        assert (name, type(table.c[name].type)) == (name, column_type(hint))


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_what_is_no_entity_has_its_fields_too(kind: type[msgspec.Struct]) -> None:
    table, extra = OTHERS[kind]
    fields = {"owner" if kind is ModelPoint and name == "model" else name for name in kind.__struct_fields__}

    assert {column.name for column in table.c} == fields | extra


def test_every_entity_has_a_table_and_a_collection_of_the_same_name() -> None:
    subclasses = set(Entity.__subclasses__())

    assert set(ENTITIES) == set(COLLECTIONS) == subclasses
    assert {kind: table.name for kind, table in ENTITIES.items()} == COLLECTIONS


def column_type(hint: Any) -> type:
    """The column type for a field's annotation."""
    if isinstance(hint, NewType):
        hint = hint.__supertype__
    given = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) is Literal:
        return Text
    if get_origin(hint) in (tuple, dict):
        return Json
    if given:
        return column_type(given[0])
    return {str: Text, int: BigInteger, bool: Boolean, float: Double, datetime: Moment}[hint]


# --- what the migrations make ---


def test_migrations_make_exactly_the_schema(backend: Backend, tmp_path: Path) -> None:
    migrate(backend, Layout(tmp_path), SystemClock())
    with backend.admin.connect() as connection, connection.begin():
        migrated = described(connection)
        METADATA.drop_all(connection)
        METADATA.create_all(connection)
        created = described(connection)

    assert list(migrated) == sorted(METADATA.tables)
    assert migrated == created


def described(connection: Connection) -> dict[str, Any]:
    """All that a database knows of its tables."""
    look = inspect(connection)
    return {
        name: {**reflected(look, name), "words": words(connection, name)}
        for name in sorted(look.get_table_names())
    }


def reflected(look: Inspector, name: str) -> dict[str, Any]:
    return {
        "columns": sorted(  # a later column comes last on Postgres
            (c["name"], repr(c["type"]), c["nullable"], c["default"]) for c in look.get_columns(name)
        ),
        "key": look.get_pk_constraint(name),
        "references": sorted(look.get_foreign_keys(name), key=str),
        "unique": sorted(look.get_unique_constraints(name), key=str),
        "indexes": sorted((i["name"], i["column_names"], i["unique"]) for i in look.get_indexes(name)),
    }


def words(connection: Connection, name: str) -> list[str]:
    """What the database itself says of a table and its indexes, spaces aside."""
    said = (
        "SELECT sql FROM sqlite_master WHERE tbl_name = :name AND sql IS NOT NULL ORDER BY name"
        if connection.dialect.name == "sqlite"
        else "SELECT indexdef FROM pg_indexes WHERE tablename = :name ORDER BY indexname"
    )
    found = connection.execute(text(said), {"name": name}).scalars()
    return [" ".join(line.replace('"', "").split()) for line in found]


# --- what the hot queries need ---

HOT: dict[str, tuple[Callable[[Reader], object], str]] = {
    "events after a place": (lambda view: view.ledger.after(5, limit=10), "pk_events"),
    "newest events of a subject": (
        lambda view: view.ledger.latest(subject=Node("run:r1")),
        "ix_events_subject",
    ),
    "edges up": (lambda view: view.ledger.up(Node("run:r1")), "ix_edges_back"),
    "edges down": (lambda view: view.ledger.down(Node("run:r1")), "pk_edges"),
    "all edges down": (lambda view: view.ledger.down(Node("run:r1"), depth=None), "pk_edges"),
    "a page of edges": (
        lambda view: view.ledger.edges(after=Edge(Node("run:r1"), Node("run:r2"), 1), limit=9),
        "pk_edges",
    ),
    "live release": (
        lambda view: view.releases.select({"endpoint": "x", "state": "live"}, limit=1),
        "ix_releases_endpoint|uq_releases_live",
    ),
    "releases in progress": (
        lambda view: view.releases.select({"endpoint": "x", "state": ["waiting", "rolling"]}),
        "ix_releases_endpoint|uq_releases_in_progress",
    ),
    "releases of a line": (
        lambda view: view.releases.select({"line": "x"}, order=("-created_at",), limit=5),
        "ix_releases_line",
    ),
    "runs of a line": (
        lambda view: view.runs.select({"line": "x"}, order=("-created_at",), limit=5),
        "ix_runs_line",
    ),
    "the next page of runs": (
        lambda view: view.runs.select({"line": "x"}, order=("-created_at",), after=rows.run("r1"), limit=5),
        "ix_runs_line",
    ),
    "queued runs": (lambda view: view.runs.select({"state": "queued"}), "ix_runs_state"),
    "a run by id": (lambda view: view.runs.find("r1"), "pk_runs"),
    "a page of runs by id": (lambda view: view.runs.select(after=rows.run("r1"), limit=5), "pk_runs"),
    "feedback of a prediction": (
        lambda view: view.feedback.select({"prediction": "p"}),
        "ix_feedback_prediction",
    ),
    "newest feedback": (
        lambda view: view.feedback.select({"received_at": (">", rows.AT)}, order=("received_at",)),
        "ix_feedback_received_at",
    ),
    "windows of a line": (
        lambda view: view.monitor_windows.select(
            {"line": "x", "monitor": "auc"}, order=("-data_from",), limit=9
        ),
        "ix_monitor_windows_line",
    ),
    "open alerts": (lambda view: view.alerts.select({"line": "x", "state": "open"}), "ix_alerts_line"),
    "a trigger by key": (
        lambda view: view.triggers.select({"line": "x", "key": "k"}),
        "uq_triggers_line_key",
    ),
    "the segment of a prediction": (
        lambda view: view.segments.select({"boot": 1, "first": ("<=", 5)}, order=("-first",), limit=1),
        "ix_segments_boot",
    ),
    "newest metrics": (
        lambda view: view.metrics.latest([rows.run("r1"), rows.run("r2")]),
        "pk_latest_metrics",
    ),
    "history of a metric": (lambda view: view.metrics.history(rows.run("r1"), "auc"), "pk_metrics"),
    "a page of a history": (
        lambda view: view.metrics.history(rows.run("r1"), "auc", after=Point("auc", 0.5, 1), limit=9),
        "pk_metrics",
    ),
    "metrics of logged models": (
        lambda view: view.metrics.of_models([LoggedModelId("m-1"), LoggedModelId("m-2")]),
        "pk_logged_model_metrics",
    ),
    "params of runs": (lambda view: view.params.of([1, 2]), "pk_params"),
    "tags of runs": (lambda view: view.run_tags.of([1, 2]), "pk_run_tags"),
    "tags of versions": (lambda view: view.version_tags.of(["mv_1"]), "pk_version_tags"),
    "an experiment by name": (
        lambda view: view.experiments.select({"name": "x"}, limit=1),
        "uq_experiments_name",
    ),
    "a run by its short number": (lambda view: view.runs.select({"number": 7}), "uq_runs_number"),
    "runs of an experiment": (
        lambda view: view.runs.select({"experiment": "1"}, order=("-started_at",), limit=5),
        "ix_runs_experiment",
    ),
    "runs that were deleted": (
        lambda view: view.runs.select({"deleted_at": ("<", rows.AT)}, order=("deleted_at",), limit=5),
        "ix_runs_deleted_at",
    ),
    "inputs of a run": (lambda view: view.run_inputs.select({"run": "r1"}), "ix_run_inputs_run"),
    "models of a run": (lambda view: view.run_models.select({"run": "r1"}), "ix_run_models_run"),
    "runs of a logged model": (lambda view: view.run_models.select({"model": "m-1"}), "ix_run_models_model"),
    "logged models of a run": (lambda view: view.logged_models.select({"run": "r1"}), "ix_logged_models_run"),
    "logged models of an experiment": (
        lambda view: view.logged_models.select({"experiment": "1"}, order=("-created_at",), limit=5),
        "ix_logged_models_experiment",
    ),
    "files in a folder": (lambda view: view.files.under("1/r1/artifacts", limit=9), "pk_artifacts"),
    "the next file in a folder": (
        lambda view: view.files.under("1/r1", after="1/r1/a", limit=9),
        "pk_artifacts",
    ),
    "the first name in a folder": (lambda view: view.files.children("1/r1", limit=9), "pk_artifacts"),
    "files of a content": (
        lambda view: view.artifacts.select({"digest": "d"}, limit=1),
        "ix_artifacts_digest",
    ),
    "an alias": (lambda view: view.aliases.select({"model": "m", "alias": "a"}), "uq_aliases_model_alias"),
    "aliases of a version": (
        lambda view: view.aliases.select({"model": "m", "number": 1}),
        "ix_aliases_number",
    ),
    "a version by its number": (
        lambda view: view.model_versions.select({"model": "m", "number": 1}),
        "uq_model_versions_model_number",
    ),
    "the newest version of a stage": (
        lambda view: view.model_versions.select(
            {"model": "m", "stage": "Production"}, order=("-number",), limit=1
        ),
        "ix_model_versions_stage",
    ),
    "versions of a content": (
        lambda view: view.model_versions.select({"digest": "d"}),
        "ix_model_versions_digest",
    ),
    "texts of a person": (lambda view: view.personal.select({"subject": "actor:a"}), "ix_personal_subject"),
    "versions of a run": (lambda view: view.model_versions.select({"run": "r1"}), "ix_model_versions_run"),
}
SORTED = {"all edges down", "releases in progress", "feedback of a prediction", "open alerts"}
"""What comes out of the index as few rows, and is then put in order."""


@pytest.mark.parametrize("what", HOT)
def test_a_hot_query_enters_by_an_index(migrated: SqlStore, backend: Backend, what: str) -> None:
    ask, index = HOT[what]

    with asked(backend.reader) as plans:
        migrated.read(ask)

    (plan,) = plans
    if backend.name == "sqlite":
        own = ["sqlite_autoindex", "INTEGER PRIMARY KEY", "PRIMARY KEY"] if re.match("pk_|uq_", index) else []
        assert any(each in plan for each in [*index.split("|"), *own]), plan
        assert ("TEMP B-TREE FOR ORDER BY" in plan) == (what in SORTED), plan
    else:  # which of several indexes it takes depends on what is in the tables
        assert "Index" in plan
        assert "Seq Scan" not in plan


@pytest.fixture
def migrated(backend: Backend, tmp_path: Path) -> Iterator[SqlStore]:
    """A store on that database."""
    migrate(backend, Layout(tmp_path), SystemClock())
    store = SqlStore(backend, SystemClock())
    yield store
    store.close()


@contextmanager
def asked(engine: Engine) -> Iterator[list[str]]:
    """The plans of the queries that are made meanwhile."""
    plans: list[str] = []

    def explain(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if not statement.startswith(("SELECT", "WITH")):
            return
        if engine.dialect.name == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append("\n".join(row[3] for row in cursor.fetchall()))
        else:
            cursor.execute("SET LOCAL enable_seqscan = off")  # on tables this small it is the better plan
            cursor.execute("SET LOCAL enable_bitmapscan = off")
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(row[0] for row in cursor.fetchall()))

    event.listen(engine, "before_cursor_execute", explain)
    yield plans
    event.remove(engine, "before_cursor_execute", explain)
