"""A web application of the user's own that loads its model from the registry when it starts."""

from __future__ import annotations

import warnings

import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from wire import client, experiment, unique

warnings.filterwarnings("ignore")


def check_a_fastapi_application_serves_the_model_in_production() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    X, y = load_iris(return_X_y=True, as_frame=True)
    name, classifier = unique("Served"), LogisticRegression(max_iter=300).fit(X, y)
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            classifier, name="model", registered_model_name=name, pip_requirements=["scikit-learn"]
        )
    client.transition_model_version_stage(name, "1", "Production")

    app = FastAPI()
    model = mlflow.pyfunc.load_model(f"models:/{name}/Production")

    @app.post("/predict")
    def predict(rows: list[dict[str, float]]) -> list[int]:
        return [int(label) for label in model.predict(pd.DataFrame(rows))]

    with TestClient(app) as web:
        answered = web.post("/predict", json=X[:10].to_dict(orient="records"))
    assert answered.json() == np.asarray(classifier.predict(X[:10])).tolist()
