"""Every table as plain values, out of one database and into another of either dialect.

Plain means: text, whole numbers, numbers, booleans and None. Times are microseconds since 1970, tuples and objects JSON
text, and infinities the words "Infinity" and "-Infinity", so that any JSON writer keeps what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Boolean, Connection, Double, Float, MetaData, Table, func, select

from andon.core.errors import Conflict, Invalid, SchemaTooNew
from andon.store.ports import Value
from andon.store.sql.backend import Backend
from andon.store.sql.migrate import apply, make
from andon.store.sql.migrations import Migration

Rows = list[dict[str, Value]]
FIRST: Final = "schema_version"
_NEW: Final = {"workspaces": 1, "actors": 1, "events": 2, "ledger_head": 1, "experiments": 1, "counters": 2}
"""How many rows a new workspace begins with."""
_MANY: Final = 5000


def tables(connection: Connection) -> Iterator[tuple[str, Rows]]:
    """Every table there is with all its rows by primary key: `schema_version` first, then so that references lead back."""
    for table in _found(connection):
        statement = select(table).order_by(*table.primary_key.columns)
        yield str(table.name), [_plain(row._mapping) for row in connection.execute(statement)]


def load(
    backend: Backend, given: Iterable[tuple[str, Rows]], at: datetime, migrations: Sequence[Migration]
) -> None:
    """Put what `tables` gave in the place of a new workspace's content, in one transaction, and bring it up to date.

    Raises:
        Conflict: the workspace is not empty.
        SchemaTooNew: it was written by a newer Andon.
        Invalid: it is not what `tables` gives.
    """
    with backend.alone(), backend.turn(), backend.admin.connect() as connection, connection.begin():
        _check_empty(connection)
        found: dict[str, Table] = {}
        number = 0
        for name, rows in given:
            if not found:
                number = _number(name, rows, migrations[-1].number)
                found = _emptied(backend, connection, [step for step in migrations if step.number <= number])
            if name not in found:
                raise Invalid(f"schema {number} has no table {name!r}", hint="the backup is damaged")
            for start in range(0, len(rows), _MANY):
                some = [_stored(found[name], row) for row in rows[start : start + _MANY]]
                connection.execute(found[name].insert(), some)
        if not found:
            raise Invalid("there is nothing to load", hint="the backup is damaged")
        apply(backend, connection, number, at, migrations)
        backend.check_references(connection)


def _found(connection: Connection) -> list[Table]:
    """The tables as they are, which in a database that waits for its migration is not as `schema` has them."""
    metadata = MetaData()
    metadata.reflect(connection)
    return sorted(metadata.sorted_tables, key=lambda table: table.name != FIRST)


def _check_empty(connection: Connection) -> None:
    for table in _found(connection):
        count = connection.execute(select(func.count()).select_from(table)).scalar_one()
        if table.name not in (FIRST, "edges") and count > _NEW.get(table.name, 0):
            raise Conflict(
                f"the workspace is not empty: it has {count} {table.name}", hint="load into a new one"
            )


def _number(name: str, rows: Rows, newest: int) -> int:
    if name != FIRST or not rows:
        raise Invalid(f"the first table is {name!r}, not {FIRST!r}", hint="the backup is damaged")
    number = max(int(str(row["number"])) for row in rows)
    if number > newest:
        raise SchemaTooNew(
            f"this has schema {number}, and this Andon knows up to {newest}", hint="use a newer Andon"
        )
    return number


def _emptied(backend: Backend, connection: Connection, steps: Sequence[Migration]) -> dict[str, Table]:
    """The tables that some steps make, new and without the rows that a step puts in."""
    metadata = MetaData()
    metadata.reflect(connection)
    metadata.drop_all(connection)
    for step in steps:
        make(backend, connection, step)
    found = _found(connection)
    for table in reversed(found):
        connection.execute(table.delete())
    return {table.name: table for table in found}


def _plain(row: Any) -> dict[str, Value]:
    return {
        str(name): ("Infinity" if value > 0 else "-Infinity")
        if isinstance(value, float) and math.isinf(value)
        else value
        for name, value in row.items()
    }


def _stored(table: Table, row: dict[str, Value]) -> dict[str, Value]:
    """The row as its columns take it: JSON readers may have made a number of a boolean, or left a word for an infinity."""
    return {name: _value(table.c[name].type, value) for name, value in row.items()}


def _value(kind: Any, value: Value) -> Value:
    if value is None:
        return None
    if isinstance(kind, Boolean):
        return bool(value)
    if isinstance(kind, Float | Double):
        return float(value)  # type: ignore[arg-type]
    return value
