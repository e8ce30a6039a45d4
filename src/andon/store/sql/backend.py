"""What the store asks of a database, so that everything else is written once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from andon.core.errors import AndonError
from andon.store.sql.collection import Session


class Fault(Enum):
    """What an error of the database means for the transaction it hit."""

    AGAIN = "nothing of it happened, and it may work when it is done again"
    FULL = "nothing of it happened, the disk is full"
    REFUSED = "nothing of it happened, and doing it again would not help"
    DAMAGED = "writing failed in a way after which the open file is not to be trusted"
    LOST = "the connection broke; during a commit nobody knows whether it happened"


class Backend(Protocol):
    """One database, opened. `writer` begins transactions that may change, `reader` consistent read-only ones.

    `admin` makes connections for schema changes and loading: one each time, foreign keys not enforced until commit.
    """

    name: str

    @property
    def writer(self) -> Engine: ...
    @property
    def reader(self) -> Engine: ...
    @property
    def admin(self) -> Engine: ...

    def session(self, connection: Connection, *, writable: bool) -> Session:
        """A session over a connection with an open transaction."""

    def turn(self) -> AbstractContextManager[None]:
        """This process' turn to write, fairly among processes.

        Raises:
            Unavailable: another process did not end its turn.
        """

    def tidy(self) -> None:
        """House-keeping between two transactions, in the writer's thread. It raises nothing and may be put off."""

    def judge(self, error: DBAPIError) -> Fault:
        """What an error means."""

    def explain(self, error: DBAPIError) -> AndonError:
        """The same error for the user."""

    def alone(self) -> AbstractContextManager[None]:
        """The lock under which the schema is changed; waits for another process that holds it."""

    def spell(self, ddl: str) -> str:
        """A statement of a migration in the words of this database."""

    def check_references(self, connection: Connection) -> None:
        """Refuse to commit a schema change after which a row refers to nothing.

        Raises:
            Corrupt: one does; nothing of the change happened.
        """

    def save(self, folder: Path, name: str, at: datetime) -> Path:
        """Write a copy of everything into a folder, before the schema is changed; it survives a power cut."""

    def close(self) -> None:
        """Let go of all connections but the writer's, which its own thread closes."""
