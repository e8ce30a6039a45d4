"""A transaction as the rooms above see it: every noun's rows, metrics, leases and the ledger."""

from __future__ import annotations

from functools import cached_property

from andon.core.entities import (
    Actor,
    Alert,
    Alias,
    Approval,
    Artifact,
    Cursor,
    DatasetVersion,
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
from andon.core.events import EventDraft
from andon.core.search import Found, Query
from andon.store.sql import schema
from andon.store.sql.collection import Session, SqlCollection
from andon.store.sql.counters import SqlCounters
from andon.store.sql.files import SqlFiles
from andon.store.sql.labels import SqlLabels
from andon.store.sql.leases import SqlLeases
from andon.store.sql.ledger import SqlLedger
from andon.store.sql.metrics import SqlMetrics
from andon.store.sql.search import search


class SqlView:
    """`ports.Transaction`, or `ports.Reader` when its session only reads. `drafts` collects what happened."""

    def __init__(self, session: Session, drafts: list[EventDraft]) -> None:
        self._session = session
        self._drafts = drafts

    @cached_property
    def workspaces(self) -> SqlCollection[Workspace]:
        return SqlCollection(self._session, Workspace)

    @cached_property
    def actors(self) -> SqlCollection[Actor]:
        return SqlCollection(self._session, Actor)

    @cached_property
    def personal(self) -> SqlCollection[Personal]:
        return SqlCollection(self._session, Personal)

    @cached_property
    def lines(self) -> SqlCollection[Line]:
        return SqlCollection(self._session, Line)

    @cached_property
    def dataset_versions(self) -> SqlCollection[DatasetVersion]:
        return SqlCollection(self._session, DatasetVersion)

    @cached_property
    def runs(self) -> SqlCollection[Run]:
        return SqlCollection(self._session, Run)

    @cached_property
    def experiments(self) -> SqlCollection[Experiment]:
        return SqlCollection(self._session, Experiment)

    @cached_property
    def run_inputs(self) -> SqlCollection[RunInput]:
        return SqlCollection(self._session, RunInput)

    @cached_property
    def run_models(self) -> SqlCollection[RunModel]:
        return SqlCollection(self._session, RunModel)

    @cached_property
    def logged_models(self) -> SqlCollection[LoggedModel]:
        return SqlCollection(self._session, LoggedModel)

    @cached_property
    def artifacts(self) -> SqlCollection[Artifact]:
        return SqlCollection(self._session, Artifact)

    @cached_property
    def models(self) -> SqlCollection[Model]:
        return SqlCollection(self._session, Model)

    @cached_property
    def aliases(self) -> SqlCollection[Alias]:
        return SqlCollection(self._session, Alias)

    @cached_property
    def params(self) -> SqlLabels:
        return SqlLabels(self._session, schema.params)

    @cached_property
    def run_tags(self) -> SqlLabels:
        return SqlLabels(self._session, schema.run_tags)

    @cached_property
    def experiment_tags(self) -> SqlLabels:
        return SqlLabels(self._session, schema.experiment_tags)

    @cached_property
    def model_tags(self) -> SqlLabels:
        return SqlLabels(self._session, schema.model_tags)

    @cached_property
    def version_tags(self) -> SqlLabels:
        return SqlLabels(self._session, schema.version_tags)

    @cached_property
    def logged_model_params(self) -> SqlLabels:
        return SqlLabels(self._session, schema.logged_model_params)

    @cached_property
    def logged_model_tags(self) -> SqlLabels:
        return SqlLabels(self._session, schema.logged_model_tags)

    @cached_property
    def files(self) -> SqlFiles:
        return SqlFiles(self._session)

    @cached_property
    def counters(self) -> SqlCounters:
        return SqlCounters(self._session)

    @cached_property
    def metrics(self) -> SqlMetrics:
        return SqlMetrics(self._session)

    @cached_property
    def model_versions(self) -> SqlCollection[ModelVersion]:
        return SqlCollection(self._session, ModelVersion)

    @cached_property
    def verdicts(self) -> SqlCollection[Verdict]:
        return SqlCollection(self._session, Verdict)

    @cached_property
    def approvals(self) -> SqlCollection[Approval]:
        return SqlCollection(self._session, Approval)

    @cached_property
    def releases(self) -> SqlCollection[Release]:
        return SqlCollection(self._session, Release)

    @cached_property
    def rollouts(self) -> SqlCollection[Rollout]:
        return SqlCollection(self._session, Rollout)

    @cached_property
    def routes(self) -> SqlCollection[RouteRow]:
        return SqlCollection(self._session, RouteRow)

    @cached_property
    def monitor_windows(self) -> SqlCollection[MonitorWindow]:
        return SqlCollection(self._session, MonitorWindow)

    @cached_property
    def alerts(self) -> SqlCollection[Alert]:
        return SqlCollection(self._session, Alert)

    @cached_property
    def triggers(self) -> SqlCollection[Trigger]:
        return SqlCollection(self._session, Trigger)

    @cached_property
    def segments(self) -> SqlCollection[Segment]:
        return SqlCollection(self._session, Segment)

    @cached_property
    def feedback(self) -> SqlCollection[Feedback]:
        return SqlCollection(self._session, Feedback)

    @cached_property
    def cursors(self) -> SqlCollection[Cursor]:
        return SqlCollection(self._session, Cursor)

    @cached_property
    def leases(self) -> SqlLeases:
        return SqlLeases(self._session)

    @cached_property
    def ledger(self) -> SqlLedger:
        return SqlLedger(self._session, self._drafts)

    def search(self, query: Query) -> Found:
        return search(self._session, query)
