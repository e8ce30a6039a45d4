"""What a column's values are, in bytes that no library's version can change: the ground that identities stand on.

A fingerprint is the sha256 of these bytes: the line `andon.column/1`, the line of the logical type, the number of rows
(u64), a validity bitmap (bit i of byte i // 8, least significant first), then the values, little-endian, with nulls as
zeros. Floats have one zero and one NaN; booleans are a bitmap; strings and binary are all lengths in bytes (u64), then all
bytes; dates are i32 days, datetimes and durations i64 microseconds (UTC), times of day i64 nanoseconds; an all-null column
has no values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from andon.core.canonical import Digest, digest_chunks
from andon.core.errors import Invalid

FORMAT = "andon.column/1"

_PLAIN: dict[Any, str] = {
    pl.Int8: "i8", pl.Int16: "i16", pl.Int32: "i32", pl.Int64: "i64",
    pl.UInt8: "u8", pl.UInt16: "u16", pl.UInt32: "u32", pl.UInt64: "u64",
    pl.Float32: "f32", pl.Float64: "f64", pl.Boolean: "bool", pl.String: "string", pl.Binary: "binary",
    pl.Date: "date", pl.Time: "time", pl.Null: "null",
}  # fmt: skip
DATETIME = pl.Datetime("us", "UTC")
DURATION = pl.Duration("us")
_DTYPES: dict[str, Any] = {name: dtype for dtype, name in _PLAIN.items()} | {
    "datetime": DATETIME,
    "duration": DURATION,
}
_NUMPY = {
    "i8": "<i1", "i16": "<i2", "i32": "<i4", "i64": "<i8", "u8": "<u1", "u16": "<u2", "u32": "<u4", "u64": "<u8",
    "f32": "<f4", "f64": "<f8", "date": "<i4", "time": "<i8", "datetime": "<i8", "duration": "<i8",
}  # fmt: skip
_HINT = "cast the column to a number, string, boolean or time, or drop it, before it becomes a version"

Words = NDArray[np.uint64]
Cells = NDArray[np.uint8]

_NULL_WORD = np.uint64(0x9E3779B97F4A7C15)
_SEED = np.uint64(0x2545F4914F6CDD1D)
_MULTIPLIER = np.uint64(0xFF51AFD7ED558CCD)
_FINAL = np.uint64(0xC4CEB9FE1A85EC53)
_CHUNK = 65_536


def logical_type(name: str, dtype: pl.DataType) -> str:
    """The logical type of a column of a normalised frame.

    Raises:
        Invalid: a type that has no canonical form: nested, decimal, 128-bit or object.

    >>> logical_type("a", pl.Int64())
    'i64'
    """
    if isinstance(dtype, pl.Datetime):
        return "datetime"
    if isinstance(dtype, pl.Duration):
        return "duration"
    found = _PLAIN.get(type(dtype))
    if found is None:
        raise Invalid(
            f"the column {name!r} has the type {dtype}, which a table version cannot hold",
            hint=_HINT,
            field=name,
        )
    return found


def dtype_of(kind: str) -> Any:
    """The polars type of a logical type.

    >>> dtype_of("u8")
    UInt8
    """
    return _DTYPES[kind]


def normalise(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame in logical types: text for categories and enums, UTC microseconds for datetimes (naive ones are taken as UTC).

    Minus zero becomes zero and every NaN the same NaN, so that equal values have equal bytes.

    Raises:
        Invalid: no column, a type without canonical form, or a time finer than a microsecond.

    >>> normalise(pl.DataFrame({"a": pl.Series(["x"], dtype=pl.Categorical)})).schema
    Schema([('a', String)])
    """
    if frame.width == 0:
        raise Invalid("a table without columns cannot be a version", hint="check what the source returned")
    return frame.select([_normal(series) for series in frame.get_columns()])


