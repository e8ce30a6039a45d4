"""What is SQLite's own: how connections are set up, who may write when, and what its errors mean.

Every commit is on disk before it is answered (`synchronous=FULL`; with NORMAL a power cut loses acknowledged commits).
"""

from __future__ import annotations

import fcntl
import math
import os
import resource
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

from andon.core.errors import AndonError, Corrupt, Invalid, StorageFull, Unavailable
from andon.store.files import LOCAL, sync_folder
from andon.store.sql.backend import Fault
from andon.store.sql.collection import Many, Session

BUSY_S: Final = 30.0
WAL_PAGES: Final = 1000
WAL_BYTES: Final = 64 * 2**20
"""The write-ahead log is cut back to this size."""
CUT_EVERY_S: Final = 1.0
"""How often its size is looked at, and cutting it is tried."""

_PRAGMAS: Final = (
    "journal_mode = wal",
    "synchronous = full",
    "fullfsync = on",
    "checkpoint_fullfsync = on",
    f"busy_timeout = {int(BUSY_S * 1000)}",
    f"wal_autocheckpoint = {WAL_PAGES}",
    f"journal_size_limit = {WAL_BYTES}",
    "trusted_schema = off",
    "temp_store = memory",
    "cache_size = -8000",
)
_DAMAGED: Final = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CANTOPEN,
}


class Sqlite:
    """`backend.Backend` over one file, which is made, private to its user, when it is not there."""

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        _make(path)
        self.writer = _engine(path, begin="BEGIN IMMEDIATE", foreign_keys=True, one_thread=True)
        self.reader = _engine(path, begin="BEGIN", foreign_keys=True, query_only=True)
        self.admin = _engine(path, begin="BEGIN IMMEDIATE", foreign_keys=False, pooled=False)
        self._cut_s = -math.inf
        self._turnstile = _Turnstile(path.with_name(path.name + ".turn"), path.with_name(path.name + ".next"))

    def session(self, connection: Connection, *, writable: bool) -> Session:
        return Session(connection, insert, nullcontext, writable, _many)

    @contextmanager
    def turn(self) -> Iterator[None]:
        self._turnstile.enter()
        try:
            yield
        finally:
            self._turnstile.leave()

    def tidy(self) -> None:
        """Cut the write-ahead log back when readers have kept SQLite from doing it in passing."""
        if time.monotonic() - self._cut_s < CUT_EVERY_S:
            return
        self._cut_s = time.monotonic()
        try:
            large = self._wal.stat().st_size > WAL_BYTES
        except OSError:
            return
        if large:
            # As in SQLite's own checkpoints an error loses nothing: all of it stays in the log, for the next attempt.
            with suppress(sqlite3.Error, DBAPIError), self.admin.connect() as connection:
                driver: Any = connection.connection.driver_connection
                driver.execute(
                    "PRAGMA busy_timeout = 0"
                )  # a reader that still needs the log is not waited for
                driver.execute("PRAGMA wal_checkpoint(truncate)").close()

    def judge(self, error: DBAPIError) -> Fault:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is None:
            return Fault.REFUSED
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            return Fault.AGAIN
        if code & 0xFF == sqlite3.SQLITE_FULL or (code & 0xFF == sqlite3.SQLITE_IOERR and self._no_room()):
            return Fault.FULL
        return Fault.DAMAGED if code & 0xFF in _DAMAGED else Fault.REFUSED

    def explain(self, error: DBAPIError) -> AndonError:
        match self.judge(error):
            case Fault.FULL:
                return StorageFull(
                    f"there is no room left for {self._path}; nothing of this was stored",
                    hint="free some space and try again",
                )
            case Fault.AGAIN:
                return Unavailable(f"{self._path} is locked by another process", hint="try again")
            case Fault.DAMAGED:
                return Unavailable(
                    f"{self._path} cannot be used: {error.orig}; whether this was stored shows when it is opened again",
                    hint="check the disk, then start again",
                )
            case _:
                return Invalid(f"{self._path} refused a statement: {error.orig}")

    @contextmanager
    def alone(self) -> Iterator[None]:
        with _opened(self._path.with_name(self._path.name + ".migrate")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def spell(self, ddl: str) -> str:
        return ddl

    def check_references(self, connection: Connection) -> None:
        lost = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if lost:
            raise Corrupt(f"{len(lost)} rows refer to nothing, the first one of them in {lost[0][0]}")

    def save(self, folder: Path, name: str, at: datetime) -> Path:
        target = folder / f"{name}-{at:%Y%m%dT%H%M%S%f}.db"
        with self.admin.connect() as connection:
            _make(target)
            copy = sqlite3.connect(target)
            try:
                source: Any = connection.connection.driver_connection
                source.backup(copy)
            finally:
                copy.close()
        with _opened(target) as descriptor:
            LOCAL.sync(descriptor)
        sync_folder(folder)
        return target

    def close(self) -> None:
        self.reader.dispose()
        self.admin.dispose()
        self._turnstile.close()

    def _no_room(self) -> bool:
        """Whether the file system or a limit of this process leaves no room to grow."""
        state = os.statvfs(self._path.parent)
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        sizes = [path.stat().st_size for path in (self._path, self._wal) if path.exists()]
        beyond = limit != resource.RLIM_INFINITY and max(sizes, default=0) + 2**16 > limit
        return beyond or state.f_bavail * state.f_frsize < 2**16


class _Turnstile:
    """Two file locks by which processes write in turns.

    SQLite's own busy handler polls, so a process that commits without a break would starve the others. Here who waits
    holds `next`, and who has just ended its turn must get `next` before `turn`: the turn is handed over.
    """

    def __init__(self, turn: Path, following: Path) -> None:
        self._turn = os.open(turn, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._next = os.open(following, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._open: tuple[int, ...] = (self._turn, self._next)

    def enter(self) -> None:
        deadline = time.monotonic() + BUSY_S
        _lock(self._next, deadline)
        try:
            _lock(self._turn, deadline)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)

    def leave(self) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        open_ones, self._open = self._open, ()
        for descriptor in open_ones:
            os.close(descriptor)


def _lock(descriptor: int, deadline: float) -> None:
    """Lock a file, at the latest at the deadline: a stopped process must not stop all others for ever."""
    pause_s = 0.0001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"another process has held the database for {BUSY_S:.0f} s",
                    hint="look for one that hangs",
                ) from None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.002)
        else:
            return


