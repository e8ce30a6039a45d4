"""`andon import mlflow`: a store of MLflow comes over whole, once, and from nowhere but where it was said to be."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from andon.core.entities import Experiment, Model, Point
from andon.core.errors import AlreadyExists, Invalid, SourceError
from andon.core.tree import decode_tree
from andon.core.workspace import Layout, Settings
from andon.pipelines.workspace import OpenWorkspace
from andon.tracking.moving import open_foreign
from andon.tracking.moving.importing import ImportReport, import_mlflow
from andon.tracking.runs import create_run
from tests.tracking import moved

STORES: dict[str, Callable[[Path], str]] = {"database": moved.database, "folder": moved.folder_store}


@pytest.fixture(params=["sqlite", "postgres"])
def ws(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenWorkspace]:
    """An empty workspace on either database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with OpenWorkspace(Layout(tmp_path / "here" / ".andon"), Settings(database_url=url)) as opened:
        yield opened


@pytest.fixture
def here(tmp_path: Path) -> Iterator[OpenWorkspace]:
    """An empty workspace on SQLite."""
    with OpenWorkspace(Layout(tmp_path / "here" / ".andon")) as opened:
        yield opened


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder of a foreign store."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


def bring(ws: OpenWorkspace, address: str, *artifacts: Path, **options: Any) -> ImportReport:
    """Import an address."""
    source = open_foreign(address)
    try:
        return import_mlflow(
            ws.store, ws.blobs, source, actor=ws.actor().id, clock=ws.clock, artifacts=artifacts, **options
        )
    finally:
        source.close()


