"""Table versions: the id follows from the values alone, storing is shared, reading is exact, damage is named."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from andon.core.canonical import Digest, hex_part
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.data.encoding import canonical_column, fingerprint, normalise
from andon.data.versions import (
    Table,
    arrange,
    commit_table,
    cuts,
    open_table,
    read_manifest,
    read_table,
    verify_table,
)
from andon.store.blobs import LocalBlobs
from tests.data.tables import customers, frames

PLAIN = "sha256:654928ba30c41bb19fbf6ce1c6743699f52bfeec496129383c0596dea20ebcfe"
KEYED = "sha256:d47c5cbb532048f13a22c4996e25ea5ee5e6d391babae43c81ecc65a39cfc6d6"
MULTISET = "d6963688794b61a21aa45f3b50986ca952e1eca80653d33242f01680d03a6644"


@settings(max_examples=50)  # each example writes files
@given(frames())
def test_what_is_stored_comes_back_exactly(shared: LocalBlobs, frame: pl.DataFrame) -> None:
    table = commit_table(frame, shared, target=4)

    back = open_table(shared, table.objects)

    assert_frame_equal(back, frame, check_exact=True)
    assert verify_table(shared, table.objects) == frame.height * frame.width


@settings(max_examples=50)  # each example writes files
@given(frames())
def test_the_same_values_have_the_same_id_however_they_are_held(
    shared: LocalBlobs, frame: pl.DataFrame
) -> None:
    chunked = pl.concat([frame.head(1), frame.tail(max(frame.height - 1, 0))], rechunk=False)

    ids = {commit_table(form, shared, target=4).id for form in (frame, chunked, frame.clone())}

    assert len(ids) == 1


@settings(max_examples=50)  # each example writes files
@given(frames(min_rows=1), st.data())
def test_any_changed_cell_changes_the_id(
    shared: LocalBlobs, frame: pl.DataFrame, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(frame.columns))
    row = data.draw(st.integers(0, frame.height - 1))
    other = data.draw(st.integers(0, frame.height - 1))
    cells = frame[name].to_list()
    cells[row] = None if cells[row] is not None else cells[other]
    assume(cells[row] is not None or frame[name][row] is not None)
    changed = frame.with_columns(pl.Series(name, cells, dtype=frame[name].dtype))

    assert commit_table(changed, shared, target=4).id != commit_table(frame, shared, target=4).id


@settings(max_examples=50)  # each example writes files
@given(frames(min_rows=2), st.randoms(use_true_random=False))
def test_with_a_key_the_order_of_rows_does_not_matter(
    shared: LocalBlobs, frame: pl.DataFrame, random: object
) -> None:
    key = frame.columns[:2]
    order = list(range(frame.height))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random

    shuffled = commit_table(frame[order], shared, key=key, target=4)

    assert shuffled.id == commit_table(frame, shared, key=key, target=4).id
    assert shuffled.manifest.multiset is None


@settings(max_examples=50)  # each example writes files
@given(frames(min_rows=2), st.randoms(use_true_random=False))
def test_without_a_key_the_multiset_tells_a_new_order_from_new_rows(
    shared: LocalBlobs, frame: pl.DataFrame, random: object
) -> None:
    order = list(range(frame.height))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    table, shuffled = commit_table(frame, shared, target=4), commit_table(frame[order], shared, target=4)
    doubled = commit_table(pl.concat([frame, frame]), shared, target=4)

    assert shuffled.manifest.multiset == table.manifest.multiset
    assert doubled.manifest.multiset != table.manifest.multiset
    assert_frame_equal(open_table(shared, shuffled.objects), frame[order])


@settings(max_examples=50)  # each example writes files
@given(frames(min_rows=1))
def test_a_name_a_type_or_the_order_of_columns_changes_the_id(
    shared: LocalBlobs, frame: pl.DataFrame
) -> None:
    first = frame.columns[0]
    forms = [frame, frame.rename({first: first + "x"}), frame.with_columns(pl.lit(1).alias(first + "y"))]
    if frame.width > 1:
        forms.append(frame.select(reversed(frame.columns)))

    assert len({commit_table(form, shared, target=4).id for form in forms}) == len(forms)


def test_both_zeros_and_every_nan_are_one_value(shared: LocalBlobs) -> None:
    odd = np.array([0x7FF8000000000001, 0xFFF8000000000000, 0x8000000000000000], dtype=np.uint64).view(
        np.float64
    )

    table = commit_table(pl.DataFrame({"a": odd}), shared)

    assert table.id == commit_table(pl.DataFrame({"a": [math.nan, math.nan, 0.0]}), shared).id
    assert math.copysign(1, open_table(shared, table.objects)["a"][2]) == 1


def test_the_same_instants_and_words_are_the_same_values_in_any_unit_zone_or_category(
    shared: LocalBlobs,
) -> None:
    at = [datetime(2024, 1, 1, 12), None]  # noqa: DTZ001  # naive on purpose: it is taken as UTC
    plain = pl.DataFrame({"at": pl.Series(at, dtype=pl.Datetime("us")), "w": ["a", None]})
    forms = [
        plain,
        plain.with_columns(pl.col("at").dt.cast_time_unit("ns"), pl.col("w").cast(pl.Categorical)),
        plain.with_columns(
            pl.col("at").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
            pl.col("w").cast(pl.Enum(["b", "a"])),
        ),
    ]

    assert len({commit_table(form, shared).id for form in forms}) == 1


def test_the_fingerprint_is_the_documented_one() -> None:
    """The bytes are written out by hand here: a change of them would change every id that exists."""
    numbers = (
        b"andon.column/1\ni16\n"
        + (3).to_bytes(8, "little")
        + bytes([0b101])
        + bytes([1, 0, 0, 0, 0xFE, 0xFF])
    )
    text = (
        b"andon.column/1\nstring\n"
        + (2).to_bytes(8, "little")
        + bytes([0b01])
        + bytes([2] + [0] * 15)
        + "é".encode()
    )

    found = [
        fingerprint(pl.Series([1, None, -2], dtype=pl.Int16))[0],
        fingerprint(pl.Series(["é", None]))[0],
    ]

    assert [hex_part(digest) for digest in found] == [
        hashlib.sha256(data).hexdigest() for data in (numbers, text)
    ]
    assert b"".join(canonical_column(pl.Series([True, None, True]))).endswith(bytes([0b101, 0b101]))


def test_ids_of_known_tables_stay_what_they_are(shared: LocalBlobs) -> None:
    """Frozen for ever: the id of a keyed and of a plain table. A red test here means that format 1 was changed."""
    frame = customers(1000)

    plain, keyed = (
        commit_table(frame, shared, target=100),
        commit_table(frame.reverse(), shared, key=["id"], target=100),
    )

    assert plain.id == PLAIN
    assert keyed.id == KEYED
    assert plain.manifest.multiset == MULTISET


def test_an_empty_table_is_a_version_and_one_without_columns_is_not(blobs: LocalBlobs) -> None:
    frame = pl.DataFrame(schema={"a": pl.Int64, "b": pl.String})

    table = commit_table(frame, blobs)

    assert_frame_equal(open_table(blobs, table.objects), frame)
    with pytest.raises(Invalid, match="without columns"):
        commit_table(pl.DataFrame(), blobs)


@pytest.mark.parametrize("values", [[[1]], [{"a": 1}], [object()]], ids=["list", "struct", "object"])
def test_a_type_without_canonical_form_is_refused_by_name(values: list[object], blobs: LocalBlobs) -> None:
    with pytest.raises(Invalid, match=r"'tags' has the type .* cannot hold; cast the column"):
        commit_table(pl.DataFrame({"tags": values}), blobs)


def test_a_time_finer_than_a_microsecond_is_refused_and_not_rounded(blobs: LocalBlobs) -> None:
    frame = pl.DataFrame({"at": pl.Series([1001], dtype=pl.Int64).cast(pl.Datetime("ns"))})

    with pytest.raises(Invalid, match="finer than a microsecond"):
        commit_table(frame, blobs)


def test_a_key_that_is_no_column_is_refused(blobs: LocalBlobs) -> None:
    with pytest.raises(Invalid, match="the key 'id' is not a column; columns are a"):
        commit_table(pl.DataFrame({"a": [1]}), blobs, key=["id"])


def test_storing_the_same_content_again_writes_nothing(blobs: LocalBlobs) -> None:
    frame = customers(2000)
    table = commit_table(frame, blobs, key=["id"], target=256)
    before = set(blobs.digests())

    again = commit_table(frame.reverse(), blobs, key=["id"], parent=table, target=256)

    assert (again.id, again.objects, again.written) == (table.id, table.objects, 0)
    assert set(blobs.digests()) == before == table.blobs()


def test_an_append_writes_only_the_fragments_at_its_place(blobs: LocalBlobs) -> None:
    table = commit_table(customers(20_000), blobs, key=["id"], target=512)
    more = commit_table(customers(20_000).vstack(_later(200)), blobs, key=["id"], parent=table, target=512)

    kept = set(table.manifest.fragments) & set(more.manifest.fragments)

    assert len(kept) >= len(table.manifest.fragments) - 1
    assert _values_written(table, more) < 0.06 * table.written


def test_an_edit_in_one_column_writes_that_column_of_one_fragment(blobs: LocalBlobs) -> None:
    frame = customers(20_000)
    table = commit_table(frame, blobs, key=["id"], target=512)
    edited = frame.with_columns(pl.when(pl.col("id") == 7_777).then(0).otherwise("age").alias("age"))

    more = commit_table(edited, blobs, key=["id"], parent=table, target=512)

    assert len(set(more.index.objects) - set(table.index.objects)) == 1


@pytest.mark.parametrize("key", [["id"], []], ids=["keyed", "plain"])
def test_rows_inserted_and_deleted_in_the_middle_leave_the_rest_shared(
    key: list[str], blobs: LocalBlobs
) -> None:
    frame = customers(20_000)
    table = commit_table(frame, blobs, key=key, target=512)
    changed = pl.concat([frame.slice(0, 9_000), frame.slice(9_003, 3_000), _later(2), frame.slice(12_003)])

    more = commit_table(changed, blobs, key=key, parent=table, target=512)

    assert _values_written(table, more) < 0.3 * table.written
    assert_frame_equal(open_table(blobs, more.objects), arrange(normalise(changed), key))


@given(st.integers(4, 64), st.integers(0, 400), st.integers(0, 2**32))
def test_fragments_cover_all_rows_in_order_within_their_bounds(target: int, rows: int, seed: int) -> None:
    frame = pl.DataFrame({"a": np.random.default_rng(seed).integers(0, 3, rows), "b": np.arange(rows) % 5})

    found = cuts(frame, [], target)

    assert [start for start, _ in found] == [0, *(stop for _, stop in found)][: len(found)]
    assert (found[-1][1] if found else 0) == rows
    assert all(stop - start <= 2 * target for start, stop in found)
    assert all(stop - start >= target // 2 for start, stop in found[:-1])


def test_columns_can_be_read_alone_and_an_unknown_one_is_named(blobs: LocalBlobs) -> None:
    table = commit_table(customers(50), blobs, key=["id"])

    assert open_table(blobs, table.objects, columns=["city", "id"]).columns == ["city", "id"]
    with pytest.raises(NotFound, match="has no column 'town'; it has id, score"):
        open_table(blobs, table.objects, columns=["town"])


def test_statistics_say_nulls_and_bounds_as_text(blobs: LocalBlobs) -> None:
    frame = pl.DataFrame(
        {
            "a": [3, None, -1],
            "b": [0.5, math.nan, 2.0],
            "c": ["b", "a", None],
            "d": [datetime(1970, 1, 2, tzinfo=UTC)] * 3,
        }
    )

    table = commit_table(frame, blobs)

    places = [table.index.objects[digest] for digest in table.manifest.fragments[0].columns]
    assert [(p.nulls, p.low, p.high) for p in places] == [
        (1, "-1", "3"),
        (0, "0x1.0000000000000p-1", "0x1.0000000000000p+1"),
        (1, "a", "b"),
        (0, "86400000000", "86400000000"),
    ]


def test_objects_are_ordinary_parquet(blobs: LocalBlobs) -> None:
    table = commit_table(pl.DataFrame({"a": [1, 2]}), blobs)
    place = table.index.objects[table.manifest.fragments[0].columns[0]]

    assert pl.read_parquet(blobs.path(place.object)).to_dict(as_series=False) == {"value": [1, 2]}


def test_a_damaged_object_is_refused_and_named(blobs: LocalBlobs, tmp_path: Path) -> None:
    table, place = _one_object(blobs)
    file = Path(blobs.path(place))
    file.chmod(0o600)
    file.write_bytes(b"PAR1" + file.read_bytes()[4:-1] + b"X")

    with pytest.raises(
        Corrupt, match=f"{place} .*fragment 0, column 'a'.*cannot be read.*restore it from a backup"
    ):
        open_table(blobs, table.objects)
    with pytest.raises(Corrupt, match=place):
        verify_table(blobs, table.objects)


@pytest.mark.capability("A8")
@given(st.data())
@settings(max_examples=30)  # each example writes files
def test_a_single_flipped_bit_anywhere_is_noticed(shared: LocalBlobs, data: st.DataObject) -> None:
    table = commit_table(customers(40), shared, key=["id"])
    name = data.draw(st.sampled_from(sorted(table.blobs())))
    file = Path(shared.path(name))
    whole = file.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    file.chmod(0o600)
    file.write_bytes(flipped)

    try:
        with pytest.raises(Corrupt, match=name):
            verify_table(shared, table.objects)
    finally:
        file.write_bytes(whole)
    assert verify_table(shared, table.objects) == 40 * 6


@pytest.mark.capability("A9")
def test_every_earlier_version_can_be_opened_as_it_was(blobs: LocalBlobs) -> None:
    frames_then = [
        customers(3_000),
        customers(3_000).with_columns(pl.col("age") + 1),
        customers(3_000).drop("note"),
        customers(2_900, seed=4),
    ]
    tables: list[Table] = []
    for frame in frames_then:
        parent = tables[-1] if tables else None
        tables.append(commit_table(frame, blobs, key=["id"], parent=parent, target=256))

    for frame, table in zip(frames_then, tables, strict=True):
        assert_frame_equal(open_table(blobs, table.objects), frame, check_exact=True)


def test_a_missing_object_is_named(blobs: LocalBlobs) -> None:
    table, place = _one_object(blobs)
    blobs.remove(place)

    with pytest.raises(NotFound, match=f"{place} .*fragment 0, column 'a'.* is gone"):
        open_table(blobs, table.objects)


def test_an_index_that_leads_to_other_values_is_found_out(blobs: LocalBlobs) -> None:
    table, _ = _one_object(blobs)
    _, other = _one_object(blobs, [4, 5, 7])
    forged = _with_object(blobs, table, other)

    with pytest.raises(Corrupt, match=r"fragment 0, column 'a'.*other values than its fingerprint says"):
        verify_table(blobs, forged)
    _, short = _one_object(blobs, [4])
    with pytest.raises(Corrupt, match="holds 1 rows of Int64, not 3 of i64"):
        open_table(blobs, _with_object(blobs, table, short))


def test_what_is_not_a_manifest_or_an_index_is_refused(blobs: LocalBlobs) -> None:
    table, place = _one_object(blobs)

    with pytest.raises(Corrupt, match=r"the index .* cannot be read"):
        read_table(blobs, place)
    with pytest.raises(Corrupt, match=r"the manifest .* cannot be read"):
        read_manifest(blobs, place)
    newer = blobs.put(table.manifest.encode().replace(b"andon.table/1", b"andon.table/9"))
    with pytest.raises(Corrupt, match=r"has the format 'andon.table/9', this Andon reads 'andon.table/1'"):
        read_manifest(blobs, newer)
    assert read_manifest(blobs, table.id) == table.manifest
    assert read_table(blobs, table.objects).index == table.index


def test_a_lost_object_is_written_again_by_the_next_commit(blobs: LocalBlobs) -> None:
    table, place = _one_object(blobs)
    blobs.remove(place)

    again = commit_table(pl.DataFrame({"a": [4, 5, 6]}), blobs, parent=table)

    assert again.id == table.id
    assert open_table(blobs, again.objects)["a"].to_list() == [4, 5, 6]


def _one_object(blobs: LocalBlobs, values: list[int] | None = None) -> tuple[Table, Digest]:
    table = commit_table(pl.DataFrame({"a": values or [4, 5, 6]}), blobs)
    return table, next(iter(table.index.objects.values())).object


def _with_object(blobs: LocalBlobs, table: Table, name: Digest) -> Digest:
    """The index of a table, bent to lead to another object."""
    true = next(iter(table.index.objects.values())).object
    return blobs.put(table.index.encode().replace(true.encode(), name.encode()))


def _later(rows: int) -> pl.DataFrame:
    return customers(rows, seed=9).with_columns(pl.col("id") + 10**6, pl.col("day") + timedelta(days=400))


def _values_written(old: Table, new: Table) -> int:
    """Bytes of objects that only the new version has."""
    there = {place.object for place in old.index.objects.values()}
    return sum(p.stored for p in new.index.objects.values() if p.object not in there)
