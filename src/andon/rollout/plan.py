"""What a rollout does next: a pure function of its row, its policy and its evidence.

Undo is quick and asks only for evidence of harm. Moving forward asks for traffic and labels at each step, and going to all
requests asks for evidence of non-inferiority: no evidence means hold, never promote.
"""

from __future__ import annotations

from math import log10
from typing import Literal

import msgspec

from andon.core.entities import Rollout
from andon.core.policy import ReleasePolicy
from andon.rollout.evidence import Evidence, Guard


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One safe step, or none. `step` is the index to move to when advancing."""

    action: Literal["hold", "advance", "switch", "undo"]
    step: int
    because: str


def decide(rollout: Rollout, policy: ReleasePolicy, evidence: Evidence, *, held: bool = False) -> Decision:
    """The next step of a rollout that is in its canary.

    The chance that a harmless candidate is undone, over all looks together, is at most `policy.alpha` (Ville's inequality);
    so is, for each guard, the chance that a candidate at the margin goes to all requests.

    Args:
        rollout: the row.
        policy: what its release was judged by.
        evidence: of the rollout so far.
        held: a person's undo holds the endpoint: the way back stays open, the way forward does not.
    """
    line = -log10(policy.alpha)
    if evidence.harm >= line:
        worst = max(evidence.guards, key=lambda guard: guard.harm)
        return _stay(
            rollout, "undo", f"{_counts(worst)}: evidence of harm 1e{evidence.harm:.1f} reached 1e{line:.1f}"
        )
    if held:
        return _stay(rollout, "hold", "the endpoint is held until a person releases it")
    labelled = any(guard.name == "wrong" for guard in evidence.guards)
    ready = evidence.step_labelled if labelled else evidence.step_requests
    if ready < policy.min_requests:
        kind = "labelled requests" if labelled else "requests"
        return _stay(
            rollout, "hold", f"{ready} of {policy.min_requests} {kind} of the candidate in this step"
        )
    following = rollout.steps[rollout.step + 1] if rollout.step + 1 < len(rollout.steps) else 100
    if following < 100:
        return Decision(
            action="advance", step=rollout.step + 1, because=f"{ready} requests, no evidence of harm"
        )
    weak = [guard for guard in evidence.guards if guard.noninferior < line]
    if weak:
        shown = f"evidence of non-inferiority 1e{weak[0].noninferior:.1f} of 1e{line:.1f}"
        return _stay(rollout, "hold", f"{_counts(weak[0])}: {shown}")
    shown = "; ".join(
        f"{_counts(guard)}, non-inferior at 1e{guard.noninferior:.1f}" for guard in evidence.guards
    )
    return Decision(action="switch", step=rollout.step, because=shown)


def _stay(rollout: Rollout, action: Literal["hold", "undo"], because: str) -> Decision:
    return Decision(action=action, step=rollout.step, because=because)


def _counts(guard: Guard) -> str:
    return (
        f"{guard.name}: candidate {guard.candidate_failed} of {guard.candidate}, "
        f"stable {guard.stable_failed} of {guard.stable}"
    )
