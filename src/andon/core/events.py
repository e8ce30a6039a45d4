"""The ledger's event: one line of what happened, for audit, triggers, live pages and lineage alike.

The canonical bytes are version 1 and fixed for ever: canonical JSON of exactly the fields below, hashed with the domain
`andon.event/1`. Events hold ids, digests, small words, integers and booleans; names, comments and other free text stay in
an erasable side table and appear here only as a salted hash (`note`).

Edges of the lineage graph follow from the event alone and mean "was needed for": actor > subject, each input > subject,
subject > each output.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from andon.core.canonical import Digest, canonical, digest_value
from andon.core.clock import to_us
from andon.core.errors import Invalid, LedgerBroken
from andon.core.ids import ActorId, Node

VERSION = 1
_DOMAIN = "andon.event/1"
_KIND = re.compile(r"[a-z_]+\.[a-z_]+\Z")
Fact = str | int | bool | None

KINDS: Mapping[str, str] = {
    "workspace.created": "the workspace was made",
    "workspace.restored": "the workspace was restored from a backup; a new epoch began",
    "workspace.migrated": "the database schema was brought to a newer version",
    "actor.created": "a person, service or line was first seen",
    "line.changed": "a line's policy or code became what the next run uses",
    "dataset.committed": "a dataset version was stored and passed its contract",
    "dataset.blocked": "a dataset version was stored and broke its contract",
    "contract.inferred": "a contract was inferred from the first data seen",
    "experiment.created": "an experiment was made",
    "experiment.changed": "an experiment was renamed",
    "experiment.deleted": "an experiment was deleted; it can be restored until its rows are removed",
    "experiment.restored": "a deleted experiment came back",
    "run.created": "a run was queued, or a client began one",
    "run.started": "a worker took the run up",
    "run.requeued": "the run's worker was lost; the run waits for another",
    "run.sealed": "the run ended; params, metrics, inputs and outputs have a digest",
    "run.deleted": "a run was deleted; it can be restored until its rows are removed",
    "run.restored": "a deleted run came back",
    "logged_model.created": "a client began to save a model",
    "logged_model.deleted": "a saved model was deleted",
    "artifacts.deleted": "artifacts were deleted",
    "model.created": "a model got its first version, or was registered without one",
    "model.changed": "a model was renamed, or its description changed",
    "model.deleted": "a model was deleted with its versions",
    "model_version.registered": "a model became a version",
    "model_version.eligible": "a version passed its gates",
    "model_version.rejected": "a version failed its gates",
    "model_version.approved": "a version has the approvals its policy asks for",
    "model_version.retired": "a version may no longer be released",
    "model_version.deleted": "a version was deleted",
    "alias.moved": "an alias of a model points at another version",
    "alias.deleted": "an alias of a model is gone",
    "stage.moved": "a version was put into another stage",
    "verdict.given": "gates judged a version",
    "approval.given": "a person approved a release",
    "release.requested": "a version was asked to go live on an endpoint",
    "release.judging": "a release's gates are being judged",
    "release.waiting": "a release waits for approval",
    "release.rolling": "a release may take traffic",
    "release.live": "a release became the endpoint's stable one",
    "release.superseded": "a newer release took the endpoint over",
    "release.undone": "a release was undone",
    "release.refused": "gates or policy refused a release",
    "release.withdrawn": "a release was withdrawn before it went live",
    "rollout.advanced": "a rollout moved to its next step",
    "rollout.paused": "a rollout was paused",
    "rollout.resumed": "a rollout goes on",
    "rollout.full": "a rollout gave its release all traffic",
    "rollout.undone": "a rollout sent all traffic back",
    "route.changed": "an endpoint's route has a new generation",
    "route.held": "an endpoint does not move forward until a person releases",
    "override.adopted": "an undo made at a gateway was taken into the ledger",
    "segment.sealed": "a stretch of the prediction log was sealed as a blob",
    "alert.opened": "a monitor or contract raised an alert",
    "alert.closed": "an alert was closed",
    "trigger.fired": "something asked for a run",
    "trigger.refused": "a trigger started nothing, for the reason given",
    "access.denied": "somebody tried what they may not do",
    "backup.made": "a backup was made",
    "retention.applied": "what was deleted long enough ago was removed for good",
}
"""Every kind of event and what it says; listed in docs/reference/events.md by a test."""


class EventDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller says happened; sequence, predecessor and hash are given when its transaction commits."""

    kind: str
    actor: ActorId
    subject: Node
    at: datetime
    inputs: tuple[Node, ...] = ()
    outputs: tuple[Node, ...] = ()
    facts: Mapping[str, Fact] = {}
    data_at: datetime | None = None
    note: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A link of the chain. `seq` counts from 1 without gaps; `prev` is the hash of event seq - 1."""

    seq: int
    epoch: int
    prev: Digest
    hash: Digest
    kind: str
    actor: ActorId
    subject: Node
    at: datetime
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    facts: Mapping[str, Fact]
    data_at: datetime | None
    note: str | None
    v: int = VERSION


class Edge(msgspec.Struct, frozen=True, order=True):
    """`src` was needed for `dst`; said by event `seq`."""

    src: Node
    dst: Node
    seq: int


GENESIS = digest_value(_DOMAIN, "genesis")
"""What the first event names as its predecessor."""


def check_draft(draft: EventDraft) -> EventDraft:
    """Refuse a draft that could not be written for ever.

    Raises:
        Invalid: an unknown kind or a fact that is not a word, integer, boolean or null.
    """
    if draft.kind not in KINDS or not _KIND.match(draft.kind):
        raise Invalid(
            f"{draft.kind!r} is not a kind of event", hint="kinds are listed in andon.core.events.KINDS"
        )
    canonical(dict(draft.facts))
    return draft


def seal_event(draft: EventDraft, *, seq: int, epoch: int, prev: Digest, note: str | None) -> Event:
    """The event of a draft in its place of the chain. `note` is the salted hash of the draft's text, if it had one."""
    event = Event(
        seq=seq, epoch=epoch, prev=prev, hash=Digest(""), kind=draft.kind, actor=draft.actor, subject=draft.subject,
        at=draft.at, inputs=draft.inputs, outputs=draft.outputs, facts=dict(draft.facts), data_at=draft.data_at, note=note,
    )  # fmt: skip
    return msgspec.structs.replace(event, hash=event_hash(event))


