"""Profiles: what a column looked like in the reference, and where later values fall in it.

A profile is made once, when a model is trained, and stored beside it. The live side keeps only how many values
fell into each of its cells: integers that add up over windows, workers and restarts in any order, a few
kilobytes a column whatever the traffic. `andon.stats.distances` compares those counts with the reference.

Cells of a number column lie between quantiles of the reference, so each holds about the same share of it, with
finer ones at both ends (equi-depth bins; Piatetsky-Shapiro and Connell (1984), "Accurate estimation of the number
of tuples satisfying a condition"). A value that is frequent by itself (a default, a zero, every value of a column
with few) gets a cell for itself, exactly. Beyond the reference's range a few cells of growing width tell how far
out a value is. Cells of a text column are its levels. The last cell always counts nulls.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self, cast, overload

import numpy as np
import numpy.typing as npt

from andon.stats import _fields
from andon.stats._arrays import Floats, Ints, reals

_BEYOND_RANGE = (0.25, 1.0, 4.0, 16.0, 64.0)
"""Where the cells outside the reference's range end, in its standard deviations."""


@dataclass(frozen=True, eq=False)
class Counts:
    """How many values fell into each cell of one profile; the last cell counts nulls.

    Counts of disjoint rows add exactly, in any order. Immutable, so safe to share between threads.

    Attributes:
        layout: the cells that are meant (`layout` of the profile): counts of other cells are refused.
        cells: int64, one entry per cell, >= 0, read-only.

    >>> profile = NumericProfile.of([1.0, 2.0, 2.0, 5.0])
    >>> morning, evening = bin_counts(profile, [1.0, 9.0]), bin_counts(profile, [5.0, float("nan")])
    >>> day = morning.merge(evening)
    >>> day.n, day.nulls, day.total
    (3, 1, 4)
    """

    layout: str
    cells: Ints

    def __post_init__(self) -> None:
        cells = np.array(self.cells, dtype=np.int64)
        if cells.ndim != 1 or cells.size < 2 or (cells < 0).any():
            raise ValueError("cells must be a row of at least two counts >= 0, the last one counting nulls.")
        cells.flags.writeable = False
        object.__setattr__(self, "cells", cells)

    @property
    def total(self) -> int:
        """Rows counted, nulls included."""
        return int(self.cells.sum())

    @property
    def nulls(self) -> int:
        """Rows without a value."""
        return int(self.cells[-1])

    @property
    def n(self) -> int:
        """Rows with a value."""
        return self.total - self.nulls

    def merge(self, *others: Counts) -> Counts:
        """The counts of all rows together.

        Raises:
            ValueError: one of them counts the cells of another profile.
        """
        cells = self.cells.copy()
        for other in others:
            if other.layout != self.layout:
                raise ValueError(
                    f"counts of profile {other.layout} cannot be added to counts of {self.layout};"
                    " count the rows anew with one profile."
                )
            cells += other.cells
        return Counts(self.layout, cells)

    def to_dict(self) -> dict[str, object]:
        """The counts as plain JSON values."""
        return {"layout": self.layout, "cells": self.cells.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """The counts that `to_dict` wrote, exactly.

        Raises:
            ValueError: a field is missing or malformed.
        """
        return cls(_fields.text(data, "layout"), np.array(_fields.counts(data, "cells"), dtype=np.int64))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Counts):
            return NotImplemented
        return self.layout == other.layout and np.array_equal(self.cells, other.cells)

    def __hash__(self) -> int:
        return hash((self.layout, self.cells.tobytes()))


