"""A real SQLite workspace with people, a line and finished runs, for the tests of versions and releases."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from andon.core.canonical import Digest, digest_bytes
from andon.core.entities import Line, ModelVersion, Release, Run, Verdict
from andon.core.events import Event, EventDraft, verify_chain
from andon.core.ids import ActorId, ExperimentId, Node, RunId, new_id, node
from andon.core.workspace import Layout, Settings
from andon.governance.access import ensure_actor
from andon.registry import CheckResult, Judgement, give_verdict, register_version, request_release
from andon.store import open_store
from andon.store.ports import Reader, Transaction

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = digest_bytes(b"policy")
EVIDENCE = digest_bytes(b"evidence")

PASSED = Judgement(
    passed=True, checks=(CheckResult(name="auc", verdict="pass", because="high"),), summary="all passed"
)
FAILED = Judgement(
    passed=False, checks=(CheckResult(name="auc", verdict="fail", because="low"),), summary="auc is low"
)


class RegistryWorld:
    """Verbs with the boring arguments filled in. Each call is one transaction at a later time."""

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        self.store = open_store(Layout(root).create(), settings or Settings())
        self._ticks = itertools.count()
        self.line_actor = self._actor("line:churn", "line")
        self.ann, self.bob, self.cat = (self._actor(f"os:{name}", "person") for name in ("ann", "bob", "cat"))
        self.robot = self._actor("service:ci", "service")
        self.write(
            lambda tx: tx.lines.add(
                Line(
                    id="churn",
                    folder="/nowhere",
                    policy=POLICY,
                    code=POLICY,
                    actor=self.ann,
                    changed_at=START,
                )
            )
        )

    def close(self) -> None:
        self.store.close()

    def now(self) -> datetime:
        return START + timedelta(seconds=next(self._ticks))

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self.store.write(work)

    def read(self, work: Callable[[Reader], T]) -> T:
        return self.store.read(work)

    def do(self, verb: Callable[..., T], *arguments: Any, actor: ActorId | None = None, **named: Any) -> T:
        """A verb in a transaction of its own, with actor (the line by default) and time."""
        at = self.now()
        return self.write(lambda tx: verb(tx, *arguments, actor=actor or self.line_actor, at=at, **named))

    def _actor(self, subject: str, kind: Literal["person", "service", "line"]) -> ActorId:
        at = self.now()
        return self.write(lambda tx: ensure_actor(tx, subject, kind, subject, at)).id

    def change_line(self, actor: ActorId) -> None:
        draft = EventDraft(kind="line.changed", actor=actor, subject=node("line", "churn"), at=self.now())
        self.write(lambda tx: tx.ledger.append(draft))

    def run(self, actor: ActorId | None = None) -> RunId:
        at = self.now()

        def work(tx: Transaction) -> RunId:
            run = Run(
                id=RunId(new_id("run")), number=tx.counters.next("run"), experiment=ExperimentId("0"), line="churn",
                state="finished", cause="trigger:tr_1", actor=actor or self.line_actor, policy=POLICY, code=POLICY,
                created_at=at,
            )  # fmt: skip
            return tx.runs.add(run).id

        return self.write(work)

    def tracked_run(self, actor: ActorId) -> RunId:
        """A run that a client began; no line made it."""
        at = self.now()

        def work(tx: Transaction) -> RunId:
            run = Run(
                id=RunId(new_id("run")), number=tx.counters.next("run"), experiment=ExperimentId("0"), state="finished",
                cause=f"actor:{actor}", actor=actor, created_at=at,
            )  # fmt: skip
            return tx.runs.add(run).id

        return self.write(work)

    def version(
        self, content: str = "", *, run: RunId | None = None, actor: ActorId | None = None
    ) -> ModelVersion:
        made = run or self.run(actor)
        return self.do(
            register_version, model="churn", run=made, digest=digest_bytes((content or made).encode()), actor=actor,
            dataset_version=digest_bytes(b"data"), profile=digest_bytes(b"profile"), data_from=START,
            data_until=START + timedelta(days=90),
        )  # fmt: skip

    def verdict(self, version: ModelVersion, judgement: Judgement = PASSED, **changes: Any) -> Verdict:
        settings: dict[str, Any] = {
            "endpoint": "churn",
            "policy": POLICY,
            "evidence": EVIDENCE,
            "against": None,
        }
        return self.do(give_verdict, version, judgement=judgement, **{**settings, **changes})

    def request(self, version: ModelVersion, **changes: Any) -> Release:
        settings: dict[str, Any] = {
            "endpoint": "churn", "line": "churn", "policy": POLICY, "strategy": "canary", "approvals_needed": 0,
            "run": version.run, "cause": Node(f"run:{version.run}"),
        }  # fmt: skip
        return self.do(request_release, version=version, **{**settings, **changes})

    def events(self, subject: Node | None = None) -> list[Event]:
        """All events in order, or those of one subject."""
        events = self.read(lambda reader: reader.ledger.after(0, limit=10_000))
        verify_chain(events)
        return [event for event in events if subject in (None, event.subject)]

    def kinds(self, subject: Node) -> list[str]:
        return [event.kind for event in self.events(subject)]


def other(text: str) -> Digest:
    return digest_bytes(text.encode())
