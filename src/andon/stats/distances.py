"""Distances between a window and the reference, computed from counts alone.

These are effect sizes: how different, not how surely. Whether a difference is more than the usual wobble of
windows is decided by `andon.stats.detector` on a history of such distances.

A side with no rows to compare has no distance: the result is nan, which means unknown and is never 0.
Infinite values count as values beyond the range.
"""

from __future__ import annotations

import math

import numpy as np

from andon.stats._arrays import Floats, Ints
from andon.stats.profile import Counts, NumericProfile, Profile, check_layout


def ks_distance(profile: NumericProfile, window: Counts) -> float:
    """Kolmogorov-Smirnov distance in [0, 1]: the largest gap between the two distribution functions.

    Compared at the cells' edges only, so never above the exact value, and below it by at most
    `profile.resolution` (about 1/bins); exact for columns with at most bins/2 distinct values. Nulls are left out.

    Returns:
        The distance, nan if the reference or the window has no values.

    Raises:
        ValueError: the window counts the cells of another profile.

    >>> from andon.stats.profile import NumericProfile, bin_counts
    >>> profile = NumericProfile.of([1.0, 2.0, 3.0, 4.0])
    >>> (
    ...     ks_distance(profile, bin_counts(profile, [1.0, 2.0])),
    ...     ks_distance(profile, bin_counts(profile, [9.0])),
    ... )
    (0.5, 1.0)

    Reference: Smirnov (1948), "Table for estimating the goodness of fit of empirical distributions".
    """
    gap = _cdf_gap(profile, window)
    return math.nan if gap is None else float(np.abs(gap).max(initial=0.0))


def w1_over_std(profile: NumericProfile, window: Counts) -> float:
    """Wasserstein-1 distance in standard deviations of the reference, >= 0: how far values moved on average.

    The area between the distribution functions, taken as straight within a cell: exact for windows that
    take only the reference's values when these are few, close otherwise. Values more than 64 standard deviations
    out of range count as 64, so the result is then too small, but large. Nulls are left out.

    Returns:
        The distance; nan if the reference or the window has no values or the reference no finite one. Against a
        constant reference it is 0 for the same constant and inf for anything else.

    Raises:
        ValueError: the window counts the cells of another profile.

    >>> from andon.stats.profile import NumericProfile, bin_counts
    >>> profile = NumericProfile.of([0.0, 2.0])
    >>> w1_over_std(profile, bin_counts(profile, [2.0]))
    1.0

    Reference: Vallender (1974), "Calculation of the Wasserstein distance between probability distributions on
    the line".
    """
    gap = _cdf_gap(profile, window)
    if gap is None or profile.std is None:
        return math.nan
    if profile.std == 0.0:
        return math.inf if np.abs(gap).max() > 0.0 else 0.0
    left, right = np.abs(gap[:-1]), np.abs(gap[1:])
    both = left + right
    # Where the sign changes the straight line crosses zero and the area is that of two triangles.
    crossed = np.divide(left**2 + right**2, both, out=np.zeros_like(both), where=both > 0.0)
    height = np.where(gap[:-1] * gap[1:] < 0.0, crossed, both) / 2.0
    return float((height * np.diff(profile.edges / profile.std)).sum())


