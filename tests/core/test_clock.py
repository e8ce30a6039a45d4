"""Times are aware, UTC and whole microseconds, there and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.clock import SystemClock, from_us, parse_time, to_us

moments = st.datetimes(timezones=st.just(UTC))


@given(moments)
def test_microseconds_keep_a_time_exactly(at: datetime) -> None:
    assert from_us(to_us(at)) == at


@given(moments, moments)
def test_microseconds_keep_the_order(one: datetime, other: datetime) -> None:
    assert (to_us(one) < to_us(other)) == (one < other)


def test_another_zone_is_the_same_moment() -> None:
    at = datetime(2013, 4, 1, 12, tzinfo=UTC)

    assert to_us(at.astimezone(timezone(timedelta(hours=-5)))) == to_us(at) == 1364817600000000


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        to_us(datetime(2013, 4, 1))  # noqa: DTZ001  # that is the case


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2013-04-01T12:00:00Z", "2013-04-01T12:00:00+00:00"),
        ("2013-04-01T07:00:00-05:00", "2013-04-01T12:00:00+00:00"),
        ("2013-04-01T12:00:00.000001+00:00", "2013-04-01T12:00:00.000001+00:00"),
    ],
)
def test_a_client_s_time_is_read_as_utc(text: str, utc: str) -> None:
    assert parse_time(text).isoformat() == utc


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2013-04-01T12:00:00", "2013-13-01T00:00:00Z", "0001-01-01T00:00:00+10:00"]
)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|isoformat|month|zone"):
        parse_time(text)


def test_the_machine_s_clock_is_utc_and_its_waits_only_grow() -> None:
    clock = SystemClock()

    first, second = clock.monotonic_s(), clock.monotonic_s()

    assert clock.now().utcoffset() == timedelta(0)
    assert second >= first
