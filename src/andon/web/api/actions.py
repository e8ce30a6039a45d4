"""What the API does: start runs, take labels, undo, resume, approve. Who asks is who is on record."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from andon.core.entities import Release, RouteRow, Trigger
from andon.core.errors import Invalid
from andon.core.ids import ReleaseId
from andon.governance.access import CODE_TTL_S, Permission
from andon.pipelines.workspace import FeedbackItem, LineTime, Undone
from andon.web.endpoints import Call, Endpoint
from andon.web.login import LoginCode

MOST_ITEMS = 10_000
FEEDBACK_LIMIT = 4 * 2**20
Words = Annotated[str, msgspec.Meta(max_length=1000)]
Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run by hand. `faults` are named fault switches for rehearsals; a run that has one says so."""

    faults: tuple[Words, ...] = ()


class WatermarkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Domain time up to which everything that happened has been told."""

    at: Aware


class UndoRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason` goes on record. `release` is the one that should go: when it has gone already, nothing is undone."""

    reason: Words = ""
    release: Words | None = None


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A label for a prediction; `at` is the domain time at which it became known."""

    prediction_id: Words
    label: float
    at: Aware | None = None


class Labels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to 10,000 labels, recorded all or none."""

    items: Annotated[list[Label], msgspec.Meta(max_length=MOST_ITEMS)]


class Recorded(msgspec.Struct, frozen=True):
    """How many labels were new; the same label again counts for nothing."""

    recorded: int


def start_run(call: Call) -> Trigger:
    return call.state.ws.run(call.path["line"], call.actor.id, faults=call.body.faults)


def watermark(call: Call) -> LineTime:
    return call.state.ws.watermark(call.path["line"], call.body.at)


def undo(call: Call) -> Undone:
    wanted = None if call.body.release is None else ReleaseId(call.body.release)
    return call.state.ws.undo(call.path["endpoint"], call.actor.id, reason=call.body.reason, release=wanted)


def resume(call: Call) -> RouteRow:
    return call.state.ws.resume(call.path["endpoint"], call.actor.id)


def approve(call: Call) -> Release:
    return call.state.ws.approve(call.path["id"], call.actor.id)


def feedback(call: Call) -> Recorded:
    form: type[Label] | type[Labels] = Labels if "items" in call.body else Label
    try:
        given = msgspec.convert(call.body, form, str_keys=True)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"the body cannot be used: {error}",
            hint='send {"prediction_id": ..., "label": ...}, or {"items": [...]} with up to 10,000 of them',
        ) from None
    labels = given.items if isinstance(given, Labels) else [given]
    items = [FeedbackItem(prediction_id=row.prediction_id, label=row.label, at=row.at) for row in labels]
    return Recorded(call.state.ws.feedback(items, call.actor.id, source="api"))


def login_code(call: Call) -> LoginCode:
    code = call.state.codes.mint(call.who.role)
    return LoginCode(code, f"/login?code={code}", int(CODE_TTL_S))


ENDPOINTS = (
    Endpoint(method="POST", path="/api/lines/{line}/runs", permission=Permission.RUN, handler=start_run,
             body=RunRequest, returns=Trigger, status=202, summary="Ask for a run of a line."),
    Endpoint(method="POST", path="/api/lines/{line}/watermark", permission=Permission.RUN, handler=watermark,
             body=WatermarkRequest, returns=LineTime, summary="Tell a line how far its data goes. It never goes back."),
    Endpoint(method="POST", path="/api/endpoints/{endpoint}/undo", permission=Permission.UNDO, handler=undo,
             body=UndoRequest, returns=Undone, summary="Send an endpoint's traffic back, and hold it there."),
    Endpoint(method="POST", path="/api/endpoints/{endpoint}/resume", permission=Permission.RELEASE, handler=resume,
             returns=RouteRow, summary="Let a held endpoint move forward again."),
    Endpoint(method="POST", path="/api/releases/{id}/approve", permission=Permission.RELEASE, handler=approve,
             returns=Release, summary="Approve a release that waits."),
    Endpoint(method="POST", path="/api/feedback", permission=Permission.FEEDBACK, handler=feedback,
             body=dict, forms=(Label, Labels), returns=Recorded, limit=FEEDBACK_LIMIT,
             summary="Labels for predictions, one or many, all or none."),
    Endpoint(method="POST", path="/api/login-codes", permission=Permission.ADMIN, handler=login_code,
             returns=LoginCode, status=201, summary="A code that opens one browser session."),
)  # fmt: skip
