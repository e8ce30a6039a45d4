"""Workspaces of both kinds, and asserts of the shipped suites that say what they compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from andon.core.workspace import Layout, Settings

pytest.register_assert_rewrite("andon.testing")

from andon.testing.stores import Place  # noqa: E402  # after its asserts are registered


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """An empty workspace on SQLite."""
    return Place(Layout(tmp_path / "sqlite" / ".andon"), Settings())


@pytest.fixture
def postgres_place(tmp_path: Path, postgres_url: str) -> Place:
    """An empty workspace on Postgres."""
    return Place(Layout(tmp_path / "postgres" / ".andon"), Settings(database_url=postgres_url))
