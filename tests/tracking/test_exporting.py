"""`andon export mlflow`: what leaves is a store that stock MLflow opens, and that comes back as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from andon.core.canonical import digest_bytes
from andon.core.entities import Artifact
from andon.core.errors import Conflict, Corrupt, Invalid
from andon.core.workspace import Layout, Settings
from andon.pipelines.exporting import export_store
from andon.pipelines.workspace import OpenWorkspace
from andon.store.blobs import storage_key
from andon.tracking.moving import open_foreign
from andon.tracking.moving.importing import ImportReport, import_mlflow
from tests.tracking import moved
from tests.tracking.mlflow_store.record import HERE, QUIET, made
from tests.wire import clients


def bring(ws: OpenWorkspace, address: str, *artifacts: Path) -> ImportReport:
    source = open_foreign(address)
    try:
        return import_mlflow(
            ws.store, ws.blobs, source, actor=ws.actor().id, clock=ws.clock, artifacts=artifacts
        )
    finally:
        source.close()


@pytest.fixture(params=["sqlite", "postgres"])
def ws(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenWorkspace]:
    """A workspace on either database, with the recorded store in it."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with OpenWorkspace(Layout(tmp_path / "here" / ".andon"), Settings(database_url=url)) as opened:
        _fill(opened, tmp_path)
        yield opened


@pytest.fixture
def here(tmp_path: Path) -> Iterator[OpenWorkspace]:
    """A workspace on SQLite, with the recorded store in it."""
    with OpenWorkspace(Layout(tmp_path / "here" / ".andon")) as opened:
        _fill(opened, tmp_path)
        yield opened


def _fill(ws: OpenWorkspace, folder: Path) -> None:
    there = folder / "there"
    there.mkdir()
    bring(ws, moved.database(there), there / "artifacts")


def contents(ws: OpenWorkspace) -> dict[str, Any]:
    """Artifacts by path, and of each version whether it is held, and its digest if it is."""

    def look(reader: Any) -> dict[str, Any]:
        versions = reader.model_versions.select()
        return {
            **{row.id: row.digest for row in reader.files.under("")},
            **{
                f"{row.model}/{row.number}": (row.held, row.held and row.digest, row.logged_model)
                for row in versions
            },
        }

    return ws.store.read(look)


@pytest.mark.capability("E1")
def test_what_was_exported_comes_back_as_it_was(ws: OpenWorkspace, tmp_path: Path) -> None:
    report = export_store(ws.store, ws.blobs, tmp_path / "out")

    with OpenWorkspace(Layout(tmp_path / "again" / ".andon")) as again:
        back = bring(again, report.tracking_uri, tmp_path / "out/artifacts")
        assert back.same
        assert back.left_out == ()
        assert moved.told_here(again.store) == moved.told_here(ws.store)
        assert contents(again) == contents(ws)
    assert (report.files, report.rows["runs"], report.rows["metrics"]) == (7, 9, 11)


_LOADS = """
import json, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_registry_uri(sys.argv[1])
client = mlflow.MlflowClient()
runs = client.search_runs([client.get_experiment_by_name("churn").experiment_id])
run = next(run for run in runs if run.info.run_name == "parent")
note = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/read me.txt")
weights = [
    open(mlflow.artifacts.download_artifacts(f"models:/churn/{which}/data/weights.txt")).read() for which in ("1", "2")
]
live = mlflow.artifacts.download_artifacts("models:/churn@champion")
print(json.dumps([note, weights, open(live + "/MLmodel").read()]))
"""


