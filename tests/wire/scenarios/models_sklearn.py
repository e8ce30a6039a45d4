"""scikit-learn: autologging, a grid of child runs, and models logged, registered and loaded by every address."""

from __future__ import annotations

import warnings
from pathlib import Path

import mlflow
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
import sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from wire import client, experiment, unique

warnings.filterwarnings("ignore")

DATA = load_iris(as_frame=True)
X, y = DATA.data, DATA.target
MODEL = LogisticRegression(max_iter=200).fit(X, y)
NEEDS = [f"scikit-learn=={sklearn.__version__}"]  # said, else the client takes seconds to find out


def check_a_fit_is_logged_by_itself() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    mlflow.sklearn.autolog(log_datasets=True)

    with mlflow.start_run() as started:
        LogisticRegression(max_iter=200, C=0.5).fit(X, y)
    mlflow.sklearn.autolog(disable=True)

    found = client.get_run(started.info.run_id)
    assert (found.data.params["C"], found.data.params["max_iter"]) == ("0.5", "200")
    assert found.data.metrics["training_accuracy_score"] > 0.9
    assert found.data.tags["estimator_name"] == "LogisticRegression"
    assert [i.dataset.name for i in found.inputs.dataset_inputs] == ["dataset"]
    (made,) = client.search_logged_models([found.info.experiment_id])
    assert (made.source_run_id, str(made.status)) == (started.info.run_id, "READY")
    assert np.array_equal(mlflow.sklearn.load_model(made.model_uri).classes_, [0, 1, 2])


def check_a_grid_is_a_run_with_children() -> None:
    made = experiment()
    mlflow.set_experiment(experiment_id=made)
    mlflow.sklearn.autolog(log_models=False, max_tuning_runs=2)

    with mlflow.start_run() as started:
        GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0]}, cv=2).fit(X, y)
    mlflow.sklearn.autolog(disable=True)

    children = client.search_runs([made], f"tags.mlflow.parentRunId = '{started.info.run_id}'")
    assert sorted(child.data.params["C"] for child in children) == ["0.1", "1.0"]
    assert client.get_run(started.info.run_id).data.params["best_C"] in {"0.1", "1.0"}


def check_a_model_is_logged_registered_and_loaded_by_every_address() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    name = unique("Iris")

    with mlflow.start_run() as started:
        info = mlflow.sklearn.log_model(
            MODEL,
            name="classifier",
            registered_model_name=name,
            signature=infer_signature(X, MODEL.predict(X)),
            input_example=X[:2],
            pip_requirements=NEEDS,
        )
    client.transition_model_version_stage(name, "1", "Production")
    client.set_registered_model_alias(name, "champion", "1")

    assert str(client.get_model_version(name, "1").run_id) == started.info.run_id
    for address in (
        info.model_uri, f"models:/{info.model_id}", f"runs:/{started.info.run_id}/classifier", f"models:/{name}/1",
        f"models:/{name}/Production", f"models:/{name}@champion", f"models:/{name}/latest",
    ):  # fmt: skip
        loaded = mlflow.pyfunc.load_model(address)
        assert np.array_equal(loaded.predict(X), MODEL.predict(X)), address
        assert loaded.metadata.signature.inputs.input_names() == list(X.columns)
    assert np.allclose(mlflow.sklearn.load_model(f"models:/{name}/Production").coef_, MODEL.coef_)


def check_the_files_of_a_model_can_be_read_one_by_one() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(MODEL, name="classifier", input_example=X[:2], pip_requirements=NEEDS)

    read = mlflow.models.get_model_info(info.model_uri)
    requirements = mlflow.pyfunc.get_model_dependencies(info.model_uri)

    assert set(read.flavors) == {"python_function", "sklearn"}
    assert read.model_id == info.model_id
    assert "scikit-learn==" in Path(requirements).read_text()


def check_code_of_ones_own_is_a_model() -> None:
    class Doubles(mlflow.pyfunc.PythonModel):
        def predict(self, context: object, model_input: pd.DataFrame, params: object = None) -> pd.DataFrame:
            return model_input * 2

    mlflow.set_experiment(experiment_id=experiment())
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(name="doubles", python_model=Doubles(), pip_requirements=[])

    assert mlflow.pyfunc.load_model(info.model_uri).predict(pd.DataFrame({"a": [1, 2]}))["a"].tolist() == [
        2,
        4,
    ]


def check_a_second_registration_is_the_second_version() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    name = unique("Twice")

    for _ in range(2):
        with mlflow.start_run():
            mlflow.sklearn.log_model(
                MODEL, name="classifier", registered_model_name=name, pip_requirements=NEEDS
            )

    assert sorted(str(v.version) for v in client.search_model_versions(f"name = '{name}'")) == ["1", "2"]
