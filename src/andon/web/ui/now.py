"""The Now page's view: what is live, is it healthy, what changed, why, and what an undo would do.

One read of the store gives the rows, the published route file gives what gateways serve, and the tail of the prediction
log says how they answer. The page and its JSON twin are made of the same value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from andon.core.canonical import Digest
from andon.core.entities import Alert, Release, Rollout, RouteRow, Run
from andon.core.errors import AndonError
from andon.core.ids import ReleaseId, node
from andon.core.policy import parse_policy
from andon.core.routes import EndpointRoute, RouteFile, decode_routes, effective
from andon.pipelines.gateways import GatewayState, states
from andon.pipelines.workspace import OpenWorkspace
from andon.rollout import journal
from andon.rollout.routes import route_file
from andon.store.files import read_or_none
from andon.store.keys import route_key
from andon.store.ports import Blobs, Reader
from andon.web.traffic import Answers, Traffic
from andon.web.ui.samples import sample_call
from andon.web.ui.views import (
    AlertView,
    ArmView,
    EndpointView,
    GuardView,
    LastChange,
    Level,
    NowView,
    RolloutView,
    RunView,
    UndoOffer,
    WaitingView,
)
from andon.web.ui.words import QUIET, REASONS, Change, Names, describe, short

MOST_ENDPOINTS = 50
MOST_ROLLOUTS = 10
MOST_ALERTS = 10
MOST_RUNS = 6
MOST_CHANGES = 12
_CHANGES_READ = 80
LAG = timedelta(seconds=3)
"""How long a new route may take until it is published."""
FAILING = 0.01
"""An endpoint is failing when at least this share of its answers failed, by the lower end of the interval."""


class _Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What one read of the store gives, before traffic and gateways are added."""

    workspace: str
    seq: int
    routes: list[RouteRow]
    published: RouteFile
    releases: dict[ReleaseId, Release]
    changes: dict[str, LastChange | None]
    rollouts: list[Rollout]
    waiting: tuple[WaitingView, ...]
    more: int
    alerts: list[AlertView]
    alerts_open: int
    alerts_by_line: dict[str, int]
    runs: list[RunView]
    events: tuple[Change, ...]
    lines: tuple[str, ...]


def now_view(ws: OpenWorkspace, traffic: Traffic) -> NowView:
    """The page as of this moment. Reads at most a page of each table."""
    rows = ws.store.read(_rows)
    caught_up = traffic.refresh()
    gateways = states(ws.layout)
    routes = _routes(ws, rows.published)
    trouble = routes.trouble or lagging(rows.routes, routes.served, ws.clock.now())
    endpoints = tuple(_endpoint(ws, rows, traffic, routes, row) for row in rows.routes)
    open_rollouts = tuple(_rollout(ws, row, rows, traffic) for row in rows.rollouts)
    level, headline, summary = overall(endpoints, open_rollouts, rows.alerts_open)
    words, ok = gateway_words(gateways, trouble, caught_up=caught_up)
    return NowView(
        workspace=rows.workspace, seq=rows.seq, at=ws.clock.now(), level=level, headline=headline, summary=summary,
        gateways=words, gateways_ok=ok, endpoints=endpoints, more=rows.more, rollouts=open_rollouts,
        waiting=rows.waiting, alerts=tuple(rows.alerts), alerts_open=rows.alerts_open, runs=tuple(rows.runs),
        changes=rows.events, lines=rows.lines, notes=_notes(ws),
    )  # fmt: skip


def _notes(ws: OpenWorkspace) -> tuple[str, ...]:
    """What the lines' policies want every reader of the page to know."""
    lines = ws.store.read(lambda reader: reader.lines.select(limit=MOST_ENDPOINTS))
    return tuple(note for line in lines if (note := _note(ws.blobs, line.policy)))


def _note(blobs: Blobs, policy: Digest) -> str:
    try:
        return parse_policy(blobs.get(policy).decode()).note if blobs.has(policy) else ""
    except AndonError:
        return ""  # a page must open whatever a policy says


_WORST_FIRST: tuple[tuple[Level, str, str], ...] = (
    ("bad", "{} is failing", "{} endpoints are failing"),
    ("held", "{} is held after an undo", "{} endpoints are held after an undo"),
    ("watch", "{} needs a look", "{} endpoints need a look"),
)


