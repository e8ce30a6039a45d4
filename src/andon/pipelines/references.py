"""Which stored bytes are needed: for each noun what its rows name, and what is named by what those name.

Whatever has a digest of a blob must be told here, or its bytes go away: a test finds a field of an entity that is not.
What events name is needed too, such as the evidence of each step of a rollout, but for events of what can be removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from andon.core.canonical import Digest, hex_part
from andon.core.entities import (
    Alert,
    Approval,
    Artifact,
    DatasetVersion,
    Entity,
    Line,
    ModelVersion,
    Release,
    Rollout,
    Run,
    Segment,
    Verdict,
)
from andon.core.errors import Corrupt, NotFound
from andon.core.events import KINDS, Event
from andon.store.ports import Blobs, Collection, Reader, Store

_PAGE = 1000
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})")
_TREE = b'{"files":{'
_LARGEST_TREE = 32 * 2**20


class Need(NamedTuple):
    """A blob that a row needs. A manifest is text that names blobs, which are needed as well."""

    digest: Digest
    manifest: bool = False


def of_line(row: Line) -> Iterator[Need]:
    """The policy and code that the next run uses."""
    yield Need(row.policy)
    yield Need(row.code, manifest=True)


def of_dataset_version(row: DatasetVersion) -> Iterator[Need]:
    """The manifest, the index of what holds the values now, and what was said of them."""
    yield Need(row.manifest)
    for digest in (row.contract, row.report, row.parent):
        if digest is not None:
            yield Need(digest)
    if row.objects is not None:
        yield Need(row.objects, manifest=True)


def of_run(row: Run) -> Iterator[Need]:
    """What it was made with."""
    for digest in (row.policy, row.dataset_version):
        if digest is not None:
            yield Need(digest)
    for digest in (row.code, row.environment):
        if digest is not None:
            yield Need(digest, manifest=True)


def of_artifact(row: Artifact) -> Iterator[Need]:
    """A client's file. What is written in it is the client's, and names nothing."""
    yield Need(row.digest)


def of_model_version(row: ModelVersion) -> Iterator[Need]:
    """Its package or tree with all files, if they are held, and what it was trained on."""
    if row.held:
        yield Need(row.digest, manifest=True)
    for digest in (row.dataset_version, row.profile):
        if digest is not None:
            yield Need(digest)


def of_verdict(row: Verdict) -> Iterator[Need]:
    """What was judged, by which policy, and every number behind it."""
    yield from (Need(row.version_digest), Need(row.policy), Need(row.evidence))


def of_approval(row: Approval) -> Iterator[Need]:
    """What was approved, under which policy."""
    yield from (Need(row.version_digest), Need(row.policy))


def of_release(row: Release) -> Iterator[Need]:
    """What was released, under which policy."""
    yield from (Need(row.version_digest), Need(row.policy))


def of_rollout(row: Rollout) -> Iterator[Need]:
    """The evidence of its last step."""
    if row.evidence is not None:
        yield Need(row.evidence)


def of_alert(row: Alert) -> Iterator[Need]:
    """What a monitor saw."""
    yield Need(row.evidence)


def of_segment(row: Segment) -> Iterator[Need]:
    """Sealed predictions."""
    yield Need(row.digest)


NEEDS: Mapping[type[Entity], tuple[Callable[[Reader], Collection[Any]], Callable[[Any], Iterator[Need]]]] = {
    Artifact: (lambda reader: reader.artifacts, of_artifact),
    Line: (lambda reader: reader.lines, of_line),
    DatasetVersion: (lambda reader: reader.dataset_versions, of_dataset_version),
    Run: (lambda reader: reader.runs, of_run),
    ModelVersion: (lambda reader: reader.model_versions, of_model_version),
    Verdict: (lambda reader: reader.verdicts, of_verdict),
    Approval: (lambda reader: reader.approvals, of_approval),
    Release: (lambda reader: reader.releases, of_release),
    Rollout: (lambda reader: reader.rollouts, of_rollout),
    Alert: (lambda reader: reader.alerts, of_alert),
    Segment: (lambda reader: reader.segments, of_segment),
}
"""Each noun with its rows and what they need, in the order in which they are read: artifacts before the versions that are
registered from them, so that bytes which come under a version just now are seen in one of the two places."""

NO_BLOBS: Mapping[tuple[type[Entity], str], str] = {
    (Run, "seal"): "is over values in the database, and the bytes that were hashed are not kept",
}
"""Digests that name no bytes, and why."""


_REMOVABLE = (
    "experiment.",
    "run.",
    "logged_model.",
    "artifacts.",
    "model.",
    "model_version.",
    "alias.",
    "stage.",
)
_TOLD = tuple(kind for kind in KINDS if not kind.startswith(_REMOVABLE))


def needed(store: Store, blobs: Blobs, skip: Callable[[Entity], bool] = lambda _: False) -> set[bytes]:
    """The digests, 32 bytes each, of all blobs that are needed; about 100 MB of memory for a million of them.

    Args:
        store, blobs: the workspace; others may write meanwhile.
        skip: rows that count as gone.

    Raises:
        NotFound: a manifest is not stored, so what it names is not known.
        Corrupt: a manifest does not match its digest.
    """
    found: set[bytes] = set()
    read: set[bytes] = set()
    for rows, needs in NEEDS.values():
        for row in _rows(store, rows):
            for need in () if skip(row) else needs(row):
                key = bytes.fromhex(hex_part(need.digest))
                found.add(key)
                if need.manifest and key not in read:
                    read.add(key)
                    found.update(_named(blobs, need.digest, row))
    for event in _events(store):
        found.update(_digests(msgspec.json.encode([event.facts, event.inputs, event.outputs])))
    return found


def tree_leaves(blobs: Blobs, digest: Digest) -> set[bytes]:
    """What a blob names if it is the tree of a folder; nothing if it is anything else."""
    try:
        if blobs.size(digest) > _LARGEST_TREE:
            return set()
        data = blobs.get(digest)
    except (NotFound, Corrupt):
        return set()
    return _digests(data) if data.startswith(_TREE) else set()


def _rows(store: Store, rows: Callable[[Reader], Collection[Any]]) -> Iterator[Entity]:
    last: Entity | None = None

    def look(reader: Reader) -> list[Any]:
        return rows(reader).select(after=last, limit=_PAGE)

    while page := store.read(look):
        yield from page
        last = page[-1]


def _events(store: Store) -> Iterator[Event]:
    seq = 0

    def look(reader: Reader) -> list[Event]:
        return reader.ledger.after(seq, limit=_PAGE, kinds=_TOLD)

    while page := store.read(look):
        yield from page
        seq = page[-1].seq


def _named(blobs: Blobs, digest: Digest, row: Entity) -> set[bytes]:
    try:
        return _digests(blobs.get(digest))
    except NotFound:
        raise NotFound(
            f"the manifest {digest} of {type(row).__name__} {row.id} is not stored, so nobody knows which files it needs",
            hint="restore it from a backup; until then nothing is removed",
        ) from None


def _digests(data: bytes) -> set[bytes]:
    return {bytes.fromhex(found.decode()) for found in _DIGEST.findall(data)}
