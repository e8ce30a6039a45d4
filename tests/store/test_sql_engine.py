"""What the two databases do in their own way: groups, full disks, broken files, lost connections."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from andon.core.clock import SystemClock
from andon.core.entities import Cursor, Personal
from andon.core.errors import Conflict, StorageFull, Unavailable
from andon.core.events import verify_chain
from andon.core.workspace import Layout
from andon.store.ports import Store, Transaction
from andon.store.sql import engine as engine_module
from andon.store.sql import sqlite as sqlite_module
from andon.store.sql.backend import Backend
from andon.store.sql.engine import SqlStore
from andon.store.sql.migrate import migrate
from andon.store.sql.postgres import Postgres
from andon.store.sql.sqlite import Sqlite
from andon.testing import rows
from andon.testing.stores.place import put

DEADLINE_S = 30.0


class Opened:
    """A backend and the store over it."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        migrate(backend, Layout(folder).create(), SystemClock())
        self.backend = backend
        self.store = SqlStore(backend, SystemClock())


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(Sqlite(tmp_path / "andon.db"), tmp_path)
    yield opened
    opened.store.close()


@pytest.fixture
def postgres(tmp_path: Path, postgres_url: str) -> Iterator[Opened]:
    opened = Opened(Postgres(postgres_url), tmp_path)
    yield opened
    opened.store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest) -> Opened:
    opened: Opened = request.getfixturevalue(request.param)
    return opened


def tell(tx: Transaction, ident: str = "r1") -> None:
    """A row and its event."""
    tx.cursors.add(Cursor(id=ident, seq=0))
    tx.ledger.append(rows.draft(ident=ident))


@contextmanager
def counted(engine: Engine, what: str) -> Iterator[list[object]]:
    """How often a connection of an engine does something meanwhile."""
    seen: list[object] = []

    def note(*given: object) -> None:
        seen.append(given[0])

    event.listen(engine, what, note)
    yield seen
    event.remove(engine, what, note)


@contextmanager
def held_up(store: Store) -> Iterator[None]:
    """Work that is handed in meanwhile waits, and then goes together."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: Transaction) -> None:
        begun.set()
        assert go_on.wait(DEADLINE_S)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.write, wait)
        assert begun.wait(DEADLINE_S)
        yield
        go_on.set()
        waiting.result(DEADLINE_S)


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for other threads to come to where they are wanted."""
    deadline_s, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not true():
        assert time.monotonic() < deadline_s
        pause.wait(0.001)


# --- groups ---


def test_what_is_handed_in_together_is_committed_together(either: Opened) -> None:
    with counted(either.backend.writer, "commit") as commits, ThreadPoolExecutor(8) as pool:
        with held_up(either.store):
            work = [pool.submit(either.store.write, lambda tx, n=n: tell(tx, str(n))) for n in range(8)]
            wait_until(lambda: either.store._jobs.qsize() == 8)
        for each in work:
            each.result(DEADLINE_S)

    assert len(commits) == 1
    assert verify_chain(either.store.read(lambda view: view.ledger.after(0)))[0] == 10


def test_eight_busy_threads_get_more_than_four_writes_into_a_commit(either: Opened) -> None:
    numbers = itertools.count()

    def go_on(_: int) -> None:
        for _ in range(50):
            either.store.write(lambda tx: tell(tx, str(next(numbers))))

    with counted(either.backend.writer, "commit") as commits, ThreadPoolExecutor(8) as pool:
        list(pool.map(go_on, range(8)))

    assert 400 / len(commits) > 4


def test_an_error_of_the_database_in_one_piece_of_work_fails_no_other(either: Opened) -> None:
    def spoilt(tx: Any) -> None:
        tell(tx, "spoilt")
        tx._session.connection.exec_driver_sql("SELECT nonsense")

    with ThreadPoolExecutor(3) as pool, held_up(either.store):
        work = [pool.submit(either.store.write, each) for each in (tell, spoilt, lambda tx: tell(tx, "r2"))]

    assert [type(each.exception(DEADLINE_S)).__name__ for each in work] == ["NoneType", "Invalid", "NoneType"]
    assert {row.id for row in either.store.read(lambda view: view.cursors.select())} == {"r1", "r2"}
    assert verify_chain(either.store.read(lambda view: view.ledger.after(0)))[0] == 4


# --- SQLite: full, broken, locked, large ---


