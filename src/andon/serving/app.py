"""The gateway's HTTP face: a raw ASGI callable that knows its routes, their permissions, its limits and one shape of error.

Who may call is said on the route itself; a route without a permission stops the start. In this release, which serves one
person on one machine, `predict` and `read` are open on loopback, guarded against other web pages by the Host and Origin
checks; undo is not here at all but on a socket that only the workspace's user can open.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from andon.core.clock import Clock
from andon.core.errors import AndonError, Invalid, NotFound, StorageFull
from andon.core.ids import uuid7
from andon.serving.metrics import CONTENT_TYPE, Metrics
from andon.serving.predict import ModelFailed, Predictor, Request
from andon.serving.requests import (
    Bodies,
    Gone,
    Headers,
    Message,
    Oversized,
    Receive,
    RequestTimeout,
    Senders,
    data_at_us_of,
    entity_of,
)
from andon.serving.state import GatewayState

Send = Callable[[Message], Awaitable[None]]
Permission = Literal["predict", "read"]
OPEN: frozenset[str] = frozenset({"predict", "read"})
"""What anybody on loopback may do in this release."""

_JSON = (b"content-type", b"application/json")
_PLAIN = (_JSON, (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_QUIET_S = 10.0
_log = logging.getLogger("andon.gateway")


class MethodNotAllowed(Invalid):
    """The path exists and does not take this method."""

    code, status = "METHOD_NOT_ALLOWED", 405

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"{path[:80]!r} does not take {method[:20]!r}", hint=f"it takes {' and '.join(allowed)}"
        )
        self.allowed = ", ".join(allowed)


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose body was read and whose sender was checked. `name` is the path's last part on routes that take one."""

    name: str
    headers: Headers
    body: bytes
    began_s: float


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back; the content length is added."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = _PLAIN


@dataclass(frozen=True, slots=True)
class Route:
    """A path, its methods, who may call it, and what answers. A path that ends in `/{name}` takes one more part."""

    path: str
    methods: tuple[str, ...]
    permission: Permission
    handler: Callable[[Gateway, Call], Awaitable[Response]]


class Gateway:
    """The ASGI application of one gateway process.

    Args:
        routes: by default `ROUTES`.
        hosts: names by which this gateway may be called, without ports.
        read_timeout_s: a request's body must be here within this time.

    Raises:
        Invalid: a route has no permission that this release can grant.
    """

    def __init__(
        self,
        state: GatewayState,
        predictor: Predictor,
        metrics: Metrics,
        clock: Clock,
        *,
        hosts: Iterable[str],
        read_timeout_s: float = 10.0,
        routes: Sequence[Route] | None = None,
    ) -> None:
        self.state = state
        self.predictor = predictor
        self.metrics = metrics
        self.now_s = clock.monotonic_s
        self.bodies = Bodies(read_timeout_s, clock.monotonic_s)
        self._senders = Senders(hosts)
        self._said_full_s = -_QUIET_S
        self._fixed: dict[str, Route] = {}
        self._named: dict[str, Route] = {}
        for route in ROUTES if routes is None else routes:
            if route.permission not in OPEN:
                raise Invalid(
                    f"the route {route.path} has the permission {route.permission!r}, which nobody can be given"
                )
            head, _, tail = route.path.rpartition("/")
            if tail.startswith("{"):
                self._named[head] = route
            else:
                self._fixed[route.path] = route

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.metrics.inflight += 1
        try:
            response = await self._respond(scope, receive)
        except Gone:
            return
        finally:
            self.metrics.inflight -= 1
        headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _respond(self, scope: MutableMapping[str, Any], receive: Receive) -> Response:
        began_s = self.now_s()
        method, path = scope["method"], scope["path"]
        headers: Headers = dict(scope["headers"])
        name = ""
        try:
            body = b"" if method in ("GET", "HEAD") else await self.bodies.read(headers, receive, began_s)
            self._senders.check(method, headers)
            route, name = self._route(path)
            if method not in route.methods:
                raise MethodNotAllowed(method, path, route.methods)
            return await route.handler(self, Call(name, headers, body, began_s))
        except AndonError as error:
            return self._refused(error, name)
        except Gone:
            raise
        except Exception:  # noqa: BLE001  # a fault of ours is answered in the one shape, and logged
            _log.exception("%s %s failed", method, path)
            return self._refused(AndonError("the gateway failed on this request", hint="see its log"), name)

    def _route(self, path: str) -> tuple[Route, str]:
        route = self._fixed.get(path)
        if route is not None:
            return route, ""
        head, _, name = path.rpartition("/")
        route = self._named.get(head)
        if route is None or not name:
            known = ", ".join(sorted([*self._fixed, *(named.path for named in self._named.values())]))
            raise NotFound(f"nothing is at {path[:80]!r}", hint=f"this gateway has {known}")
        return route, name

    def _refused(self, error: AndonError, name: str) -> Response:
        """The response of an error, which is also counted."""
        status = error.status
        request_id = uuid7().hex
        if isinstance(error, ModelFailed):
            request_id = error.prediction
        else:
            if isinstance(error, StorageFull):
                self._say_full(error)
                status = 503
                error = StorageFull(
                    "the prediction log is full, so this request is not answered", hint="free some disk space"
                )
            known = name if name in self.state.table.endpoints else ""
            self.metrics.count(known, "", "", "", status)
        headers = list(_PLAIN)
        if isinstance(error, MethodNotAllowed):
            headers.append((b"allow", error.allowed.encode()))
        if isinstance(error, RequestTimeout | Oversized):
            headers.append((b"connection", b"close"))
        if status == 503:
            headers.append((b"retry-after", b"1"))
        return Response(status, _error_body(error, request_id), tuple(headers))

    def _say_full(self, error: StorageFull) -> None:
        """One line now and then, not one for each request that a full disk refuses."""
        if self.now_s() - self._said_full_s > _QUIET_S:
            self._said_full_s = self.now_s()
            _log.error("%s", error)


