"""The steps of a rollout as transactions: rows, routes, releases and events move together, and forward only if free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from andon.core.errors import Conflict, InvalidTransition, NotFound
from andon.core.ids import ReleaseId, node
from andon.core.policy import ReleasePolicy
from andon.core.routes import GENERATION_STEP
from andon.rollout import advance_step, began, pause, proceed, resume, undo
from andon.rollout.rollouts import mark_adopted
from tests.rollout.world import EVIDENCE, POLICY, START, RolloutWorld


def arms(world: RolloutWorld) -> tuple[str | None, str | None, str | None, int]:
    row = world.route()
    return row.stable, row.candidate, row.previous, row.weight_percent


def test_the_first_release_goes_straight_to_all_requests(world: RolloutWorld) -> None:
    release = world.rolling()

    rollout = world.start(release)
    before = arms(world)
    world.finish(rollout)

    assert (rollout.state, rollout.steps) == ("switching", (100,))
    assert before == (None, release.id, None, 100)
    assert arms(world) == (release.id, None, None, 0)
    assert world.release(release.id).state == "live"
    assert world.rollout(release).state == "full"


@pytest.mark.capability("I2", "I3")
def test_a_canary_follows_its_plan_and_leaves_the_old_release_warm(world: RolloutWorld) -> None:
    old = world.live()
    new = world.rolling()

    rollout = world.start(new)
    shares = [arms(world)]
    rollout = world.advance(rollout)
    shares.append(arms(world))
    rollout = world.switch(rollout)
    shares.append(arms(world))
    world.finish(rollout)

    assert shares == [(old.id, new.id, None, 10), (old.id, new.id, None, 50), (old.id, new.id, None, 100)]
    assert arms(world) == (new.id, None, old.id, 0)
    assert (world.release(old.id).state, world.release(new.id).state) == ("superseded", "live")
    assert world.kinds(node("rollout", rollout.id)) == ["rollout.advanced"] * 3 + ["rollout.full"]
    facts = [event.facts for event in world.events(node("rollout", rollout.id))]
    assert [(fact["state"], fact["percent"], fact["evidence"]) for fact in facts] == [
        ("canary", 10, None), ("canary", 50, EVIDENCE), ("switching", 100, EVIDENCE), ("full", 100, EVIDENCE),
    ]  # fmt: skip


def test_a_direct_release_asks_for_no_canary(world: RolloutWorld) -> None:
    world.live()

    rollout = world.start(world.rolling(), ReleasePolicy(endpoint="churn", strategy="direct"))

    assert (rollout.state, rollout.steps) == ("switching", (100,))


def test_starting_again_gives_the_rollout_there_is(world: RolloutWorld) -> None:
    world.live()
    release = world.rolling()
    first = world.start(release)
    generation = world.route().generation

    assert world.start(release) == first
    assert world.route().generation == generation


def test_every_change_of_the_route_is_a_new_generation_and_an_event(world: RolloutWorld) -> None:
    world.live()
    rollout = world.start(world.rolling())
    world.advance(rollout)
    world.undo()
    world.do(resume, "churn")

    events = world.events(node("endpoint", "churn"))
    assert [event.facts["generation"] for event in events] == [GENERATION_STEP * (n + 1) for n in range(6)]
    assert [event.kind for event in events] == ["route.changed"] * 4 + ["route.held", "route.changed"]


def test_each_candidate_has_a_salt_of_its_own_and_keeps_it(world: RolloutWorld) -> None:
    world.live()
    salts = []
    for _ in range(2):
        rollout = world.start(world.rolling())
        salts.append(world.route().salt)
        world.advance(rollout)
        assert world.route().salt == salts[-1]
        world.undo(hold=False)

    assert salts[0] != salts[1]


def test_a_rollout_knows_the_route_it_began_with(world: RolloutWorld) -> None:
    world.live()
    release = world.rolling()
    rollout = world.start(release)
    first = (1, world.route().generation)
    world.advance(rollout)
    world.do(pause, world.rollout(release), because="lunch")

    assert world.read(lambda reader: began(reader, rollout)) == first


# --- undo ---


@pytest.mark.capability("E6", "I9")
def test_an_undone_candidate_leaves_stable_with_all_requests(world: RolloutWorld) -> None:
    old = world.live()
    new = world.rolling()
    rollout = world.start(new)

    gone, back = world.undo(evidence=EVIDENCE)

    assert (gone, back) == (new.id, old.id)
    assert arms(world) == (old.id, None, None, 0)
    assert world.route().held
    assert (world.release(new.id).state, world.release(old.id).state) == ("undone", "live")
    done = world.rollout(new)
    assert (done.state, done.because, done.evidence) == ("undone", "it is wrong", EVIDENCE)
    assert world.kinds(node("rollout", rollout.id))[-1] == "rollout.undone"


@pytest.mark.capability("E6", "I4", "I7")
def test_when_the_live_release_is_undone_the_one_before_is_live_again(world: RolloutWorld) -> None:
    old, new = world.live(), world.live()

    gone, back = world.undo()

    assert (gone, back) == (new.id, old.id)
    assert arms(world) == (old.id, None, None, 0)
    assert (world.release(old.id).state, world.release(new.id).state) == ("live", "undone")
    assert world.rollout(new).state == "undone"


def test_without_a_name_the_candidate_is_undone_and_the_live_release_stays(world: RolloutWorld) -> None:
    world.live()
    old = world.live()
    new = world.rolling()
    world.start(new)

    assert world.undo()[0] == new.id
    assert world.undo()[0] == old.id


def test_a_candidate_cannot_go_on_when_its_stable_release_is_undone(world: RolloutWorld) -> None:
    first, second = world.live(), world.live()
    new = world.rolling()
    world.start(new)

    world.undo(release=second.id)

    assert arms(world) == (first.id, None, None, 0)
    assert [world.release(one.id).state for one in (first, second, new)] == ["live", "undone", "withdrawn"]
    assert world.rollout(new).state == "undone"


def test_a_candidate_with_all_requests_can_still_be_undone(world: RolloutWorld) -> None:
    old = world.live()
    world.switch(world.start(world.rolling()))

    world.undo()

    assert arms(world) == (old.id, None, None, 0)


def test_an_undo_never_leaves_an_endpoint_without_a_release(world: RolloutWorld) -> None:
    release = world.live()
    before = (world.route(), world.events())

    with pytest.raises(Conflict, match=f"has no release to go back to from {release.id}; stop the gateway"):
        world.undo()

    assert (world.route(), world.events()) == before


def test_one_step_back_is_as_far_as_undo_goes(world: RolloutWorld) -> None:
    world.live()
    world.live()
    world.live()
    world.undo()

    with pytest.raises(Conflict, match="no release to go back to"):
        world.undo()


def test_the_first_release_cannot_be_undone_while_it_switches(world: RolloutWorld) -> None:
    world.start(world.rolling())

    with pytest.raises(Conflict, match="no release to go back to"):
        world.undo()


def test_undo_of_an_endpoint_that_serves_nothing_names_those_that_do(world: RolloutWorld) -> None:
    world.live()

    with pytest.raises(NotFound, match="endpoint 'chrun' serves nothing; endpoints: churn"):
        world.do(undo, "chrun", because="typo", hold=True)


def test_undoing_a_release_that_has_left_changes_nothing(world: RolloutWorld) -> None:
    old = world.live()
    world.live()
    before = world.route()

    with pytest.raises(
        Conflict, match=f"release {old.id} is not on endpoint 'churn' any more; nothing was changed"
    ):
        world.undo(release=old.id)

    assert world.route() == before


def test_an_undo_by_evidence_holds_nobody_up(world: RolloutWorld) -> None:
    world.live()
    world.start(world.rolling())

    world.undo(hold=False)

    assert not world.route().held
    assert world.start(world.rolling()).state == "canary"


# --- held and paused ---


def test_a_held_endpoint_does_not_move_forward_until_a_person_releases(world: RolloutWorld) -> None:
    world.live()
    world.live()
    world.start(world.rolling())
    world.undo()
    release = world.rolling()

    with pytest.raises(
        Conflict, match="endpoint 'churn' is held after an undo; let it move again with 'resume'"
    ):
        world.start(release)
    world.do(resume, "churn")

    assert world.start(release).state == "canary"
    assert not world.route().held


@pytest.mark.parametrize("step", ["advance", "switch", "finish", "proceed"])
def test_no_step_forward_is_taken_while_the_endpoint_is_held(world: RolloutWorld, step: str) -> None:
    old = world.live()
    world.live()
    rollout = world.start(world.rolling())
    if step == "finish":
        rollout = world.switch(rollout)
    if step == "proceed":
        rollout = world.do(pause, rollout, because="lunch")
    world.do(_adopt_nothing, old.id)
    assert world.route().held
    steps: dict[str, Callable[[], Any]] = {
        "advance": lambda: world.advance(rollout), "switch": lambda: world.switch(rollout),
        "finish": lambda: world.finish(rollout), "proceed": lambda: world.do(proceed, rollout),
    }  # fmt: skip
    before = arms(world)

    with pytest.raises(Conflict, match="is held"):
        steps[step]()

    assert arms(world) == before
    world.undo()


def _adopt_nothing(tx: Any, release: ReleaseId, *, actor: Any, at: Any) -> None:
    mark_adopted(tx, "churn", "ov_1", release, actor=actor, at=at)


def test_resuming_what_is_not_held_changes_nothing(world: RolloutWorld) -> None:
    world.live()
    before = world.route()

    assert world.do(resume, "churn") == before
    with pytest.raises(NotFound):
        world.do(resume, "chrun")


def test_a_paused_rollout_keeps_its_share_can_be_undone_and_goes_on_where_it_was(world: RolloutWorld) -> None:
    world.live()
    release = world.rolling()
    rollout = world.advance(world.start(release))
    before = arms(world)

    paused = world.do(pause, rollout, because="lunch")
    kept = arms(world)
    going = world.do(proceed, paused)

    assert (paused.state, paused.paused_from, kept) == ("paused", "canary", before)
    assert (going.state, going.paused_from, going.step) == ("canary", None, 1)
    assert world.kinds(node("rollout", rollout.id))[-2:] == ["rollout.paused", "rollout.resumed"]
    world.do(pause, going, because="dinner")
    world.undo()
    assert world.rollout(release).state == "undone"


# --- what the machine refuses ---


def test_steps_that_the_plan_does_not_have_are_refused(world: RolloutWorld) -> None:
    world.live()
    rollout = world.start(world.rolling())
    before = (arms(world), world.events())

    for step in (0, 2, 3, -1):
        with pytest.raises(InvalidTransition, match="cannot go to step"):
            world.do(
                advance_step,
                rollout,
                step,
                evidence=EVIDENCE,
                because="",
                data_at=START,
            )
    with pytest.raises(InvalidTransition, match="cannot become full"):
        world.finish(rollout)
    with pytest.raises(InvalidTransition, match="is canary and not paused"):
        world.do(proceed, rollout)

    assert (arms(world), world.events()) == before


def test_a_step_that_was_taken_by_another_worker_is_not_taken_again(world: RolloutWorld) -> None:
    world.live()
    rollout = world.start(world.rolling())
    world.advance(rollout)
    before = (arms(world), world.events())

    with pytest.raises(Conflict):
        world.advance(rollout)

    assert (arms(world), world.events()) == before


def test_a_second_candidate_waits_for_its_turn(world: RolloutWorld) -> None:
    """The registry lets one release on its way; should two get here all the same, the second does not push the first out."""
    world.live()
    rollout = world.start(world.rolling())
    other = world.read(lambda reader: reader.releases.get(rollout.release))
    stranger = msgspec.structs.replace(other, id=ReleaseId("rel_stranger"))

    with pytest.raises(Conflict, match=f"has the candidate {rollout.release} already"):
        world.start(stranger, POLICY)
