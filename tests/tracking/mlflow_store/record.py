"""Record the small stores beside this file anew: `python -m tests.tracking.mlflow_store.record`.

They are what the newest client makes, as SQL and as a folder, with the folder's name replaced by /srv/mlflow.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

from tests.wire import clients

HERE = Path(__file__).parent
ROOT = "/srv/mlflow"
TABLES = (
    "alembic_version", "experiments", "experiment_tags", "runs", "params", "tags", "metrics", "latest_metrics", "datasets",
    "inputs", "input_tags", "logged_models", "logged_model_params", "logged_model_tags", "logged_model_metrics",
    "registered_models", "registered_model_tags", "registered_model_aliases", "model_versions", "model_version_tags",
)  # fmt: skip
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true", "GIT_PYTHON_REFRESH": "quiet"}


def made(uri: str, folder: Path, *more: str) -> dict[str, object]:
    """Fill a store by the real client; what stock MLflow says is in it."""
    command = [
        clients.python("store"),
        "-W",
        "ignore",
        folder / "make.py",
        uri,
        f"file://{folder}/artifacts",
        *more,
    ]
    for script in ("make.py", "tell.py"):
        shutil.copy(HERE / script, folder)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")},
        **QUIET,
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return said


def record() -> None:
    """Both forms."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text) / "database"
        folder.mkdir()
        _write("database.json", json.dumps(made(f"sqlite:///{folder}/mlflow.db", folder), indent=1), folder)
        with sqlite3.connect(folder / "mlflow.db") as connection:
            connection.executescript(";".join(f'DROP TABLE "{name}"' for name in _others(connection)))
            lines = [line for line in connection.iterdump() if not line.startswith("CREATE INDEX")]
        _write("database.sql", "\n".join(lines), folder)
        _copy(folder / "artifacts", HERE / "database_artifacts")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text) / "folder"
        folder.mkdir()
        _write("folder.json", json.dumps(made(f"file://{folder}/mlruns", folder), indent=1), folder)
        for file in (folder / "mlruns").rglob("*"):
            if file.is_file():
                file.write_text(_plain(file.read_text(), folder))
        _copy(folder / "mlruns", HERE / "folder_store")
        _copy(folder / "artifacts", HERE / "folder_artifacts")


def _others(connection: sqlite3.Connection) -> list[str]:
    connection.execute("PRAGMA foreign_keys = OFF")
    found = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    return [name for (name,) in found if name not in TABLES]


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("scratch"))


def _write(name: str, text: str, folder: Path) -> None:
    (HERE / name).write_text(_plain(text, folder) + "\n")


def _plain(text: str, folder: Path) -> str:
    return text.replace(str(folder), ROOT)


if __name__ == "__main__":
    record()
