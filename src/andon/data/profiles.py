"""A table's reference profile: what its columns looked like, in the whole and in each window of it.

The windows calibrate drift monitors: a live window is unusual only if it is farther from the reference than the reference's own
windows are. They are stretches of domain time that begin at multiples of their length since 1970, for the reference and live
alike; without a time column, sixty equal blocks of rows stand in. Because fewer rows stray farther by chance,
the reference's windows are first thinned to as many rows as the live one has.

The distance of a number column is the Kolmogorov-Smirnov distance, or the difference of the shares of nulls where that is
larger; of a text or boolean column it is the Jensen-Shannon distance, nulls being a level. Both lie in [0, 1].

A distance tells best whether there is a difference; how much it matters is the effect. For a number column that is how far its
values moved on average, in the reference's standard deviations (Wasserstein-1), or the difference of the shares of nulls
where that is larger; for a text or boolean column it is the distance itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from andon.core.clock import from_us, to_us
from andon.core.errors import Corrupt, Invalid
from andon.data.encoding import normalise, row_hashes
from andon.stats import (
    CategoricalProfile,
    Counts,
    NumericProfile,
    Profile,
    js_distance,
    ks_distance,
    profile_from_dict,
    w1_over_std,
)

FORMAT = "andon.profile/1"
MOST_WINDOWS = 500
"""Only the newest so many windows of the reference calibrate."""
BINS = 64
"""Cells of a number column, about: enough to see any shift that matters, in a few hundred kilobytes for a season."""
_BLOCKS = 60
_FARTHEST = 64.0
_FEW = 20
_STEP = 1.2
_MICROSECOND = timedelta(microseconds=1)
_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WindowDistances:
    """How far a live window is from the reference; columns without a value to compare are left out.

    Attributes:
        rows: rows of the window.
        distances: distance of each column.
        calibration: distances of the reference's own windows from the rest of it, each thinned to as many rows.
        effects: effect of each column.
        excess: by how much the effect exceeds the median effect of those windows, at least 0: the part that chance and the
            usual wobble do not explain.
    """

    rows: int
    distances: dict[str, float]
    calibration: dict[str, list[float]]
    effects: dict[str, float]
    excess: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TableProfile:
    """The profile of each column, and the counts of the reference's own windows.

    Not to be shared between threads: it remembers calibrations.

    Attributes:
        rows: rows of the reference.
        columns: profile of each column.
        window: length of a window; None when blocks of rows stand in for windows.
        starts: when each window began, oldest first; empty for blocks.
        sizes: rows of each window.
        counts: for each column the cells of each window.
    """

    rows: int
    columns: Mapping[str, Profile]
    window_length: timedelta | None
    starts: tuple[datetime, ...]
    sizes: tuple[int, ...]
    counts: Mapping[str, tuple[Counts, ...]]
    _known: dict[tuple[int, int], dict[str, tuple[list[float], list[float]]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def window(self, frame: pl.DataFrame, *, seed: int = 0) -> WindowDistances:
        """Compare the rows of a live window with the reference; the same rows and seed give the same answer.

        Args:
            frame: the rows; a column that is not there counts as null.
            seed: of the thinning. One seed for all windows is quickest: calibrations are remembered by size and seed.

        >>> profile = build_profile(pl.DataFrame({"c": ["a", "b"] * 300}), ["c"])
        >>> found = profile.window(pl.DataFrame({"c": ["z"] * 8}))
        >>> found.distances["c"], found.excess["c"] > 0.5, len(found.calibration["c"])
        (1.0, True, 60)
        """
        counts = count_rows(self, frame)
        found = {name: far for name, far in distances(self, counts).items() if not math.isnan(far)}
        usual = self._calibrated(frame.height, seed) if found else {}
        found = {name: far for name, far in found.items() if usual[name][0]}
        effects = {name: effect(self.columns[name], counts[name]) for name in found}
        return WindowDistances(
            rows=frame.height,
            distances=found,
            calibration={name: usual[name][0] for name in found},
            effects=effects,
            excess={
                name: max(0.0, size - float(np.median(usual[name][1]))) for name, size in effects.items()
            },
        )

    def calibration(self, rows: int, *, seed: int = 0) -> dict[str, list[float]]:
        """Distances of the reference's windows, thinned to about `rows` rows, from the rest of the reference, oldest first.

        `rows` is rounded down in steps of a fifth, which errs towards fewer alarms. Windows of less than half of it are left
        out if twenty others remain. Columns without any value to compare have none.
        """
        return {name: far for name, (far, _) in self._calibrated(rows, seed).items()}

    def _calibrated(self, rows: int, seed: int) -> dict[str, tuple[list[float], list[float]]]:
        """Distances and effects of the reference's windows, thinned to about `rows` rows."""
        size = int(_STEP ** math.floor(math.log(max(rows, 1), _STEP) + 1e-9))
        if (size, seed) not in self._known:
            rng = np.random.default_rng([seed, size])
            self._known[size, seed] = {name: self._thinned(name, size, rng) for name in sorted(self.columns)}
        return self._known[size, seed]

    def _thinned(self, name: str, size: int, rng: np.random.Generator) -> tuple[list[float], list[float]]:
        windows = [(part.cells, rows) for part, rows in zip(self.counts[name], self.sizes, strict=True)]
        big = [pair for pair in windows if 2 * pair[1] >= size]
        chosen = big if len(big) >= _FEW else windows
        parts = [
            cells if rows <= size else rng.multivariate_hypergeometric(cells, size, method="marginals")
            for cells, rows in chosen
        ]
        if not parts:
            return [], []
        table = np.array(parts, dtype=np.int64)
        far = distances_from_rest(self.columns[name], table)
        there = ~np.isnan(far)
        return far[there].tolist(), effects_from_rest(self.columns[name], table)[there].tolist()

    def to_bytes(self) -> bytes:
        """JSON bytes, the same for the same profile; `from_bytes` gives it back exactly."""
        length = self.window_length
        value = {
            "format": FORMAT,
            "rows": self.rows,
            "window_us": None if length is None else length // _MICROSECOND,
            "starts_us": [to_us(start) for start in self.starts],
            "sizes": list(self.sizes),
            "columns": {name: profile.to_dict() for name, profile in self.columns.items()},
            "counts": {name: [_sparse(part.cells) for part in parts] for name, parts in self.counts.items()},
        }
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> TableProfile:
        """Read a stored profile.

        Raises:
            Corrupt: it is not one, or of a format that this Andon does not read.
        """
        try:
            value = json.loads(data)
            if value["format"] != FORMAT:
                raise Corrupt(f"the profile has the format {value['format']!r}, this Andon reads {FORMAT!r}")
            return _decoded(value)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise Corrupt(f"a reference profile cannot be read: {error}") from None


