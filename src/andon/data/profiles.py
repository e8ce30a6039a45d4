"""A table's reference profile: what its columns looked like, and how far windows of it strayed from the rest.

The second part calibrates drift monitors: a live window is unusual only if it is farther from the reference than the
reference's own windows of the same length are. Windows are stretches of domain time that begin at multiples of their length
since 1970, for the reference and live alike; without a time column, sixty blocks of rows chosen by a stable hash stand in.

The distance of a number column is the Kolmogorov-Smirnov distance, or the difference of the shares of nulls where that is
larger; of a text or boolean column it is the Jensen-Shannon distance, nulls being a level. Both lie in [0, 1].
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
)

FORMAT = "andon.profile/1"
MOST_WINDOWS = 1000
"""Only the newest so many windows of the reference calibrate."""
_BLOCKS = 60
_MICROSECOND = timedelta(microseconds=1)
_Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TableProfile:
    """The profile of each column, and the distances of the reference's own windows.

    Attributes:
        rows: rows of the reference.
        columns: profile of each column.
        window: length of a window; None when blocks of rows stand in for windows.
        starts: when each calibration window began, oldest first; empty for blocks.
        sizes: rows of each calibration window.
        distances: for each column the distance of each window to the rest of the reference; None where it has none.
    """

    rows: int
    columns: Mapping[str, Profile]
    window: timedelta | None
    starts: tuple[datetime, ...]
    sizes: tuple[int, ...]
    distances: Mapping[str, tuple[float | None, ...]]

    def calibration(self, column: str, *, min_rows: int = 1) -> list[float]:
        """Distances of a column's windows with at least `min_rows` rows, oldest first, those without a distance left out."""
        pairs = zip(self.distances[column], self.sizes, strict=True)
        return [found for found, rows in pairs if rows >= min_rows and found is not None]

    def to_bytes(self) -> bytes:
        """JSON bytes, the same for the same profile; `from_bytes` gives it back exactly."""
        value = {
            "format": FORMAT,
            "rows": self.rows,
            "window_us": None if self.window is None else self.window // _MICROSECOND,
            "starts_us": [to_us(start) for start in self.starts],
            "sizes": list(self.sizes),
            "columns": {name: profile.to_dict() for name, profile in self.columns.items()},
            "distances": {name: list(row) for name, row in self.distances.items()},
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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
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
    distances = {
        name: _of_windows(profile, frame[name], number, len(sizes)) for name, profile in profiles.items()
    }
    return TableProfile(
        rows=frame.height,
        columns=profiles,
        window=window if time else None,
        starts=starts,
        sizes=tuple(sizes.tolist()),
        distances=distances,
    )


def count_rows(profile: TableProfile, frame: pl.DataFrame) -> dict[str, Counts]:
    """Where the values of a window fall in the reference's cells: counts that add up over parts of a window.

    Raises:
        Invalid: a column of the profile is not there.
    """
    return {name: _count(column, _series(frame, name)) for name, column in profile.columns.items()}


def distances(profile: TableProfile, counts: Mapping[str, Counts]) -> dict[str, float]:
    """How far counted rows are from the reference, for each column; nan where there is nothing to compare."""
    return {name: distance(profile.columns[name], count) for name, count in counts.items()}


def window_distances(profile: TableProfile, frame: pl.DataFrame) -> dict[str, float]:
    """How far the rows of a window are from the reference, for each column in [0, 1]; nan without rows.

    Raises:
        Invalid: a column of the profile is not there.

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


def window_start(at: datetime, window: timedelta) -> datetime:
    """Where the window that holds a time begins.

    >>> window_start(from_us(90_000_000), timedelta(minutes=1)).isoformat()
    '1970-01-01T00:01:00+00:00'
    """
    length = window // _MICROSECOND
    return from_us(to_us(at) // length * length)


def _series(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        raise Invalid(
            f"there is no column {name!r} to profile",
            hint=f"there are {', '.join(frame.columns)}",
            field=name,
        )
    return frame[name]


def _profile(series: pl.Series) -> Profile:
    dtype = series.dtype
    if dtype.is_numeric():
        return NumericProfile.of(_numbers(series))
    if dtype == pl.Boolean or isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return CategoricalProfile.of(_texts(series).to_list())
    raise Invalid(
        f"the column {series.name!r} is {dtype}, which has no profile",
        hint="profile numbers, text or booleans",
        field=series.name,
    )


def _numbers(series: pl.Series) -> NDArray[np.float64]:
    """Values as floats, nan for null and for what is no number."""
    values: NDArray[np.float64] = series.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
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
        hashed = row_hashes(normalise(frame).get_columns())
        return (), (hashed % np.uint64(min(_BLOCKS, frame.height))).astype(np.int64)
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


def _of_windows(profile: Profile, series: pl.Series, number: _Ints, windows: int) -> tuple[float | None, ...]:
    """The distance of each window to the reference without it."""
    cells, size = _cells(profile, series)
    inside = number >= 0
    table = np.bincount(number[inside] * size + cells[inside], minlength=windows * size).reshape(
        windows, size
    )
    parts = (Counts(profile.layout, row) for row in table)
    found = (distance(profile.without(part), part) for part in parts)
    return tuple(None if math.isnan(item) else item for item in found)


def _decoded(value: Any) -> TableProfile:
    return TableProfile(
        rows=int(value["rows"]),
        columns={name: profile_from_dict(column) for name, column in value["columns"].items()},
        window=None if value["window_us"] is None else timedelta(microseconds=value["window_us"]),
        starts=tuple(from_us(start) for start in value["starts_us"]),
        sizes=tuple(int(size) for size in value["sizes"]),
        distances={
            name: tuple(None if item is None else float(item) for item in row)
            for name, row in value["distances"].items()
        },
    )