@dataclass(frozen=True, eq=False)
class NumericProfile:
    """What a number column looked like in the reference.

    Cell i holds values v with edges[i-1] < v <= edges[i]; the first and the last are open to the outside. NaN
    is null. Infinities are values of the outermost cells and take no part in mean, std, min and max.

    Attributes:
        edges: float64, strictly increasing and finite; none if the reference has no finite value.
        counts: int64, len(edges) + 2: the reference's values in each cell, then its nulls.
        mean: mean of the finite values, None without one.
        std: their standard deviation with divisor n, exactly 0 for a constant column, None without one.
        min: least finite value, None without one.
        max: greatest finite value, None without one.

    >>> profile = NumericProfile.of([1.0, 2.0, 2.0, 5.0, float("nan")])
    >>> profile.n, profile.nulls, profile.mean, profile.min, profile.max
    (4, 1, 2.5, 1.0, 5.0)
    >>> NumericProfile.from_dict(profile.to_dict()) == profile
    True
    """

    edges: Floats
    counts: Ints
    mean: float | None
    std: float | None
    min: float | None
    max: float | None

    def __post_init__(self) -> None:
        edges = np.array(self.edges, dtype=np.float64)
        counts = np.array(self.counts, dtype=np.int64)
        if edges.ndim != 1 or not np.isfinite(edges).all() or (edges[1:] <= edges[:-1]).any():
            raise ValueError("edges must be finite and strictly increasing.")
        if counts.shape != (edges.size + 2,) or (counts < 0).any():
            raise ValueError(f"{edges.size} edges need {edges.size + 2} counts >= 0, got {counts.size}.")
        edges.flags.writeable = counts.flags.writeable = False
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "counts", counts)

    @classmethod
    def of(cls, values: npt.ArrayLike, *, bins: int = 256) -> Self:
        """The profile of a reference column; the order of its rows does not matter.

        Time O(n log n), memory two copies of the column.

        Args:
            values: the reference, shape (n,), nan for null; n may be 0 or less than bins.
            bins: cells within the reference's range, >= 2; each holds about 1/bins of it, which bounds the
                error of the KS distance (`resolution`). A few more split both ends, and twelve lie outside.

        Raises:
            ValueError: values are no numbers, or bins < 2.
        """
        if bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}; 256 is usual.")
        ordered = np.sort(reals("values", values, allow_nan=True)) + 0.0  # no negative zero
        finite = ordered[np.isfinite(ordered)]
        mean, std = _moments(finite)
        edges = _edges(finite, std, bins)
        ends = (float(finite[0]), float(finite[-1])) if finite.size else (None, None)
        return cls(edges, _cells(ordered, edges), mean, std, *ends)

    @property
    def n(self) -> int:
        """Values of the reference, infinities included, nulls not."""
        return int(self.counts[:-1].sum())

    @property
    def nulls(self) -> int:
        """Nulls of the reference."""
        return int(self.counts[-1])

    @property
    def resolution(self) -> float:
        """Largest share of the reference in one cell wider than a single value: KS from counts errs by at most this."""
        if not self.n:
            return 0.0
        point = _just_below(self.edges)[1:] == self.edges[:-1]
        wide = np.concatenate(([True], ~point, [True])) if self.edges.size else np.array([True])
        return float(self.counts[:-1][wide].max() / self.n)

    @cached_property
    def layout(self) -> str:
        """Digest of the cells: 32 hex digits, equal for profiles with the same edges."""
        return _digest(["numeric", self.edges.tolist()])

    @cached_property
    def reference(self) -> Counts:
        """The reference's own counts."""
        return Counts(self.layout, self.counts)

    def without(self, part: Counts) -> Self:
        """The profile with the counts of a part of its own reference taken out, to compare that part with the rest.

        Cells and moments stay as they are.

        Raises:
            ValueError: the part counts other cells, or more values than the reference has.

        >>> profile = NumericProfile.of([1.0, 2.0, 3.0])
        >>> profile.without(bin_counts(profile, [2.0])).n
        2
        """
        return replace(self, counts=_rest(self, part))

    def to_dict(self) -> dict[str, object]:
        """The profile as plain JSON values."""
        return {
            "kind": "numeric",
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "mean": self.mean,
            "std": self.std,
            "min": self.min,
            "max": self.max,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """The profile that `to_dict` wrote, exactly.

        Raises:
            ValueError: it is of another kind, or a field is missing or malformed.
        """
        _check_kind(data, "numeric")
        return cls(
            edges=np.array(_fields.numbers(data, "edges"), dtype=np.float64),
            counts=np.array(_fields.counts(data, "counts"), dtype=np.int64),
            mean=_fields.number_or_none(data, "mean"),
            std=_fields.number_or_none(data, "std"),
            min=_fields.number_or_none(data, "min"),
            max=_fields.number_or_none(data, "max"),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NumericProfile) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.layout)


