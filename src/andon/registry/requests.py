"""An alias or stage that a policy names: setting it asks for a release, and it points at what is live.

A model is ruled by the line of its name. The policy's `[release] alias` and `stage` are then no pointers of their own: who
moves one to a version asks for that version's release, which passes through gates, approvals and the rollout like any other,
and whoever reads one is given the version that is live. So an undo moves both back, and there is no second place that says
what is live. A model that no line rules has plain pointers (`andon.registry.models`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from andon.core.canonical import Digest
from andon.core.entities import Model, ModelVersion, Release, Verdict, owner
from andon.core.errors import Conflict, Invalid, NotFound
from andon.core.ids import ActorId, node
from andon.core.policy import ReleasePolicy, parse_policy
from andon.core.states import IN_PROGRESS, Stage
from andon.registry.models import STAGES, model_of, read_stage, readable_alias, version_of
from andon.registry.releases import counting_approvals, in_progress, live_release, request_release
from andon.store.ports import Blobs, Reader, Store, Transaction, Where

RELEASE_TAG = "andon.release"
"""What a version carries whose release was accepted and is still on its way."""
_MOST_LINES = 10_000


class Changed(Conflict):
    """A line's policy changed while something was asked of its model: ask again."""


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What rules a model: the policy of the line of its name."""

    line: str
    policy: Digest
    release: ReleasePolicy

    @property
    def stage(self) -> Stage:
        """The stage that means live."""
        return read_stage(self.release.stage)


class Rulings:
    """The policies of all lines, by the model that each rules. Safe to share between threads."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs
        self._read: dict[Digest, ReleasePolicy] = {}
        self._lock = threading.Lock()

    def now(self) -> Mapping[str, Ruling]:
        """What rules which model just now. Reads files: not to be called in a transaction.

        Raises:
            PolicyError: a policy on record cannot be read by this Andon.
        """
        lines = self._store.read(lambda reader: reader.lines.select(limit=_MOST_LINES))
        return {
            line.id: Ruling(line=line.id, policy=line.policy, release=self._release(line.policy))
            for line in lines
        }

    def _release(self, policy: Digest) -> ReleasePolicy:
        with self._lock:
            if policy not in self._read:
                self._read[policy] = parse_policy(self._blobs.get(policy).decode()).release
            return self._read[policy]


def check_ruling(reader: Reader, model: str, ruling: Ruling | None) -> Ruling | None:
    """That a ruling which was read before a transaction still holds within it.

    Raises:
        Changed: it does not.
    """
    line = reader.lines.find(model)
    if (line.policy if line else None) != (ruling.policy if ruling else None):
        raise Changed(f"the policy of line {model!r} changed meanwhile", hint="ask again")
    return ruling


# --- what is live ---


def live_of(reader: Reader, ruling: Ruling | None) -> Release | None:
    """The live release of a ruled model; None when none of its versions is live where its policy says."""
    if ruling is None:
        return None
    live = live_release(reader, ruling.release.endpoint)
    return live if live is not None and live.model == ruling.line else None


def shown_aliases(reader: Reader, stored: Mapping[str, int], ruling: Ruling | None) -> dict[str, int]:
    """A model's aliases as clients see them: the ruled one points at what is live, or is not there."""
    if ruling is None:
        return dict(stored)
    live = live_of(reader, ruling)
    shown = {alias: number for alias, number in stored.items() if alias != ruling.release.alias}
    return shown if live is None else dict(sorted({**shown, ruling.release.alias: live.number}.items()))


def shown_stage(version: ModelVersion, ruling: Ruling | None, live: Release | None) -> Stage:
    """A version's stage as clients see it: the ruled stage is that of the live version, and of no other."""
    if ruling is None:
        return version.stage
    if live is not None and live.model_version == version.id:
        return ruling.stage
    return "None" if version.stage == ruling.stage else version.stage


def by_alias(reader: Reader, name: str, alias: str, ruling: Ruling | None) -> ModelVersion:
    """The version that an alias means; `latest` is the newest there is.

    Raises:
        NotFound: the model or the version is not there.
        Invalid: the model has no such alias.
    """
    model_of(reader, name)
    readable_alias(alias)
    if alias.lower() == "latest":
        found = latest_of(reader, name, (), ruling)
        if not found:
            raise NotFound(f"Latest version not found for model {name}.")
        return max(found, key=lambda version: version.number)
    if ruling is not None and alias == ruling.release.alias:
        live = live_of(reader, ruling)
        number = live.number if live else None
    else:
        row = reader.aliases.find(f"{name}/{alias}")
        number = row.number if row else None
    if number is None:
        raise Invalid(f"Registered model alias {alias} not found.", field="alias")
    return version_of(reader, name, number)


def latest_of(reader: Reader, name: str, stages: Sequence[str], ruling: Ruling | None) -> list[ModelVersion]:
    """The newest version in each of some stages, by default in all, in the order of the stages.

    Raises:
        Invalid: there is no such stage.
    """
    wanted = {read_stage(stage) for stage in stages} if stages else set(STAGES)
    live = live_of(reader, ruling)
    found: dict[Stage, ModelVersion] = {}
    for stage in STAGES:
        if ruling is None and stage not in wanted:
            continue
        where: dict[str, Where] = {"model": name, "stage": stage, "deleted_at": None}
        # One more than the newest: the live version is shown in another stage than the one it is kept in.
        for version in reader.model_versions.select(
            where, order=("-number",), limit=1 if live is None else 2
        ):
            shown = shown_stage(version, ruling, live)
            if shown not in found or found[shown].number < version.number:
                found[shown] = version
    if ruling is not None and live is not None:
        found[ruling.stage] = reader.model_versions.get(live.model_version)
    return [found[stage] for stage in STAGES if stage in wanted and stage in found]


