"""Every route has a rule, and every answer that is not a success has one shape."""

from __future__ import annotations

import re

import pytest

from andon.core.ids import node
from andon.governance.access import ROLES, Permission
from andon.web.app import create_app, table
from andon.web.endpoints import ANYBODY, OPEN_PATHS, Endpoint, PathRoute
from tests.web.client import Client, Reply
from tests.web.conftest import Control
from tests.web.world import World

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
EVERY = table()
GUARDED = [endpoint for endpoint in EVERY if endpoint.permission is not ANYBODY]
OPEN = [endpoint for endpoint in EVERY if endpoint.permission is ANYBODY]


def address(path: str) -> str:
    """A path with something in place of each parameter."""
    return re.sub(r"{[^}]+}", "x", path)


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def ask(client: Client, endpoint: Endpoint) -> Reply:
    """A request that the endpoint would take, were the caller allowed to."""
    if endpoint.method == "GET":
        return client.get(address(endpoint.path))
    if endpoint.body is bytes:
        return client.form(address(endpoint.path))
    return client.post(address(endpoint.path), None if endpoint.body is None else {})


def is_problem(reply: Reply) -> bool:
    body = reply.json
    return (
        sorted(body) == ["error_code", "hint", "message", "request_id"]
        and all(isinstance(value, str) for value in body.values())
        and bool(body["message"])
        and body["request_id"] == reply.headers["x-request-id"]
    )


@pytest.mark.capability("N1")
@pytest.mark.parametrize("path", sorted({endpoint.path for endpoint in GUARDED}))
def test_nobody_gets_an_answer_without_credentials(
    shared: Control, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("andon.web.state.peer_uid", lambda *_: None)  # another user of this machine

    for method in METHODS:
        reply = shared.anonymous.ask(method, address(path))

        assert reply.status == 401, method
        assert method == "HEAD" or is_problem(reply)


def test_nobody_learns_without_credentials_what_is_not_there(shared: Control) -> None:
    assert shared.anonymous.get("/api/nothing").status == 401
    assert shared.anonymous.get("/login/../api/status").status == 401
    assert shared.anonymous.get("//api/status").status == 401


def test_only_probes_login_and_static_files_answer_anybody() -> None:
    assert {endpoint.path for endpoint in OPEN} == OPEN_PATHS


@pytest.mark.capability("N1")
@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_gets_exactly_what_it_holds(shared: Control, role: str) -> None:
    browser = shared.browser(role)
    for endpoint in GUARDED:
        if endpoint.stream is not None or endpoint.path == "/logout":
            continue

        reply = ask(browser, endpoint)

        assert (reply.status == 403) == (endpoint.permission not in ROLES[role]), named(endpoint)


def test_an_attempt_at_what_is_not_allowed_is_on_record(shared: Control) -> None:
    reply = shared.browser("viewer").post("/api/endpoints/flights/undo", {})

    events = shared.world.ws.store.read(
        lambda reader: reader.ledger.latest(limit=1, subject=node("actor", shared.world.person.id))
    )
    assert reply.status == 403
    assert reply.json["message"] == "the role 'viewer' may not undo"
    assert [event.kind for event in events] == ["access.denied"]
    assert events[0].facts == {
        "permission": "undo",
        "path": "/api/endpoints/{endpoint}/undo",
        "role": "viewer",
    }


@pytest.mark.parametrize("endpoint", EVERY, ids=named)
def test_every_error_has_the_one_shape(shared: Control, endpoint: Endpoint) -> None:
    path = address(endpoint.path)
    replies = [
        shared.client.get(f"{path}?no_such_parameter=1")
        if endpoint.method == "GET"
        else ask(shared.client, endpoint),
        shared.client.ask("DELETE", path),
        shared.anonymous.ask("PURGE", path, Host="evil.example"),
    ]

    for reply in replies:
        assert reply.status < 400 or is_problem(reply), (endpoint, reply)
    assert [reply.status for reply in replies[1:]] == [405, 403]
    assert endpoint.method in replies[1].headers["allow"].split(", ")


def test_what_is_not_there_is_a_problem_too(shared: Control) -> None:
    reply = shared.client.get("/api/nothing")

    assert reply.status == 404
    assert reply.json["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert is_problem(reply)


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        (Endpoint(method="GET", path="/api/x", summary="", handler=print), "declares no permission"),
        (
            Endpoint(method="GET", path="/api/x", summary="", handler=print, permission=ANYBODY),
            "not one of the paths",
        ),
        (Endpoint(method="GET", path="/api/x", summary="", permission=Permission.READ), "needs a handler"),
    ],
)
def test_a_table_with_a_route_without_a_rule_does_not_start(
    world: World, endpoint: Endpoint, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        create_app(world.ws, endpoints=[*EVERY, endpoint])


def test_a_route_that_is_there_twice_does_not_start(world: World) -> None:
    with pytest.raises(ValueError, match=r"GET /api/status is in the table twice"):
        create_app(world.ws, endpoints=[*EVERY, EVERY[0]])


def test_the_router_holds_nothing_but_the_table(world: World) -> None:
    router = create_app(world.ws).routes

    assert all(type(route) is PathRoute for route in router)
    assert {route.path for route in router} == {endpoint.path for endpoint in EVERY}