def overall(
    endpoints: Sequence[EndpointView], rollouts: Sequence[RolloutView], alerts: int
) -> tuple[Level, str, str]:
    """The page's one sentence: its level, the headline and what stands behind it. The worst endpoint speaks first."""
    if not endpoints:
        return (
            "quiet",
            "Nothing is live yet",
            "Start a line; its first model that passes its gates goes live here.",
        )
    summary = _summary(endpoints, rollouts, alerts)
    for level, one, many in _WORST_FIRST:
        found = [endpoint.name for endpoint in endpoints if endpoint.level == level]
        if found:
            return level, one.format(found[0]) if len(found) == 1 else many.format(len(found)), summary
    if all(endpoint.level == "quiet" for endpoint in endpoints):
        return "quiet", "Live, and nobody asks", summary
    headline = (
        f"{endpoints[0].name} is healthy"
        if len(endpoints) == 1
        else f"All {len(endpoints)} endpoints are healthy"
    )
    return "good", headline, summary


def _summary(endpoints: Sequence[EndpointView], rollouts: Sequence[RolloutView], alerts: int) -> str:
    asked = sum(endpoint.answers.requests + endpoint.gone.requests for endpoint in endpoints)
    failed = sum(endpoint.answers.failures + endpoint.gone.failures for endpoint in endpoints)
    parts = [f"{asked:,} requests in the last 5 minutes, {failed:,} failed"]
    if rollouts:
        parts.append("1 rollout under way" if len(rollouts) == 1 else f"{len(rollouts)} rollouts under way")
    parts.append(
        "no alert open" if not alerts else "1 alert open" if alerts == 1 else f"{alerts} alerts open"
    )
    return "; ".join(parts) + "."


def health(
    answers: Answers, gone: Answers, *, answering: bool, held: bool, alerts: int
) -> tuple[Level, str, str]:
    """How an endpoint does: level, one word, and the sentence with its numbers.

    Args:
        answers: of the releases that answer now; only these count.
        gone: of releases that no longer do.
    """
    if not answering:
        return "bad", "Down", "No release answers: requests get 503."
    words = f"{answers.requests:,} requests in 5 min, {answers.failures:,} failed."
    if not answers.requests:
        words = (
            "No requests since the last change." if gone.requests else "No requests in the last 5 minutes."
        )
    if answers.failed_low is not None and answers.failed_low >= FAILING:
        return "bad", "Failing", words
    if held:
        return "held", "Held", words
    if answers.failures:
        return "watch", "Some fail", words
    if alerts:
        return "watch", "Alert", words
    return ("good", "Healthy", words) if answers.requests else ("quiet", "Quiet", words)


def gateway_words(gateways: Sequence[GatewayState], trouble: str, *, caught_up: bool) -> tuple[str, bool]:
    """Which gateways answer, and whether that is all of them."""
    if trouble:
        return trouble, False
    reached = sum(gateway.reachable for gateway in gateways)
    if not gateways:
        return "No gateway runs: start one with 'andon up'.", False
    if reached < len(gateways):
        silent = ", ".join(gateway.name for gateway in gateways if not gateway.reachable)
        return f"{reached} of {len(gateways)} gateways answer; silent: {silent}.", False
    words = "1 gateway answers." if reached == 1 else f"All {reached} gateways answer."
    return (words if caught_up else words + " Counts are still being read."), True


def _rows(reader: Reader) -> _Rows:
    names = Names(reader)
    routes = reader.routes.select(limit=MOST_ENDPOINTS)
    idents = {ident for row in routes for ident in (row.stable, row.candidate, row.previous) if ident}
    rollouts = reader.rollouts.select(
        {"state": ["planned", "shadow", "canary", "switching", "paused"]},
        order=("-created_at",),
        limit=MOST_ROLLOUTS,
    )
    releases = {ident: reader.releases.get(ident) for ident in idents | {row.release for row in rollouts}}
    alerts = reader.alerts.select({"state": "open"}, order=("-created_at",), limit=MOST_ALERTS)
    lines = tuple(line.id for line in reader.lines.select(limit=MOST_ENDPOINTS))
    return _Rows(
        workspace=reader.workspaces.get("workspace").name,
        seq=reader.ledger.head()[0],
        routes=routes,
        published=route_file(reader),
        releases=releases,
        changes={row.id: _last_change(reader, names, row.id) for row in routes},
        rollouts=rollouts,
        waiting=_waiting(reader, names),
        more=max(reader.routes.count() - len(routes), 0),
        alerts=[_alert(alert, names) for alert in alerts],
        alerts_open=reader.alerts.count({"state": "open"}),
        alerts_by_line={
            line: reader.alerts.count({"state": "open", "line": line})
            for line in {r.line for r in releases.values()}
        },
        runs=[_run(run, reader, names) for run in reader.runs.select(order=("-id",), limit=MOST_RUNS)],
        events=_changes(reader, names),
        lines=lines,
    )


def _changes(reader: Reader, names: Names) -> tuple[Change, ...]:
    told = [event for event in reader.ledger.latest(limit=_CHANGES_READ) if event.kind not in QUIET]
    return tuple(describe(event, names) for event in told[:MOST_CHANGES])


