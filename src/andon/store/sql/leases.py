"""Fenced leases in SQL. A lease that was given back keeps its row, with no holder, so that its fence never goes down."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, select, update

from andon.core.entities import Lease
from andon.core.errors import Conflict, LeaseLost
from andon.store.sql.collection import Session
from andon.store.sql.schema import leases


class SqlLeases:
    """`ports.Leases` over the table `leases`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, name: str) -> Lease | None:
        row = self._session.connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
        return None if row is None or row.holder is None else Lease(**row._mapping)

    def take(self, name: str, holder: str, *, seen: Lease | None) -> Lease:
        self._session.check_writable()
        if seen is None:
            self._make_sure_of(name)
            as_seen: ColumnElement[bool] = leases.c.holder.is_(None)
        else:
            as_seen = (
                (leases.c.holder == seen.holder)
                & (leases.c.fence == seen.fence)
                & (leases.c.beat == seen.beat)
            )
        taken = update(leases).where(leases.c.name == name, as_seen)
        if self._changed(taken.values(holder=holder, fence=leases.c.fence + 1, beat=0)) == 0:
            raise Conflict(f"lease {name!r} is not as it was seen", hint="look at it again")
        fence = self._session.connection.execute(
            select(leases.c.fence).where(leases.c.name == name)
        ).scalar_one()
        return Lease(name=name, holder=holder, fence=fence, beat=0)

    def beat(self, lease: Lease) -> Lease:
        self._session.check_writable()
        if self._changed(update(leases).where(*_held(lease)).values(beat=lease.beat + 1)) == 0:
            raise _lost(lease)
        return Lease(name=lease.name, holder=lease.holder, fence=lease.fence, beat=lease.beat + 1)

    def check(self, lease: Lease) -> None:
        held = select(leases.c.name).where(*_held(lease))
        if self._session.writable:
            held = held.with_for_update()
        if self._session.connection.execute(held).one_or_none() is None:
            raise _lost(lease)

    def drop(self, lease: Lease) -> None:
        self._session.check_writable()
        self._changed(update(leases).where(*_held(lease)).values(holder=None))

    def _make_sure_of(self, name: str) -> None:
        free = {"name": name, "holder": None, "fence": 0, "beat": 0}
        self._session.connection.execute(self._session.insert(leases).on_conflict_do_nothing(), free)

    def _changed(self, statement: Any) -> int:
        return self._session.connection.execute(statement).rowcount


def _held(lease: Lease) -> tuple[Any, ...]:
    return leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.fence == lease.fence


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"lease {lease.name!r} is no longer held by {lease.holder} under fence {lease.fence}",
        hint="stop this work; who holds it now goes on with it",
    )
