"""What clients may call things, and how long that may be."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from andon.core.errors import Invalid
from andon.tracking.limits import check_batch, check_key, check_text, cut, once, time_of


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "val/loss",
        "top 5",
        "präzision",
        "精度",
        "a.b-c_d",
        "time: total",
        "a..b",
        "a/.b",
        "k" * 250,
        " a",
    ],
)
def test_a_key_may_hold_letters_of_any_language_and_slashes(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        None, "", ".", "..", "..a", "../a", "a/../b", "/a", "a//b", "a/", "./a", "a/.", "k" * 251, "a;b", "a\\b", "a%2e", "a?b",
        "a#b", "a\nb", "a\n", "a\0b", "\ud800", "a`b", "a'b", 'a"b',
    ],
)  # fmt: skip
def test_a_key_that_is_none_or_may_mean_another_is_refused(key: str | None) -> None:
    with pytest.raises(Invalid) as refused:
        check_key(key, "metrics[3].key")

    assert refused.value.field == "metrics[3].key"
    assert "metrics[3].key" in str(refused.value)


def test_a_huge_key_is_refused_at_once() -> None:
    began = time.process_time()

    for text in ("../" * 300_000, "a" * 1_000_000, "/" * 1_000_000):
        with pytest.raises(Invalid):
            check_key(text)

    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "counts", [(1001, 0, 0), (0, 101, 0), (0, 0, 101), (900, 60, 60), (1000, 1, 0), (10**6, 10**6, 10**6)]
)
def test_a_batch_over_its_limits_is_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(Invalid, match="at most"):
        check_batch(*counts)


@pytest.mark.parametrize("counts", [(1000, 0, 0), (800, 100, 100), (0, 0, 0)])
def test_a_batch_at_its_limits_is_taken(counts: tuple[int, int, int]) -> None:
    check_batch(*counts)


def test_a_param_twice_in_a_batch_is_refused_by_name() -> None:
    once(["a", "b"])

    with pytest.raises(Invalid, match="Duplicate parameter keys have been submitted: b"):
        once(["a", "b", "b"])


def test_values_are_cut_and_other_texts_refused() -> None:
    assert (cut("abc", 2), cut("ab", 2)) == ("ab", "ab")
    assert check_text("ab", 2, "name") == "ab"
    with pytest.raises(Invalid, match="exceeds the maximum length of 2 characters"):
        check_text("abc", 2, "name")


def test_times_that_no_calendar_has_are_refused() -> None:
    assert time_of(0, "start_time") == datetime(1970, 1, 1, tzinfo=UTC)
    assert time_of(-1, "start_time") < datetime(1970, 1, 1, tzinfo=UTC)
    for at_ms in (1_700_000_000_000_000_000, -(2**63), 2**63 - 1):
        with pytest.raises(Invalid, match="start_time"):
            time_of(at_ms, "start_time")
