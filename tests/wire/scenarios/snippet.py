"""The classic snippet and the calls around it, as they have been written since MLflow 1: every client must play it."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
from mlflow.tracking import MlflowClient
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from wire import unique

warnings.filterwarnings("ignore")

NAME = unique("ChurnPredictor")
client = MlflowClient()
X, y = make_classification(n_samples=200, n_features=6, random_state=42)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42)
model = RandomForestClassifier(n_estimators=10, random_state=42).fit(X_train, y_train)
seen: dict[str, Any] = {}


def check_the_snippet() -> None:
    mlflow.set_experiment(unique("Churn Prediction"))
    with mlflow.start_run():
        mlflow.log_param("n_estimators", 10)
        mlflow.log_metric("accuracy", model.score(X_test, y_test))
        mlflow.sklearn.log_model(model, "model")
        run_id = mlflow.active_run().info.run_id

    data = client.get_run(run_id).data
    seen["run_id"] = run_id
    assert (data.params["n_estimators"], data.metrics["accuracy"]) == ("10", model.score(X_test, y_test))


def check_the_model_of_a_run_predicts() -> None:
    loaded = mlflow.sklearn.load_model(f"runs:/{seen['run_id']}/model")

    assert np.array_equal(loaded.predict(X_test), model.predict(X_test))
    assert np.array_equal(
        mlflow.pyfunc.load_model(f"runs:/{seen['run_id']}/model").predict(X_test), model.predict(X_test)
    )


def check_it_is_registered_and_moved_to_production() -> None:
    made = mlflow.register_model(f"runs:/{seen['run_id']}/model", NAME)
    client.transition_model_version_stage(name=NAME, version=made.version, stage="Staging")
    moved = client.transition_model_version_stage(
        NAME, made.version, "Production", archive_existing_versions=True
    )

    assert (str(made.version), moved.current_stage) == ("1", "Production")
    assert [str(v.version) for v in client.get_latest_versions(NAME, stages=["Production"])] == ["1"]


def check_the_model_in_production_predicts() -> None:
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/Production")

    assert np.array_equal(loaded.predict(X_test), model.predict(X_test))
    assert np.array_equal(
        mlflow.pyfunc.load_model(f"models:/{NAME}/1").predict(X_test), model.predict(X_test)
    )


def check_the_second_version_replaces_the_first() -> None:
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model, "model", registered_model_name=NAME, pip_requirements=["scikit-learn"]
        )
    client.transition_model_version_stage(NAME, "2", "Production", archive_existing_versions=True)

    assert {str(v.version): v.current_stage for v in client.search_model_versions(f"name='{NAME}'")} == {
        "1": "Archived",
        "2": "Production",
    }


def check_an_alias_names_the_champion() -> None:
    client.set_registered_model_alias(NAME, "champion", "1")

    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "1"
    assert mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(X_test).shape == (40,)
    client.delete_registered_model_alias(NAME, "champion")
    assert client.get_registered_model(NAME).aliases == {}


def check_versions_are_described_tagged_and_deleted() -> None:
    client.update_model_version(NAME, "1", description="the first")
    client.set_model_version_tag(NAME, "1", "validated", "yes")
    client.set_registered_model_tag(NAME, "team", "growth")

    found = client.get_model_version(NAME, "1")
    assert (found.description, found.tags["validated"]) == ("the first", "yes")
    assert client.get_registered_model(NAME).tags["team"] == "growth"
    client.delete_model_version(NAME, "1")
    assert [str(v.version) for v in client.search_model_versions(f"name='{NAME}'")] == ["2"]


def check_runs_are_found_and_compared() -> None:
    experiment_id = mlflow.create_experiment(unique("compared"))
    for depth in (1, 2, 3):
        with mlflow.start_run(experiment_id=experiment_id):
            mlflow.log_params({"depth": depth})
            for step in range(3):
                mlflow.log_metric("auc", depth / 10 + step / 100, step=step)

    table = mlflow.search_runs([experiment_id], "metrics.auc > 0.2", order_by=["metrics.auc DESC"])
    best = client.search_runs([experiment_id], order_by=["metrics.auc DESC"], max_results=1)[0]

    assert table["params.depth"].tolist() == ["3", "2"]
    assert [m.value for m in client.get_metric_history(best.info.run_id, "auc")] == [0.3, 0.31, 0.32]


def check_files_go_up_and_come_down() -> None:
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as started:
        (Path(folder) / "report.txt").write_text("fine")
        mlflow.log_artifact(f"{folder}/report.txt", artifact_path="reports")
        mlflow.log_artifacts(folder, artifact_path="all")
        mlflow.log_dict({"a": 1}, "conf.json")

    paths = {found.path for found in client.list_artifacts(started.info.run_id)}
    local = client.download_artifacts(started.info.run_id, "reports/report.txt")
    assert paths >= {"reports", "all", "conf.json"}
    assert Path(local).read_text() == "fine"


def check_what_is_deleted_comes_back() -> None:
    experiment_id = mlflow.create_experiment(unique("deleted"))
    run_id = client.create_run(experiment_id).info.run_id

    client.delete_run(run_id)
    client.restore_run(run_id)
    client.delete_experiment(experiment_id)
    client.restore_experiment(experiment_id)

    assert client.get_run(run_id).info.lifecycle_stage == "active"
