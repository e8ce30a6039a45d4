"""What the API tells: the workspace at a glance, runs, versions, releases, alerts, events, and why.

Lists come in pages: `after` is the id of the last row of the page before, `next` in the answer is what to ask with next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, TypeVar

import msgspec

from andon.core.entities import Alert, Entity, Line, ModelVersion, Release, Run
from andon.core.errors import Invalid
from andon.core.events import Event
from andon.core.ids import RunId
from andon.core.states import MACHINES
from andon.governance.access import Permission
from andon.governance.lineage import Impact, Why
from andon.pipelines.workspace import Status
from andon.registry.history import History, history
from andon.store.ports import Collection, Reader, Where
from andon.web.endpoints import Call, Endpoint
from andon.web.feed import events, position

E = TypeVar("E", bound=Entity)
Limit = Annotated[int, msgspec.Meta(ge=1, le=500)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Text = Annotated[str, msgspec.Meta(max_length=200)]


class Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of a list."""

    after: Text | None = None
    limit: Limit = 100


class RunQuery(Page, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs of one line, or in one state."""

    line: Text | None = None
    state: Text | None = None


class ReleaseQuery(Page, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Releases of one endpoint, or in one state."""

    endpoint: Text | None = None
    state: Text | None = None


class AlertQuery(Page, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Alerts of one line, or in one state."""

    line: Text | None = None
    state: Text | None = None


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page of a model's past: `after` is the `next` of the page before."""

    after: Text | None = None
    limit: Limit = 50


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events after a sequence number."""

    after: Seq = 0
    limit: Limit = 100


class StreamQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a stream begins; without it, with what happens next."""

    after: Seq | None = None


class ImpactQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of what: `dataset@3`, `model/2`, a run id, or a node such as `release:rel_...`."""

    node: Text


class Lines(msgspec.Struct, frozen=True):
    lines: list[Line]
    next: str | None


class Runs(msgspec.Struct, frozen=True):
    runs: list[Run]
    next: str | None


class RunDetail(msgspec.Struct, frozen=True):
    """A run with its parameters and the newest value of each metric."""

    run: Run
    params: dict[str, str]
    metrics: dict[str, float]


class Versions(msgspec.Struct, frozen=True):
    versions: list[ModelVersion]
    next: str | None


class Releases(msgspec.Struct, frozen=True):
    releases: list[Release]
    next: str | None


class Alerts(msgspec.Struct, frozen=True):
    alerts: list[Alert]
    next: str | None


class Events(msgspec.Struct, frozen=True):
    """Events in order; ask again with `after` = `next`. `head` is the newest sequence number."""

    events: list[Event]
    next: int
    head: int


def status(call: Call) -> Status:
    return call.state.ws.status()


def lines(call: Call) -> Lines:
    return Lines(*call.state.ws.store.read(lambda reader: _page(reader.lines, {}, call.query, order=("id",))))


def runs(call: Call) -> Runs:
    where = _where(call.query, "run", "line", "state")
    return Runs(*call.state.ws.store.read(lambda reader: _page(reader.runs, where, call.query)))


def run(call: Call) -> RunDetail:
    ident = RunId(call.path["id"])

    def work(reader: Reader) -> RunDetail:
        found = reader.runs.get(ident)
        newest = reader.metrics.latest([found])[found.number]
        values = {key: point.value for key, point in newest.items()}
        return RunDetail(found, reader.params.of([found.number])[found.number], values)

    return call.state.ws.store.read(work)


def versions(call: Call) -> Versions:
    where: dict[str, Where] = {"model": call.path["model"]}
    return Versions(
        *call.state.ws.store.read(
            lambda reader: _page(reader.model_versions, where, call.query, order=("-number",))
        )
    )


def model_history(call: Call) -> History:
    query: HistoryQuery = call.query
    return call.state.ws.store.read(
        lambda reader: history(reader, call.path["model"], after=query.after, limit=query.limit)
    )


def releases(call: Call) -> Releases:
    where = _where(call.query, "release", "endpoint", "state")
    return Releases(*call.state.ws.store.read(lambda reader: _page(reader.releases, where, call.query)))


def alerts(call: Call) -> Alerts:
    where = _where(call.query, "alert", "line", "state")
    return Alerts(*call.state.ws.store.read(lambda reader: _page(reader.alerts, where, call.query)))


def ledger(call: Call) -> Events:
    query: EventQuery = call.query
    found, head = call.state.ws.store.read(
        lambda reader: (reader.ledger.after(query.after, limit=query.limit), reader.ledger.head()[0])
    )
    return Events(found, found[-1].seq if found else query.after, head)


def stream(call: Call) -> AsyncIterator[bytes]:
    start = position(call.request.headers.get("last-event-id"), call.query.after)
    return events(call.state.ws.store, call.state.feed, start)


def why(call: Call) -> Why:
    return call.state.ws.why(call.path["id"])


def impact(call: Call) -> Impact:
    return call.state.ws.impact(call.query.node)


def _page(
    rows: Collection[E], where: dict[str, Where], query: Page, order: Sequence[str] = ()
) -> tuple[list[E], str | None]:
    """One page of rows, newest first, and the id to ask the next with; None at the end.

    Ids are in order of time, and every table is indexed by them; rows of one line or endpoint by when they were made.
    """
    last = rows.get(query.after) if query.after else None
    newest = ("-created_at",) if where.keys() & {"line", "endpoint"} else ("-id",)
    found = rows.select(where, order=order or newest, after=last, limit=query.limit)
    return found, found[-1].id if len(found) == query.limit else None


def _where(query: msgspec.Struct, machine: str, *names: str) -> dict[str, Where]:
    where: dict[str, Where] = {
        name: getattr(query, name) for name in names if getattr(query, name) is not None
    }
    state = where.get("state")
    if state is not None and state not in MACHINES[machine]:
        raise Invalid(
            f"{state!r} is not a state of a {machine}", hint=f"states: {', '.join(MACHINES[machine])}"
        )
    return where


READ = Permission.READ
ENDPOINTS = (
    Endpoint(method="GET", path="/api/status", permission=READ, handler=status, returns=Status,
             summary="The workspace at a glance."),
    Endpoint(method="GET", path="/api/lines", permission=READ, handler=lines, query=Page, returns=Lines,
             summary="The lines of the workspace."),
    Endpoint(method="GET", path="/api/runs", permission=READ, handler=runs, query=RunQuery, returns=Runs,
             summary="Runs, newest first."),
    Endpoint(method="GET", path="/api/runs/{id}", permission=READ, handler=run, returns=RunDetail,
             summary="One run with its parameters and metrics."),
    Endpoint(method="GET", path="/api/models/{model}/versions", permission=READ, handler=versions, query=Page,
             returns=Versions, summary="Versions of a model, newest first."),
    Endpoint(method="GET", path="/api/models/{model}/history", permission=READ, handler=model_history,
             query=HistoryQuery, returns=History, summary="What was live of a model when, by whom and why."),
    Endpoint(method="GET", path="/api/releases", permission=READ, handler=releases, query=ReleaseQuery,
             returns=Releases, summary="Releases, newest first."),
    Endpoint(method="GET", path="/api/alerts", permission=READ, handler=alerts, query=AlertQuery, returns=Alerts,
             summary="Alerts, newest first."),
    Endpoint(method="GET", path="/api/events", permission=READ, handler=ledger, query=EventQuery, returns=Events,
             summary="The ledger, in order."),
    Endpoint(method="GET", path="/api/events/stream", permission=READ, stream=stream, query=StreamQuery,
             summary="The ledger as it grows, as server-sent events; the id of each is its sequence number."),
    Endpoint(method="GET", path="/api/why/{id}", permission=READ, handler=why, returns=Why,
             summary="Everything that made a prediction."),
    Endpoint(method="GET", path="/api/impact", permission=READ, handler=impact, query=ImpactQuery, returns=Impact,
             summary="Everything that a thing was needed for."),
)  # fmt: skip
