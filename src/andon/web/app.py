"""The control process's ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from andon.core.errors import NotFound
from andon.governance.access import Permission
from andon.pipelines.workspace import OpenWorkspace
from andon.web import openapi, pages
from andon.web.api import actions, reads, spool
from andon.web.door import Door
from andon.web.endpoints import Call, Endpoint, routes
from andon.web.errors import respond
from andon.web.mlflow.surface import surface
from andon.web.mlflow.wire import Wire
from andon.web.state import State


def table() -> tuple[Endpoint, ...]:
    """Every endpoint of the control process, with its permission."""
    described: list[Endpoint] = []

    def describe(_: Call) -> dict[str, Any]:
        return openapi.document(described)

    described += [
        *reads.ENDPOINTS,
        *actions.ENDPOINTS,
        *spool.ENDPOINTS,
        Endpoint(
            method="GET", path="/api/openapi.json", permission=Permission.READ, handler=describe, returns=dict,
            summary="This document.",
        ),
        *pages.ENDPOINTS,
    ]  # fmt: skip
    return tuple(described)


def create_app(ws: OpenWorkspace, *, endpoints: Sequence[Endpoint] | None = None) -> Starlette:
    """The application over an open workspace. `app.state.andon` is its `State`; who runs it closes the workspace.

    Raises:
        ValueError: an endpoint of the table declares no permission.
        Forbidden: the token file can be read by others.
    """
    state = State(ws)
    mlflow = Wire(state, surface())

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        state.sealer.start()
        yield
        state.close()
        state.sealer.close()

    app = Starlette(
        routes=routes(state, table() if endpoints is None else endpoints),
        middleware=[
            Middleware(Door, state=state, mlflow=mlflow, hosts=(ws.settings.host,)),
            Middleware(GZipMiddleware, minimum_size=1024),
        ],
        exception_handlers={HTTPException: _nothing_there},
        lifespan=lifespan,
    )
    app.state.andon = state
    return app


async def _nothing_there(request: Request, _: Exception) -> Response:
    """What the router itself refuses, in the shape of every other error."""
    return respond(
        request, NotFound(f"there is nothing at {request.url.path[:100]}"), request.scope["andon"].request_id
    )