def js_distance(profile: Profile, window: Counts, *, groups: int = 10, centred: bool = False) -> float:
    """Jensen-Shannon distance in [0, 1]: the square root of the divergence in bits.

    Categorical columns are compared by level, all unlisted values as one, nulls as one. Number columns are
    compared by value if they have at most 2 * groups different ones (values in between count as one new), else by
    groups of about equal share in the reference (deciles), nulls as one more.

    A finite window always differs a little, by about (cells - 1)/(8 ln 2) * (1/n + 1/N) bits; `centred` subtracts
    that, which matters for small windows and many levels.

    Args:
        profile: the reference.
        window: counts of its cells.
        groups: how many groups of a number column, >= 2.
        centred: subtract the divergence expected without any drift (not below 0).

    Returns:
        The distance, nan if either side has no rows.

    Raises:
        ValueError: the window counts the cells of another profile, or groups < 2.

    >>> from andon.stats.profile import CategoricalProfile, bin_counts
    >>> profile = CategoricalProfile.of(["a", "b"])
    >>> (
    ...     js_distance(profile, bin_counts(profile, ["c", "d"])),
    ...     js_distance(profile, bin_counts(profile, ["b", "a"])),
    ... )
    (1.0, 0.0)

    Reference: Lin (1991), "Divergence measures based on the Shannon entropy"; Endres and Schindelin (2003), "A
    new metric for probability distributions".
    """
    before, now = _grouped(profile, window, groups)
    if not before.sum() or not now.sum():
        return math.nan
    p, q = before / before.sum(), now / now.sum()
    middle = (p + q) / 2.0
    divergence = float(_entropy_terms(p, middle).sum() + _entropy_terms(q, middle).sum()) / 2.0
    if centred:
        divergence -= (p.size - 1) / (8.0 * math.log(2.0)) * (1.0 / now.sum() + 1.0 / before.sum())
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def psi(profile: Profile, window: Counts, *, groups: int = 10, centred: bool = False) -> float:
    """Population stability index, >= 0: sum of (p - q) ln(p/q) over the groups that `js_distance` compares.

    Each group gets half a row on both sides, so that an empty one gives a finite answer. The usual limits of
    0.1 and 0.2 have no meaning without the window's size: with no drift at all the index averages about
    (groups - 1) * (1/n + 1/N), 0.046 for deciles at n = 200. `centred` subtracts that; the result then averages 0
    without drift and may be negative.

    Args:
        profile: the reference.
        window: counts of its cells.
        groups: how many groups of a number column, >= 2.
        centred: subtract the mean that it has without any drift.

    Returns:
        The index, nan if either side has no rows.

    Raises:
        ValueError: the window counts the cells of another profile, or groups < 2.

    >>> from andon.stats.profile import CategoricalProfile, bin_counts
    >>> profile = CategoricalProfile.of(["a", "b"] * 500)
    >>> round(psi(profile, bin_counts(profile, ["a"] * 600 + ["b"] * 400)), 3)
    0.04

    Reference: Yurdakul and Naranjo (2020), "Statistical properties of the population stability index".
    """
    before, now = _grouped(profile, window, groups)
    rows_before, rows_now = int(before.sum()), int(now.sum())
    if not rows_before or not rows_now:
        return math.nan
    p = (before + 0.5) / (rows_before + 0.5 * before.size)
    q = (now + 0.5) / (rows_now + 0.5 * now.size)
    index = float(((p - q) * np.log(p / q)).sum())
    return index - (before.size - 1) * (1.0 / rows_now + 1.0 / rows_before) if centred else index


def _cdf_gap(profile: NumericProfile, window: Counts) -> Floats | None:
    """Reference's minus window's distribution function at each edge; None if a side has no values."""
    check_layout(profile, window)
    if not profile.n or not window.n:
        return None
    before = np.cumsum(profile.counts[:-2]) / profile.n
    now = np.cumsum(window.cells[:-2]) / window.n
    return np.asarray(before - now, dtype=np.float64)


def _grouped(profile: Profile, window: Counts, groups: int) -> tuple[Ints, Ints]:
    """Rows of reference and window in the groups to compare, without groups that are empty on both sides."""
    check_layout(profile, window)
    if groups < 2:
        raise ValueError(f"groups must be at least 2, got {groups}; 10 is usual.")
    before, now = profile.reference.cells, window.cells
    if isinstance(profile, NumericProfile):
        where = _groups_of(profile, groups)
        before, now = (_add_up(cells, where) for cells in (before, now))
    kept = (before > 0) | (now > 0)
    return before[kept], now[kept]


def _groups_of(profile: NumericProfile, groups: int) -> Ints:
    """The group of each cell of a number column; nulls have the last."""
    cells = profile.counts[:-1]
    filled = cells > 0
    different = int(filled.sum())
    if different <= 2 * groups:
        where, last = np.where(filled, np.cumsum(filled) - 1, different), different + 1
    else:
        before = np.cumsum(cells) - cells
        where, last = np.minimum(before * groups // profile.n, groups - 1), groups
    return np.append(where, last).astype(np.int64)


def _add_up(cells: Ints, where: Ints) -> Ints:
    sums = np.zeros(int(where.max()) + 1, dtype=np.int64)
    np.add.at(sums, where, cells)
    return sums


def _entropy_terms(p: Floats, middle: Floats) -> Floats:
    share = np.divide(p, middle, out=np.ones_like(p), where=p > 0.0)
    return np.asarray(p * np.log2(share), dtype=np.float64)
