"""What a rollout's traffic says so far, counted from prediction records and labels. Pure.

Two outcomes are guarded, each a plain yes or no:

* `failures`: the gateway could not answer (5xx);
* `wrong`: the decision at 0.5 differed from the label, for requests whose label horizon has closed. A request whose label has
  not come by then is of neither kind: it is counted as `unlabelled`, for both arms alike.

The unit of evidence is the unit of assignment: a request, or, where traffic is sticky, an entity, which counts once, at its
first failure. Each failure enters with the share of requests that the candidate had when that very request was assigned, so
evidence stays valid when shares change, also in answer to what was seen. Requests that were assigned with certainty compare
nothing and are left out, and so are those answered by another rollout's route.

The same records and labels give the same evidence to the last bit, in whatever order they arrive. All gateways of a machine log
into one folder before they answer, and each look reads all of it, so no worker's answers can be late: what is missing are
requests that nobody has been answered yet. Labels are looked at only up to the domain time that has been told in full; where
nothing has been told the labelled outcome says nothing, and the rollout holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from andon.core.clock import from_us, to_us
from andon.core.ids import PredictionId, ReleaseId
from andon.core.predictions import PredictionRecord
from andon.stats import CeilingEvidence, HarmEvidence, NoninferiorityEvidence

THRESHOLD = 0.5
CEILING = 0.02
"""Where nothing ever fails there is nothing to compare: then the candidate's own failure rate has to lie below this."""

_ROW = np.dtype(
    [
        ("at", np.int64),  # wall time, microseconds
        ("high", np.uint64),  # the id in two halves, which breaks ties of time
        ("low", np.uint64),
        ("data_at", np.int64),  # domain time, microseconds
        ("share", np.float64),  # the candidate's share when this one was assigned
        ("candidate", np.bool_),
        ("failed", np.bool_),
        ("says", np.bool_),  # the decision
        ("entity", np.int64),  # number of the sticky unit, -1 for none
        ("label", np.int8),  # -1 while there is none
    ]
)
_Rows: TypeAlias = npt.NDArray[Any]
_Mask: TypeAlias = npt.NDArray[np.bool_]


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome of both arms. Evidence is log10 of an e-value: 1.3 is 20 to 1.

    Attributes:
        stable, candidate: trials of each arm: requests, and sticky entities once each.
        stable_failed, candidate_failed: how many of them failed; an entity fails where it failed first.
        harm: evidence that the candidate fails more often than stable.
        noninferior: evidence that its failure rate is below the policy's multiple of stable's (or, for `failures`, below 2 %).
    """

    name: str
    stable: int
    candidate: int
    stable_failed: int
    candidate_failed: int
    harm: float
    noninferior: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All a rollout's decision needs. `step_*` are the candidate's requests at the present share only."""

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


class Tally:
    """The traffic of one rollout, counted as it comes. Not safe to share between threads.

    Taking in a record costs about a microsecond and 200 bytes; a look at 20,000 of them takes about a millisecond.

    Args:
        candidate, stable: the two arms.
        began: epoch and generation of the route that began the rollout: what an older one answered is not part of it.
        horizon: how long a label may take.
        margin_odds: the policy's `noninferior_odds`.
        expects_labels: whether the line gets labels at all.
    """

    def __init__(
        self,
        *,
        candidate: ReleaseId,
        stable: ReleaseId,
        began: tuple[int, int],
        horizon: timedelta,
        margin_odds: float,
        expects_labels: bool,
    ) -> None:
        self._candidate, self._stable, self._began = candidate, stable, began
        self._horizon_us = horizon // timedelta(microseconds=1)
        self._margin_odds = margin_odds
        self._expects_labels = expects_labels
        self._buffer: _Rows = np.zeros(1024, dtype=_ROW)
        self._places: dict[bytes, int] = {}
        self._entities: dict[str, int] = {}
        self._early: dict[PredictionId, float] = {}

    def take(self, records: Iterable[PredictionRecord], labels: Mapping[PredictionId, float]) -> None:
        """Count records, each once, and the newest label of each. A label may come with its record, after it, or one call
        before it; labels of other predictions count for nothing."""
        rows = [self._row(record) for record in records if self._concerns(record)]
        start = len(self._places) - len(rows)
        if len(self._places) > len(self._buffer):
            grown = np.zeros(max(len(self._places), 2 * len(self._buffer)), dtype=_ROW)
            grown[:start] = self._buffer[:start]
            self._buffer = grown
        if rows:
            self._buffer[start : start + len(rows)] = rows
        if self._expects_labels:
            self._label({**self._early, **labels})

    def evidence(self, *, share: float, closed_until: datetime | None) -> Evidence:
        """What has been counted says.

        Args:
            share: the candidate's share of requests in the present step, in (0, 1).
            closed_until: domain time up to which everything has been told; None when nothing has.
        """
        rows = self._buffer[: len(self._places)]
        everything = np.ones(len(rows), dtype=np.bool_)
        guards = [self._guard("failures", rows, everything, rows["failed"])]
        latest = np.iinfo(np.int64).min if closed_until is None else to_us(closed_until) - self._horizon_us
        closed = ~rows["failed"] & (rows["data_at"] <= latest)
        known = closed & (rows["label"] >= 0)
        if self._expects_labels:
            guards.append(self._guard("wrong", rows, known, known & (rows["says"] != (rows["label"] == 1))))
        in_step = rows["candidate"] & (rows["share"] == share)
        return Evidence(
            guards=tuple(guards),
            candidate_requests=int(rows["candidate"].sum()),
            step_requests=int(in_step.sum()),
            step_labelled=int((in_step & known).sum()),
            unlabelled=int((closed & ~known).sum()),
            closed_until=closed_until,
        )

    def _concerns(self, record: PredictionRecord) -> bool:
        """Whether a record is new, of one of the arms, by a route of this rollout, and was assigned by chance."""
        if record.release not in (self._candidate, self._stable) or not 0.0 < record.propensity < 1.0:
            return False
        if (record.epoch, record.generation) < self._began or record.id in self._places:
            return False
        self._places[record.id] = len(self._places)
        return True

    def _row(self, record: PredictionRecord) -> tuple[Any, ...]:
        entity = (
            -1 if record.entity is None else self._entities.setdefault(record.entity, len(self._entities))
        )
        return (
            record.at_us,
            int.from_bytes(record.id[:8]),
            int.from_bytes(record.id[8:]),
            _time_us(record),
            record.propensity,
            record.release == self._candidate,
            record.status >= 500,
            record.output is not None and record.output >= THRESHOLD,
            entity,
            -1,
        )

    def _label(self, labels: Mapping[PredictionId, float]) -> None:
        again, self._early = self._early, {}
        for ident, label in labels.items():
            place = self._places.get(bytes.fromhex(ident.replace("-", "")))
            if place is not None:
                self._buffer["label"][place] = label >= THRESHOLD
            elif ident not in again:
                self._early[ident] = label

    def _guard(self, name: str, rows: _Rows, tried: _Mask, failed: _Mask) -> Guard:
        counted = _first_failures(rows, failed)
        had = rows["candidate"][counted]
        harm, noninferior = _evidence(had, rows["share"][counted], self._margin_odds)
        stable, candidate = (_units(rows, tried & (rows["candidate"] == arm)) for arm in (False, True))
        if name == "failures":
            requests = int((tried & rows["candidate"]).sum())
            failures = int((failed & rows["candidate"]).sum())
            ceiling = CeilingEvidence(ceiling=CEILING, passes=requests - failures, failures=failures)
            noninferior = _log_mean(noninferior, ceiling.log_e)
        return Guard(
            name=name,
            stable=stable,
            candidate=candidate,
            stable_failed=int((~had).sum()),
            candidate_failed=int(had.sum()),
            harm=harm,
            noninferior=noninferior,
        )


