"""Counts of a profile add exactly, survive JSON, and give the distances that the raw values would give."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.spatial.distance  # noqa: TID253 - the oracle of these tests
import scipy.stats  # noqa: TID253 - the oracle of these tests
from hypothesis import given
from hypothesis import strategies as st

from andon.stats import (
    CategoricalProfile,
    Counts,
    NumericProfile,
    bin_counts,
    js_distance,
    ks_distance,
    profile_from_dict,
    psi,
    w1_over_std,
)

Floats = npt.NDArray[np.float64]

FINITE = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-100, 100),
    st.floats(-1.7e308, 1.7e308),
)
VALUES = st.lists(FINITE | st.sampled_from([math.nan, math.inf, -math.inf, -0.0]), max_size=30)
TEXTS = st.lists(st.none() | st.sampled_from("abcdef") | st.text(max_size=2), max_size=30)
BINS = st.sampled_from([2, 5, 16, 256])


def exact_ks(reference: Floats, window: Floats) -> float:
    at = np.unique(np.concatenate((reference, window)))
    f = np.searchsorted(np.sort(reference), at, side="right") / reference.size
    g = np.searchsorted(np.sort(window), at, side="right") / window.size
    return float(np.abs(f - g).max())


# Profiles and counts.


@given(VALUES, VALUES, BINS)
def test_every_value_falls_into_the_cell_whose_edges_enclose_it(
    reference: list[float], window: list[float], bins: int
) -> None:
    profile = NumericProfile.of(reference, bins=bins)

    counts = bin_counts(profile, window)

    ends = [-math.inf, *profile.edges, math.inf]
    real = [v for v in window if not math.isnan(v)]
    expected = [sum(low < v <= high for v in real) for low, high in itertools.pairwise(ends)]
    expected[0] += sum(v == -math.inf for v in real)
    assert counts.cells.tolist() == [*expected, len(window) - len(real)]
    assert (counts.n, counts.total) == (len(real), len(window))
    assert bin_counts(profile, reference) == profile.reference


@given(VALUES, VALUES, st.integers(0, 30), BINS, st.randoms(use_true_random=False))
def test_number_counts_add_and_ignore_order(
    reference: list[float], window: list[float], cut: int, bins: int, random: object
) -> None:
    profile = NumericProfile.of(reference, bins=bins)
    whole = bin_counts(profile, window)

    parts = [bin_counts(profile, part) for part in (window[cut:], [], window[:cut])]

    assert parts[0].merge(*parts[1:]) == whole
    assert bin_counts(profile, window[::-1]) == whole
    assert NumericProfile.of(reference[::-1], bins=bins) == profile


@given(TEXTS, TEXTS, st.integers(0, 30), st.integers(1, 8))
def test_level_counts_add_and_ignore_order(
    reference: list[str | None], window: list[str | None], cut: int, cap: int
) -> None:
    profile = CategoricalProfile.of(reference, max_levels=cap)
    whole = bin_counts(profile, window)

    assert bin_counts(profile, window[:cut]).merge(bin_counts(profile, window[cut:])) == whole
    assert bin_counts(profile, window[::-1]) == whole
    assert CategoricalProfile.of(reference[::-1], max_levels=cap) == profile
    listed = Counter(window)
    assert whole.cells[:-2].tolist() == [listed[level] for level in profile.levels]
    assert (whole.nulls, whole.total) == (listed[None], len(window))
    assert bin_counts(profile, reference) == profile.reference


@given(VALUES, TEXTS, BINS)
def test_profiles_and_counts_survive_json_exactly(
    numbers: list[float], texts: list[str | None], bins: int
) -> None:
    for profile in (NumericProfile.of(numbers, bins=bins), CategoricalProfile.of(texts, max_levels=4)):
        back = profile_from_dict(json.loads(json.dumps(profile.to_dict(), allow_nan=False)))
        counts = Counts.from_dict(json.loads(json.dumps(profile.reference.to_dict())))

        assert back == profile
        assert (back.layout, hash(back)) == (profile.layout, hash(profile))
        assert counts == profile.reference
        assert hash(counts) == hash(profile.reference)


@given(st.lists(FINITE, min_size=1, max_size=30), st.integers(0, 3))
def test_moments_are_those_of_the_finite_values(values: list[float], nulls: int) -> None:
    profile = NumericProfile.of([*values, math.inf, *[math.nan] * nulls])

    assert (profile.min, profile.max) == (min(values), max(values))
    assert (profile.n, profile.nulls) == (len(values) + 1, nulls)
    scale = max(map(abs, values)) or 1.0
    shrunk = np.array(values) / scale
    assert profile.mean == pytest.approx(shrunk.mean() * scale, rel=1e-9, abs=1e-9 * scale + 1e-322)
    assert profile.std == pytest.approx(shrunk.std() * scale, rel=1e-9, abs=1e-9 * scale + 1e-322)


def test_cells_hold_equal_shares_of_a_smooth_reference_and_split_its_tails() -> None:
    profile = NumericProfile.of(np.random.default_rng(0).lognormal(size=50_000))

    inside = profile.counts[:-1][profile.counts[:-1] > 0]
    assert inside.max() == 196
    assert inside[0] == inside[-1] == 1
    assert len(profile.edges) < 300
    assert profile.resolution == 196 / 50_000


def test_the_most_frequent_levels_are_listed_and_the_rest_is_one_cell() -> None:
    profile = CategoricalProfile.of(["b"] * 3 + ["c"] * 2 + ["a"] * 2 + ["d"] + [None], max_levels=2)

    assert (profile.levels, profile.counts) == (("a", "b"), (2, 3))
    assert (profile.other, profile.other_levels, profile.nulls, profile.n) == (3, 2, 1, 8)
    assert not profile.complete
    assert profile.unlisted_share(profile.reference) == 3 / 8


def test_arrays_of_strings_count_like_lists() -> None:
    texts = ["x", "y", "x"]
    profile = CategoricalProfile.of(np.array(texts))

    assert profile == CategoricalProfile.of(texts) == CategoricalProfile.of(np.array(texts, dtype=object))
    assert bin_counts(profile, np.array(["x", None, math.nan], dtype=object)).cells.tolist() == [1, 0, 0, 2]


def test_shared_arrays_cannot_be_changed() -> None:
    values = np.array([1.0, 2.0])
    profile = NumericProfile.of(values)

    values[0] = 99.0

    assert profile.min == 1.0
    for array in (profile.edges, profile.counts, profile.reference.cells):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


# Distances against the raw values.


@given(
    st.lists(FINITE, min_size=1, max_size=30),
    st.lists(FINITE, min_size=1, max_size=30),
    st.sampled_from([2, 5, 16]),
)
def test_ks_from_counts_is_below_the_exact_one_by_at_most_the_resolution(
    reference: list[float], window: list[float], bins: int
) -> None:
    profile = NumericProfile.of(reference, bins=bins)

    exact = exact_ks(np.array(reference), np.array(window))
    found = ks_distance(profile, bin_counts(profile, window))

    assert found <= exact + 1e-12
    assert exact - found <= profile.resolution + 1e-12
    assert profile.resolution <= profile.counts[:-1].max() / profile.n


@given(st.lists(FINITE, min_size=1, max_size=30), st.lists(FINITE, min_size=1, max_size=30))
def test_ks_is_exact_when_the_reference_has_few_different_values(
    reference: list[float], window: list[float]
) -> None:
    profile = NumericProfile.of(reference)

    assert ks_distance(profile, bin_counts(profile, window)) == pytest.approx(
        exact_ks(np.array(reference), np.array(window)), abs=1e-12
    )
    assert profile.resolution == 0.0


@pytest.mark.parametrize("shape", ["normal", "lognormal", "t3", "mostly_zero", "counts"])
@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.1, 1.0), (2.0, 1.0), (0.0, 1.3)])
def test_distances_of_smooth_and_mixed_columns_are_close_to_scipy(
    shape: str, shift: float, stretch: float
) -> None:
    rng = np.random.default_rng(5)
    draw: Callable[[int], Floats] = {
        "normal": rng.standard_normal,
        "lognormal": lambda n: rng.lognormal(size=n),
        "t3": lambda n: rng.standard_t(3, n),
        "mostly_zero": lambda n: rng.exponential(size=n) * (rng.random(n) < 0.3),
        "counts": lambda n: rng.poisson(2000, n) - 2000.0,
    }[shape]
    reference = draw(40_000)
    window = draw(5_000) * stretch + shift * reference.std()
    profile = NumericProfile.of(reference)
    counts = bin_counts(profile, window)

    ks = scipy.stats.ks_2samp(reference, window, method="asymp").statistic
    w1 = scipy.stats.wasserstein_distance(reference, window) / reference.std()

    assert 0.0 <= ks - ks_distance(profile, counts) <= min(0.005, profile.resolution)
    assert w1_over_std(profile, counts) == pytest.approx(w1, rel=0.08, abs=0.006)


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40), st.data())
def test_w1_is_exact_on_the_values_of_the_reference(reference: list[float], data: st.DataObject) -> None:
    window = data.draw(st.lists(st.sampled_from(reference), min_size=1, max_size=40))
    profile = NumericProfile.of(reference)

    found = w1_over_std(profile, bin_counts(profile, window))

    if profile.std:
        truth = scipy.stats.wasserstein_distance(reference, window) / np.std(reference)
        assert found == pytest.approx(truth, abs=1e-9)
    else:
        assert found == 0.0


def test_w1_counts_both_sides_where_the_distribution_functions_cross_within_a_cell() -> None:
    profile = NumericProfile(np.array([0.0, 1.0]), np.array([5, 1, 4, 0]), 0.5, 2.0, -1.0, 3.0)

    window = Counts(profile.layout, np.array([4, 3, 3, 0]))

    # The gap runs straight from 0.1 to -0.1: two triangles of 0.025, in units of 2.
    assert w1_over_std(profile, window) == pytest.approx(0.025)


def direct_psi(before: Floats, now: Floats) -> float:
    p = (before + 0.5) / (before.sum() + 0.5 * len(before))
    q = (now + 0.5) / (now.sum() + 0.5 * len(now))
    return sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


@given(
    st.lists(st.sampled_from([*"abcde", None]), min_size=1),
    st.lists(st.sampled_from([*"abcxyz", None]), min_size=1),
)
def test_js_and_psi_of_levels_equal_scipy_and_the_definition(
    reference: list[str | None], window: list[str | None]
) -> None:
    profile = CategoricalProfile.of(reference)
    counts = bin_counts(profile, window)

    known = set(reference) | {None}
    now_of = Counter(v if v in known else "new" for v in window)
    before_of = Counter(reference)
    cells = sorted(before_of.keys() | now_of.keys(), key=str)
    before, now = (np.array([of[cell] for cell in cells], dtype=float) for of in (before_of, now_of))
    jensen_shannon = scipy.spatial.distance.jensenshannon(before, now, base=2)
    assert js_distance(profile, counts) == pytest.approx(jensen_shannon, abs=1e-7)
    assert psi(profile, counts) == pytest.approx(direct_psi(before, now), abs=1e-12)
    noise = (len(cells) - 1) * (1 / before.sum() + 1 / now.sum())
    assert psi(profile, counts, centred=True) == pytest.approx(direct_psi(before, now) - noise, abs=1e-12)
    centred = math.sqrt(max(0.0, jensen_shannon**2 - noise / (8.0 * math.log(2.0))))
    assert js_distance(profile, counts, centred=True) == pytest.approx(centred, abs=1e-6)


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_number_columns_with_few_values_are_compared_by_value(
    reference: list[int], window: list[int]
) -> None:
    numeric = NumericProfile.of(reference)
    levels = CategoricalProfile.of([str(v) for v in reference])

    by_number = bin_counts(numeric, window)
    by_level = bin_counts(levels, [str(v) for v in window])

    assert js_distance(numeric, by_number) == pytest.approx(js_distance(levels, by_level), abs=1e-12)
    assert psi(numeric, by_number) == pytest.approx(psi(levels, by_level), abs=1e-12)


def test_number_columns_with_many_values_are_compared_by_deciles_and_nulls() -> None:
    rng = np.random.default_rng(8)
    reference = np.append(rng.standard_normal(25_600), [math.nan] * 100)
    window = np.append(rng.normal(0.3, 1.2, 4_000), [math.nan] * 400)
    profile = NumericProfile.of(reference)
    counts = bin_counts(profile, window)

    # The first quantile cell that reaches beyond a tenth of the reference still belongs to it.
    ordered = np.sort(reference[:25_600])
    limits = [ordered[math.ceil(256 * tenth / 10) * 100 - 1] for tenth in range(1, 10)]
    before, now = (
        np.append(
            np.bincount(np.searchsorted(limits, values[~np.isnan(values)]), minlength=10),
            np.isnan(values).sum(),
        )
        for values in (reference, window)
    )

    assert before.tolist() == [2600, 2600, 2500, 2600, 2500, 2600, 2600, 2500, 2600, 2500, 100]
    assert js_distance(profile, counts) == pytest.approx(
        scipy.spatial.distance.jensenshannon(before, now, base=2), abs=1e-9
    )
    assert psi(profile, counts) == pytest.approx(direct_psi(before, now), abs=1e-12)


def test_centred_psi_averages_zero_without_drift_where_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(9)
    profile = NumericProfile.of(rng.standard_normal(50_000))
    windows = [bin_counts(profile, rng.standard_normal(200)) for _ in range(1500)]

    plain = np.mean([psi(profile, window) for window in windows])
    centred = np.mean([psi(profile, window, centred=True) for window in windows])

    assert plain == pytest.approx(9 * (1 / 200 + 1 / 50_000), rel=0.06)
    assert abs(centred) < 0.003


# Awkward columns have defined results.


def test_a_constant_column_differs_from_anything_else_without_bound() -> None:
    profile = NumericProfile.of([0.1] * 7)

    same, moved = bin_counts(profile, [0.1, 0.1]), bin_counts(profile, [0.1, np.nextafter(0.1, 1.0)])

    assert (profile.mean, profile.std) == (0.1, 0.0)
    assert (ks_distance(profile, same), w1_over_std(profile, same), js_distance(profile, same)) == (
        0.0,
        0.0,
        0.0,
    )
    assert (ks_distance(profile, moved), w1_over_std(profile, moved)) == (0.5, math.inf)
    assert js_distance(profile, moved) > 0.5


@pytest.mark.parametrize("window", [[-1e300], [5.0 - 1e-9], [7.0], [math.inf], [-math.inf]])
def test_a_window_beside_a_constant_is_at_the_greatest_distance(window: list[float]) -> None:
    profile = NumericProfile.of([5.0, 5.0])
    counts = bin_counts(profile, window)

    assert (ks_distance(profile, counts), js_distance(profile, counts)) == (1.0, 1.0)


def test_infinities_are_values_out_of_range() -> None:
    profile = NumericProfile.of([1.0, 2.0, 3.0, math.inf])
    counts = bin_counts(profile, [-math.inf, math.inf])

    assert (profile.n, profile.max, profile.std) == (4, 3.0, pytest.approx(math.sqrt(2 / 3)))
    assert ks_distance(profile, counts) == 0.5
    assert math.isfinite(w1_over_std(profile, counts))


def test_new_categories_only_are_at_the_greatest_distance() -> None:
    profile = CategoricalProfile.of(["a", "b"] * 50)
    counts = bin_counts(profile, ["x", "y", "z"])

    assert (js_distance(profile, counts), profile.unlisted_share(counts)) == (1.0, 1.0)
    assert math.isfinite(psi(profile, counts))


@pytest.mark.parametrize("profile", [NumericProfile.of([1.0, 2.0]), CategoricalProfile.of(["a", "b"])])
def test_an_empty_window_has_no_distance(profile: NumericProfile | CategoricalProfile) -> None:
    empty = bin_counts(profile, [])

    assert empty.total == 0
    assert math.isnan(js_distance(profile, empty))
    assert math.isnan(psi(profile, empty))
    if isinstance(profile, NumericProfile):
        assert math.isnan(ks_distance(profile, empty))
        assert math.isnan(w1_over_std(profile, empty))
    else:
        assert math.isnan(profile.unlisted_share(empty))


@pytest.mark.parametrize("reference", [[], [math.nan, math.nan]])
def test_a_reference_without_values_is_a_profile_without_distances(reference: list[float]) -> None:
    profile = NumericProfile.of(reference)
    counts = bin_counts(profile, [1.0, math.nan])

    assert (profile.n, profile.mean, profile.std, profile.min, profile.max) == (0, None, None, None, None)
    assert (counts.n, counts.nulls, profile.resolution) == (1, 1, 0.0)
    assert math.isnan(ks_distance(profile, counts))
    assert math.isnan(w1_over_std(profile, counts))


def test_missing_values_alone_show_in_js_and_not_in_ks() -> None:
    profile = NumericProfile.of(np.arange(1000.0))
    half_missing = bin_counts(profile, np.append(np.arange(1000.0), [math.nan] * 1000))
    all_missing = bin_counts(profile, [math.nan])

    assert ks_distance(profile, half_missing) == 0.0
    assert js_distance(profile, half_missing) > 0.5
    assert js_distance(profile, all_missing) == 1.0
    assert math.isnan(ks_distance(profile, all_missing))


def test_a_reference_smaller_than_the_bins_still_counts() -> None:
    few = NumericProfile.of(np.arange(10.0), bins=256)
    some = NumericProfile.of(np.arange(200.0), bins=256)

    assert ks_distance(few, bin_counts(few, [0.0, 1.0, 2.0])) == pytest.approx(0.7)
    assert ks_distance(some, bin_counts(some, np.arange(100.0))) == pytest.approx(0.5)
    assert js_distance(few, few.reference) == js_distance(some, some.reference) == 0.0


def test_integers_with_fewer_values_than_bins_have_a_cell_each() -> None:
    profile = NumericProfile.of([1, 1, 2, 5] * 10, bins=256)

    assert sorted(profile.counts[profile.counts > 0].tolist()) == [10, 10, 20]
    assert ks_distance(profile, bin_counts(profile, [1, 1, 2, 3])) == 0.25


@pytest.mark.parametrize(
    "reference", [[1e308, -1e308, 1.7e308], [1e-320, 3e-320], [5e-324, 0.0], [1e16, 1e16 + 2]]
)
def test_extreme_magnitudes_neither_overflow_nor_vanish(reference: list[float]) -> None:
    profile = NumericProfile.of(reference)

    assert profile.std is not None
    assert 0.0 < profile.std < math.inf
    assert w1_over_std(profile, bin_counts(profile, [reference[0]])) > 0.0
    assert w1_over_std(profile, profile.reference) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NumericProfile.of(["a"]), "must hold numbers"),
        (lambda: NumericProfile.of([[1.0]]), "one-dimensional"),
        (lambda: NumericProfile.of([1.0], bins=1), "bins"),
        (lambda: CategoricalProfile.of([1]), "strings and None, got 1 of type int"),
        (lambda: CategoricalProfile.of(["a"], max_levels=0), "max_levels"),
        (lambda: CategoricalProfile(("b", "a"), (1, 1)), "sorted"),
        (lambda: CategoricalProfile(("a",), (-1,)), ">= 0"),
        (lambda: NumericProfile(np.array([2.0, 1.0]), np.zeros(4), 1.0, 1.0, 1.0, 1.0), "increasing"),
        (lambda: NumericProfile(np.array([1.0]), np.zeros(2), 1.0, 1.0, 1.0, 1.0), "need 3 counts"),
        (lambda: Counts("x", np.array([1, -1])), "counts >= 0"),
        (lambda: profile_from_dict({"kind": "text"}), "kind"),
        (lambda: NumericProfile.from_dict(CategoricalProfile.of([]).to_dict()), "kind must be numeric"),
        (
            lambda: NumericProfile.from_dict({"kind": "numeric", "edges": [math.nan]}),
            "edges must be a finite",
        ),
        (
            lambda: CategoricalProfile.from_dict({"kind": "categorical", "levels": [3]}),
            "levels must be a string",
        ),
        (lambda: Counts.from_dict({"layout": "x", "cells": [0.5, 1]}), "cells must be a count"),
    ],
)
def test_nonsense_is_refused_by_name(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_counts_of_another_profile_are_refused() -> None:
    mine, other = NumericProfile.of([1.0, 2.0]), NumericProfile.of([1.0, 3.0])
    window = bin_counts(other, [1.0])

    with pytest.raises(ValueError, match="count the rows anew"):
        mine.reference.merge(window)
    for distance in (ks_distance, w1_over_std, js_distance, psi):
        with pytest.raises(ValueError, match="count its rows anew"):
            distance(mine, window)
    with pytest.raises(ValueError, match="groups"):
        psi(mine, mine.reference, groups=1)
