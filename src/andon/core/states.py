"""The state machines, as data: which step is allowed from where. Every change of state goes through `advance`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from andon.core.errors import InvalidTransition

RunState = Literal["queued", "running", "finished", "failed", "killed", "blocked"]
VersionState = Literal["candidate", "rejected", "eligible", "approved", "retired"]
ReleaseState = Literal[
    "requested", "judging", "waiting", "rolling", "live", "superseded", "undone", "refused", "withdrawn"
]
RolloutState = Literal["planned", "shadow", "canary", "switching", "full", "paused", "undone"]
DatasetState = Literal["valid", "blocked"]
AlertState = Literal["open", "closed"]
LoggedModelState = Literal["pending", "ready", "failed"]
Stage = Literal["None", "Staging", "Production", "Archived"]

RUN: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"running", "killed"}),
    "running": frozenset({"queued", "finished", "failed", "killed", "blocked"}),
    "finished": frozenset(),
    "failed": frozenset(),
    "killed": frozenset(),
    "blocked": frozenset(),
}
"""`running > queued` is the way back of a run whose worker died: it is taken up again under a new fence."""

_TRACKED = frozenset({"queued", "running", "finished", "failed", "killed"})
TRACKED_RUN: Mapping[str, frozenset[str]] = {state: _TRACKED - {state} for state in _TRACKED}
"""A run that a client tracks goes where the client says, and may be taken up again after its end."""

MODEL_VERSION: Mapping[str, frozenset[str]] = {
    "candidate": frozenset({"rejected", "eligible"}),
    "eligible": frozenset({"approved", "rejected", "retired"}),
    "approved": frozenset({"retired"}),
    "rejected": frozenset({"retired"}),
    "retired": frozenset(),
}

RELEASE: Mapping[str, frozenset[str]] = {
    "requested": frozenset({"judging", "withdrawn"}),
    "judging": frozenset({"waiting", "rolling", "refused", "withdrawn"}),
    "waiting": frozenset({"rolling", "refused", "withdrawn"}),
    "rolling": frozenset({"live", "undone", "withdrawn"}),
    "live": frozenset({"superseded", "undone"}),
    "superseded": frozenset({"live"}),
    "undone": frozenset(),
    "refused": frozenset(),
    "withdrawn": frozenset(),
}
"""`superseded > live` is the stable release that an undo brings back."""

ROLLOUT: Mapping[str, frozenset[str]] = {
    "planned": frozenset({"shadow", "canary", "switching", "undone"}),
    "shadow": frozenset({"canary", "switching", "paused", "undone"}),
    "canary": frozenset({"canary", "switching", "paused", "undone"}),
    "switching": frozenset({"full", "undone"}),
    "paused": frozenset({"shadow", "canary", "switching", "undone"}),
    "full": frozenset({"undone"}),
    "undone": frozenset(),
}

ALERT: Mapping[str, frozenset[str]] = {"open": frozenset({"closed"}), "closed": frozenset()}

MACHINES: Mapping[str, Mapping[str, frozenset[str]]] = {
    "run": RUN,
    "tracked_run": TRACKED_RUN,
    "model_version": MODEL_VERSION,
    "release": RELEASE,
    "rollout": ROLLOUT,
    "alert": ALERT,
}

IN_PROGRESS: tuple[ReleaseState, ...] = ("requested", "judging", "waiting", "rolling")
"""Releases that still move: at most one for each endpoint."""

State = TypeVar("State", bound=str)


def advance(machine: str, thing: str, current: str, to: State) -> State:
    """The new state, when the machine allows the step.

    Raises:
        InvalidTransition: it does not.

    >>> advance("run", "run r1", "queued", "running")
    'running'
    """
    allowed = MACHINES[machine][current]
    if to not in allowed:
        ways = ", ".join(sorted(allowed)) or "nothing: it has ended"
        raise InvalidTransition(
            f"{thing} is {current} and cannot become {to}", hint=f"from {current} it may become {ways}"
        )
    return to


def ended(machine: str, state: str) -> bool:
    """Whether nothing can follow.

    >>> ended("run", "finished"), ended("run", "running")
    (True, False)
    """
    return not MACHINES[machine][state]