def change(there: Path, *statements: str) -> None:
    """Change the recorded database by SQL."""
    with sqlite3.connect(there / "mlflow.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def counted(report: ImportReport) -> dict[str, tuple[int, int | None]]:
    """What is in the source and what is here, by noun."""
    return {one.noun: (one.source, one.here) for one in report.compared}


def files_of(ws: OpenWorkspace) -> dict[str, bytes]:
    """Every artifact's bytes by its path, without the ids in it."""
    rows = ws.store.read(lambda reader: reader.files.under(""))
    return {row.id: ws.blobs.get(row.digest) for row in rows}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.capability("E1")
def test_a_store_comes_over_whole_with_its_ids(ws: OpenWorkspace, there: Path, kind: str) -> None:
    report = bring(ws, STORES[kind](there), there / "artifacts")

    assert moved.told_here(ws.store) == moved.recorded(kind, there)
    assert (report.same, report.left_out, report.artifacts) == (True, (), 7)


def test_a_line_that_mlflow_wrote_twice_is_one_point(here: OpenWorkspace, there: Path) -> None:
    address = moved.folder_store(there)
    files = [file for file in (there / "mlruns").glob("*/*/metrics/auc") if file.parts[-4] != "models"]
    for file in files:
        file.write_text(file.read_text() + file.read_text())

    report = bring(here, address, there / "artifacts")

    assert len(files) == 3
    assert report.same
    assert counted(report)["points"] == (11, 11)


def test_a_point_that_a_copied_table_has_twice_is_one(ws: OpenWorkspace, there: Path) -> None:
    address = moved.database(there)
    _without(there, "metrics", "no such column")
    change(there, "INSERT INTO metrics SELECT * FROM metrics")

    report = bring(ws, address, there / "artifacts")

    assert report.same
    assert counted(report)["points"] == (11, 11)


def test_what_has_no_place_here_is_counted_and_said(here: OpenWorkspace, there: Path) -> None:
    address = moved.database(there)
    change(
        there, "CREATE TABLE trace_info (request_id TEXT)", "INSERT INTO trace_info VALUES ('a'), ('b')",
        "CREATE TABLE webhooks (webhook_id TEXT)", "INSERT INTO webhooks VALUES ('w')", "CREATE TABLE scorers (scorer_id TEXT)",
    )  # fmt: skip

    report = bring(here, address, there / "artifacts")

    assert report.left_out == (
        "2 traces: there is no place for them here",
        "1 webhooks: there is no place for them here",
    )
    assert (report.left_out_count, report.same) == (2, True)


def test_traces_in_a_folder_are_counted_and_said(here: OpenWorkspace, there: Path) -> None:
    address = moved.folder_store(there)
    home = there / "mlruns" / _only(there / "mlruns", "churn") / "traces" / "tr-1"
    home.mkdir(parents=True)
    (home / "trace_info.yaml").write_text("trace_id: tr-1\n")

    report = bring(here, address, there / "artifacts", dry_run=True)

    assert report.left_out == ("1 traces: there is no place for them here",)


@pytest.mark.parametrize("kind", STORES)
def test_artifacts_and_versions_are_held_by_content(here: OpenWorkspace, there: Path, kind: str) -> None:
    bring(here, STORES[kind](there), there / "artifacts")

    files = files_of(here)
    assert sorted(path.split("/artifacts/")[1] for path in files) == [
        "MLmodel", "a.json", "data/weights.txt", "model/MLmodel", "model/data/weights.txt", "notes/größe.txt",
        "notes/read me.txt",
    ]  # fmt: skip
    assert next(text for path, text in files.items() if path.endswith("read me.txt")) == b"hello"
    versions = here.store.read(
        lambda reader: reader.model_versions.select({"model": "churn"}, order=("number",))
    )
    assert [(version.held, version.deleted_at is not None) for version in versions] == [
        (True, False), (True, False), (False, False), (False, True),
    ]  # fmt: skip
    tree = decode_tree(here.blobs.get(versions[0].digest))
    assert {path: here.blobs.get(leaf.digest) for path, leaf in tree.files.items()} == {
        "MLmodel": b"flavors: {}\n", "data/weights.txt": b"1 2 3\n",
    }  # fmt: skip
    assert (
        versions[1].source
        == f"mlflow-artifacts:/{_experiment(here)}/models/{versions[1].logged_model}/artifacts"
    )
    assert versions[2].source == "s3://bucket/models/other"


def _experiment(ws: OpenWorkspace) -> str:
    return ws.store.read(lambda reader: reader.experiments.select({"name": "churn"})[0].id)


def test_the_importer_is_on_record_and_the_client_s_user_stays_a_claim(
    here: OpenWorkspace, there: Path
) -> None:
    bring(here, moved.database(there), there / "artifacts")

    events = here.store.read(lambda reader: reader.ledger.after(0, limit=1000, kinds=["run.created"]))
    assert len(events) == 9
    assert {event.facts["imported"] for event in events} == {"mlflow"}
    assert {event.actor for event in events} == {here.actor().id}
    runs = here.store.read(lambda reader: reader.runs.select())
    assert {run.claimed_user for run in runs} >= {"unknown"}
    assert {run.actor for run in runs} == {here.actor().id}


@pytest.mark.parametrize("kind", STORES)
def test_a_second_import_changes_nothing(ws: OpenWorkspace, there: Path, kind: str) -> None:
    address = STORES[kind](there)
    bring(ws, address, there / "artifacts")
    head = ws.store.read(lambda reader: reader.ledger.head())

    report = bring(ws, address, there / "artifacts")

    assert moved.told_here(ws.store) == moved.recorded(kind, there)
    assert ws.store.read(lambda reader: reader.ledger.head()) == head
    assert (report.same, report.artifacts) == (True, 0)


def test_a_run_that_had_not_ended_is_brought_up_to_date(here: OpenWorkspace, there: Path) -> None:
    address = moved.database(there)
    bring(here, address, there / "artifacts")
    change(
        there,
        "UPDATE runs SET status = 'FINISHED', end_time = 1800000000000 WHERE name = 'running'",
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
        "SELECT 'auc', 0.2, 1800000000000, run_uuid, 1, 0 FROM runs WHERE name = 'running'",
    )

    bring(here, address, there / "artifacts")

    run = here.store.read(lambda reader: reader.runs.select({"name": "running"})[0])
    assert run.state == "finished"
    history = here.store.read(lambda reader: reader.metrics.history(run, "auc"))
    assert [point.value for point in history] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("table", "column"),
    [("runs", "deleted_time"), ("experiments", "creation_time"), ("model_versions", "storage_location"),
     ("model_versions", "run_link"), ("metrics", "is_nan"), ("inputs", "step"), ("experiments", "workspace")],
)  # fmt: skip
def test_a_column_that_an_older_mlflow_did_not_have_is_not_missed(
    here: OpenWorkspace, there: Path, table: str, column: str
) -> None:
    address = moved.database(there)
    _without(there, table, column)

    report = bring(here, address, there / "artifacts")

    assert report.same
    counts = {one.noun: one.here for one in report.compared}
    assert (counts["experiments"], counts["runs"], counts["points"], counts["versions"]) == (4, 9, 11, 6)


