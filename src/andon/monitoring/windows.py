"""What a monitor says of one closed window. Pure: records and labels in, a finding out.

Performance: the realised AUC of the window's labelled predictions against the AUC on the model's holdout. Without a change, and
with no drop allowed, a window alarms with the chance of the policy's `1 per N windows`, by the normal approximation to
DeLong's estimator; every drop that is allowed makes it rarer.

Predictions whose label has not come when their horizon ends are a class of their own (a cancelled flight is never late): they
are counted, and never taken for good or bad.
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
THRESHOLD = 0.5
"""Labels from here on are positive."""
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


def closed_windows(
    width: timedelta, since: datetime, until: datetime, lateness: timedelta, *, most: int | None = None
) -> list[tuple[datetime, datetime]]:
    """The windows of a width, on its grid from 1970, that lie after `since` and had closed `lateness` before `until`.

    At most the `most` oldest.

    >>> day = timedelta(days=1)
    >>> [start.day for start, _ in closed_windows(day, EPOCH, EPOCH + 3 * day, day)]
    [1, 2]
    """
    first = -((EPOCH - since) // width)
    last = (until - lateness - EPOCH) // width
    return [(EPOCH + index * width, EPOCH + (index + 1) * width) for index in range(first, last)[:most]]


def performance(
    records: Sequence[PredictionRecord],
    labels: Mapping[PredictionId, float],
    rule: MetricRule,
    reference: Reference | None,
    *,
    false_alarms_per: int,
) -> Finding:
    """The realised metric of a window against the reference.

    Args:
        records: what one version answered in the window.
        labels: the newest label of each prediction that has one.
        rule: the metric, and how much it may drop.
        reference: the metric on the version's holdout; without one nothing is judged, and the finding says so.
        false_alarms_per: N of `1 per N windows`.
    """
    answered = [record for record in records if record.output is not None]
    known = [
        (labels[ident], record.output) for record in answered if (ident := record.prediction_id) in labels
    ]
    truth = np.array([label >= THRESHOLD for label, _ in known], dtype=bool)
    classes = {
        "answered": len(answered),
        "failed": len(records) - len(answered),
        "labelled": len(known),
        "never_labelled": len(answered) - len(known),
        "positive": int(truth.sum()),
    }
    told = f"{len(known)} labelled of {len(answered)}"
    if len(known) < MIN_ROWS or truth.all() or not truth.any():
        what = "too few" if len(known) < MIN_ROWS else "all of one class, too few of the other"
        return _finding(len(known), None, None, classes, alarm=False, summary=f"{told}: {what} to judge")
    found = auc_interval(truth, np.array([output for _, output in known], dtype=np.float64), level=_LEVEL)
    now = Reference(value=found.value, low=found.low, high=found.high)
    summary = f"AUC {now.value:.3f} [{now.low:.3f}, {now.high:.3f}] on {told}"
    if reference is None:
        summary += "; the version has no interval of its holdout to compare with"
        return _finding(len(known), now, None, classes, alarm=False, summary=summary)
    allowed = _allowed_drop(rule, reference)
    shortfall = (reference.value - allowed - now.value) / float(np.hypot(reference.error, now.error))
    line = NormalDist().inv_cdf(1 - 1 / max(false_alarms_per, 2))
    summary += f"; reference {reference.value:.3f} [{reference.low:.3f}, {reference.high:.3f}]"
    details = {**classes, "line": line, "reference": reference.value, "allowed_drop": allowed}
    return _finding(len(known), now, shortfall, details, alarm=shortfall > line, summary=summary)


def _finding(
    rows: int,
    now: Reference | None,
    evidence: float | None,
    details: dict[str, Any],
    *,
    alarm: bool,
    summary: str,
) -> Finding:
    value, low, high = (None, None, None) if now is None else (now.value, now.low, now.high)
    return Finding(
        rows=rows,
        value=value,
        low=low,
        high=high,
        evidence=evidence,
        alarm=alarm,
        summary=summary,
        details=details,
    )


def _allowed_drop(rule: MetricRule, reference: Reference) -> float:
    if rule.drop is None:
        return 0.0
    return rule.drop if rule.scale == "absolute" else rule.drop * reference.value
