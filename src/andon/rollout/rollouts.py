"""The rollout's steps as transactions: each writes rollout, route, release and their events together.

All take a transaction and are called again safely: a step that has been taken is refused by the state machine.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from msgspec.structs import replace

from andon.core.canonical import Digest
from andon.core.entities import Release, Rollout, RouteRow
from andon.core.errors import Conflict, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, OverrideId, ReleaseId, RolloutId, new_id, node
from andon.core.policy import ReleasePolicy
from andon.core.routes import GENERATION_STEP
from andon.core.states import RolloutState, advance
from andon.registry.releases import go_live, undo_release, withdraw
from andon.store.ports import Reader, Transaction


def start(
    tx: Transaction, release: Release, policy: ReleasePolicy, *, actor: ActorId, at: datetime, data_at: datetime | None
) -> Rollout:
    """Plan the rollout of a release that may take traffic. The first release of an endpoint goes straight to all requests."""
    if existing := rollout_of(tx, release.id):
        return existing
    route = tx.routes.find(release.endpoint)
    first = route is None or route.stable is None
    steps = (100,) if first or policy.strategy == "direct" else policy.steps
    row = tx.rollouts.add(
        Rollout(
            id=RolloutId(new_id("rollout")), release=release.id, endpoint=release.endpoint, state="planned", steps=steps,
            step=0, created_at=at, changed_at=at, data_from=data_at, step_from=data_at,
        )
    )  # fmt: skip
    weight = steps[0]
    _move_route(tx, release.endpoint, actor=actor, at=at, candidate=release.id, weight_percent=weight)
    state: RolloutState = "switching" if weight == 100 else "canary"
    return _step(tx, row, state, actor=actor, at=at, because="first release" if first else f"{weight} % of requests")


def advance_step(
    tx: Transaction, rollout: Rollout, step: int, *, evidence: Digest, because: str, actor: ActorId, at: datetime,
    data_at: datetime | None,
) -> Rollout:  # fmt: skip
    """Give the candidate the next step's share of requests."""
    _move_route(tx, rollout.endpoint, actor=actor, at=at, weight_percent=rollout.steps[step])
    moved = replace(rollout, step=step, step_from=data_at, evidence=evidence)
    return _step(tx, moved, "canary", actor=actor, at=at, because=because)


def switch(
    tx: Transaction, rollout: Rollout, *, evidence: Digest, because: str, actor: ActorId, at: datetime
) -> Rollout:
    """Send all requests to the candidate; `finish` then makes it the stable release."""
    _move_route(tx, rollout.endpoint, actor=actor, at=at, weight_percent=100)
    moved = replace(rollout, step=len(rollout.steps) - 1, evidence=evidence)
    return _step(tx, moved, "switching", actor=actor, at=at, because=because)


def finish(tx: Transaction, rollout: Rollout, *, actor: ActorId, at: datetime) -> Rollout:
    """The candidate becomes the endpoint's live release; the one before stays warm for an undo."""
    route = tx.routes.get(rollout.endpoint)
    release = tx.releases.get(rollout.release)
    go_live(tx, release, actor=actor, at=at)
    _move_route(
        tx, rollout.endpoint, actor=actor, at=at,
        stable=release.id, previous=route.stable, candidate=None, weight_percent=0,
    )  # fmt: skip
    return _step(tx, rollout, "full", actor=actor, at=at, because="all requests")


def undo(
    tx: Transaction, endpoint: str, *, actor: ActorId, at: datetime, because: str, hold: bool,
    evidence: Digest | None = None, release: ReleaseId | None = None, adopted: OverrideId | None = None,
) -> tuple[ReleaseId, ReleaseId]:  # fmt: skip
    """Send all traffic back: from the candidate to stable, or from stable to the release before it.

    Args:
        hold: keep the endpoint where it is until a person releases (`resume`).
        release: undo this one only; by default the candidate if there is one, else the live release.

    Returns:
        The release undone and the one that answers now.

    Raises:
        NotFound: no such endpoint.
        Conflict: there is nothing to go back to, or `release` is not on the endpoint any more.
    """
    route = tx.routes.find(endpoint)
    if route is None or route.stable is None and route.candidate is None:
        known = ", ".join(row.id for row in tx.routes.select()) or "none"
        raise NotFound(f"endpoint {endpoint!r} serves nothing", hint=f"endpoints: {known}")
    target = release or route.candidate or route.stable
    back = route.stable if target == route.candidate else route.previous
    if target not in (route.candidate, route.stable):
        raise Conflict(f"release {target} is not on endpoint {endpoint!r} any more", hint="nothing was changed")
    if target is None or back is None:
        raise Conflict(
            f"endpoint {endpoint!r} has no release to go back to: {target} is its first",
            hint="stop the gateway to stop answering",
        )
    undo_release(tx, tx.releases.get(target), because=because, actor=actor, at=at)
    if rollout := rollout_of(tx, target):
        if rollout.state != "undone":
            _step(tx, replace(rollout, evidence=evidence or rollout.evidence), "undone", actor=actor, at=at, because=because)
    stable_gone = target == route.stable
    if stable_gone and route.candidate is not None:
        _stop_candidate(tx, route.candidate, actor=actor, at=at)
    _move_route(
        tx, endpoint, actor=actor, at=at, stable=back, candidate=None, weight_percent=0,
        previous=None if stable_gone else route.previous, held=hold or route.held,
        adopted=(*route.adopted, adopted) if adopted else route.adopted,
    )  # fmt: skip
    return target, back