def event_value(event: Event) -> dict[str, object]:
    """The fields that are hashed, as canonical JSON takes them; times are integer microseconds since 1970."""
    return {
        "v": event.v, "seq": event.seq, "epoch": event.epoch, "prev": event.prev, "kind": event.kind,
        "actor": event.actor, "subject": event.subject, "at_us": to_us(event.at),
        "data_at_us": None if event.data_at is None else to_us(event.data_at),
        "inputs": list(event.inputs), "outputs": list(event.outputs), "facts": dict(event.facts), "note": event.note,
    }  # fmt: skip


def event_hash(event: Event) -> Digest:
    """The hash of an event's canonical bytes: the next event's `prev`, and a leaf of a Merkle tree."""
    return digest_value(_DOMAIN, event_value(event))


def note_hash(salt: str, text: str) -> str:
    """The salted hash that stands for free text in an event.

    >>> note_hash("s", "hello") == note_hash("t", "hello")
    False
    """
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()


def edges(event: Event) -> list[Edge]:
    """The lineage edges that an event says."""
    pairs = [(Node(f"actor:{event.actor}"), event.subject)]
    pairs += [(source, event.subject) for source in event.inputs]
    pairs += [(event.subject, target) for target in event.outputs]
    return [Edge(src, dst, event.seq) for src, dst in dict.fromkeys(pairs) if src != dst]


def verify_chain(events: Iterable[Event], *, seq: int = 0, prev: Digest = GENESIS) -> tuple[int, Digest]:
    """Check events in order after (`seq`, `prev`); the last sequence number and hash come back.

    Raises:
        LedgerBroken: an event was changed, dropped, reordered or inserted; the message says at which place.
    """
    for event in events:
        if event.seq != seq + 1:
            raise LedgerBroken(f"the ledger is broken at event {seq + 1}: it holds event {event.seq} there")
        if event.prev != prev:
            raise LedgerBroken(f"the ledger is broken at event {event.seq}: it does not follow event {seq}")
        if event_hash(event) != event.hash:
            raise LedgerBroken(f"the ledger is broken at event {event.seq}: its bytes were changed")
        seq, prev = event.seq, event.hash
    return seq, prev
