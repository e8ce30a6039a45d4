"""What changed between two versions: by manifest for all, cell by cell for keyed ones."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.canonical import Digest
from andon.core.errors import Invalid
from andon.data.changes import CellDiff, TableDiff, diff_cells, diff_tables
from andon.data.versions import Table, commit_table
from andon.store.blobs import LocalBlobs
from tests.data.tables import customers

KEYED = st.dictionaries(
    st.integers(0, 30),
    st.tuples(st.sampled_from([None, 1, 2]), st.sampled_from([None, float("nan"), 0.5])),
    max_size=30,
)


def test_manifests_say_schema_rows_fragments_and_columns_that_changed(blobs: LocalBlobs) -> None:
    frame = customers(5_000)
    old = commit_table(frame, blobs, key=["id"], target=256)
    edited = frame.with_columns(
        pl.when(pl.col("id") == 4_000).then(0).otherwise("age").alias("age"),
        pl.col("score").cast(pl.Float32),
        pl.col("id").alias("rank"),
    ).drop("note")

    diff = diff_tables(old, commit_table(edited, blobs, key=["id"], target=256))

    fragments = len(old.manifest.fragments)
    assert diff == TableDiff(
        same=False,
        added=("rank",),
        removed=("note",),
        retyped=("score",),
        rows=(5_000, 5_000),
        reordered=False,
        fragments=(fragments, 0),
        columns={"age": 1, "score": fragments},
    )


def test_a_new_order_of_a_plain_table_is_told_from_new_rows(blobs: LocalBlobs) -> None:
    frame = customers(500)
    old = commit_table(frame, blobs)

    assert diff_tables(old, commit_table(frame.reverse(), blobs)).reordered
    assert not diff_tables(old, commit_table(frame.head(499), blobs)).reordered
    assert diff_tables(old, old).same


@settings(max_examples=50)  # each example writes files
@given(KEYED, KEYED)
def test_cells_are_counted_as_a_comparison_of_all_rows_would(
    shared: LocalBlobs, old: dict[int, tuple[object, object]], new: dict[int, tuple[object, object]]
) -> None:
    both = old.keys() & new.keys()
    texts = {key: (repr(old[key]), repr(new[key])) for key in both}

    diff = diff_cells(shared, _keyed(shared, old), _keyed(shared, new))

    columns = {name: sum(repr(old[k][at]) != repr(new[k][at]) for k in both) for at, name in enumerate("ab")}
    assert diff == CellDiff(
        rows_added=len(new.keys() - old.keys()),
        rows_removed=len(old.keys() - new.keys()),
        rows_changed=sum(before != after for before, after in texts.values()),
        cells={name: count for name, count in columns.items() if count},
    )


def test_cells_of_a_big_table_are_compared_by_reading_only_what_differs(blobs: LocalBlobs) -> None:
    frame = customers(20_000)
    edited = frame.with_columns(pl.when(pl.col("id") == 7_000).then(0).otherwise("age").alias("age"))
    old = commit_table(frame, blobs, key=["id"], target=512)
    new = commit_table(edited.filter(pl.col("id") != 12_345), blobs, key=["id"], parent=old, target=512)
    for place in _objects_of_whole_fragments_both_have(old, new):
        blobs.remove(place)

    diff = diff_cells(blobs, old, new)

    assert diff == CellDiff(rows_added=0, rows_removed=1, rows_changed=1, cells={"age": 1})


def test_versions_without_a_common_unique_key_are_refused(blobs: LocalBlobs) -> None:
    frame = customers(10)
    plain, keyed = commit_table(frame, blobs), commit_table(frame, blobs, key=["id"])
    doubled = commit_table(pl.concat([frame, frame]), blobs, key=["id"])
    retyped = commit_table(frame.with_columns(pl.col("id").cast(pl.Int32)), blobs, key=["id"])

    for old, new, why in [
        (plain, keyed, "no cells to compare"),
        (keyed, doubled, "the key id is not unique"),
        (keyed, retyped, "a key column has another type"),
    ]:
        with pytest.raises(Invalid, match=why):
            diff_cells(blobs, old, new)


def test_a_shifted_time_is_a_changed_cell(blobs: LocalBlobs) -> None:
    frame = customers(100)
    old = commit_table(frame, blobs, key=["id"])
    new = commit_table(frame.with_columns(pl.col("day") + timedelta(microseconds=1)), blobs, key=["id"])

    assert diff_cells(blobs, old, new).cells == {"day": 100}


def _keyed(blobs: LocalBlobs, rows: dict[int, tuple[object, object]]) -> Table:
    schema = {"k": pl.Int64, "a": pl.Int64, "b": pl.Float64}
    data = [(key, a, b) for key, (a, b) in rows.items()]
    return commit_table(pl.DataFrame(data, schema=schema, orient="row"), blobs, key=["k"], target=4)


def _objects_of_whole_fragments_both_have(old: Table, new: Table) -> list[Digest]:
    """Nearly all objects: a comparison that reads one of them fails."""
    both = set(old.manifest.fragments) & set(new.manifest.fragments)
    assert len(both) >= len(old.manifest.fragments) - 4
    return [old.index.objects[column].object for fragment in both for column in fragment.columns]
