"""The canary's tests keep their error rates under any number of looks, and find what they are for."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.stats import (
    CeilingEvidence,
    HarmEvidence,
    NoninferiorityEvidence,
    ceiling_log_e,
    harm_e_value,
    harm_log_e_value,
    noninferiority_log_e,
    wilson_interval,
)
from andon.stats.sequential import HARM_ODDS

ALPHA = 0.05
RUNS = 2000
LOOKS = 200

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WEIGHTS = st.floats(0.001, 0.999)
FAILURES = st.lists(st.tuples(st.booleans(), WEIGHTS), max_size=40)


def share_of(ratio: float, w: Floats | float) -> Floats | float:
    """The candidate's share of failures when it fails `ratio` times as often as stable."""
    return w * ratio / (1.0 - w + w * ratio)


def harm_paths(candidate: Bools, w: Floats) -> Floats:
    """log10 evidence after each failure of each run (rows), written from the formula alone."""
    capital = [
        np.exp(np.cumsum(np.log(np.where(candidate, theta, 1.0) / (1.0 - w + w * theta)), axis=1))
        for theta in HARM_ODDS
    ]
    return np.log10(np.mean(capital, axis=0))


def margin_paths(candidate: Bools, w: Floats, margin: float) -> Floats:
    q = share_of(margin, w)
    factors = np.where(candidate, w / q, (1.0 - w) / (1.0 - q))
    return np.cumsum(np.log10(factors), axis=1)


def ever_alarmed(paths: Floats, alpha: float = ALPHA) -> int:
    """Runs that reach 1/alpha at one of 200 looks spread evenly over the failures."""
    looks = np.linspace(0, paths.shape[1] - 1, LOOKS).astype(int)
    return int((paths[:, looks] >= -math.log10(alpha)).any(axis=1).sum())


# Exactness: the expectation of the evidence over every possible outcome, by enumeration.


def expected(evidence: Callable[[list[bool]], float], shares: list[float]) -> float:
    outcomes = itertools.product([True, False], repeat=len(shares))
    return math.fsum(
        math.prod(q if c else 1.0 - q for c, q in zip(outcome, shares, strict=True)) * evidence(list(outcome))
        for outcome in outcomes
    )


MIXED = [0.01, 0.5, 0.1, 0.9, 0.1, 0.3, 0.05, 0.5]


def test_harm_evidence_is_worth_exactly_one_when_both_arms_fail_alike() -> None:
    assert expected(lambda c: harm_e_value(c, MIXED), MIXED) == pytest.approx(1.0, abs=1e-12)


def test_harm_evidence_is_worth_less_than_one_when_the_candidate_is_better_on_some_requests() -> None:
    shares = [
        share_of(ratio, w) for ratio, w in zip([1.0, 0.2, 0.9, 1.0, 0.5, 0.0, 1.0, 0.7], MIXED, strict=True)
    ]

    assert expected(lambda c: harm_e_value(c, MIXED), shares) < 1.0


@pytest.mark.parametrize(("ratio", "relation"), [(1.5, "equal"), (1.8, "below"), (6.0, "below")])
def test_noninferiority_evidence_is_fair_at_the_margin_and_loses_beyond_it(
    ratio: float, relation: str
) -> None:
    shares = [float(share_of(ratio, w)) for w in MIXED]

    value = expected(lambda c: 10 ** noninferiority_log_e(c, MIXED, margin_odds=1.5), shares)

    assert value == pytest.approx(1.0, abs=1e-12) if relation == "equal" else value < 0.95


@pytest.mark.parametrize("rate", [0.1, 0.13, 0.6])
def test_ceiling_evidence_is_fair_at_the_ceiling_and_loses_above_it(rate: float) -> None:
    value = expected(lambda f: 10 ** ceiling_log_e(f, ceiling=0.1), [rate] * 10)

    assert value == pytest.approx(1.0, abs=1e-12) if rate == 0.1 else value < 1.0


