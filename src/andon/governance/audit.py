"""Whether the record of what happened is whole: every event in its place, and everything that follows from the events."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from andon.core.canonical import Digest
from andon.core.errors import LedgerBroken
from andon.core.events import GENESIS, Edge, Event, edges, note_hash, verify_chain
from andon.core.ids import Node, split_node
from andon.store.ports import Reader, Store

PAGE = 1000


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked and found whole.

    Attributes:
        events: events in the chain, from the first to `head`.
        head: the hash of the newest event checked; kept elsewhere, it proves later that nothing before it changed.
        edges: lineage edges, each said by an event, and none missing.
        segments: sealed stretches of the prediction log whose rows have the digest that the ledger names.
        notes: texts that are still what the events' salted hashes say; erased ones do not count.
        ok: true; what is not whole raises.
    """

    events: int
    head: Digest
    edges: int
    segments: int
    notes: int
    ok: bool = True


def verify(store: Store) -> AuditReport:
    """Check the whole ledger, in pages, while others may write.

    Memory: about 250 bytes for each edge.

    Raises:
        LedgerBroken: something was changed, dropped, reordered or inserted; the message names the event or edge.
    """
    said: dict[tuple[Node, Node], int] = {}
    seq, head, segments, notes = 0, GENESIS, 0, 0
    while True:
        page, kept, newest = store.read(lambda reader, seq=seq: _page(reader, seq))  # type: ignore[misc]
        seq, head = verify_chain(page, seq=seq, prev=head)
        for event in page:
            for edge in edges(event):
                said.setdefault((edge.src, edge.dst), edge.seq)
        segments += _check_segments(page, kept)
        notes += _check_notes(page, kept)
        if not page:
            break
    if (seq, head) != newest:
        raise LedgerBroken(
            f"the ledger is broken after event {seq}: events up to {newest[0]} were written and are gone"
        )
    return AuditReport(
        events=seq, head=head, edges=_check_edges(store, said, seq), segments=segments, notes=notes
    )


class _Kept(msgspec.Struct, frozen=True):
    """What rows keep of a page of events: segments' digests and notes' (salt, text), by id."""

    segments: dict[str, Digest]
    notes: dict[str, tuple[str, str]]


def _page(reader: Reader, seq: int) -> tuple[list[Event], _Kept, tuple[int, Digest]]:
    page = reader.ledger.after(seq, limit=PAGE)
    sealed = [split_node(event.subject)[1] for event in page if event.kind == "segment.sealed"]
    noted = [_note_id(event) for event in page if event.note is not None]
    segments = reader.segments.select({"id": sealed}, limit=PAGE) if sealed else []
    notes = reader.personal.select({"id": noted}, limit=PAGE) if noted else []
    kept = _Kept({row.id: row.digest for row in segments}, {row.id: (row.salt, row.text) for row in notes})
    return page, kept, reader.ledger.head()


def _check_segments(page: Sequence[Event], kept: _Kept) -> int:
    sealed = [event for event in page if event.kind == "segment.sealed"]
    for event in sealed:
        ident = split_node(event.subject)[1]
        if kept.segments.get(ident) != event.facts.get("digest"):
            what = "is gone" if ident not in kept.segments else "has another digest"
            raise LedgerBroken(
                f"the ledger is broken at event {event.seq}: the row of segment {ident} {what}"
            )
    return len(sealed)


def _check_notes(page: Sequence[Event], kept: _Kept) -> int:
    """Texts that are there must be the ones that were written; one that was erased proves nothing and breaks nothing."""
    count = 0
    for event in page:
        salt, text = kept.notes.get(_note_id(event), ("", ""))
        if event.note is None or not text:
            continue
        if note_hash(salt, text) != event.note:
            raise LedgerBroken(f"the ledger is broken at event {event.seq}: the text of its note was changed")
        count += 1
    return count


def _check_edges(store: Store, said: dict[tuple[Node, Node], int], seq: int) -> int:
    """Each edge up to an event is one that was said, by the event that said it first, and none is missing."""
    count = len(said)
    after: Edge | None = None
    while True:
        page = store.read(lambda reader, after=after: reader.ledger.edges(after=after, limit=PAGE))  # type: ignore[misc]
        for edge in page:
            if edge.seq <= seq and said.pop((edge.src, edge.dst), None) != edge.seq:
                raise LedgerBroken(f"the edge {edge.src} > {edge.dst} of event {edge.seq} was not said by it")
        if len(page) < PAGE:
            break
        after = page[-1]
    if said:
        (src, dst), first = min(said.items(), key=lambda item: item[1])
        raise LedgerBroken(f"the edge {src} > {dst} of event {first} is gone ({len(said)} are missing)")
    return count


def _note_id(event: Event) -> str:
    return f"event:{event.seq}"
