"""ONNX: a converted model logged, registered and loaded as itself and as a function."""

from __future__ import annotations

import warnings

import mlflow
import mlflow.onnx
import mlflow.pyfunc
import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from wire import client, experiment, unique

warnings.filterwarnings("ignore")


def check_a_model_is_registered_and_loaded_from_production() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    X, y = load_iris(return_X_y=True)
    X = X.astype(np.float32)
    name, classifier = unique("Onnx"), LogisticRegression(max_iter=300).fit(X, y)
    converted = to_onnx(classifier, X[:1], options={"zipmap": False})

    with mlflow.start_run():
        mlflow.onnx.log_model(
            converted, name="model", registered_model_name=name, save_as_external_data=False
        )
    client.transition_model_version_stage(name, "1", "Production")

    loaded = mlflow.pyfunc.load_model(f"models:/{name}/Production")
    assert np.array_equal(loaded.predict(X)["label"], classifier.predict(X))
    assert mlflow.onnx.load_model(f"models:/{name}/1").graph.name == converted.graph.name