_TOLD = {
    "undone": 0,
    "live": 1,
    "rolling": 2,
    "waiting": 3,
    "refused": 4,
    "withdrawn": 5,
    "judging": 6,
    "requested": 7,
}
_DONE = {
    "undone": "undone", "live": "live", "rolling": "rolling out", "waiting": "waiting", "refused": "refused",
    "withdrawn": "withdrawn", "judging": "being judged", "requested": "requested",
}  # fmt: skip


def _last_change(reader: Reader, names: Names, endpoint: str) -> LastChange | None:
    """The newest release that moved; of two that moved together, the one that says more."""
    found = [
        release
        for release in reader.releases.select({"endpoint": endpoint}, order=("-changed_at",), limit=4)
        if release.state in _TOLD
    ]
    if not found:
        return None
    release = min(found, key=lambda row: (-row.changed_at.timestamp(), _TOLD[row.state]))
    events = reader.ledger.latest(limit=6, subject=node("release", release.id))
    said = next((event for event in events if event.kind == f"release.{release.state}"), None)
    verdict = reader.verdicts.find(release.verdict) if release.verdict else None
    return LastChange(
        what=f"{_label(release)} {_DONE[release.state]}",
        who=names.actor(said.actor if said else release.actor),
        at=release.changed_at,
        why=_why(reader, release),
        reason=release.because or "",
        gate=verdict.summary if verdict else "",
        gate_passed=verdict.passed if verdict else None,
        release=release.id,
    )


def _why(reader: Reader, release: Release) -> str:
    """What started the run that the release came from."""
    run = reader.runs.find(release.run) if release.run else None
    trigger = reader.triggers.find(run.cause.removeprefix("trigger:")) if run else None
    return REASONS[trigger.kind] if trigger else ""


def _waiting(reader: Reader, names: Names) -> tuple[WaitingView, ...]:
    found = reader.releases.select(
        {"state": ["waiting", "judging"]}, order=("-changed_at",), limit=MOST_ROLLOUTS
    )
    return tuple(
        WaitingView(
            release=row.id, label=_label(row), endpoint=row.endpoint, state=row.state, since=row.changed_at,
            who=names.actor(row.actor), approvals=reader.approvals.count({"release": row.id}), needed=row.approvals_needed,
        )
        for row in found
    )  # fmt: skip


def _alert(alert: Alert, names: Names) -> AlertView:
    return AlertView(
        id=alert.id, line=alert.line, monitor=alert.monitor, subject=names.node(node(*alert.subject.split(":", 1))),
        summary=alert.summary, since=alert.created_at,
    )  # fmt: skip


_RUN_TONES: dict[str, Level] = {
    "finished": "good", "failed": "bad", "killed": "bad", "blocked": "bad", "running": "watch", "queued": "quiet",
}  # fmt: skip


def _run(run: Run, reader: Reader, names: Names) -> RunView:
    trigger = reader.triggers.find(run.cause.removeprefix("trigger:"))
    tone, result = _outcome(run, reader)
    return RunView(
        id=run.id, label=short(run.id), line=run.line or names.node(node("experiment", run.experiment)),
        state=run.state, tone=tone, who=names.actor(run.actor),
        why=REASONS[trigger.kind] if trigger else "of unknown cause" if run.line else "by a client", result=result,
        at=run.finished_at or run.started_at or run.created_at,
    )  # fmt: skip


def _outcome(run: Run, reader: Reader) -> tuple[Level, str]:
    """What came of a run: its model version, its AUC and what the gates said; or why it ended without one."""
    if run.model_version is None:
        return _RUN_TONES[run.state], run.error or ""
    version = reader.model_versions.get(run.model_version)
    auc = reader.metrics.latest([run])[run.number].get("auc")
    made = f"{version.model} v{version.number}" + (f", AUC {auc.value:.3f}" if auc is not None else "")
    if version.rejected_because:
        return "watch", f"{made}; rejected: {version.rejected_because}"
    return _RUN_TONES[run.state], f"{made}; {version.state}"


class _Routes(msgspec.Struct, frozen=True):
    """Routes by endpoint: as gateways are told to serve them, and as the rows want them, both after undos at gateways."""

    served: dict[str, EndpointRoute]
    wanted: dict[str, EndpointRoute]
    trouble: str


