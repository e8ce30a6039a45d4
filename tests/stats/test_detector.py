"""The drift detector keeps its promise on streams without drift and finds shifts soon."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate  # noqa: TID253 - the oracle of these tests
import scipy.stats  # noqa: TID253 - the oracle of these tests
from hypothesis import given
from hypothesis import strategies as st

from andon.stats import (
    CategoricalProfile,
    ColumnDetectors,
    NumericProfile,
    ShiryaevRoberts,
    bin_counts,
    conformal_p,
    e_from_p,
    js_distance,
    ks_distance,
    wilson_interval,
)

Floats = npt.NDArray[np.float64]
UNITS = st.floats(0.0, 1.0)
DISTANCES = st.floats(0.0, 2.0) | st.sampled_from([math.nan, math.inf])


def watch(
    detectors: ColumnDetectors, rows: Floats, rng: np.random.Generator
) -> tuple[ColumnDetectors, list[int]]:
    """Feed rows (windows x columns), restarting at each alarm; returns the windows that alarmed."""
    names = [column.name for column in detectors.columns]
    alarms = []
    for t, row in enumerate(rows):
        uniforms = rng.random(len(names)).tolist()
        detectors = detectors.update(
            dict(zip(names, row.tolist(), strict=True)), dict(zip(names, uniforms, strict=True))
        )
        if detectors.alarm:
            alarms.append(t)
            detectors = detectors.restart()
    return detectors, alarms


def started(calibration: Floats, **options: float) -> ColumnDetectors:
    return ColumnDetectors.start(
        {f"c{i:02}": column.tolist() for i, column in enumerate(calibration.T)}, **options
    )


# The parts.


@given(st.lists(st.integers(0, 5).map(float), max_size=20), st.integers(0, 5).map(float), UNITS)
def test_conformal_p_is_the_randomised_rank(history: list[float], value: float, u: float) -> None:
    greater = sum(x > value for x in history)
    equal = sum(x == value for x in history)

    p = conformal_p(history, value, u)

    assert p == pytest.approx((greater + u * (equal + 1)) / (len(history) + 1), abs=1e-15)
    assert 0.0 < p <= 1.0
    assert conformal_p(history[::-1], value, u) == p


def test_conformal_p_is_uniform_for_each_way_that_ties_may_fall() -> None:
    """Over all orders of seven exchangeable values with ties, the p-value of the last one is exactly uniform."""
    values = [1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0]
    grid = (np.arange(700) + 0.5) / 700

    p = [conformal_p(values[:i] + values[i + 1 :], values[i], u) for i in range(7) for u in grid]

    assert scipy.stats.kstest(p, "uniform").statistic < 0.002


def test_the_bet_is_fair_against_uniform_p_values_and_pays_for_small_ones() -> None:
    # p = x**20 tames the pole at 0.
    mean, _ = scipy.integrate.quad(lambda x: e_from_p(x**20) * 20 * x**19, 1e-15, 1.0)

    assert mean == pytest.approx(1.0, abs=1e-6)
    assert e_from_p(1e-12) > e_from_p(1e-6) > e_from_p(0.01) > 1.0 > e_from_p(0.5)


@given(st.lists(st.floats(0.0, 50.0), max_size=30))
def test_shiryaev_roberts_equals_the_recursion(bets: list[float]) -> None:
    state, naive = ShiryaevRoberts(), 0.0
    for e in bets:
        state, naive = state.update(e), (naive + 1.0) * e

    assert state.value == pytest.approx(naive, rel=1e-9, abs=1e-12)
    assert state.log_e == pytest.approx(math.log10(1.0 + naive), abs=1e-12)


def test_shiryaev_roberts_outgrows_floats_without_harm() -> None:
    state = ShiryaevRoberts()
    for _ in range(10):
        state = state.update(1e100)

    assert (state.value, state.log_e) == (math.inf, pytest.approx(1000.0))
    assert state.update(0.0) == ShiryaevRoberts()


# The promise: at most one false alarm in 1,000 windows.


def test_one_column_without_drift_keeps_the_promise() -> None:
    rng = np.random.default_rng(101)
    windows, streams, alarms = 1000, 60, 0

    for _ in range(streams):
        draws = rng.exponential(size=(60 + windows, 1))
        alarms += len(watch(started(draws[:60]), draws[60:], rng)[1])

    assert wilson_interval(alarms, windows * streams, 0.99).low <= 1 / 1000
    assert alarms <= windows * streams / 1000


def test_the_promise_holds_on_streams_so_long_that_a_thinned_history_would_break_it() -> None:
    rng = np.random.default_rng(102)
    windows, streams, alarms = 6000, 8, 0

    for _ in range(streams):
        draws = rng.standard_normal((60 + windows, 1))
        final, found = watch(started(draws[:60]), draws[60:], rng)
        alarms += len(found)
        assert len(final.columns[0].history) == 1000

    assert alarms <= windows * streams / 1000


@pytest.mark.parametrize("together", [0.0, 0.9])
def test_many_columns_keep_the_promise_whether_they_move_together_or_not(together: float) -> None:
    rng = np.random.default_rng(103)
    windows, streams, alarms = 500, 6, 0

    for _ in range(streams):
        common = rng.standard_normal((60 + windows, 1))
        draws = math.sqrt(together) * common + math.sqrt(1 - together) * rng.standard_normal(
            (60 + windows, 15)
        )
        alarms += len(watch(started(draws[:60]), draws[60:], rng)[1])

    assert alarms <= windows * streams / 1000


def test_ties_and_a_constant_distance_raise_no_alarm() -> None:
    rng = np.random.default_rng(104)
    draws = np.column_stack([np.zeros(2060), rng.integers(0, 2, 2060)])

    _, alarms = watch(started(draws[:60]), draws[60:], rng)

    assert len(alarms) <= 2


# Detection, from rows to alarm.


def distances(
    rng: np.random.Generator, profile: NumericProfile, shifts: list[float], rows: int
) -> list[float]:
    return [ks_distance(profile, bin_counts(profile, rng.normal(shift, 1.0, rows))) for shift in shifts]


def calibrated(
    rng: np.random.Generator, windows: int, rows: int, wobble: float = 0.0
) -> tuple[NumericProfile, list[float]]:
    parts = [rng.normal(rng.normal(0.0, wobble), 1.0, rows) for _ in range(windows)]
    profile = NumericProfile.of(np.concatenate(parts))
    counts = [bin_counts(profile, part) for part in parts]
    return profile, [ks_distance(profile.without(part), part) for part in counts]


def test_a_quarter_sd_shift_of_one_column_is_found_within_a_few_windows() -> None:
    delays = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        profile, calibration = calibrated(rng, 60, 1000)
        before = distances(rng, profile, [0.0] * 30, 1000)
        after = distances(rng, profile, [0.25] * 30, 1000)

        line, early = watch(ColumnDetectors.start({"x": calibration}), np.array(before)[:, None], rng)
        _, found = watch(line, np.array(after)[:, None], rng)

        assert not early
        delays.append(found[0] + 1)

    assert np.median(delays) <= 4
    assert max(delays) <= 8


def test_a_shift_of_one_column_in_twenty_is_found_named_and_survives_natural_wobble() -> None:
    rng = np.random.default_rng(31)
    columns = [calibrated(rng, 60, 500, wobble=0.05) for _ in range(20)]
    names = [f"c{i:02}" for i in range(20)]
    line = ColumnDetectors.start(dict(zip(names, (calibration for _, calibration in columns), strict=True)))

    def window(moved: float) -> Floats:
        shifts = [rng.normal(0.0, 0.05) + (moved if i == 7 else 0.0) for i in range(20)]
        return np.array(
            [distances(rng, profile, [s], 500)[0] for (profile, _), s in zip(columns, shifts, strict=True)]
        )

    line, early = watch(line, np.array([window(0.0) for _ in range(60)]), rng)
    delay = 0
    while not line.alarm and delay < 30:
        delay += 1
        line = line.update(
            dict(zip(names, window(0.5).tolist(), strict=True)),
            dict(zip(names, rng.random(20).tolist(), strict=True)),
        )

    assert not early
    assert delay <= 8
    assert line.attribution()[0][0] == "c07"
    assert line.attribution()[0][1] > 0.99


def test_a_new_mix_of_categories_is_found() -> None:
    rng = np.random.default_rng(32)
    parts = [rng.choice(list("abcd"), 400, p=[0.4, 0.3, 0.2, 0.1]).tolist() for _ in range(60)]
    profile = CategoricalProfile.of(itertools.chain.from_iterable(parts))
    counts = [bin_counts(profile, part) for part in parts]
    line = ColumnDetectors.start({"carrier": [js_distance(profile.without(part), part) for part in counts]})

    moved = [rng.choice(list("abcd"), 400, p=[0.25, 0.3, 0.2, 0.25]).tolist() for _ in range(8)]
    rows = np.array([[js_distance(profile, bin_counts(profile, part))] for part in moved])
    _, alarms = watch(line, rows, rng)

    assert alarms
    assert alarms[0] <= 4


# Calibration that does not learn the drift, and forgets nothing else.


def test_suspicious_windows_wait_and_join_together_once_the_evidence_has_gone() -> None:
    line = ColumnDetectors.start({"x": [0.01 * i for i in range(100)]})

    line = line.update({"x": 5.0}, {"x": 0.5})
    held = line.columns[0]
    calm = line
    while calm.columns[0].waiting:
        calm = calm.update({"x": 0.5}, {"x": 0.5})
    drifting = line
    for _ in range(10):
        drifting = drifting.update({"x": 5.0}, {"x": 0.5})

    assert (held.waiting, len(held.history)) == ((5.0,), 100)
    assert 5.0 in calm.columns[0].history
    assert len(calm.columns[0].history) > 101
    assert (len(drifting.columns[0].waiting), len(drifting.columns[0].history)) == (11, 100)
    assert drifting.alarm


def test_restart_drops_evidence_and_waiting_windows_and_keeps_the_calibration() -> None:
    line = ColumnDetectors.start({"x": [0.1] * 60})
    for _ in range(9):
        line = line.update({"x": 0.9}, {"x": 0.3})

    again = line.restart()

    assert line.alarm
    assert again == ColumnDetectors.start({"x": [0.1] * 60})
    assert again.attribution() == (("x", 0.0),)


def test_a_column_without_values_keeps_its_evidence() -> None:
    line = ColumnDetectors.start({"x": [0.1] * 60, "y": [0.1] * 60}).update(
        {"x": 0.5, "y": 0.5}, {"x": 0.2, "y": 0.2}
    )

    for gap in (line.update({}, {}), line.update({"x": math.nan}, {})):
        assert gap == line


def test_the_evidence_is_the_weighted_mean_of_the_columns() -> None:
    calibration = {"score": [0.1] * 60, "x": [0.1] * 60, "y": [0.1] * 60}
    line = ColumnDetectors.start(calibration, weights={"score": 3.0})
    for u in (0.9, 0.1, 0.4):
        line = line.update({"score": 0.2, "x": 0.1, "y": 0.05}, {"score": u, "x": u, "y": u})

    score, x, y = (column.sr.value for column in line.columns)
    mean = (3.0 * score + x + y) / 5.0
    assert line.log_e == pytest.approx(math.log10(1.0 + mean), abs=1e-12)
    assert dict(line.attribution()) == pytest.approx(
        {"score": 3.0 * score / (5.0 * mean), "x": x / (5.0 * mean), "y": y / (5.0 * mean)}
    )


@given(st.lists(st.tuples(DISTANCES, DISTANCES, UNITS, UNITS), max_size=30))
def test_the_same_windows_give_the_same_state_through_json_too(
    windows: list[tuple[float, float, float, float]],
) -> None:
    line = ColumnDetectors.start({"a": [0.5, 0.1, 0.3], "b": [0.2]}, arl=50.0, weights={"a": 2.0})
    stored = line
    for first, second, u, v in windows:
        line = line.update({"a": first, "b": second}, {"a": u, "b": v})
        stored = stored.update({"b": second, "a": first}, {"b": v, "a": u})
        stored = ColumnDetectors.from_dict(json.loads(json.dumps(stored.to_dict(), allow_nan=False)))

    assert stored == line
    assert line.log_e >= 0.0
    assert math.fsum(share for _, share in line.attribution()) == pytest.approx(1.0 if line.log_e else 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conformal_p([0.1], math.nan, 0.5), "value is nan"),
        (lambda: conformal_p([math.nan], 0.1, 0.5), "history holds nan"),
        (lambda: conformal_p([0.1], 0.1, 1.5), "u must lie"),
        (lambda: e_from_p(0.0), "p must lie"),
        (lambda: ShiryaevRoberts().update(math.inf), "finite"),
        (lambda: ShiryaevRoberts(-1.0), "log1p"),
        (lambda: ColumnDetectors.start({}), "at least one"),
        (lambda: ColumnDetectors.start({"x": []}), "x has no calibration distance"),
        (lambda: ColumnDetectors.start({"x": [math.nan]}), "x has no calibration distance"),
        (lambda: ColumnDetectors.start({"x": [0.1]}, arl=1.0), "arl"),
        (lambda: ColumnDetectors.start({"x": [0.1]}, weights={"y": 2.0}), "y, which was not calibrated"),
        (lambda: ColumnDetectors.start({"x": [0.1]}, weights={"x": 0.0}), "weight of column x"),
        (
            lambda: ColumnDetectors.start({"x": [0.1]}).update({"y": 0.1}, {"y": 0.1}),
            "y, which was not calibrated",
        ),
        (lambda: ColumnDetectors.start({"x": [0.1]}).update({"x": 0.1}, {}), "uniforms lack column x"),
        (lambda: ColumnDetectors.start({"x": [0.1]}).update({"x": 0.1}, {"x": -0.1}), "u must lie"),
        (lambda: ColumnDetectors.from_dict({"arl": 10, "columns": ["x"]}), "list of objects"),
        (lambda: ColumnDetectors.from_dict({"columns": []}), "at least one|arl"),
    ],
)
def test_nonsense_is_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
