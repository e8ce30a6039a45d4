"""The next step of a rollout, as a table: harm undoes, no evidence holds, only non-inferiority goes to everybody."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.entities import Rollout
from andon.core.ids import ReleaseId, RolloutId
from andon.core.policy import ReleasePolicy
from andon.rollout import Evidence, Guard, decide
from tests.rollout.world import START

POLICY = ReleasePolicy(endpoint="e", steps=(1, 10, 50, 100), min_requests=100, alpha=0.05)
ENOUGH = 1.31
"""A little more than log10 of 20."""


def rollout(step: int = 0, steps: tuple[int, ...] = POLICY.steps) -> Rollout:
    return Rollout(
        id=RolloutId("ro"), release=ReleaseId("rel"), endpoint="e", state="canary", steps=steps, step=step,
        created_at=START, changed_at=START,
    )  # fmt: skip


def guard(name: str = "failures", harm: float = 0.0, noninferior: float = 0.0) -> Guard:
    return Guard(
        name=name,
        stable=900,
        candidate=100,
        stable_failed=9,
        candidate_failed=3,
        harm=harm,
        noninferior=noninferior,
    )


def evidence(*guards: Guard, requests: int = 100, labelled: int = 0, **changes: Any) -> Evidence:
    settings: dict[str, Any] = {
        "guards": guards or (guard(),), "candidate_requests": requests, "step_requests": requests, "step_labelled": labelled,
        "unlabelled": 0, "closed_until": START + timedelta(days=1),
    }  # fmt: skip
    return Evidence(**{**settings, **changes})


@pytest.mark.capability("I2", "I3")
@pytest.mark.parametrize(
    ("step", "found", "action", "to"),
    [
        (0, evidence(requests=99), "hold", 0),
        (0, evidence(requests=100), "advance", 1),
        (1, evidence(requests=100), "advance", 2),
        (2, evidence(requests=100), "hold", 2),
        (2, evidence(guard(noninferior=1.30)), "hold", 2),
        (2, evidence(guard(noninferior=ENOUGH)), "switch", 2),
        (2, evidence(guard(noninferior=9.0), requests=99), "hold", 2),
        (0, evidence(guard(harm=1.30)), "advance", 1),
        (0, evidence(guard(harm=ENOUGH), requests=3), "undo", 0),
        (2, evidence(guard(harm=ENOUGH, noninferior=9.0)), "undo", 2),
        (0, evidence(guard(), guard("wrong"), labelled=99), "hold", 0),
        (0, evidence(guard(), guard("wrong"), labelled=100), "advance", 1),
        (2, evidence(guard(noninferior=9.0), guard("wrong", noninferior=1.0), labelled=100), "hold", 2),
        (2, evidence(guard(noninferior=1.0), guard("wrong", noninferior=9.0), labelled=100), "hold", 2),
        (2, evidence(guard(noninferior=2.0), guard("wrong", noninferior=2.0), labelled=100), "switch", 2),
        (0, evidence(guard(harm=1.5), guard("wrong", harm=-9.0), labelled=100), "advance", 1),
        (0, evidence(guard(harm=1.7), guard("wrong", harm=-9.0), labelled=0), "undo", 0),
    ],
)
def test_the_next_step_follows_from_the_evidence(step: int, found: Evidence, action: str, to: int) -> None:
    decision = decide(rollout(step), POLICY, found)

    assert (decision.action, decision.step) == (action, to), decision.because


def test_a_plan_of_one_step_asks_for_non_inferiority_at_once() -> None:
    plan = rollout(0, steps=(50,))

    assert decide(plan, POLICY, evidence(requests=500)).action == "hold"
    assert decide(plan, POLICY, evidence(guard(noninferior=2.0))).action == "switch"


def test_a_held_endpoint_only_goes_back() -> None:
    good, bad = evidence(guard(noninferior=9.0)), evidence(guard(harm=9.0))

    assert decide(rollout(2), POLICY, good, held=True).action == "hold"
    assert decide(rollout(0), POLICY, good, held=True).action == "hold"
    assert decide(rollout(2), POLICY, bad, held=True).action == "undo"


def test_a_decision_says_the_counts_it_was_made_by() -> None:
    assert decide(rollout(), POLICY, evidence(guard(harm=2.0))).because == (
        "failures: candidate 3 of 100, stable 9 of 900: evidence of harm 1e2.0 reached 1e1.3"
    )
    assert (
        decide(rollout(), POLICY, evidence(requests=7)).because
        == "7 of 100 requests of the candidate in this step"
    )
    assert decide(rollout(2), POLICY, evidence(guard(noninferior=0.4))).because == (
        "failures: candidate 3 of 100, stable 9 of 900: evidence of non-inferiority 1e0.4 of 1e1.3"
    )


@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.floats(-300, 300), st.floats(-300, 300)), min_size=1, max_size=2),
    st.integers(0, 300),
    st.integers(0, 300),
    st.booleans(),
)
def test_nothing_goes_to_everybody_without_evidence(
    step: int, logs: list[tuple[float, float]], requests: int, labelled: int, held: bool
) -> None:
    guards = [guard(name, *log) for name, log in zip(("failures", "wrong"), logs, strict=False)]
    found = evidence(*guards, requests=requests, labelled=labelled)

    decision = decide(rollout(step), POLICY, found, held=held)

    if decision.action == "switch":
        assert not held
        assert all(one.noninferior >= 1.3 for one in guards)
        assert found.harm < ENOUGH
        assert (labelled if len(guards) == 2 else requests) >= 100
    if decision.action == "advance":
        assert not held
        assert decision.step == step + 1 < 3
    if found.harm > ENOUGH:
        assert decision.action == "undo"
