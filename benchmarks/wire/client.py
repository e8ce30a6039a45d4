"""What the unmodified MLflow client measures. Runs in the peer's environment, which has `mlflow` and not Andon.

Reads one order (JSON) a line, forks `processes` copies of itself that do the task at once, and prints one list of
their results a line. Imports only the standard library and `mlflow`; the import is paid once, before any order.
"""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import os
import statistics
import sys
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
POINTS = 1000


def setup(mlflow: Any, order: Answer) -> Any:
    """A client of the order's server."""
    mlflow.set_tracking_uri(order["url"])
    return mlflow.MlflowClient(order["url"])


def run_of(client: Any) -> str:
    experiment = client.create_experiment(f"client {uuid.uuid4().hex}")
    return str(client.create_run(experiment).info.run_id)


def log_one(client: Any, order: Answer, _gate: Any) -> Answer:
    """One client, one call after the other, up to `count` calls or `seconds`."""
    run, spent = run_of(client), []
    for step in range(5):
        client.log_metric(run, "warm", step, step=step)
    end = time.monotonic() + order["seconds"]
    for step in range(order["count"]):
        start = time.perf_counter()
        client.log_metric(run, "loss", step / 7, step=step)
        spent.append(time.perf_counter() - start)
        if time.monotonic() > end:
            break
    return {"p50_ms": statistics.median(spent) * 1e3, "count": len(spent)}


def repeat(order: Answer, gate: Any, call: Any) -> Answer:
    """Call until the time is over, all copies together; an exception is an error and not a call."""
    gate.wait()
    start = now = time.monotonic()
    count, errors, first = 0, 0, ""
    while now - start < order["seconds"]:
        try:
            call(count)
            count += 1
        except Exception as error:  # noqa: BLE001  # counted, and the first one told
            errors, first = errors + 1, first or str(error)[:200]
        now = time.monotonic()
    return {"per_s": count / (now - start), "count": count, "errors": errors, "first": first}


def log_many(client: Any, order: Answer, gate: Any) -> Answer:
    run = run_of(client)
    client.log_metric(run, "warm", 0.0)
    return repeat(order, gate, lambda step: client.log_metric(run, "loss", step / 7, step=step))


def create_many(client: Any, order: Answer, gate: Any) -> Answer:
    experiment = client.create_experiment(f"client {uuid.uuid4().hex}")
    return repeat(order, gate, lambda number: client.create_run(experiment, run_name=f"run {number}"))


