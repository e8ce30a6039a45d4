"""The migrator: once, under a lock, after a backup, whole or not at all, never backwards."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from andon.core.clock import SystemClock, to_us
from andon.core.entities import ModelVersion, Point, Release, owner
from andon.core.errors import (
    AlreadyExists,
    AndonError,
    Conflict,
    Corrupt,
    Invalid,
    MissingExtra,
    SchemaTooNew,
    Unavailable,
)
from andon.core.events import verify_chain
from andon.core.search import Condition, Field, Query
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.ports import Store
from andon.store.sql import dump
from andon.store.sql.backend import Backend
from andon.store.sql.migrations import MIGRATIONS, Migration
from andon.store.sql.opening import open_sql
from andon.store.sql.postgres import Postgres
from andon.store.sql.sqlite import Sqlite
from andon.testing import rows
from andon.testing.stores import Place
from andon.testing.stores.place import put
from andon.testing.stores.processes import processes

DEADLINE_S = 60.0
LAST = MIGRATIONS[-1].number
NEXT = Migration(
    9999,
    "planted",
    (
        "CREATE TABLE planted (id TEXT NOT NULL, n INTEGER, PRIMARY KEY (id))",
        "ALTER TABLE runs ADD COLUMN mood TEXT",
    ),
)
BROKEN = Migration(
    9999, "broken", ("CREATE TABLE planted (id TEXT NOT NULL)", "SELECT no_such_column FROM runs")
)


SCHEMA_1 = Path(__file__).parent / "schema_1.ndjson"
"""All tables of a workspace that Andon 0.1 wrote, with the rows that `rows.world` had then, params and metrics."""


class KilledAtTheSecond(tuple[str, ...]):
    """Statements in the middle of which the process is killed."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        yield self[0]
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    """A workspace of the schema of today, with rows in it."""
    place: Place = request.getfixturevalue(f"{request.param}_place")
    store = place.open()
    put(store, *rows.world())
    store.close()
    return place


def open_with(place: Place, *planted: Migration) -> Store:
    return open_sql(place.layout, place.settings, SystemClock(), (*MIGRATIONS, *planted))


def migrate_until_killed(place: Place) -> None:
    """In a process of its own."""
    open_with(place, NEXT._replace(statements=KilledAtTheSecond(NEXT.statements)))


def by_release_0_1(place: Place) -> Place:
    """The place with a database in it as the first release left it."""
    place.layout.create()
    url = place.settings.database_url
    backend: Backend = Postgres(url) if url else Sqlite(place.layout.database)
    dump.load(backend, tables_of(SCHEMA_1), SystemClock().now(), MIGRATIONS[:1])
    backend.writer.dispose()
    backend.close()
    return place


def tables_of(path: Path) -> list[tuple[str, dump.Rows]]:
    """What a dump in lines says of each table, in its order."""
    tables: dict[str, dump.Rows] = {}
    for line in path.read_text().splitlines():
        given = json.loads(line)
        tables.setdefault(given["table"], []).append(given["row"])
    return list(tables.items())


def kinds(store: Store) -> list[str]:
    return [event.kind for event in store.read(lambda view: view.ledger.after(0))]


def schema(store: Store) -> tuple[int, list[str]]:
    """The number of the schema, and names of its tables."""
    found = dict(store.tables())
    return max(int(str(row["number"])) for row in found["schema_version"]), sorted(found)


def test_a_new_workspace_is_named_after_its_folder(tmp_path: Path) -> None:
    store = open_store(Layout(tmp_path / "churn" / ".andon"), Settings())

    workspace = store.read(lambda view: view.workspaces.get("workspace"))
    store.close()

    assert (workspace.name, workspace.epoch) == ("churn", 1)
    assert (tmp_path / "churn/.andon/andon.db").stat().st_mode & 0o077 == 0


def test_an_upgrade_keeps_everything_and_says_so(place: Place) -> None:
    store = open_with(place, NEXT)

    number, tables = schema(store)
    found = store.read(lambda view: [rows.rows_of(view, type(row)).get(row.id) for row in rows.world()])
    (event,) = store.read(lambda view: view.ledger.after(2))
    verify_chain(store.read(lambda view: view.ledger.after(0)))
    store.close()

    assert number == 9999
    assert "planted" in tables
    assert found == rows.world()
    assert (event.kind, event.actor, event.subject) == (
        "workspace.migrated",
        "act_andon",
        "workspace:workspace",
    )
    assert event.facts == {"from": LAST, "to": 9999, "name": "planted"}


def test_opening_again_changes_nothing(place: Place) -> None:
    for _ in range(2):
        store = open_with(place, NEXT)
        events = kinds(store)
        store.close()

    assert events == ["workspace.created", "actor.created", "workspace.migrated"]
    assert len(list(place.layout.backups.iterdir())) == 1


