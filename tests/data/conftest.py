"""A store of blobs in a folder, and tables to put into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from andon.store.blobs import LocalBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> LocalBlobs:
    """One store for all examples of a property: what is stored by content is not disturbed by more of it."""
    return LocalBlobs(tmp_path_factory.mktemp("shared") / "blobs")
