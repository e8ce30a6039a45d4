"""Dataset versions as rows: one for each content, with its event, and nothing recorded that is not stored."""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from andon.core.canonical import Digest, digest_bytes
from andon.core.entities import DatasetVersion
from andon.core.errors import Invalid, NotFound, StorageFull
from andon.core.events import Event
from andon.core.ids import ActorId
from andon.data.datasets import commit_dataset, latest_version, open_version, read_version, version_node
from andon.data.versions import Table
from andon.store.blobs import LocalBlobs
from andon.store.ports import Store
from tests.data.tables import customers

AT = datetime(2024, 6, 1, tzinfo=UTC)
CONTRACT = digest_bytes(b"contract")
Commit = Callable[..., DatasetVersion]


@pytest.fixture
def commit(store: Store, blobs: LocalBlobs, actor: ActorId) -> Commit:
    """`commit_dataset` with most of its arguments given."""

    def act(frame: pl.DataFrame, **other: object) -> DatasetVersion:
        given = {
            "dataset": "customers", "source_text": "customers.csv", "key": ("id",), "contract": CONTRACT,
            "report": digest_bytes(b"report"), "state": "valid", "actor": actor, "at": AT, "data_until": AT,
        } | other  # fmt: skip
        return commit_dataset(store, blobs, frame=frame, **given)  # type: ignore[arg-type]  # a table of arguments

    return act


def events(store: Store) -> list[Event]:
    """What was said of datasets."""
    return store.read(lambda view: view.ledger.after(0, kinds=["dataset.committed", "dataset.blocked"]))


def test_the_first_version_is_recorded_with_what_it_was_made_of(
    store: Store, blobs: LocalBlobs, commit: Commit
) -> None:
    frame = customers(100)

    version = commit(frame, source_text="postgresql://ann:secret@db/crm")

    assert (version.id, version.number, version.rows, version.columns) == ("customers@1", 1, 100, 6)
    assert version.source == "postgresql://***@db/crm"
    assert version.stored_bytes > 0
    assert version.size_bytes > 100 * 8 * 4
    assert store.read(lambda view: latest_version(view, "customers")) == version
    assert_frame_equal(open_version(blobs, version), frame)
    [event] = events(store)
    assert (event.kind, event.subject, event.inputs) == (
        "dataset.committed",
        version_node(version),
        (f"contract:{CONTRACT}",),
    )
    assert event.facts == {"dataset": "customers", "number": 1, "rows": 100, "report": version.report}
    assert event.data_at == AT


def test_the_next_version_names_the_one_before(store: Store, commit: Commit) -> None:
    first = commit(customers(100))

    second = commit(customers(120), at=AT + timedelta(days=1))

    assert (second.id, second.parent) == ("customers@2", first.manifest)
    assert events(store)[1].inputs == (f"contract:{CONTRACT}", version_node(first))


def test_the_same_content_again_is_the_same_row_and_no_event(store: Store, commit: Commit) -> None:
    first = commit(customers(100))
    commit(customers(120))

    again = commit(customers(100).reverse(), at=AT + timedelta(days=1))

    assert again == first
    assert len(events(store)) == 2


def test_the_same_content_in_another_dataset_is_another_row(store: Store, commit: Commit) -> None:
    first, second = commit(customers(100)), commit(customers(100), dataset="clients")

    assert (second.id, second.manifest) == ("clients@1", first.manifest)


def test_rows_that_break_the_contract_are_kept_and_said_to_be_blocked(
    store: Store, blobs: LocalBlobs, commit: Commit
) -> None:
    version = commit(customers(100), state="blocked")

    assert version.state == "blocked"
    assert [event.kind for event in events(store)] == ["dataset.blocked"]
    assert open_version(blobs, version, columns=["id"]).height == 100


def test_a_new_contract_judges_the_same_content_anew(store: Store, commit: Commit) -> None:
    blocked = commit(customers(100), state="blocked")
    other = digest_bytes(b"a contract that a person loosened")

    valid = commit(customers(100), contract=other)

    assert valid == msgspec.structs.replace(blocked, state="valid", contract=other, rev=1)
    assert [(event.kind, event.inputs) for event in events(store)][1] == (
        "dataset.committed",
        (f"contract:{other}",),
    )


def test_erased_values_leave_the_identity_and_can_be_stored_again(
    store: Store, blobs: LocalBlobs, commit: Commit
) -> None:
    version = commit(customers(100))
    table = read_version(blobs, version)
    erase(store, blobs, version, table)

    erased = store.read(lambda view: view.dataset_versions.get(version.id))
    with pytest.raises(
        NotFound, match="the values of dataset version customers@1 were erased; only its identity is kept"
    ):
        open_version(blobs, erased)
    again = commit(customers(100))

    assert (again.id, again.manifest, again.objects) == (version.id, version.manifest, version.objects)
    assert_frame_equal(open_version(blobs, again), customers(100))
    assert len(events(store)) == 2


def test_a_lost_object_is_stored_again_with_the_content(blobs: LocalBlobs, commit: Commit) -> None:
    version = commit(customers(100))
    place = next(iter(read_version(blobs, version).index.objects.values()))
    blobs.remove(place.object)

    again = commit(customers(100))

    assert again.id == version.id
    assert open_version(blobs, again).height == 100


def test_an_edited_version_writes_little(commit: Commit) -> None:
    frame = customers(20_000)
    first = commit(frame, target=512)
    edited = frame.with_columns(pl.when(pl.col("id") == 5).then(0).otherwise("age").alias("age"))

    second = commit(edited, target=512)

    assert second.stored_bytes < 0.2 * first.stored_bytes


def test_a_name_that_cannot_be_a_path_or_id_is_refused_before_anything_is_stored(
    blobs: LocalBlobs, commit: Commit
) -> None:
    with pytest.raises(Invalid, match=r"'../x' cannot name a dataset"):
        commit(customers(10), dataset="../x")

    assert list(blobs.digests()) == []


class FullBlobs(LocalBlobs):
    """A disk that is full after some objects."""

    room = 3

    def put(self, data: object) -> Digest:
        if self.room == 0:
            raise StorageFull("the disk is full") from OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        return super().put(data)  # type: ignore[arg-type]  # bytes, as this room gives them


def test_a_full_disk_records_nothing(store: Store, tmp_path: Path, actor: ActorId) -> None:
    with pytest.raises(StorageFull):
        commit_dataset(
            store, FullBlobs(tmp_path / "full"), dataset="customers", frame=customers(100), source_text="x", key=(),
            contract=None, report=None, state="valid", actor=actor, at=AT,
        )  # fmt: skip

    assert store.read(lambda view: view.dataset_versions.count()) == 0
    assert events(store) == []


def erase(store: Store, blobs: LocalBlobs, version: DatasetVersion, table: Table) -> None:
    """What a deletion of personal data does: the row forgets its index, then the objects go."""
    store.write(lambda tx: tx.dataset_versions.change(msgspec.structs.replace(version, objects=None)))
    for digest in table.blobs() - {table.id}:
        blobs.remove(digest)
