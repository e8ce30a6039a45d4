"""Many finished runs of one shape, put as rows into the tables of a tracking server where `search_runs` finds them.

Every run has 4 metrics, 4 parameters and 2 tags; `acc` and `lr` are spread evenly, `model` has 5 values, `team` 4. A
million of them by HTTP would take most of an hour; what is measured is the search, not how they came.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, NamedTuple

START_MS = 1_700_000_000_000
TEAMS = ["red", "green", "blue", "grey"]
AT_ONCE = 20_000
Row = tuple[object, ...]
Insert = Callable[[str, Sequence[str], list[Row]], None]
Ask = Callable[[str], tuple[list[str], list[Row]]]


class FilledRun(NamedTuple):
    """A run as it is inserted."""

    number: int
    id: str
    name: str
    start_ms: int
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


def filled(count: int, seed: int) -> Iterator[list[FilledRun]]:
    """The runs, in parts."""
    rng = random.Random(seed)

    def one(number: int) -> FilledRun:
        acc, loss, lr = rng.random(), rng.random(), rng.random()
        return FilledRun(
            number,
            f"{rng.getrandbits(128):032x}",
            f"run-{number}",
            START_MS + number,
            {"acc": acc, "loss": loss, "auc": (acc + loss) / 2, "seconds": float(number % 977)},
            {"lr": f"{lr:.9f}", "model": f"m{number % 5}", "depth": str(number % 12), "seed": str(number)},
            {"team": TEAMS[number % 7 % 4], "host": f"host-{number % 50}"},
        )

    runs = (one(number) for number in range(count))
    while part := list(islice(runs, AT_ONCE)):
        yield part


# --- MLflow's own tables ---

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


def mlflow(database: str, experiment: str, count: int) -> None:
    """Into MLflow's tables; its server may be running."""
    with opened(database) as (_, insert):
        for runs in filled(count, count):
            for table, rows in mlflow_rows(runs, int(experiment)).items():
                insert(table, COLUMNS[table], rows)


def mlflow_rows(runs: list[FilledRun], experiment: int) -> dict[str, list[Row]]:
    points: list[Row] = [
        (key, value, run.start_ms, run.id, 1, False) for run in runs for key, value in run.metrics.items()
    ]
    return {
        "runs": [
            (run.id, run.name, "LOCAL", "fill.py", "", "me", "FINISHED", run.start_ms, run.start_ms + 1000, "",
             "active", f"mlflow-artifacts:/{experiment}/{run.id}/artifacts", experiment)
            for run in runs
        ],
        "metrics": points,
        "latest_metrics": points,
        "params": [(key, value, run.id) for run in runs for key, value in run.params.items()],
        "tags": [
            (key, value, run.id)
            for run in runs
            for key, value in {**run.tags, "mlflow.runName": run.name}.items()
        ],
    }  # fmt: skip


# --- Andon's own tables ---

LABEL = ["scope", "owner", "key", "head", "tail", "rank"]


def andon(database: str, experiment: str, count: int) -> None:
    """Into Andon's tables, as copies of the one run that the experiment has; its server may be running.

    Raises:
        RuntimeError: the experiment does not hold exactly one run.
    """
    with opened(database) as (ask, insert):
        columns, found = ask(f"SELECT * FROM runs WHERE experiment = '{experiment}'")
        if len(found) != 1:
            raise RuntimeError(
                f"experiment {experiment!r} holds {len(found)} runs in place of the one to copy"
            )
        model = dict(zip(columns, found[0], strict=True))
        _, ((last,),) = ask("SELECT max(number) FROM runs")
        first = int(str(last)) + 1
        for runs in filled(count, count):
            insert("runs", columns, [copied(model, run, first + run.number) for run in runs])
            for table, (names, rows) in andon_rows(runs, experiment, first).items():
                insert(table, names, rows)
        ask(f"UPDATE counters SET value = {first + count} WHERE name = 'run' RETURNING value")


def copied(model: dict[str, Any], run: FilledRun, number: int) -> Row:
    """The row of a run. It has a seal, lest a server that seals what is finished would be busy for hours."""
    at = run.start_ms * 1000
    return tuple({
        **model, "id": run.id, "number": number, "name": run.name, "state": "finished", "created_at": at,
        "started_at": at, "finished_at": at + 1_000_000, "seal": "0" * 64, "seals": 1,
    }.values())  # fmt: skip


def andon_rows(runs: list[FilledRun], scope: str, first: int) -> dict[str, tuple[list[str], list[Row]]]:
    def labels(of: Callable[[FilledRun], dict[str, str]]) -> tuple[list[str], list[Row]]:
        return LABEL, [
            (scope, first + run.number, key, text, None, -run.start_ms)
            for run in runs
            for key, text in of(run).items()
        ]

    points: list[Row] = [
        (first + run.number, key, 1, run.start_ms, False, value)
        for run in runs
        for key, value in sorted(run.metrics.items())
    ]
    point = ["owner", "key", "step", "at_ms", "nan", "value"]
    ranked: list[Row] = [(scope, *row, -row[3]) for row in points]  # type: ignore[operator]
    return {
        "metrics": (point, points),
        "latest_metrics": (["scope", *point, "rank"], ranked),
        "params": labels(lambda run: run.params),
        "run_tags": labels(lambda run: run.tags),
    }


# --- both databases ---


@contextmanager
def opened(database: str) -> Iterator[tuple[Ask, Insert]]:
    """How to ask and fill the database at a path or a postgresql:// address; all is committed at the end."""
    with _postgres(database) if database.startswith("postgresql://") else _sqlite(database) as both:
        yield both


@contextmanager
def _sqlite(path: str) -> Iterator[tuple[Ask, Insert]]:
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        connection.execute("PRAGMA cache_size = -1500000")
        connection.execute("PRAGMA synchronous = OFF")

        def ask(statement: str) -> tuple[list[str], list[Row]]:
            cursor = connection.execute(statement)
            return [column[0] for column in cursor.description], cursor.fetchall()

        def insert(table: str, columns: Sequence[str], rows: list[Row]) -> None:
            marks = ",".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} ({_names(columns)}) VALUES ({marks})", rows)
            connection.commit()

        yield ask, insert
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _postgres(url: str) -> Iterator[tuple[Ask, Insert]]:
    import psycopg

    with psycopg.connect(url) as connection, connection.cursor() as cursor:

        def ask(statement: str) -> tuple[list[str], list[Row]]:
            cursor.execute(statement)
            return [column.name for column in cursor.description or ()], list(cursor.fetchall())

        def insert(table: str, columns: Sequence[str], rows: list[Row]) -> None:
            with cursor.copy(f"COPY {table} ({_names(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)

        yield ask, insert
        connection.commit()
        cursor.execute("ANALYZE")  # what autovacuum would do within a minute


def _names(columns: Sequence[str]) -> str:
    return ",".join(f'"{column}"' for column in columns)