def build_profile(
    frame: pl.DataFrame, columns: Sequence[str], *, time: str | None = None, window: timedelta | None = None
) -> TableProfile:
    """Profile the columns of a reference and the windows it is made of.

    Args:
        frame: the reference, such as the training rows; their order does not matter.
        columns: numbers, text or booleans.
        time: the column of UTC times that windows are cut by; None for blocks of rows.
        window: length of a window, as the monitor will use it; needed with a time.

    Raises:
        Invalid: no row, a column that is not there or of another kind, or a time without a window.

    >>> frame = pl.DataFrame({"x": [1.0, 2.0, 3.0], "c": ["a", "b", None]})
    >>> profile = build_profile(frame, ["x", "c"])
    >>> TableProfile.from_bytes(profile.to_bytes()) == profile
    True
    """
    if frame.height == 0:
        raise Invalid("there is no row to profile", hint="a reference needs rows")
    profiles = {name: _profile(_series(frame, name)) for name in columns}
    starts, number = _windows(frame, time, window)
    sizes = np.bincount(number[number >= 0], minlength=int(number.max()) + 1)
    return TableProfile(
        rows=frame.height,
        columns=profiles,
        window_length=window if time else None,
        starts=starts,
        sizes=tuple(sizes.tolist()),
        counts={
            name: _of_windows(profile, frame[name], number, len(sizes)) for name, profile in profiles.items()
        },
    )


def count_rows(profile: TableProfile, frame: pl.DataFrame) -> dict[str, Counts]:
    """Where the values of a window fall in the reference's cells: counts that add up over parts of a window.

    A column that is not there counts as null.
    """
    return {name: _count(column, _or_null(frame, name)) for name, column in profile.columns.items()}


def distances(profile: TableProfile, counts: Mapping[str, Counts]) -> dict[str, float]:
    """How far counted rows are from the reference, for each column; nan where there is nothing to compare."""
    return {name: distance(profile.columns[name], count) for name, count in counts.items()}


def window_distances(profile: TableProfile, frame: pl.DataFrame) -> dict[str, float]:
    """How far the rows of a window are from the reference, for each column in [0, 1]; nan without rows.

    >>> profile = build_profile(pl.DataFrame({"c": ["a", "b"]}), ["c"])
    >>> window_distances(profile, pl.DataFrame({"c": ["z"]}))
    {'c': 1.0}
    """
    return distances(profile, count_rows(profile, frame))


