"""Artifacts' paths as folders, in SQL: a folder is a stretch of the paths in their order."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, select

from andon.core.entities import Artifact
from andon.store.sql.collection import Session
from andon.store.sql.schema import artifacts

_PATH = artifacts.c.id


class SqlFiles:
    """`ports.Files`. A listing seeks from name to name, so it costs what it gives, however much lies below."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def children(
        self, folder: str, *, after: str = "", limit: int = 1000
    ) -> list[tuple[str, Artifact | None]]:
        start = f"{folder}/" if folder else ""
        found: list[tuple[str, Artifact | None]] = []
        beyond = start + after < _PATH
        if after and self.under(start + after, limit=1):
            beyond = _end(start + after) <= _PATH
        while len(found) < limit:
            row = self._next(beyond, start)
            if row is None:
                break
            name, slash, _ = row.id.removeprefix(start).partition("/")
            found.append((name, None if slash else row))
            beyond = _end(start + name) <= _PATH if slash else row.id < _PATH
        return found

    def under(self, folder: str, *, after: str = "", limit: int = 1000) -> list[Artifact]:
        start = f"{folder}/" if folder else ""
        statement = (
            select(artifacts).where(*_within(start), max(after, start) < _PATH).order_by(_PATH).limit(limit)
        )
        return [Artifact(**row._mapping) for row in self._session.connection.execute(statement)]

    def remove_under(self, folder: str) -> int:
        self._session.check_writable()
        statement = delete(artifacts).where(*_within(f"{folder}/" if folder else ""))
        return self._session.connection.execute(statement).rowcount

    def _next(self, beyond: ColumnElement[bool], start: str) -> Artifact | None:
        statement = select(artifacts).where(*_within(start), beyond).order_by(_PATH).limit(1)
        row = self._session.connection.execute(statement).one_or_none()
        return None if row is None else Artifact(**row._mapping)


def _within(start: str) -> list[ColumnElement[bool]]:
    """The conditions of lying in a folder."""
    return [start < _PATH, _end(start.removesuffix("/")) > _PATH] if start else []


def _end(folder: str) -> str:
    """What no path in a folder reaches, and a file beside it may be called: `0` is the character after the slash."""
    return folder + "0"
