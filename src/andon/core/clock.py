"""Time, passed in. Domain time (`now`) may be data time in a replay; time-outs and leases use `monotonic_s`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Where a part of Andon gets its time from."""

    def now(self) -> datetime:
        """Wall time, aware, UTC. It may jump: never subtract two of them to measure a wait."""

    def monotonic_s(self) -> float:
        """Seconds that only grow; unrelated to the date."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware time.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone")
    return (at - EPOCH) // _MICROSECOND


def from_us(value: int) -> datetime:
    """The UTC time of microseconds since 1970.

    >>> from_us(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return EPOCH + timedelta(microseconds=value)


def parse_time(text: str) -> datetime:
    """An RFC 3339 time as an aware UTC datetime.

    Raises:
        ValueError: it is not a time, or has no zone.

    >>> parse_time("2013-04-01T12:00:00Z").isoformat()
    '2013-04-01T12:00:00+00:00'
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"the time {text!r} has no zone")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"the time {text!r} lies outside the years 1 to 9999") from None
