"""Events: canonical bytes for ever, the chain, and the edges that follow from an event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.canonical import Digest, canonical
from andon.core.errors import Invalid, LedgerBroken
from andon.core.events import (
    GENESIS,
    KINDS,
    Edge,
    Event,
    EventDraft,
    check_draft,
    edges,
    event_hash,
    event_value,
    note_hash,
    seal_event,
    verify_chain,
)
from andon.core.ids import ActorId, Node

AT = datetime(2013, 4, 1, 12, 0, 0, 123456, tzinfo=UTC)
DRAFT = EventDraft(
    kind="release.live",
    actor=ActorId("act_018bcfe5680070008000000000000001"),
    subject=Node("release:rel_018bcfe5680070008000000000000002"),
    at=AT,
    inputs=(
        Node("model_version:mv_018bcfe5680070008000000000000003"),
        Node("verdict:vd_018bcfe5680070008000000000000004"),
    ),
    outputs=(Node("endpoint:flüge"),),
    facts={"number": 3, "first": True, "previous": None, "strategy": "canary"},
    data_at=datetime(2013, 3, 31, tzinfo=UTC),
    note="free text",
)


def chain(length: int) -> list[Event]:
    events: list[Event] = []
    prev = GENESIS
    for seq in range(1, length + 1):
        draft = msgspec.structs.replace(DRAFT, at=AT + timedelta(seconds=seq))
        events.append(seal_event(draft, seq=seq, epoch=1, prev=prev, note=None))
        prev = events[-1].hash
    return events


@pytest.mark.capability("E4", "M5")
def test_the_bytes_of_an_event_never_change() -> None:
    """A ledger written by any release is read by every later one: if this fails, the change is wrong, not the test."""
    event = seal_event(DRAFT, seq=7, epoch=1, prev=GENESIS, note=note_hash("salt", "x"))

    assert canonical(event_value(event)).decode() == (
        '{"actor":"act_018bcfe5680070008000000000000001","at_us":1364817600123456,"data_at_us":1364688000000000,"epoch":1,'
        '"facts":{"first":true,"number":3,"previous":null,"strategy":"canary"},'
        '"inputs":["model_version:mv_018bcfe5680070008000000000000003","verdict:vd_018bcfe5680070008000000000000004"],'
        '"kind":"release.live","note":"555eb18440ae9c41f5d150d5628fa2b28bbdd8c479600188ebc68db666b0195f",'
        '"outputs":["endpoint:flüge"],"prev":"sha256:8d43d93f632b310fca2ec0105eefd8922d124a75c37cd0c53240c84cc304a6f3",'
        '"seq":7,"subject":"release:rel_018bcfe5680070008000000000000002","v":1}'
    )
    assert event.hash == "sha256:4be1e00aecbe36a4bebf5a80713502d69d591fdcabfdfcd6ea0a84dcf69e44ab"
    assert GENESIS == "sha256:8d43d93f632b310fca2ec0105eefd8922d124a75c37cd0c53240c84cc304a6f3"


def test_free_text_is_not_part_of_an_event() -> None:
    event = seal_event(DRAFT, seq=1, epoch=1, prev=GENESIS, note=note_hash("s", "free text"))

    assert "free text" not in canonical(event_value(event)).decode()
    assert note_hash("s", "free text") == note_hash("s", "free text") != note_hash("t", "free text")


CHANGES: list[dict[str, Any]] = [
    {"seq": 8}, {"epoch": 2}, {"prev": Digest("sha256:" + "0" * 64)}, {"kind": "release.undone"}, {"actor": ActorId("act_2")},
    {"subject": Node("release:other")}, {"at": AT + timedelta(microseconds=1)}, {"inputs": ()}, {"outputs": ()},
    {"facts": {**DRAFT.facts, "number": 4}}, {"data_at": None}, {"note": "0"}, {"v": 2},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_field_is_part_of_the_hash(change: dict[str, Any]) -> None:
    event = seal_event(DRAFT, seq=7, epoch=1, prev=GENESIS, note=None)

    assert event_hash(msgspec.structs.replace(event, **change)) != event.hash


def test_no_field_of_an_event_is_left_out_of_its_hash() -> None:
    assert {next(iter(change)) for change in CHANGES} | {"hash"} == set(Event.__struct_fields__)


def test_a_whole_chain_verifies_from_any_place() -> None:
    events = chain(5)

    assert verify_chain(events) == (5, events[-1].hash)
    assert verify_chain(events[2:], seq=2, prev=events[1].hash) == (5, events[-1].hash)
    assert verify_chain([]) == (0, GENESIS)


@given(st.integers(0, 4), st.sampled_from(["changed", "dropped", "swapped", "doubled", "rehashed"]))
def test_a_chain_that_was_tampered_with_does_not_verify(place: int, how: str) -> None:
    events = chain(6)
    forged = msgspec.structs.replace(events[place], subject=Node("release:forged"))
    if how == "changed":
        events[place] = forged
    elif how == "rehashed":
        events[place] = msgspec.structs.replace(forged, hash=event_hash(forged))
    elif how == "dropped":
        del events[place]
    elif how == "swapped":
        events[place], events[place + 1] = events[place + 1], events[place]
    else:
        events.insert(place, events[place])

    with pytest.raises(LedgerBroken, match="the ledger is broken at event"):
        verify_chain(events)


def test_edges_mean_was_needed_for() -> None:
    event = seal_event(DRAFT, seq=7, epoch=1, prev=GENESIS, note=None)

    assert edges(event) == [
        Edge(Node(f"actor:{DRAFT.actor}"), DRAFT.subject, 7),
        Edge(DRAFT.inputs[0], DRAFT.subject, 7),
        Edge(DRAFT.inputs[1], DRAFT.subject, 7),
        Edge(DRAFT.subject, DRAFT.outputs[0], 7),
    ]


def test_nothing_is_needed_for_itself_and_an_edge_is_said_once() -> None:
    draft = msgspec.structs.replace(
        DRAFT, inputs=(DRAFT.subject, Node("run:r"), Node("run:r")), outputs=(DRAFT.subject,)
    )
    event = seal_event(draft, seq=1, epoch=1, prev=GENESIS, note=None)

    assert [edge.src for edge in edges(event)] == [f"actor:{DRAFT.actor}", "run:r"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_may_be_written(kind: str) -> None:
    draft = msgspec.structs.replace(DRAFT, kind=kind)

    assert check_draft(draft) is draft
    assert KINDS[kind]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "release.exploded"}, "not a kind of event"),
        ({"kind": "release"}, "not a kind of event"),
        ({"facts": {"auc": 0.75}}, r"\$\.auc: a float has no canonical form"),
        ({"facts": {"big": 2**60}}, "beyond 2"),
    ],
)
def test_a_draft_that_could_not_be_written_for_ever_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        check_draft(msgspec.structs.replace(DRAFT, **change))
