"""What the tests of rollouts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.rollout.world import RolloutWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RolloutWorld]:
    made = RolloutWorld(tmp_path / ".andon")
    yield made
    made.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20130401)
