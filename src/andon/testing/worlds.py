"""A small world that ran for a while: a line whose data became models, and the models releases, with every event.

    world = seed_world(store, SystemClock(), generations=2)
    world.live.release          # what the endpoint serves; world.generations[0] is what was live before

Each generation is one way around the loop: data, trigger, run, version, verdict, release, rollout, route. The second one was
started by an alert on the first. Rows and events agree with what the rooms write, so lineage, pages and backups can be
tried without a loop that runs.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from andon.core.canonical import Digest, digest_bytes
from andon.core.clock import Clock
from andon.core.entities import (
    Actor,
    Alert,
    DatasetVersion,
    Line,
    ModelVersion,
    Personal,
    Release,
    Rollout,
    RouteRow,
    Run,
    Trigger,
    Verdict,
    owner,
)
from andon.core.events import EventDraft, Fact
from andon.core.ids import (
    ActorId,
    AlertId,
    ModelVersionId,
    Node,
    ReleaseId,
    RolloutId,
    RunId,
    TriggerId,
    VerdictId,
    new_id,
    node,
)
from andon.core.routes import GENERATION_STEP
from andon.registry.models import ensure_model
from andon.store.ports import Blobs, Store, Transaction
from andon.tracking.experiments import ensure_experiment

LINE = "delays"
DATASET = "flights"
STEPS = (1, 10, 50, 100)


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One way around the loop, by ids. `alert` is what started it, if one did."""

    number: int
    dataset: Digest
    alert: AlertId | None
    trigger: TriggerId
    run: RunId
    model_version: ModelVersionId
    digest: Digest
    verdict: VerdictId
    release: ReleaseId
    rollout: RolloutId

    def nodes(self) -> set[Node]:
        """Its nodes in the lineage graph."""
        mine = {
            node("dataset_version", self.dataset), node("trigger", self.trigger), node("run", self.run),
            node("model_version", self.model_version), node("verdict", self.verdict), node("release", self.release),
            node("rollout", self.rollout),
        }  # fmt: skip
        return mine | ({node("alert", self.alert)} if self.alert else set())


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What was seeded, by ids."""

    person: ActorId
    line_actor: ActorId
    line: str
    dataset: str
    endpoint: str
    contract: Digest
    policy: Digest
    code: Digest
    environment: Digest
    generations: tuple[Generation, ...]

    @property
    def live(self) -> Generation:
        """The generation that the endpoint serves."""
        return self.generations[-1]


def seed_world(store: Store, clock: Clock, *, generations: int = 1, blobs: Blobs | None = None) -> World:
    """Write a line and its generations into a store that has none of them yet.

    Args:
        clock: `now` is when the first thing happened; each next one a second later.
        generations: how often the loop went around, >= 1.
        blobs: where the contents that rows name are stored too; None leaves them out.
    """
    seeding = _Seeding(store, clock.now(), blobs)
    return seeding.world(tuple(seeding.generation(number) for number in range(1, generations + 1)))


class _Seeding:
    """What the generations share."""

    def __init__(self, store: Store, at: datetime, blobs: Blobs | None) -> None:
        self.store, self.at, self.blobs = store, at, blobs
        self.contract, self.policy = self.content("contract"), self.content("policy")
        self.code, self.environment = self.content("code"), self.content("environment")
        self.person, self.line_actor = ActorId(new_id("actor")), ActorId(new_id("actor"))
        self.last: Generation | None = None
        store.write(self._begin)

    def world(self, generations: tuple[Generation, ...]) -> World:
        return World(
            person=self.person, line_actor=self.line_actor, line=LINE, dataset=DATASET, endpoint=LINE,
            contract=self.contract, policy=self.policy, code=self.code, environment=self.environment,
            generations=generations,
        )  # fmt: skip

    def generation(self, number: int) -> Generation:
        made = Generation(
            number=number, dataset=self.content(f"dataset {number}"), alert=AlertId(new_id("alert")) if self.last else None,
            trigger=TriggerId(new_id("trigger")), run=RunId(new_id("run")),
            model_version=ModelVersionId(new_id("model_version")), digest=self.content(f"model {number}"),
            verdict=VerdictId(new_id("verdict")), release=ReleaseId(new_id("release")),
            rollout=RolloutId(new_id("rollout")),
        )  # fmt: skip
        for what in ("run", "alert", "profile", "evidence", "rollout"):
            self.content(f"{what} {number}")
        for step in (self._data, self._run, self._judge, self._release, self._roll):
            self.store.write(lambda tx, step=step: step(tx, made))  # type: ignore[misc]
        self.last = made
        return made

    def content(self, text: str) -> Digest:
        """Store some content, when there is where to."""
        return _digest(text) if self.blobs is None else self.blobs.put(_content(text))

    def say(
        self, tx: Transaction, kind: str, subject: Node, *inputs: Node, by: ActorId | None = None,
        outputs: tuple[Node, ...] = (), note: str | None = None, **facts: Fact,
    ) -> datetime:  # fmt: skip
        """Append an event, a second after the last one; its time."""
        self.at += timedelta(seconds=1)
        draft = EventDraft(
            kind=kind, actor=by or self.line_actor, subject=subject, at=self.at, inputs=inputs, outputs=outputs, facts=facts,
            note=note,
        )  # fmt: skip
        tx.ledger.append(draft)
        return self.at

    def _begin(self, tx: Transaction) -> None:
        for ident, kind, subject, name in (
            (self.person, "person", "os:1000", "Ann"),
            (self.line_actor, "line", f"line:{LINE}", LINE),
        ):
            me = node("actor", ident)
            at = self.say(tx, "actor.created", me, by=ident)
            tx.actors.add(Actor(id=ident, kind=kind, subject=subject, created_at=at))  # type: ignore[arg-type]
            tx.personal.add(Personal(id=me, subject=me, salt="salt", text=name))
        at = self.say(
            tx,
            "line.changed",
            node("line", LINE),
            node("policy", self.policy),
            node("code", self.code),
            by=self.person,
        )
        tx.lines.add(
            Line(
                id=LINE, folder="delays", policy=self.policy, code=self.code, actor=self.person, changed_at=at
            )
        )
        self.say(tx, "contract.inferred", node("contract", self.contract), dataset=DATASET)

    def _data(self, tx: Transaction, made: Generation) -> None:
        parent = self.last.dataset if self.last else None
        inputs = [node("contract", self.contract)] + ([node("dataset_version", parent)] if parent else [])
        at = self.say(
            tx,
            "dataset.committed",
            node("dataset_version", made.dataset),
            *inputs,
            dataset=DATASET,
            number=made.number,
        )
        tx.dataset_versions.add(
            DatasetVersion(
                id=f"{DATASET}@{made.number}", dataset=DATASET, number=made.number, manifest=made.dataset, state="valid",
                rows=1000 * made.number, columns=4, size_bytes=40_000, stored_bytes=9_000, source="flights.csv",
                contract=self.contract, report=None, actor=self.line_actor, created_at=at, data_until=at, parent=parent,
                objects=made.dataset,
            )
        )  # fmt: skip

    def _run(self, tx: Transaction, made: Generation) -> None:
        cause, by = node("actor", self.person), self.person
        if made.alert and self.last:
            cause, by = node("alert", made.alert), self.line_actor
            self._alert(tx, made, made.alert, node("model_version", self.last.model_version))
        trigger, run = node("trigger", made.trigger), node("run", made.run)
        fired = self.say(tx, "trigger.fired", trigger, cause, node("line", LINE), by=by)
        created = self.say(
            tx, "run.created", run, trigger, node("policy", self.policy), node("code", self.code), by=by
        )
        started = self.say(tx, "run.started", run, fence=1)
        sources = (
            node("policy", self.policy), node("code", self.code), node("dataset_version", made.dataset),
            node("environment", self.environment),
        )  # fmt: skip
        sealed = self.say(
            tx,
            "run.sealed",
            run,
            *sources,
            outputs=(node("model_version", made.model_version),),
            state="finished",
        )
        experiment = ensure_experiment(tx, LINE, self.line_actor, created)
        run_row = tx.runs.add(
            Run(
                id=made.run, number=tx.counters.next("run"), experiment=experiment.id, name=f"line-{made.number}", line=LINE,
                state="finished", cause=trigger, actor=by, policy=self.policy, code=self.code, created_at=created,
                dataset_version=made.dataset, environment=self.environment, git_commit="c" * 40, git_dirty=False, seed=7,
                fence=1, started_at=started, finished_at=sealed, model_version=made.model_version,
                seal=_digest(f"run {made.number}"), seals=1,
            )
        )  # fmt: skip
        tx.triggers.add(
            Trigger(
                id=made.trigger, line=LINE, kind="drift" if made.alert else "manual", key=f"{cause}", cause=cause, actor=by,
                created_at=fired, run=made.run,
            )
        )  # fmt: skip
        tx.params.add(owner(run_row), {"num_leaves": "31"})

    def _alert(self, tx: Transaction, made: Generation, ident: AlertId, subject: Node) -> None:
        at = self.say(tx, "alert.opened", node("alert", ident), subject, node("line", LINE), monitor="drift")
        tx.alerts.add(
            Alert(
                id=ident, line=LINE, monitor="drift", subject=subject, state="open", summary="distance drifted",
                evidence=_digest(f"alert {made.number}"), created_at=at,
            )
        )  # fmt: skip

    def _judge(self, tx: Transaction, made: Generation) -> None:
        version, verdict = node("model_version", made.model_version), node("verdict", made.verdict)
        ensure_model(tx, LINE, self.line_actor, self.at)
        at = self.say(
            tx,
            "model_version.registered",
            version,
            node("run", made.run),
            node("dataset_version", made.dataset),
        )
        tx.model_versions.add(
            ModelVersion(
                id=made.model_version, model=LINE, number=made.number, digest=made.digest, state="eligible", run=made.run,
                dataset_version=made.dataset, profile=_digest(f"profile {made.number}"), actor=self.line_actor,
                created_at=at,
            )
        )  # fmt: skip
        evidence = _digest(f"evidence {made.number}")
        at = self.say(
            tx, "verdict.given", verdict, version, node("policy", self.policy), passed=True, evidence=evidence
        )
        tx.verdicts.add(
            Verdict(
                id=made.verdict, model_version=made.model_version, version_digest=made.digest, endpoint=LINE,
                policy=self.policy, passed=True, evidence=evidence, summary="auc 0.74 >= 0.6",
                against=self.last.model_version if self.last else None, created_at=at,
            )
        )  # fmt: skip
        self.say(tx, "model_version.eligible", version)

    def _release(self, tx: Transaction, made: Generation) -> None:
        release = node("release", made.release)
        at = self.say(tx, "release.requested", release, node("model_version", made.model_version))
        self.say(tx, "release.judging", release)
        self.say(tx, "release.rolling", release, node("verdict", made.verdict))
        if self.last:
            gone = tx.releases.get(self.last.release)
            at = self.say(tx, "release.superseded", node("release", gone.id))
            tx.releases.change(msgspec.structs.replace(gone, state="superseded", changed_at=at))
        live = self.say(tx, "release.live", release)
        tx.releases.add(
            Release(
                id=made.release, endpoint=LINE, line=LINE, model=LINE, number=made.number, model_version=made.model_version,
                version_digest=made.digest, policy=self.policy, run=made.run, state="live", strategy="canary",
                approvals_needed=0, cause=node("run", made.run), actor=self.line_actor, created_at=at, changed_at=live,
                verdict=made.verdict, previous=self.last.release if self.last else None,
            )
        )  # fmt: skip

    def _roll(self, tx: Transaction, made: Generation) -> None:
        rollout, release = node("rollout", made.rollout), node("release", made.release)
        at = self.say(tx, "rollout.full", rollout, release, note="no harm seen in 400 requests")
        tx.rollouts.add(
            Rollout(
                id=made.rollout, release=made.release, endpoint=LINE, state="full", steps=STEPS, step=len(STEPS) - 1,
                created_at=at, changed_at=at, evidence=_digest(f"rollout {made.number}"),
            )
        )  # fmt: skip
        before = self.last.release if self.last else None
        arms = [release] + ([node("release", before)] if before else [])
        at = self.say(
            tx, "route.changed", node("endpoint", LINE), *arms, generation=made.number * GENERATION_STEP
        )
        row = tx.routes.find(LINE)
        changed = RouteRow(
            id=LINE, epoch=tx.workspaces.get("workspace").epoch, generation=made.number * GENERATION_STEP, salt="salt",
            stable=made.release, candidate=None, previous=before, weight_percent=0, held=False, adopted=(), changed_at=at,
            rev=row.rev if row else 0,
        )  # fmt: skip
        if row is None:
            tx.routes.add(changed)
        else:
            tx.routes.change(changed)


def _content(text: str) -> bytes:
    return f"the {text} of a seeded world\n".encode()


def _digest(text: str) -> Digest:
    return digest_bytes(_content(text))
