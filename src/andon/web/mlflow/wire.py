"""The frame of the MLflow wire: routes as data, requests read into forms, answers and errors as MLflow's clients take them.

The wire is the hot path of tracking, so nothing stands between the socket and an endpoint but the door and a dictionary.
An endpoint that writes is a plain function that checks its form and gives back the work of a transaction: it is committed
in a group with that of others, and the event loop waits for nobody. One that reads runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from andon.core.entities import Actor
from andon.core.errors import (
    AlreadyExists,
    AndonError,
    Conflict,
    Corrupt,
    Forbidden,
    Invalid,
    NotFound,
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from andon.governance.access import Permission
from andon.pipelines.workspace import OpenWorkspace
from andon.store.ports import Transaction
from andon.web.state import State

log = logging.getLogger("andon.web")

BODY_LIMIT = 1024 * 1024
"""MLflow's own: a batch of 1,000 metrics, 100 params and 100 tags fits."""
JSON = [(b"content-type", b"application/json")]
_VARIANTS = {
    "/api/2.0/mlflow": ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow", "/api/2.0/preview/mlflow", "/ajax-api/2.0/preview/mlflow"),
    "/api/3.0/mlflow": ("/api/3.0/mlflow", "/ajax-api/3.0/mlflow"),
    "/api/2.0/mlflow-artifacts": ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts"),
    "": ("",),
}  # fmt: skip
"""The same endpoint under every prefix that a client of some version uses."""
_PREFIXES = tuple(f"{prefix}/" for variants in _VARIANTS.values() for prefix in variants if prefix)
_ALSO = (
    "/api/2.0/mlflow",
    "/api/3.0/mlflow",
    "/ajax-api/",
    "/api/2.0mlflow",
    "/v1/traces",
    "/version",
    "/graphql",
    "/get-artifact",
    "/model-versions/get-artifact",
)


class Message(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A request or an answer. What a client sends beyond its fields is ignored; fields at their default are not answered."""


class Unsupported(AndonError):
    """MLflow has it, and Andon does not."""

    code, status = "NOT_IMPLEMENTED", 501


class BadRequest(Invalid):
    """What MLflow's own server tells apart from a parameter that cannot be used."""

    code = "BAD_REQUEST"


class EndpointNotFound(AndonError):
    """Nothing is there."""

    code, status = "ENDPOINT_NOT_FOUND", 404


@dataclass(frozen=True, slots=True)
class Ask:
    """One request after all checks: its form, the values in its path, and who asks."""

    state: State
    actor: Actor
    form: Any
    path: Mapping[str, str]
    request: Request

    @property
    def ws(self) -> OpenWorkspace:
        return self.state.ws


Work = Callable[[Transaction], Any]


@dataclass(frozen=True, kw_only=True)
class WireEndpoint:
    """One method of one path of MLflow's interface. Exactly one of `write`, `read` and `raw` answers it.

    Attributes:
        path: below `root`; `{name}` is a part of the path, `{name:path}` the rest of it.
        permission: what the caller's role must hold.
        form: what the query (GET) or the JSON body is read into.
        write: checks the form, in the event loop, and gives the work of a transaction, whose result is the answer.
        read: looks and answers, in a thread.
        raw: does everything by itself, streams included.
        after: in the event loop, what follows a commit: it gets the request and the work's result, and gives the answer.
    """

    method: str
    path: str
    summary: str
    permission: Permission
    root: str = "/api/2.0/mlflow"
    form: type[Message] = Message
    write: Callable[[Ask], Work] | None = None
    read: Callable[[Ask], Any] | None = None
    raw: Callable[[Ask], Awaitable[Response]] | None = None
    after: Callable[[Ask, Any], Any] | None = None
    limit: int = BODY_LIMIT
    decoder: msgspec.json.Decoder[Any] = field(init=False)
    lists: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.write, self.read, self.raw)) != 1:
            raise ValueError(f"{self.method} {self.path} needs one of write, read and raw")
        object.__setattr__(self, "decoder", msgspec.json.Decoder(self.form, strict=False))
        lists = frozenset(name for name, kind in _kinds(self.form).items() if _is_list(kind))
        object.__setattr__(self, "lists", lists)


