"""Registered models and versions over the MLflow wire."""

from __future__ import annotations

from andon.web.mlflow.wire import WireEndpoint

ENDPOINTS: tuple[WireEndpoint, ...] = ()