def _normal(series: pl.Series) -> pl.Series:
    dtype = series.dtype
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return series.cast(pl.String)
    if isinstance(dtype, pl.Datetime | pl.Duration):
        if dtype.time_unit == "ns" and bool((series.to_physical() % 1000 != 0).any()):
            raise Invalid(
                f"the column {series.name!r} holds times finer than a microsecond, which would be lost",
                hint=f"round it: pl.col({series.name!r}).dt.cast_time_unit('us')",
                field=series.name,
            )
        series = series.dt.cast_time_unit("us")
        if isinstance(dtype, pl.Duration):
            return series
        return (
            series.dt.replace_time_zone("UTC")
            if dtype.time_zone is None
            else series.dt.convert_time_zone("UTC")
        )
    if dtype in (pl.Float32, pl.Float64):
        values = pl.lit(series)
        zero, nan = pl.lit(0.0, dtype=dtype), pl.lit(float("nan"), dtype=dtype)
        clean = pl.when(values == 0.0).then(zero).when(values.is_nan()).then(nan).otherwise(values)
        return pl.select(clean.alias(series.name)).to_series()
    logical_type(series.name, dtype)
    return series


def fingerprint(series: pl.Series) -> tuple[Digest, int]:
    """The digest of a normalised column's canonical bytes, and how many bytes they are.

    >>> fingerprint(pl.Series([1, None])) == fingerprint(pl.Series("other name", [1, None]))
    True
    """
    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in canonical_column(series):
            size += len(chunk)
            yield chunk

    return digest_chunks(counted()), size


def canonical_column(series: pl.Series) -> Iterator[bytes]:
    """The canonical bytes of a normalised column, in chunks."""
    kind = logical_type(series.name, series.dtype)
    yield f"{FORMAT}\n{kind}\n".encode() + len(series).to_bytes(8, "little")
    yield _bits(series.is_not_null())
    if kind == "null":
        return
    if kind == "bool":
        yield _bits(series.fill_null(value=False))
    elif kind in ("string", "binary"):
        lengths = series.str.len_bytes() if kind == "string" else series.bin.size()
        yield lengths.fill_null(0).cast(pl.UInt64).to_numpy().astype("<u8", copy=False).tobytes()
        yield _joined(series, kind)
    else:
        yield plain_values(series, kind).tobytes()


def plain_values(series: pl.Series, kind: str) -> NDArray[Any]:
    """Values of a fixed-width column as numpy: nulls are zero, one zero, one NaN, times as integers."""
    values = series.to_physical().fill_null(0).to_numpy().astype(_NUMPY[kind], copy=False)
    if kind in ("f32", "f64"):
        values = values + values.dtype.type(0)
        values[np.isnan(values)] = np.nan
    return values


def _bits(series: pl.Series) -> bytes:
    return np.packbits(series.to_numpy(), bitorder="little").tobytes()


def _joined(series: pl.Series, kind: str) -> bytes:
    if kind == "binary":
        return b"".join(series.drop_nulls().to_list())
    text = series.drop_nulls().str.join("").item() if len(series) else ""
    return str(text or "").encode()


def row_hashes(columns: Sequence[pl.Series]) -> Words:
    """A 64-bit hash for each row, the same on every machine and version: what decides where a fragment ends.

    From h = 0x2545F4914F6CDD1D, for each column in turn: h = (rotate_left(h, 5) xor word) * 0xFF51AFD7ED558CCD; at the end
    h ^= h >> 33, h *= 0xC4CEB9FE1A85EC53, h ^= h >> 33 (two constants are MurmurHash3's, A. Appleby, public domain). The
    word of a fixed-width value is its 64 bits (integers sign-extended, floats as f64), of a string or binary the first 8
    bytes of its sha256, of null 0x9E3779B97F4A7C15.

    >>> [hex(h) for h in row_hashes([pl.Series([1, None])]).tolist()]
    ['0xa4e7948957a3143d', '0x732b80c36e6fb798']
    """
    hashed: Words = np.full(len(columns[0]), _SEED)
    for series in columns:
        hashed = ((hashed << np.uint64(5)) | (hashed >> np.uint64(59))) ^ _words(series)
        hashed *= _MULTIPLIER
    hashed ^= hashed >> np.uint64(33)
    hashed *= _FINAL
    hashed ^= hashed >> np.uint64(33)
    return hashed


def _words(series: pl.Series) -> Words:
    kind = logical_type(series.name, series.dtype)
    if kind == "null":
        return np.full(len(series), _NULL_WORD)
    words = _text_digests(series, kind)[:, 0] if kind in ("string", "binary") else _fixed_words(series, kind)
    if series.null_count():
        words = np.where(series.is_null().to_numpy(), _NULL_WORD, words)
    return words


