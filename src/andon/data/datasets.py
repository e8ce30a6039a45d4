"""Dataset versions as rows: which content a dataset had, in which order, and what its contract said of it.

The row's id is `DATASET@NUMBER`, numbers count from 1; its lineage node is `dataset_version:` and the manifest's digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import polars as pl

from andon.core.canonical import Digest
from andon.core.entities import DatasetVersion
from andon.core.errors import NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, Node, check_name, node
from andon.core.states import DatasetState
from andon.data.sources import redact
from andon.data.versions import TARGET, Table, commit_table, open_table, read_table
from andon.store.ports import Blobs, Reader, Store, Transaction


def commit_dataset(
    store: Store,
    blobs: Blobs,
    *,
    dataset: str,
    frame: pl.DataFrame,
    source_text: str,
    key: Sequence[str],
    contract: Digest | None,
    report: Digest | None,
    state: DatasetState,
    actor: ActorId,
    at: datetime,
    data_until: datetime | None = None,
    target: int = TARGET,
) -> DatasetVersion:
    """Store a frame and record it: blobs first, then the row and its event `dataset.committed` or `dataset.blocked`.

    The same content again is the same row, without an event; unless the contract or its judgement is another now, or the
    values had been erased or lost: then the row is changed and an event says so. Secrets in `source_text` are not stored.

    Raises:
        Invalid: a bad name, or what `commit_table` refuses.
        AlreadyExists, Conflict: somebody else committed to the dataset at this moment; trying again is safe.
        StorageFull: nothing is recorded.
    """
    check_name("dataset", dataset)
    before = store.read(lambda reader: latest_version(reader, dataset))
    parent = _parent(blobs, before)
    table = commit_table(frame, blobs, key=key, parent=parent, target=target)
    whole = _whole(blobs, store.read(lambda reader: _of_content(reader, dataset, table.id)))

    def record(tx: Transaction) -> DatasetVersion:
        there = _of_content(tx, dataset, table.id)
        if there is None:
            newest = latest_version(tx, dataset)
            row = _row(
                table, dataset, newest, redact(source_text), contract, report, state, actor, at, data_until
            )
            row = tx.dataset_versions.add(row)
        elif whole and (there.contract, there.state) == (contract, state):
            return there
        else:
            objects = there.objects if whole else table.objects
            row = msgspec.structs.replace(
                there, contract=contract, report=report, state=state, objects=objects
            )
            row = tx.dataset_versions.change(row)
        tx.ledger.append(_event(row, actor, at))
        return row

    return store.write(record)


def latest_version(reader: Reader, dataset: str) -> DatasetVersion | None:
    """The newest version of a dataset by number, or None."""
    found = reader.dataset_versions.select({"dataset": dataset}, order=("-number",), limit=1)
    return found[0] if found else None


def open_version(
    blobs: Blobs, version: DatasetVersion, *, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """The rows of a recorded version, of all columns or those named.

    Raises:
        NotFound: its values were erased, an object is gone, or a column is not in it.
        Corrupt: as `open_table`.
    """
    return open_table(blobs, _objects(version), columns=columns)


def read_version(blobs: Blobs, version: DatasetVersion) -> Table:
    """The manifest and index of a recorded version; raises what `read_table` raises, and NotFound when it was erased."""
    return read_table(blobs, _objects(version))


def version_node(version: DatasetVersion) -> Node:
    """The lineage node of a dataset version."""
    return node("dataset_version", version.manifest)


def _objects(version: DatasetVersion) -> Digest:
    if version.objects is None:
        raise NotFound(
            f"the values of dataset version {version.id} were erased",
            hint="only its identity is kept; read the source again",
        )
    return version.objects


def _parent(blobs: Blobs, version: DatasetVersion | None) -> Table | None:
    """What the newest version has stored: only used to write less, so a lost index is no fault here."""
    if version is None or version.objects is None or not blobs.has(version.objects):
        return None
    return read_table(blobs, version.objects)


def _of_content(reader: Reader, dataset: str, manifest: Digest) -> DatasetVersion | None:
    found = reader.dataset_versions.select({"dataset": dataset, "manifest": manifest}, limit=1)
    return found[0] if found else None


def _whole(blobs: Blobs, version: DatasetVersion | None) -> bool:
    """Whether everything that a version needs is stored (its content is not read)."""
    if (
        version is None
        or version.objects is None
        or not blobs.has(version.objects)
        or not blobs.has(version.manifest)
    ):
        return False
    return all(blobs.has(digest) for digest in read_table(blobs, version.objects).blobs())


def _row(
    table: Table,
    dataset: str,
    newest: DatasetVersion | None,
    source: str,
    contract: Digest | None,
    report: Digest | None,
    state: DatasetState,
    actor: ActorId,
    at: datetime,
    data_until: datetime | None,
) -> DatasetVersion:
    number = newest.number + 1 if newest else 1
    return DatasetVersion(
        id=f"{dataset}@{number}", dataset=dataset, number=number, manifest=table.id, state=state, rows=table.manifest.rows,
        columns=len(table.manifest.schema), size_bytes=table.size_bytes, stored_bytes=table.written, source=source,
        contract=contract, report=report, actor=actor, created_at=at, data_until=data_until,
        parent=newest.manifest if newest else None, objects=table.objects,
    )  # fmt: skip


def _event(row: DatasetVersion, actor: ActorId, at: datetime) -> EventDraft:
    inputs = [node("contract", row.contract)] if row.contract else []
    if row.parent:
        inputs.append(node("dataset_version", row.parent))
    return EventDraft(
        kind="dataset.committed" if row.state == "valid" else "dataset.blocked",
        actor=actor,
        subject=version_node(row),
        at=at,
        inputs=tuple(inputs),
        facts={"dataset": row.dataset, "number": row.number, "rows": row.rows, "report": row.report},
        data_at=row.data_until,
    )