def test_a_backup_of_the_old_schema_is_made_first(place: Place) -> None:
    open_with(place, NEXT).close()

    (backup,) = place.layout.backups.iterdir()
    assert backup.name.startswith("before-schema-9999-")
    assert backup.stat().st_mode & 0o077 == 0
    if backup.suffix == ".db":
        copy = Place(Layout(backup.parent / "copy" / ".andon"), Settings())
        copy.layout.create()
        backup.rename(copy.layout.database)
        store = copy.open()
        found = store.read(lambda view: [rows.rows_of(view, type(row)).get(row.id) for row in rows.world()])
        number = schema(store)[0]
        store.close()
        assert (number, found) == (LAST, rows.world())
    else:
        lines = [json.loads(line) for line in backup.read_text().splitlines()]
        assert lines[0] == {
            "table": "schema_version",
            "row": {**lines[0]["row"], "number": 1, "name": "first"},
        }
        assert [line["row"]["number"] for line in lines if line["table"] == "schema_version"] == [
            step.number for step in MIGRATIONS
        ]
        assert {line["row"]["id"] for line in lines if line["table"] == "runs"} == {"r1", "r2", "r3"}
        assert "planted" not in {line["table"] for line in lines}


def test_a_dump_in_ndjson_is_loaded_where_it_is_wanted(postgres_place: Place, sqlite_place: Place) -> None:
    """What the migrator saved of Postgres is a way back: its lines, table by table, are what `load` takes."""
    store = postgres_place.open()
    put(store, *rows.world())
    store.close()
    open_with(postgres_place, NEXT).close()
    (backup,) = postgres_place.layout.backups.iterdir()

    store = sqlite_place.open()
    store.load(tables_of(backup))
    found = store.read(lambda view: [rows.rows_of(view, type(row)).get(row.id) for row in rows.world()])
    store.close()

    assert found == rows.world()


def test_a_newer_schema_is_refused_and_left_alone(place: Place) -> None:
    open_with(place, NEXT).close()

    with pytest.raises(SchemaTooNew, match=f"has schema 9999, and this Andon knows up to {LAST}"):
        place.open()

    store = open_with(place, NEXT)
    assert schema(store)[0] == 9999
    store.close()


def test_a_step_that_fails_leaves_the_old_schema(place: Place) -> None:
    with pytest.raises(AndonError, match="no_such_column"):
        open_with(place, BROKEN)

    store = place.open()
    number, tables = schema(store)
    events = kinds(store)
    put(store, rows.trigger("tr_2", "manual:2"))
    store.close()
    assert number == LAST
    assert "planted" not in tables
    assert events == ["workspace.created", "actor.created"]


def test_a_process_killed_in_the_middle_leaves_the_old_schema(place: Place) -> None:
    child = processes().Process(target=migrate_until_killed, args=(place,))
    child.start()
    child.join(DEADLINE_S)
    assert child.exitcode == -signal.SIGKILL

    store = place.open()
    number, tables = schema(store)
    store.close()
    again = open_with(place, NEXT)
    after = schema(again)[0]
    again.close()

    assert number == LAST
    assert "planted" not in tables
    assert after == 9999


def test_of_many_who_open_at_once_one_migrates(place: Place) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_with(place, NEXT), range(4)))

    events = [kinds(store) for store in stores]
    for store in stores:
        store.close()
    assert events == [["workspace.created", "actor.created", "workspace.migrated"]] * 4
    assert len(list(place.layout.backups.iterdir())) == 1


def test_a_dump_of_an_older_schema_is_brought_up_to_date(place: Place, tmp_path: Path) -> None:
    old = place.open()
    tables = list(old.tables())
    old.close()
    new = open_with(Place(Layout(tmp_path / "new" / ".andon"), Settings()), NEXT)

    new.load(tables)

    number, names = schema(new)
    found = new.read(lambda view: [rows.rows_of(view, type(row)).get(row.id) for row in rows.world()])
    events = kinds(new)
    verify_chain(new.read(lambda view: view.ledger.after(0)))
    new.close()
    assert number == 9999
    assert "planted" in names
    assert found == rows.world()
    assert events == ["workspace.created", "actor.created", "workspace.migrated"]


def test_a_dump_of_a_newer_schema_is_refused(place: Place, tmp_path: Path) -> None:
    newer = open_with(place, NEXT)
    tables = list(newer.tables())
    newer.close()
    store = open_store(Layout(tmp_path / "new" / ".andon"), Settings())

    with pytest.raises(SchemaTooNew, match="this has schema 9999"):
        store.load(tables)

    assert schema(store)[0] == LAST
    store.close()


