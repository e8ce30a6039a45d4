"""Checks of `Store` in one process: all or nothing, one view, many threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from andon.core.entities import Cursor
from andon.core.errors import AlreadyExists, Conflict, Invalid, Unavailable
from andon.core.events import verify_chain
from andon.store.ports import Reader, Store, Transaction, Value
from andon.testing import rows
from andon.testing.stores.place import Openable, StoreChecks, put

Tables = list[tuple[str, list[dict[str, Value]]]]
replace = msgspec.structs.replace
DEADLINE_S = 30.0


class Spoilt(Exception):
    """What a piece of work raises."""


class TransactionChecks(StoreChecks):
    """What is written is there for all; what fails never was."""

    def test_what_work_returns_comes_back(self, store: Store) -> None:
        assert store.write(lambda tx: tx.actors.add(rows.actor())) == rows.actor()
        assert store.read(lambda view: view.actors.count()) == 2

    def test_work_that_raises_never_was(self, store: Store) -> None:
        def work(tx: Transaction) -> None:
            tx.actors.add(rows.actor())
            tx.leases.take("loop", "me", seen=None)
            tx.ledger.append(rows.draft(note="never"))
            raise Spoilt

        with pytest.raises(Spoilt):
            store.write(work)

        found = store.read(
            lambda view: (view.actors.count(), view.leases.find("loop"), view.personal.count())
        )
        assert found == (1, None, 0)
        assert store.read(lambda view: view.ledger.head())[0] == 2

    def test_work_sees_what_it_wrote_and_others_do_not(self, store: Store) -> None:
        outside: list[int] = []
        looked = threading.Event()

        def look() -> None:
            outside.append(store.read(lambda view: view.actors.count()))
            looked.set()

        def work(tx: Transaction) -> int:
            tx.actors.add(rows.actor())
            threading.Thread(target=look).start()
            assert looked.wait(DEADLINE_S)
            return tx.actors.count()

        assert store.write(work) == 2
        assert outside == [1]

    def test_a_view_stays_as_it_began(self, store: Store) -> None:
        def look(view: Reader) -> tuple[int, int, int, int]:
            before = view.actors.count(), view.ledger.head()[0]
            writer = threading.Thread(target=lambda: store.write(told))
            writer.start()
            writer.join(DEADLINE_S)
            return *before, view.actors.count(), view.ledger.head()[0]

        def told(tx: Transaction) -> None:
            tx.actors.add(rows.actor())
            tx.ledger.append(rows.draft())

        assert store.read(look) == (1, 2, 1, 2)
        assert store.read(lambda view: (view.actors.count(), view.ledger.head()[0])) == (2, 3)

    @pytest.mark.parametrize(
        "change",
        [
            lambda view: view.actors.add(rows.actor()),
            lambda view: view.actors.remove("act_andon"),
            lambda view: view.actors.change(view.actors.get("act_andon")),
            lambda view: view.leases.take("loop", "me", seen=None),
            lambda view: view.metrics.log(rows.run("r1"), []),
            lambda view: view.metrics.log_of_models([], []),
            lambda view: view.ledger.append(rows.draft()),
        ],
        ids=["add", "remove", "change", "lease", "metric", "metric of a model", "event"],
    )
    def test_a_view_changes_nothing(self, store: Store, change: Callable[[Reader], object]) -> None:
        with pytest.raises(Invalid, match=r"use Store\.write"):
            store.read(change)

    @pytest.mark.parametrize("verb", ["write", "read"])
    def test_a_call_from_inside_a_transaction_is_refused_instead_of_waiting_for_ever(
        self, store: Store, verb: str
    ) -> None:
        with pytest.raises(Invalid, match="called inside a transaction of its own"):
            store.write(lambda _: getattr(store, verb)(lambda _: None))

    def test_one_failure_among_many_spoils_no_other(self, store: Store) -> None:
        gate = threading.Barrier(24)

        def write(n: int) -> str:
            def work(tx: Transaction) -> str:
                tx.cursors.add(Cursor(id=f"c{n}", seq=n))
                tx.ledger.append(rows.draft(ident=f"c{n}"))
                if n % 3 == 0:
                    raise Spoilt
                return f"c{n}"

            gate.wait(DEADLINE_S)
            try:
                return store.write(work)
            except Spoilt:
                return "spoilt"

        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(write, range(24)))

        good = {f"c{n}" for n in range(24) if n % 3}
        assert answers == [f"c{n}" if n % 3 else "spoilt" for n in range(24)]
        assert {row.id for row in store.read(lambda view: view.cursors.select())} == good
        events = store.read(lambda view: view.ledger.after(2))
        assert {event.subject for event in events} == {f"run:{ident}" for ident in good}
        assert [event.seq for event in events] == list(range(3, 19))

    def test_eight_threads_lose_nothing(self, store: Store) -> None:
        put(store, Cursor(id="sum", seq=0))

        def raise_sum(tx: Transaction) -> None:
            tx.ledger.append(rows.draft())
            now = tx.cursors.get("sum")
            tx.cursors.change(replace(now, seq=now.seq + 1))

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(store.write, raise_sum) for _ in range(200)]:
                done.result(DEADLINE_S)

        assert store.read(lambda view: view.cursors.get("sum")) == Cursor(id="sum", seq=200, rev=200)
        assert verify_chain(store.read(lambda view: view.ledger.after(0)))[0] == 202

    def test_one_of_many_who_saw_the_same_row_may_change_it(self, store: Store) -> None:
        seen = Cursor(id="x", seq=0)
        put(store, seen)

        def change(n: int) -> bool:
            try:
                store.write(lambda tx: tx.cursors.change(replace(seen, seq=n)))
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(change, range(1, 21)))

        assert sum(won) == 1
        assert store.read(lambda view: view.cursors.get("x")).seq == won.index(True) + 1

    def test_of_many_who_add_the_same_trigger_one_succeeds(self, store: Store) -> None:
        put(store, rows.actor(), rows.line())

        def add(n: int) -> bool:
            try:
                store.write(lambda tx: tx.triggers.add(rows.trigger(f"tr_{n}", "data:1")))
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(add, range(20))) == 1

    def test_closing_finishes_what_was_handed_in(self, place: Openable) -> None:
        store = place.open()
        begun, go_on = threading.Event(), threading.Event()

        def slow(tx: Transaction) -> None:
            begun.set()
            assert go_on.wait(DEADLINE_S)
            tx.cursors.add(Cursor(id="slow", seq=0))

        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(store.write, slow)
            assert begun.wait(DEADLINE_S)
            second = pool.submit(store.write, lambda tx: tx.cursors.add(Cursor(id="second", seq=0)))
            closing = pool.submit(store.close)
            go_on.set()
            closing.result(DEADLINE_S)
            first.result(DEADLINE_S)
            handed_in = second.exception(DEADLINE_S) is None
        store.close()

        with pytest.raises(Unavailable, match="the store is closed"):
            store.write(lambda _: None)
        with pytest.raises(Unavailable, match="the store is closed"):
            store.read(lambda _: None)
        again = place.open()
        found = again.read(lambda view: [row.id for row in view.cursors.select()])
        again.close()
        assert found == (["second", "slow"] if handed_in else ["slow"])

    def test_everything_leaves_and_enters_as_plain_values(self, full: Store, elsewhere: Openable) -> None:
        full.write(lambda tx: tx.ledger.append(rows.draft(inputs=("code:c",), note="why")))
        full.write(rows.say_more)
        tables = list(full.tables())

        other = elsewhere.open()
        other.load(iter(tables))
        more = other.read(rows.said_more)

        again = list(other.tables())
        chain = other.read(lambda view: view.ledger.after(0))
        other.write(lambda tx: tx.ledger.append(rows.draft()))
        after = other.read(lambda view: view.ledger.after(0))
        found = other.read(lambda view: [rows.rows_of(view, type(row)).get(row.id) for row in rows.world()])
        number = other.write(lambda tx: tx.counters.next("run"))
        other.close()
        assert again == tables
        assert more == full.read(rows.said_more)
        assert number == 1001
        assert tables[0][0] == "schema_version"
        assert {type(value) for _, table in tables for row in table for value in row.values()} <= {
            str, int, float, bool, type(None)
        }  # fmt: skip
        assert verify_chain(chain) == full.read(lambda view: view.ledger.head())
        assert verify_chain(after)[0] == len(chain) + 1
        assert found == rows.world()

    def test_a_workspace_that_is_in_use_is_not_overwritten(self, full: Store, elsewhere: Openable) -> None:
        other = elsewhere.open()
        tables = list(other.tables())
        other.close()

        with pytest.raises(Conflict, match="the workspace is not empty"):
            full.load(tables)

        assert full.read(lambda view: view.runs.count()) == 3

    def test_a_damaged_dump_changes_nothing(self, store: Store, full: Store, elsewhere: Openable) -> None:
        tables = list(full.tables())
        other = elsewhere.open()
        before = list(other.tables())

        bad: Tables = [*tables, ("dreams", [{"id": "x"}])]
        for damaged in ([], tables[1:], bad):
            with pytest.raises(Invalid, match="the backup is damaged"):
                other.load(damaged)

        after = list(other.tables())
        other.close()
        assert after == before
