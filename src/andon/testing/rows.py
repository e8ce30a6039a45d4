"""A small workspace of one line: a row of every noun, each fitting the others, in the order in which they can be written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf, nan

from msgspec.structs import replace

from andon.core.canonical import Digest, digest_bytes
from andon.core.entities import (
    Actor,
    Alert,
    Alias,
    Approval,
    Artifact,
    Cursor,
    DatasetVersion,
    Entity,
    Experiment,
    Feedback,
    Line,
    LoggedModel,
    Model,
    ModelPoint,
    ModelVersion,
    MonitorWindow,
    Personal,
    Point,
    Release,
    Rollout,
    RouteRow,
    Run,
    RunInput,
    RunModel,
    Segment,
    Trigger,
    Verdict,
    Workspace,
    owner,
)
from andon.core.events import EventDraft, Fact
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
    node,
)
from andon.store.ports import Collection, Reader, Transaction

AT = datetime(2013, 4, 1, 12, 30, 0, 123456, tzinfo=UTC)
ANN = ActorId("act_ann")
LINE = "churn"
COLLECTIONS: dict[type[Entity], str] = {
    Workspace: "workspaces", Actor: "actors", Personal: "personal", Line: "lines",
    DatasetVersion: "dataset_versions", Experiment: "experiments", Run: "runs", RunInput: "run_inputs",
    LoggedModel: "logged_models", RunModel: "run_models", Artifact: "artifacts", Model: "models", Alias: "aliases",
    ModelVersion: "model_versions",
    Verdict: "verdicts", Approval: "approvals", Release: "releases", Rollout: "rollouts", RouteRow: "routes",
    MonitorWindow: "monitor_windows", Alert: "alerts", Trigger: "triggers", Segment: "segments",
    Feedback: "feedback", Cursor: "cursors",
}  # fmt: skip
"""The verb of a reader that gives a noun's rows."""


def rows_of(reader: Reader, kind: type[Entity]) -> Collection[Entity]:
    """The collection of a noun.

    >>> from andon.core.entities import Run
    >>> COLLECTIONS[Run]
    'runs'
    """
    found: Collection[Entity] = getattr(reader, COLLECTIONS[kind])
    return found


def later(minutes: float) -> datetime:
    """Minutes after `AT`.

    >>> later(1) - AT
    datetime.timedelta(seconds=60)
    """
    return AT + timedelta(minutes=minutes)


def digest(text: str) -> Digest:
    """A digest that a test can name.

    >>> digest("a") == digest("a") != digest("b")
    True
    """
    return digest_bytes(text.encode())


def actor(ident: str = "act_ann", subject: str = "os:1000") -> Actor:
    """A person."""
    return Actor(id=ActorId(ident), kind="person", subject=subject, created_at=AT)


def line(name: str = LINE) -> Line:
    """A line of Ann's."""
    return Line(
        id=name, folder="somewhere", policy=digest("policy"), code=digest("code"), actor=ANN, changed_at=AT
    )


def experiment(number: int = 1, name: str = LINE) -> Experiment:
    """An experiment; number 0 is there in every workspace."""
    return Experiment(
        id=ExperimentId(str(number)), number=number, name=name, actor=ANN, created_at=AT, changed_at=AT
    )


def run(ident: str, *, on: str = LINE, minutes: float = 0, finished: float | None = None) -> Run:
    """A line's run that was queued some minutes after `AT`, in the experiment that every workspace has."""
    return Run(
        id=RunId(ident), number=short_number(ident), experiment=ExperimentId("0"), line=on, state="queued",
        cause="trigger:tr_1", actor=ANN, policy=digest("policy"), code=digest("code"), created_at=later(minutes),
        finished_at=None if finished is None else later(finished),
    )  # fmt: skip


def tracked_run(ident: str, *, number: int | None = None, within: str = "0", minutes: float = 0) -> Run:
    """A run that a client began some minutes after `AT`."""
    return Run(
        id=RunId(ident), number=number or short_number(ident), experiment=ExperimentId(within), state="running",
        cause="actor:act_ann", actor=ANN, created_at=later(minutes), started_at=later(minutes),
    )  # fmt: skip


