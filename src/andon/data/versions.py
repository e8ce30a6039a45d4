"""Immutable table versions: a manifest that is the identity, an index that says where the values are, and Parquet objects.

The manifest (`andon.table/1`, canonical JSON, stored as a blob) holds nothing but what follows from the values: schema, key,
row count and, for each fragment and column, a fingerprint (`andon.data.encoding`). Its digest is the version's id, the same on
every machine and with every version of polars or Parquet. The index (`andon.objects/1`) maps each fingerprint to the object
that holds the values now, with its statistics; re-encoding, moving or erasing the values touches the index and never an id.

A fragment is a range of rows whose end the rows themselves decide: after at least half the target, at a row whose hash falls
under a threshold, and at the latest after twice the target. So an edit, insert or append changes its own fragment and at most
a few beside it, and only columns whose fingerprint is new are encoded and written.

With a key, rows are sorted by it first (equal keys by all columns), so the order they came in does not matter. Without one
the order is kept, and the manifest carries a digest of the rows as a multiset.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
import numpy as np
import polars as pl

from andon.core.canonical import Digest, canonical, digest_bytes
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.data.encoding import bounds, dtype_of, fingerprint, logical_type, multiset, normalise, row_hashes
from andon.store.ports import Blobs

FORMAT = "andon.table/1"
INDEX_FORMAT = "andon.objects/1"
TARGET = 65_536
_OBJECT_COLUMN = "value"
_WRITERS = 4


class Column(msgspec.Struct, frozen=True):
    """A column's name and logical type."""

    name: str
    type: str


