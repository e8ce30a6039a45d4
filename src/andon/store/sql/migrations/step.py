"""What a migration is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple


class Only(NamedTuple):
    """A statement for one kind of database."""

    backend: Literal["sqlite", "postgresql"]
    statement: str


class Migration(NamedTuple):
    """One step of the schema. Numbers rise."""

    number: int
    name: str
    statements: Sequence[str | Only]
