"""The drift monitor of one model version: window after window of live inputs against the version's reference profile."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from andon.core.entities import MonitorWindow
from andon.core.policy import MonitorPolicy
from andon.core.predictions import PredictionRecord
from andon.data.profiles import TableProfile
from andon.monitoring.windows import MIN_ROWS, Finding
from andon.stats import ColumnDetectors


class DriftMonitor:
    """Holds the detectors' evidence; `replay` brings it back from windows that were written before."""

    def __init__(self, profile: bytes, policy: MonitorPolicy) -> None:
        self._profile = TableProfile.from_bytes(profile)
        self._policy = policy
        self._detectors: ColumnDetectors | None = None

    def judge(self, records: Sequence[PredictionRecord], *, key: str) -> Finding:
        """What a window of answers shows. `key` names the window; the randomisation of ties is drawn from it."""
        answered = [record for record in records if record.status < 500]
        if len(answered) < MIN_ROWS:
            return Finding(
                rows=len(answered), value=None, low=None, high=None, evidence=None, alarm=False,
                summary=f"{len(answered)} requests: too few to judge", details={},
            )  # fmt: skip
        frame = pl.DataFrame([record.inputs for record in answered], infer_schema_length=None)
        found = self._profile.window(frame, seed=_seed(key))
        return self._take(len(answered), found.distances, found.excess, found.calibration, key)

    def replay(self, row: MonitorWindow) -> None:
        """Take in a window that was judged before."""
        details = row.details
        if "distances" in details:
            self._take(row.rows, details["distances"], details["excess"], details["calibration"], details["key"])