def test_tables_that_an_older_mlflow_did_not_have_are_not_missed(here: OpenWorkspace, there: Path) -> None:
    address = moved.database(there)
    gone = (
        "logged_model",
        "input",
        "datasets",
        "registered_model",
        "model_version",
        "experiment_tags",
        "latest_metrics",
    )
    with sqlite3.connect(there / "mlflow.db") as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for name in names:
            if name.startswith(gone):
                connection.execute(f"DROP TABLE {name}")
    connection.close()

    report = bring(here, address, there / "artifacts")

    assert report.same
    counts = {one.noun: one.here for one in report.compared if one.here}
    assert counts == {"experiments": 4, "runs": 9, "params": 4, "tags": 18, "points": 11, "latest_metrics": 6}


def _without(there: Path, table: str, column: str) -> None:
    """Make a table anew without a column."""
    with sqlite3.connect(there / "mlflow.db") as connection:
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != column]
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(f"CREATE TABLE fresh AS SELECT {', '.join(names)} FROM {table}")
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"ALTER TABLE fresh RENAME TO {table}")
    connection.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [("UPDATE experiments SET experiment_id = 7 WHERE name = 'given up'", "experiment 7"),
     ("UPDATE experiments SET name = 'taken' WHERE name = 'given up'", "an experiment named 'taken'"),
     ("UPDATE runs SET run_uuid = 'ab' WHERE name = 'lost'", "run ab"),
     ("UPDATE registered_models SET name = 'mine' WHERE name = 'empty'", "a model named 'mine'")],
)  # fmt: skip
def test_a_taken_id_or_name_stops_it_before_anything_is_written(
    here: OpenWorkspace, there: Path, statement: str, said: str
) -> None:
    actor, at = here.actor().id, here.clock.now()

    def occupy(tx: Any) -> None:
        tx.experiments.add(
            Experiment(id="7", number=7, name="taken", actor=actor, created_at=at, changed_at=at)
        )
        create_run(tx, "7", actor=actor, at=at, name="r", tags={}, ident="ab")
        tx.models.add(Model(id="mine", actor=actor, created_at=at, changed_at=at))

    here.store.write(occupy)
    address = moved.database(there)
    change(there, statement)
    before = moved.told_here(here.store), here.store.read(lambda reader: reader.ledger.head())

    with pytest.raises(AlreadyExists, match=said):
        bring(here, address, there / "artifacts")

    assert (moved.told_here(here.store), here.store.read(lambda reader: reader.ledger.head())) == before


def test_the_default_experiment_is_merged_only_while_ours_is_empty(here: OpenWorkspace, there: Path) -> None:
    here.store.write(
        lambda tx: (
            create_run(tx, "0", actor=here_actor, at=here.clock.now(), name="mine", tags={})
            if (here_actor := tx.actors.select(limit=1)[0].id)
            else None
        )
    )

    with pytest.raises(AlreadyExists, match="experiment 0"):
        bring(here, moved.database(there), there / "artifacts")


def test_new_experiments_get_ids_above_those_that_came_over(here: OpenWorkspace, there: Path) -> None:
    bring(here, moved.database(there), there / "artifacts")

    assert here.store.write(lambda tx: tx.counters.next("experiment")) == 4


def test_a_dry_run_counts_and_writes_nothing(here: OpenWorkspace, there: Path) -> None:
    head = here.store.read(lambda reader: reader.ledger.head())
    here.actor()

    report = bring(here, moved.database(there), there / "artifacts", dry_run=True)

    assert {one.noun: one.source for one in report.compared}["runs"] == 9
    assert here.store.read(lambda reader: reader.runs.count()) == 0
    assert here.store.read(lambda reader: reader.ledger.head())[0] <= head[0] + 1


