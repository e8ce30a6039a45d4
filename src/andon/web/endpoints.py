"""Routes as data. An endpoint says its method, path, permission, what it takes and what it gives.

Access, checks of input, errors and the OpenAPI page all follow from this one table, so a route that is added later cannot
forget its rule: a table with an endpoint that declares no permission does not start.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from andon.core.entities import Actor
from andon.core.errors import AndonError, Invalid, TooLarge
from andon.governance.access import Permission, Principal, Session
from andon.web.errors import MethodNotAllowed, respond
from andon.web.state import State

BODY_LIMIT = 64 * 1024
JSON = "application/json"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Open(enum.Enum):
    """What an endpoint declares that answers anybody."""

    ANYBODY = "anybody"


ANYBODY = Open.ANYBODY
OPEN_PATHS = frozenset({"/health", "/ready", "/login", "/static/{name:path}"})
"""The only paths that may answer without credentials; another one that declares ANYBODY is refused at start."""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an endpoint that takes none."""


@dataclass(frozen=True)
class Call:
    """One request after all checks. `principal` is None on open endpoints only."""

    state: State
    request: Request
    path: Mapping[str, str]
    query: Any
    body: Any
    principal: Principal | None
    session: Session | None

    @property
    def who(self) -> Principal:
        """Who asks, on an endpoint that needs a permission."""
        if self.principal is None:
            raise AssertionError("an open endpoint asked who calls it")
        return self.principal

    @property
    def actor(self) -> Actor:
        return self.who.actor


Handler = Callable[[Call], Any]
Stream = Callable[[Call], AsyncIterator[bytes]]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One method of one path.

    Attributes:
        permission: what the caller's role must hold, or ANYBODY. None is refused at start.
        handler: a plain function, run in a thread; it gives a value of `returns`, or a Response.
        stream: instead of a handler, what an event stream sends.
        query, body: frozen structs that the query string and JSON body must fit; bytes hands a form through as it came.
        forms: what the body must fit when the handler checks it itself; one of them.
        returns: what a success gives as JSON; None is a page or a stream.
        limit: most bytes of a body.
    """

    method: str
    path: str
    summary: str
    permission: Permission | Open | None = None
    handler: Handler | None = None
    stream: Stream | None = None
    query: type[msgspec.Struct] = Nothing
    body: Any = None
    forms: tuple[Any, ...] = ()
    returns: Any = None
    status: int = 200
    limit: int = BODY_LIMIT


class PathRoute(Route):
    """All endpoints of one path, as one route of the router."""

    def __init__(self, state: State, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = {endpoint.method: endpoint for endpoint in endpoints}
        path = next(iter(self.endpoints.values())).path
        super().__init__(path, self._answer, methods=None, include_in_schema=False)
        self.methods = None
        self._state = state

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._find(request)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  # what nobody expected becomes an answer too, and is logged
            return respond(request, error, request.scope["andon"].request_id)

    async def _find(self, request: Request) -> Response:
        endpoint = self.endpoints.get(request.method)
        if endpoint is None and request.method == "HEAD":
            endpoint = self._without_body()
        if endpoint is None:
            raise MethodNotAllowed(
                request.method, sorted({*self.endpoints, *(["HEAD"] if self._without_body() else [])})
            )
        return await answer(endpoint, self._state, request)

    def _without_body(self) -> Endpoint | None:
        """What HEAD is answered with: GET, unless that never ends."""
        found = self.endpoints.get("GET")
        return found if found is not None and found.stream is None else None


def routes(state: State, endpoints: Iterable[Endpoint]) -> list[PathRoute]:
    """The router's routes of a table.

    Raises:
        ValueError: an endpoint declares no permission, is open without being meant to be, or is there twice.
    """
    paths: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        check_endpoint(endpoint)
        if any(other.method == endpoint.method for other in paths.setdefault(endpoint.path, [])):
            raise ValueError(f"{endpoint.method} {endpoint.path} is in the table twice")
        paths[endpoint.path].append(endpoint)
    return [PathRoute(state, same_path) for same_path in paths.values()]


def check_endpoint(endpoint: Endpoint) -> None:
    """Refuse an endpoint without a rule.

    Raises:
        ValueError: it declares no permission, or is open and not one of OPEN_PATHS, or has no handler.

    >>> check_endpoint(Endpoint(method="GET", path="/api/secrets", summary="x", handler=print))
    Traceback (most recent call last):
    ValueError: GET /api/secrets declares no permission
    """
    name = f"{endpoint.method} {endpoint.path}"
    if endpoint.permission is None:
        raise ValueError(f"{name} declares no permission")
    if endpoint.permission is ANYBODY and endpoint.path not in OPEN_PATHS:
        raise ValueError(
            f"{name} answers anybody and is not one of the paths that may: {', '.join(sorted(OPEN_PATHS))}"
        )
    if (endpoint.handler is None) == (endpoint.stream is None):
        raise ValueError(f"{name} needs a handler or a stream, and not both")


async def answer(endpoint: Endpoint, state: State, request: Request) -> Response:
    """Check the caller, the query and the body, in this order; then call the handler."""
    visit = request.scope["andon"]
    if isinstance(endpoint.permission, Permission):
        await run_sync(state.permit, visit.principal, endpoint.permission, endpoint.path)
    call = Call(
        state=state,
        request=request,
        path=request.path_params,
        query=read_query(request, endpoint.query),
        body=await read_body(request, endpoint),
        principal=visit.principal,
        session=visit.session,
    )
    if endpoint.stream is not None:
        stream = state.streams.opened(endpoint.stream(call), visit.session)
        return StreamingResponse(stream, media_type="text/event-stream", headers=STREAM_HEADERS)
    assert endpoint.handler is not None
    result = await run_sync(endpoint.handler, call)
    if isinstance(result, Response):
        return result
    return Response(msgspec.json.encode(result), endpoint.status, media_type=JSON)


def read_query(request: Request, form: type[msgspec.Struct]) -> Any:
    """The query string as a struct.

    Raises:
        Invalid: a parameter is unknown, given twice or of the wrong type; the message names it.
    """
    pairs = request.query_params.multi_items()
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Invalid("a query parameter is given twice", hint="give each parameter once")
    try:
        return msgspec.convert(given, form, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"the query cannot be read: {error}", hint=_fields(form)) from None


async def read_body(request: Request, endpoint: Endpoint) -> Any:
    """The body as the endpoint declares it.

    Raises:
        TooLarge: it is over the endpoint's limit; no more than that is read.
        Invalid: it is not JSON of that form, or a body came where none is taken.
    """
    data = await _bounded(request, endpoint.limit)
    if endpoint.body is None:
        if data.strip():
            raise Invalid("this takes no body", hint="send the request without one")
        return None
    if endpoint.body is bytes:
        return data
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise Invalid(
            f"the body is {kind or 'of no declared type'}", hint=f"send JSON with 'Content-Type: {JSON}'"
        )
    try:
        return msgspec.json.decode(data or b"{}", type=endpoint.body)
    except msgspec.ValidationError as error:
        raise Invalid(f"the body cannot be used: {error}", hint=_fields(endpoint.body)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}", hint="check it with a JSON parser") from None


async def _bounded(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise _too_large(limit)
    return bytes(data)


def _too_large(limit: int) -> AndonError:
    return TooLarge(f"the body is over the limit of {limit:,} bytes", hint="send it in smaller parts")


def _fields(form: Any) -> str:
    names = getattr(form, "__struct_fields__", ())
    return f"it takes {', '.join(names)}" if names else "it takes nothing"