def test_closed_forms() -> None:
    w, theta, margin = 0.2, 3.0, 1.5
    candidate = [True, True, False]

    assert harm_e_value(candidate, w, odds=(theta,)) == pytest.approx(theta**2 / (1 - w + w * theta) ** 3)
    assert harm_e_value([], 0.2) == 1.0
    assert harm_e_value(candidate, [0.2, 0.3, 0.4], odds=(2.0,)) == pytest.approx(4 / (1.2 * 1.3 * 1.4))
    assert 10 ** noninferiority_log_e(candidate, w, margin_odds=margin) == pytest.approx(1.1**3 / margin**2)
    assert noninferiority_log_e(candidate, w, margin_odds=theta) == pytest.approx(
        -harm_log_e_value(candidate, w, odds=(theta,))
    )
    assert 10 ** ceiling_log_e([False, True], ceiling=0.5) == pytest.approx(
        np.mean([part * (1 - part * 0.5) / 0.5 for part in (0.05, 0.2, 0.5)])
    )


# Error rates under peeking, by simulation.


@pytest.mark.parametrize("w", [0.01, 0.1, 0.5])
def test_harm_false_alarms_stay_below_alpha_at_200_looks(w: float) -> None:
    rng = np.random.default_rng(20260101)
    candidate = rng.random((RUNS, 1000)) < w

    paths = harm_paths(candidate, np.full(candidate.shape, w))
    alarms = ever_alarmed(paths)

    assert wilson_interval(alarms, RUNS, 0.99).low <= ALPHA
    assert alarms / RUNS <= ALPHA
    last = [harm_log_e_value(row, w) for row in candidate[:50]]
    np.testing.assert_allclose(last, paths[:50, -1], rtol=0, atol=1e-9)


def test_a_peeked_z_test_on_the_same_streams_does_raise_false_alarms() -> None:
    """The simulation can tell a valid test from an invalid one."""
    rng = np.random.default_rng(20260101)
    candidate = rng.random((RUNS, 1000)) < 0.5
    n = np.arange(1, 1001)

    z = (candidate.cumsum(axis=1) - n * 0.5) / np.sqrt(n * 0.25)
    looks = np.linspace(25, 999, LOOKS).astype(int)

    assert (z[:, looks] > 1.645).any(axis=1).mean() > 0.2


def test_harm_stays_valid_when_weights_change_in_answer_to_the_evidence() -> None:
    rng = np.random.default_rng(7)
    n = 600
    candidate = np.zeros((RUNS, n), dtype=bool)
    weights = np.zeros((RUNS, n))
    logs = np.zeros((RUNS, len(HARM_ODDS)))
    w = np.full(RUNS, 0.01)
    for i in range(n):
        candidate[:, i], weights[:, i] = rng.random(RUNS) < w, w
        gain = np.log(HARM_ODDS) * candidate[:, [i]] - np.log1p(w[:, None] * (np.array(HARM_ODDS) - 1.0))
        logs += gain
        if i % 20 == 19:  # more traffic while it looks harmless, less as soon as it looks bad
            w = np.where(np.exp(logs).mean(axis=1) < 1.0, np.minimum(w * 2.0, 0.9), np.maximum(w / 2.0, 0.01))

    alarms = ever_alarmed(harm_paths(candidate, weights))

    assert len(np.unique(weights)) > 5
    assert alarms / RUNS <= ALPHA
    steps = (
        HarmEvidence()
        .update(candidate[0, :300], weights[0, :300])
        .update(candidate[0, 300:], weights[0, 300:])
    )
    assert steps.log_e == pytest.approx(harm_paths(candidate[:1], weights[:1])[0, -1], abs=1e-9)


