"""The schema's history: numbered steps that only go forward, each with the statements that it consists of.

Statements are written in SQLite's words; `Backend.spell` puts them into Postgres'. A step that was released is never
edited: the next change is a new module `m0003_*.py` at the end of `MIGRATIONS`.
"""

from __future__ import annotations

from andon.store.sql.migrations import m0001_first, m0002_tracking
from andon.store.sql.migrations.step import Migration, Only

__all__ = ["MIGRATIONS", "Migration", "Only"]

MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "first", m0001_first.STATEMENTS),
    Migration(2, "tracking", m0002_tracking.STATEMENTS),
)
