"""What clients ask the server about itself."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response

from andon.governance.access import Permission
from andon.web.mlflow.wire import Ask, WireEndpoint

VERSION = "3.18.0"
"""The MLflow whose interface this is: clients compare it with their own."""


def version(_: Ask) -> Response:
    """Whose interface this is."""
    return PlainTextResponse(VERSION)


def server_info(_: Ask) -> dict[str, object]:
    """What clients ask before they upload or use newer calls."""
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "artifact_serving_enabled": True,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "model_artifact_presigned_downloads_supported": False,
        "artifacts_presigned_only": False,
        "trace_archival_enabled": False,
        "features_enabled": {},
        "tracking_auth": "",
    }


ENDPOINTS = (
    WireEndpoint(
        method="GET", path="/version", root="", permission=Permission.READ, read=version,
        summary="The version of MLflow's interface.",
    ),
    WireEndpoint(
        method="GET", path="/server-info", root="/api/3.0/mlflow", permission=Permission.READ, read=server_info,
        summary="What the server can do.",
    ),
)  # fmt: skip
