"""An open workspace and what a person can do with it: the one door for the command line, the API and the pages.

Every verb says who does it. What needs waiting or a running gateway says so; everything else is one transaction.
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Sequence
from datetime import datetime

import msgspec

from andon.core.canonical import digest_value
from andon.core.clock import Clock, SystemClock, from_us, to_us
from andon.core.entities import Actor, Alert, Feedback, Line, Release, RouteRow, Run, Trigger
from andon.core.errors import AndonError, Invalid, NotFound, StorageFull, Unavailable
from andon.core.events import EventDraft
from andon.core.ids import ActorId, PredictionId, ReleaseId, TriggerId, new_id, node, parse_prediction_id
from andon.core.workspace import Layout, Settings
from andon.governance.access import ensure_actor
from andon.governance.lineage import Impact, Why
from andon.governance.lineage import impact as impact_of
from andon.governance.lineage import why as why_of
from andon.pipelines import gateways
from andon.registry.releases import approve as approve_release
from andon.rollout import publish
from andon.rollout import resume as resume_route
from andon.rollout import undo as undo_traffic
from andon.store import open_store
from andon.store.blobs import LocalBlobs
from andon.store.ports import Reader, Transaction
from andon.store.predictions import SegmentLog

FAULTS = ("shuffled-labels", "broken-feature")
"""Named fault switches for rehearsals; a run that has one says so in the ledger."""


class FeedbackItem(msgspec.Struct, frozen=True, kw_only=True):
    """A label for a prediction; `at` is the domain time at which it became known."""

    prediction_id: str
    label: float
    at: datetime | None = None


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """What an undo did. `unreached` names gateways that did not confirm the new route in time."""

    endpoint: str
    release: ReleaseId
    back_to: ReleaseId | None
    generation: int
    by: str
    gateways: list[str]
    unreached: list[str]
    seconds: float


class LineTime(msgspec.Struct, frozen=True, kw_only=True):
    """How far a line has been told its domain time, and how far the loop has worked through it.

    `running` is the domain time of the run that goes on just now, None when there is none.
    """

    line: str
    watermark: datetime | None
    seen: datetime | None
    running: datetime | None


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint serves. `candidate_percent` is the candidate's share of requests."""

    endpoint: str
    generation: int
    live: Release | None
    candidate: Release | None
    candidate_percent: int
    previous: Release | None
    held: bool


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace at a glance; what `andon status --json` and `GET /api/status` give."""

    workspace: str
    epoch: int
    events: int
    lines: list[Line]
    endpoints: list[EndpointStatus]
    runs: list[Run]
    alerts: list[Alert]
    gateways: list[gateways.GatewayState]


class OpenWorkspace:
    """A workspace opened by one process. Safe to share between threads; close it when done."""

    def __init__(
        self, layout: Layout, settings: Settings | None = None, *, clock: Clock | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.clock = clock or SystemClock()
        try:
            self.layout = layout.create()
            self.store = open_store(self.layout, self.settings)
        except AndonError:
            raise
        except OSError as error:
            raise _unusable(layout, error) from error
        self.blobs = LocalBlobs(self.layout.blobs)
        self.log = SegmentLog(self.layout.predictions, self.store, self.blobs, self.clock)

    def close(self) -> None:
        """Let go of the store. Closing twice changes nothing."""
        self.store.close()

    def __enter__(self) -> OpenWorkspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def actor(self) -> Actor:
        """The person whose operating system user runs this process; written down when first seen."""
        uid = os.getuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = f"user {uid}"
        return self.store.write(
            lambda tx: ensure_actor(tx, subject=f"os:{uid}", kind="person", name=name, at=self.clock.now())
        )

    def run(self, line: str, actor: ActorId, *, faults: Sequence[str] = ()) -> Trigger:
        """Ask for a run of a line; the worker takes it up.

        Raises:
            NotFound: no such line.
            Invalid: an unknown fault switch.
        """
        for fault in faults:
            if fault not in FAULTS:
                raise Invalid(f"{fault!r} is not a fault switch", hint="fault switches: " + ", ".join(FAULTS))
        return self.store.write(lambda tx: self.request(tx, line, actor, tuple(faults)))

    def request(self, tx: Transaction, line: str, actor: ActorId, faults: tuple[str, ...]) -> Trigger:
        """`run` within a transaction that does more."""
        row = tx.lines.find(line)
        if row is None:
            known = ", ".join(other.id for other in tx.lines.select()) or "none yet"
            raise NotFound(f"no line {line!r} in this workspace", hint=f"lines: {known}")
        ident = TriggerId(new_id("trigger"))
        return fire(
            tx,
            Trigger(
                id=ident, line=line, kind="manual", key=f"manual:{ident}", cause=node("actor", actor), actor=actor,
                created_at=self.clock.now(), data_at=row.watermark, faults=faults,
            ),
        )  # fmt: skip

    def undo(
        self, endpoint: str, actor: ActorId, *, reason: str = "", release: ReleaseId | None = None
    ) -> Undone:
        """Send an endpoint's traffic back, hold it there, and wait up to 2 s until every gateway serves the new route.

        Args:
            release: the one that should go; so a second press of the same button undoes nothing more.

        Raises:
            NotFound: no such endpoint.
            Conflict: there is no release to go back to, or `release` is not on the endpoint any more.
        """
        began = self.clock.monotonic_s()
        because = reason or "undone by a person"
        at = self.clock.now()

        def work(tx: Transaction) -> tuple[ReleaseId, ReleaseId, RouteRow]:
            gone, back = undo_traffic(
                tx, endpoint, actor=actor, at=at, because=because, hold=True, release=release
            )
            return gone, back, tx.routes.get(endpoint)

        gone, back, route = self.store.write(work)
        publish(self.layout, self.store)
        reached, unreached = gateways.wait_for(
            self.layout, endpoint, route.epoch, route.generation, self.clock, limit_s=2.0
        )
        return Undone(
            endpoint=endpoint, release=gone, back_to=back, generation=route.generation, by=actor, gateways=reached,
            unreached=unreached, seconds=self.clock.monotonic_s() - began,
        )  # fmt: skip

    def resume(self, endpoint: str, actor: ActorId) -> RouteRow:
        """Let an endpoint that an undo holds move forward again.

        Raises:
            NotFound: no such endpoint.
        """
        row = self.store.write(lambda tx: resume_route(tx, endpoint, actor=actor, at=self.clock.now()))
        publish(self.layout, self.store)
        return row

    def approve(self, release: str, actor: ActorId) -> Release:
        """Give a release this person's approval.

        Raises:
            NotFound: no such release.
            Forbidden: the actor is an author of it.
        """

        def work(tx: Transaction) -> Release:
            approve_release(tx, tx.releases.get(release), actor=actor, at=self.clock.now())
            return tx.releases.get(release)

        return self.store.write(work)

    def feedback(self, items: Sequence[FeedbackItem], actor: ActorId, *, source: str = "api") -> int:
        """Record labels; how many were new. All of them or, when one is refused, none.

        Raises:
            NotFound: predictions that the log does not hold, named.
            Invalid: an id that is not a prediction id, or a label that is not finite.
        """
        rows = [self._feedback_row(item, actor, source) for item in items]
        unknown = [row.prediction for row in rows if not self.log.has(row.prediction)]
        if unknown:
            shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
            raise NotFound(
                f"no prediction {shown}", hint="nothing was recorded; send the ids that answers carried"
            )

        def work(tx: Transaction) -> int:
            known = {row.id for row in tx.feedback.select({"id": [row.id for row in rows]}, limit=len(rows))}
            fresh = {row.id: row for row in rows if row.id not in known}
            for row in fresh.values():
                tx.feedback.add(row)
            return len(fresh)

        return self.store.write(work) if rows else 0

    def watermark(self, line: str, at: datetime) -> LineTime:
        """Say that everything up to a domain time has been told to a line whose clock is `data`. It never goes back.

        Saying the same time again only asks how far the loop has come.

        Raises:
            NotFound: no such line.
        """

        def work(tx: Transaction) -> None:
            row = tx.lines.get(line)
            if row.watermark is None or row.watermark < at:
                tx.lines.change(msgspec.structs.replace(row, watermark=at))

        def look(reader: Reader) -> LineTime:
            seen = reader.cursors.find(f"seen:{line}")
            watermark = reader.lines.get(line).watermark
            runs = reader.runs.select({"line": line, "state": ["queued", "running"]}, limit=1)
            return LineTime(
                line=line, watermark=watermark, seen=from_us(seen.seq * 1_000_000) if seen else None,
                running=runs[0].data_at if runs else None,
            )  # fmt: skip

        known = self.store.read(look)
        if known.watermark is None or known.watermark < at:
            self.store.write(work)
            known = self.store.read(look)
        return known

    def why(self, prediction: str) -> Why:
        """Everything that made a prediction: endpoint, release, verdict, model, run, data, code and people.

        Raises:
            Invalid: not a prediction id.
            NotFound: the log does not hold it.
        """
        parse_prediction_id(prediction)
        return why_of(self.store, self.log, PredictionId(prediction))

    def impact(self, what: str) -> Impact:
        """Everything that a thing was needed for: `dataset@3`, `model/2`, a run id or `kind:id`.

        Raises:
            NotFound: no such thing.
        """
        return impact_of(self.store, self.log, what)

    def status(self) -> Status:
        """The workspace at a glance."""
        return self.store.read(self._status)

    def _feedback_row(self, item: FeedbackItem, actor: ActorId, source: str) -> Feedback:
        parse_prediction_id(item.prediction_id)
        if not abs(item.label) < float("inf"):
            raise Invalid(
                f"the label of {item.prediction_id} is {item.label}",
                hint="a label is a finite number",
                field="label",
            )
        said = {
            "prediction": item.prediction_id.lower(),
            "label": float(item.label).hex(),
            "at_us": None if item.at is None else to_us(item.at),
        }
        return Feedback(
            id=digest_value("andon.feedback/1", said), prediction=PredictionId(item.prediction_id.lower()),
            label=float(item.label), source=source, actor=actor, received_at=self.clock.now(), data_at=item.at,
        )  # fmt: skip

    def _status(self, reader: Reader) -> Status:
        workspace = reader.workspaces.get("workspace")
        return Status(
            workspace=workspace.name,
            epoch=workspace.epoch,
            events=reader.ledger.head()[0],
            lines=reader.lines.select(),
            endpoints=[_endpoint(reader, row) for row in reader.routes.select()],
            runs=reader.runs.select(order=("-id",), limit=10),
            alerts=reader.alerts.select({"state": "open"}, order=("-created_at",), limit=50),
            gateways=gateways.states(self.layout),
        )


def _unusable(layout: Layout, error: OSError) -> AndonError:
    """Why a workspace's folder cannot be opened."""
    what = f"the workspace {layout.root} cannot be opened: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(what, hint="free some space and try again")
    return Unavailable(what, hint="it must be a folder that this user can write to")


