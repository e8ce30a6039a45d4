"""What the registry's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.world import RegistryWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RegistryWorld]:
    made = RegistryWorld(tmp_path / ".andon")
    yield made
    made.close()
