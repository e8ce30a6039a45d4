"""A clock that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_START = datetime(2013, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `core.clock.Clock` whose two times stand still until they are moved.

    >>> clock = FakeClock()
    >>> clock.advance(1.5)
    >>> clock.monotonic_s(), clock.now().second
    (1.5, 1)
    """

    def __init__(self, at: datetime = _START) -> None:
        self._at = at
        self._monotonic_s = 0.0

    def now(self) -> datetime:
        return self._at

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let time pass, on both."""
        self._at += timedelta(seconds=seconds)
        self._monotonic_s += seconds

    def jump(self, at: datetime) -> None:
        """Set the wall clock, as a person or a time server does; the monotonic one does not notice."""
        self._at = at