def short_number(ident: str) -> int:
    """A short number for an id, the same each time."""
    return int(digest(ident)[-12:], 16)


def model(name: str = LINE) -> Model:
    """A registered model."""
    return Model(id=name, actor=ANN, created_at=AT, changed_at=AT)


def logged_model(ident: str = "m-1", *, within: str = "0") -> LoggedModel:
    """A model that a client began to save."""
    return LoggedModel(
        id=LoggedModelId(ident), experiment=ExperimentId(within), name="forest", state="pending", actor=ANN,
        created_at=AT, changed_at=AT,
    )  # fmt: skip


def artifact(path: str) -> Artifact:
    """A file that a client keeps."""
    return Artifact(id=path, digest=digest(path), size_bytes=len(path), actor=ANN, changed_at=AT)


def model_version(ident: str = "mv_1", number: int = 1, *, made_by: str = "r1") -> ModelVersion:
    """A version that a run made."""
    return ModelVersion(
        id=ModelVersionId(ident), model=LINE, number=number, digest=digest(ident), state="candidate",
        run=RunId(made_by), dataset_version=digest("data"), profile=digest("profile"), actor=ANN, created_at=AT,
    )  # fmt: skip


def release(
    ident: str = "rel_1", *, endpoint: str = LINE, version: str = "mv_1", made_by: str = "r1"
) -> Release:
    """A release that has just been requested."""
    return Release(
        id=ReleaseId(ident), endpoint=endpoint, line=LINE, model=LINE, number=1,
        model_version=ModelVersionId(version), version_digest=digest(version), policy=digest("policy"),
        run=RunId(made_by), state="requested", strategy="canary", approvals_needed=0, cause="policy", actor=ANN,
        created_at=AT, changed_at=AT,
    )  # fmt: skip


def trigger(ident: str = "tr_1", key: str = "manual:1") -> Trigger:
    """A person's wish for a run."""
    return Trigger(
        id=TriggerId(ident),
        line=LINE,
        kind="manual",
        key=key,
        cause="actor:act_ann",
        actor=ANN,
        created_at=AT,
    )


def dataset_version(number: int = 1, content: str = "data") -> DatasetVersion:
    """A dataset version of some content."""
    return DatasetVersion(
        id=digest(content), dataset="customers", number=number, manifest=digest(content), state="valid", rows=10,
        columns=3, size_bytes=2**40, stored_bytes=100, source="customers.csv", contract=None, report=None, actor=ANN,
        created_at=AT,
    )  # fmt: skip


def draft(
    kind: str = "run.created",
    ident: str = "r1",
    *,
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    facts: dict[str, Fact] | None = None,
    note: str | None = None,
    by: ActorId = ANN,
) -> EventDraft:
    """Something that Ann did to a thing of the kind that the event's name begins with."""
    subject = node(kind.partition(".")[0], ident)
    told = tuple(node(*each.split(":", 1)) for each in inputs)
    made = tuple(node(*each.split(":", 1)) for each in outputs)
    return EventDraft(
        kind=kind, actor=by, subject=subject, at=AT, inputs=told, outputs=made, facts=facts or {}, note=note
    )


