"""The Now page without script: what it says in each state, its forms, and hostile text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from andon.core.ids import node
from andon.web.ui.render import page, statics
from tests.web.client import Client
from tests.web.conftest import Control, serving
from tests.web.examples import AT, VIEWS
from tests.web.world import World, opened

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg/onload=alert(3)> {{7*7}} \u202e&amp;"
VOID = {"meta", "link", "input", "br", "img", "circle", "path", "rect", "line"}


class Reader(HTMLParser):
    """Reads a page strictly: elements close in order, and what was seen is kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def words(html: str) -> str:
    """The text of a page, its spaces made plain."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html).replace("\u00a0", " "))


@pytest.mark.parametrize("name", VIEWS)
def test_a_page_of_each_state_is_well_formed_and_keeps_to_its_policy(name: str) -> None:
    found = Reader(page("now.html", now=VIEWS[name], who="ann", notice=None))

    ids = [attrs["id"] for _, attrs in found.seen if "id" in attrs]
    labels = {attrs["for"] for tag, attrs in found.seen if tag == "label"}
    assert len(set(ids)) == len(ids)
    assert labels <= set(ids)
    for tag, attrs in found.seen:
        assert tag != "style"
        assert tag != "script" or attrs.get("src")
        assert not [attr for attr in attrs if attr == "style" or attr.startswith("on")]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("healthy", ["flights is healthy", "100 % flights v2 stable", "Undo: 100% to v1", "On record: ann.", "flights v2 live",
                     "Gates passed: auc 0.703", "Trained because of falling performance", "curl http://127.0.0.1:8080/predict"]),
        ("rolling", ["90 % flights v2 stable", "10 % flights v3 candidate", "Undo: 100% to v2", "Takes v3 off", "13 to 1",
                     "41 of 188", "1 alert is open",
                     "Releases that are gone: 900 requests, 3 failed", "AUC 0.612", "waits for 1 approval"]),
        ("held", ["flights is held after an undo", "flights v2 undone", "by ann", "late arrivals look wrong",
                  "Resume releases"]),
        ("failing", ["flights is failing", "310 failed", "silent: gateway-1", "No requests in the last 5 minutes",
                     "No earlier release to go back to"]),
        ("down", ["No release answers"]),
        ("empty", ["Nothing is live yet", "andon init churn", "andon up"]),
        ("waiting", ["Line flights: no model has passed its gates yet", "andon run"]),
    ],
)  # fmt: skip
def test_a_page_answers_the_questions_of_who_is_on_call(name: str, says: list[str]) -> None:
    text = words(page("now.html", now=VIEWS[name], who="ann", notice=None))

    assert [each for each in says if each not in text] == []


def test_times_say_when_exactly_to_who_hovers() -> None:
    html = page("now.html", now=VIEWS["healthy"], who="ann", notice=None)

    assert (
        '<time datetime="2026-03-04T11:56:15Z" title="2026-03-04 11:56:15 UTC">34\u00a0min\u00a0ago</time>'
        in html
    )
    assert (
        AT.isoformat(sep=" ", timespec="seconds").replace("+00:00", "\u00a0UTC").replace(" ", "\u00a0")
        in html
    )


def test_the_page_says_what_is_live_and_its_twin_says_the_same(control: Control) -> None:
    reply = control.browser().get("/")
    twin = control.client.get("/now.json").json

    text = words(reply.text)
    assert "<title>Now - what is live - Andon</title>" in reply.text
    assert twin["headline"] in text
    assert "400 requests in 5 min, 0 failed." in text
    assert twin["endpoints"][0]["undo"] == {
        "effect": "100% to v1",
        "release": "rel_2",
        "gone": "v2",
        "back_to": "v1",
    }
    assert (
        f"On record: {control.client.get('/now.json').json and control.state.name_of(control.state.owner)}."
        in text
    )
    assert "http://127.0.0.1:18080/predict/flights" in text


def test_the_undo_form_works_without_script_and_says_once_what_it_did(control: Control) -> None:
    browser = control.browser()

    done = browser.form("/endpoints/flights/undo", {"release": "rel_2", "reason": "late arrivals look wrong"})
    first, second = words(browser.get("/").text), words(browser.get("/").text)

    assert (done.status, done.headers["location"]) == (303, "/")
    assert "Undone: flights v2 All requests to flights go to flights v1." in first
    assert "Undone:" not in second
    for text in (first, second):
        assert "flights is held after an undo" in text
        assert "late arrivals look wrong" in text


def test_pressing_undo_twice_undoes_once(control: Control) -> None:
    browser = control.browser()
    form = {"release": "rel_2"}

    first = browser.form("/endpoints/flights/undo", form)
    second = browser.form("/endpoints/flights/undo", form, Accept="text/html")

    assert (first.status, second.status) == (303, 409)
    assert "is not on endpoint" in words(second.text)
    assert control.client.get("/now.json").json["endpoints"][0]["arms"][0]["version"] == 1


def test_resume_lets_the_endpoint_move_and_says_so(control: Control) -> None:
    browser = control.browser()
    browser.form("/endpoints/flights/undo")

    browser.form("/endpoints/flights/resume")

    assert "Resumed: releases to flights may move again" in words(browser.get("/").text)
    assert control.client.get("/now.json").json["endpoints"][0]["held"] is False


def test_with_script_only_the_notice_comes_back(control: Control) -> None:
    browser = control.browser()

    done = browser.form("/endpoints/flights/undo", {"release": "rel_2"}, HX_Request="true")
    refused = browser.form("/endpoints/flights/undo", {"release": "rel_2"}, HX_Request="true")

    assert (done.status, refused.status) == (200, 409)
    assert refused.headers["hx-retarget"] == "#notice"
    for reply in (done, refused):
        assert reply.text.lstrip().startswith('<div class="notice')
        Reader(reply.text)


@pytest.mark.parametrize(
    "body",
    [
        b"release=rel_2&release=rel_1",
        b"\xff\xfe",
        b"reason",
        b"a=1&" * 20,
        b"reason=" + b"x" * 1001,
        b"reason=a%00b",
    ],
)
def test_a_form_no_browser_sends_changes_nothing(shared: Control, body: bytes) -> None:
    kind = "application/x-www-form-urlencoded"

    reply = shared.browser().ask("POST", "/endpoints/flights/undo", body, Content_Type=kind)

    assert reply.status == 400
    assert shared.client.get("/now.json").json["endpoints"][0]["held"] is False


def test_hostile_text_stays_text(tmp_path) -> None:
    with opened(tmp_path) as world:
        world.versions(2)
        world.live(2, previous=1)
        name(world, HOSTILE)
        world.alert(HOSTILE)
        world.event("alert.closed", node("alert", HOSTILE))
        with serving(world) as control:
            browser = control.browser()
            browser.form("/endpoints/flights/undo", {"reason": HOSTILE})
            html = browser.get("/").text

    found = Reader(html)
    assert html.count("&lt;script&gt;alert(1)") >= 3
    assert "<script>alert" not in html
    assert "{{7*7}}" in html
    assert not [attrs for _, attrs in found.seen if "onerror" in attrs or "onload" in attrs]


def test_hostile_text_in_an_address_is_not_said_back_as_a_page(shared: Control) -> None:
    for path in (f"/{HOSTILE_PATH}", f"/login?code={HOSTILE_PATH}", f"/login?{HOSTILE_PATH}=1"):
        reply = shared.client.get(path, Accept="text/html")

        assert reply.status >= 400
        assert "<script>alert" not in reply.text


HOSTILE_PATH = "%3Cscript%3Ealert(1)%3C/script%3E"


def name(world: World, text: str) -> None:
    """Give the line's actor another name."""

    def work(tx) -> None:
        for actor in (world.line, world.person):
            row = tx.personal.get(node("actor", actor.id))
            tx.personal.change(
                type(row)(id=row.id, rev=row.rev, subject=row.subject, salt=row.salt, text=text)
            )

    world.ws.store.write(work)


