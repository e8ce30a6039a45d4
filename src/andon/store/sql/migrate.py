"""Brings a database to the schema of this Andon: under a lock, after a backup, in one transaction.

A crash in the middle leaves the old schema, since both databases take schema changes back with their transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, inspect, select

from andon.core.clock import Clock
from andon.core.entities import Actor, Experiment, Workspace
from andon.core.errors import SchemaTooNew
from andon.core.events import GENESIS, EventDraft, Fact
from andon.core.ids import ActorId, ExperimentId, node
from andon.core.workspace import Layout
from andon.store.sql.backend import Backend
from andon.store.sql.ledger import WORKSPACE_ID, seal
from andon.store.sql.migrations import MIGRATIONS, Migration, Only
from andon.store.sql.schema import ledger_head, schema_version
from andon.store.sql.view import SqlView

ANDON: Final = ActorId("act_andon")
"""The actor of what Andon does by itself."""


def migrate(
    backend: Backend, layout: Layout, clock: Clock, migrations: Sequence[Migration] = MIGRATIONS
) -> int:
    """Bring the database to the last of the migrations; its number.

    A new database becomes a workspace named after the project's folder. Two processes that start at once do it once.

    Raises:
        SchemaTooNew: a newer Andon wrote it.
        StorageFull: there is no room for the backup or the change; nothing of it happened.
    """
    last = migrations[-1].number
    if _behind(backend, last) is None:
        return last
    with backend.alone(), backend.turn():
        have = _behind(backend, last)
        if have is None:
            return last
        at = clock.now()
        if have:
            backend.save(layout.backups, f"before-schema-{last}", at)
        with backend.admin.connect() as connection, connection.begin():
            apply(backend, connection, have, at, migrations)
            if not have:
                _begin(backend, connection, layout.project.name or WORKSPACE_ID, last, at)
            backend.check_references(connection)
    return last


def apply(
    backend: Backend,
    connection: Connection,
    have: int,
    at: datetime,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> None:
    """Take the steps after `have`, and say so in the ledger if there is one."""
    for step in migrations:
        if step.number <= have:
            continue
        make(backend, connection, step)
        row = {"number": step.number, "name": step.name, "applied_at": at}
        connection.execute(schema_version.insert(), row)
        if have:
            facts: dict[str, Fact] = {"from": have, "to": step.number, "name": step.name}
            _tell(backend, connection, [_event("workspace.migrated", at, facts)])
            have = step.number


def make(backend: Backend, connection: Connection, step: Migration) -> None:
    """Run the statements of one step."""
    for each in step.statements:
        name, statement = each if isinstance(each, Only) else (backend.name, each)
        if name == backend.name:
            connection.exec_driver_sql(backend.spell(statement.strip()))


def version(connection: Connection) -> int:
    """The number of the newest migration that was applied, 0 for an empty database."""
    if not inspect(connection).has_table(schema_version.name):
        return 0
    return int(connection.execute(select(func.coalesce(func.max(schema_version.c.number), 0))).scalar_one())


def _behind(backend: Backend, last: int) -> int | None:
    """The number the database is at when it is behind, None when it is up to date."""
    with backend.reader.connect() as connection, connection.begin():
        have = version(connection)
    if have > last:
        raise SchemaTooNew(
            f"the workspace's database has schema {have}, and this Andon knows up to {last}",
            hint="use the newer Andon that wrote it, or restore the backup made before that upgrade",
        )
    return None if have == last else have


def _begin(backend: Backend, connection: Connection, name: str, schema: int, at: datetime) -> None:
    """The rows and events every workspace begins with."""
    connection.execute(ledger_head.insert(), {"id": 1, "seq": 0, "hash": GENESIS})
    view = SqlView(backend.session(connection, writable=True), [])
    view.workspaces.add(Workspace(id=WORKSPACE_ID, name=name, epoch=1, created_at=at))
    view.actors.add(Actor(id=ANDON, kind="line", subject="system:andon", created_at=at))
    view.experiments.add(
        Experiment(id=ExperimentId("0"), number=0, name="Default", actor=ANDON, created_at=at, changed_at=at)
    )
    created = _event("workspace.created", at, {"schema": schema})
    actor = EventDraft(
        kind="actor.created", actor=ANDON, subject=node("actor", ANDON), at=at, facts={"kind": "line"}
    )
    _tell(backend, connection, [created, actor])


def _event(kind: str, at: datetime, facts: dict[str, Fact]) -> EventDraft:
    return EventDraft(kind=kind, actor=ANDON, subject=node("workspace", WORKSPACE_ID), at=at, facts=facts)


def _tell(backend: Backend, connection: Connection, drafts: list[EventDraft]) -> None:
    seal(backend.session(connection, writable=True), drafts, lambda: secrets.token_hex(16))
