"""One shape for every error: `error_code`, `message`, `hint`, `request_id`, as JSON, or as a page where a person looks."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from andon.core.errors import AndonError, Unauthenticated
from andon.web.notices import Notice
from andon.web.ui.render import page

log = logging.getLogger("andon.web")


class Problem(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success. `hint` says what to do next and may be empty."""

    error_code: str
    message: str
    hint: str
    request_id: str


class MethodNotAllowed(AndonError):
    """The path is there, and does not take this method."""

    code, status = "METHOD_NOT_ALLOWED", 405

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"this path does not take {method}", hint=f"it takes {', '.join(allowed)}")
        self.allowed = allowed


def respond(request: Request, error: Exception, request_id: str) -> Response:
    """The answer that an error becomes. What nobody expected is logged under its request id, and not shown."""
    if not isinstance(error, AndonError):
        log.error("request %s failed", request_id, exc_info=error)
        error = AndonError("this request failed inside Andon", hint=f"its log names the request {request_id}")
    elif error.status >= 500:
        log.error("request %s: %s", request_id, error)
    problem = Problem(error.code, error.message, error.hint, request_id)
    headers = _headers(error)
    if request.headers.get("hx-request"):
        notice = Notice(
            "bad",
            f"{problem.message}.",
            (f"{problem.hint}." if problem.hint else "", f"Request {request_id}"),
        )
        headers |= {"HX-Retarget": "#notice", "HX-Reswap": "innerMorph"}
        return HTMLResponse(page("_notice.html", notice=notice), error.status, headers)
    if wants_page(request):
        template = "login.html" if isinstance(error, Unauthenticated) else "error.html"
        return HTMLResponse(page(template, problem=problem), error.status, headers)
    return Response(msgspec.json.encode(problem), error.status, headers, media_type="application/json")


def wants_page(request: Request) -> bool:
    """Whether a person looks: outside `/api`, with an Accept header that asks for HTML."""
    accept = request.headers.get("accept", "")
    return not request.url.path.startswith(("/api/", "/health", "/ready")) and "text/html" in accept


def _headers(error: AndonError) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="andon"'
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if error.status == 503:
        headers["Retry-After"] = "1"
    return headers
