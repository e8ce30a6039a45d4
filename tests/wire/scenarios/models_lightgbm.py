"""LightGBM: autologging of a booster, and the logged booster loaded as itself and as a function."""

from __future__ import annotations

import warnings

import lightgbm
import mlflow
import mlflow.lightgbm
import mlflow.pyfunc
import numpy as np
from sklearn.datasets import make_classification
from wire import client, experiment, unique

warnings.filterwarnings("ignore")

X, y = make_classification(n_samples=300, n_features=5, random_state=42)
PARAMS = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 7,
    "metric": "auc",
    "num_threads": 1,
    "verbose": -1,
}


def check_training_is_logged_by_itself() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    mlflow.lightgbm.autolog()

    with mlflow.start_run() as started:
        data = lightgbm.Dataset(X, y)
        booster = lightgbm.train(PARAMS, data, num_boost_round=8, valid_sets=[data], valid_names=["train"])
    mlflow.lightgbm.autolog(disable=True)

    found = client.get_run(started.info.run_id)
    assert (found.data.params["num_leaves"], found.data.params["learning_rate"]) == ("7", "0.1")
    history = client.get_metric_history(started.info.run_id, "train-auc")
    assert [m.step for m in history] == list(range(8))
    assert found.data.metrics["train-auc"] == history[-1].value
    assert {f.path for f in client.list_artifacts(started.info.run_id)} >= {"feature_importance_gain.json"}
    (made,) = client.search_logged_models([found.info.experiment_id])
    assert np.allclose(mlflow.lightgbm.load_model(made.model_uri).predict(X), booster.predict(X))


def check_a_booster_is_registered_and_loaded_from_production() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    name, booster = unique("Churn"), lightgbm.train(PARAMS, lightgbm.Dataset(X, y), num_boost_round=5)

    with mlflow.start_run():
        mlflow.log_params(PARAMS)
        mlflow.log_metrics({"auc": 0.9, "f1": 0.8})
        mlflow.lightgbm.log_model(
            booster, name="model", registered_model_name=name, pip_requirements=["lightgbm"]
        )
    client.transition_model_version_stage(name, "1", "Production")

    loaded = mlflow.pyfunc.load_model(f"models:/{name}/Production")
    assert np.allclose(loaded.predict(X), booster.predict(X))
