"""Leases among processes: who holds, who waits, who takes over, and that no jump of a clock matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from andon.core.errors import LeaseLost
from andon.store.lease import LeaseKeeper, holder_gone, process_holder
from andon.store.ports import Store
from andon.testing.clock import FakeClock
from andon.testing.stores import Place


@pytest.fixture
def store(sqlite_place: Place) -> Iterator[Store]:
    store = sqlite_place.open()
    yield store
    store.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def keeper(store: Store, clock: FakeClock, holder: str, *, gone: bool = False) -> LeaseKeeper:
    return LeaseKeeper(store, "loop", holder, clock, 2.0, gone=lambda _: gone)


def test_a_free_lease_is_taken_and_kept(store: Store, clock: FakeClock) -> None:
    mine = keeper(store, clock, "me")

    first = mine.hold()

    assert first is not None
    assert (first.holder, first.fence) == ("me", 1)
    for _ in range(10):
        clock.advance(1.9)
        held = mine.hold()
        assert held is not None
        assert held.fence == 1


def test_a_holder_beats_only_when_it_must(store: Store, clock: FakeClock) -> None:
    mine = keeper(store, clock, "me")
    beats = []
    for _ in range(9):
        held = mine.hold()
        assert held is not None
        beats.append(held.beat)
        clock.advance(0.25)

    assert beats == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_who_waits_does_not_get_a_lease_whose_holder_lives(store: Store, clock: FakeClock) -> None:
    mine, yours = keeper(store, clock, "me"), keeper(store, clock, "you")
    mine.hold()

    for _ in range(40):
        assert yours.hold() is None
        assert mine.hold() is not None
        clock.advance(0.5)


def test_a_silent_holder_is_replaced_after_the_ttl_and_told_so(store: Store, clock: FakeClock) -> None:
    mine, yours = keeper(store, clock, "me"), keeper(store, clock, "you")
    old = mine.hold()
    assert yours.hold() is None
    clock.advance(1.99)
    assert yours.hold() is None

    clock.advance(0.02)
    new = yours.hold()

    assert old is not None
    assert new is not None
    assert (new.holder, new.fence) == ("you", old.fence + 1)
    with pytest.raises(LeaseLost):
        store.write(lambda tx: tx.leases.check(old))
    with pytest.raises(LeaseLost):
        mine.beat()
    assert mine.hold() is None


def test_waiting_counts_from_the_last_beat_that_was_seen(store: Store, clock: FakeClock) -> None:
    mine, yours = keeper(store, clock, "me"), keeper(store, clock, "you")
    mine.hold()
    yours.hold()
    clock.advance(1.5)
    mine.beat()
    assert yours.hold() is None

    clock.advance(1.9)
    assert yours.hold() is None
    clock.advance(0.2)
    assert yours.hold() is not None


def test_jumps_of_the_wall_clock_matter_to_nobody(store: Store, clock: FakeClock) -> None:
    mine, yours = keeper(store, clock, "me"), keeper(store, clock, "you")
    mine.hold()
    for year in (1999, 2090, 2013):
        clock.jump(datetime(year, 1, 1, tzinfo=UTC))

        assert yours.hold() is None
        assert mine.hold() is not None


def test_a_lease_that_was_given_back_is_taken_at_once(store: Store, clock: FakeClock) -> None:
    mine, yours = keeper(store, clock, "me"), keeper(store, clock, "you")
    mine.hold()
    assert yours.hold() is None

    mine.drop()
    mine.drop()

    taken = yours.hold()
    assert taken is not None
    assert taken.fence == 2
    with pytest.raises(LeaseLost, match="'loop' is not held"):
        mine.beat()


def test_a_holder_that_is_known_to_be_gone_is_replaced_at_once(store: Store, clock: FakeClock) -> None:
    keeper(store, clock, "me").hold()

    taken = keeper(store, clock, "you", gone=True).hold()

    assert taken is not None
    assert taken.holder == "you"


def test_the_lease_of_a_killed_process_is_taken_over_at_once(
    sqlite_place: Place, store: Store, clock: FakeClock
) -> None:
    take = (
        "import sys\n"
        "from pathlib import Path\n"
        "from andon.core.clock import SystemClock\n"
        "from andon.core.workspace import Layout, Settings\n"
        "from andon.store import open_store\n"
        "from andon.store.lease import LeaseKeeper, process_holder\n"
        "store = open_store(Layout(Path(sys.argv[1])), Settings())\n"
        "print(LeaseKeeper(store, 'loop', process_holder(), SystemClock()).hold().holder, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", take, str(sqlite_place.layout.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        holder = victim.stdout.readline().strip()
        waiting = LeaseKeeper(store, "loop", process_holder(), clock)
        assert not holder_gone(holder)
        assert waiting.hold() is None

        victim.kill()
        victim.wait()

    taken = waiting.hold()
    assert holder_gone(holder)
    assert taken is not None
    assert taken.fence == 2


def test_a_process_that_was_killed_and_not_yet_collected_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        host, _, _ = process_holder().partition(":")
        fields = Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()
        holder = f"{host}:{victim.pid}:{fields[19]}"
        assert not holder_gone(holder)

        victim.kill()
        os.waitid(os.P_PID, victim.pid, os.WEXITED | os.WNOWAIT)

        assert holder_gone(holder)


def test_another_process_of_the_same_number_is_not_the_holder() -> None:
    host, pid, start = process_holder().split(":")

    assert not holder_gone(f"{host}:{pid}:{start}")
    assert holder_gone(f"{host}:{pid}:{int(start) - 1}")


@pytest.mark.parametrize("holder", ["another-host:1:1", "no process", ""])
def test_of_a_stranger_nobody_knows(holder: str) -> None:
    assert not holder_gone(holder)
