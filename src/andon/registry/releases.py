"""Releases: the only way a model version gets to an endpoint, as verbs that each move one row with its event.

```
requested > judging > waiting > rolling > live > superseded
                 \\_______________/  \\     \\ \\_ undone
                  refused, withdrawn  undone    (superseded > live when the release after it is undone)
```

Whatever asks (the line itself, a person, a foreign client) comes through here. A release rolls only with a passing
verdict for exactly its version's digest, endpoint and policy, and with the approvals its policy asks for, of people who
are no authors of it; both are checked again when it goes live. The store's own rule allows one live release and one in
progress for each endpoint.

All verbs take a transaction, so that a caller can move routes and rollouts with them or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from andon.core.canonical import Digest
from andon.core.entities import Approval, ModelVersion, Release, Run, Verdict
from andon.core.errors import Conflict, Forbidden, Invalid, InvalidTransition
from andon.core.events import EventDraft, Fact
from andon.core.ids import ActorId, ApprovalId, Node, ReleaseId, RunId, check_name, new_id, node
from andon.core.states import IN_PROGRESS, ReleaseState, advance
from andon.store.ports import Reader, Transaction

_MOST_CHANGES = 1000


def request_release(
    tx: Transaction,
    *,
    endpoint: str,
    line: str,
    version: ModelVersion,
    policy: Digest,
    run: RunId | None,
    strategy: Literal["direct", "canary"],
    approvals_needed: int,
    cause: Node,
    actor: ActorId,
    at: datetime,
) -> Release:
    """Ask for a version to go live on an endpoint. Asking again while its release is in progress gives that release.

    Args:
        tx: a transaction.
        endpoint: where it shall answer.
        line: whose policy rules.
        version: what shall answer.
        policy: digest of the policy that it is judged and rolled out by.
        run: what made the version, if that is known.
        strategy, approvals_needed: as the policy says.
        cause: node of what led to the request.
        actor: who asks.
        at: wall time.

    Raises:
        Conflict: another version is on its way to the endpoint, or this one answers there already; the message names it.
        Invalid: the version was retired or deleted, or the endpoint's name cannot be one.
    """
    check_name("endpoint", endpoint)
    what = f"{version.model}/{version.number}"
    if version.state == "retired":
        raise Invalid(f"{what} is retired and cannot be released", hint="release another version")
    if version.deleted_at is not None:
        raise Invalid(f"{what} was deleted and cannot be released", hint="release another version")
    if moving := in_progress(tx, endpoint):
        if moving.model_version == version.id:
            return moving
        raise Conflict(
            f"release {moving.id} of {moving.model}/{moving.number} is on its way to endpoint {endpoint!r} ({moving.state})",
            hint="wait until it has ended, or withdraw it",
        )
    live = live_release(tx, endpoint)
    if live and live.model_version == version.id:
        raise Conflict(f"{what} is live on endpoint {endpoint!r} already, by release {live.id}")
    release = tx.releases.add(
        Release(
            id=ReleaseId(new_id("release")), endpoint=endpoint, line=line, model=version.model, number=version.number,
            model_version=version.id, version_digest=version.digest, policy=policy, run=run, state="requested",
            strategy=strategy, approvals_needed=approvals_needed, cause=cause, actor=actor, created_at=at, changed_at=at,
        )
    )  # fmt: skip
    inputs = tuple(dict.fromkeys((node("model_version", version.id), node("policy", policy), cause)))
    facts: dict[str, Fact] = {
        "endpoint": endpoint, "digest": version.digest, "strategy": strategy, "approvals_needed": approvals_needed
    }  # fmt: skip
    _say(tx, release, actor, at, inputs=inputs, facts=facts)
    return release


def judging(tx: Transaction, release: Release, *, actor: ActorId, at: datetime) -> Release:
    """Begin to look for the release's verdict and approvals."""
    return _move(tx, release, "judging", actor, at)


def start_rolling(
    tx: Transaction, release: Release, verdict: Verdict, *, actor: ActorId, at: datetime
) -> Release:
    """Let a judged release take traffic, or wait for approvals when its policy asks for more than it has.

    What comes back is `rolling` or `waiting`. A release that waits already and still lacks approvals comes back as it is.

    Raises:
        Forbidden: the verdict did not pass, or is not for this digest, endpoint and policy.
        InvalidTransition: the release is not being judged and does not wait.
    """
    if release.state not in ("judging", "waiting"):
        _refuse_step(release, "rolling")
    _check_verdict(release, verdict)
    approvals = counting_approvals(tx, release)
    lacking = release.approvals_needed - len(approvals)
    if lacking > 0:
        if release.state == "waiting":
            return release
        waits = replace(release, verdict=verdict.id)
        return _move(
            tx,
            waits,
            "waiting",
            actor,
            at,
            inputs=(node("verdict", verdict.id),),
            facts={"approvals_lacking": lacking},
        )
    inputs = (node("verdict", verdict.id), *(node("approval", approval.id) for approval in approvals))
    if approvals:
        _mark_approved(tx, release, approvals, actor, at)
    return _move(tx, replace(release, verdict=verdict.id), "rolling", actor, at, inputs=inputs)