# --- where files may come from ---


def test_files_are_taken_from_named_folders_only(here: OpenWorkspace, there: Path) -> None:
    with pytest.raises(Invalid, match="--artifacts"):
        bring(here, moved.database(there))

    assert bring(here, f"sqlite:///{there}/mlflow.db", with_artifacts=False).artifacts == 0
    assert files_of(here) == {}


def test_a_store_that_points_at_somebody_s_files_gets_none_of_them(here: OpenWorkspace, there: Path) -> None:
    secret = there.parent / "secret"
    secret.mkdir()
    (secret / "key").write_text("private")
    (there / "inside").mkdir()
    (there / "inside" / "link").symlink_to(secret / "key")
    address = moved.database(there)
    change(
        there,
        f"UPDATE runs SET artifact_uri = '{secret}' WHERE name = 'failed'",
        f"UPDATE runs SET artifact_uri = '{there}/artifacts/../../secret' WHERE name = 'killed'",
        f"UPDATE runs SET artifact_uri = 'file://{there}/inside' WHERE name = 'child'",
        f"UPDATE model_versions SET source = '{secret}', storage_location = '{secret}' WHERE name = 'churn' AND version = 1",
    )

    report = bring(here, address, there / "artifacts", there / "inside")

    assert b"private" not in [here.blobs.get(digest) for digest in here.blobs.digests()]
    assert report.left_out_count == 4
    assert sum("in no folder that was named" in text for text in report.left_out) == 3
    assert sum("is a link" in text for text in report.left_out) == 1


def test_artifacts_behind_a_server_are_found_in_its_folder(here: OpenWorkspace, there: Path) -> None:
    address = moved.database(there)
    served = f"replace({{}}, 'file://{there}/artifacts', 'mlflow-artifacts:')"
    change(
        there,
        f"UPDATE experiments SET artifact_location = {served.format('artifact_location')}",
        f"UPDATE runs SET artifact_uri = {served.format('artifact_uri')}",
    )
    with pytest.raises(Invalid, match="behind the server"):
        bring(here, address)

    bring(here, address, there / "artifacts")

    assert sum("notes/read me.txt" in path for path in files_of(here)) == 1


def test_artifacts_that_were_moved_are_found_by_their_ids(here: OpenWorkspace, there: Path) -> None:
    address = moved.folder_store(there)
    (there / "artifacts" / "churn").rename(there / "artifacts" / _only(there / "mlruns", "churn"))
    (there / "artifacts").rename(there / "elsewhere")

    report = bring(here, address, there / "elsewhere")

    assert report.artifacts == 7


def _only(mlruns: Path, name: str) -> str:
    return next(
        file.parent.name for file in mlruns.glob("*/meta.yaml") if f"name: {name}\n" in file.read_text()
    )


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [("sqlite:///nothing.db", SourceError, "there is no file"), ("nothing", SourceError, "there is no folder"),
     ("mysql://ann:secret@host/db", Invalid, "mysql://"), ("sqlite:///text.db", SourceError, "cannot be read"),
     ("sqlite:///other.db", Invalid, "no table"), ("empty", Invalid, "no MLflow store"),
     ("text.db", Invalid, "sqlite:///"),
     ("postgresql://ann:secret@127.0.0.1:1/db", SourceError, "does not answer")],
)  # fmt: skip
def test_what_is_no_store_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, error: type[Exception], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("no database " * 100)
    (tmp_path / "empty").mkdir()
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()

    with pytest.raises(error, match=said) as caught:
        open_foreign(address)

    assert "secret" not in str(caught.value)


# --- big and interrupted ---


def many(there: Path, *, runs: int, points: int) -> str:
    """The recorded database with many runs more; its address."""
    address = moved.database(there)
    with sqlite3.connect(there / "mlflow.db") as connection:
        for number in range(runs):
            ident = f"{number:032x}"
            connection.execute(
                "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri, "
                f"experiment_id) VALUES ('{ident}', 'bulk', 'u', 'FINISHED', 1, 2, 'active', 's3://b/{ident}', 2)"
            )
            connection.execute(f"INSERT INTO params VALUES ('p', '{number}', '{ident}')")
            connection.executemany(
                "INSERT INTO metrics VALUES ('m', ?, ?, ?, ?, 0)",
                [(step / 7, step, ident, step) for step in range(points)],
            )
    connection.close()
    return address