def world() -> list[Entity]:
    """One row of every noun, and a second one of some with every optional field given."""
    return [
        actor(), Personal(id="actor:act_ann", subject="actor:act_ann", salt="s", text="Ann Böll\n\"quoted\" 😀"),
        line(), line("fraud"),
        dataset_version(), _dataset_version_in_full(),
        experiment(), _experiment_in_full(),
        run("r1"), _run_in_full(), _tracked_run_in_full(),
        RunInput(
            id=digest("input"), run=RunId("r3"), experiment=ExperimentId("1"), name="customers", digest="ab12",
            source_type="local", source="customers.csv", created_at=AT,
        ),
        _run_input_in_full(),
        logged_model(), _logged_model_in_full(),
        RunModel(id="r3/output/m-2", run=RunId("r3"), model=LoggedModelId("m-2"), direction="output", created_at=AT, step=4),
        artifact("1/r3/artifacts/model/MLmodel"),
        model(), Model(id="fraud % _ \\ é", actor=ANN, created_at=AT, changed_at=later(1), description="a\nb"),
        Alias(id="churn/champion", model=LINE, alias="champion", number=2, actor=ANN, changed_at=AT),
        model_version(), model_version("mv_2", 2, made_by="r2"), _model_version_in_full(),
        Verdict(
            id=VerdictId("vd_1"), model_version=ModelVersionId("mv_2"), version_digest=digest("mv_2"), endpoint=LINE,
            policy=digest("policy"), passed=True, evidence=digest("evidence"), summary="2 of 2 gates passed",
            against=ModelVersionId("mv_1"), created_at=AT,
        ),
        release(), _release_in_full(),
        Approval(
            id=ApprovalId("ap_1"), release=ReleaseId("rel_2"), version_digest=digest("mv_2"), policy=digest("policy"),
            actor=ANN, created_at=AT,
        ),
        Rollout(
            id=RolloutId("ro_1"), release=ReleaseId("rel_2"), endpoint=LINE, state="paused", steps=(1, 10, 100), step=1,
            created_at=AT, changed_at=later(1), data_from=later(2), step_from=later(3), paused_from="canary",
            evidence=digest("guard"), because="a person paused it",
        ),
        RouteRow(
            id=LINE, epoch=1, generation=300, salt="salt", stable=ReleaseId("rel_2"), candidate=None, previous=None,
            weight_percent=10, held=True, adopted=(OverrideId("ov_1"), OverrideId("ov_2")), changed_at=AT,
        ),
        MonitorWindow(
            id="churn/auc/mv_1/0", line=LINE, monitor="auc", model_version=ModelVersionId("mv_1"), data_from=AT,
            data_until=later(60), rows=1000, value=0.1 + 0.2, low=-1.5e-300, high=float("inf"), evidence=None, alarm=True,
            details={"classes": ["late", None, 1, 2.5, True], "deep": {"é": {}}}, created_at=AT,
        ),
        Alert(
            id=AlertId("al_1"), line=LINE, monitor="drift", subject="model_version:mv_1", state="open",
            summary="delay drifted", evidence=digest("alert"), created_at=AT, data_at=later(5),
        ),
        trigger(),
        Segment(
            id=SegmentId("000000004d-000001"), boot=2**40 - 1, number=1, first=0, last=2**34 - 1, digest=digest("segment"),
            rows=2**34, created_at=AT, data_from=None, data_until=later(9), releases={"rel_1": 3, "rel_2": 4},
        ),
        Feedback(
            id="fb_1", prediction=PredictionId("018bcfe5-6800-7000-8000-000000000001"), label=1.0, source="api",
            actor=ANN, received_at=AT, data_at=later(-1),
        ),
        Cursor(id="loop", seq=7),
    ]  # fmt: skip


def say_more(tx: Transaction) -> None:
    """Write metrics, params and tags of the rows of `world`, and give numbers."""
    for run in (tx.runs.get("r1"), tx.runs.get("r3")):
        tx.metrics.log(run, [Point("auc", value, 5, step) for step, value in enumerate((0.5, inf, nan))])
        tx.params.add(owner(run), {"depth": "6", "text": "x" * 700, "é % _ \\": ""})
        tx.run_tags.put(owner(run), {"mlflow.note": "a\nb"})
    tx.experiment_tags.put(owner(tx.experiments.get("1")), {"team": "red"})
    tx.model_tags.put(owner(tx.models.get(LINE)), {"a": "1"})
    tx.version_tags.put(owner(tx.model_versions.get("mv_1")), {"b": "2"})
    saved = tx.logged_models.get("m-1")
    tx.logged_model_params.add(owner(saved), {"c": "3"})
    tx.logged_model_tags.put(owner(saved), {"d": "4"})
    tx.metrics.log_of_models(
        [saved],
        [ModelPoint(model=saved.id, run=RunId("r3"), key="auc", value=-inf, at_ms=1, dataset_name="day")],
    )
    tx.counters.reach("run", 1000)