@dataclass(frozen=True)
class CategoricalProfile:
    """What a text column looked like in the reference.

    Cells are the listed levels in order, then one for every other value, then nulls. While `complete`, a
    value of the second last cell is a level the reference never had.

    Attributes:
        levels: the listed levels, sorted.
        counts: the reference's rows of each listed level.
        other: the reference's rows of levels beyond the cap.
        other_levels: how many levels lie beyond the cap.
        nulls: nulls of the reference.

    >>> profile = CategoricalProfile.of(["NYC", "NYC", "LAX", None])
    >>> profile.levels, profile.counts, profile.nulls
    (('LAX', 'NYC'), (1, 2), 1)
    >>> bin_counts(profile, ["LAX", "SFO"]).cells.tolist()
    [1, 0, 1, 0]
    """

    levels: tuple[str, ...]
    counts: tuple[int, ...]
    other: int = 0
    other_levels: int = 0
    nulls: int = 0
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.counts) or list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must be sorted and distinct, with one count each.")
        if min((*self.counts, self.other, self.other_levels, self.nulls)) < 0:
            raise ValueError("counts must be >= 0.")
        object.__setattr__(self, "_index", {level: i for i, level in enumerate(self.levels)})

    @classmethod
    def of(cls, values: Iterable[str | None], *, max_levels: int = 1000) -> Self:
        """The profile of a reference column; the order of its rows does not matter.

        Args:
            values: the reference: strings, None (or a float nan) for null; may be empty.
            max_levels: list this many of the most frequent levels, ties in alphabetical order, >= 1.

        Raises:
            ValueError: a value is neither a string nor null, or max_levels < 1.
        """
        if max_levels < 1:
            raise ValueError(f"max_levels must be at least 1, got {max_levels}; 1000 is usual.")
        found, nulls = _count_texts(values)
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        listed, rest = sorted(ranked[:max_levels]), ranked[max_levels:]
        return cls(
            levels=tuple(level for level, _ in listed),
            counts=tuple(times for _, times in listed),
            other=sum(times for _, times in rest),
            other_levels=len(rest),
            nulls=nulls,
        )

    @property
    def n(self) -> int:
        """Rows of the reference with a value."""
        return sum(self.counts) + self.other

    @property
    def complete(self) -> bool:
        """Whether every level of the reference is listed, so that an unlisted value is a new one."""
        return self.other_levels == 0

    @cached_property
    def layout(self) -> str:
        """Digest of the cells: 32 hex digits, equal for profiles with the same levels."""
        return _digest(["categorical", list(self.levels)])

    @cached_property
    def reference(self) -> Counts:
        """The reference's own counts."""
        return Counts(self.layout, np.array([*self.counts, self.other, self.nulls], dtype=np.int64))

    def unlisted_share(self, window: Counts) -> float:
        """Share in [0, 1] of the window's values that are no listed level; nan if it has no values.

        Raises:
            ValueError: the window counts the cells of another profile.

        >>> profile = CategoricalProfile.of(["a", "b"])
        >>> profile.unlisted_share(bin_counts(profile, ["a", "c", "d", None]))
        0.6666666666666666
        """
        check_layout(self, window)
        return int(window.cells[-2]) / window.n if window.n else math.nan

    def without(self, part: Counts) -> Self:
        """The profile with the counts of a part of its own reference taken out, to compare that part with the rest.

        Raises:
            ValueError: the part counts other cells, or more values than the reference has.

        >>> profile = CategoricalProfile.of(["a", "b", "b"])
        >>> profile.without(bin_counts(profile, ["b"])).counts
        (1, 1)
        """
        *counts, other, nulls = _rest(self, part).tolist()
        return replace(self, counts=tuple(counts), other=other, nulls=nulls)

    def to_dict(self) -> dict[str, object]:
        """The profile as plain JSON values."""
        return {
            "kind": "categorical",
            "levels": list(self.levels),
            "counts": list(self.counts),
            "other": self.other,
            "other_levels": self.other_levels,
            "nulls": self.nulls,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """The profile that `to_dict` wrote, exactly.

        Raises:
            ValueError: it is of another kind, or a field is missing or malformed.
        """
        _check_kind(data, "categorical")
        return cls(
            levels=_fields.texts(data, "levels"),
            counts=tuple(_fields.counts(data, "counts")),
            other=_fields.count(data, "other"),
            other_levels=_fields.count(data, "other_levels"),
            nulls=_fields.count(data, "nulls"),
        )


Profile = NumericProfile | CategoricalProfile
"""The profile of one column."""


def profile_from_dict(data: Mapping[str, object]) -> Profile:
    """The profile that either kind's `to_dict` wrote, exactly.

    Raises:
        ValueError: the kind is unknown, or a field is missing or malformed.

    >>> profile_from_dict(CategoricalProfile.of(["a"]).to_dict()).levels
    ('a',)
    """
    kind = data.get("kind")
    if kind == "numeric":
        return NumericProfile.from_dict(data)
    if kind == "categorical":
        return CategoricalProfile.from_dict(data)
    raise ValueError(
        f"field kind must be numeric or categorical, got {kind!r}; was it written by a newer release?"
    )


@overload
def bin_counts(profile: NumericProfile, values: npt.ArrayLike) -> Counts: ...
@overload
def bin_counts(profile: CategoricalProfile, values: Iterable[str | None]) -> Counts: ...
def bin_counts(profile: Profile, values: npt.ArrayLike | Iterable[str | None]) -> Counts:
    """How many values fall into each cell of the profile; an empty window counts nothing.

    Numbers are sorted once and the edges looked up in them, O(n log n), which beats looking up each value.

    Args:
        profile: the reference's cells.
        values: numbers with nan for null, or strings with None for null, by the kind of the profile.

    Raises:
        ValueError: a value is not of the profile's kind.

    >>> profile = NumericProfile.of([0.0, 0.0, 1.0])
    >>> window = bin_counts(profile, [0.0, 0.5, float("inf"), float("nan")])
    >>> window.n, window.nulls
    (3, 1)
    """
    if isinstance(profile, NumericProfile):
        ordered = np.sort(reals("values", cast(npt.ArrayLike, values), allow_nan=True))
        return Counts(profile.layout, _cells(ordered, profile.edges))
    found, nulls = _count_texts(cast(Iterable[str | None], values))
    cells = np.zeros(len(profile.levels) + 2, dtype=np.int64)
    for level, times in found.items():
        cells[profile._index.get(level, -2)] += times
    cells[-1] = nulls
    return Counts(profile.layout, cells)


def check_layout(profile: Profile, window: Counts) -> None:
    """Refuse counts of another profile's cells."""
    if window.layout != profile.layout:
        raise ValueError(
            f"the window counts the cells of profile {window.layout}, not of {profile.layout};"
            " count its rows anew with this profile."
        )


def _rest(profile: Profile, part: Counts) -> Ints:
    check_layout(profile, part)
    rest = profile.reference.cells - part.cells
    if (rest < 0).any():
        raise ValueError(
            "the part has more values in a cell than the reference; only a part of it can be taken out."
        )
    return rest


def _cells(ordered: Floats, edges: Floats) -> Ints:
    """Counts of sorted values (nan last) between the edges, then of nulls."""
    upper_ends = np.append(edges, np.inf)
    up_to = ordered.searchsorted(upper_ends, side="right")
    return np.diff(np.append(up_to, ordered.size), prepend=0).astype(np.int64)


def _edges(finite: Floats, std: float | None, bins: int) -> Floats:
    """Upper ends of the cells for sorted finite values."""
    if std is None:
        return np.zeros(0)
    inner, times = np.unique(finite, return_counts=True)
    if 2 * inner.size > bins:
        inner, times = np.unique(finite[_ranks(finite.size, bins)], return_counts=True)
        alone = inner[times >= 2]
    else:
        alone = inner
    low, high = finite[0], finite[-1]
    with np.errstate(over="ignore"):
        beyond = std * np.array(_BEYOND_RANGE)
        outside = np.concatenate((low - beyond, high + beyond))
    # An edge just below a value closes the cell before it: between the two lies that value only.
    edges = np.concatenate((outside, _just_below(np.append(alone, low)), inner, [high]))
    return np.unique(edges[np.isfinite(edges)])


def _just_below(values: Floats) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.nextafter(values, -np.inf), dtype=np.float64)


