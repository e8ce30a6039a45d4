"""From a prediction back to everything that made it (`why`), and from anything forward to all it touched (`impact`).

`why` follows the rows: a handful of indexed reads, whatever the size of the workspace. `impact` follows the ledger's graph
and is at home in `andon.governance.impact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from andon.core.canonical import Digest
from andon.core.clock import from_us
from andon.core.entities import DatasetVersion, Release, Run
from andon.core.events import KINDS
from andon.core.ids import (
    ActorId,
    ModelVersionId,
    Node,
    PredictionId,
    ReleaseId,
    RunId,
    VerdictId,
    node,
    split_node,
)
from andon.core.predictions import PredictionRecord
from andon.governance.access import actor_name
from andon.governance.impact import Impact, impact
from andon.store.ports import PredictionLog, Reader, Store

_EVENTS = 20
_PARAMS = 200
_LINKS = 8


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """A person, service or line. `name` is the id again once the name was erased."""

    id: ActorId
    name: str
    kind: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The prediction itself. `data_at` is the domain time that the client gave."""

    id: PredictionId
    at: datetime
    data_at: datetime | None
    endpoint: str
    arm: str
    epoch: int
    generation: int
    propensity: float
    status: int
    inputs: dict[str, Any]
    output: float | None
    error: str | None


class ReleaseSaid(msgspec.Struct, frozen=True, kw_only=True):
    """The release that answered. `cause` is the lineage node of what asked for it."""

    id: ReleaseId
    state: str
    strategy: str
    requested_by: Who
    requested_at: datetime
    cause: str
    because: str | None


