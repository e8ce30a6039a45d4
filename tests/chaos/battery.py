"""The battery: a line under load, and a seeded hand that kills its processes, undoes its releases and backs it up meanwhile.

What is random comes from the seed: victims, moments, acts, requests. What the machine makes of them is a race, so a seed
makes a failure likely again, not certain.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from andon.core.entities import RouteRow
from andon.core.errors import AndonError, Unavailable
from andon.core.workspace import FOLDER, Layout, settings_from
from andon.pipelines.gateways import GatewayState, undo_at_gateways
from andon.pipelines.registration import register_line
from andon.pipelines.workspace import OpenWorkspace
from andon.rollout import journal
from andon.store.backup import backup
from andon.store.ports import Reader
from tests.chaos.client import BEGIN, Caller, History, Lost, Traffic, Undo
from tests.chaos.evidence import Evidence, everything, gather
from tests.chaos.house import House, until
from tests.chaos.line import NAME, make

VICTIMS: Mapping[str, int] = {
    "worker": 3, "control": 2, "gateway-0": 3, "gateway-1": 3, "step": 1, "supervisor": 1, "everything": 2,
}  # fmt: skip
ACTS: Mapping[str, int] = {"nothing": 9, "undo by control": 2, "undo at gateways": 1}
MOMENTS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "any": ((), 5),
    "a run moves": (("run.created", "run.started", "dataset.committed", "run.sealed"), 2),
    "a release moves": (("release.judging", "release.rolling", "rollout.advanced", "release.live"), 3),
    "a segment is sealed": (("segment.sealed",), 1),
}
"""When a kill comes: any time, or right after the ledger says one of these; and how often."""
_SHORTEST_S, _LONGEST_S = 0.005, 1.0
_PATIENCE_S = 3.0
_WATCH_S = 0.1
_WAITING = 2


@dataclass
class Figures:
    """What was measured: seconds from a kill until everything works again, by victim; seconds from a route's commit until
    every gateway that lived meanwhile served it."""

    kills: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    recovery_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lag_s: list[float] = field(default_factory=list)

    def all_recoveries(self) -> list[float]:
        return [value for values in self.recovery_s.values() for value in values]


@dataclass(frozen=True)
class Saved:
    """A backup, and what had been acknowledged before it began."""

    folder: Path
    epoch: int
    answers: tuple[str, ...]
    labels: tuple[str, ...]
    triggers: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """A battery that has ended: nothing of it runs any more."""

    seed: int
    layout: Layout
    environ: Mapping[str, str]
    evidence: Evidence
    figures: Figures
    saved: Saved
    exit_code: int
    end_s: float


class Battery:
    """One workspace from its first model to its ordered end."""

    def __init__(self, folder: Path, environ: Mapping[str, str], *, seed: int, cycles: int) -> None:
        self.seed, self.cycles = seed, cycles
        self.rng = Random(seed)
        moments = {name: weight for name, (_, weight) in MOMENTS.items()}
        self._bags = [Bag(self.rng, weights) for weights in (ACTS, VICTIMS, moments)]
        self.history = History()
        self.figures = Figures()
        self.source = make(folder / "project", Random(f"{seed}/source"))
        self.layout = Layout(folder / "project" / FOLDER)
        self.house = House(self.layout, environ)
        self.ws = OpenWorkspace(self.layout, settings_from(self.house.environ))
        self._seen: list[str] = []
        self._quiet = threading.Event()
        self._acts: list[threading.Thread] = []
        self._saved: Saved | None = None
        self._folder = folder

    def run(self) -> Outcome:
        """Start, torment, let it come to rest, end it in order, and gather the evidence."""
        try:
            self._begin()
            watcher = threading.Thread(target=self._watch, name="watcher")
            watcher.start()
            traffic = Traffic(
                self.house.gateway_port, self.house.control_port, self.house.token(), self.history, self.seed
            )
            traffic.start()
            try:
                for number in range(self.cycles):
                    self._cycle(number)
                self._rest()
            finally:
                traffic.stop()
                self._quiet.set()
                watcher.join()
            return self._end()
        finally:
            self._quiet.set()
            self.house.destroy()
            self.ws.close()

    # --- the torment ---

    def _begin(self) -> None:
        register_line(self.ws, self.layout.project, self.ws.actor().id)
        self.ws.watermark(NAME, BEGIN)
        self.house.start()
        until("the first model is live", lambda: (route := self._route()) is not None and route.stable)
        until("everything works", self._well)

    def _cycle(self, number: int) -> None:
        rng = self.rng
        self._stir(rng)
        act, victim, moment = self._bags[0].draw(), self._bags[1].draw(), self._bags[2].draw()
        delay_s = math.exp(rng.uniform(math.log(_SHORTEST_S), math.log(_LONGEST_S)))
        waits = rng.random() < 0.75
        if number == self.cycles // 2:
            self._save()
        if act == "undo at gateways":
            victim = "control"
        if act == "undo by control":
            self._go(self._undo_by_control, number)
        self._wait_for(MOMENTS[moment][0])
        if victim == "step":
            self._wait_for_step()
        self._quiet.wait(delay_s)
        killed_s = time.monotonic()
        if not self._kill(victim):
            victim, _ = "worker", self._kill("worker")
        self.figures.kills[victim] += 1
        self.figures.acts[act] += 1
        self.figures.moments[moment] += 1
        if act == "undo at gateways":
            self._undo_at_gateways(number)
        if waits and victim != "step":
            until(f"everything works after the end of {victim}", self._well)
            self.figures.recovery_s[victim].append(time.monotonic() - killed_s)
        self.house.notice_deaths()
        assert not self.house.died, "\n".join(self.house.died)

    def _wait_for(self, kinds: tuple[str, ...]) -> None:
        """Wait until something of these kinds happens; when nothing does for a while, that is a moment too."""
        seq = self.ws.store.read(lambda reader: reader.ledger.head())[0]
        deadline = time.monotonic() + _PATIENCE_S
        while kinds and time.monotonic() < deadline and not self._quiet.wait(0.01):
            if self.ws.store.read(lambda reader: reader.ledger.after(seq, limit=1, kinds=kinds)):
                return

    def _wait_for_step(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self.house.steps() and time.monotonic() < deadline and not self._quiet.wait(0.02):
            pass

    def _kill(self, victim: str) -> bool:
        if victim == "step":
            return self.house.kill_step()
        if victim in ("supervisor", "everything"):
            if victim == "everything":
                self.house.kill_everything()
            else:
                self.house.kill("supervisor")
            self.house.start()
            return True
        return self.house.kill(victim)

    def _stir(self, rng: Random) -> None:
        """Give the line something to do: new rows, a run by hand, leave to go on after an undo."""
        self._acts = [act for act in self._acts if act.is_alive()]
        if rng.random() < 0.3:
            self.source.grow(3)
        if rng.random() < 0.5 and self._waiting() < _WAITING:
            self._go(self._ask_for_run)
        route = self._route()
        if route is not None and route.held:
            self._go(self._resume)

    def _go(self, act: object, *arguments: object) -> None:
        """Do something while the next kill may come."""
        thread = threading.Thread(target=act, args=arguments)  # type: ignore[arg-type]
        self._acts.append(thread)
        thread.start()

    def _ask_for_run(self) -> None:
        said = self._post(f"/api/lines/{NAME}/runs", {}, 202)
        if said is not None:
            self.history.triggers.append(said["id"])

    def _resume(self) -> None:
        self._post(f"/api/endpoints/{NAME}/resume", None, 200)

    def _undo_by_control(self, number: int) -> None:
        said = self._post(f"/api/endpoints/{NAME}/undo", {"reason": f"cycle {number}"}, 200, 409)
        if said is not None and "release" in said:
            self.history.undos.append(Undo(time.monotonic(), said["release"], None, tuple(said["unreached"])))

    def _undo_at_gateways(self, number: int) -> None:
        try:
            answer, _, unreached = undo_at_gateways(
                self.layout, NAME, actor="chaos", reason=f"cycle {number}"
            )
        except Unavailable:
            return  # no gateway lives just now, or there is nothing to go back to
        self.history.undos.append(
            Undo(time.monotonic(), answer["release"], answer["override"], tuple(unreached))
        )

    def _post(self, path: str, body: object, *fine: int) -> dict[str, Any] | None:
        caller = Caller(self.house.control_port, self.history, self.house.token())
        try:
            said: dict[str, Any] = caller.post(path, body, fine=fine)
        except Lost:
            return None
        finally:
            caller.close()
        return said

    def _save(self) -> None:
        """A backup in the middle of it all."""
        before = Saved(
            self._folder / "backup", self.ws.status().epoch,
            tuple(answer.prediction_id for answer in self.history.answers),
            tuple(label.prediction_id for label in self.history.labels), tuple(self.history.triggers),
        )  # fmt: skip
        backup(self.layout, self.ws.store, before.folder, actor=self.ws.actor().id, clock=self.ws.clock)
        self._saved = before

    # --- rest and end ---

    def _rest(self) -> None:
        """Wait, with traffic going on, until everything works and every undo has been adopted."""
        for act in self._acts:
            act.join(60)
        until("everything works at the end", self._well)
        until(
            "every undo at a gateway is adopted",
            lambda: (route := self._route()) and {one.id for one in journal(self.layout)} <= set(route.adopted),
        )  # fmt: skip

    def _end(self) -> Outcome:
        until("finished segments are sealed", lambda: not self.ws.log.sealable())
        newest = {
            row.id: (row.epoch, row.generation) for row in everything(self.ws, lambda reader: reader.routes)
        }
        until("gateways serve the newest route", self._converged)
        served = tuple(
            {name: (route["epoch"], route["generation"]) for name, route in state.routes.items()}
            for state in self.house.gateway_states()
        )
        self.house.notice_deaths()
        began_s = time.monotonic()
        exit_code = self.house.end()
        end_s = time.monotonic() - began_s
        until("no process is left", lambda: not self.house.processes(), within_s=5.0)
        assert self._saved is not None
        evidence = gather(self.ws, self.history, (*self._seen, *self.house.died), newest, served)
        for answer in Random(f"{self.seed}/why").sample(
            self.history.answers, min(10, len(self.history.answers))
        ):
            self._explain(answer.prediction_id, evidence)
        return Outcome(
            self.seed, self.layout, self.house.environ, replace(evidence, seen=(*self._seen, *self.house.died)), self.figures,
            self._saved, exit_code, end_s,
        )  # fmt: skip

    def _explain(self, prediction: str, evidence: Evidence) -> None:
        try:
            text = self.ws.why(prediction).text()
        except AndonError as error:
            self._seen.append(f"'why' does not know the acknowledged prediction {prediction}: {error}")
            return
        release = next(
            answer.release for answer in evidence.history.answers if answer.prediction_id == prediction
        )
        if release not in text:
            self._seen.append(f"'why' of {prediction} does not name its release {release}: {text}")

    # --- looking ---

    def _well(self) -> bool:
        """Whether everything works: the worker holds its lease, control answers, gateways serve the newest route."""
        self.house.notice_deaths()
        worker = self.house.pid("worker")
        if worker is None or self.house.pid("supervisor") is None:
            return False
        lease = self.ws.store.read(lambda reader: reader.leases.find("reconciler"))
        if lease is None or f":{worker}:" not in lease.holder:
            return False
        return self.house.control_answers() and self._converged()

    def _converged(self) -> bool:
        route = self._route()
        states = self.house.gateway_states()
        return len(states) == self.house.gateways and all(
            route is None or _serves(state, route) for state in states
        )

    def _route(self) -> RouteRow | None:
        return self.ws.store.read(lambda reader: reader.routes.find(NAME))

    def _waiting(self) -> int:
        return self.ws.store.read(lambda reader: reader.triggers.count({"run": None, "refused": None}))

    def _watch(self) -> None:
        """While it goes on: one live release, the route is it; and how long gateways take to follow."""
        newest, since_s = (0, 0), 0.0
        behind: dict[int, bool] = {}
        while not self._quiet.wait(_WATCH_S):
            route, live = self.ws.store.read(_route_and_live)
            if route is None:
                continue
            if live != ([route.stable] if route.stable else []):
                self._seen.append(f"live are {live} while the route's stable is {route.stable}")
            serving = {state.pid: state.routes.get(NAME, {}) for state in self.house.gateway_states()}
            if (route.epoch, route.generation) != newest:
                newest, since_s = (route.epoch, route.generation), time.monotonic()
                behind = {pid: True for pid in serving if pid is not None}
            for pid in [pid for pid in behind if pid not in serving]:
                del behind[pid]
            for pid in list(behind):
                said = serving[pid]
                if (said.get("epoch", 0), said.get("generation", 0)) >= newest:
                    self.figures.lag_s.append(time.monotonic() - since_s)
                    del behind[pid]


def _serves(state: GatewayState, route: RouteRow) -> bool:
    served = state.routes.get(NAME, {})
    return (served.get("epoch", 0), served.get("generation", 0)) >= (route.epoch, route.generation)


def _route_and_live(reader: Reader) -> tuple[RouteRow | None, list[str]]:
    live = reader.releases.select({"endpoint": NAME, "state": "live"})
    return reader.routes.find(NAME), [release.id for release in live]


class Bag:
    """Draws names at random, but each as often as its weight says before the bag is filled again."""

    def __init__(self, rng: Random, weights: Mapping[str, int]) -> None:
        self._rng = rng
        self._full = [name for name, weight in weights.items() for _ in range(weight)]
        self._left: list[str] = []

    def draw(self) -> str:
        if not self._left:
            self._left = self._rng.sample(self._full, len(self._full))
        return self._left.pop()


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least a share of the values do not exceed; 0 of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0