def test_on_a_full_disk_what_does_not_fit_is_refused_alone(sqlite: Opened) -> None:
    pages = sqlite.store.read(
        lambda view: view.runs._session.connection.exec_driver_sql("PRAGMA page_count").scalar()
    )  # type: ignore[attr-defined]

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 20}")

    event.listen(sqlite.backend.writer, "begin", limit)
    big = Personal(id="big", subject="x", salt="", text="x" * 400_000)
    with ThreadPoolExecutor(3) as pool, held_up(sqlite.store):
        work = [
            pool.submit(sqlite.store.write, each)
            for each in (tell, lambda tx: tx.personal.add(big), lambda tx: tell(tx, "r2"))
        ]

    refused = work[1].exception(DEADLINE_S)
    assert isinstance(refused, StorageFull)
    assert "there is no room left" in str(refused)
    assert [work[n].exception(DEADLINE_S) for n in (0, 2)] == [None, None]
    assert sqlite.store.read(lambda view: (view.personal.count(), view.cursors.count())) == (0, 2)
    sqlite.store.write(lambda tx: tell(tx, "r3"))


LIMITED = """
import resource, signal, sys
from pathlib import Path
from andon.core.entities import Cursor, Personal
from andon.core.errors import AndonError
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.sql.sqlite import Sqlite
layout = Layout(Path(sys.argv[1]))
store = open_store(layout, Settings())
if sys.argv[2] == "broken":  # the operating system's error stays, what is made of it does not
    Sqlite._no_room = lambda self: False
written = 0
def write(n):
    store.write(lambda tx: tx.personal.add(Personal(id=str(n), subject="x", salt="", text="x" * 5000)))
def attempt(n):
    try:
        write(n)
    except AndonError as error:
        return type(error).__name__
    return "written"
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
while (answer := attempt(written)) == "written":
    written += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(written, answer, attempt("later"), store.read(lambda view: view.personal.count()))
store.close()
store = open_store(layout, Settings())
print(attempt("reopened"), store.read(lambda view: view.personal.count()))
store.close()
"""


def limited(folder: Path, what: str) -> list[str]:
    """A process that may write files of a megabyte only: what it wrote, and what it was answered then and later."""
    command = [sys.executable, "-W", "error", "-c", LIMITED, str(folder), what]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_when_files_may_not_grow_nothing_acknowledged_is_lost_and_writing_goes_on_later(
    tmp_path: Path,
) -> None:
    written, answer, later, count, reopened, after = limited(tmp_path / ".andon", "full")

    assert (answer, later, reopened) == ("StorageFull", "written", "written")
    assert int(written) > 10
    assert (int(count), int(after)) == (int(written) + 1, int(written) + 2)


def test_after_an_error_of_the_disk_nothing_is_written_until_the_store_is_opened_again(
    tmp_path: Path,
) -> None:
    written, answer, later, count, reopened, after = limited(tmp_path / ".andon", "broken")

    assert (answer, later, reopened) == ("Unavailable", "Unavailable", "written")
    assert (int(count), int(after)) == (int(written), int(written) + 1)