class ApprovalSaid(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word for the release."""

    id: str
    by: Who
    at: datetime


class VerdictSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates said. `evidence` is the digest of the figures; `against` the version it was compared with."""

    id: VerdictId
    passed: bool
    summary: str
    evidence: Digest
    policy: Digest
    against: ModelVersionId | None
    at: datetime


class VersionSaid(msgspec.Struct, frozen=True, kw_only=True):
    """The model that answered. `digest` is its package's, `run` what it says it came from, with or without a row of it."""

    id: ModelVersionId
    model: str
    number: int
    digest: Digest
    state: str
    registered_at: datetime
    run: RunId | None


class CauseSaid(msgspec.Struct, frozen=True, kw_only=True):
    """One link of what started a run: a trigger, the alert behind it, a person."""

    node: str
    text: str


class RunSaid(msgspec.Struct, frozen=True, kw_only=True):
    """The run that made the model. `causes` goes from the nearest to the farthest. A client's own run has no line's code."""

    id: RunId
    state: str
    started_by: Who
    causes: tuple[CauseSaid, ...]
    started_at: datetime | None
    finished_at: datetime | None
    git_commit: str | None
    git_dirty: bool | None
    code: Digest | None
    environment: Digest | None
    seed: int
    params: dict[str, str]
    faults: tuple[str, ...]


class DatasetSaid(msgspec.Struct, frozen=True, kw_only=True):
    """The data the model was made of. `until` is the domain time of its newest row."""

    id: str
    dataset: str
    number: int
    manifest: Digest
    rows: int
    until: datetime | None
    source: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """An event on the way to the prediction."""

    seq: int
    at: datetime
    kind: str
    says: str
    subject: str
    actor: str


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that made a prediction. A part that was never recorded is None."""

    prediction: Answered
    release: ReleaseSaid
    approvals: tuple[ApprovalSaid, ...]
    verdict: VerdictSaid | None
    model_version: VersionSaid
    run: RunSaid | None
    dataset: DatasetSaid | None
    policy: Digest
    events: tuple[Step, ...]

    def text(self) -> str:
        """The same for people, a line for each thing."""
        return "\n".join(f"{label:>12}  {text}" for label, text in _lines(self))


def why(store: Store, log: PredictionLog, ident: PredictionId) -> Why:
    """Everything that made a prediction.

    Raises:
        NotFound: no such prediction, or a row that it refers to is gone.
        Invalid: it is not a prediction id.
    """
    record = log.find(ident)
    return store.read(lambda reader: _Looking(reader).why(record))


class _Looking:
    """One look at the rows behind a prediction; each actor is read once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._people: dict[str, Who] = {}

    def why(self, record: PredictionRecord) -> Why:
        reader = self._reader
        release = reader.releases.get(record.release)
        version = reader.model_versions.get(release.model_version)
        run = reader.runs.find(version.run) if version.run else None
        data = self._dataset(version.dataset_version)
        verdict = reader.verdicts.find(release.verdict) if release.verdict else None
        approvals = reader.approvals.select({"release": release.id}, order=("created_at",))
        subjects = [
            *([node("dataset_version", version.dataset_version)] if version.dataset_version else []),
            *([node("run", version.run)] if version.run else []), node("model_version", version.id),
            *([node("verdict", verdict.id)] if verdict else []), *(node("approval", row.id) for row in approvals),
            node("release", release.id),
        ]  # fmt: skip
        return Why(
            prediction=_answered(record),
            release=self._release(release),
            approvals=tuple(
                ApprovalSaid(id=row.id, by=self._who(row.actor), at=row.created_at) for row in approvals
            ),
            verdict=None if verdict is None else VerdictSaid(
                id=verdict.id, passed=verdict.passed, summary=verdict.summary, evidence=verdict.evidence,
                policy=verdict.policy, against=verdict.against, at=verdict.created_at,
            ),
            model_version=VersionSaid(
                id=version.id, model=version.model, number=version.number, digest=version.digest, state=version.state,
                registered_at=version.created_at, run=version.run,
            ),
            run=None if run is None else self._run(run),
            dataset=None if data is None else DatasetSaid(
                id=data.id, dataset=data.dataset, number=data.number, manifest=data.manifest, rows=data.rows,
                until=data.data_until, source=data.source,
            ),
            policy=release.policy,
            events=self._events(subjects),
        )  # fmt: skip

    def _release(self, row: Release) -> ReleaseSaid:
        return ReleaseSaid(
            id=row.id, state=row.state, strategy=row.strategy, requested_by=self._who(row.actor),
            requested_at=row.created_at, cause=row.cause, because=row.because,
        )  # fmt: skip

    def _run(self, row: Run) -> RunSaid:
        params = self._reader.params.of([row.number])[row.number]
        return RunSaid(
            id=row.id, state=row.state, started_by=self._who(row.actor), causes=tuple(self._causes(row.cause)),
            started_at=row.started_at, finished_at=row.finished_at, git_commit=row.git_commit, git_dirty=row.git_dirty,
            code=row.code, environment=row.environment, seed=row.seed, params=dict(islice(params.items(), _PARAMS)),
            faults=row.faults,
        )  # fmt: skip

    def _dataset(self, manifest: Digest | None) -> DatasetVersion | None:
        found = self._reader.dataset_versions.select({"manifest": manifest}, limit=1) if manifest else None
        return found[0] if found else None

    def _causes(self, cause: str) -> Iterator[CauseSaid]:
        """From the nearest to the farthest: a run's trigger, what fired it, and so on."""
        for _ in range(_LINKS):
            kind, ident = split_node(Node(cause))
            text, farther = ident, ""
            if kind == "trigger" and (trigger := self._reader.triggers.find(ident)):
                text, farther = f"trigger {trigger.kind}", trigger.cause
            elif kind == "alert" and (alert := self._reader.alerts.find(ident)):
                text = f"alert {alert.monitor}: {alert.summary}"
            elif kind == "line" and (line := self._reader.lines.find(ident)):
                text = f"line {ident}, as {self._who(line.actor).name} left it"
            elif kind == "actor":
                text = self._who(ActorId(ident)).name
            yield CauseSaid(node=cause, text=text)
            if not farther:
                return
            cause = farther

    def _events(self, subjects: list[Node]) -> tuple[Step, ...]:
        found = {
            event.seq: event
            for subject in subjects
            for event in self._reader.ledger.latest(limit=_EVENTS, subject=subject)
        }
        return tuple(
            Step(
                seq=seq, at=event.at, kind=event.kind, says=KINDS.get(event.kind, event.kind), subject=event.subject,
                actor=self._who(event.actor).name,
            )
            for seq, event in sorted(found.items())
        )  # fmt: skip

    def _who(self, ident: ActorId) -> Who:
        if ident not in self._people:
            row = self._reader.actors.find(ident)
            kind = row.kind if row else "unrecorded"
            self._people[ident] = Who(id=ident, name=actor_name(self._reader, ident), kind=kind)
        return self._people[ident]


def _answered(record: PredictionRecord) -> Answered:
    return Answered(
        id=record.prediction_id, at=from_us(record.at_us),
        data_at=None if record.data_at_us is None else from_us(record.data_at_us), endpoint=record.endpoint, arm=record.arm,
        epoch=record.epoch, generation=record.generation, propensity=record.propensity, status=record.status,
        inputs=record.inputs, output=record.output, error=record.error,
    )  # fmt: skip


def _lines(said: Why) -> Iterator[tuple[str, str]]:
    """Label and text of each line for people."""
    one, release, verdict, version, run, data = (
        said.prediction, said.release, said.verdict, said.model_version, said.run, said.dataset,
    )  # fmt: skip
    answer = f"failed with {one.status}: {one.error}" if one.output is None else f"{one.output:.6g}"
    yield "prediction", f"{one.id}: {answer}"
    yield (
        "answered",
        f"{one.at:%Y-%m-%d %H:%M:%S} UTC by endpoint {one.endpoint}, {one.arm} arm, generation {one.generation}",
    )
    if one.data_at:
        yield "data time", f"{one.data_at:%Y-%m-%d %H:%M:%S} UTC"
    yield "model", f"{version.model}/{version.number}, {version.digest}"
    because = f" ({release.because})" if release.because else ""
    yield "release", f"{release.id}, {release.state}{because}, requested by {release.requested_by.name}"
    for approval in said.approvals:
        yield "approved by", f"{approval.by.name} at {approval.at:%Y-%m-%d %H:%M:%S} UTC"
    if verdict:
        yield (
            "verdict",
            f"{'passed' if verdict.passed else 'failed'}: {verdict.summary}; evidence {verdict.evidence}",
        )
    yield "policy", said.policy
    if run is None:
        yield "run", "unrecorded" if version.run is None else f"{version.run}, which was deleted"
    else:
        yield from _run_lines(run)
    if data:
        until = f" until {data.until:%Y-%m-%d %H:%M} UTC" if data.until else ""
        yield (
            "data",
            f"{data.dataset}@{data.number}, {data.rows} rows{until}, from {data.source}, {data.manifest}",
        )
    else:
        yield "data", "unrecorded"


def _run_lines(run: RunSaid) -> Iterator[tuple[str, str]]:
    yield (
        "run",
        f"{run.id}, started by {run.started_by.name}" + "".join(f" < {cause.text}" for cause in run.causes),
    )
    if run.faults:
        yield "faults", "injected on purpose: " + ", ".join(run.faults)
    commit = (
        "no git commit"
        if run.git_commit is None
        else f"git {run.git_commit[:12]}{' (changed)' if run.git_dirty else ''}"
    )
    yield "code", f"{run.code or 'unrecorded'}, {commit}"
    yield "environment", run.environment or "unrecorded"
    yield (
        "params",
        ", ".join(f"{key}={value}" for key, value in {"seed": str(run.seed), **run.params}.items()),
    )


__all__ = [
    "Answered", "ApprovalSaid", "CauseSaid", "DatasetSaid", "Impact", "ReleaseSaid", "RunSaid", "Step", "VerdictSaid",
    "VersionSaid", "Who", "Why", "impact", "why",
]  # fmt: skip