def mark_adopted(tx: Transaction, endpoint: str, override: OverrideId, *, actor: ActorId, at: datetime) -> None:
    """Take note of an override whose release has left the endpoint already; the endpoint is held all the same."""
    route = tx.routes.get(endpoint)
    _move_route(tx, endpoint, actor=actor, at=at, held=True, adopted=(*route.adopted, override))


def resume(tx: Transaction, endpoint: str, *, actor: ActorId, at: datetime) -> RouteRow:
    """Let a held endpoint move forward again.

    Raises:
        NotFound: no such endpoint.
    """
    route = tx.routes.get(endpoint)
    if not route.held:
        return route
    return _move_route(tx, endpoint, actor=actor, at=at, held=False)


def pause(tx: Transaction, rollout: Rollout, *, actor: ActorId, at: datetime, because: str) -> Rollout:
    """Keep a rollout where it is; its share of requests stays."""
    return _step(tx, replace(rollout, paused_from=rollout.state), "paused", actor=actor, at=at, because=because)


def rollout_of(reader: Reader, release: ReleaseId) -> Rollout | None:
    """The rollout of a release, if it has begun."""
    found = reader.rollouts.select({"release": release}, limit=1)
    return found[0] if found else None


def _stop_candidate(tx: Transaction, release: ReleaseId, *, actor: ActorId, at: datetime) -> None:
    """A candidate cannot go on when the stable release it was compared with is undone."""
    because = "the stable release it was compared with was undone"
    withdraw(tx, tx.releases.get(release), because=because, actor=actor, at=at)
    if rollout := rollout_of(tx, release):
        _step(tx, rollout, "undone", actor=actor, at=at, because=because)


def _step(
    tx: Transaction, rollout: Rollout, to: RolloutState, *, actor: ActorId, at: datetime, because: str
) -> Rollout:
    advance("rollout", f"rollout {rollout.id}", rollout.state, to)
    kind = {"full": "rollout.full", "undone": "rollout.undone", "paused": "rollout.paused"}.get(to, "rollout.advanced")
    tx.ledger.append(
        EventDraft(
            kind=kind, actor=actor, at=at, subject=node("rollout", rollout.id), inputs=(node("release", rollout.release),),
            facts={"state": to, "step": rollout.step, "percent": rollout.steps[rollout.step], "endpoint": rollout.endpoint,
                   "evidence": rollout.evidence},
            note=because,
        )
    )  # fmt: skip
    return tx.rollouts.change(replace(rollout, state=to, changed_at=at, because=because))


def _move_route(tx: Transaction, endpoint: str, *, actor: ActorId, at: datetime, **changes: object) -> RouteRow:
    """A new generation of an endpoint's route, in the workspace's present epoch."""
    epoch = tx.workspaces.get("workspace").epoch
    route = tx.routes.find(endpoint)
    if route is None:
        plain = RouteRow(
            id=endpoint, epoch=epoch, generation=0, salt=secrets.token_hex(8), stable=None, candidate=None, previous=None,
            weight_percent=0, held=False, adopted=(), changed_at=at,
        )  # fmt: skip
        route = tx.routes.add(plain)
    if "candidate" in changes and changes["candidate"] not in (None, route.candidate):
        # A new salt for each candidate: who saw the last one first is not always the same group.
        changes["salt"] = secrets.token_hex(8)
    moved = replace(route, epoch=epoch, generation=route.generation + GENERATION_STEP, changed_at=at, **changes)
    row = tx.routes.change(moved)
    arms = tuple(node("release", arm) for arm in (row.stable, row.candidate, row.previous) if arm)
    tx.ledger.append(
        EventDraft(
            kind="route.held" if row.held and not route.held else "route.changed", actor=actor, at=at,
            subject=node("endpoint", endpoint), inputs=arms,
            facts={"generation": row.generation, "stable": row.stable, "candidate": row.candidate,
                   "previous": row.previous, "percent": row.weight_percent, "held": row.held},
        )
    )  # fmt: skip
    return row
