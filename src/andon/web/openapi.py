"""The OpenAPI 3.1 document, made of the same table that the router is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import msgspec

from andon.governance.access import Permission
from andon.web.endpoints import Endpoint
from andon.web.errors import Problem

_PARAM = re.compile(r"{(\w+)(?::\w+)?}")
_REF = "#/components/schemas/{name}"


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The document of a table: paths under `/api`, and the probes."""
    shown = [endpoint for endpoint in endpoints if endpoint.path.startswith(("/api", "/health", "/ready"))]
    types = [Problem, *_types(shown)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    known = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in shown:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Andon",
            "version": version("andon"),
            "summary": "The control plane of one workspace.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token in .andon/keys/token.",
                }
            },
        },
    }


def _types(endpoints: Iterable[Endpoint]) -> list[Any]:
    found: dict[str, Any] = {}
    for endpoint in endpoints:
        for form in (endpoint.query, *_bodies(endpoint), endpoint.returns):
            if form is not None:
                found.setdefault(_key(form), form)
    return list(found.values())


def _key(form: Any) -> str:
    return str(form)


def _operation(endpoint: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()}_"
        + re.sub(r"\W+", "_", endpoint.path.strip("/")).strip("_"),
        "parameters": _parameters(endpoint),
        "responses": _responses(endpoint, known),
    }
    if isinstance(endpoint.permission, Permission):
        operation["security"] = [{"token": []}]
        operation["x-permission"] = endpoint.permission.value
    if bodies := [known[_key(form)] for form in _bodies(endpoint)]:
        schema = bodies[0] if len(bodies) == 1 else {"oneOf": bodies}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _bodies(endpoint: Endpoint) -> tuple[Any, ...]:
    """The forms that a body may have."""
    return endpoint.forms or (() if endpoint.body is None else (endpoint.body,))


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAM.findall(endpoint.path)
    ]
    schema = msgspec.json.schema(endpoint.query)
    body = schema["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    required = body.get("required", [])
    for name, kind in body.get("properties", {}).items():
        found.append({"name": name, "in": "query", "required": name in required, "schema": kind})
    return found


def _responses(endpoint: Endpoint, known: dict[str, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done."}
    if endpoint.stream is not None:
        success["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    elif endpoint.returns is not None:
        success["content"] = {"application/json": {"schema": known[_key(endpoint.returns)]}}
    problem = {
        "description": "What went wrong.",
        "content": {"application/json": {"schema": known[_key(Problem)]}},
    }
    return {str(endpoint.status): success, "default": problem}