def stock(folder: Path, *words: str | Path) -> Any:
    """What an interpreter that has stock MLflow prints last."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")},
        **QUIET,
    }
    done = subprocess.run(
        [clients.python("store"), "-W", "ignore", *words], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_stock_mlflow_sees_the_same_and_loads_files_and_models(here: OpenWorkspace, tmp_path: Path) -> None:
    report = export_store(here.store, here.blobs, tmp_path / "out")

    told = stock(tmp_path, HERE / "tell.py", report.tracking_uri)
    loaded = stock(tmp_path, "-c", _LOADS, report.tracking_uri)

    assert moved.plain(told) == moved.recorded("database", tmp_path / "there")
    assert loaded == ["hello", ["1 2 3\n", "1 2 3\n"], "flavors: {}\n"]


def test_a_store_made_just_now_by_the_real_client_goes_there_and_back(
    tmp_path: Path, postgres_url: str
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    told = made(postgres_url.replace("postgresql://", "postgresql+psycopg://"), there, "20", "2000")

    with OpenWorkspace(Layout(tmp_path / "here" / ".andon")) as ws:
        report = bring(ws, postgres_url, there / "artifacts")
        here = moved.told_here(ws.store)
        out = export_store(ws.store, ws.blobs, tmp_path / "out")

    assert report.same
    assert here == moved.plain(told)
    assert moved.plain(stock(tmp_path, HERE / "tell.py", out.tracking_uri)) == here


# --- faults ---


def test_it_goes_into_an_empty_folder_only(here: OpenWorkspace, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    (tmp_path / "mine2/artifacts").mkdir(parents=True)

    for name in ("mine", "mine2"):
        with pytest.raises(Conflict, match="name an empty folder"):
            export_store(here.store, here.blobs, tmp_path / name)
    export_store(here.store, here.blobs, tmp_path / "out")
    with pytest.raises(Conflict):
        export_store(here.store, here.blobs, tmp_path / "out")

    assert (tmp_path / "mine/letter.txt").read_text() == "dear"


def test_a_damaged_file_is_not_exported_and_nothing_there_is_a_store(
    here: OpenWorkspace, tmp_path: Path
) -> None:
    path = here.layout.blobs / storage_key(digest_bytes(b"hello"))
    path.chmod(0o600)
    path.write_bytes(b"jello")

    with pytest.raises(Corrupt):
        export_store(here.store, here.blobs, tmp_path / "out")

    assert not (tmp_path / "out/mlflow.db").exists()


def test_a_planted_name_leads_out_of_no_folder(here: OpenWorkspace, tmp_path: Path) -> None:
    row = Artifact(
        id="0/../../../planted", digest=digest_bytes(b"hello"), size_bytes=5, actor=here.actor().id,
        changed_at=here.clock.now(),
    )  # fmt: skip
    here.store.write(lambda tx: tx.artifacts.add(row))

    with pytest.raises(Invalid, match="leads out"):
        export_store(here.store, here.blobs, tmp_path / "out")

    assert not list(tmp_path.rglob("planted"))


_KILLED = """
import os, signal, sys
from pathlib import Path
from andon.core.workspace import Layout
from andon.pipelines.exporting import export_store
from andon.pipelines.workspace import OpenWorkspace

ws = OpenWorkspace(Layout(Path(sys.argv[1])))
chunks = ws.blobs.chunks

def killing(digest):
    os.kill(os.getpid(), signal.SIGKILL)

ws.blobs.chunks = killing
export_store(ws.store, ws.blobs, Path(sys.argv[2]))
"""


def test_an_export_that_was_killed_is_done_again(here: OpenWorkspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", _KILLED, str(here.layout.root), str(out)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (out / "mlflow.db").exists()
    report = export_store(here.store, here.blobs, out)

    assert sorted(path.name for path in out.iterdir()) == ["artifacts", "mlflow.db"]
    assert report.rows["runs"] == 9


def test_the_command_writes_a_store_for_a_server_of_its_files(here: OpenWorkspace, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "andon", "export", "mlflow", str(tmp_path / "out"), "--json"]
    environment = {**os.environ, "ANDON_HOME": str(here.layout.root)}

    done = subprocess.run(
        [*command, "--artifact-root", "mlflow-artifacts:/"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["rows"]["runs"], said["files"]) == (9, 7)
    assert (again.returncode, json.loads(again.stdout)["error_code"]) == (8, "RESOURCE_CONFLICT")
    with OpenWorkspace(Layout(tmp_path / "again" / ".andon")) as ws:
        shutil.move(tmp_path / "out/artifacts", tmp_path / "destination")
        assert bring(ws, said["tracking_uri"], tmp_path / "destination").artifacts == 7
