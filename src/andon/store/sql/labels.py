"""Params and tags in SQL: narrow rows clustered by owner, and one index by (scope, key, text) for searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Table, delete, select
from sqlalchemy.exc import IntegrityError

from andon.core.entities import Owner
from andon.core.errors import Conflict, Invalid, NotFound
from andon.store.sql.collection import Many, Session
from andon.store.sql.types import unstorable

HEAD: Final = 200
"""How many characters of a text are indexed. Postgres refuses index rows over 2,700 bytes."""
_MANY: Final = 500
_COLUMNS: Final = {
    "scope": "text",
    "owner": "text",
    "key": "text",
    "head": "text",
    "tail": "text",
    "rank": "bigint",
}


class SqlLabels:
    """`ports.Labels` over one of the tables of that shape."""

    def __init__(self, session: Session, table: Table) -> None:
        self._session = session
        self._table = table
        kind = "text" if table.c.owner.type.python_type is str else "bigint"
        self._insert = Many(
            f"INSERT INTO {table.name} (scope, owner, key, head, tail, rank)", {**_COLUMNS, "owner": kind}
        )

    def put(self, owner: Owner, pairs: Mapping[str, str]) -> None:
        self._write(
            owner, pairs, "ON CONFLICT (owner, key) DO UPDATE SET head = excluded.head, tail = excluded.tail"
        )

    def add(self, owner: Owner, pairs: Mapping[str, str]) -> None:
        known = self.of([owner.id])[owner.id] if pairs else {}
        other = sorted(key for key, text in pairs.items() if known.get(key, text) != text)
        if other:
            shown = ", ".join(f"{key!r} (it is {known[key][:100]!r})" for key in other[:5])
            raise Conflict(f"what is set never changes, and this would change {shown}")
        self._write(owner, pairs, "ON CONFLICT (owner, key) DO NOTHING")

    def of(self, owners: Sequence[str | int]) -> dict[str | int, dict[str, str]]:
        found: dict[str | int, dict[str, str]] = {each: {} for each in owners}
        table = self._table.c
        columns = (table.owner, table.key, table.head, table.tail)
        for start in range(0, len(owners), _MANY):
            some = table.owner.in_(list(owners[start : start + _MANY]))
            statement = select(*columns).where(some).order_by(table.owner, table.key)
            for owner, key, head, tail in self._session.connection.execute(statement).all():
                found[owner][key] = head if tail is None else head + tail
        return found

    def remove(self, owner: Owner, key: str) -> bool:
        self._session.check_writable()
        statement = delete(self._table).where(self._table.c.owner == owner.id, self._table.c.key == key)
        return self._session.connection.execute(statement).rowcount > 0

    def _write(self, owner: Owner, pairs: Mapping[str, str], conflict: str) -> None:
        self._session.check_writable()
        for text in (*pairs, *pairs.values()):
            if fault := unstorable(text):
                raise Invalid(f"{text[:100]!r} {fault}")
        rows = [
            (owner.scope, owner.id, key, text[:HEAD], text[HEAD:] or None, owner.rank)
            for key, text in pairs.items()
        ]
        try:
            self._session.write_many(self._insert, rows, conflict)
        except IntegrityError:
            raise NotFound(f"{owner.id!r} does not exist any more; nothing was set of it") from None
