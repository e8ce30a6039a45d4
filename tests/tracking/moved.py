"""What is in a workspace, in the form in which `mlflow_store/tell.py` says what stock MLflow sees in a store."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from andon.core.clock import to_us
from andon.core.entities import Experiment, LoggedModel, Model, Run
from andon.store.ports import Reader, Store

STORE = Path(__file__).parent / "mlflow_store"
ROOT = "/srv/mlflow"
LARGEST = 1.7976931348623157e308
WORDS = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
}
PROMPT = "mlflow.prompt.is_prompt"
HIDDEN = ("mlflow.prompt.is_prompt", "mlflow.prompt.text", "_mlflow_prompt_type")

Told = dict[str, Any]


def database(folder: Path) -> str:
    """The recorded database in a folder, with its artifacts; its address."""
    text = (STORE / "database.sql").read_text().replace(ROOT, str(folder))
    with sqlite3.connect(folder / "mlflow.db") as connection:
        connection.executescript(text)
    connection.close()
    shutil.copytree(STORE / "database_artifacts", folder / "artifacts")
    return f"sqlite:///{folder / 'mlflow.db'}"


def folder_store(folder: Path) -> str:
    """The recorded folder, with its artifacts; its address."""
    shutil.copytree(STORE / "folder_store", folder / "mlruns")
    for file in (folder / "mlruns").rglob("*"):
        if file.is_file():
            file.write_text(file.read_text().replace(ROOT, str(folder)))
    shutil.copytree(STORE / "folder_artifacts", folder / "artifacts")
    return str(folder / "mlruns")


def recorded(name: str, folder: Path) -> Told:
    """What stock MLflow said of a recorded store, in the folder that it is in now."""
    told = plain(json.loads((STORE / f"{name}.json").read_text().replace(ROOT, str(folder))))
    for run in told["runs"].values() if name == "folder" else ():
        for point in run["history"].get("accuracy", ()):
            point[0] = 2  # what its file says: stock MLflow reads the step of a metric with a dataset as 0
    return told


def plain(told: Told) -> Told:
    """Without what a file store and a database say in two ways: infinities, and where versions lie."""
    for run in told["runs"].values():
        run["metrics"] = {key: _number(value) for key, value in run["metrics"].items()}
        run["history"] = {
            key: sorted([step, at, _number(value)] for step, at, value in points)
            for key, points in run["history"].items()
        }
    for model in told["models"].values():
        model["aliases"] = {alias: int(number) for alias, number in model["aliases"].items()}
        for version in model["versions"].values():
            del version["source"]
    return told


def _number(value: float | str) -> float | str:
    return {"inf": LARGEST, "-inf": -LARGEST}.get(value, value) if isinstance(value, str) else value


def told_here(store: Store) -> Told:
    """All of a workspace."""
    return store.read(_told)


def _told(reader: Reader) -> Told:
    models = {model.id: model for model in reader.models.select()}
    tags = reader.model_tags.of(list(models))
    return {
        "experiments": {row.id: _experiment(reader, row) for row in reader.experiments.select()},
        "runs": {run.id: _run(reader, run) for run in reader.runs.select()},
        "logged_models": {row.id: _logged(reader, row) for row in reader.logged_models.select()},
        "models": {
            name: _model(reader, row, tags[name]) for name, row in models.items() if PROMPT not in tags[name]
        },
        "prompts": {
            name: _prompt(reader, row, tags[name]) for name, row in models.items() if PROMPT in tags[name]
        },
    }


def _ms(at: Any) -> int | None:
    return None if at is None else to_us(at) // 1000


def _experiment(reader: Reader, row: Experiment) -> Told:
    return {
        "name": row.name, "stage": "deleted" if row.deleted_at else "active", "created": _ms(row.created_at),
        "changed": _ms(row.changed_at), "tags": reader.experiment_tags.of([row.id])[row.id],
    }  # fmt: skip


def _run(reader: Reader, run: Run) -> Told:
    latest = reader.metrics.latest([run])[run.number]
    uses = reader.run_models.select({"run": run.id})
    return {
        "experiment": run.experiment, "name": run.name, "user": run.claimed_user or "", "status": WORDS[run.state],
        "start": _ms(run.started_at), "end": _ms(run.finished_at), "stage": "deleted" if run.deleted_at else "active",
        "params": reader.params.of([run.number])[run.number], "tags": reader.run_tags.of([run.number])[run.number],
        "metrics": {key: _said(point.value) for key, point in latest.items()},
        "history": {
            key: sorted([point.step, point.at_ms, _said(point.value)] for point in reader.metrics.history(run, key))
            for key in latest
        },
        "inputs": sorted(
            [row.name, row.digest, row.source_type, row.source, row.schema, row.profile, sorted(map(list, row.tags.items()))]
            for row in reader.run_inputs.select({"run": run.id})
        ),
        "models in": sorted(use.model for use in uses if use.direction == "input"),
        "models out": sorted([use.model, use.step] for use in uses if use.direction == "output"),
    }  # fmt: skip


def _said(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def _logged(reader: Reader, row: LoggedModel) -> Told:
    return {
        "experiment": row.experiment, "name": row.name, "status": row.state.upper(), "type": row.model_type, "run": row.run,
        "created": _ms(row.created_at), "params": reader.logged_model_params.of([row.id])[row.id],
        "tags": reader.logged_model_tags.of([row.id])[row.id],
        "metrics": sorted(
            [point.key, point.value, point.step, point.run, point.dataset_name or "", point.dataset_digest or ""]
            for point in reader.metrics.of_models([row.id])[row.id]
        ),
    }  # fmt: skip


def _model(reader: Reader, row: Model, tags: Mapping[str, str]) -> Told:
    versions = {}
    for version in reader.model_versions.select({"model": row.id, "deleted_at": None}):
        texts = reader.version_tags.of([version.id])[version.id]
        versions[str(version.number)] = {
            "stage": version.stage, "description": version.description or "", "run": version.run or "",
            "user": version.claimed_user or "", "created": _ms(version.created_at), "link": texts.pop("andon.run_link", ""),
            "tags": texts,
        }  # fmt: skip
    aliases = {alias.alias: alias.number for alias in reader.aliases.select({"model": row.id})}
    return {
        "description": row.description or "", "tags": tags, "aliases": aliases, "created": _ms(row.created_at),
        "versions": versions,
    }  # fmt: skip


def _prompt(reader: Reader, row: Model, tags: Mapping[str, str]) -> Told:
    aliases: dict[int, list[str]] = {}
    for alias in reader.aliases.select({"model": row.id}):
        aliases.setdefault(alias.number, []).append(alias.alias)
    versions = {}
    for version in reader.model_versions.select({"model": row.id, "deleted_at": None}):
        texts = reader.version_tags.of([version.id])[version.id]
        versions[str(version.number)] = {
            "text": texts["mlflow.prompt.text"], "message": version.description,
            "tags": {key: text for key, text in texts.items() if key not in HIDDEN},
            "aliases": sorted(aliases.get(version.number, [])),
        }  # fmt: skip
    return {"tags": {key: text for key, text in tags.items() if key not in HIDDEN}, "versions": versions}
