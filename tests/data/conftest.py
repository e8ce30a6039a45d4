"""A workspace to put data into: blobs in a folder, and its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from andon.core.entities import Actor
from andon.core.ids import ActorId, new_id
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.blobs import LocalBlobs
from andon.store.ports import Store


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> LocalBlobs:
    """One store for all examples of a property: what is stored by content is not disturbed by more of it."""
    return LocalBlobs(tmp_path_factory.mktemp("shared") / "blobs")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The metadata of a fresh workspace."""
    opened = open_store(Layout(tmp_path / ".andon"), Settings())
    yield opened
    opened.close()


@pytest.fixture
def actor(store: Store) -> ActorId:
    """Somebody that rows can name."""
    row = Actor(
        id=ActorId(new_id("actor")),
        kind="service",
        subject="test:data",
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
    )
    return store.write(lambda tx: tx.actors.add(row)).id
