"""Calls in the forms of MLflow 2's first years and of other languages' clients: by position, by older names and paths."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.tracking import MlflowClient
from wire import answer, call, unique

warnings.filterwarnings("ignore")
client = MlflowClient()


def check_experiments_are_made_and_listed_by_position() -> None:
    name = unique("old")
    made = client.create_experiment(name, None, {"team": "a"})

    found = client.search_experiments(ViewType.ACTIVE_ONLY, 10, f"name = '{name}'")

    assert [e.experiment_id for e in found] == [made]
    assert mlflow.get_experiment_by_name(name).tags["team"] == "a"


def check_a_run_is_logged_to_by_its_older_name() -> None:
    run_id = client.create_run(client.create_experiment(unique("old"))).info.run_uuid

    answer("POST", "runs/log-metric", {"run_uuid": run_id, "key": "m", "value": 1.5, "timestamp": 3})
    answer("POST", "runs/log-parameter", {"run_uuid": run_id, "key": "p", "value": "1"})
    answer("POST", "runs/set-tag", {"run_uuid": run_id, "key": "t", "value": "x"})

    data = client.get_run(run_id).data
    assert (data.metrics, data.params, data.tags["t"]) == ({"m": 1.5}, {"p": "1"}, "x")


def check_a_batch_by_position_and_its_history() -> None:
    run_id = client.create_run("0").info.run_id

    client.log_batch(
        run_id, [Metric("m", 1.0, 1, 0), Metric("m", 2.0, 2, 1)], [Param("p", "1")], [RunTag("t", "x")]
    )

    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "m")] == [(0, 1.0), (1, 2.0)]
    client.set_terminated(run_id, "FINISHED", 1_700_000_000_000)
    assert client.get_run(run_id).info.end_time == 1_700_000_000_000


def check_search_by_position() -> None:
    made = client.create_experiment(unique("old"))
    for number in range(3):
        run_id = client.create_run(made).info.run_id
        client.log_metric(run_id, "m", number)

    found = client.search_runs([made], "metrics.m > 0", ViewType.ACTIVE_ONLY, 10, ["metrics.m DESC"])

    assert [r.data.metrics["m"] for r in found] == [2.0, 1.0]


def check_files_are_listed_and_read() -> None:
    run_id = client.create_run("0").info.run_id
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a b.txt").write_text("hello")
        client.log_artifact(run_id, f"{folder}/a b.txt", "sub folder")
        local = client.download_artifacts(run_id, "sub folder", folder)
        text = (Path(local) / "a b.txt").read_text()

    assert [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(run_id, "sub folder")] == [
        ("sub folder/a b.txt", False, 5)
    ]
    assert text == "hello"


def check_versions_are_made_moved_and_searched() -> None:
    name, run_id = unique("old"), client.create_run("0").info.run_id
    client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/model"

    first = client.create_model_version(name, source, run_id)
    client.transition_model_version_stage(name, first.version, "Staging", True)

    assert client.get_latest_versions(name, ["Staging"])[0].version == first.version
    assert client.get_model_version_download_uri(name, first.version) == source
    assert client.get_model_version_stages(name, first.version) == [
        "None",
        "Staging",
        "Production",
        "Archived",
    ]
    assert [m.name for m in client.search_registered_models(f"name = '{name}'")] == [name]
    assert [v.run_id for v in client.search_model_versions(f"run_id = '{run_id}'")] == [run_id]


def check_the_latest_versions_are_told_to_either_verb() -> None:
    name, run_id = unique("old"), client.create_run("0").info.run_id
    client.create_registered_model(name)
    client.create_model_version(name, f"{client.get_run(run_id).info.artifact_uri}/model", run_id)

    told = [answer(verb, "registered-models/get-latest-versions", {"name": name}) for verb in ("GET", "POST")]

    assert told[0] == told[1]
    assert told[0]["model_versions"][0]["version"] == "1"


def check_a_search_of_models_is_asked_by_query() -> None:
    name = client.create_registered_model(unique("old")).name

    found = call("GET", "registered-models/search", {"filter": f"name = '{name}'", "max_results": 5}).json()

    assert [m["name"] for m in found["registered_models"]] == [name]
