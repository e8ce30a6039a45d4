"""Persistence: the only SQL and the only object storage, behind a few ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from andon.core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from andon.core.workspace import Layout, Settings
    from andon.store.ports import Store

__all__ = ["open_store"]


def open_store(layout: Layout, settings: Settings, *, clock: Clock | None = None) -> Store:
    """Open a workspace's metadata: SQLite in its folder, or the Postgres of `settings.database_url`.

    A new workspace is made, an older schema brought up to date (under a lock, after a backup into `layout.backups`).
    Open one in each process, after any fork, and close it.

    Raises:
        SchemaTooNew: a newer Andon wrote it.
        MissingExtra: it is on Postgres, and the driver is not installed.
        Unavailable: the database does not answer.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from andon.core.workspace import Layout, Settings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = open_store(Layout(Path(folder) / ".andon"), Settings())
    ...     print([event.kind for event in store.read(lambda view: view.ledger.after(0))])
    ...     store.close()
    ['workspace.created', 'actor.created']
    """
    from andon.store.sql.opening import (
        open_sql,  # gateways use this package for blobs and never load SQLAlchemy
    )

    return open_sql(layout, settings, clock or SystemClock())
