"""What must hold after any battery. Each check is a pure function of the evidence that yields what is wrong, in words."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from andon.core.canonical import Digest
from andon.core.entities import Entity, Trigger
from andon.core.errors import LedgerBroken
from andon.core.events import Event, edges, verify_chain
from andon.core.ids import ModelVersionId, ReleaseId, parse_prediction_id, split_node
from andon.core.routes import GENERATION_STEP, Arm, EndpointRoute, Override, Role, effective
from andon.core.states import ended
from tests.chaos.evidence import Evidence

Check = Callable[[Evidence], Iterator[str]]
SETTLED_S = 5.0
"""After this time an undo that a gateway did not confirm must hold there too: it was down, or converges in 2 s."""


def wrong(evidence: Evidence) -> list[str]:
    """All that is wrong, each said with the name of its check."""
    return [f"{check.__name__}: {said}" for check in CHECKS for said in check(evidence)]


# --- what clients were told ---


def nothing_bad_was_answered(evidence: Evidence) -> Iterator[str]:
    yield from evidence.history.offences
    yield from evidence.seen


def acknowledged_predictions_are_logged_once(evidence: Evidence) -> Iterator[str]:
    seen = Counter(record.prediction_id for record in evidence.records)
    records = {record.prediction_id: record for record in evidence.records}
    for ident, count in seen.items():
        if count != 1:
            yield f"a follower sees {ident} {count} times"
    for answer in evidence.history.answers:
        record = records.get(answer.prediction_id)  # type: ignore[call-overload]
        if record is None:
            yield f"{answer.prediction_id} was answered and is not in the log"
            continue
        told = (
            answer.endpoint,
            answer.release,
            answer.version,
            answer.epoch,
            answer.generation,
            answer.prediction,
        )
        kept = (
            record.endpoint,
            record.release,
            record.version,
            record.epoch,
            record.generation,
            record.output,
        )
        if told != kept:
            yield f"{answer.prediction_id} was answered as {told} and is logged as {kept}"


def acknowledged_labels_are_kept_once(evidence: Evidence) -> Iterator[str]:
    kept = Counter((row.prediction, row.label, row.data_at) for row in evidence.feedback)
    for key, count in kept.items():
        if count != 1:
            yield f"the label {key} is kept {count} times"
    for label in evidence.history.labels:
        if (label.prediction_id, label.label, label.at) not in kept:
            yield f"the label of {label.prediction_id} was acknowledged and is not there"
    known = {record.prediction_id for record in evidence.records}
    for row in evidence.feedback:
        if row.prediction not in known:
            yield f"there is a label for {row.prediction}, which nobody answered"


def acknowledged_triggers_are_kept_and_run_once(evidence: Evidence) -> Iterator[str]:
    known = {trigger.id: trigger for trigger in evidence.triggers}
    for ident in evidence.history.triggers:
        if ident not in known:
            yield f"trigger {ident} was acknowledged and is not there"
    runs = Counter(run.cause for run in evidence.runs)
    of = {run.cause: run.id for run in evidence.runs}
    for cause, count in runs.items():
        if count != 1:
            yield f"{cause} has {count} runs"
    for trigger in evidence.triggers:
        if trigger.run != of.get(f"trigger:{trigger.id}") and not _noted(trigger):
            yield f"trigger {trigger.id} names run {trigger.run}, its run is {of.get(f'trigger:{trigger.id}')}"


def _noted(trigger: Trigger) -> bool:
    """Whether it asked for nothing: it only says that its data were read by a run that something else asked for."""
    return trigger.run is not None and trigger.cause == f"run:{trigger.run}"


def acknowledged_undos_hold(evidence: Evidence) -> Iterator[str]:
    releases = {release.id: release for release in evidence.releases}
    adopted = {event.facts.get("override") for event in evidence.events if event.kind == "override.adopted"}
    answers = sorted(evidence.history.answers, key=lambda answer: answer.sent_s)
    sent = [answer.sent_s for answer in answers]
    for undo in evidence.history.undos:
        if undo.override is not None and undo.override not in adopted:
            yield f"override {undo.override} was acknowledged and never adopted"
        release = releases.get(undo.release)  # type: ignore[call-overload]
        if release is None or release.state not in ("undone", "superseded", "withdrawn"):
            yield f"the undo of {undo.release} was acknowledged, and it is {release.state if release else 'not there'}"
        since = undo.at_s + (SETTLED_S if undo.unreached else 0.0)
        late = [answer for answer in answers[bisect_right(sent, since) :] if answer.release == undo.release]
        if late:
            yield (
                f"{undo.release} answered {len(late)} requests that were sent after its undo was acknowledged, the last "
                f"{late[-1].sent_s - undo.at_s:.2f} s after (generation {late[-1].generation})"
            )


# --- routes ---


@dataclass(frozen=True)
class _Published:
    """A published route, with the number of the event that said so."""

    seq: int
    route: EndpointRoute


def every_answer_is_of_one_published_route(evidence: Evidence) -> Iterator[str]:
    published = _published(evidence)
    adopted_at = {
        event.facts["override"]: event.seq for event in evidence.events if event.kind == "override.adopted"
    }
    in_force: dict[tuple[str, int, int], EndpointRoute] = {}
    for record in evidence.records:
        place = (record.endpoint, record.epoch, record.generation)
        if place not in in_force:
            base = published.get((*place[:2], record.generation - record.generation % GENERATION_STEP))
            if base is None:
                yield f"{record.prediction_id} was answered by {place}, which was never published"
                continue
            in_force[place] = _as_served(
                base, record.generation % GENERATION_STEP, evidence.overrides, adopted_at
            )
        route = in_force[place]
        arm = route.arm(record.arm)
        if arm is None or arm.release != record.release:
            yield f"{record.prediction_id} was answered by {record.release} as {record.arm}, no arm of {place}"
        elif record.propensity != route.weight or (record.arm, route.weight) in (
            ("candidate", 0.0),
            ("stable", 1.0),
        ):
            yield f"{record.prediction_id}: {record.arm} with share {record.propensity} of {place} that has {route.weight}"


def _published(evidence: Evidence) -> dict[tuple[str, int, int], _Published]:
    """Every route that rows ever had, by endpoint, epoch and generation, from the ledger alone."""
    releases = {release.id: release for release in evidence.releases}
    found: dict[tuple[str, int, int], _Published] = {}
    for event in evidence.events:
        if event.kind not in ("route.changed", "route.held"):
            continue
        _, endpoint = split_node(event.subject)
        facts = event.facts
        roles: tuple[Role, ...] = ("stable", "candidate", "previous")
        arms = tuple(
            Arm(release=ident, role=role, model="", version=0, model_version=ModelVersionId(""), digest=Digest(""))
            for role in roles
            if (ident := ReleaseId(str(facts.get(role)))) in releases
        )  # fmt: skip
        generation = int(facts["generation"] or 0)
        route = EndpointRoute(
            endpoint=endpoint, epoch=event.epoch, generation=generation, salt="", arms=arms,
            weight=int(facts["percent"] or 0) / 100,
        )  # fmt: skip
        found[endpoint, event.epoch, generation] = _Published(event.seq, route)
    return found


def _as_served(
    base: _Published, count: int, overrides: Iterable[Override], adopted_at: dict[object, int]
) -> EndpointRoute:
    """The route that a gateway served which had `count` overrides in force: the first ones that were not adopted yet."""
    mine = [
        one
        for one in overrides
        if (one.endpoint, one.epoch) == (base.route.endpoint, base.route.epoch)
        and adopted_at.get(one.id, 2**62) > base.seq
    ]
    return effective(base.route, mine[:count])


def generations_never_decrease(evidence: Evidence) -> Iterator[str]:
    boots: dict[tuple[int, str], list[tuple[int, int, int]]] = defaultdict(list)
    for record in evidence.records:
        ref = parse_prediction_id(record.prediction_id)
        boots[ref.boot, record.endpoint].append((ref.number, record.epoch, record.generation))
    for (boot, endpoint), found in boots.items():
        last = (0, 0)
        for number, epoch, generation in sorted(found):
            if (epoch, generation) < last:
                yield f"record {number} of boot {boot:010x} on {endpoint} has {epoch, generation} after {last}"
            last = max(last, (epoch, generation))


def one_release_is_live_and_the_route_is_it(evidence: Evidence) -> Iterator[str]:
    for route in evidence.routes:
        live = [
            release.id
            for release in evidence.releases
            if release.endpoint == route.id and release.state == "live"
        ]
        if live != [route.stable]:
            yield f"on {route.id} live are {live}, and its route's stable is {route.stable}"


def the_route_file_equals_the_rows(evidence: Evidence) -> Iterator[str]:
    if (evidence.file.epoch, evidence.file.endpoints) != (evidence.wanted.epoch, evidence.wanted.endpoints):
        yield f"the file has {evidence.file.endpoints}, the rows say {evidence.wanted.endpoints}"


def gateways_serve_the_newest_generation(evidence: Evidence) -> Iterator[str]:
    if not evidence.served:
        yield "no gateway was asked"
    for number, served in enumerate(evidence.served):
        for name, newest in evidence.newest.items():
            if served.get(name, (0, 0)) < newest:
                yield f"gateway {number} serves {served.get(name)} of {name}, and {newest} was the newest before"


# --- rows, events, log ---


def the_chain_holds_and_edges_match(evidence: Evidence) -> Iterator[str]:
    try:
        verify_chain(evidence.events)
    except LedgerBroken as error:
        yield str(error)
    said = {(edge.src, edge.dst) for event in evidence.events for edge in edges(event)}
    kept = {(edge.src, edge.dst) for edge in evidence.edges}
    for edge in sorted(said ^ kept):
        yield f"the edge {edge} is {'missing' if edge in said else 'said by no event'}"


def a_run_has_one_outcome(evidence: Evidence) -> Iterator[str]:
    versions = Counter(version.run for version in evidence.versions)
    verdicts = Counter(verdict.model_version for verdict in evidence.verdicts)
    releases = Counter(release.run for release in evidence.releases)
    for what, counts in (("model versions", versions), ("verdicts", verdicts), ("releases", releases)):
        for of, count in counts.items():
            if count > 1:
                yield f"{of} has {count} {what}"
    for run in evidence.runs:
        if (run.state == "finished") != (versions[run.id] == 1):
            yield f"run {run.id} is {run.state} and has {versions[run.id]} model versions"


def rows_and_events_tell_the_same(evidence: Evidence) -> Iterator[str]:
    """A transaction that was written by half would leave a row in another state than its last event says."""
    last: dict[str, Event] = {}
    seals: Counter[str] = Counter()
    first: Counter[str] = Counter()
    for event in evidence.events:
        if event.kind.split(".")[0] == split_node(event.subject)[0]:
            last[event.subject] = event
        seals[event.subject] += event.kind in ("run.sealed", "segment.sealed", "model_version.registered")
        first[event.subject] += event.kind in (
            "run.created",
            "trigger.fired",
            "release.requested",
            "verdict.given",
        )
    for run in evidence.runs:
        kind = {"queued": ("run.created", "run.requeued"), "running": ("run.started",)}.get(
            run.state, ("run.sealed",)
        )
        yield from _told(last, run, "run", kind)
        event = last.get(f"run:{run.id}")
        if event is not None and event.kind == "run.sealed" and event.facts.get("state") != run.state:
            yield f"run {run.id} is {run.state}, and was sealed as {event.facts.get('state')}"
        if seals[f"run:{run.id}"] != ended("run", run.state):
            yield f"run {run.id} is {run.state} and was sealed {seals[f'run:{run.id}']} times"
    for release in evidence.releases:
        yield from _told(last, release, "release", (f"release.{release.state}",))
    for rollout in evidence.rollouts:
        event = last.get(f"rollout:{rollout.id}")
        if event is None or event.facts["state"] != rollout.state:
            yield f"rollout {rollout.id} is {rollout.state}, its last event is {event}"
    for kind, rows in (
        ("trigger", [trigger for trigger in evidence.triggers if not _noted(trigger)]),
        ("run", evidence.runs),
        ("release", evidence.releases),
        ("verdict", evidence.verdicts),
    ):
        for row in rows:
            if first[f"{kind}:{row.id}"] != 1:
                yield f"{kind} {row.id} began {first[f'{kind}:{row.id}']} times"
    for version in evidence.versions:
        if seals[f"model_version:{version.id}"] != 1:
            yield f"model version {version.id} was registered {seals[f'model_version:{version.id}']} times"
    said = _published(evidence)
    for route in evidence.routes:
        found = said.get((route.id, route.epoch, route.generation))
        arms = (
            {}
            if found is None
            else {role: arm.release for role in ("stable", "candidate") if (arm := found.route.arm(role))}
        )
        if {role: getattr(route, role) for role in ("stable", "candidate") if getattr(route, role)} != arms:
            yield f"route {route} is not what its last event says: {found}"


def _told(last: dict[str, Event], row: Entity, kind: str, expected: tuple[str, ...]) -> Iterator[str]:
    event = last.get(f"{kind}:{row.id}")
    if event is None or event.kind not in expected:
        yield f"{kind} {row.id} is {msgspec.to_builtins(row).get('state')}, its last event is {event and event.kind}"


def every_record_lies_in_one_place(evidence: Evidence) -> Iterator[str]:
    """No segment is sealed twice and nothing falls between two of them."""
    for ident, count in evidence.placed.items():
        if count != 1:
            yield f"the record {ident} lies in {count} places"
    seen = {record.id.hex() for record in evidence.records}
    if seen != evidence.placed.keys():
        yield f"followers and places differ by {sorted(seen ^ evidence.placed.keys())[:5]}"
    boots: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for segment in evidence.segments:
        boots[segment.boot].append((segment.first, segment.last, segment.rows))
    for boot, spans in boots.items():
        free = 0
        for first, last, rows in sorted(spans):
            if first != free or last - first + 1 != rows:
                yield f"boot {boot:010x} has a segment of {rows} records from {first} to {last}, after {free}"
            free = last + 1
    sealed = Counter(event.subject for event in evidence.events if event.kind == "segment.sealed")
    for segment in evidence.segments:
        if sealed[f"segment:{segment.id}"] != 1:  # type: ignore[index]
            yield f"segment {segment.id} was sealed {sealed[f'segment:{segment.id}']} times"  # type: ignore[index]


CHECKS: tuple[Check, ...] = (
    nothing_bad_was_answered,
    acknowledged_predictions_are_logged_once,
    acknowledged_labels_are_kept_once,
    acknowledged_triggers_are_kept_and_run_once,
    acknowledged_undos_hold,
    every_answer_is_of_one_published_route,
    generations_never_decrease,
    one_release_is_live_and_the_route_is_it,
    the_route_file_equals_the_rows,
    gateways_serve_the_newest_generation,
    the_chain_holds_and_edges_match,
    a_run_has_one_outcome,
    rows_and_events_tell_the_same,
    every_record_lies_in_one_place,
)