def log_batch(client: Any, order: Answer, _gate: Any) -> Answer:
    """Batches of 1,000 points that are new to the run; the entities are made before the clock starts."""
    metric = importlib.import_module("mlflow.entities").Metric
    run, spent = run_of(client), []
    end = time.monotonic() + order["seconds"]
    for number in range(order["count"]):
        points = [
            metric(f"m{i % 10}", (number * POINTS + i) / 7, 1_700_000_000_000 + i, number * 100 + i // 10)
            for i in range(POINTS)
        ]
        start = time.perf_counter()
        client.log_batch(run, metrics=points)
        spent.append(time.perf_counter() - start)
        if time.monotonic() > end:
            break
    return {"per_s": POINTS / statistics.median(spent), "count": len(spent)}


def search(client: Any, order: Answer, _gate: Any) -> Answer:
    """Each query up to `count` times or until `seconds` are over, after one that warms where time allows."""
    found: Answer = {}
    for query in order["queries"]:
        spent: list[float] = []
        begin = time.monotonic()
        while len(spent) < query["count"] + 1:
            start, token, rows = time.perf_counter(), None, 0
            for _ in range(query["pages"]):
                page = client.search_runs(
                    [order["experiment"]],
                    query["filter"],
                    max_results=100,
                    order_by=query["order"],
                    page_token=token,
                )
                rows, token = rows + len(page), page.token
                if not token:
                    break
            spent.append(time.perf_counter() - start)
            if time.monotonic() - begin > order["seconds"]:
                break
        kept = spent[1:] or spent
        found[query["name"]] = {"p50_ms": statistics.median(kept) * 1e3, "count": len(kept), "rows": rows}
    return found


def artifact(client: Any, order: Answer, _gate: Any) -> Answer:
    """The file up and down again, `count` times; each time its first bytes differ."""
    path, run, up, down = Path(order["file"]), run_of(client), [], []
    size = path.stat().st_size
    for _ in range(order["count"]):
        with path.open("r+b") as file:
            file.write(uuid.uuid4().bytes)
        start = time.perf_counter()
        client.log_artifact(run, str(path))
        up.append(size / 1e6 / (time.perf_counter() - start))
        start = time.perf_counter()
        got = Path(client.download_artifacts(run, path.name, order["folder"]))
        down.append(size / 1e6 / (time.perf_counter() - start))
        with path.open("rb") as sent, got.open("rb") as back:
            if got.stat().st_size != size or sent.read(4096) != back.read(4096):
                raise RuntimeError("the artifact came back different")
        got.unlink()
    return {"up": statistics.median(up), "down": statistics.median(down), "count": len(up)}


def crowd(client: Any, _order: Answer, gate: Any) -> Answer:
    """One person's small training: run, ten metrics, a batch, a parameter, a search, the end."""
    entities = importlib.import_module("mlflow.entities")
    experiment = client.create_experiment(f"crowd {uuid.uuid4().hex}")
    gate.wait()
    start, errors, calls, first = time.monotonic(), 0, 0, ""

    def attempt(call: Any) -> Any:
        nonlocal errors, calls, first
        calls += 1
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # counted, and the first one told
            errors, first = errors + 1, first or str(error)[:200]

    run = attempt(lambda: client.create_run(experiment).info.run_id)
    if run is not None:
        points = [entities.Metric("batched", i / 7, 1, i) for i in range(100)]
        for step in range(10):
            attempt(lambda step=step: client.log_metric(run, "loss", step / 7, step=step))
        attempt(lambda: client.log_batch(run, metrics=points))
        attempt(lambda: client.log_param(run, "lr", 0.1))
        attempt(lambda: client.search_runs([experiment], "metrics.loss > 0", max_results=10))
        attempt(lambda: client.set_terminated(run))
    return {"errors": errors, "count": calls, "wall_s": time.monotonic() - start, "first": first}


TASKS = {
    "log_one": log_one, "log_many": log_many, "create_many": create_many, "log_batch": log_batch,
    "search": search, "artifact": artifact, "crowd": crowd,
}  # fmt: skip


def copy(mlflow: Any, order: Answer, gate: Any, pipe: Any) -> None:
    """One forked copy: does the task, says what came of it."""
    if order.get("no_retries"):
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    try:
        pipe.send(TASKS[order["task"]](setup(mlflow, order), order, gate))
    except Exception as error:  # noqa: BLE001  # the parent tells it
        gate.abort()
        pipe.send({"failed": repr(error)[:500]})


def perform(mlflow: Any, order: Answer) -> list[Answer]:
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(order.get("processes", 1))
    copies = []
    for _ in range(order.get("processes", 1)):
        mine, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=copy, args=(mlflow, order, gate, theirs))
        process.start()
        theirs.close()
        copies.append((process, mine))
    answers = []
    for process, pipe in copies:
        try:
            answers.append(pipe.recv())
        except EOFError:
            answers.append({"failed": "a client process died"})
        process.join()
    return answers


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the client prints is no answer
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", "Versions of mlflow")  # of its halves, see servers.py
    mlflow = importlib.import_module("mlflow")
    importlib.import_module("mlflow.store.artifact.mlflow_artifacts_repo")
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(perform(mlflow, json.loads(line))), file=out, flush=True)


if __name__ == "__main__":
    main()
