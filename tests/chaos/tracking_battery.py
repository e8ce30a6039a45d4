"""The battery: writers at a control process that a seeded hand kills, at random or exactly while something is on its way."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.battery import Bag
from tests.chaos.tracking_client import RawClient
from tests.chaos.tracking_evidence import Evidence, gather
from tests.chaos.tracking_load import Moments, Writer
from tests.chaos.tracking_server import ControlProcess

MOMENTS: Mapping[str, int] = {
    "any": 6, "half a file": 4, "a file": 2, "a batch": 3, "a point": 1, "a run begins": 2, "a run ends": 1, "a version": 2,
    "an alias": 1, "while it starts": 2,
}  # fmt: skip
"""When a kill comes: any time, half-way through an upload, when a request of a kind is out and not answered, or before the
process that came after the last kill answers at all; and how often."""
HANG_UP = {"its database hangs up": 5}
"""In the place of a kill, where the database is a server: every connection to it breaks."""
_SHORTEST_S, _LONGEST_S = 0.0002, 0.3
_PATIENCE_S = 3.0
_BETWEEN = 60
"""So many requests are acknowledged before the next kill, mostly."""


@dataclass
class Figures:
    """Kills by their moment, and seconds from a kill until the next process answers."""

    kills: Counter[str] = field(default_factory=Counter)
    back_s: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    torn: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A battery that has ended: nothing of it runs any more."""

    seed: int
    server: ControlProcess
    evidence: Evidence
    figures: Figures


class Battery:
    """One workspace, from its first run to the end."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], *, seed: int, cycles: int, writers: int = 5
    ) -> None:
        self.seed, self.cycles = seed, cycles
        self.figures = Figures()
        self.server = ControlProcess(folder, environ)
        self._writers = writers
        self._rng = Random(f"{seed}/hand")
        self._url = environ.get("ANDON_DATABASE_URL")
        self._bag = Bag(self._rng, {**MOMENTS, **(HANG_UP if self._url else {})})
        self._moments = Moments()
        self._quiet = threading.Event()

    def run(self) -> Outcome:
        """Start, torment, let every writer come to an end, and gather the evidence."""
        began_s = time.monotonic()
        with self.server:
            stop = threading.Event()
            writers = [
                Writer(number, self.seed, RawClient(self.server.port, self.server.token), self._moments, stop)
                for number in range(self._writers)
            ]
            for writer in writers:
                writer.start()
            try:
                for _ in range(self.cycles):
                    self._cycle(writers)
                    if any(writer.failure for writer in writers):
                        break
            finally:
                stop.set()
                for writer in writers:
                    writer.join(60)
            for writer in writers:
                assert not writer.is_alive(), f"{writer.name} hangs"
                if writer.failure is not None:
                    raise writer.failure
            self._count(writers, time.monotonic() - began_s)
            evidence = gather(self.server, [writer.journal for writer in writers], self._offences(writers))
        return Outcome(self.seed, self.server, evidence, self.figures)

    def _cycle(self, writers: list[Writer]) -> None:
        moment = self._bag.draw()
        if self._rng.random() < 0.75:
            self._let_work(writers)
        if self._url and moment in HANG_UP:
            self._hang_up(self._url)
            self.figures.kills[moment] += 1
            return
        if moment not in ("any", "while it starts"):
            self._moments.wait(moment, _PATIENCE_S)
        self._quiet.wait(math.exp(self._rng.uniform(math.log(_SHORTEST_S), math.log(_LONGEST_S))))
        killed_s = time.monotonic()
        self.server.kill()
        self._moments.passed()
        if moment == "while it starts":
            self.server.start(wait=False)
            self._quiet.wait(self._rng.uniform(0.05, 1.0))
            self.server.kill()
        self.server.start()
        self.figures.back_s.append(time.monotonic() - killed_s)
        self.figures.kills[moment] += 1

    def _hang_up(self, url: str) -> None:
        import psycopg

        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        with psycopg.connect(url, autocommit=True) as connection:
            for _ in range(5):
                self._moments.wait(self._rng.choice(("a batch", "a point", "a run begins", "a version")), 0.2)
                connection.execute(f"{others} AND pid <> pg_backend_pid()")
                self._moments.passed()

    def _let_work(self, writers: list[Writer]) -> None:
        """Wait until something was acknowledged since the last kill."""
        before = sum(writer.journal.acknowledged for writer in writers)
        deadline = time.monotonic() + 5 * _PATIENCE_S
        while not self._quiet.wait(0.005) and time.monotonic() < deadline:
            if sum(writer.journal.acknowledged for writer in writers) >= before + _BETWEEN:
                return
            if any(writer.failure for writer in writers):
                return

    def _count(self, writers: list[Writer], seconds: float) -> None:
        for writer in writers:
            self.figures.counts += writer.toll.counts
            self.figures.acknowledged += writer.journal.acknowledged
            self.figures.torn += writer.journal.torn
        self.figures.seconds = seconds

    @staticmethod
    def _offences(writers: list[Writer]) -> list[str]:
        return [offence for writer in writers for offence in writer.toll.offences]
