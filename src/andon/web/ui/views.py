"""What the Now page shows, as frozen values: the page, its fragments and its JSON twin are all made of these."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from andon.web.traffic import Answers, Slot
from andon.web.ui.words import Change

Level = Literal["good", "watch", "bad", "held", "quiet"]
"""How something does, worst first: bad, held (an undo keeps it where it is), watch, quiet (nobody asks), good."""


class ArmView(msgspec.Struct, frozen=True, kw_only=True):
    """A release that answers: its share of requests and how it answers."""

    role: Literal["stable", "candidate"]
    label: str
    model: str
    version: int
    release: str
    share: float
    since: datetime | None
    answers: Answers


class LastChange(msgspec.Struct, frozen=True, kw_only=True):
    """The newest release that moved on an endpoint: what became of it, who did it, why, and what the gates had said."""

    what: str
    who: str
    at: datetime
    why: str
    reason: str
    gate: str
    gate_passed: bool | None
    release: str


class UndoOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What pressing Undo would do. `release` goes, `back_to` answers all requests."""

    effect: str
    release: str
    gone: str
    back_to: str


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint, one row of the page. `held` means that nothing moves forward on it until a person resumes.

    `answers` are those of the releases that answer now; `gone` those of releases that no longer do.
    """

    name: str
    line: str
    level: Level
    state: str
    health: str
    generation: int
    arms: tuple[ArmView, ...]
    answers: Answers
    gone: Answers
    slots: tuple[Slot, ...]
    change: LastChange | None
    held: bool
    undo: UndoOffer | None
    call: str
    alerts: int


class GuardView(msgspec.Struct, frozen=True, kw_only=True):
    """One guarded outcome at the last decision: counts of both arms, and evidence as log10 of odds to one."""

    name: str
    stable: int
    stable_failed: int
    candidate: int
    candidate_failed: int
    harm: float | None
    noninferior: float | None


class RolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """A release on its way: its steps, and the evidence that moves or holds it."""

    release: str
    label: str
    endpoint: str
    state: str
    steps: tuple[int, ...]
    step: int
    since: datetime
    because: str
    candidate: Answers
    stable: Answers
    guards: tuple[GuardView, ...]
    decided: str


class WaitingView(msgspec.Struct, frozen=True, kw_only=True):
    """A release that waits: for approvals, or for a person to let a held endpoint move again."""

    release: str
    label: str
    endpoint: str
    state: str
    since: datetime
    who: str
    approvals: int
    needed: int


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor's finding that is still open."""

    id: str
    line: str
    monitor: str
    subject: str
    summary: str
    since: datetime


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run: what it came from and what came of it."""

    id: str
    label: str
    line: str
    state: str
    tone: Level
    who: str
    why: str
    result: str
    at: datetime


class NowView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole page. `seq` is the ledger position it shows, `more` how many endpoints did not fit."""

    workspace: str
    seq: int
    at: datetime
    level: Level
    headline: str
    summary: str
    gateways: str
    gateways_ok: bool
    endpoints: tuple[EndpointView, ...]
    more: int
    rollouts: tuple[RolloutView, ...]
    waiting: tuple[WaitingView, ...]
    alerts: tuple[AlertView, ...]
    alerts_open: int
    runs: tuple[RunView, ...]
    changes: tuple[Change, ...]
    lines: tuple[str, ...]
    notes: tuple[str, ...] = ()
