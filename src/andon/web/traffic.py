"""How each release answers just now: counts, failures and latencies of the last hour, minute by minute.

A cache in memory, read from the prediction log's tail: losing it loses nothing. Latencies are kept in a histogram whose
buckets grow by 19 %, so a percentile is right to that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from math import ceil, log2

import msgspec

from andon.core.clock import Clock, from_us, to_us
from andon.core.predictions import PredictionRecord
from andon.stats import wilson_interval
from andon.store.ports import PredictionLog

MINUTE_US = 60_000_000
KEPT_MINUTES = 60
SHOWN_MINUTES = 30
WINDOW_MINUTES = 5
BATCH = 10_000
BUDGET_S = 0.25
_PER_OCTAVE = 4
_BUCKETS = 25 * _PER_OCTAVE


class Minute(msgspec.Struct, frozen=True):
    """Requests and failures (5xx) of one minute. `ago` counts minutes back from now, 0 is the one that runs."""

    ago: int
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
    """What one release answered in one minute."""

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
            oldest = self._minute() - KEPT_MINUTES
            if self._position is None:
                self._position = self._log.since(from_us(oldest * MINUTE_US))
            self._tallies = {key: tally for key, tally in self._tallies.items() if key[2] > oldest}
            while True:
                records, self._position = self._log.tail(self._position, limit=BATCH)
                self._count(records, oldest)
                if len(records) < BATCH:
                    return True
                if self._clock.monotonic_s() >= deadline:
                    return False

    def minutes(self, endpoint: str) -> tuple[Minute, ...]:
        """The last half hour of an endpoint, oldest first, without gaps."""
        with self._lock:
            now = self._minute()
            requests, failures = [0] * SHOWN_MINUTES, [0] * SHOWN_MINUTES
            for (name, _, minute), tally in self._tallies.items():
                ago = now - minute
                if name == endpoint and 0 <= ago < SHOWN_MINUTES:
                    requests[ago] += tally.requests
                    failures[ago] += tally.failures
        return tuple(Minute(ago, requests[ago], failures[ago]) for ago in reversed(range(SHOWN_MINUTES)))

    def answers(self, endpoint: str, release: str | None = None) -> Answers:
        """How an endpoint, or one release on it, answered in the last five minutes."""
        with self._lock:
            oldest = self._minute() - WINDOW_MINUTES
            tallies = [
                tally
                for (name, by, minute), tally in self._tallies.items()
                if name == endpoint and minute > oldest and release in (None, by)
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
            minute = record.at_us // MINUTE_US
            if minute > oldest:
                key = (record.endpoint, record.release, minute)
                tally = self._tallies.get(key)
                if tally is None:
                    tally = self._tallies[key] = _Tally()
                tally.add(record)

    def _minute(self) -> int:
        return to_us(self._clock.now()) // MINUTE_US


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