def approve(tx: Transaction, release: Release, *, actor: ActorId, at: datetime) -> Approval:
    """A person's word for a release, valid for its digest under its policy only. Saying it again changes nothing.

    Raises:
        Forbidden: the actor is no person, or an author: who made the version's run or the version, or asked for the release.
        InvalidTransition: the release needs no word any more.
    """
    if release.state not in ("requested", "judging", "waiting"):
        raise InvalidTransition(
            f"release {release.id} is {release.state} and takes no approval",
            hint="only a release that has not begun does",
        )
    known = tx.actors.get(actor)
    if known.kind != "person":
        raise Forbidden(f"a {known.kind} cannot approve release {release.id}", hint="a person has to")
    if actor in authors(tx, release):
        raise Forbidden(
            f"an author of release {release.id} cannot approve it",
            hint="somebody who had no part in it has to",
        )
    given = tx.approvals.select({"release": release.id, "actor": actor, **_holds_for(release)}, limit=1)
    if given:
        return given[0]
    approval = tx.approvals.add(
        Approval(
            id=ApprovalId(new_id("approval")), release=release.id, version_digest=release.version_digest,
            policy=release.policy, actor=actor, created_at=at,
        )
    )  # fmt: skip
    tx.ledger.append(
        EventDraft(
            kind="approval.given", actor=actor, at=at, subject=node("approval", approval.id),
            inputs=(node("model_version", release.model_version),),
            facts={"release": release.id, "endpoint": release.endpoint, "digest": release.version_digest,
                   "policy": release.policy},
        )
    )  # fmt: skip
    return approval


def refuse(tx: Transaction, release: Release, *, because: str, actor: ActorId, at: datetime) -> Release:
    """End a release that gates or policy do not let through."""
    return _move(tx, replace(release, because=because), "refused", actor, at, because=because)


def withdraw(tx: Transaction, release: Release, *, because: str, actor: ActorId, at: datetime) -> Release:
    """End a release that has not gone live, because nobody wants it any more."""
    return _move(tx, replace(release, because=because), "withdrawn", actor, at, because=because)


def go_live(tx: Transaction, release: Release, *, actor: ActorId, at: datetime) -> Release:
    """Make a rolling release the endpoint's live one; the one before it is superseded in the same transaction.

    Raises:
        Forbidden: its verdict or its approvals do not hold.
        InvalidTransition: it is not rolling.
    """
    if release.state != "rolling":
        _refuse_step(release, "live")
    if release.verdict is None:
        raise Forbidden(f"release {release.id} has no verdict", hint="gates have to judge it first")
    _check_verdict(release, tx.verdicts.get(release.verdict))
    if len(counting_approvals(tx, release)) < release.approvals_needed:
        raise Forbidden(f"release {release.id} lacks approvals", hint="approve it first")
    before = live_release(tx, release.endpoint)
    if before:
        _move(tx, before, "superseded", actor, at, facts={"by": release.id})
    previous = before.id if before else None
    return _move(tx, replace(release, previous=previous), "live", actor, at, facts={"previous": previous})


def undo_release(tx: Transaction, release: Release, *, because: str, actor: ActorId, at: datetime) -> Release:
    """Take a rolling or live release back. When it was live, the release before it is live again, if there was one.

    Needs no second person.

    Raises:
        InvalidTransition: it is neither rolling nor live.
    """
    undone = _move(tx, replace(release, because=because), "undone", actor, at, because=because)
    if release.state == "live" and (back := standby(tx, release)):
        _move(tx, back, "live", actor, at, facts={"undone": release.id})
    return undone


def standby(reader: Reader, release: Release) -> Release | None:
    """The release that an undo of this one brings back: the one it superseded."""
    before = reader.releases.find(release.previous) if release.previous else None
    return before if before and before.state == "superseded" else None


def in_progress(reader: Reader, endpoint: str) -> Release | None:
    """The release that is on its way to an endpoint."""
    found = reader.releases.select({"endpoint": endpoint, "state": IN_PROGRESS}, limit=1)
    return found[0] if found else None


def live_release(reader: Reader, endpoint: str) -> Release | None:
    """The release that an endpoint is meant to answer with."""
    found = reader.releases.select({"endpoint": endpoint, "state": "live"}, limit=1)
    return found[0] if found else None


