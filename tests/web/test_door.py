"""The door: foreign names, foreign sites, forged and stale credentials, and what every answer carries."""

from __future__ import annotations

import pytest

from andon.web.state import COOKIE
from tests.web.client import Client, cookie_of
from tests.web.conftest import Control

UNDO = "/api/endpoints/flights/undo"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:5000", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example",
        "127.0.0.1:5000:6000", "127.0.0.1:x", "", "localhost,evil.example", "[::1", "0.0.0.0", "127.0.0.2", "xn--lcalhost-x0a",
    ],
)  # fmt: skip
def test_a_request_under_a_foreign_name_is_refused(shared: Control, host: str) -> None:
    for path in ("/health", "/api/status", "/login"):
        reply = shared.client.get(path, Host=host)

        assert reply.status == 403
        assert "Host header" in reply.json["message"]


def test_a_request_without_a_host_or_with_two_is_refused(shared: Control) -> None:
    for head in (b"", b"Host: 127.0.0.1\r\nHost: evil.example\r\n"):
        answer = shared.anonymous.raw(b"GET /health HTTP/1.1\r\n" + head + b"Connection: close\r\n\r\n")

        assert answer.split(b" ", 2)[1] in (b"400", b"403")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:5000", "127.0.0.1", "[::1]:5000"])
def test_the_loopback_names_are_ours(shared: Control, host: str) -> None:
    assert shared.client.get("/health", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost:3000", "Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {},
    ],
)
@pytest.mark.parametrize("path", [UNDO, "/endpoints/flights/undo", "/endpoints/flights/resume", "/logout"])
def test_another_site_cannot_use_the_session_of_a_browser(
    shared: Control, headers: dict[str, str], path: str
) -> None:
    cookie = shared.browser().headers["Cookie"]
    elsewhere = Client(shared.address, Cookie=cookie, **headers)

    reply = elsewhere.post(path, {}) if path == UNDO else elsewhere.form(path)

    assert reply.status == 403
    assert shared.client.get("/now.json").json["endpoints"][0]["held"] is False


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_the_check_of_the_site_holds_for_every_method_that_may_change(shared: Control, method: str) -> None:
    reply = shared.browser().ask(method, UNDO, Origin="http://evil.example", Sec_Fetch_Site="cross-site")

    assert reply.status == 403


def test_a_method_that_no_http_knows_is_refused_before_anything_looks_at_it(shared: Control) -> None:
    reply = shared.browser().ask("BREW", UNDO)

    assert (reply.status, reply.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert reply.headers["x-request-id"] == reply.json["request_id"]


def test_another_site_cannot_use_a_token_either(shared: Control) -> None:
    assert shared.client.post(UNDO, {}, Origin="http://evil.example").status == 403


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer andon_wrong",
        "Basic YWRtaW46YWRtaW4=",
        "bearer \xe9\xe8",
        "Token x",
        "Bearer " + "a" * 10_000,
    ],
)
def test_a_wrong_token_opens_nothing(shared: Control, given: str) -> None:
    assert shared.anonymous.get("/api/status", Authorization=given).status == 401


def test_a_cookie_does_not_make_a_wrong_token_good(shared: Control) -> None:
    assert shared.browser().get("/api/status", Authorization="Bearer andon_wrong").status == 401


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(shared: Control) -> None:
    reply = shared.anonymous.get(f"/login?code={shared.state.codes.mint()}")

    parts = reply.headers["set-cookie"].split("; ")
    assert parts[0].startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(parts)


def test_a_login_code_opens_one_session(shared: Control) -> None:
    code = shared.state.codes.mint()

    first, second = (shared.anonymous.get(f"/login?code={code}") for _ in range(2))

    assert (first.status, second.status) == (200, 401)
    assert "set-cookie" not in second.headers


def test_the_token_logs_a_browser_in_and_logging_out_ends_the_session(shared: Control) -> None:
    welcome = shared.anonymous.form("/login", {"secret": shared.state.token}, Origin=shared.address)
    browser = Client(shared.address, Cookie=cookie_of(welcome), Origin=shared.address)
    inside = browser.get("/").status

    browser.form("/logout")

    assert (inside, browser.get("/").status) == (200, 401)


def test_a_wrong_secret_logs_nobody_in(shared: Control) -> None:
    reply = shared.anonymous.form("/login", {"secret": "andon_wrong"}, Origin=shared.address)

    assert reply.status == 401
    assert "set-cookie" not in reply.headers


def test_a_login_from_another_site_is_refused(shared: Control) -> None:
    assert (
        shared.anonymous.form("/login", {"secret": shared.state.token}, Origin="http://evil.example").status
        == 403
    )


@pytest.mark.parametrize(
    "path", ["/", "/api/status", "/health", "/login", "/static/andon.css", "/api/nothing"]
)
def test_every_answer_forbids_frames_foreign_content_and_guessing(shared: Control, path: str) -> None:
    for client in (shared.client, shared.anonymous):
        headers = client.get(path).headers

        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert len(headers["x-request-id"]) == 32


@pytest.mark.parametrize("path", ["/", "/now.json", "/api/status", "/login"])
def test_nothing_about_the_workspace_is_kept_by_caches(shared: Control, path: str) -> None:
    assert shared.client.get(path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/render.py",
        "/static//etc/passwd",
        "/static/vendor",
        "/static/",
    ],
)
def test_nothing_but_the_listed_files_is_served(shared: Control, path: str) -> None:
    assert shared.client.get(path).status == 404
    assert shared.anonymous.get(path).status in (401, 404)
