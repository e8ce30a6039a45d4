"""The monitors of a line: which windows have closed, what they show, and the alerts that follow. Each window is written once.

A window belongs to one model version: only what that version answered is in it. Everything a monitor knows follows from the
windows that were written, so a worker that starts anew goes on with the same evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from andon.core.entities import ModelVersion, MonitorWindow
from andon.core.errors import AlreadyExists
from andon.core.ids import ActorId, node
from andon.core.policy import MonitorPolicy
from andon.core.predictions import PredictionRecord
from andon.monitoring.alerts import open_alert
from andon.monitoring.drift import DriftMonitor
from andon.monitoring.recent import Recent
from andon.monitoring.windows import Finding, Reference, closed_windows, performance
from andon.store.ports import Blobs, Reader, Store, Transaction

Write = Callable[[Callable[[Transaction], None]], Any]
"""How a transaction is written: `Store.write`, or one that checks a lease as well."""
MOST = 50
"""Windows of one monitor that are judged in one step."""
_PAGE = 1000


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What is watched: a version that is live on an endpoint of a line since a domain time.

    `until` is the domain time up to which everything that was answered has been read.
    """

    line: str
    endpoint: str
    version: ModelVersion
    since: datetime
    until: datetime


class Watch:
    """The monitors of one live version. Built anew when another version goes live or the policy changes.

    A version without a profile, which a client registered, has no drift monitor: nothing is known of what it was trained on.

    Not safe to share between threads. Two of them over one store write each window once between them.
    """

    def __init__(self, store: Store, blobs: Blobs, watched: Watched, policy: MonitorPolicy) -> None:
        self.watched = watched
        self.policy = policy
        self._store = store
        self._blobs = blobs
        self._reference = store.read(lambda reader: _reference(reader, watched.version))
        profile = watched.version.profile
        self._drift = None if profile is None else DriftMonitor(blobs.get(profile), policy)
        self._told = watched.since
        self._done: dict[str, datetime] = {}
        for row in self._written():
            self._take(row)

    def step(
        self, recent: Recent, until: datetime, *, actor: ActorId, at: datetime, write: Write | None = None
    ) -> int:
        """Judge windows that have closed by a domain time, oldest first; how many there were.

        At most `MOST` of each monitor at a time: when time has jumped, by a clock that was set or a watermark far ahead, there
        are very many, and nothing else should wait for all of them. Step again until there are none.

        Args:
            recent: what was answered, read at least up to `until`.
            until: domain time up to which everything has been told.
            actor: who writes.
            at: wall time.
            write: how to write; the store's own way by default.
        """
        written = 0
        self._told = until
        policy, drift = self.policy, self._drift
        if drift is not None:
            for start, end in self._open("drift", policy.window, until, timedelta(0)):
                finding = drift.judge(
                    self._records(recent, start, end), key=f"{self.watched.version.id}/{start.isoformat()}"
                )
                self._write("drift", start, end, self._with_share(finding, recent), actor, at, write)
                written += 1
        for rule in policy.metrics:
            for start, end in self._open(rule.metric, rule.over, until, policy.label_horizon):
                records = self._records(recent, start, end)
                finding = performance(
                    records, recent.labels, rule, self._reference, false_alarms_per=policy.false_alarms_per
                )
                self._write(rule.metric, start, end, self._with_share(finding, recent), actor, at, write)
                written += 1
        return written

    @property
    def judged(self) -> datetime:
        """Domain time up to which every monitor has judged."""
        monitors = [rule.metric for rule in self.policy.metrics] + (["drift"] if self._drift else [])
        return min((self._done.get(monitor, self.watched.since) for monitor in monitors), default=self._told)

    def _open(
        self, monitor: str, width: timedelta, until: datetime, lateness: timedelta
    ) -> Sequence[tuple[datetime, datetime]]:
        since = max(self._done.get(monitor, self.watched.since), self.watched.since)
        return closed_windows(width, since, until, lateness, most=MOST)

    def _records(self, recent: Recent, start: datetime, end: datetime) -> list[PredictionRecord]:
        version, endpoint = self.watched.version, self.watched.endpoint
        return [
            record
            for record in recent.between(start, end)
            if record.version == version.number
            and record.endpoint == endpoint
            and record.model == version.model
        ]

    @staticmethod
    def _with_share(finding: Finding, recent: Recent) -> Finding:
        """Say it when only a part of the answers was kept in memory."""
        if recent.kept == 1.0:
            return finding
        return msgspec.structs.replace(
            finding,
            summary=f"{finding.summary} (a sample of {recent.kept:.1%})",
            details={**finding.details, "sample": recent.kept},
        )

    def _write(
        self,
        monitor: str,
        start: datetime,
        end: datetime,
        finding: Finding,
        actor: ActorId,
        at: datetime,
        write: Write | None,
    ) -> None:
        watched = self.watched
        row = MonitorWindow(
            id=f"{watched.line}/{monitor}/{watched.version.id}/{start.isoformat()}", line=watched.line, monitor=monitor,
            model_version=watched.version.id, data_from=start, data_until=end, rows=finding.rows, value=finding.value,
            low=finding.low, high=finding.high, evidence=finding.evidence, alarm=finding.alarm,
            details={**finding.details, "summary": finding.summary}, created_at=at,
        )  # fmt: skip
        evidence = self._blobs.put(msgspec.json.encode(row)) if finding.alarm else None

        def work(tx: Transaction) -> None:
            tx.monitor_windows.add(row)
            if evidence is not None:
                open_alert(
                    tx, line=watched.line, monitor=monitor, subject=node("model_version", watched.version.id),
                    summary=finding.summary, evidence=evidence, actor=actor, at=at, data_at=end,
                )  # fmt: skip

        try:
            (write or self._store.write)(work)
        except AlreadyExists:
            # Another worker was first: what it wrote is what counts, here too.
            row = self._store.read(lambda reader: reader.monitor_windows.get(row.id))
        self._take(row)

    def _take(self, row: MonitorWindow) -> None:
        self._done[row.monitor] = max(row.data_until, self._done.get(row.monitor, row.data_until))
        if row.monitor == "drift" and self._drift is not None:
            self._drift.replay(row)

    def _written(self) -> list[MonitorWindow]:
        """All windows of the version, oldest first."""
        where = {"line": self.watched.line, "model_version": self.watched.version.id}
        rows: list[MonitorWindow] = []
        while True:
            last = rows[-1] if rows else None
            page = self._store.read(
                lambda reader, last=last: reader.monitor_windows.select(  # type: ignore[misc]
                    where, order=("data_from",), after=last, limit=_PAGE
                )
            )
            rows += page
            if len(page) < _PAGE:
                return rows


def _reference(reader: Reader, version: ModelVersion) -> Reference | None:
    """The version's AUC on its own holdout, from its run's metrics, when a line measured it."""
    run = reader.runs.find(version.run) if version.run else None
    if run is None or run.line is None:
        return None
    metrics = reader.metrics.latest([run])[run.number]
    if not {"auc", "auc_low", "auc_high"} <= metrics.keys():
        return None
    return Reference(value=metrics["auc"].value, low=metrics["auc_low"].value, high=metrics["auc_high"].value)
