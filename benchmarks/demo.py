"""The demo goes round the whole loop on real data within a minute and a half, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.figures import Figure

NO_PEER = "no other tool closes the whole loop, so there is nothing to put beside it"
ANDON = Path(sys.executable).parent / "andon"
SAMPLE_S = 0.2


class TreeMemory(threading.Thread):
    """Samples the resident memory of a process and all below it; `peak` is the largest sum seen, in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.ended = psutil.Process(pid), 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_S):
            self.peak = max(self.peak, self.now())

    def now(self) -> int:
        total = 0
        try:
            for process in [self.process, *self.process.children(recursive=True)]:
                total += self.resident(process)
        except psutil.NoSuchProcess:
            return total
        return total

    @staticmethod
    def resident(process: psutil.Process) -> int:
        try:
            return int(process.memory_info().rss)
        except psutil.NoSuchProcess:
            return 0


def measure(*, peers: bool) -> list[Figure]:  # noqa: ARG001  # there is none
    with tempfile.TemporaryDirectory(prefix="andon-demo-") as folder:
        start = time.monotonic()
        with subprocess.Popen(
            [ANDON, "demo", "--exit", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            memory = TreeMemory(process.pid)
            memory.start()
            printed, _ = process.communicate()
            memory.ended.set()
        wall_s = time.monotonic() - start
    summary = json.loads(printed)
    return [
        Figure("the loop closed by itself (1 = yes)", float(summary["ok"]), "", ">= 1", reason=NO_PEER),
        Figure("whole demo, wall", wall_s, "s", "<= 90", reason=NO_PEER),
        Figure("peak resident memory of all processes", memory.peak / 1e9, "GB", "<= 1.5", reason=NO_PEER),
        Figure(
            "requests sent one by one", float(summary["predictions"]), "requests", ">= 20000", reason=NO_PEER
        ),
    ]