def _ranks(n: int, bins: int) -> Ints:
    """Which of n sorted values end a cell: every n/bins-th, and at both ends n/bins halved again and again.

    The halving follows a long tail, where a single cell would say little about how far out values lie.
    """
    even = (n * np.arange(1, bins) + bins - 1) // bins  # inverse of the empirical distribution function
    tail = n // bins >> np.arange(1, max(2, (n // bins).bit_length()))
    tail = tail[tail > 0]
    return np.concatenate((tail, even, n - tail)) - 1


def _moments(finite: Floats) -> tuple[float | None, float | None]:
    """Mean and standard deviation of sorted values, safe from overflow and exact for a constant."""
    if not finite.size:
        return None, None
    scale = math.frexp(max(abs(float(finite[0])), abs(float(finite[-1]))))[1] + 1
    scaled = np.ldexp(finite, -scale)
    centre = scaled[scaled.size // 2]
    offset = scaled - centre
    shift = float(offset.mean())
    spread = math.sqrt(float(np.mean((offset - shift) ** 2)))
    std = math.ldexp(spread, scale)
    # Only a constant has none: a spread too small for a float is the smallest there is.
    return math.ldexp(float(centre) + shift, scale), max(std, math.ulp(0.0)) if spread else 0.0


def _count_texts(values: Iterable[str | None]) -> tuple[dict[str, int], int]:
    items = values.tolist() if isinstance(values, np.ndarray) else values
    found: dict[str, int] = {}
    nulls = 0
    for value, times in Counter(items).items():
        if isinstance(value, str):
            found[str(value)] = times
        elif value is None or (isinstance(value, float) and math.isnan(value)):
            nulls += times
        else:
            raise ValueError(
                f"values must hold strings and None, got {value!r} of type {type(value).__name__};"
                " profile numbers as a number column or turn them into text."
            )
    return found, nulls


def _check_kind(data: Mapping[str, object], kind: str) -> None:
    if data.get("kind") != kind:
        raise ValueError(f"field kind must be {kind}, got {data.get('kind')!r}.")


def _digest(cells: list[object]) -> str:
    return hashlib.sha256(json.dumps(cells, separators=(",", ":")).encode()).hexdigest()[:32]
