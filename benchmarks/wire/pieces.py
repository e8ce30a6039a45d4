"""The pieces that are measured: each takes a bench and a server, and gives named numbers.

A name that ends in `_raw` was measured by `benchmarks.wire.raw`, all others by the MLflow client.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import msgspec

from benchmarks.demo import TreeMemory
from benchmarks.figures import ROOT
from benchmarks.wire import fill
from benchmarks.wire.raw import Lane, batch, http, new_experiment, new_run, post
from benchmarks.wire.servers import FOUR, NULL, ONE, OURS, Server, environment, mlflow_python

CLIENTS = 16
CROWD = 100
ARTIFACT_MB = 256
HISTORY = 100_000
MILLION = 1_000_000
IDLE_S = 3
TAKES = 3
Numbers = dict[str, float]


class Client:
    """A process of the MLflow client that takes orders; see `benchmarks/wire/client.py`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [mlflow_python(), ROOT / "benchmarks/wire/client.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        assert self.process.stdout
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("the MLflow client could not be imported")

    def ask(self, task: str, server: Server, processes: int = 1, **order: object) -> list[dict[str, float]]:
        """The results of all processes that did the task.

        Raises:
            RuntimeError: a process could not do it.
        """
        assert self.process.stdin
        assert self.process.stdout
        whole = {"task": task, "url": server.url, "processes": processes, **order}
        self.process.stdin.write(json.dumps(whole) + "\n")
        self.process.stdin.flush()
        answers = json.loads(self.process.stdout.readline())
        failed = [one["failed"] for one in answers if "failed" in one]
        if failed:
            raise RuntimeError(f"{task} against {server.name}: {failed[0]} (and {len(failed) - 1} more)")
        for first in {one["first"] for one in answers if one.get("first")}:
            print(f"  {server.name}, {task}: {first}", file=sys.stderr)
        return list(answers)

    def end(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@dataclass
class Bench:
    """What all pieces share: the folder, the sizes, the client."""

    folder: Path
    runs: int
    seconds: float
    client: Client
    failed: list[str] = field(default_factory=list)


def fsync_ms(folder: Path, times: int = 200) -> float:
    """The median of appending 4 KiB to a file and waiting until the disk has it."""
    spent, path = [], folder / "fsync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(times):
        start = time.perf_counter()
        os.write(descriptor, b"x" * 4096)
        os.fsync(descriptor)
        spent.append(time.perf_counter() - start)
    os.close(descriptor)
    path.unlink()
    return statistics.median(spent) * 1e3


def start(_bench: Bench, server: Server) -> Numbers:
    """What the server took to its first healthy answer, and what it holds when nobody asks."""
    time.sleep(IDLE_S)
    return {
        "start_wall_s": server.wall_s,
        "start_cpu_s": server.cpu_s,
        "idle_rss_mb": server.memory_mb("rss"),
        "idle_pss_mb": server.memory_mb("pss"),
        "idle_processes": len(server.family()),
    }


def log_one(bench: Bench, server: Server) -> Numbers:
    """Calls one after the other. The disk is measured around each take, as others on the machine make it slower."""
    takes, disk = [], [fsync_ms(bench.folder)]
    for _ in range(TAKES):
        takes += bench.client.ask("log_one", server, count=300, seconds=bench.seconds / 2)
        disk.append(fsync_ms(bench.folder))
    return {
        "log_metric_p50_ms": statistics.median(take["p50_ms"] for take in takes),
        "log_metric_n": sum(take["count"] for take in takes),
        "log_metric_fsync_ms": statistics.median(disk),
    }


def many(bench: Bench, server: Server) -> Numbers:
    """16 processes of the real client, at once."""
    found: Numbers = {}
    for task, name in (("log_many", "log_metric_16"), ("create_many", "create_run_16")):
        answers = bench.client.ask(task, server, CLIENTS, seconds=bench.seconds, no_retries=True)
        found[f"{name}_per_s"] = sum(one["per_s"] for one in answers)
        found[f"{name}_errors"] = sum(one["errors"] for one in answers)
    return found


def drive(server: Server, task: str, width: int, processes: int, seconds: float) -> Numbers:
    """Raw connections in some processes, all started at one moment."""
    command = [sys.executable, "-m", "benchmarks.wire.raw"]
    order = {"url": server.url, "task": task, "connections": width // processes, "seconds": seconds}
    lanes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for lane in lanes:
        assert lane.stdin
        lane.stdin.write(json.dumps(order) + "\n")
        lane.stdin.flush()
    for lane in lanes:
        assert lane.stdout
        if lane.stdout.readline() != "ready\n":
            raise RuntimeError(f"raw {task} against {server.name} could not begin")
    begin = time.monotonic() + 0.2
    done = [json.loads(lane.communicate(f"{begin}\n")[0]) for lane in lanes]
    return {
        "per_s": sum(one["per_s"] for one in done),
        "errors": sum(one["errors"] for one in done),
        "p50_ms": statistics.median(one["p50_ms"] for one in done),
    }


def raw(bench: Bench, server: Server) -> Numbers:
    found: Numbers = {}
    one = drive(server, "log_metric", 1, 1, bench.seconds)
    found["log_metric_p50_ms_raw"] = one["p50_ms"]
    for task in ("log_metric", "create_run"):
        all_of_them = drive(server, task, CLIENTS, 2, bench.seconds)
        found[f"{task}_16_per_s_raw"] = all_of_them["per_s"]
        found[f"{task}_16_errors_raw"] = all_of_them["errors"]
    return found


def log_batch(bench: Bench, server: Server) -> Numbers:
    takes = [
        bench.client.ask("log_batch", server, count=60, seconds=bench.seconds / 2)[0] for _ in range(TAKES)
    ]
    found = {"log_batch_points_per_s": statistics.median(take["per_s"] for take in takes)}
    for width, processes in ((1, 1), (CLIENTS, 2)):
        done = drive(server, "log_batch", width, processes, bench.seconds)
        found[f"log_batch_{width}_points_per_s_raw"] = done["per_s"] * 1000
        found[f"log_batch_{width}_errors_raw"] = done["errors"]
    return found


METRIC = {"filter": "metrics.acc > 0.5", "order": ["metrics.acc DESC"], "pages": 1}
QUERIES: dict[str, dict[str, object]] = {
    "metric": METRIC,
    "param": {"filter": "", "order": ["params.lr ASC"], "pages": 1},
    "terms": {
        "filter": "metrics.acc > 0.9 AND params.model = 'm1' AND tags.team = 'green'", "order": [], "pages": 1,
    },
    "pages": {**METRIC, "pages": 10},
}  # fmt: skip


def search(bench: Bench, server: Server, runs: int | None = None) -> Numbers:
    """The four questions, by the client; the first one raw as well."""
    count = runs or bench.runs
    experiment = filled(server, count)
    names = [name for name in QUERIES if not (name == "pages" and server.name == FOUR and count > 2000)]
    queries = [{"name": name, "count": 20, **QUERIES[name]} for name in names]
    (answer,) = bench.client.ask(
        "search", server, experiment=experiment, seconds=bench.seconds * (2 if server.name == FOUR else 1),
        queries=queries,
    )  # fmt: skip
    found: Numbers = {}
    for name in names:
        took: dict[str, float] = answer[name]  # type: ignore[assignment]
        found[f"search_{count}_{name}_p50_ms"] = took["p50_ms"]
        found[f"search_{count}_{name}_n"] = took["count"]
        found[f"search_{count}_{name}_rows"] = took["rows"]
    if server.name != FOUR:
        lane, spent = Lane(server.url), []
        ask = {"experiment_ids": [experiment], "max_results": 100}
        request = post("/runs/search", {**ask, "filter": METRIC["filter"], "order_by": METRIC["order"]})
        for _ in range(30):
            begin = time.perf_counter()
            lane.ask(request)
            spent.append(time.perf_counter() - begin)
        found[f"search_{count}_metric_p50_ms_raw"] = statistics.median(spent) * 1e3
    return found


def million(bench: Bench, server: Server) -> Numbers:
    return search(bench, server, MILLION)


def filled(server: Server, count: int) -> str:
    """The experiment of a server that holds so many runs; filled once."""
    if server.name == NULL:
        return "1"
    if count not in server.filled:
        begin, lane = time.monotonic(), Lane(server.url)
        server.filled[count] = experiment = new_experiment(lane)
        if server.name == OURS:
            new_run(lane, experiment)
            fill.andon(server.database or str(server.folder / ".andon/andon.db"), experiment, count)
        else:
            fill.mlflow(server.database or str(server.folder / "mlflow.db"), experiment, count)
        print(f"  {server.name}: {count} runs put in {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return server.filled[count]


class History(msgspec.Struct):
    """What a client needs of one page of a metric's history."""

    metrics: list[msgspec.Raw] = []
    next_page_token: str = ""


def history(_bench: Bench, server: Server) -> Numbers:
    """100,000 points of one metric written raw in batches of 1,000, and read back raw in pages of 25,000."""
    lane = Lane(server.url)
    run = new_run(lane, new_experiment(lane))
    begin = time.monotonic()
    for number in range(HISTORY // 1000):
        lane.ask(batch(run, number, keys=1))
    wrote_s = time.monotonic() - begin
    takes = [read_history(lane, run, "m0") for _ in range(1 if wrote_s > 60 else TAKES)]
    return {
        "history_write_s_raw": wrote_s,
        "history_read_ms_raw": statistics.median(ms for ms, _ in takes),
        "history_points": takes[0][1],
    }


def read_history(lane: Lane, run: str, key: str) -> tuple[float, int]:
    """Milliseconds of reading all pages, decoding not counted, and how many points came."""
    found, token, spent = 0, "", 0.0
    while True:
        query = f"run_id={run}&metric_key={key}&max_results=25000"
        query += f"&page_token={quote(token, safe='')}" if token else ""
        begin = time.perf_counter()
        body = lane.ask(http("GET", f"/api/2.0/mlflow/metrics/get-history?{query}"))
        spent += time.perf_counter() - begin
        page = msgspec.json.decode(body, type=History)
        found, token = found + len(page.metrics), page.next_page_token
        if not token:
            return spent * 1e3, found


def artifact(bench: Bench, server: Server) -> Numbers:
    """A file of 256 MB up and down by the client, and how far the server's memory grows meanwhile."""
    path = bench.folder / "big.bin"
    if not path.exists():
        with path.open("wb") as file:
            for _ in range(ARTIFACT_MB):
                file.write(os.urandom(1_000_000))
    down = bench.folder / "down"
    down.mkdir(exist_ok=True)
    assert server.pid is not None
    before = server.memory_mb("rss")
    memory = TreeMemory(server.pid)
    memory.start()
    (took,) = bench.client.ask("artifact", server, file=str(path), folder=str(down), count=TAKES)
    memory.ended.set()
    memory.join()
    return {
        "artifact_up_mb_per_s": took["up"],
        "artifact_down_mb_per_s": took["down"],
        "artifact_peak_growth_mb": max(0.0, memory.peak / 1e6 - before),
    }


def crowd(bench: Bench, server: Server) -> Numbers:
    """100 clients at once, each with a small training of its own; retries are off, so each failure shows."""
    answers = bench.client.ask("crowd", server, CROWD, no_retries=True)
    return {
        "crowd_errors": sum(one["errors"] for one in answers),
        "crowd_calls": sum(one["count"] for one in answers),
        "crowd_wall_s": max(one["wall_s"] for one in answers),
    }


Piece = Callable[[Bench, Server], Numbers]
# Name: how, and for whom. What is left out for a server is either a matter of minutes there or says nothing.
PIECES: dict[str, tuple[Piece, set[str]]] = {
    "start": (start, {OURS, FOUR, ONE}),
    "log_metric": (log_one, {OURS, FOUR, ONE, NULL}),
    "many": (many, {OURS, FOUR, ONE, NULL}),
    "raw": (raw, {OURS, FOUR, ONE, NULL}),
    "log_batch": (log_batch, {OURS, FOUR, ONE, NULL}),
    "history": (history, {OURS, FOUR}),
    "artifact": (artifact, {OURS, FOUR, ONE}),
    "crowd": (crowd, {OURS, FOUR, NULL}),
    "search": (search, {OURS, FOUR, NULL}),
    "million": (million, {OURS}),
}
