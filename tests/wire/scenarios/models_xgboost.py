"""XGBoost: autologging of a booster, and the logged booster loaded as itself and as a function."""

from __future__ import annotations

import warnings

import mlflow
import mlflow.pyfunc
import mlflow.xgboost
import numpy as np
import pandas as pd
import xgboost
from sklearn.datasets import make_classification
from wire import client, experiment, unique

warnings.filterwarnings("ignore")

X, y = make_classification(n_samples=300, n_features=5, random_state=42)
PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "eval_metric": "auc", "nthread": 1}


def check_training_is_logged_by_itself() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    mlflow.xgboost.autolog(importance_types=[])

    with mlflow.start_run() as started:
        data = xgboost.DMatrix(X, y)
        booster = xgboost.train(PARAMS, data, num_boost_round=6, evals=[(data, "train")], verbose_eval=False)
    mlflow.xgboost.autolog(disable=True)

    found = client.get_run(started.info.run_id)
    assert (found.data.params["max_depth"], found.data.params["num_boost_round"]) == ("3", "6")
    assert [m.step for m in client.get_metric_history(started.info.run_id, "train-auc")] == list(range(6))
    (made,) = client.search_logged_models([found.info.experiment_id])
    assert np.allclose(mlflow.xgboost.load_model(made.model_uri).predict(data), booster.predict(data))


def check_a_booster_is_registered_and_loaded_from_production() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    name, data = unique("Xgb"), xgboost.DMatrix(X, y)
    booster = xgboost.train(PARAMS, data, num_boost_round=5)

    with mlflow.start_run():
        mlflow.xgboost.log_model(booster, name="model", registered_model_name=name)
    client.transition_model_version_stage(name, "1", "Production")

    loaded = mlflow.pyfunc.load_model(f"models:/{name}/Production")
    assert np.allclose(loaded.predict(pd.DataFrame(X)), booster.predict(data))
