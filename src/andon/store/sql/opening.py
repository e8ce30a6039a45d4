"""From a workspace's settings to its open store."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from andon.core.clock import Clock
from andon.core.workspace import Layout, Settings
from andon.store.sql.backend import Backend
from andon.store.sql.engine import SqlStore
from andon.store.sql.migrate import migrate
from andon.store.sql.migrations import MIGRATIONS, Migration
from andon.store.sql.postgres import Postgres
from andon.store.sql.sqlite import Sqlite


def open_sql(
    layout: Layout, settings: Settings, clock: Clock, migrations: Sequence[Migration] = MIGRATIONS
) -> SqlStore:
    """Open the workspace's database, made or migrated where needed; see `andon.store.open_store`."""
    layout.create()
    backend = _backend(layout, settings)
    try:
        migrate(backend, layout, clock, migrations)
    except BaseException as error:
        backend.close()
        if isinstance(error, DBAPIError):
            raise backend.explain(error) from error
        raise
    return SqlStore(backend, clock, migrations=migrations)


def _backend(layout: Layout, settings: Settings) -> Backend:
    return Sqlite(layout.database) if settings.database_url is None else Postgres(settings.database_url)