@pytest.mark.parametrize(("w", "within"), [(0.1, 200), (0.5, 90)])
def test_a_doubled_failure_rate_is_found_soon(w: float, within: int) -> None:
    rng = np.random.default_rng(3)
    candidate = rng.random((500, 1000)) < share_of(2.0, w)

    reached = harm_paths(candidate, np.full(candidate.shape, w)) >= -math.log10(ALPHA)
    delay = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, 1001)

    assert np.median(delay) <= within
    assert (delay <= 1000).mean() > 0.97


def test_a_five_times_worse_candidate_is_found_within_two_dozen_failures() -> None:
    rng = np.random.default_rng(4)
    candidate = rng.random((500, 300)) < share_of(5.0, 0.1)

    reached = harm_paths(candidate, np.full(candidate.shape, 0.1)) >= -math.log10(ALPHA)

    assert reached.any(axis=1).all()
    assert np.median(reached.argmax(axis=1) + 1) <= 24


@pytest.mark.parametrize("w", [0.1, 0.5])
def test_noninferiority_errs_rarely_at_the_margin_and_clears_an_equal_candidate(w: float) -> None:
    rng = np.random.default_rng(5)
    at_margin = rng.random((RUNS, 1500)) < share_of(1.5, w)
    equal = rng.random((500, 1500)) < w

    wrong = ever_alarmed(margin_paths(at_margin, np.full(at_margin.shape, w), 1.5))
    right = ever_alarmed(margin_paths(equal, np.full(equal.shape, w), 1.5))

    assert wrong / RUNS <= ALPHA
    assert right / 500 > 0.95
    assert noninferiority_log_e(equal[0], w) == pytest.approx(
        margin_paths(equal[:1], np.full((1, 1500), w), 1.5)[0, -1], abs=1e-9
    )


def test_ceiling_errs_rarely_at_the_ceiling_and_clears_a_candidate_that_never_fails() -> None:
    rng = np.random.default_rng(6)
    failed = rng.random((RUNS, 4000)) < 0.02
    looks = np.linspace(1, 4000, LOOKS).astype(int)
    failures = failed.cumsum(axis=1)[:, looks - 1]

    passed = sum(
        any(
            CeilingEvidence(passes=int(n - f), failures=int(f)).rejects(ALPHA)
            for n, f in zip(looks, row, strict=True)
        )
        for row in failures[:500]
    )

    assert passed / 500 <= ALPHA
    assert ceiling_log_e([False] * 183) < -math.log10(ALPHA) <= ceiling_log_e([False] * 184)
    assert CeilingEvidence(passes=1990, failures=10).rejects(ALPHA)
    assert not CeilingEvidence(passes=1960, failures=40).rejects(ALPHA)


# Algebra.


@given(FAILURES, st.integers(0, 40), st.randoms(use_true_random=False))
def test_harm_state_is_the_same_in_one_piece_in_parts_and_in_another_order(
    failures: list[tuple[bool, float]], cut: int, random: object
) -> None:
    whole = HarmEvidence().update([c for c, _ in failures], [w for _, w in failures])
    one_by_one = HarmEvidence()
    for c, w in reversed(failures):
        one_by_one = one_by_one.update(c, w)
    parts = [
        HarmEvidence().update([c for c, _ in part], [w for _, w in part])
        for part in (failures[:cut], failures[cut:])
    ]

    for other in (one_by_one, parts[0].merge(parts[1]), parts[1].merge(parts[0])):
        assert other.log_sums == pytest.approx(whole.log_sums, abs=1e-9)
        assert other.stable_failures == whole.stable_failures
        assert other.candidate_failures == whole.candidate_failures
        assert other.log_e == pytest.approx(whole.log_e, abs=1e-9)


