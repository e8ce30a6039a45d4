"""The OpenAPI document is true: what it lists is there, and what is answered fits what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from andon.governance.access import ROLES, Permission
from andon.web.app import table
from andon.web.endpoints import ANYBODY, Endpoint
from tests.web.conftest import Control

API = [endpoint for endpoint in table() if endpoint.path.startswith(("/api", "/health", "/ready"))]


@pytest.fixture(scope="module")
def document(shared: Control) -> dict[str, Any]:
    return shared.client.get("/api/openapi.json").json


def test_it_lists_exactly_the_table(document: dict[str, Any]) -> None:
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}

    assert listed == {(endpoint.method, endpoint.path) for endpoint in API}


def test_it_says_the_permission_of_each(document: dict[str, Any]) -> None:
    for endpoint in API:
        operation = document["paths"][endpoint.path][endpoint.method.lower()]
        if endpoint.permission is ANYBODY:
            assert "security" not in operation
        else:
            assert (operation["security"], operation["x-permission"]) == (
                [{"token": []}],
                endpoint.permission,
            )


def test_it_points_nowhere_else(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert {
        ref.rsplit("/", 1)[-1]
        for ref in re.findall(r'"\$ref": ?"([^"]+)"', msgspec.json.encode(document).decode())
    } <= set(schemas)


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [
        operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
    ]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "endpoint",
    [each for each in API if each.method == "GET" and each.stream is None and "{" not in each.path],
    ids=lambda e: e.path,
)
def test_answers_fit_what_is_said(shared: Control, endpoint: Endpoint) -> None:
    query = "?node=line:flights" if endpoint.path == "/api/impact" else ""

    reply = shared.client.get(endpoint.path + query)

    assert reply.status == endpoint.status
    msgspec.json.decode(reply.body, type=endpoint.returns)


def test_parameters_say_their_bounds(document: dict[str, Any]) -> None:
    parameters = {each["name"]: each for each in document["paths"]["/api/runs"]["get"]["parameters"]}

    assert parameters["limit"]["schema"]["maximum"] == 500
    assert parameters["limit"]["required"] is False
    assert document["paths"]["/api/why/{id}"]["get"]["parameters"][0] == {
        "name": "id", "in": "path", "required": True, "schema": {"type": "string"},
    }  # fmt: skip


def test_a_body_that_has_two_forms_says_both(document: dict[str, Any]) -> None:
    body = document["paths"]["/api/feedback"]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert [each["$ref"].rsplit("/", 1)[-1] for each in body["oneOf"]] == ["Label", "Labels"]


def test_the_reference_lists_every_route_with_its_permission() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/api.md").read_text()
    rows = set(re.findall(r"^\| (GET|POST) \| `([^`]+)` \| (\w+) \|", text, re.MULTILINE))

    assert rows == {(each.method, each.path, each.permission.value) for each in table() if each.permission}


def test_the_reference_lists_every_role_and_what_it_may() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/api.md").read_text()

    for role, permissions in ROLES.items():
        words = re.search(rf"^\| {role} \| (.+) \|$", text, re.MULTILINE)
        assert words is not None
        named = (
            set(Permission)
            if "everything" in words[1]
            else {Permission(word) for word in words[1].split(", ")}
        )
        assert named == permissions
