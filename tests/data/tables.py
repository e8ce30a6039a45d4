"""Tables that tests draw or make: of every type that a version can hold."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import strategies as st

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES: dict[str, tuple[pl.DataType, st.SearchStrategy[object]]] = {
    "i8": (pl.Int8(), st.integers(-128, 127)),
    "i64": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "u64": (pl.UInt64(), st.integers(0, 2**64 - 1)),
    "f32": (pl.Float32(), st.floats(width=32)),
    "f64": (pl.Float64(), st.floats()),
    "bool": (pl.Boolean(), st.booleans()),
    "string": (pl.String(), _TEXT),
    "binary": (pl.Binary(), st.binary(max_size=6)),
    "date": (pl.Date(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "time": (pl.Time(), st.times()),
    "datetime": (
        pl.Datetime("us", "UTC"),
        st.integers(-(10**16), 10**16).map(
            lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
        ),
    ),
    "duration": (pl.Duration("us"), st.timedeltas(timedelta(days=-9999), timedelta(days=9999))),
    "null": (pl.Null(), st.none()),
}


@st.composite
def frames(draw: st.DrawFn, min_rows: int = 0, max_rows: int = 12, max_columns: int = 4) -> pl.DataFrame:
    """A frame of any types, with nulls, NaN, both zeros, odd names and any text."""
    names = draw(st.lists(_TEXT.filter(bool), min_size=1, max_size=max_columns, unique=True))
    rows = draw(st.integers(min_rows, max_rows))
    columns = []
    for name in names:
        dtype, values = VALUES[draw(st.sampled_from(sorted(VALUES)))]
        cells = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns.append(pl.Series(name, cells, dtype=dtype))
    return pl.DataFrame(columns)


def customers(rows: int, seed: int = 0) -> pl.DataFrame:
    """A keyed table of many rows: numbers, text, a time."""
    rng = np.random.default_rng(seed)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "id": np.arange(rows),
            "score": rng.normal(size=rows),
            "age": rng.integers(18, 90, rows),
            "city": rng.choice(["Köln", "Lyon", "Oslo", "Łódź"], rows),
            "note": [f"n{number}" for number in rng.integers(0, 10**9, rows)],
            "day": [start + timedelta(hours=int(hour)) for hour in rng.integers(0, 5000, rows)],
        }
    )