def test_a_step_after_which_rows_refer_to_nothing_is_refused(sqlite_place: Place) -> None:
    store = sqlite_place.open()
    put(store, *rows.world())
    store.close()

    with pytest.raises(Corrupt, match="rows refer to nothing"):
        open_with(sqlite_place, Migration(9999, "careless", ("DELETE FROM lines",)))

    store = sqlite_place.open()
    assert store.read(lambda view: view.lines.count()) == 2
    store.close()


# --- a workspace of the first release, schema 1 ---


@pytest.fixture(params=["sqlite", "postgres"])
def old_place(request: pytest.FixtureRequest) -> Place:
    """A workspace that the first release wrote."""
    return by_release_0_1(request.getfixturevalue(f"{request.param}_place"))


@pytest.fixture(params=["sqlite, opened", "postgres, opened", "sqlite, loaded", "postgres, loaded"])
def upgraded(request: pytest.FixtureRequest) -> Iterator[Store]:
    """The same workspace under the Andon of today: opened where it is, or its dump loaded into a new one."""
    kind, _, how = request.param.partition(", ")
    place: Place = request.getfixturevalue(f"{kind}_place")
    store = (by_release_0_1(place) if how == "opened" else place).open()
    if how == "loaded":
        store.load(tables_of(SCHEMA_1))
    yield store
    store.close()


def test_runs_of_the_first_release_are_in_the_experiments_of_their_lines(upgraded: Store) -> None:
    experiments = upgraded.read(lambda view: view.experiments.select(order=("number",)))
    runs = upgraded.read(lambda view: view.runs.select())

    assert [(row.id, row.number, row.name, row.actor, row.deleted_at) for row in experiments] == [
        ("0", 0, "Default", "act_andon", None),
        ("1", 1, "churn", "act_ann", None),
        ("2", 2, "fraud", "act_ann", None),
    ]
    assert [(run.id, run.number, run.experiment, run.line, run.seals) for run in runs] == [
        ("r0", 1, "2", "fraud", 0),
        ("r1", 2, "1", "churn", 0),
        ("r2", 3, "1", "churn", 1),
        ("r3", 4, "0", "Default", 0),
    ]
    full = next(row for row in rows.world() if row.id == "r2")
    assert runs[2] == replace(full, number=3, name=None)  # type: ignore[type-var]
    assert upgraded.write(lambda tx: (tx.counters.next("experiment"), tx.counters.next("run"))) == (3, 5)


def test_params_and_metrics_of_the_first_release_stay(upgraded: Store) -> None:
    runs = upgraded.read(lambda view: view.runs.select())
    params = upgraded.read(lambda view: view.params.of([run.number for run in runs]))
    latest = upgraded.read(lambda view: view.metrics.latest(runs))
    auc = upgraded.read(lambda view: view.metrics.history(runs[1], "auc"))

    at_ms = to_us(rows.AT) // 1000
    assert params == {
        1: {},
        2: {"depth": "6", "exact": "x" * 200, "long": "é" * 199 + "ab" + "c" * 300},
        3: {"empty % _ \\": ""},
        4: {},
    }
    assert repr(latest) == repr(
        {
            1: {},
            2: {"auc": Point("auc", 0.7, at_ms, 2), "loss": Point("loss", math.nan, at_ms, 3)},
            3: {"auc": Point("auc", -math.inf, at_ms), "é % _ \\": Point("é % _ \\", 1e-300, at_ms, -5)},
            4: {},
        }
    )
    assert [(point.step, point.at_ms - at_ms, point.value) for point in auc] == [
        (0, 0, 0.5),
        (1, 540_000, 0.6),
        (2, -60_000, 0.65),
        (2, 0, 0.7),
    ]


def test_params_and_metrics_of_the_first_release_are_found_by_a_search(upgraded: Store) -> None:
    by_metric = Query(
        noun="run", scope=("1",), where=(Condition(Field("metric", "auc"), ">", 0.6),),
    )  # fmt: skip
    by_param = Query(
        noun="run", scope=("0", "1", "2"), where=(Condition(Field("param", "long"), "LIKE", "%cc"),),
    )  # fmt: skip

    found = upgraded.read(lambda view: (view.search(by_metric), view.search(by_param)))

    assert [page.ids for page in found] == [("r1",), ("r1",)]


def test_what_is_logged_to_a_run_of_the_first_release_counts_as_ever(upgraded: Store) -> None:
    run = upgraded.read(lambda view: view.runs.get("r1"))
    at_ms = to_us(rows.AT) // 1000

    upgraded.write(lambda tx: tx.metrics.log(run, [Point("auc", 0.7, at_ms, 2), Point("auc", 0.9, at_ms, 1)]))
    upgraded.write(lambda tx: tx.params.add(owner(run), {"depth": "6"}))

    assert upgraded.read(lambda view: view.metrics.latest([run])[2]["auc"]) == Point("auc", 0.7, at_ms, 2)
    with pytest.raises(Conflict, match="depth"):
        upgraded.write(lambda tx: tx.params.add(owner(run), {"depth": "7"}))


