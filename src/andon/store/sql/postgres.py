"""What is Postgres' own: how connections are set up, what its errors mean, how a migration's words are put.

Transactions that write run at READ COMMITTED: what they decide is guarded by `rev`, by unique indexes and by leases. The
head of the ledger is locked as the last thing before commit, so writers wait for each other only while they commit. Views
are REPEATABLE READ: one snapshot each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ArgumentError, DBAPIError

from andon.core.errors import AndonError, Invalid, MissingExtra, StorageFull, Unavailable
from andon.store.files import LOCAL, refusing_full, sync_folder
from andon.store.sql import dump
from andon.store.sql.backend import Fault
from andon.store.sql.collection import Many, Session

LOCK_S: Final = 30
_MIGRATION: Final = 0x616E646F6E  # the key of the advisory lock: "andon"
_SET_UP: Final = (
    # Durable commits on a server that has been told to be careless; a stricter setting of it stays.
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
    f"SET lock_timeout = '{LOCK_S}s'",
    "SET idle_in_transaction_session_timeout = '60s'",
)
_SPELLING: Final[Mapping[str, str]] = {
    "TEXT": 'TEXT COLLATE "C"',
    "INTEGER": "BIGINT",
    "DOUBLE": "DOUBLE PRECISION",
    " WITHOUT ROWID": "",
}
_WORDS: Final = re.compile(r"\bTEXT\b|\bINTEGER\b|\bDOUBLE\b| WITHOUT ROWID\b")
_AGAIN: Final = {"40001", "40P01", "55P03", "53300"}
_LOST: Final = {"57P01", "57P02", "57P03", "57P05", "25P03"}
_FULL: Final = {"53100", "54000"}
_DAMAGED: Final = {"58030", "XX001", "XX002"}


class Postgres:
    """`backend.Backend` over one database of a server.

    Raises:
        MissingExtra: the driver is not installed.
        Invalid: the address is not one of a Postgres database.
    """

    name = "postgresql"

    def __init__(self, address: str) -> None:
        url = _url(address)
        self._where = url.render_as_string(hide_password=True)
        self.writer = _engine(url, pool_size=1, max_overflow=0, isolation_level="READ COMMITTED")
        self.reader = _engine(
            url,
            pool_size=8,
            max_overflow=8,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
        self.admin = _engine(url, poolclass=NullPool, isolation_level="READ COMMITTED")

    def session(self, connection: Connection, *, writable: bool) -> Session:
        return Session(connection, insert, Connection.begin_nested, writable, _many)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Always its turn: the server queues writers by the locks they need."""
        yield

    def tidy(self) -> None:
        """Nothing: the server keeps its log bounded."""

    def judge(self, error: DBAPIError) -> Fault:
        state = getattr(error.orig, "sqlstate", None)
        if state in _AGAIN:
            return Fault.AGAIN
        if state in _FULL:
            return Fault.FULL
        if state in _DAMAGED:
            return Fault.DAMAGED
        without_answer = state is None and isinstance(
            error.orig, self.writer.dialect.loaded_dbapi.OperationalError
        )
        if error.connection_invalidated or without_answer or state in _LOST or str(state).startswith("08"):
            return Fault.LOST
        return Fault.REFUSED

    def explain(self, error: DBAPIError) -> AndonError:
        match self.judge(error):
            case Fault.FULL:
                return StorageFull(
                    f"{self._where} has no room left; nothing of this was stored",
                    hint="free some space on the server and try again",
                )
            case Fault.LOST:
                return Unavailable(
                    f"{self._where} does not answer: {_line(error)}",
                    hint="what was being written may be there or not; look before you try again",
                )
            case Fault.AGAIN:
                return Unavailable(f"{self._where} is busy: {_line(error)}", hint="try again")
            case Fault.DAMAGED:
                return Unavailable(
                    f"{self._where} cannot be used: {_line(error)}",
                    hint="check the server's disk, then start again",
                )
            case _:
                return Invalid(f"{self._where} refused a statement: {_line(error)}")

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self.admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET lock_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_lock({_MIGRATION})")
            yield

    def spell(self, ddl: str) -> str:
        return _WORDS.sub(lambda found: _SPELLING[found[0]], ddl)

    def check_references(self, connection: Connection) -> None:
        """Nothing: the server has checked each statement."""

    def save(self, folder: Path, name: str, at: datetime) -> Path:
        target = folder / f"{name}-{at:%Y%m%dT%H%M%S%f}.ndjson"
        with self.reader.connect() as connection, connection.begin():
            _write(target, _lines(connection))
        return target

    def close(self) -> None:
        self.reader.dispose()
        self.admin.dispose()


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError:
        raise Invalid("ANDON_DATABASE_URL is not an address", hint=_FORM) from None
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise Invalid(f"ANDON_DATABASE_URL names a {url.drivername} database", hint=_FORM)
    try:
        import psycopg  # noqa: F401  # an extra: asked for here, so that the message can name it
    except ImportError:
        raise MissingExtra("Workspaces on Postgres", "postgres") from None
    return url.set(drivername="postgresql+psycopg")


_FORM: Final = "it is postgresql://USER:PASSWORD@HOST:5432/DATABASE, or unset for SQLite"


def _engine(url: URL, **how: Any) -> Engine:
    engine = create_engine(url, connect_args={"connect_timeout": 10, "application_name": "andon"}, **how)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        before, connection.autocommit = connection.autocommit, True
        for statement in _SET_UP:
            connection.execute(statement)
        connection.autocommit = before

    return engine


def _many(connection: Connection, what: Many, rows: Sequence[tuple[Any, ...]], conflict: str) -> None:
    """One statement whatever the number of rows: a round trip each would cost more than the rows."""
    columns = ", ".join(f"%s::{kind}[]" for kind in what.types.values())
    values = tuple(list(column) for column in zip(*rows, strict=True))
    connection.exec_driver_sql(f"{what.insert} SELECT * FROM unnest({columns}) {conflict}", values)


def _lines(connection: Connection) -> Iterator[bytes]:
    """The dump as one JSON object for each row."""
    for name, rows in dump.tables(connection):
        for row in rows:
            yield msgspec.json.encode({"table": name, "row": row}) + b"\n"


def _write(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file that only its user can read. Until all of it is on disk it has another name."""
    temporary = path.with_name(f".{path.name}.part")
    with refusing_full(path):
        descriptor = LOCAL.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
            file.flush()
            LOCAL.sync(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)


def _line(error: DBAPIError) -> str:
    """What the server said, in one line."""
    return " ".join(str(error.orig).split()) or type(error.orig).__name__
