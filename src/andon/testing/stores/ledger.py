"""Checks of `Ledger`: one chain without gaps, the graph that follows from it, and notes that can be erased."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest

from andon.core.errors import Invalid
from andon.core.events import Edge, EventDraft, edges, note_hash, verify_chain
from andon.core.ids import Node
from andon.store.ports import Store, Transaction
from andon.testing import rows
from andon.testing.rows import draft
from andon.testing.stores.place import StoreChecks

replace = msgspec.structs.replace
LOOP = (
    draft("trigger.fired", "t", inputs=("alert:a",)),
    draft("run.created", "r", inputs=("trigger:t",)),
    draft("model_version.registered", "m", inputs=("run:r",)),
    draft("alert.opened", "a", inputs=("model_version:m",)),
)
"""A circle, as retraining makes them."""


def tell(store: Store, *drafts: EventDraft) -> None:
    """Append drafts in one transaction."""

    def work(tx: Transaction) -> None:
        for each in drafts:
            tx.ledger.append(each)

    store.write(work)


class LedgerChecks(StoreChecks):
    """What was said happened, in the order of commits, and nothing of it can be changed unseen."""

    def test_a_new_workspace_says_who_began_it(self, store: Store) -> None:
        first, second = store.read(lambda view: view.ledger.after(0))

        assert (first.kind, first.subject, first.actor) == (
            "workspace.created",
            "workspace:workspace",
            "act_andon",
        )
        assert (second.kind, second.subject) == ("actor.created", "actor:act_andon")
        assert store.read(lambda view: view.actors.get("act_andon")).subject == "system:andon"
        assert store.read(lambda view: view.workspaces.get("workspace")).epoch == 1

    def test_events_come_back_as_they_were_said(self, store: Store) -> None:
        said = draft(
            "run.sealed", "r1", inputs=("dataset_version:sha256:ab", "code:c"), outputs=("model_version:m",),
            facts={"rows": 2**53 - 1, "ok": True, "why": None, "é": "ü"},
        )  # fmt: skip

        tell(store, replace(said, data_at=rows.later(-5)))

        (event,) = store.read(lambda view: view.ledger.after(2))
        assert (event.kind, event.actor, event.subject, event.at) == (
            said.kind,
            said.actor,
            said.subject,
            said.at,
        )
        assert (event.inputs, event.outputs, event.facts) == (said.inputs, said.outputs, said.facts)
        assert (event.data_at, event.note, event.seq, event.epoch) == (rows.later(-5), None, 3, 1)

    def test_the_chain_verifies_and_has_no_gaps(self, store: Store) -> None:
        for n in range(7):
            tell(store, *(draft(ident=f"r{n}.{m}") for m in range(n)))

        events = store.read(lambda view: view.ledger.after(0))

        assert [event.seq for event in events] == list(range(1, 24))
        assert verify_chain(events) == store.read(lambda view: view.ledger.head())
        assert [event.subject for event in events[2:5]] == ["run:r1.0", "run:r2.0", "run:r2.1"]

    def test_a_follower_reads_on_from_where_it_was(self, store: Store) -> None:
        tell(store, *(draft(kind, f"x{n}") for n in range(5) for kind in ("run.created", "alert.opened")))

        def subjects(seq: int, limit: int, *kinds: str) -> list[str]:
            return [
                event.subject
                for event in store.read(lambda view: view.ledger.after(seq, limit=limit, kinds=kinds))
            ]

        assert subjects(2, 3) == ["run:x0", "alert:x0", "run:x1"]
        assert subjects(4, 2, "alert.opened") == ["alert:x1", "alert:x2"]
        assert subjects(11, 9, "run.created", "alert.opened") == ["alert:x4"]
        assert subjects(12, 9) == []

    def test_the_newest_events_come_newest_first(self, store: Store) -> None:
        tell(store, *(draft(ident=f"r{n % 2}", facts={"n": n}) for n in range(6)))

        newest = store.read(lambda view: view.ledger.latest(limit=2))
        of_one = store.read(lambda view: view.ledger.latest(limit=2, subject=Node("run:r0")))

        assert [event.facts["n"] for event in newest] == [5, 4]
        assert [event.facts["n"] for event in of_one] == [4, 2]

    def test_what_was_said_is_not_in_the_ledger_before_its_commit(self, store: Store) -> None:
        def work(tx: Transaction) -> tuple[int, int]:
            tx.ledger.append(draft())
            return tx.ledger.head()[0], len(tx.ledger.after(0))

        assert store.write(work) == (2, 2)
        assert store.read(lambda view: view.ledger.head())[0] == 3

    def test_a_new_epoch_holds_from_its_own_event_on(self, store: Store) -> None:
        def restore(tx: Transaction) -> None:
            tx.ledger.append(draft("workspace.restored", "workspace"))
            workspace = tx.workspaces.get("workspace")
            tx.workspaces.change(replace(workspace, epoch=workspace.epoch + 1))

        store.write(restore)
        tell(store, draft())

        assert [event.epoch for event in store.read(lambda view: view.ledger.after(0))] == [1, 1, 2, 2]

    @pytest.mark.parametrize(
        ("bad", "named"),
        [
            (draft("run.dreamt"), "'run.dreamt' is not a kind of event"),
            (draft(facts={"rate": 0.5}), "a float has no canonical form"),  # type: ignore[dict-item]
            (replace(draft(), at=datetime(2013, 1, 1)), "is a time without a zone"),  # noqa: DTZ001
            (draft(ident="a\0"), "holds a character that cannot be stored"),
            (draft(note="\udfff"), "holds a character that cannot be stored"),
        ],
        ids=["kind", "float", "time", "NUL", "half a pair"],
    )
    def test_what_could_not_be_kept_for_ever_is_refused_when_it_is_said(
        self, store: Store, bad: EventDraft, named: str
    ) -> None:
        def work(tx: Transaction) -> None:
            with pytest.raises(Invalid, match=named):
                tx.ledger.append(bad)
            tx.ledger.append(draft(ident="good"))

        store.write(work)

        assert [event.subject for event in store.read(lambda view: view.ledger.after(2))] == ["run:good"]

    def test_a_note_can_be_erased_and_the_chain_still_holds(self, store: Store) -> None:
        tell(store, draft(note="Ann was here"), draft(note="Ann was here"))
        first, second = store.read(lambda view: view.ledger.after(2))
        note = store.read(lambda view: view.personal.get("event:3"))

        def erase(tx: Transaction) -> None:
            for row in tx.personal.select({"subject": "actor:act_ann"}):
                tx.personal.remove(row.id)

        store.write(erase)

        assert (note.text, note.subject) == ("Ann was here", "actor:act_ann")
        assert first.note == note_hash(note.salt, note.text)
        assert first.note != second.note
        assert store.read(lambda view: view.personal.count()) == 0
        verify_chain(store.read(lambda view: view.ledger.after(0)))

    def test_edges_lead_from_what_was_needed(self, store: Store) -> None:
        tell(store, draft("run.sealed", "r", inputs=("code:c",), outputs=("model_version:m",)))
        tell(store, draft("release.requested", "l", inputs=("model_version:m",)))

        up = store.read(lambda view: view.ledger.up(Node("release:l")))
        down = store.read(lambda view: view.ledger.down(Node("code:c")))

        ann, run, model = Node("actor:act_ann"), Node("run:r"), Node("model_version:m")
        to_release = Edge(model, Node("release:l"), 4)
        assert {*up[:2]} == {to_release, Edge(ann, Node("release:l"), 4)}
        assert up[2] == Edge(run, model, 3)
        assert {*up[3:]} == {Edge(Node("code:c"), run, 3), Edge(ann, run, 3)}
        assert down == [Edge(Node("code:c"), run, 3), Edge(run, model, 3), to_release]

    def test_depth_and_limit_bound_the_way(self, store: Store) -> None:
        tell(store, *(draft(ident=f"r{n + 1}", inputs=(f"run:r{n}",)) for n in range(20)))

        def down(depth: int, limit: int) -> list[str]:
            found = store.read(lambda view: view.ledger.down(Node("run:r0"), depth=depth, limit=limit))
            return [edge.dst for edge in found]

        assert down(3, 100) == ["run:r1", "run:r2", "run:r3"]
        assert down(12, 2) == ["run:r1", "run:r2"]
        assert len(store.read(lambda view: view.ledger.up(Node("run:r20"), depth=40))) == 40

    def test_without_a_depth_the_whole_way_is_walked_oldest_first(self, store: Store) -> None:
        tell(store, *(draft(ident=f"r{n}", inputs=(f"run:r{n + 1}", "code:c")) for n in range(40)))

        up = store.read(lambda view: view.ledger.up(Node("run:r0"), depth=None))
        down = store.read(lambda view: view.ledger.down(Node("run:r40"), depth=None, limit=3))

        assert len(up) == 120
        assert [edge.seq for edge in up] == sorted(edge.seq for edge in up)
        assert [edge.dst for edge in down] == ["run:r0", "run:r1", "run:r2"]

    @pytest.mark.parametrize("depth", [12, None])
    @pytest.mark.parametrize("start", ["alert:a", "trigger:t", "run:r", "model_version:m"])
    def test_a_circle_is_walked_once(self, store: Store, start: str, depth: int | None) -> None:
        tell(store, *LOOP)

        down = store.read(lambda view: view.ledger.down(Node(start), depth=depth))

        assert len(down) == 4
        assert {edge.dst for edge in down} == {"alert:a", "trigger:t", "run:r", "model_version:m"}

    def test_an_edge_said_again_is_the_first_one(self, store: Store) -> None:
        tell(store, draft(inputs=("code:c",)), draft("run.started", inputs=("code:c",)))
        tell(store, draft("run.sealed", inputs=("code:c",)))

        assert store.read(lambda view: view.ledger.down(Node("code:c"))) == [
            Edge(Node("code:c"), Node("run:r1"), 3)
        ]

    def test_a_node_that_nobody_named_leads_nowhere(self, store: Store) -> None:
        assert store.read(lambda view: view.ledger.up(Node("run:r9"))) == []

    def test_all_edges_are_read_in_pages(self, store: Store) -> None:
        tell(store, *LOOP)

        def page(after: Edge | None) -> list[Edge]:
            return store.read(lambda view: view.ledger.edges(after=after, limit=3))

        found = page(None)
        while more := page(found[-1]):
            found += more

        said = {edge for event in store.read(lambda view: view.ledger.after(0)) for edge in edges(event)}
        assert found == sorted(said)

    def test_an_event_that_says_no_edge_is_an_event_too(self, store: Store) -> None:
        tell(store, draft("actor.created", "act_ann"))

        assert store.read(lambda view: view.ledger.head())[0] == 3
        assert store.read(lambda view: view.ledger.up(Node("actor:act_ann"))) == []
