"""Short numbers in SQL. The row stays locked until commit, so two writers never get the same."""

from __future__ import annotations

from sqlalchemy import case

from andon.store.sql.collection import Session
from andon.store.sql.schema import counters


class SqlCounters:
    """`ports.Counters`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def next(self, name: str) -> int:
        return self._raise(name, counters.c.value + 1, 1)

    def reach(self, name: str, value: int) -> None:
        self._raise(name, case((counters.c.value < value, value), else_=counters.c.value), value)

    def _raise(self, name: str, to: object, first: int) -> int:
        self._session.check_writable()
        insert = self._session.insert(counters).values(name=name, value=first)
        statement = insert.on_conflict_do_update(index_elements=["name"], set_={"value": to})
        return int(self._session.connection.execute(statement.returning(counters.c.value)).scalar_one())