@given(FAILURES, st.integers(0, 40))
def test_noninferiority_state_merges_to_the_whole(failures: list[tuple[bool, float]], cut: int) -> None:
    def state(part: list[tuple[bool, float]]) -> NoninferiorityEvidence:
        return NoninferiorityEvidence().update([c for c, _ in part], [w for _, w in part])

    merged, whole = state(failures[:cut]).merge(state(failures[cut:])), state(failures)

    assert merged.log_e == pytest.approx(whole.log_e, abs=1e-9)
    assert merged.stable_failures + merged.candidate_failures == len(failures)


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 60))
def test_ceiling_state_merges_exactly(failures: list[bool], cut: int) -> None:
    merged = CeilingEvidence().update(failures[:cut]).merge(CeilingEvidence().update(failures[cut:]))

    assert merged == CeilingEvidence().update(failures)
    assert merged.log_e == ceiling_log_e(failures)


@given(FAILURES)
def test_one_more_failure_of_the_candidate_never_speaks_for_it(failures: list[tuple[bool, float]]) -> None:
    state = HarmEvidence().update([c for c, _ in failures], [w for _, w in failures])

    assert state.update(True, 0.1).log_e > state.update(False, 0.1).log_e


@given(FAILURES)
def test_states_survive_json_exactly(failures: list[tuple[bool, float]]) -> None:
    c, w = [c for c, _ in failures], [w for _, w in failures]
    harm = HarmEvidence().update(c, w)
    margin = NoninferiorityEvidence(margin_odds=2.0).update(c, w)
    ceiling = CeilingEvidence(ceiling=0.1).update(c)

    assert HarmEvidence.from_dict(json.loads(json.dumps(harm.to_dict()))) == harm
    assert NoninferiorityEvidence.from_dict(json.loads(json.dumps(margin.to_dict()))) == margin
    assert CeilingEvidence.from_dict(json.loads(json.dumps(ceiling.to_dict()))) == ceiling


def test_overwhelming_evidence_overflows_to_infinity_and_keeps_its_logarithm() -> None:
    state = HarmEvidence().update([True] * 100_000, 0.01)

    assert state.e == math.inf
    assert 90_000 < state.log_e < 100_000
    assert HarmEvidence().update([False] * 100_000, 0.99).e == 0.0


# Bad input.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: harm_e_value([True, False], [0.1]), "2 rows and propensity has 1"),
        (lambda: harm_e_value([True], [1.0]), "strictly between 0 and 1"),
        (lambda: harm_e_value([True], [0.0]), "strictly between 0 and 1"),
        (lambda: harm_e_value([True], [math.nan]), "nan"),
        (lambda: harm_e_value([2], [0.5]), "booleans"),
        (lambda: harm_e_value(["yes"], [0.5]), "booleans"),
        (lambda: harm_e_value([[True]], [0.5]), "one-dimensional"),
        (lambda: harm_e_value([True], 0.5, odds=()), "above 1"),
        (lambda: harm_e_value([True], 0.5, odds=(1.0, 2.0)), "above 1"),
        (lambda: noninferiority_log_e([True], 0.5, margin_odds=1.0), "above 1"),
        (lambda: ceiling_log_e([True], ceiling=1.0), "strictly between 0 and 1"),
        (lambda: HarmEvidence().rejects(0.0), "alpha"),
        (lambda: HarmEvidence(odds=(2.0,)).merge(HarmEvidence()), "cannot be merged"),
        (lambda: NoninferiorityEvidence().merge(NoninferiorityEvidence(margin_odds=2.0)), "cannot be merged"),
        (lambda: CeilingEvidence().merge(CeilingEvidence(ceiling=0.5)), "cannot be merged"),
        (lambda: HarmEvidence(log_sums=(0.0,)), "do not fit"),
        (lambda: CeilingEvidence(passes=-1), ">= 0"),
        (lambda: CeilingEvidence.from_dict({"ceiling": 0.1, "passes": 1.5, "failures": 0}), "passes"),
        (lambda: HarmEvidence.from_dict({"odds": 3}), "odds must be a list"),
        (lambda: NoninferiorityEvidence.from_dict({}), "margin_odds must be a finite number"),
    ],
)
def test_nonsense_is_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
