"""`run.log` of `andon.run` costs a training some microseconds: five metrics are on this machine's disk when it returns.

The peer is `mlflow.log_metrics` of the same five, which is on a server's disk when it returns. MLflow's own server runs
beside it, of one worker, since that answers one client fastest.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.wire.servers import MLFLOW, ONE, environment, mlflow_python, started

TIMES = 20_000
PEER_TIMES = 200
PEER = """
import json, sys, time
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
values = {"loss": 0.3, "accuracy": 0.9, "auc": 0.8, "lr": 0.001, "grad_norm": 1.5}
took = []
with mlflow.start_run():
    for step in range(int(sys.argv[2])):
        began = time.perf_counter_ns()
        mlflow.log_metrics(values, step=step)
        took.append(time.perf_counter_ns() - began)
print(json.dumps(took))
"""
VALUES = {"loss": 0.3, "accuracy": 0.9, "auc": 0.8, "lr": 0.001, "grad_norm": 1.5}


def ours(folder: Path, url: str | None) -> list[int]:
    """Nanoseconds of each call, while the run's thread delivers to a workspace, or finds its server away."""
    import andon
    from andon.core.workspace import Layout

    os.environ["ANDON_HOME"] = str(Layout(folder / ".andon").create().root)
    took: list[int] = []
    with andon.run("cost", console="off", url=url) as run:
        for step in range(TIMES):
            began = time.perf_counter_ns()
            run.log(VALUES, step=step)
            took.append(time.perf_counter_ns() - began)
            if step % 1000 == 999:
                time.sleep(0.05)  # a training does something between its steps
        if url is not None:
            run._flush_s = 0.1
    return took


def theirs(folder: Path) -> float:
    """Microseconds of the median call of MLflow's client to its own server."""
    with started(ONE, folder / "peer") as server:
        done = subprocess.run(
            [mlflow_python(), "-c", PEER, server.url, str(PEER_TIMES)], capture_output=True, text=True, check=True,
            env=environment(),
        )  # fmt: skip
    return statistics.median(json.loads(done.stdout.splitlines()[-1])) / 1000


def measure(*, peers: bool) -> list[Figure]:
    import warnings

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        here = ours(Path(folder) / "here", None)
        away = ours(Path(folder) / "away", "http://127.0.0.1:9")
        peer = theirs(Path(folder)) if peers else None
    p50 = statistics.median(here) / 1000
    beside = (
        Figure(
            "run.log of 5 metrics, p50",
            p50,
            "us",
            "<= 20",
            peer=f"mlflow.log_metrics, {MLFLOW}",
            peer_value=peer,
        )
        if peer is not None
        else Figure("run.log of 5 metrics, p50", p50, "us", "<= 20", reason="left out with --no-peer")
    )
    return [
        beside,
        Figure("the same, p99", statistics.quantiles(here, n=100)[98] / 1000, "us", reason="of the same calls"),
        Figure(
            "the same while the server is away, p50", statistics.median(away) / 1000, "us", "<= 20",
            reason="MLflow's client raises then",
        ),
        Figure("import andon, then andon.run, CPU", import_cpu_s(), "s", reason="what a training pays once"),
    ]  # fmt: skip


def import_cpu_s() -> float:
    """CPU seconds of `import andon` and the first use of `andon.run`."""
    probe = "import time; t = time.process_time(); import andon; andon.run; print(time.process_time() - t)"
    return min(float(subprocess.check_output([sys.executable, "-c", probe])) for _ in range(5))
