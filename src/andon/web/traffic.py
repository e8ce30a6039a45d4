"""How each release answers just now: counts, failures and latencies of the last five minutes, by ten seconds.

A cache in memory, read from the prediction log's tail: losing it loses nothing. Latencies are kept in a histogram whose
buckets grow by 19 %, so a percentile is right to that.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from math import ceil, log2

import msgspec

from andon.core.clock import Clock, from_us, to_us
from andon.core.predictions import PredictionRecord
from andon.stats import wilson_interval
from andon.store.ports import PredictionLog

SLOT_S = 10
SLOTS = 30
_SLOT_US = SLOT_S * 1_000_000
BATCH = 10_000
BUDGET_S = 0.25
_PER_OCTAVE = 4
_BUCKETS = 25 * _PER_OCTAVE


class Slot(msgspec.Struct, frozen=True):
    """Requests and failures (5xx) of ten seconds. `ago_s` is how many seconds ago they began to count, 0 for those that run."""

    ago_s: int
    requests: int
    failures: int


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """How something answered in the last five minutes.

    `failed_low` and `failed_high` are the 95 % Wilson interval of the failed share, latencies are milliseconds in the
    gateway, right to 19 %; all four are None without requests.
    """

    requests: int
    failures: int
    failed_low: float | None = None
    failed_high: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


class _Tally:
    """What one release answered in one slot."""

    __slots__ = ("failures", "latencies", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.latencies = [0] * _BUCKETS

    def add(self, record: PredictionRecord) -> None:
        self.requests += 1
        self.failures += record.status >= 500
        self.latencies[bucket(record.micros)] += 1


class Traffic:
    """Safe to share between threads."""

    def __init__(self, log: PredictionLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._position: dict[str, int] | None = None
        self._tallies: dict[tuple[str, str, int], _Tally] = {}

    def refresh(self) -> bool:
        """Read what was answered since; whether all of it was read within a quarter of a second."""
        with self._lock:
            deadline = self._clock.monotonic_s() + BUDGET_S
            oldest = self._slot() - SLOTS
            if self._position is None:
                self._position = self._log.since(from_us(oldest * _SLOT_US))
            self._tallies = {key: tally for key, tally in self._tallies.items() if key[2] > oldest}
            while True:
                records, self._position = self._log.tail(self._position, limit=BATCH)
                self._count(records, oldest)
                if len(records) < BATCH:
                    return True
                if self._clock.monotonic_s() >= deadline:
                    return False

    def slots(self, endpoint: str) -> tuple[Slot, ...]:
        """The last five minutes of an endpoint, oldest first, without gaps."""
        with self._lock:
            now = self._slot()
            requests, failures = [0] * SLOTS, [0] * SLOTS
            for (name, _, slot), tally in self._tallies.items():
                ago = now - slot
                if name == endpoint and 0 <= ago < SLOTS:
                    requests[ago] += tally.requests
                    failures[ago] += tally.failures
        return tuple(Slot(ago * SLOT_S, requests[ago], failures[ago]) for ago in reversed(range(SLOTS)))

    def releases(self, endpoint: str) -> frozenset[str]:
        """The releases that answered in the last five minutes."""
        with self._lock:
            return frozenset(release for name, release, _ in self._tallies if name == endpoint)

    def answers(self, endpoint: str, releases: Collection[str] | None = None) -> Answers:
        """How an endpoint, or some releases on it, answered in the last five minutes."""
        with self._lock:
            oldest = self._slot() - SLOTS
            tallies = [
                tally
                for (name, release, slot), tally in self._tallies.items()
                if name == endpoint and slot > oldest and (releases is None or release in releases)
            ]
            requests, failures = sum(t.requests for t in tallies), sum(t.failures for t in tallies)
            latencies = [sum(column) for column in zip(*(t.latencies for t in tallies), strict=True)]
        if not requests:
            return Answers(requests=0, failures=0)
        interval = wilson_interval(failures, requests)
        return Answers(
            requests=requests, failures=failures, failed_low=interval.low, failed_high=interval.high,
            p50_ms=percentile_ms(latencies, 0.5), p99_ms=percentile_ms(latencies, 0.99),
        )  # fmt: skip

    def _count(self, records: Iterable[PredictionRecord], oldest: int) -> None:
        for record in records:
            slot = record.at_us // _SLOT_US
            if slot > oldest:
                key = (record.endpoint, record.release, slot)
                tally = self._tallies.get(key)
                if tally is None:
                    tally = self._tallies[key] = _Tally()
                tally.add(record)

    def _slot(self) -> int:
        return to_us(self._clock.now()) // _SLOT_US


def bucket(micros: int) -> int:
    """The histogram bucket of a latency.

    >>> bucket(0), bucket(1), bucket(2), bucket(10**9)
    (0, 0, 4, 99)
    """
    return min(int(_PER_OCTAVE * log2(max(micros, 1))), _BUCKETS - 1)


def percentile_ms(latencies: list[int], share: float) -> float:
    """The upper end of the bucket that holds a share of all latencies, in milliseconds.

    >>> latencies = [0] * 100
    >>> latencies[bucket(1000)] = 10
    >>> 1.0 <= percentile_ms(latencies, 0.5) <= 1.2
    True
    """
    wanted = ceil(share * sum(latencies))
    seen = 0
    for index, count in enumerate(latencies):
        seen += count
        if seen >= wanted:
            return float(2 ** ((index + 1) / _PER_OCTAVE) / 1000)
    return 0.0