class Fragment(msgspec.Struct, frozen=True):
    """A range of rows: how many, and the fingerprint of each column in the schema's order."""

    rows: int
    columns: tuple[Digest, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is. Equal values in equal order (any order with a key) make equal manifests."""

    schema: tuple[Column, ...]
    key: tuple[str, ...]
    rows: int
    target: int
    fragments: tuple[Fragment, ...]
    multiset: str | None
    format: str = FORMAT

    def encode(self) -> bytes:
        """The canonical bytes: what is stored."""
        return canonical(msgspec.to_builtins(self))

    @property
    def id(self) -> Digest:
        """The version's id, and the address of the manifest."""
        return digest_bytes(self.encode())


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a fragment's column is, and its statistics.

    Attributes:
        object: digest of a Parquet file with one column named `value`.
        stored: size of that file, bytes.
        size: size of the canonical bytes that were fingerprinted.
        nulls: how many values are null.
        low, high: least and greatest value as text (`andon.data.encoding.bounds`).
    """

    object: Digest
    stored: int
    size: int
    nulls: int
    low: str | None
    high: str | None


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Where the values of a manifest are: fingerprint to place."""

    manifest: Digest
    objects: dict[Digest, Place]
    format: str = INDEX_FORMAT

    def encode(self) -> bytes:
        """The canonical bytes: what is stored."""
        return canonical(msgspec.to_builtins(self))


T = TypeVar("T", Manifest, Index)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A stored version: its manifest and its index, with their digests; `written` are the bytes that storing it added."""

    id: Digest
    manifest: Manifest
    objects: Digest
    index: Index
    written: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the values in canonical form: what the table holds, however well it is packed."""
        places = self.index.objects
        return sum(places[column].size for fragment in self.manifest.fragments for column in fragment.columns)

    def blobs(self) -> set[Digest]:
        """Every blob that the version needs: what a collector of garbage must keep."""
        return {self.id, self.objects} | {place.object for place in self.index.objects.values()}


def commit_table(
    frame: pl.DataFrame,
    blobs: Blobs,
    *,
    key: Sequence[str] = (),
    parent: Table | None = None,
    target: int = TARGET,
) -> Table:
    """Store a frame as a version; what `parent` or the store holds already is not written again.

    The objects are stored before the manifest and the index, so a version whose index exists is whole. `target` (rows of a
    fragment, >= 4) is part of the identity: leave it alone outside of tests.

    Raises:
        Invalid: no column, a type without canonical form, or a key that is not a column.
        StorageFull: nothing refers to what was stored so far.
    """
    frame = arrange(normalise(frame), key)
    known = dict(parent.index.objects) if parent else {}
    fragments: list[Fragment] = []
    places: dict[Digest, Place] = {}
    written = 0
    with ThreadPoolExecutor(_WRITERS) as pool:
        for start, stop in cuts(frame, key, target):
            part = frame.slice(start, stop - start).get_columns()
            stored = list(pool.map(lambda series: _store(series, blobs, known), part))
            for digest, place, new in stored:
                written += new if digest not in places else 0
                places[digest] = place
            known.update(places)
            fragments.append(Fragment(stop - start, tuple(digest for digest, _, _ in stored)))
    manifest = Manifest(
        schema=_schema(frame), key=tuple(key), rows=frame.height, target=target, fragments=tuple(fragments),
        multiset=None if key else multiset(frame),
    )  # fmt: skip
    if parent is not None and parent.id == manifest.id and parent.index.objects == places:
        return msgspec.structs.replace(parent, written=0)
    return _publish(blobs, manifest, places, written)


def read_table(blobs: Blobs, objects: Digest) -> Table:
    """The manifest and index of a stored version; `objects` is the index's digest (`DatasetVersion.objects`).

    Raises:
        NotFound: the index or manifest is gone.
        Corrupt: one of them does not read as what it should be.
    """
    index = _read(blobs, objects, Index, INDEX_FORMAT, f"the index {objects}")
    manifest = read_manifest(blobs, index.manifest)
    missing = [c for f in manifest.fragments for c in f.columns if c not in index.objects]
    if missing:
        raise Corrupt(f"the index {objects} does not place {len(missing)} columns of {index.manifest}")
    return Table(id=index.manifest, manifest=manifest, objects=objects, index=index)


def read_manifest(blobs: Blobs, digest: Digest) -> Manifest:
    """The manifest of a version by its id.

    Raises:
        NotFound: it is not stored.
        Corrupt: it is not a manifest of a format this Andon reads.
    """
    return _read(blobs, digest, Manifest, FORMAT, f"the manifest {digest}")


def open_table(blobs: Blobs, objects: Digest, *, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows of a stored version, of all columns or those named, exactly as they were stored.

    Raises:
        NotFound: an object is gone, or a column is not in the schema.
        Corrupt: an object does not match its digest, schema or row count; fragment, column and object are named.
    """
    table = read_table(blobs, objects)
    names = [column.name for column in table.manifest.schema]
    wanted = names if columns is None else list(columns)
    for name in wanted:
        if name not in names:
            raise NotFound(
                f"the version {table.id} has no column {name!r}", hint=f"it has {', '.join(names)}"
            )
    whole = range(len(table.manifest.fragments))
    return pl.DataFrame([_column(blobs, table, name, whole) for name in wanted])


def verify_table(blobs: Blobs, objects: Digest) -> int:
    """Read every object of a version and compute its fingerprint anew; how many values were checked comes back.

    Raises:
        NotFound: an object is gone.
        Corrupt: values are not those of the manifest; fragment, column and object are named.
    """
    table = read_table(blobs, objects)
    for number, fragment in enumerate(table.manifest.fragments):
        for column, expected in zip(table.manifest.schema, fragment.columns, strict=True):
            found, _ = fingerprint(_load(blobs, table, number, column))
            if found != expected:
                raise Corrupt(
                    f"{_where(table, number, column.name)} holds other values than its fingerprint says"
                )
    return table.manifest.rows * len(table.manifest.schema)


def arrange(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """A normalised frame in canonical order: by key ascending, nulls first, equal keys by all columns; as it is without a key.

    Raises:
        Invalid: the key names no column, or one twice.

    >>> arrange(pl.DataFrame({"k": [2, 1], "v": ["b", "a"]}), ["k"])["v"].to_list()
    ['a', 'b']
    """
    for name in key:
        if name not in frame.columns:
            raise Invalid(
                f"the key {name!r} is not a column",
                hint=f"columns are {', '.join(frame.columns)}",
                field=name,
            )
    if len(set(key)) != len(key):
        raise Invalid(f"the key {', '.join(key)} names a column twice")
    if not key or frame.height < 2:
        return frame
    by = list(key)
    if bool(frame.select(by).is_duplicated().any()):
        by += [name for name in frame.columns if name not in key and frame[name].dtype != pl.Null]
    return frame.sort(by, nulls_last=False)


def cuts(frame: pl.DataFrame, key: Sequence[str], target: int) -> list[tuple[int, int]]:
    """The fragments of an arranged frame as (first row, row after the last).

    A fragment ends after the first row from half the target on whose hash (`row_hashes` over the key, or all columns) is under
    2 / target of its range, at most after twice the target.

    >>> cuts(pl.DataFrame({"a": [1, 2, 3]}), [], 4)
    [(0, 3)]
    """
    if target < 4:
        raise Invalid(f"a fragment of {target} rows is too small", hint="the target is at least 4 rows")
    if frame.height == 0:
        return []
    hashes = row_hashes([frame[name] for name in key] if key else frame.get_columns())
    ends = np.flatnonzero(hashes < np.uint64(2**65 // target)) + 1
    found: list[tuple[int, int]] = []
    start = 0
    while start < frame.height:
        place = int(np.searchsorted(ends, start + target // 2))
        natural = int(ends[place]) if place < len(ends) else frame.height
        stop = min(natural, start + 2 * target, frame.height)
        found.append((start, stop))
        start = stop
    return found


def load_rows(blobs: Blobs, table: Table, fragments: Sequence[int], columns: Sequence[str]) -> pl.DataFrame:
    """The rows of some fragments of a version, of some columns; raises what `open_table` raises."""
    return pl.DataFrame([_column(blobs, table, name, fragments) for name in columns])


def _store(series: pl.Series, blobs: Blobs, known: dict[Digest, Place]) -> tuple[Digest, Place, int]:
    """Fingerprint a fragment's column and write it unless it is there; the bytes written come last."""
    digest, size = fingerprint(series)
    place = known.get(digest)
    if place is not None and blobs.has(place.object):
        return digest, place, 0
    buffer = io.BytesIO()
    series.alias(_OBJECT_COLUMN).to_frame().write_parquet(buffer, compression="zstd", compression_level=1)
    data = buffer.getvalue()
    name = digest_bytes(data)
    new = 0 if blobs.has(name) else len(data)
    blobs.put(data)
    low, high = bounds(series)
    return (
        digest,
        Place(object=name, stored=len(data), size=size, nulls=series.null_count(), low=low, high=high),
        new,
    )


def _publish(blobs: Blobs, manifest: Manifest, places: dict[Digest, Place], written: int) -> Table:
    """Store the manifest, then the index that refers to it."""
    body = manifest.encode()
    index = Index(manifest=digest_bytes(body), objects=places)
    placed = index.encode()
    for data in (body, placed):
        written += 0 if blobs.has(digest_bytes(data)) else len(data)
        blobs.put(data)
    return Table(
        id=index.manifest, manifest=manifest, objects=digest_bytes(placed), index=index, written=written
    )


def _schema(frame: pl.DataFrame) -> tuple[Column, ...]:
    return tuple(Column(name, logical_type(name, dtype)) for name, dtype in frame.schema.items())


def _column(blobs: Blobs, table: Table, name: str, fragments: Sequence[int]) -> pl.Series:
    column = next(column for column in table.manifest.schema if column.name == name)
    parts = [_load(blobs, table, number, column) for number in fragments]
    return pl.concat(parts) if parts else pl.Series(name, [], dtype=dtype_of(column.type))


def _load(blobs: Blobs, table: Table, number: int, column: Column) -> pl.Series:
    """One object as a series, checked for type and length."""
    fragment = table.manifest.fragments[number]
    where = _where(table, number, column.name)
    try:
        data = blobs.get(_place(table, number, column.name).object)
        series = pl.read_parquet(io.BytesIO(data)).to_series().alias(column.name)
    except NotFound as error:
        raise NotFound(f"{where} is gone: {error}") from error
    except (Corrupt, pl.exceptions.PolarsError, OSError) as error:
        raise Corrupt(f"{where} cannot be read: {error}", hint="restore it from a backup") from error
    if series.dtype != dtype_of(column.type) or len(series) != fragment.rows:
        raise Corrupt(
            f"{where} holds {len(series)} rows of {series.dtype}, not {fragment.rows} of {column.type}",
            hint="restore it from a backup",
        )
    return series


def _place(table: Table, number: int, name: str) -> Place:
    at = [column.name for column in table.manifest.schema].index(name)
    return table.index.objects[table.manifest.fragments[number].columns[at]]


def _where(table: Table, number: int, name: str) -> str:
    return f"the object {_place(table, number, name).object} (version {table.id}, fragment {number}, column {name!r})"


def _read(blobs: Blobs, digest: Digest, form: type[T], known: str, what: str) -> T:
    try:
        value = msgspec.json.decode(blobs.get(digest), type=form)
    except (Corrupt, msgspec.DecodeError) as error:
        raise Corrupt(f"{what} cannot be read: {error}") from error
    if value.format != known:
        raise Corrupt(f"{what} has the format {value.format!r}, this Andon reads {known!r}")
    return value
