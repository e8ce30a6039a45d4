"""Short numbers in SQL. The row stays locked until commit, so two writers never get the same."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import bindparam, case

from andon.store.sql.collection import Session
from andon.store.sql.ready import ready
from andon.store.sql.schema import counters
from andon.store.sql.types import WHOLE


class SqlCounters:
    """`ports.Counters`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def next(self, name: str) -> int:
        return self._raise(name, 1, at_least=0)

    def reach(self, name: str, value: int) -> None:
        self._raise(name, 0, at_least=value)

    def _raise(self, name: str, by: int, *, at_least: int) -> int:
        self._session.check_writable()
        connection = self._session.connection
        values = {"name": name, "value": max(by, at_least), "by": by, "at_least": at_least}
        return int(
            ready(_raised(self._session.insert), connection, tuple(values))
            .run(connection, values)
            .scalar_one()
        )


@cache
def _raised(insert: Any) -> Any:
    """Write a counter, or raise it by a number, but to another at least."""
    raised = counters.c.value + bindparam("by", type_=WHOLE)
    least = bindparam("at_least", type_=WHOLE)
    statement = insert(counters).values(name=bindparam("name"), value=bindparam("value"))
    return statement.on_conflict_do_update(
        index_elements=["name"], set_={"value": case((raised < least, least), else_=raised)}
    ).returning(counters.c.value)
