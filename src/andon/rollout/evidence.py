"""What a rollout's traffic says so far, folded from prediction records and labels. Pure.

Two outcomes are guarded, each a plain yes or no for one request, which is also the unit of assignment:

* `failures`: the gateway could not answer (5xx);
* `wrong`: the decision at 0.5 differed from the label, for requests whose label horizon has closed.

Each failure enters with the share of requests that the candidate had when that very request was assigned, so evidence
stays valid when the shares change. Records are taken in order of time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
import numpy as np

from andon.core.clock import from_us
from andon.core.ids import PredictionId, ReleaseId
from andon.core.predictions import PredictionRecord
from andon.stats import ceiling_log_e, harm_log_e_value, noninferiority_log_e

THRESHOLD = 0.5
CEILING = 0.02
"""Where nothing ever fails there is nothing to compare: then the candidate's own failure rate must be shown to be below this."""


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome of both arms. Evidence is log10 of an e-value: 1.3 is 20 to 1.

    Attributes:
        stable, candidate: trials of each arm.
        stable_failed, candidate_failed: how many of them failed.
        harm: evidence that the candidate fails more often than stable.
        noninferior: evidence that its odds of failing are below the policy's multiple of stable's.
    """

    name: str
    stable: int
    candidate: int
    stable_failed: int
    candidate_failed: int
    harm: float
    noninferior: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All a rollout's decision needs. `step_*` counts belong to the present step only."""

    guards: tuple[Guard, ...]
    candidate_requests: int
    step_requests: int
    step_labelled: int
    unlabelled: int
    closed_until: datetime | None

    @property
    def harm(self) -> float:
        """Log10 of the mean of the guards' e-values, which is an e-value too, however the guards depend on each other."""
        return float(np.log10(np.mean([10.0 ** min(guard.harm, 300.0) for guard in self.guards])))


def gather(
    records: Iterable[PredictionRecord],
    labels: Mapping[PredictionId, float],
    *,
    candidate: ReleaseId,
    stable: ReleaseId,
    closed_until: datetime | None,
    horizon: timedelta,
    step_from: datetime | None,
    margin_odds: float,
    expects_labels: bool,
) -> Evidence:
    """Fold a rollout's records, in order, into evidence.

    Args:
        records: answers of the endpoint since the rollout began.
        labels: newest label of each prediction that has one.
        closed_until: domain time up to which everything has been told; None when the wall clock rules and records give none.
        horizon: how long a label may take.
        step_from: domain time at which the present step began.
        margin_odds: the policy's `noninferior_odds`.
        expects_labels: whether the line gets labels at all.
    """
    mine = [r for r in records if r.release in (candidate, stable) and 0.0 < r.propensity < 1.0]
    mine.sort(key=lambda record: (record.at_us, record.id))
    guards = [_guard("failures", mine, candidate, [r.status >= 500 for r in mine], margin_odds)]
    closed = [r for r in mine if r.status < 500 and _closed(r, closed_until, horizon)]
    known = [r for r in closed if r.prediction_id in labels]
    if expects_labels:
        wrong = [((r.output or 0.0) >= THRESHOLD) != (labels[r.prediction_id] >= THRESHOLD) for r in known]
        guards.append(_guard("wrong", known, candidate, wrong, margin_odds))
    in_step = [r for r in mine if r.release == candidate and _since(r, step_from)]
    return Evidence(
        guards=tuple(guards),
        candidate_requests=sum(r.release == candidate for r in mine),
        step_requests=len(in_step),
        step_labelled=sum(r.release == candidate and _since(r, step_from) for r in known),
        unlabelled=len(closed) - len(known),
        closed_until=closed_until,
    )


def _guard(
    name: str, records: Sequence[PredictionRecord], candidate: ReleaseId, failed: Sequence[bool], margin_odds: float
) -> Guard:
    is_candidate = np.array([record.release == candidate for record in records], dtype=bool)
    failure = np.array(failed, dtype=bool)
    propensity = np.array([record.propensity for record in records], dtype=np.float64)
    at_failure = is_candidate[failure], propensity[failure]
    better = noninferiority_log_e(*at_failure, margin_odds=margin_odds)
    if name == "failures":
        better = max(better, ceiling_log_e(failure[is_candidate], ceiling=CEILING))
    return Guard(
        name=name,
        stable=int((~is_candidate).sum()),
        candidate=int(is_candidate.sum()),
        stable_failed=int((failure & ~is_candidate).sum()),
        candidate_failed=int((failure & is_candidate).sum()),
        harm=harm_log_e_value(*at_failure),
        noninferior=better,
    )


def _closed(record: PredictionRecord, closed_until: datetime | None, horizon: timedelta) -> bool:
    at = record_time(record)
    return closed_until is not None and at + horizon <= closed_until


def _since(record: PredictionRecord, start: datetime | None) -> bool:
    return start is None or record_time(record) >= start


def record_time(record: PredictionRecord) -> datetime:
    """The domain time of a record: the client's, else when it was answered."""
    return from_us(record.at_us if record.data_at_us is None else record.data_at_us)
