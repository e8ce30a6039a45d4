"""Many finished runs of one shape, put where `search_runs` is to find them: as rows of MLflow's own tables, or by HTTP.

Every run has 4 metrics, 4 parameters and 2 tags; `acc` and `lr` are spread evenly, `model` has 5 values, `team` 4.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from benchmarks.wire.raw import Lane, new_experiment, post

START = 1_700_000_000_000
TEAMS = ["red", "green", "blue", "grey"]
FILLERS = 2
Row = tuple[object, ...]


class FilledRun(NamedTuple):
    """A run as it is inserted."""

    id: str
    name: str
    start: int
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


def filled(count: int, seed: int = 7) -> Iterator[FilledRun]:
    rng = random.Random(seed)
    for number in range(count):
        acc, loss, lr = rng.random(), rng.random(), rng.random()
        yield FilledRun(
            f"{rng.getrandbits(128):032x}",
            f"run-{number}",
            START + number,
            {"acc": acc, "loss": loss, "auc": (acc + loss) / 2, "seconds": float(number % 977)},
            {"lr": f"{lr:.9f}", "model": f"m{number % 5}", "depth": str(number % 12), "seed": str(number)},
            {"team": TEAMS[number % 7 % 4], "mlflow.runName": f"run-{number}"},
        )


def rows(runs: list[FilledRun], experiment: int) -> dict[str, list[Row]]:
    """The rows of MLflow's tables, in the order of `COLUMNS`."""
    metrics = [
        (key, value, run.start, run.id, 1, False) for run in runs for key, value in run.metrics.items()
    ]
    return {
        "runs": [
            (run.id, run.name, "LOCAL", "fill.py", "", "me", "FINISHED", run.start, run.start + 1000, "", "active",
             f"mlflow-artifacts:/{experiment}/{run.id}/artifacts", experiment)
            for run in runs
        ],
        "metrics": list(metrics),
        "latest_metrics": list(metrics),
        "params": [(key, value, run.id) for run in runs for key, value in run.params.items()],
        "tags": [(key, value, run.id) for run in runs for key, value in run.tags.items()],
    }  # fmt: skip


METRIC = ["key", "value", "timestamp", "run_uuid", "step", "is_nan"]
COLUMNS = {
    "runs": [
        "run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time",
        "end_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id",
    ],
    "metrics": METRIC,
    "latest_metrics": METRIC,
    "params": ["key", "value", "run_uuid"],
    "tags": ["key", "value", "run_uuid"],
}  # fmt: skip


def parts(runs: Iterator[FilledRun], size: int) -> Iterator[list[FilledRun]]:
    while part := list(islice(runs, size)):
        yield part


def sqlite(path: str, experiment: str, count: int) -> None:
    """Into the tables of MLflow's SQLite file; its server may be running."""
    with sqlite3.connect(path, timeout=60) as connection:
        for part in parts(filled(count), 20_000):
            for table, lines in rows(part, int(experiment)).items():
                columns = COLUMNS[table]
                marks = ",".join("?" * len(columns))
                connection.executemany(f"INSERT INTO {table} ({','.join(columns)}) VALUES ({marks})", lines)
    connection.close()


def postgres(url: str, experiment: str, count: int) -> None:
    """Into MLflow's tables in Postgres, by COPY."""
    import psycopg

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for part in parts(filled(count), 20_000):
            for table, lines in rows(part, int(experiment)).items():
                with cursor.copy(f"COPY {table} ({','.join(COLUMNS[table])}) FROM STDIN") as copy:
                    for line in lines:
                        copy.write_row(line)


def over_http(url: str, experiment: str, runs: Iterator[FilledRun]) -> None:
    """By three calls for each run, over one connection.

    Raises:
        RuntimeError: an answer is not a 200.
    """
    lane = Lane(url)
    for run in runs:
        tags = [{"key": key, "value": value} for key, value in run.tags.items()]
        body = {"experiment_id": experiment, "run_name": run.name, "start_time": run.start, "user_id": "me"}
        made = lane.ask(post("/runs/create", {**body, "tags": tags}))
        at = made.find(b'"run_id"')
        run_id = made[made.find(b'"', at + 8) + 1 :][:32].decode()
        points = [
            {"key": key, "value": value, "timestamp": run.start, "step": 1}
            for key, value in run.metrics.items()
        ]
        params = [{"key": key, "value": value} for key, value in run.params.items()]
        lane.ask(post("/runs/log-batch", {"run_id": run_id, "metrics": points, "params": params}))
        lane.ask(post("/runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": run.start + 1000}))


def server(url: str, count: int) -> str:
    """Fill a server by HTTP from several processes, each with some connections' worth of runs; gives the experiment."""
    experiment = new_experiment(Lane(url))
    command = [sys.executable, "-m", "benchmarks.wire.fill", url, experiment, str(count)]
    fillers = [subprocess.Popen([*command, str(number)]) for number in range(FILLERS)]
    codes = [filler.wait() for filler in fillers]
    if any(codes):
        raise RuntimeError("the server could not be filled by HTTP")
    return experiment


def main(arguments: list[str]) -> None:
    """One filler of `FILLERS`: every run whose number it shares, by several threads as the server groups commits."""
    from concurrent.futures import ThreadPoolExecutor

    url, experiment, count, mine = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
    runs = list(islice(filled(count), mine, None, FILLERS))
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(over_http, url, experiment, iter(runs[lane::8])) for lane in range(8)]:
            done.result()


if __name__ == "__main__":
    main(sys.argv[1:])
