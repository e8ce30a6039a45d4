"""One seeded, time-aware split of a dataset version into rows to train on and rows held back.

With a time column the newest stretch is held back, and a row trains only if its label was known when that stretch began: a
label that came late would bring the future in. Without one, a stable hash of each row decides.

Rows whose label is not known are a class of their own: they are counted and left out on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from andon.core.errors import Invalid
from andon.data.encoding import normalise, row_hashes

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Two disjoint parts of a frame, in its own order, and what was left out.

    Attributes:
        train, holdout: rows with a known label.
        train_from, train_until: times of the training rows, [from, until); until is where the holdout begins. None without
            a time column.
        holdout_from, holdout_until: the same of the holdout.
        unlabelled: rows of either stretch whose label is not known (yet, or ever).
        late: rows before the holdout whose label became known only after it began.
        outside: rows older than the training window, or from `until` on.
    """

    train: pl.DataFrame
    holdout: pl.DataFrame
    train_from: datetime | None = None
    train_until: datetime | None = None
    holdout_from: datetime | None = None
    holdout_until: datetime | None = None
    unlabelled: int = 0
    late: int = 0
    outside: int = 0


def split(
    frame: pl.DataFrame,
    *,
    label: str,
    holdout: timedelta | float,
    time: str | None = None,
    label_time: str | None = None,
    window: timedelta | None = None,
    until: datetime | None = None,
    key: Sequence[str] = (),
    seed: int = 7,
) -> Split:
    """Split a frame whose time columns are UTC datetimes (as `read_source` gives them).

    Args:
        frame: the rows; their order does not matter to what goes where.
        label: the label's column; null means not known.
        holdout: the newest stretch as a duration, or as a share of rows in (0, 1).
        time: when a row happened; None for the split by hash.
        label_time: when its label was known (null: it is not); None means at once.
        window: train only on this much before the holdout.
        until: the end of the holdout, aware; None is just after the newest row.
        key: columns that tell rows apart, for the split by hash; none means all of them.
        seed: of the split by hash.

    Raises:
        Invalid: a duration without a time column, a row without a time, or nothing left to train on or to judge by.

    >>> from datetime import UTC
    >>> days = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    >>> told = [days[0], days[3], days[2], None]
    >>> frame = pl.DataFrame({"day": days, "told": told, "y": [0, 1, 1, None]})
    >>> parts = split(frame, label="y", holdout=timedelta(days=2), time="day", label_time="told")
    >>> parts.train["y"].to_list(), parts.holdout["y"].to_list(), parts.late, parts.unlabelled
    ([0], [1], 1, 1)
    """
    if isinstance(holdout, float) and not 0 < holdout < 1:
        raise Invalid(f"a holdout of {holdout} is no share", hint="it lies between 0 and 1", field="holdout")
    if time is None:
        found = _by_hash(frame, label, holdout, key, seed)
    else:
        found = _by_time(frame, label, holdout, time, label_time, window, until)
    return _checked(found)


def _by_time(
    frame: pl.DataFrame,
    label: str,
    holdout: timedelta | float,
    time: str,
    label_time: str | None,
    window: timedelta | None,
    until: datetime | None,
) -> Split:
    if missing := frame[time].null_count():
        raise Invalid(
            f"{missing} rows have no {time!r}", hint="a row without a time cannot be placed", field=time
        )
    if frame.height == 0:
        return Split(train=frame, holdout=frame)
    end = until or _moment(frame[time].max()) + _TICK
    cut = _cut(frame.filter(pl.col(time) < end)[time], holdout, end)
    start = cut - window if window is not None else None
    at, told = pl.col(time), pl.col(label_time or time)
    known = pl.col(label).is_not_null() & told.is_not_null()
    old = frame.filter(at < cut) if start is None else frame.filter((at < cut) & (at >= start))
    new = frame.filter((at >= cut) & (at < end))
    labelled = old.filter(known)
    train = labelled.filter(told <= cut)
    judged = new.filter(known & (told <= end))
    oldest = train[time].min()
    return Split(
        train=train,
        holdout=judged,
        train_from=start or (None if oldest is None else _moment(oldest)),
        train_until=cut,
        holdout_from=cut,
        holdout_until=end,
        unlabelled=old.height - labelled.height + new.height - judged.height,
        late=labelled.height - train.height,
        outside=frame.height - old.height - new.height,
    )


def _cut(times: pl.Series, holdout: timedelta | float, end: datetime) -> datetime:
    """Where the holdout begins; rows of the same instant stay together."""
    if isinstance(holdout, timedelta):
        return end - holdout
    if times.is_empty():
        return end
    place = min(int(len(times) * (1 - holdout)), len(times) - 1)
    return _moment(times.sort()[place])


def _by_hash(
    frame: pl.DataFrame, label: str, holdout: timedelta | float, key: Sequence[str], seed: int
) -> Split:
    if isinstance(holdout, timedelta):
        raise Invalid(
            f"a holdout of {holdout} needs a time column",
            hint="name it as 'time' of the source, or give a share such as 0.25",
            field="holdout",
        )
    asked = normalise(frame.select(key) if key else frame)
    columns = [pl.Series("seed", np.full(frame.height, seed, dtype=np.int64)), *asked.get_columns()]
    held = pl.Series(row_hashes(columns) < np.uint64(int(holdout * 2**64)))
    known = frame[label].is_not_null()
    train, judged = frame.filter(~held & known), frame.filter(held & known)
    return Split(train=train, holdout=judged, unlabelled=frame.height - train.height - judged.height)


def _checked(found: Split) -> Split:
    left = f"{found.unlabelled} rows have no label, {found.late} got it too late, {found.outside} lie outside"
    if found.train.height == 0:
        raise Invalid(
            f"no row is left to train on: {left}", hint="shorten train.holdout, or wait for more data"
        )
    if found.holdout.height == 0:
        raise Invalid(
            f"no row is left to hold back: {left}", hint="lengthen train.holdout, or wait for more labels"
        )
    return found


def _moment(value: Any) -> datetime:
    assert isinstance(value, datetime), "time columns are UTC datetimes by now"
    return value
