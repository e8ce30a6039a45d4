"""A line on the wall's clock, and a reconciler that a test steps by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from andon.core.clock import to_us
from andon.core.entities import Rollout
from andon.core.ids import prediction_id
from andon.core.predictions import VERSION, PredictionRecord
from andon.core.routes import pick
from andon.core.workspace import FOLDER, Layout
from andon.pipelines.reconciler import Reconciler
from andon.pipelines.registration import register_line
from andon.pipelines.workspace import FeedbackItem, OpenWorkspace
from andon.rollout import route_file
from andon.store.predictions_writer import SegmentWriter
from tests.chaos.line import NAME, Source, draw, make

STEPS = 3000


class JumpingClock:
    """Wall time that a test sets forward and back; monotonic time that does not care."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic_s(self) -> float:
        return time.monotonic()


class Desk:
    """A line on the wall's clock and a reconciler stepped by hand."""

    def __init__(self, folder: Path) -> None:
        self.rng = Random(5)
        self.source: Source = make(folder, self.rng, clock="wall")
        self.clock = JumpingClock()
        self.ws = OpenWorkspace(Layout(folder / FOLDER), clock=self.clock)
        self.actor = self.ws.actor().id
        register_line(self.ws, folder, self.actor)
        self.reconciler = Reconciler(self.ws)
        self.log = SegmentWriter(self.ws.layout.predictions, self.clock)

    def step_until(self, what: str, happened: Callable[[], object]) -> None:
        for _ in range(STEPS):
            if happened():
                return
            if not self.reconciler.step():
                for thread in list(self.reconciler._running.values()):
                    thread.join(0.05)
        raise AssertionError(f"it did not happen in {STEPS} steps: {what}")

    def count(self, noun: str, **where: str) -> int:
        return self.ws.store.read(lambda reader: int(getattr(reader, noun).count(where)))

    def rollout(self) -> Rollout:
        return self.ws.store.read(lambda reader: reader.rollouts.select(order=("-created_at",), limit=1)[0])

    def answer(self, count: int) -> None:
        """Answers as a gateway would give them just now, and their labels."""
        route = self.ws.store.read(route_file).endpoints[NAME]
        labels = []
        for _ in range(count):
            at_us = to_us(self.clock.now())
            ident = prediction_id(at_us // 1000, self.log.boot, self.log.next_number())
            arm = pick(route, ident)
            assert arm is not None
            record, left = draw(self.rng)
            self.log.append([
                PredictionRecord(
                    v=VERSION, id=bytes.fromhex(ident.replace("-", "")), at_us=at_us, data_at_us=None, endpoint=NAME,
                    release=arm.release, model=arm.model, version=arm.version, epoch=route.epoch,
                    generation=route.generation, arm="candidate" if arm.role == "candidate" else "stable",
                    propensity=route.weight, entity=None, status=200, inputs=record, features=[0.0, 0.0, 0.0],
                    output=self.rng.random(), error=None, micros=100,
                )
            ])  # fmt: skip
            labels.append(FeedbackItem(prediction_id=ident, label=float(left)))
        self.ws.feedback(labels, self.actor)

    def close(self) -> None:
        self.log.close()
        self.reconciler.close()
        self.ws.close()
