"""The schema: one table for each noun, its columns the fields of the entity of the same name.

What a database is really made with is in `migrations`; a test holds the two equal on both dialects. Content digests
(dataset manifests, policies, evidence) name bytes, not rows, so they are no foreign keys; neither is `releases.previous`
nor `runs.model_version`, which would make the order of loading a circle.

What clients search by (metrics, params, tags) is in narrow tables, each with one index that is both the filter and the
order: (scope, key, value, rank, owner), where `scope` is the experiment and `rank` rises from the newest owner to the
oldest, which is how ties go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, ForeignKey, Index, MetaData, Table, UniqueConstraint, text
from sqlalchemy.types import TypeEngine

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
    ModelVersion,
    MonitorWindow,
    Personal,
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
)
from andon.core.states import IN_PROGRESS
from andon.store.sql.types import FLAG, MOMENT, REAL, ROWID, TEXT, WHOLE, Json

METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)
WORDS: Final = Json(tuple[str, ...])
NUMBERS: Final = Json(tuple[int, ...])
OBJECT: Final = Json(dict[str, Any])
TEXTS: Final = Json(dict[str, str])
COUNTS: Final = Json(dict[str, int])
_NO_ROWID: Final[Mapping[str, Any]] = {"sqlite_with_rowid": False}


def _entity(name: str, *parts: Column[Any] | UniqueConstraint | Index) -> Table:
    """A table of entities: `id` first, then its own columns, `rev` last."""
    columns = (Column("id", TEXT, primary_key=True), *parts, Column("rev", WHOLE, nullable=False))
    return Table(name, METADATA, *columns)


def _has(name: str, kind: TypeEngine[Any], refers: str | None = None) -> Column[Any]:
    """A column that always has a value."""
    return Column(name, kind, *_reference(refers), nullable=False)


def _may(name: str, kind: TypeEngine[Any], refers: str | None = None) -> Column[Any]:
    """A column that may be NULL."""
    return Column(name, kind, *_reference(refers), nullable=True)


def _owned(name: str, kind: TypeEngine[Any], owner: str, *, key: bool = False) -> Column[Any]:
    """A reference to the row without which this one means nothing: it goes when its owner goes."""
    return Column(name, kind, ForeignKey(owner, ondelete="CASCADE"), primary_key=key, nullable=False)


def _reference(refers: str | None) -> Sequence[ForeignKey]:
    return () if refers is None else (ForeignKey(refers),)


_UNSEALED: Final = text("seal IS NULL")


def _labels(name: str, owner: Column[Any]) -> Table:
    """Key-value pairs of owners. A long text is kept as its first 200 characters, which are indexed, and the rest."""
    return Table(
        name,
        METADATA,
        _has("scope", TEXT),
        owner,
        Column("key", TEXT, primary_key=True),
        _has("head", TEXT),
        _may("tail", TEXT),
        _has("rank", WHOLE),
        Index(f"ix_{name}_value", "scope", "key", "head", "rank", "owner"),
        **_NO_ROWID,
    )


def _of(owner: str, kind: TypeEngine[Any] = TEXT) -> Column[Any]:
    """The first part of a primary key: whose row it is."""
    return Column("owner", kind, ForeignKey(owner, ondelete="CASCADE"), primary_key=True, nullable=False)


def _for_states(rule: str, *states: str) -> dict[str, Any]:
    """What makes an index one of rows in certain states only, with the words of its rule."""
    words = ", ".join(f"'{state}'" for state in states)
    condition = text(f"state IN ({words})" if len(states) > 1 else f"state = {words}")
    return {
        "sqlite_where": condition,
        "postgresql_where": condition,
        "info": {"rule": rule, "states": states},
    }


workspaces = _entity("workspaces", _has("name", TEXT), _has("epoch", WHOLE), _has("created_at", MOMENT))
actors = _entity(
    "actors",
    _has("kind", TEXT),
    _has("subject", TEXT),
    _has("created_at", MOMENT),
    UniqueConstraint("subject"),
)
personal = _entity(
    "personal",
    _has("subject", TEXT),
    _has("salt", TEXT),
    _has("text", TEXT),
    Index("ix_personal_subject", "subject", "id"),
)
lines = _entity(
    "lines",
    _has("folder", TEXT),
    _has("policy", TEXT),
    _has("code", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("changed_at", MOMENT),
    _may("watermark", MOMENT),
)
dataset_versions = _entity(
    "dataset_versions",
    _has("dataset", TEXT),
    _has("number", WHOLE),
    _has("manifest", TEXT),
    _has("state", TEXT),
    _has("rows", WHOLE),
    _has("columns", WHOLE),
    _has("size_bytes", WHOLE),
    _has("stored_bytes", WHOLE),
    _has("source", TEXT),
    _may("contract", TEXT),
    _may("report", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    _may("data_until", MOMENT),
    _may("parent", TEXT),
    _may("objects", TEXT),
    UniqueConstraint("dataset", "manifest"),
    Index("ix_dataset_versions_manifest", "manifest", "id"),
    UniqueConstraint("dataset", "number"),
)
experiments = _entity(
    "experiments",
    _has("number", WHOLE),
    _has("name", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    _has("changed_at", MOMENT),
    _may("artifact_location", TEXT),
    _may("deleted_at", MOMENT),
    UniqueConstraint("number"),
    UniqueConstraint("name"),
    Index("ix_experiments_changed_at", "changed_at", "id"),
)
runs = _entity(
    "runs",
    _has("number", WHOLE),
    _has("experiment", TEXT, "experiments.id"),
    _has("state", TEXT),
    _has("cause", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    _may("line", TEXT, "lines.id"),
    _may("policy", TEXT),
    _may("code", TEXT),
    _may("name", TEXT),
    _may("claimed_user", TEXT),
    _may("data_at", MOMENT),
    _may("dataset_version", TEXT),
    _may("environment", TEXT),
    _may("git_commit", TEXT),
    _may("git_dirty", FLAG),
    _has("seed", WHOLE),
    _has("faults", WORDS),
    _has("fence", WHOLE),
    _may("started_at", MOMENT),
    _may("finished_at", MOMENT),
    _may("model_version", TEXT),
    _may("error", TEXT),
    _may("seal", TEXT),
    _has("seals", WHOLE),
    _may("deleted_at", MOMENT),
    UniqueConstraint("number"),
    Index("ix_runs_line", "line", "created_at", "id"),
    Index("ix_runs_state", "state", "id"),
    Index("ix_runs_experiment", "experiment", "started_at", "id"),
    Index("ix_runs_deleted_at", "deleted_at", "id"),
    Index("ix_runs_unsealed", "state", "id", sqlite_where=_UNSEALED, postgresql_where=_UNSEALED),
)
run_inputs = _entity(
    "run_inputs",
    _owned("run", TEXT, "runs.id"),
    _has("experiment", TEXT),
    _has("name", TEXT),
    _has("digest", TEXT),
    _has("source_type", TEXT),
    _has("source", TEXT),
    _has("created_at", MOMENT),
    _may("context", TEXT),
    _may("schema", TEXT),
    _may("profile", TEXT),
    _has("tags", TEXTS),
    Index("ix_run_inputs_run", "run", "id"),
    Index("ix_run_inputs_name", "experiment", "name", "run"),
    Index("ix_run_inputs_digest", "experiment", "digest", "run"),
    Index("ix_run_inputs_context", "experiment", "context", "run"),
)
logged_models = _entity(
    "logged_models",
    _has("experiment", TEXT, "experiments.id"),
    _has("name", TEXT),
    _has("state", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    _has("changed_at", MOMENT),
    _may("run", TEXT),
    _may("model_type", TEXT),
    _may("state_message", TEXT),
    _may("deleted_at", MOMENT),
    Index("ix_logged_models_experiment", "experiment", "created_at", "id"),
    Index("ix_logged_models_run", "run", "id"),
)
run_models = _entity(
    "run_models",
    _owned("run", TEXT, "runs.id"),
    _owned("model", TEXT, "logged_models.id"),
    _has("direction", TEXT),
    _has("created_at", MOMENT),
    _has("step", WHOLE),
    Index("ix_run_models_run", "run", "id"),
    Index("ix_run_models_model", "model", "id"),
)
artifacts = _entity(
    "artifacts",
    _has("digest", TEXT),
    _has("size_bytes", WHOLE),
    _has("actor", TEXT, "actors.id"),
    _has("changed_at", MOMENT),
    Index("ix_artifacts_digest", "digest", "id"),
)
models = _entity(
    "models",
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    _has("changed_at", MOMENT),
    _may("description", TEXT),
    Index("ix_models_changed_at", "changed_at", "id"),
)
aliases = _entity(
    "aliases",
    _has("model", TEXT, "models.id"),
    _has("alias", TEXT),
    _has("number", WHOLE),
    _has("actor", TEXT, "actors.id"),
    _has("changed_at", MOMENT),
    UniqueConstraint("model", "alias"),
    Index("ix_aliases_number", "model", "number", "id"),
)
model_versions = _entity(
    "model_versions",
    _has("model", TEXT, "models.id"),
    _has("number", WHOLE),
    _has("digest", TEXT),
    _has("state", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    _may("run", TEXT),
    _may("dataset_version", TEXT),
    _may("profile", TEXT),
    _may("source", TEXT),
    _may("logged_model", TEXT),
    _has("held", FLAG),
    _has("stage", TEXT),
    _may("description", TEXT),
    _may("claimed_user", TEXT),
    _may("changed_at", MOMENT),
    _may("deleted_at", MOMENT),
    _may("data_from", MOMENT),
    _may("data_until", MOMENT),
    _may("rejected_because", TEXT),
    UniqueConstraint("model", "number"),
    Index("ix_model_versions_run", "run", "id"),
    Index("ix_model_versions_digest", "digest", "id"),
    Index("ix_model_versions_dataset_version", "dataset_version", "id"),
    Index("ix_model_versions_changed_at", "changed_at", "id"),
    Index("ix_model_versions_stage", "model", "stage", "number", "id"),
)
verdicts = _entity(
    "verdicts",
    _has("model_version", TEXT, "model_versions.id"),
    _has("version_digest", TEXT),
    _has("endpoint", TEXT),
    _has("policy", TEXT),
    _has("passed", FLAG),
    _has("evidence", TEXT),
    _has("summary", TEXT),
    _may("against", TEXT, "model_versions.id"),
    _has("created_at", MOMENT),
    Index("ix_verdicts_model_version", "model_version", "endpoint", "created_at", "id"),
)
releases = _entity(
    "releases",
    _has("endpoint", TEXT),
    _has("line", TEXT, "lines.id"),
    _has("model", TEXT),
    _has("number", WHOLE),
    _has("model_version", TEXT, "model_versions.id"),
    _has("version_digest", TEXT),
    _has("policy", TEXT),
    _may("run", TEXT),
    _has("state", TEXT),
    _has("strategy", TEXT),
    _has("approvals_needed", WHOLE),
    _has("cause", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    _has("changed_at", MOMENT),
    _may("verdict", TEXT, "verdicts.id"),
    _may("previous", TEXT),
    _may("because", TEXT),
    Index("ix_releases_endpoint", "endpoint", "state", "created_at", "id"),
    Index("ix_releases_changed_at", "endpoint", "changed_at", "id"),
    Index("ix_releases_state", "state", "id"),
    Index("ix_releases_model_version", "model_version", "id"),
    Index("ix_releases_line", "line", "created_at", "id"),
    Index("ix_releases_run", "run", "id"),
    Index(
        "uq_releases_live",
        "endpoint",
        unique=True,
        **_for_states("an endpoint has one live release at most", "live"),
    ),
    Index(
        "uq_releases_in_progress",
        "endpoint",
        unique=True,
        **_for_states("an endpoint has one release in progress at most", *IN_PROGRESS),
    ),
)
approvals = _entity(
    "approvals",
    _has("release", TEXT, "releases.id"),
    _has("version_digest", TEXT),
    _has("policy", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    UniqueConstraint("release", "actor", "version_digest", "policy"),
)
rollouts = _entity(
    "rollouts",
    _has("release", TEXT, "releases.id"),
    _has("endpoint", TEXT),
    _has("state", TEXT),
    _has("steps", NUMBERS),
    _has("step", WHOLE),
    _has("created_at", MOMENT),
    _has("changed_at", MOMENT),
    _may("data_from", MOMENT),
    _may("step_from", MOMENT),
    _may("paused_from", TEXT),
    _may("evidence", TEXT),
    _may("because", TEXT),
    Index("ix_rollouts_release", "release", "id"),
    Index("ix_rollouts_endpoint", "endpoint", "state", "id"),
    Index("ix_rollouts_state", "state", "id"),
)
routes = _entity(
    "routes",
    _has("epoch", WHOLE),
    _has("generation", WHOLE),
    _has("salt", TEXT),
    _may("stable", TEXT, "releases.id"),
    _may("candidate", TEXT, "releases.id"),
    _may("previous", TEXT, "releases.id"),
    _has("weight_percent", WHOLE),
    _has("held", FLAG),
    _has("adopted", WORDS),
    _has("changed_at", MOMENT),
)
monitor_windows = _entity(
    "monitor_windows",
    _has("line", TEXT, "lines.id"),
    _has("monitor", TEXT),
    _has("model_version", TEXT, "model_versions.id"),
    _has("data_from", MOMENT),
    _has("data_until", MOMENT),
    _has("rows", WHOLE),
    _may("value", REAL),
    _may("low", REAL),
    _may("high", REAL),
    _may("evidence", REAL),
    _has("alarm", FLAG),
    _has("details", OBJECT),
    _has("created_at", MOMENT),
    Index("ix_monitor_windows_line", "line", "monitor", "data_from", "id"),
    Index("ix_monitor_windows_model_version", "model_version", "monitor", "data_from", "id"),
)
alerts = _entity(
    "alerts",
    _has("line", TEXT, "lines.id"),
    _has("monitor", TEXT),
    _has("subject", TEXT),
    _has("state", TEXT),
    _has("summary", TEXT),
    _has("evidence", TEXT),
    _has("created_at", MOMENT),
    _may("data_at", MOMENT),
    _may("closed_at", MOMENT),
    _may("closed_because", TEXT),
    Index("ix_alerts_line", "line", "state", "created_at", "id"),
    Index("ix_alerts_state", "state", "created_at", "id"),
)
triggers = _entity(
    "triggers",
    _has("line", TEXT, "lines.id"),
    _has("kind", TEXT),
    _has("key", TEXT),
    _has("cause", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("created_at", MOMENT),
    _may("data_at", MOMENT),
    _has("faults", WORDS),
    _may("run", TEXT, "runs.id"),
    _may("refused", TEXT),
    UniqueConstraint("line", "key"),
    Index("ix_triggers_line", "line", "created_at", "id"),
    Index("ix_triggers_run", "run", "id"),
)
segments = _entity(
    "segments",
    _has("boot", WHOLE),
    _has("number", WHOLE),
    _has("first", WHOLE),
    _has("last", WHOLE),
    _has("digest", TEXT),
    _has("rows", WHOLE),
    _has("created_at", MOMENT),
    _may("data_from", MOMENT),
    _may("data_until", MOMENT),
    _has("releases", COUNTS),
    UniqueConstraint("boot", "number"),
    Index("ix_segments_boot", "boot", "first"),
    Index("ix_segments_created_at", "created_at", "id"),
)
feedback = _entity(
    "feedback",
    _has("prediction", TEXT),
    _has("label", REAL),
    _has("source", TEXT),
    _has("actor", TEXT, "actors.id"),
    _has("received_at", MOMENT),
    _may("data_at", MOMENT),
    Index("ix_feedback_prediction", "prediction", "received_at", "id"),
    Index("ix_feedback_received_at", "received_at", "id"),
)
cursors = _entity("cursors", _has("seq", WHOLE))

params = _labels("params", _of("runs.number", WHOLE))
run_tags = _labels("run_tags", _of("runs.number", WHOLE))
experiment_tags = _labels("experiment_tags", _of("experiments.id"))
model_tags = _labels("model_tags", _of("models.id"))
version_tags = _labels("version_tags", _of("model_versions.id"))
logged_model_params = _labels("logged_model_params", _of("logged_models.id"))
logged_model_tags = _labels("logged_model_tags", _of("logged_models.id"))

metrics = Table(
    "metrics",
    METADATA,
    _of("runs.number", WHOLE),
    Column("key", TEXT, primary_key=True),
    Column("step", WHOLE, primary_key=True),
    Column("at_ms", WHOLE, primary_key=True),
    Column("nan", FLAG, primary_key=True),
    Column("value", REAL, primary_key=True),
    **_NO_ROWID,
)
"""SQLite knows no NaN: such a point has `nan` true and the value 0, and sorts behind all numbers."""

latest_metrics = Table(
    "latest_metrics",
    METADATA,
    _has("scope", TEXT),
    _of("runs.number", WHOLE),
    Column("key", TEXT, primary_key=True),
    _has("step", WHOLE),
    _has("at_ms", WHOLE),
    _has("nan", FLAG),
    _has("value", REAL),
    _has("rank", WHOLE),
    Index("ix_latest_metrics_value", "scope", "key", "nan", "value", "rank", "owner"),
    **_NO_ROWID,
)
logged_model_metrics = Table(
    "logged_model_metrics",
    METADATA,
    _has("scope", TEXT),
    _of("logged_models.id"),
    Column("run", TEXT, primary_key=True),
    Column("key", TEXT, primary_key=True),
    Column("dataset_name", TEXT, primary_key=True),
    Column("dataset_digest", TEXT, primary_key=True),
    _has("step", WHOLE),
    _has("at_ms", WHOLE),
    _has("nan", FLAG),
    _has("value", REAL),
    _has("rank", WHOLE),
    Index("ix_logged_model_metrics_value", "scope", "key", "nan", "value", "rank", "owner"),
    **_NO_ROWID,
)
"""The newest point of each (model, run, key, dataset); no dataset is the empty name."""

counters = Table("counters", METADATA, Column("name", TEXT, primary_key=True), _has("value", WHOLE))
"""The last short number given to a noun."""

leases = Table(
    "leases",
    METADATA,
    Column("name", TEXT, primary_key=True),
    _may("holder", TEXT),
    _has("fence", WHOLE),
    _has("beat", WHOLE),
)
events = Table(
    "events",
    METADATA,
    Column("seq", ROWID, primary_key=True, autoincrement=False),
    _has("epoch", WHOLE),
    _has("prev", TEXT),
    _has("hash", TEXT),
    _has("kind", TEXT),
    _has("actor", TEXT),
    _has("subject", TEXT),
    _has("at", MOMENT),
    _has("inputs", WORDS),
    _has("outputs", WORDS),
    _has("facts", OBJECT),
    _may("data_at", MOMENT),
    _may("note", TEXT),
    _has("v", WHOLE),
    UniqueConstraint("hash"),
    Index("ix_events_subject", "subject", "seq"),
    Index("ix_events_kind", "kind", "seq"),
)
edges = Table(
    "edges",
    METADATA,
    Column("src", TEXT, primary_key=True),
    Column("dst", TEXT, primary_key=True),
    _has("seq", WHOLE),
    Index("ix_edges_back", "dst", "src", "seq"),
    **_NO_ROWID,
)
"""Each edge once, with the first event that said it."""

ledger_head = Table(
    "ledger_head",
    METADATA,
    Column("id", WHOLE, primary_key=True, autoincrement=False),
    _has("seq", WHOLE),
    _has("hash", TEXT),
)
"""One row, id 1: the newest event. Who appends locks it until commit."""

schema_version = Table(
    "schema_version",
    METADATA,
    Column("number", WHOLE, primary_key=True, autoincrement=False),
    _has("name", TEXT),
    _has("applied_at", MOMENT),
)
"""One row for each migration that was applied."""

ENTITIES: Final[Mapping[type[Entity], Table]] = {
    Workspace: workspaces,
    Actor: actors,
    Personal: personal,
    Line: lines,
    DatasetVersion: dataset_versions,
    Experiment: experiments,
    Run: runs,
    RunInput: run_inputs,
    LoggedModel: logged_models,
    RunModel: run_models,
    Artifact: artifacts,
    Model: models,
    Alias: aliases,
    ModelVersion: model_versions,
    Verdict: verdicts,
    Release: releases,
    Approval: approvals,
    Rollout: rollouts,
    RouteRow: routes,
    MonitorWindow: monitor_windows,
    Alert: alerts,
    Trigger: triggers,
    Segment: segments,
    Feedback: feedback,
    Cursor: cursors,
}
