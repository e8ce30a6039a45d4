"""Checks of `Leases`."""

from __future__ import annotations

import pytest

from andon.core.entities import Lease
from andon.core.errors import Conflict, LeaseLost
from andon.store.ports import Store, Transaction
from andon.testing import rows
from andon.testing.stores.place import StoreChecks


class LeaseChecks(StoreChecks):
    """One holder at a time, and a fence that only rises."""

    def test_a_lease_is_taken_once(self, store: Store) -> None:
        taken = store.write(lambda tx: tx.leases.take("loop", "me", seen=None))

        assert taken == Lease(name="loop", holder="me", fence=1, beat=0)
        assert store.read(lambda view: view.leases.find("loop")) == taken
        with pytest.raises(Conflict, match="'loop' is not as it was seen"):
            store.write(lambda tx: tx.leases.take("loop", "you", seen=None))

    def test_nobody_holds_what_was_never_taken(self, store: Store) -> None:
        assert store.read(lambda view: view.leases.find("loop")) is None

    def test_a_beat_proves_life(self, store: Store) -> None:
        seen = store.write(lambda tx: tx.leases.take("loop", "me", seen=None))

        beaten = store.write(lambda tx: tx.leases.beat(seen))

        assert beaten == Lease(name="loop", holder="me", fence=1, beat=1)
        with pytest.raises(Conflict, match="not as it was seen"):
            store.write(lambda tx: tx.leases.take("loop", "you", seen=seen))

    def test_who_takes_over_raises_the_fence_and_the_old_holder_is_told(self, store: Store) -> None:
        old = store.write(lambda tx: tx.leases.take("loop", "me", seen=None))

        new = store.write(lambda tx: tx.leases.take("loop", "you", seen=old))

        assert new == Lease(name="loop", holder="you", fence=2, beat=0)
        for verb in ("beat", "check"):
            with pytest.raises(LeaseLost, match="no longer held by me under fence 1"):
                store.write(lambda tx, verb=verb: getattr(tx.leases, verb)(old))  # type: ignore[misc]
        store.write(lambda tx: tx.leases.drop(old))
        assert store.read(lambda view: view.leases.find("loop")) == new

    def test_the_same_holder_may_take_over_from_itself(self, store: Store) -> None:
        old = store.write(lambda tx: tx.leases.take("loop", "me", seen=None))

        assert store.write(lambda tx: tx.leases.take("loop", "me", seen=old)).fence == 2
        with pytest.raises(LeaseLost):
            store.write(lambda tx: tx.leases.beat(old))

    def test_the_fence_does_not_go_down_when_a_lease_is_given_back(self, store: Store) -> None:
        old = store.write(lambda tx: tx.leases.take("loop", "me", seen=None))

        for _ in range(2):
            store.write(lambda tx: tx.leases.drop(old))

        assert store.read(lambda view: view.leases.find("loop")) is None
        assert store.write(lambda tx: tx.leases.take("loop", "me", seen=None)).fence == 2

    def test_leases_of_other_names_are_other_leases(self, store: Store) -> None:
        store.write(lambda tx: tx.leases.take("loop", "me", seen=None))

        assert store.write(lambda tx: tx.leases.take("sealer", "you", seen=None)).fence == 1

    def test_work_under_a_lost_lease_changes_nothing(self, store: Store) -> None:
        old = store.write(lambda tx: tx.leases.take("loop", "me", seen=None))
        store.write(lambda tx: tx.leases.take("loop", "you", seen=old))

        def work(tx: Transaction) -> None:
            tx.actors.add(rows.actor())
            tx.ledger.append(rows.draft())
            tx.leases.check(old)

        with pytest.raises(LeaseLost):
            store.write(work)
        assert store.read(lambda view: (view.actors.find("act_ann"), view.ledger.head()[0])) == (None, 2)

    def test_a_held_lease_may_be_checked_by_a_reader(self, store: Store) -> None:
        lease = store.write(lambda tx: tx.leases.take("loop", "me", seen=None))

        store.read(lambda view: view.leases.check(lease))
        with pytest.raises(LeaseLost):
            store.read(lambda view: view.leases.check(Lease(name="loop", holder="me", fence=7, beat=0)))
