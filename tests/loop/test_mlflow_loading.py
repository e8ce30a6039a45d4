"""A model that a line made is loaded by MLflow's own client, and answers what it answered when it was built."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, cast

import pytest

import andon
from tests.loop.conftest import Project
from tests.web.conftest import Control, serving
from tests.web.world import World
from tests.wire import clients

CLIENT = Path(__file__).parent / "load_with_mlflow.py"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "GIT_PYTHON_REFRESH": "quiet",
}  # fmt: skip


def load(control: Control, home: Path) -> dict[str, dict[str, Any]]:
    folders = [str(Path(andon.__file__).parents[1]), sysconfig.get_path("purelib")]
    done = subprocess.run(
        [clients.python("short"), "-W", "ignore", CLIENT, control.address, *folders],
        env={**os.environ, **QUIET, "HOME": str(home)}, cwd=home, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.capability("E1", "E10")
def test_mlflow_loads_a_lines_model_bit_for_bit_and_no_damaged_one(project: Project, tmp_path: Path) -> None:
    run = project.run()
    version = project.ws.store.read(lambda reader: reader.model_versions.select()[0])

    with serving(cast(World, project)) as control:
        whole = load(control, tmp_path)
        manifest = json.loads(project.ws.blobs.get(version.digest))
        damaged = Path(project.ws.blobs.path(manifest["files"]["model.txt"]))
        damaged.chmod(0o600)
        damaged.write_bytes(damaged.read_bytes().replace(b"leaf_value=", b"leaf_valuf=", 1))
        broken = load(control, tmp_path)

    assert {answer["run"] for answer in whole.values()} == {run.id}
    for uri, answer in whole.items():
        assert answer["outputs"] == answer["golden"], uri
        assert len(answer["outputs"]) >= 16
    assert all("error" in answer for answer in broken.values())
    assert "not those that were written" in broken["models:/churn/1"]["error"]
