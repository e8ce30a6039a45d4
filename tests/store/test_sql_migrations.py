"""The migrator: once, under a lock, after a backup, whole or not at all, never backwards."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from andon.core.clock import SystemClock
from andon.core.errors import AndonError, Corrupt, Invalid, MissingExtra, SchemaTooNew, Unavailable
from andon.core.events import verify_chain
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.ports import Store
from andon.store.sql.migrations import MIGRATIONS, Migration
from andon.store.sql.opening import open_sql
from andon.testing import rows
from andon.testing.stores import Place
from andon.testing.stores.place import put
from andon.testing.stores.processes import processes

DEADLINE_S = 60.0
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
    assert event.facts == {"from": 1, "to": 9999, "name": "planted"}


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
        assert (number, found) == (1, rows.world())
    else:
        lines = [json.loads(line) for line in backup.read_text().splitlines()]
        assert lines[0] == {
            "table": "schema_version",
            "row": {**lines[0]["row"], "number": 1, "name": "first"},
        }
        assert {line["row"]["id"] for line in lines if line["table"] == "runs"} == {"r1", "r2"}
        assert "planted" not in {line["table"] for line in lines}


def test_a_dump_in_ndjson_is_loaded_where_it_is_wanted(postgres_place: Place, sqlite_place: Place) -> None:
    """What the migrator saved of Postgres is a way back: its lines, table by table, are what `load` takes."""
    store = postgres_place.open()
    put(store, *rows.world())
    store.close()
    open_with(postgres_place, NEXT).close()
    (backup,) = postgres_place.layout.backups.iterdir()
    tables: dict[str, list[dict[str, object]]] = {}
    for line in backup.read_text().splitlines():
        given = json.loads(line)
        tables.setdefault(given["table"], []).append(given["row"])

    store = sqlite_place.open()
    store.load(iter(tables.items()))  # type: ignore[arg-type]
    found = store.read(lambda view: [rows.rows_of(view, type(row)).get(row.id) for row in rows.world()])
    store.close()

    assert found == rows.world()


def test_a_newer_schema_is_refused_and_left_alone(place: Place) -> None:
    open_with(place, NEXT).close()

    with pytest.raises(SchemaTooNew, match="has schema 9999, and this Andon knows up to 1"):
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
    assert number == 1
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

    assert number == 1
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

    assert schema(store)[0] == 1
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