def _routes(ws: OpenWorkspace, wanted: RouteFile) -> _Routes:
    """The published file with the overrides in force; the rows where nothing could be read."""
    try:
        key = route_key(ws.layout)
        data = read_or_none(ws.layout.routes)
        published = decode_routes(data, key) if data is not None else wanted
        overrides = journal(ws.layout)
    except AndonError as error:
        return _Routes(
            dict(wanted.endpoints), dict(wanted.endpoints), f"The route file cannot be used: {error}"
        )
    served, desired = (
        {name: effective(route, overrides) for name, route in routes.endpoints.items()}
        for routes in (published, wanted)
    )
    return _Routes(served, desired, "")


def lagging(routes: Sequence[RouteRow], served: Mapping[str, EndpointRoute], now: datetime) -> str:
    """Which endpoints' newest routes gateways were not told of in time; nothing when all is well."""
    late = [
        row.id
        for row in routes
        if now - row.changed_at > LAG and (route := served.get(row.id)) is not None
        and (row.epoch, row.generation) > (route.epoch, route.generation)
    ]  # fmt: skip
    if not late:
        return ""
    return f"The newest route of {', '.join(late)} is not published: see that the worker runs, with 'andon doctor'."


def _endpoint(
    ws: OpenWorkspace, rows: _Rows, traffic: Traffic, routes: _Routes, row: RouteRow
) -> EndpointView:
    wanted = routes.wanted[row.id]
    route = routes.served.get(row.id, wanted)
    arms = tuple(_arms(rows, traffic, route))
    current = {arm.release for arm in arms}
    answers = traffic.answers(row.id, current)
    gone = traffic.answers(row.id, traffic.releases(row.id) - current)
    line = next(
        (rows.releases[arm.release].line for arm in route.arms if arm.release in rows.releases), row.id
    )
    alerts = rows.alerts_by_line.get(line, 0)
    held = row.held or route.held
    level, state, words = health(
        answers, gone, answering=any(arm.share > 0 for arm in arms), held=held, alerts=alerts
    )
    return EndpointView(
        name=row.id, line=line, level=level, state=state, health=words, generation=route.generation, arms=arms,
        answers=answers, gone=gone, slots=traffic.slots(row.id), change=rows.changes[row.id], held=held,
        undo=undo_offer(wanted), call=sample_call(ws, route), alerts=alerts,
    )  # fmt: skip


def _arms(rows: _Rows, traffic: Traffic, route: EndpointRoute) -> list[ArmView]:
    """The releases that get requests, the stable one first."""
    weight = route.weight if route.arm("candidate") else 0.0
    shares: dict[Literal["stable", "candidate"], float] = {"stable": 1.0 - weight, "candidate": weight}
    found: list[ArmView] = []
    for role, part in shares.items():
        arm = route.arm(role)
        if arm is not None:
            release = rows.releases.get(arm.release)
            found.append(
                ArmView(
                    role=role, label=f"v{arm.version}", model=arm.model, version=arm.version, release=arm.release,
                    share=part, since=release.changed_at if release else None,
                    answers=traffic.answers(route.endpoint, [arm.release]),
                )
            )  # fmt: skip
    return found


def undo_offer(route: EndpointRoute) -> UndoOffer | None:
    """What an undo would do now: the candidate goes, else the live release does; None when nothing came before."""
    stable, candidate, previous = route.arm("stable"), route.arm("candidate"), route.arm("previous")
    gone, back = (candidate, stable) if candidate is not None else (stable, previous)
    if gone is None or back is None:
        return None
    label = f"v{back.version}" if back.model == gone.model else f"{back.model} v{back.version}"
    return UndoOffer(effect=f"100% to {label}", release=gone.release, gone=f"v{gone.version}", back_to=label)


class _Guards(msgspec.Struct, frozen=True):
    guards: tuple[GuardView, ...]


class _Decided(msgspec.Struct, frozen=True):
    """The blob that a rollout's decision leaves behind, as far as the page shows it."""

    evidence: _Guards


def _rollout(ws: OpenWorkspace, row: Rollout, rows: _Rows, traffic: Traffic) -> RolloutView:
    release = rows.releases[row.release]
    route = rows.published.endpoints.get(row.endpoint)
    stable = route.arm("stable") if route else None
    return RolloutView(
        release=release.id, label=_label(release), endpoint=row.endpoint, state=row.state, steps=row.steps, step=row.step,
        since=row.changed_at, because=row.because or "", candidate=traffic.answers(row.endpoint, [release.id]),
        stable=traffic.answers(row.endpoint, [stable.release]) if stable else Answers(requests=0, failures=0),
        guards=_guards(ws, row), decided=row.evidence or "",
    )  # fmt: skip


def _guards(ws: OpenWorkspace, row: Rollout) -> tuple[GuardView, ...]:
    if row.evidence is None:
        return ()
    return msgspec.json.decode(ws.blobs.get(row.evidence), type=_Decided).evidence.guards


def _label(release: Release) -> str:
    return f"{release.model} v{release.number}"