def said_more(reader: Reader) -> str:
    """What `say_more` wrote, as text that can be compared (NaN is equal to nothing)."""
    runs = [reader.runs.get("r1"), reader.runs.get("r3")]
    numbers = [run.number for run in runs]
    return repr(
        [
            reader.metrics.latest(runs), [reader.metrics.history(run, "auc") for run in runs], reader.params.of(numbers),
            reader.run_tags.of(numbers), reader.experiment_tags.of(["0", "1"]), reader.model_tags.of([LINE]),
            reader.version_tags.of(["mv_1", "mv_2"]), reader.logged_model_params.of(["m-1"]),
            reader.logged_model_tags.of(["m-1"]), reader.metrics.of_models([LoggedModelId("m-1")]),
        ]
    )  # fmt: skip


def _dataset_version_in_full() -> DatasetVersion:
    return DatasetVersion(
        id=digest("more"), dataset="customers", number=2, manifest=digest("more"), state="blocked", rows=11, columns=3,
        size_bytes=1, stored_bytes=1, source="customers.csv", contract=digest("contract"), report=digest("report"),
        actor=ANN, created_at=later(1), data_until=later(-60), parent=digest("data"), objects=digest("objects"),
    )  # fmt: skip


def _run_in_full() -> Run:
    return Run(
        id=RunId("r2"), line=LINE, state="finished", cause="alert:al_1", actor=ANN, policy=digest("policy"),
        code=digest("code"), created_at=later(10), data_at=later(11), dataset_version=digest("data"),
        environment=digest("environment"), git_commit="0" * 40, git_dirty=True, seed=-(2**62), faults=("a", "b"), fence=3,
        started_at=later(12), finished_at=later(13), model_version=ModelVersionId("mv_2"), error="", seal=digest("seal"),
        seals=1, number=2, experiment=ExperimentId("1"), name="line-2",
    )  # fmt: skip


def _experiment_in_full() -> Experiment:
    return Experiment(
        id=ExperimentId("2"), number=2, name="a/b % _ \\ é", actor=ANN, created_at=AT, changed_at=later(1),
        artifact_location="s3://bucket/a b", deleted_at=later(2),
    )  # fmt: skip


def _tracked_run_in_full() -> Run:
    return replace(
        tracked_run("r3", number=3, within="1"), state="killed", name="bold-owl-12", claimed_user="Bob",
        finished_at=later(1), deleted_at=later(2),
    )  # fmt: skip


def _run_input_in_full() -> RunInput:
    return RunInput(
        id=digest("input 2"), run=RunId("r3"), experiment=ExperimentId("1"), name="customers", digest="cd34",
        source_type="http", source='{"url": "http://x/y"}', created_at=AT, context="training", schema="{}", profile="{}",
        tags={"mlflow.data.context": "training", "é": ""},
    )  # fmt: skip


def _logged_model_in_full() -> LoggedModel:
    return replace(
        logged_model("m-2", within="1"), state="failed", run=RunId("r3"), model_type="agent", state_message="no room",
        deleted_at=later(3),
    )  # fmt: skip


def _model_version_in_full() -> ModelVersion:
    return ModelVersion(
        id=ModelVersionId("mv_3"), model=LINE, number=3, digest=digest("mv_3"), state="candidate", actor=ANN,
        created_at=AT, source="models:/m-2", logged_model=LoggedModelId("m-2"), held=False, stage="Production",
        description="", claimed_user="Bob", changed_at=later(1), deleted_at=later(2), data_from=AT, data_until=later(3),
        rejected_because="auc",
    )  # fmt: skip


def _release_in_full() -> Release:
    return Release(
        id=ReleaseId("rel_2"), endpoint=LINE, line=LINE, model=LINE, number=2, model_version=ModelVersionId("mv_2"),
        version_digest=digest("mv_2"), policy=digest("policy"), run=RunId("r2"), state="live", strategy="direct",
        approvals_needed=2, cause="actor:act_ann", actor=ANN, created_at=AT, changed_at=later(1),
        verdict=VerdictId("vd_1"), previous=ReleaseId("rel_1"), because="it won",
    )  # fmt: skip