def test_models_versions_and_releases_of_the_first_release_stay(upgraded: Store) -> None:
    world = {(type(row), row.id): row for row in rows.world()}
    models = upgraded.read(lambda view: view.models.select())
    versions = upgraded.read(lambda view: view.model_versions.select())
    releases = upgraded.read(lambda view: view.releases.select())

    assert [(row.id, row.actor, row.created_at) for row in models] == [("churn", "act_andon", rows.AT)]
    assert versions == [world[ModelVersion, "mv_1"], world[ModelVersion, "mv_2"]]
    assert releases == [world[Release, "rel_1"], world[Release, "rel_2"]]
    with pytest.raises(AlreadyExists, match="one live release at most"):
        put(upgraded, replace(releases[0], id="rel_9", state="live"))


def test_all_other_rows_of_the_first_release_stay(upgraded: Store) -> None:
    new = {
        "Experiment",
        "Run",
        "RunInput",
        "RunModel",
        "LoggedModel",
        "Artifact",
        "Model",
        "Alias",
        "ModelVersion",
    }
    old = [row for row in rows.world() if type(row).__name__ not in new]

    found = upgraded.read(lambda view: [rows.rows_of(view, type(row)).get(row.id) for row in old])

    assert found == old


def test_the_ledger_of_the_first_release_goes_on(upgraded: Store) -> None:
    chain = upgraded.read(lambda view: view.ledger.after(0))

    assert verify_chain(chain) == upgraded.read(lambda view: view.ledger.head())
    assert [event.kind for event in chain] == [
        "workspace.created", "actor.created", "run.created", "workspace.migrated",
    ]  # fmt: skip
    assert chain[-1].facts == {"from": 1, "to": 2, "name": "tracking"}


def test_the_database_of_the_first_release_is_kept_before_it_is_changed(old_place: Place) -> None:
    old_place.open().close()

    (backup,) = old_place.layout.backups.iterdir()
    assert backup.name.startswith("before-schema-2-")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_workspace_of_the_first_release_without_a_line_is_brought_up_too(
    request: pytest.FixtureRequest, kind: str
) -> None:
    place: Place = request.getfixturevalue(f"{kind}_place")
    place.layout.create()
    begun = {"schema_version", "actors", "events", "edges", "ledger_head", "personal", "workspaces"}
    tables = [(name, found) for name, found in tables_of(SCHEMA_1) if name in begun]
    url = place.settings.database_url
    backend: Backend = Postgres(url) if url else Sqlite(place.layout.database)
    dump.load(backend, tables, SystemClock().now(), MIGRATIONS[:1])
    backend.writer.dispose()
    backend.close()

    store = place.open()
    names = [row.name for row in store.read(lambda view: view.experiments.select())]
    numbers = store.write(lambda tx: (tx.counters.next("experiment"), tx.counters.next("run")))
    store.close()

    assert (names, numbers) == (["Default"], (1, 1))


# --- what cannot be opened ---


def test_a_file_that_is_no_database_is_said_to_be_none(sqlite_place: Place) -> None:
    sqlite_place.layout.create()
    sqlite_place.layout.database.write_bytes(b"not a database at all" * 500)

    with pytest.raises(Unavailable, match=r"andon\.db cannot be used: file is not a database"):
        sqlite_place.open()


def test_a_database_of_somebody_else_is_not_taken_for_an_empty_one(sqlite_place: Place) -> None:
    sqlite_place.layout.create()
    connection = sqlite3.connect(sqlite_place.layout.database)
    connection.execute("CREATE TABLE runs (run_uuid TEXT)")
    connection.close()

    with pytest.raises(Invalid, match="table runs already exists"):
        sqlite_place.open()

    connection = sqlite3.connect(sqlite_place.layout.database)
    names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert names == [("runs",)]


@pytest.mark.parametrize(
    ("url", "error", "named"),
    [
        ("mysql://ann@localhost/x", Invalid, "names a mysql database"),
        ("what is this", Invalid, "is not an address"),
        (
            "postgresql://u:secret@127.0.0.1:1/x",
            Unavailable,
            r"u:\*\*\*@127\.0\.0\.1:1/x does not answer",
        ),
    ],
    ids=["mysql", "nonsense", "nobody there"],
)
def test_an_address_that_leads_nowhere_is_named(
    tmp_path: Path, url: str, error: type[AndonError], named: str
) -> None:
    with pytest.raises(error, match=named) as raised:
        open_store(Layout(tmp_path / ".andon"), Settings(database_url=url))

    assert "secret" not in str(raised.value)


def test_a_missing_driver_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(MissingExtra, match=r'pip install "andon\[postgres\]"'):
        open_store(Layout(tmp_path / ".andon"), Settings(database_url="postgresql://localhost/x"))
