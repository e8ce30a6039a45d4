"""Checks of `Store` among processes, and of what is left when one is killed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import threading
import warnings
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import msgspec
import pytest

from andon.core.entities import Cursor
from andon.core.errors import Conflict, Invalid
from andon.core.events import verify_chain
from andon.store.ports import Store, Transaction
from andon.testing import rows
from andon.testing.stores.place import Openable, StoreChecks, put

replace = msgspec.structs.replace
DEADLINE_S = 60.0
KILLS = 15
WRITES = 40


def processes() -> ForkServerContext:
    """Processes that begin clean, and soon: the modules they need are loaded once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["andon.testing.stores", "andon.store.sql.opening"])
    return context


class ProcessChecks(StoreChecks):
    """Processes share a workspace as threads do, and one that is killed takes nothing with it that was acknowledged."""

    def test_two_processes_write_one_chain(self, place: Openable, store: Store) -> None:
        put(store, Cursor(id="sum", seq=0))
        context = processes()
        workers = [context.Process(target=raise_sum, args=(place, WRITES)) for _ in range(2)]

        for worker in workers:
            worker.start()
        raise_sum_with(store, WRITES)
        for worker in workers:
            worker.join(DEADLINE_S)

        assert [worker.exitcode for worker in workers] == [0, 0]
        assert store.read(lambda view: view.cursors.get("sum")).seq == 3 * WRITES
        events = store.read(lambda view: view.ledger.after(0))
        assert verify_chain(events) == store.read(lambda view: view.ledger.head())
        assert len(events) == 2 + 3 * WRITES

    def test_what_one_process_wrote_another_reads_at_once(self, place: Openable, store: Store) -> None:
        context = processes()
        here, there = context.Pipe()
        worker = context.Process(target=echo, args=(place, there))
        worker.start()
        there.close()

        for n in range(5):
            put(store, Cursor(id=f"c{n}", seq=n))
            here.send(f"c{n}")
            assert here.poll(DEADLINE_S)
            assert here.recv() == n
        here.close()

        worker.join(DEADLINE_S)
        assert worker.exitcode == 0

    def test_processes_that_open_a_new_workspace_at_once_make_it_once(self, place: Openable) -> None:
        context = processes()
        workers = [context.Process(target=open_and_close, args=(place,)) for _ in range(3)]

        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(DEADLINE_S)

        store = place.open()
        kinds = [event.kind for event in store.read(lambda view: view.ledger.after(0))]
        store.close()
        assert [worker.exitcode for worker in workers] == [0, 0, 0]
        assert kinds == ["workspace.created", "actor.created"]

    def test_a_store_is_refused_in_a_process_that_was_forked_off(self, store: Store) -> None:
        refused = 7
        with (
            warnings.catch_warnings()
        ):  # Python says itself that forking with threads is unwise: that is the point
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:  # never to return into the test run
            try:
                store.read(lambda _: None)
            except Invalid:
                os._exit(refused)
            finally:
                os._exit(1)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == refused

    @pytest.mark.parametrize("seed", [1])
    def test_nothing_acknowledged_is_lost_when_a_writer_is_killed(
        self, place: Openable, store: Store, seed: int
    ) -> None:
        """Three threads of a victim write and say so; it dies at a random moment; all that was said is there, once."""
        draw = random.Random(seed)
        context = processes()
        acknowledged: set[str] = set()

        for life in range(KILLS):
            here, there = context.Pipe(duplex=False)
            victim = context.Process(target=write_until_killed, args=(place, there, life))
            victim.start()
            there.close()
            for _ in range(draw.randrange(1, 30)):
                assert here.poll(DEADLINE_S)
                acknowledged.add(here.recv())
            here.poll(draw.random() * 0.004)
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            acknowledged.update(left_in(here))
            victim.join(DEADLINE_S)

        found = {row.id for row in store.read(lambda view: view.cursors.select(limit=100_000))}
        events = store.read(lambda view: view.ledger.after(2, limit=100_000))
        assert acknowledged <= found
        assert len(found - acknowledged) <= 3 * KILLS
        assert sorted(event.subject for event in events) == sorted(f"run:{ident}" for ident in found)
        assert verify_chain(store.read(lambda view: view.ledger.after(0, limit=100_000)))[0] == len(found) + 2
        put(store, Cursor(id="after all", seq=0))


def raise_sum(place: Openable, times: int) -> None:
    """Raise a sum in a process of its own."""
    store = place.open()
    raise_sum_with(store, times)
    store.close()


def raise_sum_with(store: Store, times: int) -> None:
    """Raise a sum by one, again and again, deciding on what was read before."""
    done = 0
    while done < times:
        seen = store.read(lambda view: view.cursors.get("sum"))

        def work(tx: Transaction, seen: Cursor = seen) -> None:
            tx.cursors.change(replace(seen, seq=seen.seq + 1))
            tx.ledger.append(rows.draft())

        try:
            store.write(work)
        except Conflict:
            continue
        done += 1


def echo(place: Openable, other: Connection) -> None:
    """Answer names of cursors with what they hold, until the other end is closed."""
    store = place.open()
    try:
        while True:
            name = other.recv()
            other.send(store.read(lambda view, name=name: view.cursors.get(name)).seq)  # type: ignore[misc]
    except EOFError:
        store.close()


def open_and_close(place: Openable) -> None:
    """Open a workspace."""
    place.open().close()


def write_until_killed(place: Openable, acknowledge: Connection, life: int) -> None:
    """Write rows and events from three threads; say each that was answered."""
    store = place.open()
    say = threading.Lock()

    def go_on(thread: int) -> None:
        for n in itertools.count():
            ident = f"{life}.{thread}.{n}"

            def work(tx: Transaction, ident: str = ident) -> None:
                tx.cursors.add(Cursor(id=ident, seq=0))
                tx.ledger.append(rows.draft(ident=ident))

            store.write(work)
            with say:
                acknowledge.send(ident)

    for thread in range(3):
        threading.Thread(target=go_on, args=(thread,), daemon=True).start()
    threading.Event().wait()


def left_in(pipe: Connection) -> list[str]:
    """What a process said before it died."""
    said: list[str] = []
    try:
        while pipe.poll(DEADLINE_S):
            said.append(pipe.recv())
    except (EOFError, OSError):
        pipe.close()
    return said
