"""Workspaces of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from andon.core.workspace import Layout, Settings
from andon.testing.stores import Place


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """An empty workspace on SQLite."""
    return Place(Layout(tmp_path / "sqlite" / ".andon"), Settings())


@pytest.fixture
def postgres_place(tmp_path: Path, postgres_url: str) -> Place:
    """An empty workspace on Postgres."""
    return Place(Layout(tmp_path / "postgres" / ".andon"), Settings(database_url=postgres_url))
