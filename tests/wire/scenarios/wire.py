"""What the scenarios share: a client, names nobody else has, and calls below the client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

URI = os.environ["MLFLOW_TRACKING_URI"]
API = "/api/2.0/mlflow/"

client = MlflowClient()


def unique(stem: str) -> str:
    """A name that no other check has, on this server or in an earlier round against it."""
    return f"{stem}-{uuid.uuid4().hex[:12]}"


def experiment() -> str:
    """The id of an experiment of the caller's own."""
    return client.create_experiment(unique("experiment"))


def run(experiment_id: str | None = None, **more: Any) -> str:
    """The id of a new run."""
    return client.create_run(experiment_id or experiment(), **more).info.run_id


def model() -> str:
    """The name of a new registered model."""
    return client.create_registered_model(unique("model")).name


def version(name: str, run_id: str | None = None, **more: Any) -> str:
    """The number of a new version of a model, made of a run's artifacts."""
    run_id = run_id or run()
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    return str(client.create_model_version(name, source, run_id, **more).version)


@contextmanager
def refused(code: str, words: str = "") -> Iterator[None]:
    """The block ends in MLflow's error of this code, its message holding `words`."""
    try:
        yield
    except MlflowException as error:
        assert error.error_code == code, (error.error_code, str(error)[:300])
        assert words in str(error), str(error)[:300]
    else:
        raise AssertionError(f"was answered, and not refused with {code}")


def call(method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
    """One HTTP call as a client of another language would send it; a path without a slash in front is under API."""
    address = URI + (path if path.startswith("/") else API + path)
    if method == "GET" and body is not None:
        more["params"] = body
    elif body is not None:
        more["json"] = body
    return requests.request(method, address, auth=_Signed(), timeout=30, **more)


class _Signed(requests.auth.AuthBase):
    """The credentials that the client itself would send."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            request.headers["Authorization"] = f"Bearer {token}"
        return request


def answer(method: str, path: str, body: Any = None, **more: Any) -> Any:
    """The JSON of a call that must succeed."""
    response = call(method, path, body, **more)
    assert response.status_code == 200, (response.status_code, response.text[:300])
    return response.json()
