"""A workspace that tests open, once or in several processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from andon.core.entities import Entity
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.ports import Store
from andon.testing.rows import rows_of, world


class Openable(Protocol):
    """An empty workspace."""

    def open(self) -> Store:
        """Open its store; each time a new handle on the same rows."""


class Place(msgspec.Struct, frozen=True):
    """The workspace of a layout and settings."""

    layout: Layout
    settings: Settings

    def open(self) -> Store:
        return open_store(self.layout, self.settings)


class StoreChecks:
    """The fixtures of all checks. A subclass gives `place`, and may give another `elsewhere`."""

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Openable:
        """Another empty workspace, on whatever database."""
        return Place(Layout(tmp_path / "elsewhere" / ".andon"), Settings())

    @pytest.fixture
    def store(self, place: Openable) -> Iterator[Store]:
        """An empty store."""
        store = place.open()
        yield store
        store.close()

    @pytest.fixture
    def full(self, store: Store) -> Store:
        """A store with `rows.world` in it."""
        put(store, *world())
        return store


def put(store: Store, *rows: Entity) -> None:
    """Write rows in one transaction. The workspace's own row is there already."""
    store.write(lambda tx: [rows_of(tx, type(row)).add(row) for row in rows])
