"""Real models, trained once, and worlds that serve them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.core.canonical import Digest
from andon.store.blobs import LocalBlobs
from tests.serving import world as worlds
from tests.serving.world import World


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Digest]]:
    """A folder of blobs with packages, and their digests; see `world.PACKAGES`."""
    folder = tmp_path_factory.mktemp("packages")
    blobs = LocalBlobs(folder)
    return folder, [make(blobs) for make in worlds.PACKAGES]


@pytest.fixture
def world(tmp_path: Path, packages: tuple[Path, list[Digest]]) -> Iterator[World]:
    """A workspace of this test's own."""
    with worlds.world(tmp_path, *packages) as made:
        yield made


@pytest.fixture(scope="module")
def module_world(
    tmp_path_factory: pytest.TempPathFactory, packages: tuple[Path, list[Digest]]
) -> Iterator[World]:
    """A workspace that the tests of a module share; they must not change it."""
    with worlds.world(tmp_path_factory.mktemp("world"), *packages) as made:
        yield made