async def predict(gateway: Gateway, call: Call) -> Response:
    """`POST /predict/{endpoint}`."""
    request = Request(
        call.name, call.body, entity_of(call.headers), data_at_us_of(call.headers), call.began_s
    )
    try:
        body = await gateway.predictor.ask(request)
    finally:
        if call.name in gateway.state.table.endpoints:
            gateway.metrics.observe(call.name, gateway.now_s() - call.began_s)
    return Response(200, body, (_JSON,))


async def live(gateway: Gateway, _: Call) -> Response:
    """`GET /health/live`: the process answers."""
    return Response(200, msgspec.json.encode({"live": True, **gateway.state.identity()}))


async def ready(gateway: Gateway, _: Call) -> Response:
    """`GET /health/ready`: routes are known and every endpoint has its models; 503 until then, with what is missing."""
    table = gateway.state.table
    said = {**gateway.state.identity(), **gateway.state.condition()}
    if table.ready:
        return Response(200, msgspec.json.encode(said))
    if table.known:
        message = "no model could be loaded for " + ", ".join(table.waiting)
    else:
        message = "the gateway has not yet read a route file"
    error = {
        "error_code": "NOT_READY",
        "message": message,
        "hint": "see 'problems'",
        "request_id": uuid7().hex,
    }
    return Response(503, msgspec.json.encode({**error, **said}), (*_PLAIN, (b"retry-after", b"1")))


async def routes(gateway: Gateway, _: Call) -> Response:
    """`GET /routes`: what is in force, after overrides."""
    return Response(200, msgspec.json.encode(gateway.state.routes()))


async def metrics(gateway: Gateway, _: Call) -> Response:
    """`GET /metrics`: OpenMetrics text."""
    return Response(
        200, gateway.metrics.text(gateway.state.table), ((b"content-type", CONTENT_TYPE), *_PLAIN[1:])
    )


ROUTES = (
    Route("/predict/{endpoint}", ("POST",), "predict", predict),
    Route("/health/live", ("GET", "HEAD"), "read", live),
    Route("/health/ready", ("GET", "HEAD"), "read", ready),
    Route("/routes", ("GET", "HEAD"), "read", routes),
    Route("/metrics", ("GET", "HEAD"), "read", metrics),
)


def _error_body(error: AndonError, request_id: str) -> bytes:
    body = {"error_code": error.code, "message": error.message, "hint": error.hint, "request_id": request_id}
    field = getattr(error, "field", None)
    return msgspec.json.encode(body if field is None else {**body, "field": field})