_KILLED = """
import os, signal, sys
from pathlib import Path
from andon.core.workspace import Layout
from andon.pipelines.workspace import OpenWorkspace
from andon.tracking.moving import open_foreign
from andon.tracking.moving.importing import import_mlflow

home, address, artifacts, after = sys.argv[1:]
ws = OpenWorkspace(Layout(Path(home)))
commits = 0
submit = ws.store.submit

def counted(work):
    global commits
    done = submit(work)
    commits += 1
    if commits == int(after):
        if commits % 2:
            done.result()
        os.kill(os.getpid(), signal.SIGKILL)
    return done

ws.store.submit = counted
import_mlflow(ws.store, ws.blobs, open_foreign(address), actor=ws.actor().id, clock=ws.clock, artifacts=[Path(artifacts)])
print("whole")
"""


def test_an_import_that_is_killed_again_and_again_ends_with_everything_once(
    tmp_path: Path, there: Path
) -> None:
    address = many(there, runs=12, points=4500)
    layout = Layout(tmp_path / "here" / ".andon").create()
    command = [sys.executable, "-c", _KILLED, str(layout.root), address, str(there / "artifacts")]

    kills = 0
    for after in (1, 2, 3, 5, 4, 6, 9, 10_000):
        done = subprocess.run(
            [*command, str(after)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
        kills += done.returncode != 0

    with OpenWorkspace(layout) as ws:
        report = bring(ws, address, there / "artifacts")
        created = ws.store.read(lambda reader: reader.ledger.after(0, limit=1000, kinds=["run.created"]))
        rows = ws.store.read(lambda reader: reader.runs.select())
    assert kills == 7
    assert report.same
    assert {one.noun: one.here for one in report.compared} == {
        one.noun: one.source for one in report.compared
    }
    assert len(created) == len({event.subject for event in created}) == 21
    assert sorted(row.number for row in rows) == list(range(1, 22))


def test_points_of_a_long_history_are_all_there_in_order(ws: OpenWorkspace, there: Path) -> None:
    bring(ws, many(there, runs=1, points=30_000), there / "artifacts")

    run = ws.store.read(lambda reader: reader.runs.get("0" * 32))
    first = ws.store.read(lambda reader: reader.metrics.history(run, "m", limit=2))
    assert first == [Point("m", 0.0, 0, 0), Point("m", 1 / 7, 1, 1)]
    assert ws.store.read(lambda reader: reader.metrics.latest([run])[run.number]["m"].step) == 29_999


# --- the command ---


def andon(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "andon", *words], env={**os.environ, "ANDON_HOME": str(home)}, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_imports_and_says_what_is_here(tmp_path: Path, there: Path) -> None:
    home = Layout(tmp_path / "here" / ".andon").create().root
    address = moved.database(there)

    refused = andon(home, "import", "mlflow", address, "--json")
    dry = andon(home, "import", "mlflow", address, "--artifacts", str(there / "artifacts"), "--dry-run")
    done = andon(home, "import", "mlflow", address, "--artifacts", str(there / "artifacts"), "--json")

    assert (refused.returncode, json.loads(refused.stdout)["error_code"]) == (2, "INVALID_PARAMETER_VALUE")
    assert (dry.returncode, "runs: 9\n" in dry.stdout) == (0, True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["same"], said["artifacts"]) == (True, 7)
    assert {"noun": "runs", "source": 9, "here": 9} in said["compared"]


def test_the_command_makes_a_fresh_workspace_where_there_is_none(tmp_path: Path, there: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "ANDON_HOME"}
    command = [sys.executable, "-m", "andon", "import", "mlflow", moved.database(there), "--no-artifacts"]
    for extra, made in (([], tmp_path), (["--workspace", str(tmp_path / "fresh")], tmp_path / "fresh")):
        done = subprocess.run(
            [*command, *extra],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

        assert done.returncode == 0, done.stderr
        with OpenWorkspace(Layout(made / ".andon")) as ws:
            assert ws.store.read(lambda reader: reader.runs.count()) == 9
