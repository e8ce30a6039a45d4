"""Rollouts from end to end on simulated traffic: the error rates that the policy promises, and how soon harm is found."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import numpy as np
import pytest

from andon.core.entities import Rollout
from andon.core.ids import ReleaseId, RolloutId
from andon.core.policy import ReleasePolicy
from andon.rollout import Decision, Tally, decide
from tests.rollout.world import DAY, NEW, OLD, START, traffic

POLICY = ReleasePolicy(endpoint="e", steps=(10, 50, 100), min_requests=50, alpha=0.05)


def play(
    rng: np.random.Generator,
    *,
    failing: tuple[float, float] = (0.0, 0.0),
    wrong: tuple[float, float] = (0.2, 0.2),
    expects_labels: bool = True,
    told: bool = True,
    labelled: float = 1.0,
    most: int = 6000,
    each: int = 100,
    policy: ReleasePolicy = POLICY,
) -> tuple[Decision, int, list[Decision]]:
    """A canary until it is undone or switched, or `most` requests were answered: the last decision, how many requests the
    candidate had, and all decisions. Evidence is looked at after each `each` requests, a day of domain time apart."""
    rollout = Rollout(
        id=RolloutId("ro"), release=ReleaseId("new"), endpoint="e", state="canary", steps=policy.steps, step=0,
        created_at=START, changed_at=START,
    )  # fmt: skip
    tally = Tally(
        candidate=NEW, stable=OLD, began=(1, 100), horizon=DAY, margin_odds=policy.noninferior_odds,
        expects_labels=expects_labels,
    )  # fmt: skip
    decisions: list[Decision] = []
    served = 0
    for day in range(most // each):
        share = rollout.steps[rollout.step] / 100
        records, labels = traffic(
            rng, each, first=day * each, share=share, failing=failing, wrong=wrong, at=START + day * DAY
        )
        served += sum(record.release == NEW for record in records)
        tally.take(
            records, {ident: label for k, (ident, label) in enumerate(labels.items()) if k < labelled * each}
        )
        until = START + day * DAY if told else None
        decisions.append(decide(rollout, policy, tally.evidence(share=share, closed_until=until)))
        if decisions[-1].action in ("undo", "switch"):
            break
        if decisions[-1].action == "advance":
            rollout = msgspec.structs.replace(rollout, step=decisions[-1].step)
    return decisions[-1], served, decisions


@pytest.mark.capability("D4", "L6")
def test_a_harmless_candidate_is_undone_no_more_often_than_alpha(rng: np.random.Generator) -> None:
    """200 rollouts looked at 12 times each, failing 4 % and wrong 20 % on both arms, shares that grow meanwhile.

    At alpha = 0.05 at most 10 undone on average; more than 18 has a chance below 1 % even if the promise is only just kept.
    """
    policy = msgspec.structs.replace(POLICY, noninferior_odds=1.0001)
    undone = sum(
        play(rng, failing=(0.04, 0.04), most=1200, policy=policy)[0].action == "undo" for _ in range(200)
    )

    assert undone <= 18


@pytest.mark.capability("D4")
def test_a_candidate_at_the_margin_goes_to_everybody_no_more_often_than_alpha(
    rng: np.random.Generator,
) -> None:
    """It is wrong 1.5 times as often as stable: 0.3 against 0.2. At most 10 of 200 on average, 18 in 1 of 100."""
    policy = msgspec.structs.replace(POLICY, alpha=0.05, min_requests=20)
    switched = sum(
        play(rng, wrong=(0.2, 0.3), most=1500, policy=policy)[0].action == "switch" for _ in range(200)
    )

    assert switched <= 18


@pytest.mark.capability("I9", "L6")
def test_a_candidate_that_fails_is_undone_within_a_few_requests(rng: np.random.Generator) -> None:
    """3 of 10 requests fail where none did: gone after a median of 12 of its requests or fewer, looking at each 10."""
    plays = [play(rng, failing=(0.0, 0.3), each=10, most=2000) for _ in range(40)]

    assert {decision.action for decision, _, _ in plays} == {"undo"}
    assert np.median([served for _, served, _ in plays]) <= 12
    assert max(served for _, served, _ in plays) <= 40
    assert plays[0][0].because.startswith("failures: candidate ")


@pytest.mark.capability("L6")
def test_a_candidate_that_is_wrong_more_often_is_undone(rng: np.random.Generator) -> None:
    plays = [play(rng, wrong=(0.2, 0.5)) for _ in range(20)]

    assert {decision.action for decision, _, _ in plays} == {"undo"}
    assert all(decision.because.startswith("wrong: candidate ") for decision, _, _ in plays)


@pytest.mark.capability("I2", "I3", "L2")
def test_a_good_candidate_goes_step_by_step_to_everybody(rng: np.random.Generator) -> None:
    plays = [play(rng, wrong=(0.3, 0.2)) for _ in range(20)]

    assert [decision.action for decision, _, _ in plays].count("switch") >= 18
    for _, _, decisions in plays:
        forward = [(one.action, one.step) for one in decisions if one.action != "hold"]
        assert forward in ([("advance", 1), ("switch", 1)], [("advance", 1)], [("undo", 0)])


@pytest.mark.parametrize(("told", "labelled"), [(False, 1.0), (True, 0.0)])
def test_without_labels_a_line_that_expects_them_holds(
    rng: np.random.Generator, told: bool, labelled: float
) -> None:
    """Whether nobody says how far time has come, or no label ever arrives."""
    decision, served, decisions = play(rng, told=told, labelled=labelled)

    assert {one.action for one in decisions} == {"hold"}
    assert decision.because == "0 of 50 labelled requests of the candidate in this step"
    assert served > 400


def test_labels_of_open_cohorts_are_waited_for(rng: np.random.Generator) -> None:
    """A horizon of thirty days: the first labels count on the thirty-first."""
    tally = Tally(
        candidate=NEW,
        stable=OLD,
        began=(1, 100),
        horizon=timedelta(days=30),
        margin_odds=1.5,
        expects_labels=True,
    )
    counted = []
    for day in range(40):
        tally.take(*traffic(rng, 100, first=100 * day, share=0.5, at=START + day * DAY))
        counted.append(tally.evidence(share=0.5, closed_until=START + (day + 1) * DAY).step_labelled)

    assert counted[:29] == [0] * 29
    assert min(counted[31:]) > 0


def test_where_nothing_fails_enough_good_answers_are_evidence(rng: np.random.Generator) -> None:
    """A line without labels whose requests never fail: the candidate goes to everybody after some 230 answers of its own."""
    plays = [play(rng, expects_labels=False, most=20_000) for _ in range(5)]

    assert {decision.action for decision, _, _ in plays} == {"switch"}
    assert all(200 <= served <= 330 for _, served, _ in plays)


def test_shares_that_grow_in_answer_to_what_was_seen_do_not_spoil_the_promise(
    rng: np.random.Generator,
) -> None:
    """A share that doubles each time the candidate did well by chance, which would fool a comparison of raw counts."""
    undone = 0
    for _ in range(200):
        tally = Tally(
            candidate=NEW, stable=OLD, began=(1, 100), horizon=DAY, margin_odds=1.5, expects_labels=False
        )
        share = 0.05
        for look in range(20):
            records, _ = traffic(rng, 50, first=50 * look, share=share, failing=(0.1, 0.1))
            tally.take(records, {})
            evidence = tally.evidence(share=share, closed_until=None)
            if evidence.harm >= 1.302:
                undone += 1
                break
            mine = [record for record in records if record.release == NEW]
            share = min(0.6, share * 2) if not any(record.status >= 500 for record in mine) else 0.05

    assert undone <= 18