def _fixed_words(series: pl.Series, kind: str) -> Words:
    if kind == "bool":
        return series.fill_null(value=False).to_numpy().astype(np.uint64)
    values = plain_values(series, kind)
    wide: Words = values.astype("<f8" if kind in ("f32", "f64") else "<u8" if kind == "u64" else "<i8").view(
        np.uint64
    )
    return wide


def _text_digests(series: pl.Series, kind: str) -> Words:
    """The first 16 bytes of each value's sha256 as two words; zeros for null. Each distinct value is hashed once."""
    distinct = series.drop_nulls().unique()
    raw = b"".join(
        hashlib.sha256(value.encode() if kind == "string" else value).digest()[:16]
        for value in distinct.to_list()
    )
    table = np.frombuffer(raw, dtype="<u8").reshape(-1, 2)
    lookup = pl.DataFrame({"value": distinct, "place": np.arange(len(distinct), dtype=np.uint32)})
    asked = pl.DataFrame({"value": series}).join(lookup, on="value", how="left", maintain_order="left")
    place = asked["place"].fill_null(len(distinct)).to_numpy()
    found: Words = np.vstack([table, np.zeros((1, 2), dtype="<u8")])[place]
    return found


def multiset(frame: pl.DataFrame) -> str:
    """A digest of a normalised frame's rows that does not see their order: the sum of their sha256, modulo 2**256, as hex.

    It tells a re-export in another order from new data; it is not an identity. A row's bytes are, for each column, one byte
    (0 for null, else 1), then 8 bytes of a fixed-width value's word or the first 16 of the sha256 of a string or binary.

    >>> multiset(pl.DataFrame({"a": [1, 2]})) == multiset(pl.DataFrame({"a": [2, 1]}))
    True
    """
    total = 0
    for start in range(0, frame.height, _CHUNK):
        total += _sum_of_rows(_cells(frame.slice(start, _CHUNK)))
    return f"{total % 2**256:064x}"


def _cells(frame: pl.DataFrame) -> Cells:
    parts: list[Cells] = []
    for series in frame.get_columns():
        kind = logical_type(series.name, series.dtype)
        valid = series.is_not_null().to_numpy().astype(np.uint8).reshape(-1, 1)
        parts.append(valid)
        if kind in ("string", "binary"):
            parts.append(_text_digests(series, kind).astype("<u8").view(np.uint8).reshape(-1, 16))
        elif kind != "null":
            words = np.where(valid[:, 0] == 1, _fixed_words(series, kind), np.uint64(0))
            parts.append(words.astype("<u8").view(np.uint8).reshape(-1, 8))
    return np.ascontiguousarray(np.hstack(parts))


def _sum_of_rows(cells: Cells) -> int:
    """The sum of the rows' sha256, added up in 32-bit limbs."""
    hashed = b"".join(hashlib.sha256(row).digest() for row in cells)
    limbs = np.frombuffer(hashed, dtype=">u4").reshape(-1, 8).sum(axis=0, dtype=np.uint64)
    return sum(int(limb) << (32 * (7 - place)) for place, limb in enumerate(limbs))


def bounds(series: pl.Series) -> tuple[str | None, str | None]:
    """The least and greatest value as text: integers (times as their integers), floats as hex, strings up to 64 characters.

    None where there is no value; NaN is not counted.

    >>> bounds(pl.Series([0.5, float("nan"), 2.0]))
    ('0x1.0000000000000p-1', '0x1.0000000000000p+1')
    """
    kind = logical_type(series.name, series.dtype)
    values = series.drop_nulls()
    if kind in ("f32", "f64"):
        values = values.drop_nans()
    if kind in ("null", "binary") or values.is_empty():
        return None, None
    physical = values.to_physical()
    return _bound(physical.min(), kind), _bound(physical.max(), kind)


def _bound(value: Any, kind: str) -> str | None:
    if kind in ("f32", "f64"):
        return float(value).hex()
    if kind == "bool":
        return "true" if value else "false"
    text = str(value)
    return text if len(text) <= 64 else None
