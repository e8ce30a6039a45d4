"""The rollout's steps as transactions: each writes rollout, route, release and their events together.

All take a transaction and are called again safely: a step that has been taken is refused by the state machine. Steps forward
are refused while a person's undo holds the endpoint; the way back is always open.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from msgspec.structs import replace

from andon.core.canonical import Digest
from andon.core.entities import Release, Rollout, RouteRow
from andon.core.errors import Conflict, InvalidTransition, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, OverrideId, ReleaseId, RolloutId, new_id, node
from andon.core.policy import ReleasePolicy
from andon.core.routes import GENERATION_STEP
from andon.core.states import RolloutState, advance
from andon.registry.releases import go_live, undo_release, withdraw
from andon.store.ports import Reader, Transaction

_MOST_STEPS = 1000
_KINDS = {"full": "rollout.full", "undone": "rollout.undone", "paused": "rollout.paused"}


def start(
    tx: Transaction,
    release: Release,
    policy: ReleasePolicy,
    *,
    actor: ActorId,
    at: datetime,
    data_at: datetime | None,
) -> Rollout:
    """Plan the rollout of a release that may take traffic, and take its first step; starting it again gives the one there is.

    The first release of an endpoint goes straight to all requests: there is nothing to compare it with or to go back to.

    Raises:
        Conflict: the endpoint is held, or another candidate is on it.
    """
    if existing := rollout_of(tx, release.id):
        return existing
    _check_forward(tx, release.endpoint)
    route = tx.routes.find(release.endpoint)
    if route is not None and route.candidate is not None:
        raise Conflict(f"endpoint {release.endpoint!r} has the candidate {route.candidate} already")
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
    because = "first release" if first else f"{weight} % of requests"
    return _step(tx, row, state, actor=actor, at=at, because=because)


def advance_step(
    tx: Transaction, rollout: Rollout, step: int, *, evidence: Digest, because: str, actor: ActorId, at: datetime,
    data_at: datetime | None,
) -> Rollout:  # fmt: skip
    """Give the candidate the next step's share of requests.

    Raises:
        Conflict: the endpoint is held.
        InvalidTransition: the rollout is not in its canary, or `step` is not the next.
    """
    _check_forward(tx, rollout.endpoint)
    if step != rollout.step + 1 or step >= len(rollout.steps):
        raise InvalidTransition(
            f"rollout {rollout.id} is at step {rollout.step} of {len(rollout.steps)} and cannot go to step {step}"
        )
    _move_route(tx, rollout.endpoint, actor=actor, at=at, weight_percent=rollout.steps[step])
    moved = replace(rollout, step=step, step_from=data_at, evidence=evidence)
    return _step(tx, moved, "canary", actor=actor, at=at, because=because)


def switch(
    tx: Transaction, rollout: Rollout, *, evidence: Digest, because: str, actor: ActorId, at: datetime
) -> Rollout:
    """Send all requests to the candidate; `finish` then makes it the stable release.

    Raises:
        Conflict: the endpoint is held.
        InvalidTransition: the rollout is not in its canary.
    """
    _check_forward(tx, rollout.endpoint)
    _move_route(tx, rollout.endpoint, actor=actor, at=at, weight_percent=100)
    moved = replace(rollout, step=len(rollout.steps) - 1, evidence=evidence)
    return _step(tx, moved, "switching", actor=actor, at=at, because=because)


def finish(tx: Transaction, rollout: Rollout, *, actor: ActorId, at: datetime) -> Rollout:
    """The candidate becomes the endpoint's live release; the one before stays warm for an undo.

    Raises:
        Conflict: the endpoint is held.
        InvalidTransition: the rollout is not switching.
    """
    _check_forward(tx, rollout.endpoint)
    route = tx.routes.get(rollout.endpoint)
    release = tx.releases.get(rollout.release)
    done = _step(tx, rollout, "full", actor=actor, at=at, because="all requests")
    go_live(tx, release, actor=actor, at=at)
    _move_route(
        tx, rollout.endpoint, actor=actor, at=at,
        stable=release.id, previous=route.stable, candidate=None, weight_percent=0,
    )  # fmt: skip
    return done


def undo(
    tx: Transaction, endpoint: str, *, actor: ActorId, at: datetime, because: str, hold: bool,
    evidence: Digest | None = None, release: ReleaseId | None = None, adopted: OverrideId | None = None,
) -> tuple[ReleaseId, ReleaseId]:  # fmt: skip
    """Send all traffic back: from the candidate to stable, or from stable to the release before it.

    An undo never leaves an endpoint without a release, and one step back is as far as it goes: the release before is warm
    at the gateways, the one before that is not.

    Args:
        tx: a transaction.
        endpoint: where.
        actor: who does it.
        at: wall time.
        because: why, in words that are kept out of the ledger's own bytes.
        hold: keep the endpoint where it is until a person releases (`resume`).
        evidence: what the decision was made by, when it was made by evidence.
        release: undo this one only; by default the candidate if there is one, else the live release.
        adopted: the override that this undo takes in.

    Returns:
        The release undone and the one that answers now.

    Raises:
        NotFound: no such endpoint.
        Conflict: there is nothing to go back to, or `release` is not on the endpoint any more.
    """
    route = tx.routes.find(endpoint)
    if route is None or (route.stable is None and route.candidate is None):
        known = ", ".join(row.id for row in tx.routes.select()) or "none"
        raise NotFound(f"endpoint {endpoint!r} serves nothing", hint=f"endpoints: {known}")
    target = release or route.candidate or route.stable
    back = route.stable if target == route.candidate else route.previous
    if target not in (route.candidate, route.stable):
        raise Conflict(
            f"release {target} is not on endpoint {endpoint!r} any more", hint="nothing was changed"
        )
    if target is None or back is None:
        raise Conflict(
            f"endpoint {endpoint!r} has no release to go back to from {target}",
            hint="stop the gateway to stop answering",
        )
    undo_release(tx, tx.releases.get(target), because=because, actor=actor, at=at)
    _end_rollout(tx, target, because=because, evidence=evidence, actor=actor, at=at)
    stable_gone = target == route.stable
    if stable_gone and route.candidate is not None:
        _stop_candidate(tx, route.candidate, actor=actor, at=at)
    _move_route(
        tx, endpoint, actor=actor, at=at, stable=back, candidate=None, weight_percent=0,
        previous=None if stable_gone else route.previous, held=hold or route.held,
        adopted=_adopted(tx, route, adopted),
    )  # fmt: skip
    return target, back


def mark_adopted(
    tx: Transaction, endpoint: str, override: OverrideId, release: ReleaseId, *, actor: ActorId, at: datetime
) -> None:
    """Take note of an override that finds nothing to send back: its release has left the endpoint, or is its only one.

    The endpoint is held all the same. Somebody did not want the release, so it is no standby for a later undo either.
    """
    route = tx.routes.get(endpoint)
    _move_route(
        tx, endpoint, actor=actor, at=at, held=True, previous=None if route.previous == release else route.previous,
        adopted=_adopted(tx, route, override),
    )  # fmt: skip


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
    """Keep a rollout where it is; its share of requests stays, and so does the way back.

    Raises:
        InvalidTransition: it is not in a step in which it can wait.
    """
    return _step(
        tx, replace(rollout, paused_from=rollout.state), "paused", actor=actor, at=at, because=because
    )


def proceed(tx: Transaction, rollout: Rollout, *, actor: ActorId, at: datetime) -> Rollout:
    """Let a paused rollout go on from where it was.

    Raises:
        Conflict: the endpoint is held.
        InvalidTransition: it is not paused.
    """
    _check_forward(tx, rollout.endpoint)
    if rollout.state != "paused" or rollout.paused_from is None:
        raise InvalidTransition(f"rollout {rollout.id} is {rollout.state} and not paused")
    going = replace(rollout, paused_from=None)
    return _step(
        tx,
        going,
        rollout.paused_from,
        actor=actor,
        at=at,
        because="it goes on",
        kind="rollout.resumed",
    )


def rollout_of(reader: Reader, release: ReleaseId) -> Rollout | None:
    """The rollout of a release, if it has begun."""
    found = reader.rollouts.select({"release": release}, limit=1)
    return found[0] if found else None


def began(reader: Reader, rollout: Rollout) -> tuple[int, int]:
    """Epoch and generation of the route that began a rollout; answers of older routes are not part of it.

    Raises:
        NotFound: the ledger does not know it.
    """
    events = reader.ledger.latest(limit=_MOST_STEPS, subject=node("rollout", rollout.id))
    if not events:
        raise NotFound(f"the ledger has no event of rollout {rollout.id}")
    return events[-1].epoch, int(events[-1].facts["generation"] or 0)


def _check_forward(reader: Reader, endpoint: str) -> None:
    route = reader.routes.find(endpoint)
    if route is not None and route.held:
        raise Conflict(f"endpoint {endpoint!r} is held after an undo", hint="let it move again with 'resume'")


def _stop_candidate(tx: Transaction, release: ReleaseId, *, actor: ActorId, at: datetime) -> None:
    """A candidate cannot go on when the stable release it was compared with is undone."""
    because = "the stable release it was compared with was undone"
    withdraw(tx, tx.releases.get(release), because=because, actor=actor, at=at)
    _end_rollout(tx, release, because=because, evidence=None, actor=actor, at=at)


def _end_rollout(
    tx: Transaction,
    release: ReleaseId,
    *,
    because: str,
    evidence: Digest | None,
    actor: ActorId,
    at: datetime,
) -> None:
    rollout = rollout_of(tx, release)
    if rollout is not None and rollout.state != "undone":
        ending = replace(rollout, evidence=evidence or rollout.evidence)
        _step(tx, ending, "undone", actor=actor, at=at, because=because)


def _step(
    tx: Transaction,
    rollout: Rollout,
    to: RolloutState,
    *,
    actor: ActorId,
    at: datetime,
    because: str,
    kind: str | None = None,
) -> Rollout:
    advance("rollout", f"rollout {rollout.id}", rollout.state, to)
    tx.ledger.append(
        EventDraft(
            kind=kind or _KINDS.get(to, "rollout.advanced"), actor=actor, at=at, subject=node("rollout", rollout.id),
            inputs=(node("release", rollout.release),),
            facts={"state": to, "step": rollout.step, "percent": rollout.steps[rollout.step], "endpoint": rollout.endpoint,
                   "evidence": rollout.evidence, "generation": tx.routes.get(rollout.endpoint).generation},
            note=because,
        )
    )  # fmt: skip
    return tx.rollouts.change(replace(rollout, state=to, changed_at=at, because=because))


def _adopted(tx: Transaction, route: RouteRow, override: OverrideId | None) -> tuple[OverrideId, ...]:
    """The overrides that the route has taken in; those of an older epoch are void and need no mention."""
    known = route.adopted if route.epoch == _epoch(tx) else ()
    return known if override is None else (*known, override)


def _epoch(reader: Reader) -> int:
    return reader.workspaces.get("workspace").epoch


def _move_route(
    tx: Transaction, endpoint: str, *, actor: ActorId, at: datetime, **changes: object
) -> RouteRow:
    """A new generation of an endpoint's route, in the workspace's present epoch."""
    epoch = _epoch(tx)
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
    plain_changes = {"adopted": _adopted(tx, route, None), **changes}
    moved = replace(
        route, epoch=epoch, generation=route.generation + GENERATION_STEP, changed_at=at, **plain_changes
    )
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
