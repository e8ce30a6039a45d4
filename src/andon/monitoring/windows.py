"""What a monitor says of one closed window. Pure: records and labels in, a finding out.

Drift: each input column's distance from the model's reference profile is compared with the distances of the reference's own
windows (conformal p-values), bets on those p-values accumulate in an e-detector for each column, and the alarm asks for two
things: the mean of the detectors is beyond the policy's false-alarm rate, and some column moved by a material amount.

Performance: the realised AUC of the window's labelled predictions against the AUC on the model's holdout. The alarm rate in
windows without a change is the policy's `1 per N windows` at most, by the normal approximation to DeLong's estimator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np

from andon.core.clock import EPOCH
from andon.core.ids import PredictionId
from andon.core.policy import MetricRule
from andon.core.predictions import PredictionRecord
from andon.stats import auc_interval

MIN_ROWS = 50
"""A window with fewer rows is recorded and judged as nothing."""
_LEVEL = 0.95
_Z95 = NormalDist().inv_cdf(0.975)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The metric on the model's own holdout, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Standard error."""
        return max(self.high - self.low, 0.0) / (2 * _Z95)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one window showed. `evidence` is in standard errors for performance, log10 for drift."""

    rows: int
    value: float | None
    low: float | None
    high: float | None
    evidence: float | None
    alarm: bool
    summary: str
    details: dict[str, Any]


def closed_windows(width: timedelta, since: datetime, until: datetime, lateness: timedelta) -> list[tuple[datetime, datetime]]:
    """The windows of a width, on its grid from 1970, that lie after `since` and had closed `lateness` before `until`.

    >>> day = timedelta(days=1)
    >>> [start.day for start, _ in closed_windows(day, EPOCH, EPOCH + 3 * day, day)]
    [1, 2]
    """
    first = -((EPOCH - since) // width)
    last = (until - lateness - EPOCH) // width
    return [(EPOCH + index * width, EPOCH + (index + 1) * width) for index in range(first, last)]


def performance(
    records: Sequence[PredictionRecord],
    labels: Mapping[PredictionId, float],
    rule: MetricRule,
    reference: Reference,
    *,
    false_alarms_per: int,
) -> Finding:
    """The realised metric of a window against the reference."""
    answered = [r for r in records if r.output is not None]
    known = [r for r in answered if r.prediction_id in labels]
    truth = np.array([labels[r.prediction_id] for r in known])
    coverage = {"answered": len(answered), "labelled": len(known), "never_labelled": len(answered) - len(known)}
    if len(known) < MIN_ROWS or len(np.unique(truth)) < 2:
        return Finding(
            rows=len(known), value=None, low=None, high=None, evidence=None, alarm=False,
            summary=f"{len(known)} labelled rows: too few to judge", details=coverage,
        )  # fmt: skip
    scores = np.array([r.output for r in known], dtype=np.float64)
    now = auc_interval(truth, scores, level=_LEVEL)
    error = float(np.hypot(reference.error, Reference(value=now.value, low=now.low, high=now.high).error))
    allowed = _allowed_drop(rule, reference)
    shortfall = (reference.value - allowed - now.value) / error
    line = NormalDist().inv_cdf(1 - 1 / false_alarms_per)
    summary = (
        f"AUC {now.value:.3f} [{now.low:.3f}, {now.high:.3f}] on {len(known)} labelled of {len(answered)}; "
        f"reference {reference.value:.3f} [{reference.low:.3f}, {reference.high:.3f}]"
    )
    return Finding(
        rows=len(known), value=now.value, low=now.low, high=now.high, evidence=shortfall, alarm=shortfall > line,
        summary=summary, details={**coverage, "line": line, "reference": reference.value, "allowed_drop": allowed},
    )  # fmt: skip


def _allowed_drop(rule: MetricRule, reference: Reference) -> float:
    if rule.drop is None:
        return 0.0
    return rule.drop if rule.scale == "absolute" else rule.drop * reference.value