class Wire:
    """ASGI application of the MLflow wire. It stands behind the door, which has said who asks."""

    def __init__(self, state: State, endpoints: Iterable[WireEndpoint]) -> None:
        self._state = state
        self._plain: dict[tuple[str, str], WireEndpoint] = {}
        self._patterns: list[tuple[str, re.Pattern[str], WireEndpoint]] = []
        for endpoint in endpoints:
            for prefix in _VARIANTS[endpoint.root]:
                self._place(endpoint, prefix + endpoint.path)

    def _place(self, endpoint: WireEndpoint, path: str) -> None:
        if "{" not in path:
            if (endpoint.method, path) in self._plain:
                raise ValueError(f"{endpoint.method} {path} is in the table twice")
            self._plain[endpoint.method, path] = endpoint
            return
        parts = re.split(r"\{(\w+)(:path)?\}", path)
        pattern = re.escape(parts[0])
        for name, rest, plain in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            pattern += f"(?P<{name}>{'.*' if rest else '[^/]+'})" + re.escape(plain)
        self._patterns.append((endpoint.method, re.compile(pattern + r"\Z", re.DOTALL), endpoint))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, body = 200, await self._answer(scope, receive)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001  # what nobody expected becomes an answer too, and is logged
            status, body = problem(error, scope["andon"].request_id)
        if isinstance(body, Response):
            await body(scope, receive, send)
            return
        headers = [*JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes | Response:
        endpoint, path = self._find(scope["method"], scope["path"])
        visit = scope["andon"]
        if not visit.principal.may(endpoint.permission):
            await run_sync(self._state.permit, visit.principal, endpoint.permission, endpoint.path)
        request = Request(scope, receive)
        if endpoint.raw is not None:
            return await endpoint.raw(Ask(self._state, visit.principal.actor, None, path, request))
        ask = Ask(self._state, visit.principal.actor, await read_form(endpoint, request), path, request)
        if endpoint.read is not None:
            result = await run_sync(endpoint.read, ask)
        else:
            assert endpoint.write is not None
            result = await asyncio.wrap_future(self._state.ws.store.submit(endpoint.write(ask)))
        if endpoint.after is not None:
            result = endpoint.after(ask, result)
        if isinstance(result, Response | bytes):
            return result
        return b"{}" if result is None else msgspec.json.encode(result)

    def _find(self, method: str, path: str) -> tuple[WireEndpoint, Mapping[str, str]]:
        method = "GET" if method == "HEAD" else method
        found = self._plain.get((method, path))
        if found is not None:
            return found, {}
        for known, pattern, endpoint in self._patterns:
            if known == method and (match := pattern.match(path)):
                return endpoint, match.groupdict()
        raise _nothing(path)


def owns(path: str) -> bool:
    """Whether a path belongs to the wire.

    >>> owns("/api/2.0/mlflow/runs/create"), owns("/api/status"), owns("/version")
    (True, False, True)
    """
    return path.startswith((*_PREFIXES, *_ALSO))


UNSUPPORTED: Mapping[str, str] = {
    "traces": "traces are not kept yet",
    "get-online-trace-details": "traces are not kept yet",
    "webhooks": "webhooks are not sent yet",
    "workspaces": "one server is one workspace",
    "gateway": "Andon is no gateway to language models yet",
    "scorer": "scorers are not kept",
    "genai": "evaluation of language models is not done here",
    "demo": "Andon's own demo is 'andon demo'",
    "model-versions/get-artifact": "files of a version are read at the address that get-download-uri gives",
    "datasets": "evaluation datasets are not kept; datasets of runs are (runs/log-inputs)",
    "jobs": "jobs of MLflow's own server are not run",
    "assessments": "assessments belong to traces, which are not kept yet",
    "graphql": "there is no GraphQL; the REST interface is complete",
    "presigned": "artifacts go through the server",
    "issues": "issues are not kept",
    "review": "review queues are not kept",
    "label-schemas": "label schemas are not kept",
    "mcp": "no MCP servers are registered",
    "skills": "skills are not registered",
    "prompt-optimization": "prompts are not optimized",
    "endpoints": "Andon is no gateway to language models yet",
    "users": "users are managed by Andon, not by this interface",
    "permissions": "permissions are managed by Andon, not by this interface",
}
"""What MLflow has and Andon does not: how a part of the path begins, and what to say."""


def _nothing(path: str) -> AndonError:
    for word, reason in UNSUPPORTED.items():
        if f"/{word}" in path:
            return Unsupported(f"Andon does not support {path[:100]}: {reason}")
    return EndpointNotFound(f"there is nothing at {path[:100]}")


async def read_form(endpoint: WireEndpoint, request: Request) -> Any:
    """The query or body as the endpoint's form.

    Raises:
        TooLarge: the body is over the endpoint's limit; no more than that is read.
        Invalid: it does not fit; the message names the field.
    """
    if request.method in ("GET", "HEAD"):
        return _from_query(endpoint, request)
    data = await bounded(request, endpoint.limit)
    try:
        return endpoint.decoder.decode(data or b"{}")
    except msgspec.ValidationError as error:
        raise Invalid(f"the request cannot be used: {error}", hint=_fields(endpoint.form)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the request is not JSON: {error}") from None


def _from_query(endpoint: WireEndpoint, request: Request) -> Any:
    given: dict[str, Any] = {}
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode(), keep_blank_values=True, max_num_fields=10_000
        )
        for name, value in pairs:
            if name in endpoint.lists:
                given.setdefault(name, []).append(value)
            else:
                given[name] = value
        return msgspec.convert(given, endpoint.form, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"the query cannot be used: {error}", hint=_fields(endpoint.form)) from None
    except ValueError as error:
        raise Invalid(f"the query cannot be read: {error}") from None


def _kinds(form: type[Message]) -> Mapping[str, Any]:
    return {each.name: each.type for each in msgspec.inspect.type_info(form).fields}  # type: ignore[attr-defined]


def _is_list(kind: Any) -> bool:
    types = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return any(isinstance(each, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) for each in types)


def _fields(form: type[Message]) -> str:
    return f"it takes {', '.join(form.__struct_fields__)}" if form.__struct_fields__ else "it takes nothing"


async def bounded(request: Request, limit: int) -> bytes:
    """The whole body, if it is not over a limit.

    Raises:
        TooLarge: it is.
    """
    declared = request.headers.get("content-length", "")
    parts: list[bytes] = []
    size = int(declared) if declared.isdigit() and len(declared) < 20 else 0
    if size <= limit:
        size = 0
        async for chunk in request.stream():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                break
    if size > limit:
        raise TooLarge(f"the request is over the limit of {limit:,} bytes", hint="send it in smaller parts")
    return parts[0] if len(parts) == 1 else b"".join(parts)


# --- errors ---

_CODES: tuple[tuple[type[AndonError], int, str], ...] = (
    (Unsupported, 501, "NOT_IMPLEMENTED"),
    (EndpointNotFound, 404, "ENDPOINT_NOT_FOUND"),
    (NotFound, 404, "RESOURCE_DOES_NOT_EXIST"),
    (AlreadyExists, 400, "RESOURCE_ALREADY_EXISTS"),
    (Unauthenticated, 401, "UNAUTHENTICATED"),
    (Forbidden, 403, "PERMISSION_DENIED"),
    (TooLarge, 413, "INVALID_PARAMETER_VALUE"),
    (BadRequest, 400, "BAD_REQUEST"),
    (Invalid, 400, "INVALID_PARAMETER_VALUE"),
    (Conflict, 400, "INVALID_PARAMETER_VALUE"),
    (Corrupt, 422, "DATA_LOSS"),
    (StorageFull, 507, "RESOURCE_EXHAUSTED"),
    (Unavailable, 503, "TEMPORARILY_UNAVAILABLE"),
)
"""Clients come back for minutes after 408, 429, 500, 502, 503 and 504, so only what may pass by itself is one of those."""


def problem(error: Exception, request_id: str) -> tuple[int, bytes]:
    """Status and body of what went wrong. What nobody expected is logged under its request id, and not shown."""
    for kind, status, code in _CODES:
        if isinstance(error, kind):
            return status, msgspec.json.encode({"error_code": code, "message": str(error)})
    log.error("request %s failed", request_id, exc_info=error)
    text = f"this request failed inside Andon; its log names the request {request_id}"
    return 500, msgspec.json.encode({"error_code": "INTERNAL_ERROR", "message": text})


def number(value: float) -> float | str:
    """A metric's value as MLflow's JSON spells it.

    >>> number(0.5), number(float("nan")), number(float("-inf"))
    (0.5, 'NaN', '-Infinity')
    """
    if value - value == 0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124