def authors(reader: Reader, release: Release) -> set[ActorId]:
    """Who can never approve a release: who started its run, logged or made its version, or asked for it.

    And whose code and policy the run carried, since a line starts runs by itself: who changed them last before it, and
    all who did since the run of the version that is live now.
    """
    version = reader.model_versions.get(release.model_version)
    runs = [run for run in (_run(reader, release.run), _run(reader, version.run)) if run]
    logged = reader.logged_models.find(version.logged_model) if version.logged_model else None
    changers = _changers(reader, release, _run(reader, version.run))
    return {
        release.actor, version.actor, *(run.actor for run in runs), *([logged.actor] if logged else [])
    } | changers  # fmt: skip


def _run(reader: Reader, ident: RunId | None) -> Run | None:
    """The run that something says it came from, if there is one and its row was not removed."""
    return reader.runs.find(ident) if ident else None


def _changers(reader: Reader, release: Release, made: Run | None) -> set[ActorId]:
    """Who changed the line of the run that made the version; of what no line made, the line that it is released by."""
    line, until = release.line, release.created_at
    if made is not None and made.line is not None:
        line, until = made.line, made.created_at
    live = live_release(reader, release.endpoint)
    run = _run(reader, live.run) if live else None
    since = run.created_at if run else live.created_at if live else None
    changes = [
        event
        for event in reader.ledger.latest(limit=_MOST_CHANGES, subject=node("line", line))
        if event.kind == "line.changed" and event.at <= until
    ]
    return {
        event.actor for index, event in enumerate(changes) if index == 0 or since is None or event.at > since
    }


def counting_approvals(reader: Reader, release: Release) -> list[Approval]:
    """The approvals that count for a release: for its digest under its policy, one a person, of no author."""
    mine = authors(reader, release)
    given = reader.approvals.select({"release": release.id, **_holds_for(release)}, order=("created_at",))
    return list({approval.actor: approval for approval in given if approval.actor not in mine}.values())


def _holds_for(release: Release) -> dict[str, str]:
    return {"version_digest": release.version_digest, "policy": release.policy}


def _check_verdict(release: Release, verdict: Verdict) -> None:
    wanted = (release.model_version, release.version_digest, release.endpoint, release.policy)
    if (verdict.model_version, verdict.version_digest, verdict.endpoint, verdict.policy) != wanted:
        raise Forbidden(
            f"verdict {verdict.id} is not for the digest, endpoint and policy of release {release.id}",
            hint="judge this version for this endpoint under this policy",
        )
    if not verdict.passed:
        raise Forbidden(f"release {release.id} was judged and did not pass: {verdict.summary}")


def _mark_approved(
    tx: Transaction, release: Release, approvals: list[Approval], actor: ActorId, at: datetime
) -> None:
    version = tx.model_versions.get(release.model_version)
    if version.state != "eligible":
        return
    state = advance("model_version", f"{version.model}/{version.number}", version.state, "approved")
    tx.model_versions.change(replace(version, state=state))
    tx.ledger.append(
        EventDraft(
            kind="model_version.approved", actor=actor, at=at, subject=node("model_version", version.id),
            facts={"endpoint": release.endpoint, "approvals": len(approvals), "release": release.id},
        )
    )  # fmt: skip


def _move(
    tx: Transaction,
    release: Release,
    to: ReleaseState,
    actor: ActorId,
    at: datetime,
    *,
    inputs: tuple[Node, ...] = (),
    facts: Mapping[str, Fact] | None = None,
    because: str | None = None,
) -> Release:
    """Take one step of the state machine: the row and its event."""
    state = advance("release", f"release {release.id}", release.state, to)
    moved = tx.releases.change(replace(release, state=state, changed_at=at))
    _say(
        tx,
        moved,
        actor,
        at,
        inputs=inputs,
        facts={"endpoint": moved.endpoint, **(facts or {})},
        because=because,
    )
    return moved


def _say(
    tx: Transaction,
    release: Release,
    actor: ActorId,
    at: datetime,
    *,
    inputs: tuple[Node, ...],
    facts: Mapping[str, Fact],
    because: str | None = None,
) -> None:
    tx.ledger.append(
        EventDraft(
            kind=f"release.{release.state}", actor=actor, at=at, subject=node("release", release.id), inputs=inputs,
            facts={"model": release.model, "number": release.number, **facts}, note=because,
        )
    )  # fmt: skip


def _refuse_step(release: Release, to: ReleaseState) -> None:
    """Say that a step is not allowed, with what is."""
    advance("release", f"release {release.id}", release.state, to)
    raise InvalidTransition(f"release {release.id} is {release.state} and cannot become {to}")
