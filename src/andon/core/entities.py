"""The nouns of Andon as frozen values. A change makes a new value (`msgspec.structs.replace`) plus the event that says so.

Every entity that is a row has `rev`: 0 when new, raised by one at each change, compared when it is written. Times are
aware UTC. `data_*` times are domain time (in a replay: the data's), all others wall time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec

from andon.core.canonical import Digest
from andon.core.clock import to_us
from andon.core.ids import (
    ActorId,
    AlertId,
    ApprovalId,
    ExperimentId,
    LoggedModelId,
    ModelVersionId,
    OverrideId,
    PredictionId,
    ReleaseId,
    RolloutId,
    RunId,
    SegmentId,
    TriggerId,
    VerdictId,
)
from andon.core.states import (
    AlertState,
    DatasetState,
    LoggedModelState,
    ReleaseState,
    RolloutState,
    RunState,
    Stage,
    VersionState,
)

Scalar = str | int | float | bool | None


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """What every row has."""

    id: str
    rev: int = 0


class Workspace(Entity, frozen=True, kw_only=True):
    """One row, id `workspace`. A restore or fail-over raises the epoch, so that old fences and routes cannot win."""

    name: str
    epoch: int
    created_at: datetime


class Actor(Entity, frozen=True, kw_only=True):
    """Who acts: a person, a service or the line itself. `subject` says how it is known (`os:1000`, `line:churn`);
    names live in `Personal`, which can be erased."""

    id: ActorId
    kind: Literal["person", "service", "line"]
    subject: str
    created_at: datetime


class Personal(Entity, frozen=True, kw_only=True):
    """Free text and names that the ledger only holds a salted hash of. Erasing the row does not break the chain."""

    subject: str
    salt: str
    text: str


class Line(Entity, frozen=True, kw_only=True):
    """One `andon.toml`; the id is the line's name. `policy` and `code` are what the next run will use.

    `watermark` is the domain time up to which everything that happened has been told; None means the wall clock rules.
    """

    folder: str
    policy: Digest
    code: Digest
    actor: ActorId
    changed_at: datetime
    watermark: datetime | None = None


class DatasetVersion(Entity, frozen=True, kw_only=True):
    """An immutable version of a dataset; the manifest's digest is the content's id, the same for the same content.

    `objects` is the index of the objects that hold the values now. A newer writer may place the same values in other
    objects: then the index changes and the id does not. None when the values are gone and only the identity is kept.
    """

    dataset: str
    number: int
    manifest: Digest
    state: DatasetState
    rows: int
    columns: int
    size_bytes: int
    stored_bytes: int
    source: str
    contract: Digest | None
    report: Digest | None
    actor: ActorId
    created_at: datetime
    data_until: datetime | None = None
    parent: Digest | None = None
    objects: Digest | None = None


class Experiment(Entity, frozen=True, kw_only=True):
    """Runs that belong together; the id is its number as text. A line's runs are in the experiment of its name.

    `artifact_location` is an address of the client's own choice; None keeps artifacts in the workspace.
    """

    id: ExperimentId
    number: int
    name: str
    actor: ActorId
    created_at: datetime
    changed_at: datetime
    artifact_location: str | None = None
    deleted_at: datetime | None = None


class Run(Entity, frozen=True, kw_only=True):
    """One training: a pass of a line (data in, model version out), or what a client tracks, which has no line.

    `number` is its short form inside the database, `cause` the node of what started it, `actor` who that was;
    `claimed_user` is only what a client said.
    """

    id: RunId
    number: int
    experiment: ExperimentId
    state: RunState
    cause: str
    actor: ActorId
    created_at: datetime
    line: str | None = None
    policy: Digest | None = None
    code: Digest | None = None
    name: str | None = None
    claimed_user: str | None = None
    data_at: datetime | None = None
    dataset_version: Digest | None = None
    environment: Digest | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    seed: int = 0
    faults: tuple[str, ...] = ()
    fence: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    model_version: ModelVersionId | None = None
    error: str | None = None
    seal: Digest | None = None
    seals: int = 0
    deleted_at: datetime | None = None


class Point(msgspec.Struct, frozen=True):
    """One point of a metric. `at_ms` is milliseconds since 1970 as the client said; NaN and infinities are kept."""

    key: str
    value: float
    at_ms: int
    step: int = 0


class ModelPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A point of a metric that was measured of a logged model, on a dataset if one is named."""

    model: LoggedModelId
    run: RunId
    key: str
    value: float
    at_ms: int
    step: int = 0
    dataset_name: str | None = None
    dataset_digest: str | None = None


