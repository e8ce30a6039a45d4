"""A workspace with a past: versions of one model, one of them live, maybe another being tried, and traffic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from andon.core.canonical import Digest, digest_value
from andon.core.clock import to_us
from andon.core.entities import (
    Actor,
    Alert,
    DatasetVersion,
    Line,
    ModelVersion,
    Point,
    Release,
    Rollout,
    RouteRow,
    Run,
    Trigger,
    Verdict,
)
from andon.core.events import EventDraft
from andon.core.ids import (
    AlertId,
    ModelVersionId,
    Node,
    PredictionId,
    ReleaseId,
    RolloutId,
    RunId,
    TriggerId,
    VerdictId,
    node,
    parse_prediction_id,
    prediction_id,
)
from andon.core.predictions import PredictionRecord
from andon.core.workspace import Layout, Settings
from andon.governance.access import ensure_actor
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.models import ensure_model
from andon.registry.packaging.package import FILES, Manifest
from andon.rollout import publish
from andon.store.ports import Transaction
from andon.store.predictions_writer import SegmentWriter
from andon.tracking.experiments import ensure_experiment

ENDPOINT = "flights"
RECORD = {"carrier": "UA", "origin": "EWR", "dest": "O'Hare", "distance": 719}
POLICY = digest_value("test", "policy")


class World:
    """An open workspace and the verbs a test needs to make things happen in it."""

    def __init__(self, ws: OpenWorkspace) -> None:
        self.ws = ws
        self.person = ws.actor()
        self.line: Actor = ws.store.write(
            lambda tx: ensure_actor(tx, f"line:{ENDPOINT}", "line", f"line {ENDPOINT}", ws.clock.now())
        )
        self.writer = SegmentWriter(ws.layout.predictions, ws.clock)

    def close(self) -> None:
        self.writer.close()
        self.ws.close()

    def versions(self, count: int) -> None:
        """The line with a run, a version and a verdict for each number from 1."""
        self.ws.store.write(lambda tx: self._line(tx))
        for number in range(1, count + 1):
            manifest = self._package(number)
            self.ws.store.write(lambda tx, n=number, m=manifest: self._version(tx, n, m))  # type: ignore[misc]

    def live(
        self, number: int, *, previous: int | None = None, candidate: int | None = None, percent: int = 10
    ) -> None:
        """Put versions on the endpoint: one live, maybe one before it, maybe one that is tried."""
        self.ws.store.write(lambda tx: self._route(tx, number, previous, candidate, percent))
        publish(self.ws.layout, self.ws.store)

    def event(
        self,
        kind: str,
        subject: Node,
        *,
        note: str | None = None,
        by: Actor | None = None,
        **facts: str | int,
    ) -> None:
        """Something more that happens."""
        draft = EventDraft(
            kind=kind,
            actor=(by or self.line).id,
            at=self.ws.clock.now(),
            subject=subject,
            facts=facts,
            note=note,
        )
        self.ws.store.write(lambda tx: tx.ledger.append(draft))

    def alert(self, summary: str = "AUC 0.612 [0.588, 0.636], 0.703 when it was judged") -> None:
        """An alert on the live version."""
        at = self.ws.clock.now()
        alert = Alert(
            id=AlertId("al_1"), line=ENDPOINT, monitor="auc", subject="model_version:mv_2", state="open", summary=summary,
            evidence=POLICY, created_at=at,
        )  # fmt: skip

        def work(tx: Transaction) -> None:
            tx.alerts.add(alert)
            tx.ledger.append(
                EventDraft(
                    kind="alert.opened",
                    actor=self.line.id,
                    at=at,
                    subject=node("alert", alert.id),
                    note=summary,
                )
            )

        self.ws.store.write(work)

    def asked(
        self, number: int, requests: int, *, failed: int = 0, minutes_ago: float = 0.0
    ) -> list[PredictionId]:
        """Requests that a version answered, the first `failed` of them with 500."""
        at_us = to_us(self.ws.clock.now() - timedelta(minutes=minutes_ago))
        records = [
            self._record(number, at_us, 500 if index < failed else 200, index) for index in range(requests)
        ]
        self.writer.append(records)
        return [record.prediction_id for record in records]

    def _record(self, number: int, at_us: int, status: int, index: int) -> PredictionRecord:
        ident = prediction_id(at_us // 1000, self.writer.boot, self.writer.next_number() + index)
        assert parse_prediction_id(ident).boot == self.writer.boot
        return PredictionRecord(
            v=1, id=bytes.fromhex(ident.replace("-", "")), at_us=at_us, data_at_us=None, endpoint=ENDPOINT,
            release=ReleaseId(f"rel_{number}"), model=ENDPOINT, version=number, epoch=1, generation=100, arm="stable",
            propensity=0.0, entity=None, status=status, inputs=dict(RECORD), features=[], output=0.5, error=None, micros=120,
        )  # fmt: skip

    def _line(self, tx: Transaction) -> None:
        at = self.ws.clock.now()
        tx.lines.add(
            Line(
                id=ENDPOINT, folder="flights", policy=POLICY, code=POLICY, actor=self.person.id, changed_at=at
            )
        )
        tx.ledger.append(
            EventDraft(kind="line.changed", actor=self.person.id, at=at, subject=node("line", ENDPOINT))
        )
        tx.dataset_versions.add(
            DatasetVersion(
                id=POLICY, dataset="flights", number=1, manifest=POLICY, state="valid", rows=1000, columns=9,
                size_bytes=1, stored_bytes=1, source="flights.csv", contract=None, report=None, actor=self.person.id,
                created_at=at,
            )
        )  # fmt: skip

    def _package(self, number: int) -> Digest:
        """A package's manifest and golden rows, as far as a page reads them."""
        golden = msgspec.json.encode({"rows": [RECORD], "features": [], "outputs": []})
        texts = {name: golden if name == "golden.json" else f"{name} {number}".encode() for name in FILES}
        files = {name: self.ws.blobs.put(data) for name, data in texts.items()}
        return self.ws.blobs.put(Manifest(files=files, trees=files["model.txt"]).encode())

    def _version(self, tx: Transaction, number: int, manifest: Digest) -> None:
        at, run, ident = self.ws.clock.now(), RunId(f"{number:032x}"), ModelVersionId(f"mv_{number}")
        kind = "manual" if number == 1 else "performance"
        experiment = ensure_experiment(tx, ENDPOINT, self.line.id, at)
        ensure_model(tx, ENDPOINT, self.line.id, at)
        row = tx.runs.add(
            Run(
                id=run, number=tx.counters.next("run"), experiment=experiment.id, line=ENDPOINT, state="finished",
                cause=f"trigger:tr_{number}", actor=self.line.id, policy=POLICY, code=POLICY, created_at=at,
                started_at=at, finished_at=at, model_version=ident, dataset_version=POLICY,
            )
        )  # fmt: skip
        tx.triggers.add(
            Trigger(
                id=TriggerId(f"tr_{number}"), line=ENDPOINT, kind=kind, key=f"k{number}", cause="line:flights",
                actor=self.line.id, created_at=at, run=run,
            )
        )  # fmt: skip
        tx.metrics.log(row, [Point("auc", 0.70 + number / 100, to_us(at) // 1000)])
        tx.model_versions.add(
            ModelVersion(
                id=ident, model=ENDPOINT, number=number, digest=manifest, state="eligible", run=run, dataset_version=POLICY,
                profile=POLICY, actor=self.line.id, created_at=at,
            )
        )  # fmt: skip
        tx.verdicts.add(
            Verdict(
                id=VerdictId(f"vd_{number}"), model_version=ident, version_digest=manifest, endpoint=ENDPOINT, policy=POLICY,
                passed=True, evidence=POLICY, summary=f"auc {0.70 + number / 100:.3f} >= 0.65", against=None, created_at=at,
            )
        )  # fmt: skip
        for event, subject in (
            ("run.sealed", node("run", run)), ("model_version.eligible", node("model_version", ident)),
        ):  # fmt: skip
            tx.ledger.append(EventDraft(kind=event, actor=self.line.id, at=at, subject=subject))

    def _route(
        self, tx: Transaction, number: int, previous: int | None, candidate: int | None, percent: int
    ) -> None:
        at = self.ws.clock.now()
        self._release(tx, number, "live")
        if previous is not None:
            self._release(tx, previous, "superseded")
        if candidate is not None:
            self._release(tx, candidate, "rolling")
            tx.rollouts.add(
                Rollout(
                    id=RolloutId(f"ro_{candidate}"), release=ReleaseId(f"rel_{candidate}"), endpoint=ENDPOINT, state="canary",
                    steps=(1, percent, 50, 100), step=1, created_at=at, changed_at=at,
                    because="104 requests, no evidence of harm",
                    evidence=self.ws.blobs.put(_EVIDENCE),
                )
            )  # fmt: skip
        tx.routes.add(
            RouteRow(
                id=ENDPOINT, epoch=1, generation=100, salt="s", stable=ReleaseId(f"rel_{number}"),
                candidate=None if candidate is None else ReleaseId(f"rel_{candidate}"),
                previous=None if previous is None else ReleaseId(f"rel_{previous}"),
                weight_percent=percent if candidate else 0, held=False, adopted=(), changed_at=at,
            )
        )  # fmt: skip

    def _release(self, tx: Transaction, number: int, state: str) -> None:
        at = self.ws.clock.now()
        version = tx.model_versions.get(f"mv_{number}")
        row = msgspec.convert(
            {
                "id": f"rel_{number}", "endpoint": ENDPOINT, "line": ENDPOINT, "model": ENDPOINT, "number": number,
                "model_version": version.id, "version_digest": version.digest, "policy": POLICY, "run": version.run,
                "state": state, "strategy": "canary", "approvals_needed": 0, "cause": f"run:{version.run}",
                "actor": self.line.id, "created_at": at, "changed_at": at, "verdict": f"vd_{number}",
            },
            Release,
        )  # fmt: skip
        tx.releases.add(row)
        tx.ledger.append(
            EventDraft(kind=f"release.{state}", actor=self.line.id, at=at, subject=node("release", row.id))
        )


_EVIDENCE = msgspec.json.encode(
    {
        "rollout": "ro_3", "decision": {"action": "advance", "step": 1, "because": "104 requests"},
        "evidence": {
            "guards": [
                {"name": "failures", "stable": 900, "candidate": 104, "stable_failed": 1, "candidate_failed": 0,
                 "harm": -0.2, "noninferior": 1.4}
            ],
            "candidate_requests": 104,
        },
    }
)  # fmt: skip


@contextlib.contextmanager
def opened(folder: Path, *, settings: Settings | None = None) -> Iterator[World]:
    """An empty workspace in a folder."""
    world = World(OpenWorkspace(Layout(folder / ".andon").create(), settings or Settings()))
    try:
        yield world
    finally:
        world.close()


def fill(world: World, *, candidate: bool = False) -> Sequence[PredictionId]:
    """Three versions, the second live, and traffic; the ids of what was answered."""
    world.versions(3)
    world.live(2, previous=1, candidate=3 if candidate else None)
    return world.asked(2, 400) + (world.asked(3, 40) if candidate else [])