def test_a_lock_of_a_foreign_program_is_waited_for(
    sqlite: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = sqlite3.connect(tmp_path / "andon.db", isolation_level=None)
    tried = threading.Event()
    event.listen(sqlite.backend.writer, "handle_error", lambda _: tried.set())
    event.listen(
        sqlite.backend.writer, "connect", lambda driver, _: driver.execute("PRAGMA busy_timeout = 1").close()
    )
    foreign.execute("BEGIN IMMEDIATE")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(sqlite.store.write, tell)
        assert tried.wait(DEADLINE_S)
        foreign.execute("COMMIT")
        writing.result(DEADLINE_S)
    foreign.close()

    assert sqlite.store.read(lambda view: view.cursors.count()) == 1


def test_a_process_that_never_ends_its_turn_is_given_up_on(
    sqlite: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_S", 0.05)
    stuck = Sqlite(sqlite.backend._path)  # type: ignore[attr-defined]

    with stuck.turn(), pytest.raises(Unavailable, match="another process has held the database"):
        sqlite.store.write(tell)

    stuck.close()
    sqlite.store.write(tell)
    assert sqlite.store.read(lambda view: view.cursors.count()) == 1


def test_a_turn_is_handed_over_to_who_waits(
    sqlite: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two stores that both have much to write, neither waits until the other has written all of it."""
    monkeypatch.setattr(engine_module, "LARGEST_GROUP", 1)
    many = 40
    first = Sqlite(tmp_path / "andon.db")
    stores = {"a": sqlite.store, "b": SqlStore(Sqlite(tmp_path / "andon.db"), SystemClock())}

    with ThreadPoolExecutor(2 * many) as pool:
        with first.turn():
            work = [
                pool.submit(store.write, lambda tx, name=name, n=n: tell(tx, f"{name} {n}"))
                for n in range(many)
                for name, store in stores.items()
            ]
            for store in stores.values():
                wait_until(lambda store=store: store._jobs.qsize() == many - 1)
        for each in work:
            each.result(DEADLINE_S)
    stores["b"].close()
    first.close()

    events = sqlite.store.read(lambda view: view.ledger.after(2))
    turns = [len(list(run)) for _, run in itertools.groupby(event.subject.split()[0] for event in events)]
    assert sum(turns) == 2 * many
    assert len(turns) >= 10


def test_the_log_is_cut_back_when_a_long_reader_has_gone(
    sqlite: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "WAL_BYTES", 500_000)
    monkeypatch.setattr(sqlite_module, "CUT_EVERY_S", 0.0)
    log = tmp_path / "andon.db-wal"

    def write_much(name: str) -> None:
        for n in range(12):
            text = Personal(id=f"{name}{n}", subject="x", salt="", text="x" * 100_000)
            sqlite.store.write(lambda tx, text=text: tx.personal.add(text))  # type: ignore[misc]

    def look(view: Any) -> int:
        view.personal.count()
        write_much("a")
        return log.stat().st_size

    large = sqlite.store.read(look)
    for ident in ("r1", "r2"):  # the second is taken up when the log has been seen to after the first
        sqlite.store.write(lambda tx, ident=ident: tell(tx, ident))  # type: ignore[misc]

    assert large > 1_000_000
    assert log.stat().st_size < 100_000


def test_every_connection_is_as_safe_as_it_must_be(sqlite: Opened) -> None:
    def pragmas(engine: Engine) -> list[object]:
        with engine.connect() as connection:
            names = ("journal_mode", "synchronous", "foreign_keys", "query_only")
            return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    other = Sqlite(sqlite.backend._path)  # type: ignore[attr-defined]
    assert pragmas(other.writer) == ["wal", 2, 1, 0]
    assert pragmas(other.reader) == ["wal", 2, 1, 1]
    other.writer.dispose()
    other.close()


def test_opening_and_closing_a_hundred_times_leaves_nothing_behind(tmp_path: Path) -> None:
    def once() -> tuple[int, int]:
        opened = Opened(Sqlite(tmp_path / "andon.db"), tmp_path)
        opened.store.write(lambda tx: tx.cursors.count())
        opened.store.read(lambda view: view.cursors.count())
        opened.store.close()
        return len(list(Path("/dev/fd").iterdir())), threading.active_count()

    first = once()

    assert {once() for _ in range(100)} == {first}


# --- Postgres: lost connections, two stores, stricter and laxer servers ---


def server(url: str) -> Any:
    """A connection of somebody else's."""
    from psycopg import connect

    return connect(url, autocommit=True)


def connection_lost() -> Exception:
    from psycopg import OperationalError

    return OperationalError("the connection is lost")


def end_writer(postgres: Opened, url: str) -> None:
    """What a restart of the server does to the writer's connection."""
    with server(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'andon' AND state <> 'idle' AND datname = current_database()"
        )


def test_work_whose_connection_breaks_is_done_again_once(postgres: Opened, postgres_url: str) -> None:
    attempts: list[int] = []

    def work(tx: Transaction) -> int:
        attempts.append(1)
        tell(tx)
        if len(attempts) == 1:
            end_writer(postgres, postgres_url)
        return tx.cursors.count()

    assert postgres.store.write(work) == 1
    assert len(attempts) == 2
    assert verify_chain(postgres.store.read(lambda view: view.ledger.after(0)))[0] == 3


@pytest.mark.parametrize("arrived", [True, False], ids=["after", "before"])
def test_when_the_answer_to_a_commit_is_lost_it_is_looked_for(
    postgres: Opened, postgres_url: str, monkeypatch: pytest.MonkeyPatch, *, arrived: bool
) -> None:
    attempts: list[int] = []
    dialect = postgres.backend.writer.dialect
    commit = dialect.do_commit

    def lose(connection: Any) -> None:
        monkeypatch.setattr(dialect, "do_commit", commit)
        if arrived:
            commit(connection)
        connection.driver_connection.close()
        raise connection_lost()

    def work(tx: Transaction) -> None:
        attempts.append(1)
        tell(tx)

    monkeypatch.setattr(dialect, "do_commit", lose)
    postgres.store.write(work)

    assert len(attempts) == (1 if arrived else 2)
    assert postgres.store.read(lambda view: view.cursors.count()) == 1
    assert verify_chain(postgres.store.read(lambda view: view.ledger.after(0)))[0] == 3


def test_when_nothing_shows_whether_a_commit_arrived_it_is_said(
    postgres: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = postgres.backend.writer.dialect
    commit = dialect.do_commit

    def lose(connection: Any) -> None:
        monkeypatch.setattr(dialect, "do_commit", commit)
        connection.driver_connection.close()
        raise connection_lost()

    monkeypatch.setattr(dialect, "do_commit", lose)
    with pytest.raises(Unavailable, match="may be there or not"):
        postgres.store.write(lambda tx: tx.cursors.add(Cursor(id="x", seq=0)))

    put(postgres.store, Cursor(id="y", seq=0))


def test_a_crash_of_the_server_under_load_loses_nothing(postgres: Opened, postgres_url: str) -> None:
    written: list[str] = []
    crashes = 3

    def go_on(thread: int) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            ident = f"{thread}.{n}"
            postgres.store.write(lambda tx, ident=ident: tell(tx, ident))  # type: ignore[misc]
            written.append(ident)
            more.set()

    stop, more = threading.Event(), threading.Event()
    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(go_on, thread) for thread in range(4)]
        for _ in range(crashes):
            for _ in range(10):
                assert more.wait(DEADLINE_S)
                more.clear()
            os.kill(a_server_process(postgres_url), signal.SIGKILL)
        for _ in range(10):
            assert more.wait(DEADLINE_S)
            more.clear()
        stop.set()
        for thread in threads:
            thread.result(DEADLINE_S)

    found = [row.id for row in postgres.store.read(lambda view: view.cursors.select(limit=100_000))]
    events = postgres.store.read(lambda view: view.ledger.after(0, limit=100_000))
    assert sorted(written) == found
    assert sorted(event.subject for event in events[2:]) == [f"run:{ident}" for ident in found]
    assert verify_chain(events)[0] == len(found) + 2


def a_server_process(url: str) -> int:
    """One of the server's processes; when it is killed, the server ends all others and recovers."""
    from psycopg import OperationalError

    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with (
            suppress(OperationalError),
            server(url) as connection,
        ):  # it may still recover from the crash before
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'andon' AND datname = current_database()"
            ).fetchone()
            if row is not None:
                return int(row[0])
    raise AssertionError("the server does not come back")


def test_a_reader_whose_connection_broke_gets_a_new_one(postgres: Opened, postgres_url: str) -> None:
    assert postgres.store.read(lambda view: view.cursors.count()) == 0
    with server(postgres_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'andon'"
        )

    assert postgres.store.read(lambda view: view.cursors.count()) == 0


def test_a_deadlock_between_two_stores_is_solved_by_doing_one_again(
    postgres: Opened, postgres_url: str
) -> None:
    put(postgres.store, Cursor(id="a", seq=0), Cursor(id="b", seq=0))
    other = SqlStore(Postgres(postgres_url), SystemClock())
    both = threading.Barrier(2)
    met = [False, False]

    def raise_two(first: str, second: str, me: int) -> Any:
        def work(tx: Transaction) -> None:
            for name in (first, second):
                row = tx.cursors.get(name)
                tx.cursors.change(Cursor(id=name, seq=row.seq + 1, rev=row.rev))
                if not met[me]:
                    met[me] = True
                    both.wait(DEADLINE_S)

        return work

    def write(store: Store, work: Any) -> None:
        while True:
            try:
                return store.write(work)
            except Conflict:
                continue

    with ThreadPoolExecutor(2) as pool:
        ways = [
            pool.submit(write, postgres.store, raise_two("a", "b", 0)),
            pool.submit(write, other, raise_two("b", "a", 1)),
        ]
        for way in ways:
            way.result(DEADLINE_S)
    other.close()

    assert [row.seq for row in postgres.store.read(lambda view: view.cursors.select())] == [2, 2]


def test_a_careless_server_is_told_to_be_durable(postgres: Opened, postgres_url: str) -> None:
    with server(postgres_url) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    careless, other = Postgres(postgres_url), []

    for engine in (careless.writer, careless.reader, careless.admin):
        with engine.connect() as connection_of_ours:
            other.append(connection_of_ours.exec_driver_sql("SHOW synchronous_commit").scalar())
    careless.writer.dispose()
    careless.close()

    assert other == ["on"] * 3