def test_who_is_not_logged_in_sees_how_to_and_no_more(shared: Control) -> None:
    reply = shared.anonymous.get("/", Accept="text/html,application/xhtml+xml")

    Reader(reply.text)
    assert reply.status == 401
    assert "Open the link that andon up prints" in words(reply.text)
    assert "flights" not in reply.text


def test_logging_in_leads_to_the_page_without_script(shared: Control) -> None:
    reply = shared.anonymous.get(f"/login?code={shared.state.codes.mint()}")

    assert ("meta", {"http-equiv": "refresh", "content": "0;url=/"}) in Reader(reply.text).seen


def test_a_problem_is_a_page_to_a_person_and_json_to_a_script(shared: Control) -> None:
    as_page = shared.client.get("/nothing", Accept="text/html")
    as_json = shared.client.get("/api/nothing", Accept="text/html")

    assert as_page.headers["content-type"].startswith("text/html")
    assert "request " + as_page.headers["x-request-id"] in as_page.text
    assert as_json.json["error_code"] == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize(
    "name", ["andon.css", "andon.js", "lamp-good.svg", "vendor/htmx.org-4.0.1/htmx.min.js"]
)
def test_a_static_file_is_kept_for_as_long_as_its_content_is_the_same(shared: Control, name: str) -> None:
    found = statics()[name]

    hashed, plain = (shared.anonymous.get(path) for path in (found.address, f"/static/{name}"))

    assert hashed.body == plain.body == found.data
    assert "immutable" in hashed.headers["cache-control"]
    assert plain.headers["cache-control"] == "no-cache"


def test_the_first_page_is_small(shared: Control) -> None:
    browser = Client(shared.address, **shared.browser().headers, Accept_Encoding="gzip")
    html = shared.browser().get("/").text
    linked = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', html))

    replies = [browser.get(path) for path in ("/", *linked)]

    assert [reply.status for reply in replies] == [200] * len(replies)
    assert len(replies) <= 20
    assert sum(len(reply.body) + len(str(reply.headers)) for reply in replies) <= 100_000