def distance(profile: Profile, window: Counts) -> float:
    """The distance of one column, as this module's first lines say."""
    if isinstance(profile, CategoricalProfile):
        return js_distance(profile, window)
    shape = ks_distance(profile, window)
    if not window.total or not profile.n + profile.nulls:
        return math.nan
    nulls = abs(window.nulls / window.total - profile.nulls / (profile.n + profile.nulls))
    return nulls if math.isnan(shape) else max(shape, nulls)


def distances_from_rest(profile: Profile, parts: _Ints) -> _Floats:
    """`distance(profile.without(part), part)` for many parts of the reference at once, shape (parts, cells)."""
    rest = profile.reference.cells - parts
    with np.errstate(invalid="ignore", divide="ignore"):
        ours, theirs = _shares(parts), _shares(rest)
        if isinstance(profile, CategoricalProfile):
            middle = (ours + theirs) / 2
            terms = [np.where(side > 0, side * np.log2(side / middle), 0.0) for side in (ours, theirs)]
            bits = (terms[0] + terms[1]).sum(axis=1) / 2
            found: _Floats = np.sqrt(np.clip(bits, 0.0, 1.0))
        else:
            gap = np.cumsum(_shares(rest[:, :-1]) - _shares(parts[:, :-1]), axis=1)
            shape = np.nan_to_num(np.abs(gap).max(axis=1), nan=0.0)
            found = np.maximum(shape, np.abs(ours[:, -1] - theirs[:, -1]))
    found[(parts.sum(axis=1) == 0) | (rest.sum(axis=1) == 0)] = np.nan
    return found


def effect(profile: Profile, window: Counts) -> float:
    """How large the difference of one column is, as this module's first lines say; at most 64, nan without rows.

    >>> profile = build_profile(pl.DataFrame({"x": [0.0, 2.0]}), ["x"]).columns["x"]
    >>> effect(profile, _count(profile, pl.Series([2.0])))
    1.0
    """
    if isinstance(profile, CategoricalProfile):
        return js_distance(profile, window)
    if not window.total or not profile.n + profile.nulls:
        return math.nan
    nulls = abs(window.nulls / window.total - profile.nulls / (profile.n + profile.nulls))
    moved = w1_over_std(profile, window)
    return nulls if math.isnan(moved) else min(max(moved, nulls), _FARTHEST)


def effects_from_rest(profile: Profile, parts: _Ints) -> _Floats:
    """`effect(profile.without(part), part)` for many parts of the reference at once, shape (parts, cells)."""
    if isinstance(profile, CategoricalProfile):
        return distances_from_rest(profile, parts)
    rest = profile.reference.cells - parts
    with np.errstate(invalid="ignore", divide="ignore"):
        nulls = np.abs(_shares(parts)[:, -1] - _shares(rest)[:, -1])
        gap = np.cumsum((_shares(rest[:, :-1]) - _shares(parts[:, :-1]))[:, :-1], axis=1)
    found: _Floats = np.minimum(np.fmax(_areas(gap, profile), nulls), _FARTHEST)
    return found


def _areas(gap: _Floats, profile: NumericProfile) -> _Floats:
    """The area between distribution functions that differ by `gap` at the edges, in standard deviations; nan for none."""
    if profile.std is None:
        return np.full(len(gap), np.nan)
    if profile.std == 0.0:
        far = np.abs(gap).max(axis=1)
        return np.where(np.isnan(far), np.nan, np.where(far > 0.0, _FARTHEST, 0.0))
    left, right = np.abs(gap[:, :-1]), np.abs(gap[:, 1:])
    both = left + right
    crossed = np.divide(left**2 + right**2, both, out=np.zeros_like(both), where=both > 0.0)
    height = np.where(gap[:, :-1] * gap[:, 1:] < 0.0, crossed, both) / 2.0
    areas: _Floats = height @ np.diff(profile.edges / profile.std)
    return areas