def _engine(
    path: Path,
    *,
    begin: str,
    foreign_keys: bool,
    query_only: bool = False,
    one_thread: bool = False,
    pooled: bool = True,
) -> Engine:
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pooled:
        # Last in, first out: a connection that has just read has the pages of its indexes at hand.
        pool = {
            "poolclass": QueuePool,
            "pool_size": 1 if one_thread else 8,
            "max_overflow": -1,
            "pool_use_lifo": True,
        }
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"check_same_thread": one_thread, "isolation_level": None, "cached_statements": 256},
        **pool,
    )
    own = (
        f"foreign_keys = {'on' if foreign_keys else 'off'}",
        f"query_only = {'on' if query_only else 'off'}",
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        for pragma in (*_PRAGMAS, *own):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _many(connection: Connection, what: Many, rows: Sequence[tuple[Any, ...]], conflict: str) -> None:
    """Past SQLAlchemy, which costs more than the rows when there are few; errors are as it would raise them."""
    places = ", ".join("?" * len(what.types))
    statement = f"{what.insert} VALUES ({places}) {conflict}"
    driver: Any = connection.connection.driver_connection
    try:
        driver.executemany(statement, rows).close()
    except sqlite3.Error as error:
        raise DBAPIError.instance(
            statement, None, error, sqlite3.Error, dialect=connection.dialect
        ) from error


def _make(path: Path) -> None:
    """An empty file that only its user can read, and that a power cut does not take back."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        sync_folder(path.parent)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