class RunInput(Entity, frozen=True, kw_only=True):
    """A dataset that a client says a run used; the id is a digest of (run, name, digest).

    `digest`, `source`, `schema` and `profile` are the client's own words; `context` is what it was used for (`training`).
    """

    run: RunId
    experiment: ExperimentId
    name: str
    digest: str
    source_type: str
    source: str
    created_at: datetime
    context: str | None = None
    schema: str | None = None
    profile: str | None = None
    tags: dict[str, str] = {}


class RunModel(Entity, frozen=True, kw_only=True):
    """A logged model that a run made or used; the id is `run/direction/model`."""

    run: RunId
    model: LoggedModelId
    direction: Literal["input", "output"]
    created_at: datetime
    step: int = 0


class LoggedModel(Entity, frozen=True, kw_only=True):
    """A model that a client saved in an experiment, before or without being registered."""

    id: LoggedModelId
    experiment: ExperimentId
    name: str
    state: LoggedModelState
    actor: ActorId
    created_at: datetime
    changed_at: datetime
    run: RunId | None = None
    model_type: str | None = None
    state_message: str | None = None
    deleted_at: datetime | None = None


class Artifact(Entity, frozen=True, kw_only=True):
    """A file that a client keeps in the workspace; the id is its path, `experiment/run/artifacts/...`, a name and no more."""

    digest: Digest
    size_bytes: int
    actor: ActorId
    changed_at: datetime


class Model(Entity, frozen=True, kw_only=True):
    """A registered model; the id is its name."""

    actor: ActorId
    created_at: datetime
    changed_at: datetime
    description: str | None = None


class Alias(Entity, frozen=True, kw_only=True):
    """A name that points at a version of a model; the id is `model/alias`."""

    model: str
    alias: str
    number: int
    actor: ActorId
    changed_at: datetime


class ModelVersion(Entity, frozen=True, kw_only=True):
    """An immutable model with all that made it. `digest` is its package's manifest; the same content, the same digest.

    What a client registered has no training data or profile that we know of. `held` is false when its bytes lie elsewhere:
    then the digest is one of its source's address only. `stage` is a label for clients, and says nothing of what is live.
    """

    id: ModelVersionId
    model: str
    number: int
    digest: Digest
    state: VersionState
    actor: ActorId
    created_at: datetime
    run: RunId | None = None
    dataset_version: Digest | None = None
    profile: Digest | None = None
    source: str | None = None
    logged_model: LoggedModelId | None = None
    held: bool = True
    stage: Stage = "None"
    description: str | None = None
    claimed_user: str | None = None
    changed_at: datetime | None = None
    deleted_at: datetime | None = None
    data_from: datetime | None = None
    data_until: datetime | None = None
    rejected_because: str | None = None


class Verdict(Entity, frozen=True, kw_only=True):
    """What a policy's gates said of a digest for an endpoint. A changed digest or policy needs a new one."""

    id: VerdictId
    model_version: ModelVersionId
    version_digest: Digest
    endpoint: str
    policy: Digest
    passed: bool
    evidence: Digest
    summary: str
    against: ModelVersionId | None
    created_at: datetime


class Approval(Entity, frozen=True, kw_only=True):
    """A person's word for a release: valid for this digest under this policy only."""

    id: ApprovalId
    release: ReleaseId
    version_digest: Digest
    policy: Digest
    actor: ActorId
    created_at: datetime


class Release(Entity, frozen=True, kw_only=True):
    """A model version on its way to an endpoint, on it, or gone from it."""

    id: ReleaseId
    endpoint: str
    line: str
    model: str
    number: int
    model_version: ModelVersionId
    version_digest: Digest
    policy: Digest
    state: ReleaseState
    strategy: Literal["direct", "canary"]
    approvals_needed: int
    cause: str
    actor: ActorId
    created_at: datetime
    changed_at: datetime
    run: RunId | None = None
    verdict: VerdictId | None = None
    previous: ReleaseId | None = None
    because: str | None = None


