"""A client with whatever credentials it was given, which the server is to believe."""

from __future__ import annotations

import mlflow
from mlflow.artifacts import load_text
from wire import client, model, unique


def check_runs_files_and_models_are_open_to_it() -> None:
    mlflow.set_experiment(unique("guest"))

    with mlflow.start_run() as started:
        mlflow.log_metric("m", 1.0)
        mlflow.log_text("hello", "note.txt")

    assert client.get_run(started.info.run_id).data.metrics == {"m": 1.0}
    assert load_text(f"runs:/{started.info.run_id}/note.txt") == "hello"
    assert client.get_registered_model(model()).name
