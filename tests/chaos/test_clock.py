"""The wall clock jumps, as clocks of machines do: leases stay, schedules neither stampede nor stand still, rollouts hold."""

from __future__ import annotations

from datetime import timedelta

import pytest

from andon.monitoring.watch import MOST
from andon.store.lease import LeaseKeeper
from tests.chaos.desk import Desk
from tests.chaos.line import NAME

pytestmark = pytest.mark.chaos

YEAR = timedelta(days=365)


@pytest.fixture
def canary(desk: Desk) -> Desk:
    """The same with a second release that gets a part of the requests."""
    desk.source.grow(20)
    desk.ws.run(NAME, desk.actor)
    desk.step_until("the second release is in its canary", lambda: desk.rollout().state == "canary")
    return desk


@pytest.mark.parametrize("jump", [-YEAR, YEAR])
def test_a_lease_stays_where_it_is(desk: Desk, jump: timedelta) -> None:
    holder, other = (
        LeaseKeeper(desk.ws.store, "some right", name, desk.clock, gone=lambda _: False)
        for name in ("a", "b")
    )
    held = holder.hold()
    assert held is not None
    assert other.hold() is None

    desk.clock.ahead = jump

    assert other.hold() is None
    again = holder.beat()
    assert (again.holder, again.fence) == (held.holder, held.fence)


def test_a_year_forward_neither_stampedes_nor_keeps_anything_waiting(desk: Desk) -> None:
    triggers, windows = desk.count("triggers"), desk.count("monitor_windows")

    desk.clock.ahead = YEAR
    desk.reconciler.step()

    assert desk.count("monitor_windows") - windows <= 2 * MOST
    assert desk.count("triggers") == triggers


def test_a_clock_set_back_does_not_brake_the_line_until_it_catches_up(desk: Desk) -> None:
    desk.clock.ahead = YEAR
    desk.ws.run(NAME, desk.actor)
    desk.step_until("a run of the future has ended", lambda: desk.count("runs", state="finished") == 2)
    desk.step_until("its release settles", lambda: desk.count("releases", state="requested") == 0)

    desk.clock.ahead = timedelta(0)
    before = desk.count("triggers", kind="data")
    desk.source.grow(20)

    def has_a_run() -> bool:
        in_progress = desk.rollout().state == "canary"
        if in_progress:
            desk.ws.undo(NAME, desk.actor)
            desk.ws.resume(NAME, desk.actor)
        return desk.count("triggers", kind="data") > before

    desk.step_until("new data ask for a run", has_a_run)


@pytest.mark.capability("L6")
def test_a_rollout_holds_while_the_clock_is_a_day_back_and_goes_on_when_it_is_right(canary: Desk) -> None:
    before = canary.rollout()
    canary.clock.ahead = -timedelta(days=1)
    canary.answer(200)
    for _ in range(5):
        canary.reconciler.step()

    assert canary.rollout() == before

    def ended() -> bool:
        canary.clock.ahead += timedelta(minutes=2)  # the time in which labels may come has passed
        if canary.rollout().state == "canary":
            canary.answer(50)
        return canary.rollout().state in ("full", "undone")

    canary.clock.ahead = timedelta(0)
    canary.step_until("the rollout ends", ended)