class Rollout(Entity, frozen=True, kw_only=True):
    """The steps by which a release gets its traffic. `steps` are percent of requests, `step` the index of the current."""

    id: RolloutId
    release: ReleaseId
    endpoint: str
    state: RolloutState
    steps: tuple[int, ...]
    step: int
    created_at: datetime
    changed_at: datetime
    data_from: datetime | None = None
    step_from: datetime | None = None
    paused_from: RolloutState | None = None
    evidence: Digest | None = None
    because: str | None = None


class RouteRow(Entity, frozen=True, kw_only=True):
    """What an endpoint should serve; the id is the endpoint. Its published form is `core.routes.EndpointRoute`.

    `held` is set by an undo: the endpoint does not move forward until a person releases.
    """

    epoch: int
    generation: int
    salt: str
    stable: ReleaseId | None
    candidate: ReleaseId | None
    previous: ReleaseId | None
    weight_percent: int
    held: bool
    adopted: tuple[OverrideId, ...]
    changed_at: datetime


class MonitorWindow(Entity, frozen=True, kw_only=True):
    """What a monitor saw in one window of domain time; the id is `line/monitor/model_version/start`, so it is written once."""

    line: str
    monitor: str
    model_version: ModelVersionId
    data_from: datetime
    data_until: datetime
    rows: int
    value: float | None
    low: float | None
    high: float | None
    evidence: float | None
    alarm: bool
    details: dict[str, Any]
    created_at: datetime


class Alert(Entity, frozen=True, kw_only=True):
    """A monitor's or contract's finding, with its evidence, until it is closed."""

    id: AlertId
    line: str
    monitor: str
    subject: str
    state: AlertState
    summary: str
    evidence: Digest
    created_at: datetime
    data_at: datetime | None = None
    closed_at: datetime | None = None
    closed_because: str | None = None


class Trigger(Entity, frozen=True, kw_only=True):
    """A reason to run a line, taken once: `key` is unique (`alert:al_..`, `data:sha256:..`, `manual:..`)."""

    id: TriggerId
    line: str
    kind: Literal["manual", "data", "drift", "performance", "code", "cron"]
    key: str
    cause: str
    actor: ActorId
    created_at: datetime
    data_at: datetime | None = None
    faults: tuple[str, ...] = ()
    run: RunId | None = None
    refused: str | None = None


class Segment(Entity, frozen=True, kw_only=True):
    """A sealed stretch of one worker boot's prediction log, kept as a Parquet blob; one lineage node."""

    id: SegmentId
    boot: int
    number: int
    first: int
    last: int
    digest: Digest
    rows: int
    created_at: datetime
    data_from: datetime | None
    data_until: datetime | None
    releases: dict[str, int]


class Feedback(Entity, frozen=True, kw_only=True):
    """A label or outcome for a prediction. Append-only; the same (prediction, label, data time) again is the same row.

    The id is derived from those three, so a repeated delivery changes nothing. The newest `received_at` counts.
    """

    prediction: PredictionId
    label: float
    source: str
    actor: ActorId
    received_at: datetime
    data_at: datetime | None = None


class Cursor(Entity, frozen=True, kw_only=True):
    """How far a follower of the ledger has come; moved in the transaction of its effect."""

    seq: int


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to do a named piece of work. Whoever takes it over raises `fence`; a holder proves life by raising `beat`."""

    name: str
    holder: str
    fence: int
    beat: int


class Owner(NamedTuple):
    """Whose metrics, params or tags: its id in the database, the experiment it is searched in, and its place among ties.

    `rank` is minus the milliseconds of its start or creation, so that the newest comes first.
    """

    id: str | int
    scope: str
    rank: int


def owner(row: Experiment | Run | Model | ModelVersion | LoggedModel) -> Owner:
    """A row as the owner of its metrics, params and tags."""
    match row:
        case Run():
            return Owner(row.number, row.experiment, -(to_us(row.started_at or row.created_at) // 1000))
        case LoggedModel():
            return Owner(row.id, row.experiment, -(to_us(row.created_at) // 1000))
        case _:
            return Owner(row.id, "", -(to_us(row.created_at) // 1000))
