"""What was live when: each stretch of time in which a version answered, or an alias or stage pointed at it, and why it ended.

Made of releases and the ledger alone; nothing is written for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from andon.core.entities import Release
from andon.core.errors import NotFound
from andon.core.events import Event
from andon.core.ids import ActorId, ModelVersionId, ReleaseId, node
from andon.store.ports import Reader

MOST_MOVES = 1000
"""How many of a model's newest moves of aliases and stages are told."""
_MOST_STEPS = 1000
_MOST_NAMES = 10


class Stay(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch, from `began` until `ended`, which is None while it lasts.

    Attributes:
        kind, place: the endpoint on which the version answered, or the alias or stage that pointed at it.
        asked_by: who asked for the release, or moved the alias or stage.
        approved_by: the people whose word it has; of a release only.
        verdict: what the gates had said; of a release only.
        ended_by, ended_because: who or what ended it, and why, in words.
    """

    kind: Literal["endpoint", "alias", "stage"]
    place: str
    version: int
    began: datetime
    asked_by: ActorId
    ended: datetime | None = None
    ended_by: ActorId | None = None
    ended_because: str | None = None
    model_version: ModelVersionId | None = None
    release: ReleaseId | None = None
    approved_by: tuple[ActorId, ...] = ()
    verdict: str | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A model's past, newest first. `pointers` come with the first page of `live`; ask for more with `after` = `next`."""

    model: str
    live: list[Stay]
    pointers: list[Stay]
    next: str | None


def history(reader: Reader, model: str, *, after: str | None = None, limit: int = 50) -> History:
    """What was live of a model, by its newest releases, and where its aliases and stages pointed.

    Args:
        reader: one view.
        model: its name.
        after: the release that ended the page before.
        limit: how many releases a page looks at; those that never went live have no stretch in it.

    Raises:
        NotFound: there is no such model, or no such release.
    """
    if reader.models.find(model) is None:
        raise NotFound(f"there is no model {model[:80]!r}")
    last = reader.releases.get(after) if after else None
    # A model is released by the line of its name, and releases are found by their line.
    releases = reader.releases.select({"line": model}, order=("-created_at",), after=last, limit=limit)
    stays = [stay for release in releases if release.model == model for stay in _live(reader, release)]
    return History(
        model=model, live=_newest(stays), pointers=[] if after else _newest(_pointed(reader, model)),
        next=releases[-1].id if len(releases) == limit else None,
    )  # fmt: skip


def _newest(stays: Sequence[Stay]) -> list[Stay]:
    return sorted(stays, key=lambda stay: stay.began, reverse=True)


def _live(reader: Reader, release: Release) -> list[Stay]:
    """The stretches in which a release was the live one: more than one when an undo brought it back."""
    stays: list[Stay] = []
    for event in reversed(reader.ledger.latest(limit=_MOST_STEPS, subject=node("release", release.id))):
        if event.kind == "release.live":
            stays.append(_stay(reader, release, event.at))
        elif event.kind in ("release.superseded", "release.undone") and stays and stays[-1].ended is None:
            because = _because(reader, release, event)
            stays[-1] = replace(stays[-1], ended=event.at, ended_by=event.actor, ended_because=because)
    return stays


def _stay(reader: Reader, release: Release, began: datetime) -> Stay:
    verdict = reader.verdicts.find(release.verdict) if release.verdict else None
    approvals = reader.approvals.select({"release": release.id}, order=("created_at",))
    return Stay(
        kind="endpoint", place=release.endpoint, version=release.number, began=began, asked_by=release.actor,
        model_version=release.model_version, release=release.id,
        approved_by=tuple(dict.fromkeys(approval.actor for approval in approvals)),
        verdict=verdict.summary if verdict else None,
    )  # fmt: skip


def _because(reader: Reader, release: Release, event: Event) -> str:
    if event.kind == "release.undone":
        return f"undone: {release.because}" if release.because else "undone"
    successor = reader.releases.find(str(event.facts.get("by")))
    return f"{successor.model}/{successor.number} went live" if successor else "another release went live"


def _pointed(reader: Reader, model: str) -> list[Stay]:
    """The stretches in which aliases and stages pointed at versions, as their events say."""
    stays: list[Stay] = []
    lasting: dict[tuple[str, str | int], int] = {}
    for event in reversed(_moves(reader, model)):
        facts = event.facts
        number = int(facts.get("number") or 0)
        key: tuple[str, str | int] = ("alias", str(facts["alias"])) if "alias" in facts else ("stage", number)
        if key in lasting:
            index = lasting.pop(key)
            stays[index] = replace(
                stays[index], ended=event.at, ended_by=event.actor, ended_because=_moved(event)
            )
        place = str(facts.get("alias") or facts.get("stage"))
        if event.kind != "alias.deleted" and place != "None":
            lasting[key] = len(stays)
            kind: Literal["alias", "stage"] = "alias" if "alias" in facts else "stage"
            stays.append(Stay(kind=kind, place=place, version=number, began=event.at, asked_by=event.actor))
    return [_deleted(reader, model, stay) for stay in stays]


def _moves(reader: Reader, model: str) -> list[Event]:
    """The newest moves of a model's aliases and stages, newest first, under the names it had before as well."""
    found: list[Event] = []
    name: str | None = model
    before: int | None = None
    for _ in range(_MOST_NAMES):
        if name is None or len(found) >= MOST_MOVES:
            break
        events = reader.ledger.latest(limit=MOST_MOVES, subject=node("model", name))
        name = None
        for event in events:
            if before is not None and event.seq >= before:
                continue  # of another model, which took the name afterwards
            if event.kind in ("alias.moved", "alias.deleted", "stage.moved"):
                found.append(event)
            elif "renamed_from" in event.facts:
                name, before = str(event.facts["renamed_from"]), event.seq
            if name is not None or event.kind == "model.created":
                break
    return found[:MOST_MOVES]


def _moved(event: Event) -> str:
    if event.kind == "alias.deleted":
        return "the alias was deleted"
    if event.kind == "alias.moved":
        return f"the alias was moved to version {event.facts['number']}"
    return f"the version was moved to {event.facts['stage']}"


def _deleted(reader: Reader, model: str, stay: Stay) -> Stay:
    """A stage ends with its version."""
    if stay.kind == "alias" or stay.ended is not None:
        return stay
    found = reader.model_versions.select({"model": model, "number": stay.version}, limit=1)
    if not found or found[0].deleted_at is None:
        return stay
    return replace(stay, ended=found[0].deleted_at, ended_because="the version was deleted")
