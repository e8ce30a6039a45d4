"""The schema's history: numbered steps that only go forward, each with the statements that it consists of.

Statements are written in SQLite's words; `Backend.spell` puts them into Postgres'. A step that was released is never
edited: the next change is a new module `m0002_*.py` at the end of `MIGRATIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from andon.store.sql.migrations import m0001_first


class Migration(NamedTuple):
    """One step of the schema. Numbers rise."""

    number: int
    name: str
    statements: Sequence[str]


MIGRATIONS: tuple[Migration, ...] = (Migration(1, "first", m0001_first.STATEMENTS),)
