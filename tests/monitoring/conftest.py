"""What the tests of monitoring share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.monitoring.world import MonitoringWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[MonitoringWorld]:
    made = MonitoringWorld(tmp_path / ".andon")
    yield made
    made.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20130401)