# --- asking for a release ---


def request(
    tx: Transaction, ruling: Ruling, version: ModelVersion, *, actor: ActorId, at: datetime
) -> Release:
    """The release by which a version comes to what its policy names. Asking again gives the same one.

    What comes back may be live already, on its way, or refused: a version that did not pass is not judged again by the
    same policy while the same version is live.

    Raises:
        Conflict: another version is on its way to the endpoint; the message names its release.
        Invalid: the version was retired.
    """
    endpoint = ruling.release.endpoint
    live = live_release(tx, endpoint)
    if live is not None and live.model_version == version.id:
        return live
    moving = in_progress(tx, endpoint)
    if moving is None and (refused := _refused(tx, ruling, version, live)):
        return refused
    release = request_release(
        tx, endpoint=endpoint, line=ruling.line, version=version, policy=ruling.policy, run=version.run,
        strategy=ruling.release.strategy, approvals_needed=ruling.release.approvals, cause=node("actor", actor),
        actor=actor, at=at,
    )  # fmt: skip
    if ruling.release.waiting == "accept":
        tx.version_tags.put(owner(version), {RELEASE_TAG: release.id})
    return release


def _refused(reader: Reader, ruling: Ruling, version: ModelVersion, live: Release | None) -> Release | None:
    """The release that a verdict refused which would be given again."""
    verdict = verdict_of(reader, version, ruling.release.endpoint, ruling.policy)
    against = live.model_version if live else None
    if verdict is None or verdict.passed or verdict.against != against:
        return None
    held = {
        "model_version": version.id,
        "endpoint": ruling.release.endpoint,
        "policy": ruling.policy,
        "state": "refused",
    }
    found = reader.releases.select(held, order=("-created_at",), limit=1)
    return found[0] if found else None


def verdict_of(reader: Reader, version: ModelVersion, endpoint: str, policy: Digest) -> Verdict | None:
    """The newest verdict on a version for an endpoint under a policy."""
    found = reader.verdicts.select(
        {"model_version": version.id, "endpoint": endpoint, "policy": policy}, order=("-created_at",), limit=1
    )
    return found[0] if found else None


def waits_for(reader: Reader, release: Release) -> str:
    """In words: what keeps a release from being live, and what to do."""
    what = f"release {release.id} of {release.model}/{release.number} to endpoint {release.endpoint!r}"
    if release.state in ("refused", "withdrawn", "undone"):
        return f"{what} was {release.state}: {release.because or 'no reason was given'}"
    route = reader.routes.find(release.endpoint)
    if route is not None and route.held:
        return f"{what} waits: the endpoint is held after an undo; 'andon release {release.endpoint}' lets it move again"
    if release.state == "waiting":
        lacking = release.approvals_needed - len(counting_approvals(reader, release))
        people = "one person" if lacking == 1 else f"{lacking} people"
        return f"{what} waits for the approval of {people} who had no part in it; 'andon approve {release.id}' gives it"
    if release.state == "rolling":
        rollout = reader.rollouts.select({"release": release.id}, limit=1)
        share = f" at {rollout[0].steps[rollout[0].step]} % of requests" if rollout else ""
        return f"{what} is rolling out{share}; ask again when it is full"
    return f"{what} is {release.state}; ask again when its gates have judged it"


# --- what is refused of what is live ---


def check_may_leave_stage(reader: Reader, ruling: Ruling, version: ModelVersion) -> None:
    """Refuse to take the live version out of the stage that means live.

    Raises:
        Conflict: it is the live version.
    """
    live = live_of(reader, ruling)
    if live is not None and live.model_version == version.id:
        raise Conflict(
            f"{version.model}/{version.number} is live on endpoint {live.endpoint!r} and stays in {ruling.stage}",
            hint="undo its release, or release another version",
        )


def check_alias_may_go(reader: Reader, ruling: Ruling) -> None:
    """Refuse to delete the alias that points at what is live.

    Raises:
        Conflict: something is live.
    """
    live = live_of(reader, ruling)
    if live is not None:
        raise Conflict(
            f"the alias {ruling.release.alias!r} of {ruling.line!r} says that version {live.number} is live on endpoint"
            f" {live.endpoint!r}, and cannot be deleted",
            hint="undo its release, or release another version",
        )


def check_version_may_go(reader: Reader, version: ModelVersion) -> None:
    """Refuse to delete a version that answers, is on its way, or is what an undo would bring back.

    Raises:
        Conflict: it is one of these.
    """
    what = f"{version.model}/{version.number}"
    moving = reader.releases.select({"model_version": version.id, "state": ["live", *IN_PROGRESS]}, limit=1)
    if moving:
        is_what = "live" if moving[0].state == "live" else "on its way"
        raise Conflict(
            f"{what} cannot be deleted: release {moving[0].id} of it is {is_what} on endpoint {moving[0].endpoint!r}",
            hint="undo or withdraw the release first",
        )
    for route in reader.routes.select(limit=_MOST_LINES):
        if route.previous and reader.releases.get(route.previous).model_version == version.id:
            raise Conflict(
                f"{what} cannot be deleted: an undo on endpoint {route.id!r} brings it back",
                hint="delete it when another version has been released",
            )


def check_model_may_change(model: Model, ruling: Ruling | None, what: str) -> None:
    """Refuse to rename or delete a model that a line rules.

    Raises:
        Invalid: a line of that name rules it.
    """
    if ruling is not None:
        raise Invalid(
            f"model {model.id!r} cannot be {what}: the policy of line {ruling.line!r} rules it by that name",
            hint="its versions can be deleted one by one",
        )
