"""The state machines: every step that is allowed, and no other."""

from __future__ import annotations

from typing import get_args

import pytest

from andon.core.errors import Conflict, InvalidTransition
from andon.core.states import (
    IN_PROGRESS,
    MACHINES,
    AlertState,
    ReleaseState,
    RolloutState,
    RunState,
    VersionState,
    advance,
    ended,
)

WORDS: dict[str, tuple[str, ...]] = {
    "run": get_args(RunState),
    "tracked_run": tuple(word for word in get_args(RunState) if word != "blocked"),
    "model_version": get_args(VersionState),
    "release": get_args(ReleaseState),
    "rollout": get_args(RolloutState),
    "alert": get_args(AlertState),
}
STEPS = [(machine, current, to) for machine, words in WORDS.items() for current in words for to in words]


def test_every_state_of_every_machine_has_a_row() -> None:
    assert {name: set(machine) for name, machine in MACHINES.items()} == {
        name: set(words) for name, words in WORDS.items()
    }


@pytest.mark.parametrize(("machine", "current", "to"), STEPS)
def test_a_step_is_taken_if_and_only_if_the_machine_has_it(machine: str, current: str, to: str) -> None:
    if to in MACHINES[machine][current]:
        assert advance(machine, "thing", current, to) == to
    else:
        with pytest.raises(InvalidTransition, match=f"thing is {current} and cannot become {to}"):
            advance(machine, "thing", current, to)


@pytest.mark.parametrize(
    ("machine", "first"),
    [("run", "queued"), ("tracked_run", "running"), ("release", "requested"), ("rollout", "planned")],
)
def test_every_state_can_be_reached_from_the_first(machine: str, first: str) -> None:
    reached, fresh = {first}, {first}
    while fresh:
        fresh = {to for state in fresh for to in MACHINES[machine][state]} - reached
        reached |= fresh

    assert reached == set(MACHINES[machine])


def test_what_has_ended_stays_ended() -> None:
    assert {
        machine: {state for state in rows if ended(machine, state)} for machine, rows in MACHINES.items()
    } == {
        "run": {"finished", "failed", "killed", "blocked"},
        "tracked_run": set(),
        "model_version": {"retired"},
        "release": {"undone", "refused", "withdrawn"},
        "rollout": {"undone"},
        "alert": {"closed"},
    }


@pytest.mark.capability("M13")
def test_no_way_leads_to_live_that_skips_judgement() -> None:
    """Whatever the path, a release was judged and then rolled before it was live the first time."""
    before = {
        to: {state for state, ways in MACHINES["release"].items() if to in ways} for to in MACHINES["release"]
    }

    assert before["live"] == {"rolling", "superseded"}
    assert before["superseded"] == {"live"}
    assert before["rolling"] == {"judging", "waiting"}
    assert before["waiting"] == {"judging"}
    assert before["judging"] == {"requested"}


def test_a_release_in_progress_is_one_that_can_still_go_live_the_first_time() -> None:
    assert set(IN_PROGRESS) == {"requested", "judging", "waiting", "rolling"}


def test_a_refused_step_is_a_conflict_that_says_what_may_follow() -> None:
    with pytest.raises(Conflict, match="from queued it may become killed, running"):
        advance("run", "run r1", "queued", "finished")
    with pytest.raises(Conflict, match="nothing: it has ended"):
        advance("run", "run r1", "finished", "running")
