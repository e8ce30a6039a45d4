"""The frame of the MLflow wire: prefixes, who may ask, from where, and bodies that nobody should send."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any

import pytest

from andon.governance.access import Principal
from tests.web.client import Client, Reply
from tests.web.conftest import Control
from tests.web.mlflow import ABSENT, API, INVALID, Wire, wire

__all__ = ["wire"]

PREFIXES = (
    "/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/", "/api/2.0/preview/mlflow/", "/ajax-api/2.0/preview/mlflow/",
)  # fmt: skip


def test_the_same_call_is_answered_under_every_prefix(wire: Wire) -> None:
    run = wire.run()

    told = [wire.get(f"{prefix}runs/get", run_id=run) for prefix in PREFIXES]
    made = [
        wire.post(f"{prefix}experiments/create", name=wire.unique())["experiment_id"] for prefix in PREFIXES
    ]

    assert told == [told[0]] * 4
    assert len(set(made)) == 4


def test_the_server_says_whose_interface_it_has_and_what_it_can_do(wire: Wire) -> None:
    version = wire.control.client.get("/version")

    assert (version.status, version.text) == (200, "3.18.0")
    for prefix in ("/api/3.0/mlflow", "/ajax-api/3.0/mlflow"):
        info = wire.get(f"{prefix}/server-info")
        assert (info["store_type"], info["artifact_serving_enabled"], info["workspaces_enabled"]) == (
            "SqlStore",
            True,
            False,
        )


def test_what_nobody_has_is_404_and_what_only_mlflow_has_is_501(wire: Wire) -> None:
    nothing = wire.ask("POST", "runs/nothing", {})
    traces = wire.ask("POST", "/api/3.0/mlflow/traces", {})

    assert (nothing.status, nothing.json["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert (traces.status, traces.json["error_code"]) == (501, "NOT_IMPLEMENTED")
    assert wire.ask("DELETE", "runs/get").status in (404, 405)


def test_keys_that_nobody_knows_are_ignored_and_null_is_nothing(wire: Wire) -> None:
    home = wire.experiment(something={"new": [1]}, artifact_location=None, tags=None)

    run = wire.run(home, run_name=None, tags=None, user_id=None, start_time=None, other=1)

    assert (
        wire.post("runs/update", run_id=run, run_uuid=None, status=None, end_time=None, run_name=None)[
            "run_info"
        ]["status"]
        == "RUNNING"
    )
    assert wire.post("runs/log-batch", run_id=run, metrics=None, params=None, tags=None) == {}


# --- bodies ---


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"7", b'"x"', b"\xff\xfe", b"nonsense", b'{"run_id": "x"', b'{"run_id": "\\ud800"}',
        b'{"run_id": NaN}', b'{"a":' * 100_000, b"[" * 500_000, b'{"run_id": "\x00"}', b'{"run_id": 1e999}',
        b'{"metrics": ' + b"[" * 1000 + b"]" * 1000 + b"}", b'{"run_id": ' + b"9" * 100_000 + b"}", b"{} trailing",
        b"run_id=x&key=y", b"\xef\xbb\xbf{}", b'{"' + b"k" * 900_000 + b'": 1}',
    ],
)  # fmt: skip
def test_a_body_that_nobody_should_send_is_refused(wire: Wire, body: bytes) -> None:
    for path in ("runs/log-metric", "runs/log-batch", "runs/create", "experiments/create"):
        reply = wire.ask("POST", path, body=body)
        assert reply.status == 400, (path, reply.text[:200])
        assert reply.json["error_code"] in (INVALID, "BAD_REQUEST")


def head(wire: Wire, path: str, length: int) -> bytes:
    """The head of a POST with a body of a length."""
    return (
        f"POST {API}{path} HTTP/1.1\r\nHost: {wire.control.client.host}\r\nContent-Length: {length}\r\n"
        f"Authorization: Bearer {wire.control.state.token}\r\nConnection: close\r\n\r\n"
    ).encode()


def test_a_body_over_its_limit_is_refused_unread(wire: Wire) -> None:
    run = wire.run()
    big = json.dumps({"run_id": run, "tags": [{"key": "a", "value": "x" * 1_100_000}]}).encode()

    reply = wire.ask("POST", "runs/log-batch", body=big)
    claimed = wire.control.client.raw(head(wire, "runs/log-batch", 10**15))

    assert (reply.status, reply.json["error_code"]) == (413, INVALID)
    assert b" 413 " in claimed.partition(b"\r\n")[0]


def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(wire: Wire) -> None:
    run = wire.run()
    body = json.dumps({"run_id": run, "key": "a", "value": "b"}).encode()
    host, port = wire.control.client.host.split(":")

    for cut in (0, 1, len(body) - 1):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(head(wire, "runs/set-tag", len(body)) + body[:cut])

    tags = wire.told(run)["data"]["tags"]
    assert [tag["key"] for tag in tags] == ["mlflow.runName"]


@pytest.mark.parametrize(
    "query",
    [
        "run_id",
        "run_id=%ff",
        "run_id=%00",
        "&&&&",
        "run_id=" + "x" * 60_000,
        "x=1&" * 9000,
        "x=1&" * 20_000,
        "run_id=a&run_id=b",
        "%",
        "run_id=%zz",
    ],
)
def test_a_query_that_nobody_should_send_is_refused(wire: Wire, query: str) -> None:
    reply = wire.control.client.ask("GET", f"{API}runs/get?{query}")

    assert reply.status in (400, 404, 414, 431), (reply.status, reply.text[:200])


# --- who asks ---


@pytest.mark.parametrize("path", ["runs/log-batch", "experiments/create"])
def test_a_body_that_stops_in_the_middle_does_not_hold_its_connection(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("andon.serving.connection.SILENT_S", 0.2)
    head = f"POST {API}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    answer = wire.control.anonymous.raw(head.encode() + b'Content-Length: 1000\r\n\r\n{"name": "half')

    assert answer == b""
    assert wire.get("experiments/get", experiment_id="0")["experiment"]["name"] == "Default"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def ask(control: Control, **headers: str) -> Reply:
    return Client(control.address, **headers).get(f"{API}experiments/get?experiment_id=0")


def test_the_token_is_taken_as_bearer_or_as_any_users_password(wire: Wire) -> None:
    token = wire.control.state.token

    for given in (f"Bearer {token}", f"bearer {token}", basic("anybody", token), basic("", token)):
        assert ask(wire.control, Authorization=given).status == 200


@pytest.mark.parametrize(
    "given",
    [
        "Bearer wrong",
        "Bearer",
        "Bearer ",
        "",
        "Basic",
        "Basic !!!",
        basic("a", "wrong"),
        basic("a", ""),
        "Digest x",
        "Basic " + "A" * 5000,
        "Bearer ü",
    ],
)
def test_a_wrong_token_is_refused_even_from_ones_own_user(wire: Wire, given: str) -> None:
    connection = Client(wire.control.address)

    reply = connection.ask(
        "GET",
        f"{API}experiments/get?experiment_id=0",
        Authorization=given.encode("latin-1").decode("latin-1"),
    )

    assert (reply.status, reply.json["error_code"]) == (401, "UNAUTHENTICATED")
    assert "message" in reply.json


@pytest.mark.parametrize("name", ["Forwarded", "Via", "X_Forwarded_For", "X_Forwarded_Host", "X_Real_Ip"])
def test_what_a_proxy_brings_is_nobodys_own(wire: Wire, name: str) -> None:
    address = f"{API}experiments/search?max_results=1"

    reply = wire.control.anonymous.ask("GET", address, **{name: "203.0.113.9"})

    assert (reply.status, wire.control.anonymous.ask("GET", address).status) == (401, 200)


def test_without_a_token_the_kernel_must_say_whose_connection_it_is(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ask(wire.control)
    monkeypatch.setattr("andon.web.state.peer_uid", lambda *_: None)
    unknown = ask(wire.control)
    monkeypatch.setattr("andon.web.state.peer_uid", lambda *_: 12345)
    stranger = ask(wire.control)

    assert (own.status, unknown.status, stranger.status) == (200, 401, 401)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "[::1", "a b", ""]
)
def test_a_foreign_host_is_refused(wire: Wire, host: str) -> None:
    reply = wire.control.client.ask("GET", f"{API}experiments/get?experiment_id=0", Host=host)

    assert (reply.status, reply.json["error_code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_another_sites_page_is_refused(wire: Wire, headers: dict[str, str]) -> None:
    client = wire.control.client

    for reply in (
        client.ask("GET", f"{API}experiments/get?experiment_id=0", **headers),
        client.ask("POST", f"{API}experiments/create", b"{}", **headers),
    ):
        assert (reply.status, reply.json["error_code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.capability("N1")
def test_who_may_only_look_cannot_write(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    state = wire.control.state
    run = wire.run()
    monkeypatch.setattr(state, "owner", Principal(state.owner.actor, "viewer"))

    assert wire.told(run)["info"]["run_id"] == run
    assert wire.post("runs/search", experiment_ids=["0"]) is not None
    assert wire.post("experiments/search", max_results=1)["experiments"]
    for path, form in (
        ("runs/create", {"experiment_id": "0"}), ("runs/update", {"run_id": run}), ("runs/delete", {"run_id": run}),
        ("runs/restore", {"run_id": run}), ("runs/log-metric", {}), ("runs/log-parameter", {}), ("runs/log-batch", {}),
        ("runs/set-tag", {}), ("runs/delete-tag", {}), ("runs/log-inputs", {}), ("runs/outputs", {}), ("runs/log-model", {}),
        ("experiments/create", {"name": "x"}), ("experiments/update", {}), ("experiments/delete", {"experiment_id": "0"}),
        ("experiments/restore", {}), ("experiments/set-experiment-tag", {}), ("experiments/delete-experiment-tag", {}),
    ):  # fmt: skip
        reply = wire.ask("POST", path, form)
        assert (reply.status, reply.json["error_code"]) == (403, "PERMISSION_DENIED"), path
    denied = wire.store.read(lambda reader: reader.ledger.latest(limit=1))
    assert denied[0].kind == "access.denied"


def test_answers_are_json_with_a_request_id_and_are_not_kept_by_browsers(wire: Wire) -> None:
    good = wire.ask("GET", "experiments/get", {"experiment_id": "0"})
    bad = wire.ask("GET", "experiments/get", {"experiment_id": "987654321"})

    for reply in (good, bad):
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["cache-control"] == "no-store"
        assert len(reply.headers["x-request-id"]) == 32
    wire.refused(ABSENT, "GET", "experiments/get", {"experiment_id": "987654321"})


def test_a_huge_search_answer_is_one_answer(wire: Wire) -> None:
    home = wire.experiment()
    for _ in range(30):
        run = wire.run(home)
        wire.post(
            "runs/log-batch", run_id=run, params=[{"key": f"p{n}", "value": "x" * 6000} for n in range(20)]
        )

    found: list[Any] = wire.post("runs/search", experiment_ids=[home])["runs"]

    assert sum(len(each["data"]["params"]) for each in found) == 600