def gather(
    records: Iterable[PredictionRecord],
    labels: Mapping[PredictionId, float],
    *,
    candidate: ReleaseId,
    stable: ReleaseId,
    began: tuple[int, int],
    share: float,
    closed_until: datetime | None,
    horizon: timedelta,
    margin_odds: float,
    expects_labels: bool,
) -> Evidence:
    """The evidence of records and labels in one go; see `Tally` for the arguments.

    >>> gather(
    ...     [],
    ...     {},
    ...     candidate=ReleaseId("new"),
    ...     stable=ReleaseId("old"),
    ...     began=(1, 100),
    ...     share=0.1,
    ...     closed_until=None,
    ...     horizon=timedelta(days=1),
    ...     margin_odds=1.5,
    ...     expects_labels=True,
    ... ).harm
    0.0
    """
    tally = Tally(
        candidate=candidate, stable=stable, began=began, horizon=horizon, margin_odds=margin_odds,
        expects_labels=expects_labels,
    )  # fmt: skip
    tally.take(records, labels)
    return tally.evidence(share=share, closed_until=closed_until)


def record_time(record: PredictionRecord) -> datetime:
    """The domain time of a record: the client's, else when it was answered."""
    return from_us(_time_us(record))


def _time_us(record: PredictionRecord) -> int:
    return record.at_us if record.data_at_us is None else record.data_at_us


def _first_failures(rows: _Rows, failed: _Mask) -> npt.NDArray[np.intp]:
    """The failures that count: all without an entity, and the first of each entity."""
    places = np.flatnonzero(failed)
    entity = rows["entity"][places]
    sticky = places[entity >= 0]
    if not sticky.size:
        return places
    ordered = sticky[np.lexsort((rows["low"][sticky], rows["high"][sticky], rows["at"][sticky]))]
    _, first = np.unique(rows["entity"][ordered], return_index=True)
    return np.concatenate((places[entity < 0], ordered[first]))


def _evidence(had: _Mask, shares: npt.NDArray[np.float64], margin_odds: float) -> tuple[float, float]:
    """Log10 evidence of harm and of non-inferiority from failures: did the candidate have it, and its share then.

    Failures under one share all weigh the same, so they are counted first. Shares are taken in one order whatever the order of
    arrival, so that sums of floats come out the same.
    """
    harm, better = HarmEvidence(), NoninferiorityEvidence(margin_odds=margin_odds)
    bets, log_sum = np.zeros(len(harm.odds)), 0.0
    for share in np.unique(shares):
        mine = had[shares == share]
        for arm, count in ((True, int(mine.sum())), (False, int((~mine).sum()))):
            bets += count * np.array(harm.update(arm, share).log_sums)
            log_sum += count * better.update(arm, share).log_sum
    return (
        HarmEvidence(log_sums=tuple(bets.tolist())).log_e,
        NoninferiorityEvidence(margin_odds=margin_odds, log_sum=log_sum).log_e,
    )


def _units(rows: _Rows, mask: _Mask) -> int:
    """How many requests without an entity and different entities there are."""
    entity = rows["entity"][mask]
    return int((entity < 0).sum()) + len(np.unique(entity[entity >= 0]))


def _log_mean(one: float, other: float) -> float:
    """Log10 of the mean of two e-values, given as log10: an e-value again, against what both tests hold for unacceptable."""
    top = max(one, other)
    return top + float(np.log10((10.0 ** (one - top) + 10.0 ** (other - top)) / 2))