def fire(tx: Transaction, trigger: Trigger) -> Trigger:
    """Write a trigger and its event. The same (line, key) again is the trigger that is there."""
    found = tx.triggers.select({"line": trigger.line, "key": trigger.key}, limit=1)
    if found:
        return found[0]
    tx.ledger.append(
        EventDraft(
            kind="trigger.fired", actor=trigger.actor, at=trigger.created_at, subject=node("trigger", trigger.id),
            inputs=(node(*trigger.cause.split(":", 1)), node("line", trigger.line)), data_at=trigger.data_at,
            facts={"kind": trigger.kind, "faults": ",".join(trigger.faults) or None},
        )
    )  # fmt: skip
    return tx.triggers.add(trigger)


def _endpoint(reader: Reader, row: RouteRow) -> EndpointStatus:
    def release(ident: ReleaseId | None) -> Release | None:
        return None if ident is None else reader.releases.get(ident)

    return EndpointStatus(
        endpoint=row.id, generation=row.generation, live=release(row.stable), candidate=release(row.candidate),
        candidate_percent=row.weight_percent, previous=release(row.previous), held=row.held,
    )  # fmt: skip


__all__ = [
    "FAULTS",
    "EndpointStatus",
    "FeedbackItem",
    "LineTime",
    "OpenWorkspace",
    "Status",
    "Undone",
    "fire",
]
