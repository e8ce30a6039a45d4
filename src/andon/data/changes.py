"""What changed between two versions: from the manifests alone, or cell by cell where only what differs is read."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import polars as pl

from andon.core.errors import Invalid
from andon.data.versions import Table, load_rows
from andon.store.ports import Blobs

_OLD = "\x00old"


class TableDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifests say.

    Attributes:
        added, removed, retyped: names of columns only in the new, only in the old, and with another type.
        rows: how many the old and the new version have.
        reordered: the same rows in another order (versions without a key).
        fragments: how many the new version has, and how many of them the old one has too.
        columns: for each common column how many of the new fragments the old version does not have.
    """

    same: bool
    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: tuple[str, ...]
    rows: tuple[int, int]
    reordered: bool
    fragments: tuple[int, int]
    columns: dict[str, int]


class CellDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Exact counts for keyed versions: rows only in the new, only in the old, in both with a changed cell; cells by column."""

    rows_added: int
    rows_removed: int
    rows_changed: int
    cells: dict[str, int]


def diff_tables(old: Table, new: Table) -> TableDiff:
    """Compare two versions by their manifests; no row is read."""
    before = {column.name: column.type for column in old.manifest.schema}
    after = {column.name: column.type for column in new.manifest.schema}
    known = {fragment.columns for fragment in old.manifest.fragments}
    changed: dict[str, int] = {}
    for name in after:
        if name in before:
            seen = set(_prints(old, name))
            changed[name] = sum(digest not in seen for digest in _prints(new, name))
    return TableDiff(
        same=old.id == new.id,
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        retyped=tuple(name for name in after if name in before and before[name] != after[name]),
        rows=(old.manifest.rows, new.manifest.rows),
        reordered=old.id != new.id and _same_rows(old, new),
        fragments=(len(new.manifest.fragments), sum(f.columns in known for f in new.manifest.fragments)),
        columns={name: count for name, count in changed.items() if count},
    )


def diff_cells(blobs: Blobs, old: Table, new: Table) -> CellDiff:
    """Compare two versions with the same unique key cell by cell; only fragments that differ are read.

    Null equals null, and NaN equals NaN. Columns that only one of them has, or with another type, are not counted.

    Raises:
        Invalid: no key, different keys, or a key that is not unique among the rows that differ.
        NotFound, Corrupt: as `open_table`.
    """
    key = old.manifest.key
    if not key or key != new.manifest.key:
        raise Invalid(
            f"versions with the keys {list(key)} and {list(new.manifest.key)} have no cells to compare",
            hint="compare them with diff_tables",
        )
    before = set(old.manifest.schema)
    common = [column.name for column in new.manifest.schema if column in before]
    if not set(key) <= set(common):
        raise Invalid(
            "a key column has another type in the two versions", hint="compare them with diff_tables"
        )
    left, right = _differing(old, new, common)
    ours = load_rows(blobs, old, left, common)
    theirs = load_rows(blobs, new, right, common)
    for frame in (ours, theirs):
        if bool(frame.select(key).is_duplicated().any()):
            raise Invalid(f"the key {', '.join(key)} is not unique", hint="compare them with diff_tables")
    return _compare(ours, theirs, key, [name for name in common if name not in key])


def _compare(old: pl.DataFrame, new: pl.DataFrame, key: Sequence[str], columns: Sequence[str]) -> CellDiff:
    by = list(key)
    renamed = old.rename({name: _OLD + name for name in columns})
    both = new.join(renamed, on=by, how="inner", nulls_equal=True)
    differs = [pl.col(name).ne_missing(pl.col(_OLD + name)).alias(name) for name in columns]
    cells = both.select(differs)
    counts = {name: int(cells[name].sum()) for name in columns}
    return CellDiff(
        rows_added=new.height - both.height,
        rows_removed=old.height - both.height,
        rows_changed=int(cells.select(pl.any_horizontal(pl.all())).to_series().sum()) if columns else 0,
        cells={name: count for name, count in counts.items() if count},
    )


def _differing(old: Table, new: Table, common: Sequence[str]) -> tuple[list[int], list[int]]:
    """Numbers of the fragments that the other version does not have with the same values in the common columns."""
    ours = _rows_of_prints(old, common)
    theirs = _rows_of_prints(new, common)
    there = set(theirs)
    left = [number for number, prints in enumerate(ours) if prints not in there]
    here = set(ours)
    right = [number for number, prints in enumerate(theirs) if prints not in here]
    return left, right


def _rows_of_prints(table: Table, columns: Sequence[str]) -> list[tuple[str, ...]]:
    names = [column.name for column in table.manifest.schema]
    places = [names.index(name) for name in columns]
    return [tuple(fragment.columns[place] for place in places) for fragment in table.manifest.fragments]


def _prints(table: Table, name: str) -> list[str]:
    return [prints[0] for prints in _rows_of_prints(table, [name])]


def _same_rows(old: Table, new: Table) -> bool:
    """Whether the two hold the same rows: by multiset without a key."""
    sums = (old.manifest.multiset, new.manifest.multiset)
    return sums[0] is not None and sums[0] == sums[1] and old.manifest.schema == new.manifest.schema
