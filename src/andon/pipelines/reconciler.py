"""The reconciler: compares what should be with what is and takes one safe, idempotent step at a time.

It holds the lease `reconciler`; every transaction it writes checks that the lease is still its own, so a second worker, or
one that was away for long, changes nothing. Nothing important is kept in memory: after kill -9 the next worker reads the
rows and goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from andon.core.canonical import Digest
from andon.core.entities import Cursor, Lease, Line, Release, Rollout, RouteRow, Run, Trigger
from andon.core.errors import LeaseLost, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, ReleaseId, RunId, TriggerId, new_id, node
from andon.core.lines import line_work
from andon.core.policy import Policy, parse_policy
from andon.core.states import advance
from andon.governance.access import ensure_actor
from andon.monitoring.alerts import close_alert
from andon.monitoring.recent import Recent
from andon.monitoring.watch import Watch, Watched
from andon.pipelines import judging, line_run
from andon.pipelines.code import Commit, git_commit
from andon.pipelines.registration import source_fingerprint
from andon.pipelines.workspace import OpenWorkspace, fire
from andon.registry.releases import in_progress, live_release, refuse, start_rolling
from andon.registry.releases import judging as begin_judging
from andon.registry.requests import verdict_of
from andon.rollout import (
    Evidence,
    Tally,
    adopt,
    advance_step,
    began,
    decide,
    finish,
    journal,
    publish,
    rollout_of,
    start,
    switch,
    unadopted,
    undo,
)
from andon.store.lease import LeaseKeeper, process_holder
from andon.store.ports import Reader, Transaction, Where
from andon.store.predictions import commit_segment
from andon.tracking.experiments import ensure_experiment

T = TypeVar("T")
log = logging.getLogger("andon.worker")
LEASE = "reconciler"
_SPAN = timedelta(days=60)
_ON_ITS_WAY = timedelta(seconds=10)
"""How long a request may take between its time and its record; a window of wall time closes that much later."""


class _Counted(NamedTuple):
    """The traffic of a rollout as far as some news."""

    rollout: str
    tally: Tally
    number: int


class Reconciler:
    """One worker's reconciler. `step` is called again and again; it returns whether anything moved."""

    def __init__(self, ws: OpenWorkspace) -> None:
        self.ws = ws
        self._keeper = LeaseKeeper(ws.store, LEASE, process_holder(), ws.clock)
        self._lease: Lease | None = None
        self._recent = Recent(ws.store, ws.log, span=_SPAN)
        self._watches: dict[str, Watch] = {}
        self._running: dict[str, threading.Thread] = {}
        self._policies: dict[str, Policy] = {}
        self._tallies: dict[str, _Counted] = {}
        self._looked_at = ws.clock.now()
        self._judged: datetime | None = None
        self._actor: ActorId | None = None
        self._told = False

    def step(self) -> bool:
        """Take every step that can be taken now."""
        held, self._lease = self._lease, self._keeper.hold()
        self._say_who_acts(held)
        if self._lease is None:
            self._watches.clear()
            return False
        try:
            return self._step()
        except LeaseLost:
            self._lease = None
            return False

    def _say_who_acts(self, held: Lease | None) -> None:
        """Log it when this worker begins to act, or to wait for another."""
        if self._lease is not None and (held is None or held.fence != self._lease.fence):
            log.info("this worker acts, with fence %s", self._lease.fence)
        elif self._lease is None and (held is not None or not self._told):
            log.info("another worker acts; this one waits")
        self._told = True

    def close(self) -> None:
        """Give the lease back."""
        if self._lease is not None:
            self._keeper.drop()

    def _step(self) -> bool:
        moved = self._adopt_overrides()
        if moved:
            publish(self.ws.layout, self.ws.store)
        # Lines before records: whatever a watermark covers was logged before it was told, so it is in what is read next.
        lines = self.ws.store.read(lambda reader: reader.lines.select())
        self._looked_at = self.ws.clock.now()
        moved |= self._recent.refresh(self._judged) > 0
        for line in lines:
            policy = self._policy(line)
            moved |= self._start_triggers(line, policy)
            moved |= self._drive_runs(line, policy)
            moved |= self._drive_releases(line, policy)
            moved |= self._drive_rollout(line, policy)
            moved |= self._watch(line, policy)
            moved |= self._fire_triggers(line, policy)
            moved |= self._note_seen(line)
        self._judged = self._judged_by_all(lines)
        # Before the seals: gateways wait for routes, and nobody waits for a seal.
        moved |= publish(self.ws.layout, self.ws.store)
        moved |= self._seal_segments()
        return moved

    def write(self, work: Callable[[Transaction], T]) -> T:
        """A transaction that counts only while the lease is held."""

        def fenced(tx: Transaction) -> T:
            self.fence(tx)
            return work(tx)

        return self.ws.store.write(fenced)

    def fence(self, tx: Transaction) -> None:
        """Raise LeaseLost inside a transaction when the lease is not ours any more."""
        if self._lease is None:
            raise LeaseLost("the reconciler's lease is not held")
        tx.leases.check(self._lease)

    # --- overrides and segments -----------------------------------------------------------------------------------

    def _adopt_overrides(self) -> bool:
        moved = False
        overrides = journal(self.ws.layout)
        for override in self.ws.store.read(lambda reader: unadopted(reader, overrides)) if overrides else ():
            moved |= self.write(
                lambda tx, override=override: adopt(
                    tx, override, actor=self._system(tx), at=self.ws.clock.now()
                )  # type: ignore[misc]
            )
        return moved

    def _seal_segments(self) -> bool:
        sealed = False
        for name in self.ws.log.sealable():
            segment = self.ws.log.seal(name)
            if segment is not None:
                actor = self.write(self._system)
                commit_segment(self.ws.store, segment, actor=actor, at=self.ws.clock.now())
            self.ws.log.drop(name)
            sealed = True
        return sealed

    # --- triggers and runs ----------------------------------------------------------------------------------------

    def _start_triggers(self, line: Line, policy: Policy) -> bool:
        """Turn the oldest trigger that waits into a run, when the line is idle."""

        def ready(reader: Reader) -> bool:
            told = policy.clock == "wall" or line.watermark is not None
            return told and reader.triggers.count(_waiting(line)) > 0 and not self._busy(reader, line, policy)

        def work(tx: Transaction) -> bool:
            if not ready(tx):
                return False
            trigger = tx.triggers.select(_waiting(line), order=("created_at",), limit=1)[0]
            run = self._queue(tx, tx.lines.get(line.id), policy, trigger, commit)
            tx.triggers.change(msgspec.structs.replace(trigger, run=run.id))
            self._note_data(tx, line, mark, run)
            return True

        if not self.ws.store.read(ready):
            return False
        # Another program and files: never inside a transaction.
        commit, mark = git_commit(Path(line.folder)), source_fingerprint(Path(line.folder), policy.source)
        return self.write(work)

    def _note_data(self, tx: Transaction, line: Line, mark: str | None, run: Run) -> None:
        """The data that a run is about to read needs no trigger of its own."""
        key = f"data:{mark}"
        if mark is not None and not tx.triggers.count({"line": line.id, "key": key}):
            noted = self._trigger(line, "data", key, node("run", run.id), run.data_at or run.created_at)
            tx.triggers.add(msgspec.structs.replace(noted, run=run.id))

    def _queue(self, tx: Transaction, line: Line, policy: Policy, trigger: Trigger, commit: Commit) -> Run:
        at = self.ws.clock.now()
        experiment = ensure_experiment(tx, line.id, self._line_actor(tx, line), at)
        number = tx.counters.next("run")
        run = Run(
            id=RunId(new_id("run")), number=number, experiment=experiment.id, name=f"line-{number}", line=line.id,
            state="queued", cause=node("trigger", trigger.id), actor=trigger.actor,
            policy=policy.digest, code=line.code, created_at=at, data_at=self._until(line, policy), git_commit=commit.commit,
            git_dirty=commit.dirty, seed=policy.train.seed, faults=trigger.faults,
        )  # fmt: skip
        tx.ledger.append(
            EventDraft(
                kind="run.created", actor=run.actor, at=at, subject=node("run", run.id), data_at=run.data_at,
                inputs=(node("trigger", trigger.id), node("policy", policy.digest), node("code", line.code)),
                facts={"line": line.id, "cause": trigger.kind, "commit": run.git_commit, "dirty": run.git_dirty,
                       "faults": ",".join(run.faults) or None},
            )
        )  # fmt: skip
        return tx.runs.add(run)

    def _drive_runs(self, line: Line, policy: Policy) -> bool:
        runs = self.ws.store.read(
            lambda reader: reader.runs.select({"line": line.id, "state": ["queued", "running"]})
        )
        moved = False
        for run in runs:
            thread = self._running.get(run.id)
            if run.state == "running" and thread is None:
                self.write(lambda tx, run=run: self._requeue(tx, run))  # type: ignore[misc]
                moved = True
            elif run.state == "queued" and not any(thread.is_alive() for thread in self._running.values()):
                self._begin(run)
                moved = True
        for ident, thread in list(self._running.items()):
            if not thread.is_alive():
                del self._running[ident]
                moved = True
        return moved

    def _begin(self, run: Run) -> None:
        started = self.write(lambda tx: self._start_run(tx, run))
        policy = parse_policy(self.ws.blobs.get(line_work(run).policy).decode())
        self._start(run.id, line_run.execute, self.ws, started, policy)

    def _start_run(self, tx: Transaction, run: Run) -> Run:
        at = self.ws.clock.now()
        current = tx.runs.get(run.id)
        fence = self._lease.fence if self._lease else 0
        state = advance("run", f"run {run.id}", current.state, "running")
        tx.ledger.append(
            EventDraft(
                kind="run.started",
                actor=run.actor,
                at=at,
                subject=node("run", run.id),
                facts={"fence": fence},
                data_at=run.data_at,
            )
        )
        return tx.runs.change(msgspec.structs.replace(current, state=state, started_at=at, fence=fence))

    def _requeue(self, tx: Transaction, run: Run) -> None:
        """A run whose worker is gone is begun again."""
        current = tx.runs.get(run.id)
        if current.state != "running":
            return
        state = advance("run", f"run {run.id}", current.state, "queued")
        tx.ledger.append(
            EventDraft(
                kind="run.requeued", actor=run.actor, at=self.ws.clock.now(), subject=node("run", run.id)
            )
        )
        tx.runs.change(msgspec.structs.replace(current, state=state))

    # --- releases and rollouts ------------------------------------------------------------------------------------

    def _drive_releases(self, line: Line, policy: Policy) -> bool:
        release = self.ws.store.read(lambda reader: in_progress(reader, policy.release.endpoint))
        if release is None or release.line != line.id or release.state == "rolling":
            return False
        policy = self._parsed(release.policy)
        if self.ws.store.read(lambda reader: judging.wants_judging(reader, release)):
            return self._judge(release, policy)
        return self.write(lambda tx: self._move_release(tx, tx.releases.get(release.id), line, policy))

    def _judge(self, release: Release, policy: Policy) -> bool:
        """Have a release judged beside the loop, which goes on."""
        if release.id in self._running:
            return False
        self._start(release.id, judging.execute, self.ws, release, policy, self.write(self._system))
        return True

    def _start(self, ident: str, work: Callable[..., None], *arguments: object) -> None:
        """Do work in a thread of its own, under the lease as it is now."""
        lease = self._lease

        def fence(tx: Transaction) -> None:
            if lease is not None:
                tx.leases.check(lease)

        thread = threading.Thread(target=work, args=(*arguments, fence), name=f"work-{ident}", daemon=True)
        self._running[ident] = thread
        thread.start()

    def _move_release(self, tx: Transaction, release: Release, line: Line, policy: Policy) -> bool:
        actor, at = self._system(tx), self.ws.clock.now()
        if release.state == "requested":
            begin_judging(tx, release, actor=actor, at=at)
            return True
        version = tx.model_versions.get(release.model_version)
        verdict = verdict_of(tx, version, release.endpoint, release.policy)
        if verdict is None or judging.wants_judging(tx, release):
            return False
        live = live_release(tx, release.endpoint)
        if not verdict.passed:
            refuse(tx, release, because=verdict.summary, actor=actor, at=at)
            return True
        if (live.model_version if live else None) != verdict.against:
            refuse(
                tx,
                release,
                because="it was judged against a version that is no longer the live one",
                actor=actor,
                at=at,
            )
            return True
        route = tx.routes.find(release.endpoint)
        if route is not None and route.held:
            return False
        moved = start_rolling(tx, release, verdict, actor=actor, at=at)
        if moved.state == "rolling":
            start(tx, moved, policy.release, actor=actor, at=at, data_at=self._until(line, policy))
        return moved.state != release.state

    def _drive_rollout(self, line: Line, policy: Policy) -> bool:
        endpoint = policy.release.endpoint
        release = self.ws.store.read(lambda reader: in_progress(reader, endpoint))
        rollout = None
        if release is not None and release.state == "rolling":
            rollout = self.ws.store.read(lambda reader: rollout_of(reader, release.id))
        if release is None or rollout is None:
            self._tallies.pop(endpoint, None)
            return False
        if rollout.state == "switching":
            return self.write(lambda tx: self._finish(tx, rollout))
        if rollout.state not in ("canary", "paused"):
            return False
        return self._decide(line, self._parsed(release.policy), rollout)

    def _finish(self, tx: Transaction, rollout: Rollout) -> bool:
        at, actor, row = self.ws.clock.now(), self._system(tx), tx.rollouts.get(rollout.id)
        if row.state != "switching" or tx.routes.get(row.endpoint).held:
            return False
        finish(tx, row, actor=actor, at=at)
        for alert in tx.alerts.select({"line": tx.releases.get(rollout.release).line, "state": "open"}):
            if alert.subject.startswith("model_version:"):
                close_alert(tx, alert, because="another version went live", actor=actor, at=at)
        return True

    def _decide(self, line: Line, policy: Policy, rollout: Rollout) -> bool:
        """Look at a rollout's evidence. A held or paused one may still be undone, and nothing else."""
        route = self.ws.store.read(lambda reader: reader.routes.get(rollout.endpoint))
        evidence = self._evidence(line, policy, rollout, route)
        decision = decide(rollout, policy.release, evidence, held=route.held or rollout.state == "paused")
        if decision.action == "hold":
            return False
        blob = self.ws.blobs.put(
            msgspec.json.encode({"rollout": rollout.id, "decision": decision, "evidence": evidence})
        )

        def work(tx: Transaction) -> bool:
            at, actor, row = self.ws.clock.now(), self._system(tx), tx.rollouts.get(rollout.id)
            if row.rev != rollout.rev or tx.routes.get(rollout.endpoint).rev != route.rev:
                return False
            if decision.action == "undo":
                undo(
                    tx, rollout.endpoint, actor=actor, at=at, because=decision.because, hold=False, evidence=blob,
                    release=rollout.release,
                )  # fmt: skip
            elif decision.action == "advance":
                advance_step(
                    tx, row, decision.step, evidence=blob, because=decision.because, actor=actor, at=at,
                    data_at=self._until(line, policy),
                )  # fmt: skip
            else:
                switch(tx, row, evidence=blob, because=decision.because, actor=actor, at=at)
            return True

        return self.write(work)

    def _evidence(self, line: Line, policy: Policy, rollout: Rollout, route: RouteRow) -> Evidence:
        if route.stable is None:
            raise NotFound(f"endpoint {rollout.endpoint!r} has no stable release to compare with")
        return self._tally(policy, rollout, route.stable).evidence(
            share=rollout.steps[rollout.step] / 100, closed_until=self._until(line, policy)
        )

    def _tally(self, policy: Policy, rollout: Rollout, stable: ReleaseId) -> Tally:
        """The rollout's traffic, counted on from where it was left, or from the beginning."""
        known = self._tallies.get(rollout.endpoint)
        news = self._recent.news(known.number) if known is not None and known.rollout == rollout.id else None
        if known is not None and news is not None:
            tally = known.tally
            tally.take(news.records, news.labels)
        else:
            first = self.ws.store.read(lambda reader: began(reader, rollout))
            tally = Tally(
                candidate=rollout.release, stable=stable, began=first, horizon=policy.monitor.label_horizon,
                margin_odds=policy.release.noninferior_odds, expects_labels=bool(policy.monitor.metrics),
            )  # fmt: skip
            tally.take(self._recent.since(None), self._recent.labels)
        self._tallies[rollout.endpoint] = _Counted(rollout.id, tally, self._recent.number)
        return tally

    # --- monitors -------------------------------------------------------------------------------------------------

    def _watch(self, line: Line, policy: Policy) -> bool:
        watched = self.ws.store.read(lambda reader: self._watched(reader, line, policy))
        if watched is None:
            return False
        watch = self._watches.get(line.id)
        version = watched.version.id
        if watch is None or watch.watched.version.id != version or watch.policy != policy.monitor:
            watch = self._watches[line.id] = Watch(self.ws.store, self.ws.blobs, watched, policy.monitor)
        actor = self._actor or self.write(self._system)
        at = self.ws.clock.now()
        return watch.step(self._recent, watched.until, actor=actor, at=at, write=self.write) > 0

    def _watched(self, reader: Reader, line: Line, policy: Policy) -> Watched | None:
        live = live_release(reader, policy.release.endpoint)
        if live is None:
            return None
        rollout = rollout_of(reader, live.id)
        since = (rollout.data_from if rollout else None) or live.changed_at
        late = _ON_ITS_WAY if policy.clock == "wall" else timedelta(0)
        return Watched(
            line=line.id, endpoint=policy.release.endpoint, version=reader.model_versions.get(live.model_version),
            since=since, until=self._until(line, policy) - late,
        )  # fmt: skip

    def _fire_triggers(self, line: Line, policy: Policy) -> bool:
        """Ask for a run when an open alert, new code or new data calls for one, and the last such run is long enough ago."""
        wanted = self.ws.store.read(lambda reader: self._wanted(reader, line, policy))
        if wanted is None:
            return False
        self.write(lambda tx: fire(tx, msgspec.structs.replace(wanted, actor=self._line_actor(tx, line))))
        return True

    def _wanted(self, reader: Reader, line: Line, policy: Policy) -> Trigger | None:
        if self._busy(reader, line, policy) or reader.triggers.count(_waiting(line)):
            return None
        runs = reader.runs.select({"line": line.id}, order=("-created_at",), limit=1)
        now = self._until(line, policy)
        changed = not runs or (runs[0].code, runs[0].policy) != (line.code, line.policy)
        if changed and (not runs or "code" in policy.retrain.when):
            return self._trigger(line, "code", f"code:{line.code}:{line.policy}", node("line", line.id), now)
        if not runs:
            return None
        last = runs[0].data_at or runs[0].created_at
        # A clock that was set back would leave it in the future, and must not brake until it catches up.
        if timedelta(0) <= now - last < policy.retrain.cooldown:
            return None
        for alert in reader.alerts.select({"line": line.id, "state": "open"}, order=("created_at",)):
            kind = "drift" if alert.monitor == "drift" else "performance"
            if alert.subject.startswith("model_version:") and kind in policy.retrain.when:
                return self._trigger(
                    line, kind, f"alert:{alert.id}:{runs[0].id}", node("alert", alert.id), now
                )
        if "data" in policy.retrain.when:
            mark = source_fingerprint(Path(line.folder), policy.source)
            if mark is not None and not reader.triggers.count({"line": line.id, "key": f"data:{mark}"}):
                return self._trigger(line, "data", f"data:{mark}", node("line", line.id), now)
        return None

    def _trigger(self, line: Line, kind: str, key: str, cause: str, now: datetime) -> Trigger:
        return msgspec.convert(
            {"id": TriggerId(new_id("trigger")), "line": line.id, "kind": kind, "key": key, "cause": cause, "actor": line.actor,
             "created_at": self.ws.clock.now(), "data_at": now},
            Trigger,
        )  # fmt: skip

    # --- small things ---------------------------------------------------------------------------------------------

    def _busy(self, reader: Reader, line: Line, policy: Policy) -> bool:
        active = reader.runs.count({"line": line.id, "state": ["queued", "running"]})
        return active > 0 or in_progress(reader, policy.release.endpoint) is not None

    def _policy(self, line: Line) -> Policy:
        return self._parsed(line.policy)

    def _parsed(self, digest: Digest) -> Policy:
        if digest not in self._policies:
            self._policies[digest] = parse_policy(self.ws.blobs.get(digest).decode())
        return self._policies[digest]

    def _until(self, line: Line, policy: Policy) -> datetime:
        """Domain time up to which everything has been told, and read: by the wall clock, when the log was looked at last."""
        if policy.clock == "data" and line.watermark is not None:
            return line.watermark
        return self._looked_at

    def _judged_by_all(self, lines: Sequence[Line]) -> datetime | None:
        """Domain time up to which no monitor needs to look back; None while a line has been told nothing."""
        judged: list[datetime] = []
        for line in lines:
            policy = self._policy(line)
            if policy.clock == "data" and line.watermark is None:
                return None
            watch = self._watches.get(line.id)
            judged.append(self._until(line, policy) if watch is None else watch.judged)
        return min(judged, default=None)

    def _note_seen(self, line: Line) -> bool:
        """Say how far the line's watermark has been worked through, for those who wait for it."""
        if line.watermark is None:
            return False
        seen = int(line.watermark.timestamp())

        def work(tx: Transaction) -> bool:
            row = tx.cursors.find(f"seen:{line.id}")
            if row is None:
                tx.cursors.add(Cursor(id=f"seen:{line.id}", seq=seen))
                return True
            if row.seq == seen:
                return False
            tx.cursors.change(msgspec.structs.replace(row, seq=seen))
            return True

        current = self.ws.store.read(lambda reader: reader.cursors.find(f"seen:{line.id}"))
        return (current is None or current.seq != seen) and self.write(work)

    def _system(self, tx: Transaction) -> ActorId:
        if self._actor is None:
            found = tx.actors.select({"subject": "system:andon"}, limit=1)
            self._actor = found[0].id if found else ensure_actor(
                tx, subject="system:andon", kind="line", name="Andon", at=self.ws.clock.now()
            ).id  # fmt: skip
        return self._actor

    def _line_actor(self, tx: Transaction, line: Line) -> ActorId:
        return ensure_actor(
            tx, subject=f"line:{line.id}", kind="line", name=f"line {line.id}", at=self.ws.clock.now()
        ).id


def _waiting(line: Line) -> Mapping[str, Where]:
    return {"line": line.id, "run": None, "refused": None}
