"""AUC, its intervals, rates and scores against brute force, closed forms, scipy and simulated coverage."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats  # noqa: TID253 - the oracle of these tests
from hypothesis import assume, given
from hypothesis import strategies as st

from andon.stats import (
    Interval,
    auc,
    auc_difference,
    auc_interval,
    brier,
    log_loss,
    rates,
    wilson_interval,
)

Floats = npt.NDArray[np.float64]
ROWS = st.lists(
    st.tuples(
        st.booleans(), st.integers(-4, 4).map(float) | st.floats(-1e6, 1e6), st.integers(-3, 3).map(float)
    ),
    min_size=4,
    max_size=40,
)


def columns(rows: list[tuple[bool, float, float]]) -> tuple[npt.NDArray[np.bool_], Floats, Floats]:
    labels, a, b = zip(*rows, strict=True)
    assume(2 <= sum(labels) <= len(labels) - 2)
    return np.array(labels), np.array(a), np.array(b)


def kernel(labels: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    """Every pair of a positive (row) and a negative (column): 1 in order, 0.5 tied, 0 out of order."""
    pos, neg = scores[labels][:, None], scores[~labels][None, :]
    return np.where(pos > neg, 1.0, np.where(pos == neg, 0.5, 0.0))


def delong_variance(pairs: Floats) -> float:
    m, n = pairs.shape
    return float(pairs.mean(axis=1).var(ddof=1) / m + pairs.mean(axis=0).var(ddof=1) / n)


@given(ROWS)
def test_auc_equals_the_count_over_all_pairs_and_mann_whitney(rows: list[tuple[bool, float, float]]) -> None:
    labels, scores, _ = columns(rows)

    value = auc(labels, scores)

    assert value == pytest.approx(kernel(labels, scores).mean(), abs=1e-12)
    u = scipy.stats.mannwhitneyu(scores[labels], scores[~labels], method="asymptotic").statistic
    assert value == pytest.approx(u / (labels.sum() * (~labels).sum()), abs=1e-12)


@given(ROWS, st.permutations(range(40)))
def test_auc_ignores_row_order_and_monotone_rescaling_and_mirrors(
    rows: list[tuple[bool, float, float]], order: list[int]
) -> None:
    labels, scores, coarse = columns(rows)
    shuffled = [i for i in order if i < len(labels)]

    assert auc(labels[shuffled], scores[shuffled]) == auc(labels, scores)
    assert auc(labels, np.exp(coarse) * 3.0 + 1.0) == auc(labels, coarse)
    assert auc(labels, -scores) == pytest.approx(1.0 - auc(labels, scores), abs=1e-12)
    assert auc(~labels, scores) == pytest.approx(1.0 - auc(labels, scores), abs=1e-12)


@given(ROWS)
def test_interval_is_delongs_variance_by_brute_force_on_the_logit(
    rows: list[tuple[bool, float, float]],
) -> None:
    labels, scores, _ = columns(rows)
    pairs = kernel(labels, scores)
    value = pairs.mean()
    assume(0.0 < value < 1.0)

    interval = auc_interval(labels, scores, 0.9)

    z = NormalDist().inv_cdf(0.95)
    error = math.sqrt(delong_variance(pairs)) / (value * (1.0 - value))
    ends = [1.0 / (1.0 + math.exp(-(math.log(value / (1.0 - value)) + sign * z * error))) for sign in (-1, 1)]
    assert (interval.low, interval.high) == pytest.approx(ends, abs=1e-9)
    assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0
    assert interval.n == len(labels)


@given(ROWS)
def test_difference_is_the_paired_variance_by_brute_force(rows: list[tuple[bool, float, float]]) -> None:
    labels, a, b = columns(rows)
    pairs = kernel(labels, a) - kernel(labels, b)
    variance = delong_variance(pairs)
    assume(variance > 1e-12)

    interval = auc_difference(labels, a, b, 0.9)

    reach = NormalDist().inv_cdf(0.95) * math.sqrt(variance)
    assert interval.value == pytest.approx(pairs.mean(), abs=1e-12)
    assert interval.low == pytest.approx(max(-1.0, pairs.mean() - reach), abs=1e-9)
    assert interval.high == pytest.approx(min(1.0, pairs.mean() + reach), abs=1e-9)
    mirrored = auc_difference(labels, b, a, 0.9)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low), abs=1e-12)


def binormal(
    rng: np.random.Generator, m: int, n: int, distance: float
) -> tuple[npt.NDArray[np.bool_], Floats]:
    labels = np.r_[np.ones(m, bool), np.zeros(n, bool)]
    return labels, rng.standard_normal(m + n) + distance * labels


@pytest.mark.parametrize(("m", "n", "distance"), [(60, 200, 1.0), (25, 25, 2.5), (200, 60, 0.2)])
def test_interval_covers_the_true_auc_as_often_as_it_says(m: int, n: int, distance: float) -> None:
    rng = np.random.default_rng(11)
    truth = NormalDist().cdf(distance / math.sqrt(2.0))

    found = [auc_interval(*binormal(rng, m, n, distance)) for _ in range(1500)]
    covered = np.mean([i.low <= truth <= i.high for i in found])

    assert 0.93 <= covered <= 0.975


def test_paired_interval_covers_the_true_difference_and_is_the_narrower_one() -> None:
    rng = np.random.default_rng(12)
    # A is one sd apart; B is 0.6 A plus noise of variance 1, so 0.6 apart with variance 1.36.
    truth = NormalDist().cdf(math.sqrt(0.5)) - NormalDist().cdf(0.6 / math.sqrt(2.0 * 1.36))
    covered, narrower = 0, 0

    for _ in range(1000):
        labels, a = binormal(rng, 80, 160, 1.0)
        b = 0.6 * a + rng.standard_normal(a.size)
        found = auc_difference(labels, a, b)
        covered += found.low <= truth <= found.high
        alone = math.hypot(auc_interval(labels, a).half_width, auc_interval(labels, b).half_width)
        narrower += found.half_width < alone

    assert 0.93 <= covered / 1000 <= 0.97
    assert narrower > 990


def test_a_perfect_small_sample_is_not_called_certain() -> None:
    perfect = auc_interval([0] * 10 + [1] * 5, range(15))
    worst = auc_interval([1] * 5 + [0] * 10, range(15))

    assert (perfect.value, perfect.high, perfect.n) == (1.0, 1.0, 15)
    assert perfect.low == pytest.approx(0.025**0.2)
    assert (worst.low, worst.value) == (0.0, 0.0)
    assert worst.high == pytest.approx(1.0 - 0.025**0.2)


def test_two_perfect_models_may_still_differ() -> None:
    labels = [0] * 10 + [1] * 10
    reordered = [*range(9, -1, -1), *range(10, 20)]

    found = auc_difference(labels, range(20), reordered)

    assert found.value == 0.0
    assert found.low == -found.high < -0.1


def test_models_that_rank_alike_do_not_differ() -> None:
    scores = np.array([0.2, 0.9, 0.4, 0.4])

    assert auc_difference([0, 1, 0, 1], scores, 10.0 * scores - 3.0) == Interval(0.0, 0.0, 0.0, 4)


def test_one_row_in_a_class_says_nothing() -> None:
    assert auc_interval([0, 0, 1], [1, 2, 3]) == Interval(1.0, 0.0, 1.0, 3)
    assert auc_difference([0, 0, 1], [1, 2, 3], [3, 2, 1]) == Interval(1.0, -1.0, 1.0, 3)


def test_constant_and_infinite_scores_have_an_auc() -> None:
    assert auc_interval([0, 1, 0, 1], [3.0] * 4) == Interval(0.5, 0.5, 0.5, 4)
    assert auc([0, 1, 1], [-math.inf, 0.0, math.inf]) == 1.0


def test_a_million_rows_rank_without_all_pairs() -> None:
    rng = np.random.default_rng(0)
    labels, scores = binormal(rng, 100_000, 900_000, 1.0)

    interval = auc_interval(labels, scores)

    assert interval.low < NormalDist().cdf(1.0 / math.sqrt(2.0)) < interval.high
    assert interval.half_width < 0.003


# Rates.


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=50))
def test_rates_are_shares_of_the_counts(rows: list[tuple[bool, bool]]) -> None:
    found = rates([y for y, _ in rows], [d for _, d in rows])

    cells = [
        sum(row == cell for row in rows)
        for cell in [(True, True), (False, True), (True, False), (False, False)]
    ]
    tp, fp, fn, tn = cells
    assert [found.true_positives, found.false_positives, found.false_negatives, found.true_negatives] == cells
    assert found.n == len(rows)
    for share, successes, n in [
        (found.accuracy, tp + tn, len(rows)),
        (found.precision, tp, tp + fp),
        (found.true_positive_rate, tp, tp + fn),
        (found.false_positive_rate, fp, fp + tn),
        (found.selection_rate, tp + fp, len(rows)),
        (found.base_rate, tp + fn, len(rows)),
    ]:
        assert share == (wilson_interval(successes, n) if n else None)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(case: tuple[int, int]) -> None:
    successes, n = case

    found = wilson_interval(successes, n, 0.99)

    truth = scipy.stats.binomtest(successes, n).proportion_ci(0.99, method="wilson")
    assert (found.low, found.high) == pytest.approx((truth.low, truth.high), abs=1e-12)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


# Proper scores.


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.999)), min_size=1, max_size=50))
def test_scores_equal_their_definitions(rows: list[tuple[bool, float]]) -> None:
    labels, p = [y for y, _ in rows], [p for _, p in rows]

    assert brier(labels, p) == pytest.approx(np.mean([(q - y) ** 2 for y, q in rows]), abs=1e-12)
    surprise = [-math.log(q if y else 1.0 - q) for y, q in rows]
    assert log_loss(labels, p) == pytest.approx(np.mean(surprise), abs=1e-12)


def test_certain_and_wrong_costs_the_floor() -> None:
    assert log_loss([1], [0.0]) == pytest.approx(-math.log(1e-15))
    assert log_loss([1], [0.0], floor=0.0) == math.inf
    assert log_loss([1, 0], [1.0, 0.0]) == 0.0
    assert brier([1, 0], [1.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc([1, 1], [0.1, 0.2]), "2 positives among 2 rows"),
        (lambda: auc([], []), "0 positives among 0 rows"),
        (lambda: auc([0, 1], [0.1, math.nan]), "scores holds nan"),
        (lambda: auc([0, 1], [0.1]), "labels has 2 rows and scores has 1"),
        (lambda: auc([0, 2], [0.1, 0.2]), "booleans or 0 and 1"),
        (lambda: auc([0, math.nan], [0.1, 0.2]), "no nulls"),
        (lambda: auc([0, 1], ["a", "b"]), "scores must hold numbers"),
        (lambda: auc([0, 1], [[0.1], [0.2]]), "one-dimensional"),
        (lambda: auc_interval([0, 1], [0.1, 0.2], 1.0), "level"),
        (lambda: auc_difference([0, 1], [0.1, 0.2], [0.1]), "scores_b has 1"),
        (lambda: rates([0, 1], [1]), "decisions has 1"),
        (lambda: rates([], [], 0.0), "level"),
        (lambda: brier([1], [1.5]), r"in \[0, 1\]"),
        (lambda: brier([], []), "empty"),
        (lambda: log_loss([1], [0.5], floor=0.5), "floor"),
        (lambda: wilson_interval(3, 2), "3 successes in 2 trials"),
        (lambda: wilson_interval(0, 0), "0 trials"),
    ],
)
def test_nonsense_is_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
