"""A store of each kind with a person in it, for the verbs of tracking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.core.workspace import Layout, Settings
from andon.store.ports import Store
from andon.testing.rows import actor
from andon.testing.stores import Place
from andon.testing.stores.place import put


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of either kind, empty but for a person and the experiment that every workspace has."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    settings = Settings() if url is None else Settings(database_url=url)
    opened = Place(Layout(tmp_path / ".andon"), settings).open()
    put(opened, actor())
    yield opened
    opened.close()