def window_start(at: datetime, window: timedelta) -> datetime:
    """Where the window that holds a time begins.

    >>> window_start(from_us(90_000_000), timedelta(minutes=1)).isoformat()
    '1970-01-01T00:01:00+00:00'
    """
    length = window // _MICROSECOND
    return from_us(to_us(at) // length * length)


def _shares(counts: _Ints) -> _Floats:
    shares: _Floats = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _series(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        raise Invalid(
            f"there is no column {name!r} to profile",
            hint=f"there are {', '.join(frame.columns)}",
            field=name,
        )
    return frame[name]


def _or_null(frame: pl.DataFrame, name: str) -> pl.Series:
    return frame[name] if name in frame.columns else pl.Series(name, [None] * frame.height, dtype=pl.Null)


def _profile(series: pl.Series) -> Profile:
    dtype = series.dtype
    if dtype.is_numeric():
        return NumericProfile.of(_numbers(series), bins=BINS)
    if dtype == pl.Boolean or isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return CategoricalProfile.of(_texts(series).to_list())
    raise Invalid(
        f"the column {series.name!r} is {dtype}, which has no profile",
        hint="profile numbers, text or booleans",
        field=series.name,
    )


def _numbers(series: pl.Series) -> _Floats:
    """Values as floats, nan for null and for what is no number."""
    values: _Floats = series.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    return values


def _texts(series: pl.Series) -> pl.Series:
    return series.cast(pl.String, strict=False)


def _count(profile: Profile, series: pl.Series) -> Counts:
    cells, size = _cells(profile, series)
    return Counts(profile.layout, np.bincount(cells, minlength=size))


def _cells(profile: Profile, series: pl.Series) -> tuple[_Ints, int]:
    """The cell of each value, as `andon.stats.bin_counts` would count it, and how many cells there are."""
    if isinstance(profile, NumericProfile):
        values = _numbers(series)
        cells = np.searchsorted(profile.edges, values, side="left").astype(np.int64)
        cells[np.isnan(values)] = len(profile.edges) + 1
        return cells, len(profile.edges) + 2
    texts, levels = _texts(series), list(profile.levels)
    lookup = pl.DataFrame(
        {"text": levels, "cell": range(len(levels))}, schema={"text": pl.String, "cell": pl.Int64}
    )
    found = texts.alias("text").to_frame().join(lookup, on="text", how="left", maintain_order="left")["cell"]
    places = np.array(found.fill_null(len(levels)).to_numpy(), dtype=np.int64)
    places[texts.is_null().to_numpy()] = len(levels) + 1
    return places, len(levels) + 2


def _windows(
    frame: pl.DataFrame, time: str | None, window: timedelta | None
) -> tuple[tuple[datetime, ...], _Ints]:
    """Where the windows begin, and for each row the number of its window (-1 for none)."""
    if time is None:
        return (), _blocks(frame)
    if window is None or window <= timedelta(0):
        raise Invalid("a profile by time needs the length of a window", hint="give the monitor's window")
    length = window // _MICROSECOND
    moments = _series(frame, time).cast(pl.Int64)
    begins = (moments // length).fill_null(-(2**62)).to_numpy()
    kept = np.unique(begins[begins > -(2**62)])[-MOST_WINDOWS:]
    if not kept.size:
        return (), np.full(frame.height, -1, dtype=np.int64)
    place = np.clip(np.searchsorted(kept, begins), 0, len(kept) - 1).astype(np.int64)
    place[kept[place] != begins] = -1
    return tuple(from_us(int(begin) * length) for begin in kept), place


def _blocks(frame: pl.DataFrame) -> _Ints:
    """Sixty blocks of equal size, drawn over the rows in the order of their hashes: the order they came in does not matter."""
    order = np.argsort(row_hashes(normalise(frame).get_columns()), kind="stable")
    number = np.empty(frame.height, dtype=np.int64)
    number[order] = np.random.default_rng(0).permutation(frame.height) % min(_BLOCKS, frame.height)
    return number


def _of_windows(profile: Profile, series: pl.Series, number: _Ints, windows: int) -> tuple[Counts, ...]:
    cells, size = _cells(profile, series)
    inside = number >= 0
    table = np.bincount(number[inside] * size + cells[inside], minlength=windows * size)
    return tuple(Counts(profile.layout, row) for row in table.reshape(windows, size))


def _sparse(cells: _Ints) -> list[int]:
    """Cell, count, cell, count, ... of those that are not empty."""
    filled = np.flatnonzero(cells)
    flat: list[int] = np.column_stack((filled, cells[filled])).ravel().tolist()
    return flat


def _decoded(value: Any) -> TableProfile:
    columns = {name: profile_from_dict(column) for name, column in value["columns"].items()}
    return TableProfile(
        rows=int(value["rows"]),
        columns=columns,
        window_length=None if value["window_us"] is None else timedelta(microseconds=value["window_us"]),
        starts=tuple(from_us(start) for start in value["starts_us"]),
        sizes=tuple(int(size) for size in value["sizes"]),
        counts={
            name: tuple(_dense(columns[name], flat) for flat in value["counts"][name]) for name in columns
        },
    )


def _dense(profile: Profile, flat: list[int]) -> Counts:
    cells = np.zeros(len(profile.reference.cells), dtype=np.int64)
    cells[flat[::2]] = flat[1::2]
    return Counts(profile.layout, cells)
