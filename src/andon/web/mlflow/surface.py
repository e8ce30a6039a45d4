"""Every endpoint of the MLflow wire, in one table: the application and the coverage page in the docs are made of it."""

from __future__ import annotations

from andon.web.mlflow import artifacts, experiments, logged_models, models, runs, server
from andon.web.mlflow.wire import WireEndpoint


def surface() -> tuple[WireEndpoint, ...]:
    """All endpoints, by noun."""
    return (
        *server.ENDPOINTS,
        *experiments.ENDPOINTS,
        *runs.ENDPOINTS,
        *logged_models.ENDPOINTS,
        *artifacts.ENDPOINTS,
        *models.ENDPOINTS,
    )
