"""What every request meets first: its id, the Host it was sent to, where it comes from, and who sends it.

A page in a browser must not reach this server under a foreign name (DNS rebinding) nor change anything from another site
(CSRF). Nothing gets past without credentials but the few open paths; the router below decides what it may do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from andon.core.errors import Forbidden, Invalid, Unauthenticated
from andon.core.ids import uuid7
from andon.core.workspace import LOOPBACK
from andon.web.endpoints import OPEN_PATHS
from andon.web.errors import respond
from andon.web.mlflow import wire
from andon.web.state import COOKIE, State, Visit

SAFE = frozenset({"GET", "HEAD"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_WIRE_HEADERS = [
    each for each in _RAW_HEADERS if each[0] in (b"x-content-type-options", b"cross-origin-resource-policy")
]
"""No page is answered there, and a client spends more on reading a header than the server does on an answer."""
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::\d{1,5})?\Z")
_TRACKS = re.compile(r"/api/runs/[^/]+/(entries|files/[^/]+)\Z")
"""Where `andon.run` delivers: who it is, is proven as MLflow's clients prove it."""
_OPEN = tuple(path.partition("{")[0] for path in OPEN_PATHS)


class Door:
    """ASGI middleware around the router, and around the MLflow wire, which it sends what is addressed to it."""

    def __init__(self, app: ASGIApp, state: State, mlflow: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self.app = app
        self.mlflow = mlflow
        self.state = state
        self.hosts = frozenset({*LOOPBACK, *hosts})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = scope["andon"] = Visit(uuid7().hex)
        is_wire = wire.owns(scope["path"])
        request = Request(scope, receive)

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = list(message.get("headers", ()))
                headers += _WIRE_HEADERS if is_wire else _RAW_HEADERS
                headers.append((b"x-request-id", visit.request_id.encode()))
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
            await send(message)

        try:
            self._check(request, visit, is_wire=is_wire)
        except (Forbidden, Invalid, Unauthenticated) as error:
            answer = respond(request, error, visit.request_id)
            if is_wire:
                status, body = wire.problem(error, visit.request_id)
                answer = Response(body, status, {"content-type": "application/json"})
            await answer(scope, receive, signed)
            return
        await (self.mlflow if is_wire else self.app)(scope, receive, signed)

    def _check(self, request: Request, visit: Visit, *, is_wire: bool) -> None:
        check_host(request.headers.getlist("host"), self.hosts)
        try:
            tracks = (
                request.method == "POST" and _TRACKS.match(request.url.path) and COOKIE not in request.cookies
            )
            if is_wire or tracks:
                visit.principal = self.state.authenticate_client(request)
            else:
                visit.principal, visit.session = self.state.authenticate(request.headers, request.cookies)
        except Unauthenticated:
            if not is_open(request.url.path):
                raise
        if is_wire or request.method not in SAFE:
            check_origin(request, by_cookie=visit.session is not None)


def is_open(path: str) -> bool:
    """Whether a path may answer without credentials.

    >>> is_open("/login"), is_open("/static/andon.css"), is_open("/api/status"), is_open("/loginx")
    (True, True, False, False)
    """
    return any(path == door or (door.endswith("/") and path.startswith(door)) for door in _OPEN)


def check_host(given: list[str], allowed: frozenset[str]) -> None:
    """Refuse a request that was sent to another name than ours.

    Raises:
        Forbidden: its Host header is missing, doubled, malformed or foreign.

    >>> check_host(["127.0.0.1:5000"], frozenset({"127.0.0.1"}))
    """
    found = _HOST.match(given[0].lower()) if len(given) == 1 else None
    if found is None or found["name"].strip("[]") not in allowed:
        shown = ", ".join(given)[:100] or "missing"
        raise Forbidden(f"the Host header is {shown}", hint=f"use one of {', '.join(sorted(allowed))}")


def check_origin(request: Request, *, by_cookie: bool) -> None:
    """Refuse a change that a page of another site asks for. What a browser sent says so; a script sends a token instead.

    Raises:
        Forbidden: it comes from elsewhere, or is sent with a cookie and says nothing of where it comes from.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        raise Forbidden(
            f"this change was asked for by another site ({site[:40]})", hint="use Andon's own page"
        )
    if origin is not None and origin not in (
        f"http://{request.headers['host']}",
        f"https://{request.headers['host']}",
    ):
        raise Forbidden(f"this change was asked for by {origin[:100]}", hint="use Andon's own page")
    if by_cookie and site is None and origin is None:
        raise Forbidden(
            "this change does not say where it comes from", hint="scripts send a token, not a cookie"
        )
