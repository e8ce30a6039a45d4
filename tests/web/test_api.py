"""What the API tells and does, asked for as a script does."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from andon.core.errors import AndonError
from andon.core.ids import prediction_id
from andon.web.api.actions import FEEDBACK_LIMIT, MOST_ITEMS
from andon.web.endpoints import BODY_LIMIT
from tests.web.client import Reply
from tests.web.conftest import Control

UNDO = "/api/endpoints/flights/undo"
UNKNOWN = prediction_id(1_700_000_000_000, 77, 5)


def answered(control: Control) -> list[str]:
    """Ids of predictions that are in the log."""
    return [str(ident) for ident in control.world.asked(2, 3)]


def labels(control: Control) -> int:
    return control.world.ws.store.read(lambda reader: reader.feedback.count())


def test_status_names_what_is_live(shared: Control) -> None:
    status = shared.client.get("/api/status").json

    assert [(row["endpoint"], row["live"]["number"], row["held"]) for row in status["endpoints"]] == [
        ("flights", 2, False)
    ]
    assert [line["id"] for line in status["lines"]] == ["flights"]


def test_lists_come_in_pages_newest_first_and_miss_nothing(shared: Control) -> None:
    found: list[str] = []
    after = ""
    while True:
        page = shared.client.get(f"/api/runs?limit=2{after}").json
        found += [run["id"] for run in page["runs"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"

    assert [int(ident, 16) for ident in found] == [3, 2, 1]


@pytest.mark.parametrize(
    ("path", "key", "want"),
    [
        ("/api/lines", "lines", ["flights"]),
        ("/api/runs?line=nothing", "runs", []),
        ("/api/runs?state=finished&limit=1", "runs", [f"{3:032x}"]),
        ("/api/models/flights/versions", "versions", ["mv_3", "mv_2", "mv_1"]),
        ("/api/models/nothing/versions", "versions", []),
        ("/api/releases?endpoint=flights&state=live", "releases", ["rel_2"]),
        ("/api/alerts", "alerts", []),
    ],
)
def test_lists_are_filtered(shared: Control, path: str, key: str, want: list[str]) -> None:
    assert [row["id"] for row in shared.client.get(path).json[key]] == want


def test_a_run_comes_with_its_metrics(shared: Control) -> None:
    found = shared.client.get(f"/api/runs/{2:032x}").json

    assert (found["run"]["state"], found["metrics"], found["params"]) == ("finished", {"auc": 0.72}, {})


def test_events_are_told_in_order_from_anywhere(shared: Control) -> None:
    everything = shared.client.get("/api/events?limit=500").json
    rest = shared.client.get("/api/events?after=3&limit=2").json

    assert [event["seq"] for event in everything["events"]] == list(range(1, everything["head"] + 1))
    assert [event["seq"] for event in rest["events"]] == [4, 5]
    assert rest["next"] == 5
    assert shared.client.get(f"/api/events?after={everything['head']}").json["events"] == []


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/runs?limit=0", 400, "limit"),
        ("/api/runs?limit=501", 400, "limit"),
        ("/api/runs?limit=ten", 400, "limit"),
        ("/api/runs?limit=1&limit=2", 400, "twice"),
        ("/api/runs?colour=red", 400, "colour"),
        ("/api/runs?state=sleeping", 400, "'sleeping' is not a state of a run"),
        ("/api/runs?after=nothing", 404, "nothing"),
        ("/api/runs?line=" + "x" * 300, 400, "line"),
        ("/api/runs/nothing", 404, "nothing"),
        ("/api/events?after=-1", 400, "after"),
        ("/api/events?after=99999999999999999999", 400, "after"),
        ("/api/impact", 400, "node"),
        ("/api/why/nothing", 400, "not a prediction id"),
        (f"/api/why/{UNKNOWN}", 404, UNKNOWN),
        ("/api/events/stream?after=x", 400, "after"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    shared: Control, path: str, status: int, says: str
) -> None:
    reply = shared.client.get(path)

    assert (reply.status, says in reply.json["message"]) == (status, True), reply.json


# --- actions ---


def test_a_run_is_asked_for_by_who_holds_the_token(control: Control) -> None:
    reply = control.client.post("/api/lines/flights/runs", {"faults": ["shuffled-labels"]})

    assert reply.status == 202
    assert reply.json["faults"] == ["shuffled-labels"]
    assert reply.json["actor"] == control.world.person.id
    assert control.client.post("/api/lines/flights/runs").status == 400


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/lines/nothing/runs", {}, 404),
        ("/api/lines/flights/runs", {"faults": ["fire"]}, 400),
        ("/api/lines/flights/runs", {"fault": []}, 400),
        ("/api/lines/flights/runs", [], 400),
        ("/api/lines/flights/watermark", {"at": "yesterday"}, 400),
        ("/api/lines/flights/watermark", {"at": "2013-04-01T00:00:00"}, 400),
        ("/api/lines/flights/watermark", {}, 400),
        ("/api/endpoints/nothing/undo", {}, 404),
        ("/api/endpoints/flights/undo", {"reason": "x" * 1001}, 400),
        ("/api/endpoints/flights/undo", {"reason": 1}, 400),
        ("/api/endpoints/nothing/resume", None, 404),
        ("/api/releases/nothing/approve", None, 404),
        ("/api/releases/nothing/approve", {}, 400),
    ],
)
def test_an_action_that_cannot_be_done_changes_nothing(
    shared: Control, path: str, body: object, status: int
) -> None:
    before = shared.client.get("/api/events").json["head"]

    reply = shared.client.post(path, body)

    assert (reply.status, shared.client.get("/api/events").json["head"]) == (status, before)


def test_a_watermark_moves_forward_only(control: Control) -> None:
    told = [
        control.client.post("/api/lines/flights/watermark", {"at": at}).json["watermark"]
        for at in ("2013-04-02T00:00:00Z", "2013-04-01T00:00:00+02:00")
    ]

    assert told == ["2013-04-02T00:00:00Z"] * 2


@pytest.mark.capability("E6")
def test_undo_sends_traffic_back_and_says_who_did_it_and_why(control: Control) -> None:
    reply = control.client.post(UNDO, {"reason": "late arrivals look wrong"})

    status = control.client.get("/api/status").json["endpoints"][0]
    done = next(
        event
        for event in control.client.get("/api/events").json["events"]
        if event["kind"] == "release.undone"
    )
    assert (reply.status, reply.json["release"], reply.json["back_to"]) == (200, "rel_2", "rel_1")
    assert (status["live"]["number"], status["held"], status["generation"]) == (1, True, 200)
    assert (done["actor"], done["subject"]) == (control.world.person.id, "release:rel_2")


def test_undo_of_a_candidate_leaves_the_live_release(canary: Control) -> None:
    reply = canary.client.post(UNDO, {})

    assert (reply.json["release"], reply.json["back_to"]) == ("rel_3", "rel_2")


def test_an_undo_of_a_release_that_is_gone_already_undoes_nothing_else(canary: Control) -> None:
    first, second = (canary.client.post(UNDO, {"release": "rel_3"}) for _ in range(2))

    assert (first.status, second.status) == (200, 409)
    assert "is not on endpoint 'flights' any more" in second.json["message"]
    assert canary.client.get("/api/status").json["endpoints"][0]["live"]["number"] == 2


def test_many_undos_at_once_take_one_release_off(canary: Control) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: canary.client.post(UNDO, {"release": "rel_3"}), range(8)))

    assert sorted(reply.status for reply in replies) == [200] + [409] * 7
    assert canary.client.get("/api/status").json["endpoints"][0]["live"]["number"] == 2


def test_undo_with_nothing_before_says_so(control: Control) -> None:
    control.client.post(UNDO, {})

    reply = control.client.post(UNDO, {})

    assert reply.status == 409
    assert "no release to go back to" in reply.json["message"]


def test_resume_lets_a_held_endpoint_move(control: Control) -> None:
    control.client.post(UNDO, {})

    reply = control.client.post("/api/endpoints/flights/resume")

    assert (reply.status, reply.json["held"]) == (200, False)


# --- feedback ---


def test_labels_come_one_by_one_or_many_and_count_once(control: Control) -> None:
    one, two, three = answered(control)
    items = [
        {"prediction_id": ident, "label": 1, "at": "2013-04-01T12:00:00Z"} for ident in (one, two, three)
    ]

    replies = [
        control.client.post("/api/feedback", {"prediction_id": one, "label": 0.0}),
        control.client.post("/api/feedback", {"items": items}),
        control.client.post("/api/feedback", {"items": items}),
        control.client.post("/api/feedback", {"items": []}),
    ]

    assert [(reply.status, reply.json) for reply in replies] == [
        (200, {"recorded": count}) for count in (1, 3, 0, 0)
    ]
    assert labels(control) == 4


def test_one_unknown_prediction_and_no_label_is_recorded(control: Control) -> None:
    items = [{"prediction_id": ident, "label": 1} for ident in (*answered(control), UNKNOWN)]

    reply = control.client.post("/api/feedback", {"items": items})

    assert reply.status == 404
    assert UNKNOWN in reply.json["message"]
    assert labels(control) == 0


@pytest.mark.parametrize(
    "body",
    [
        "{}", "[]", "null", "1", '"x"', "{", "\xff", '{"items": 1}', '{"items": [1]}', '{"items": [{}]}',
        '{"prediction_id": "x"}', '{"prediction_id": "x", "label": 1}', '{"prediction_id": 1, "label": 1}',
        f'{{"prediction_id": "{UNKNOWN}", "label": "late"}}', f'{{"prediction_id": "{UNKNOWN}", "label": NaN}}',
        f'{{"prediction_id": "{UNKNOWN}", "label": 1e999}}', f'{{"prediction_id": "{UNKNOWN}", "label": null}}',
        f'{{"prediction_id": "{UNKNOWN}", "label": 1, "at": "2013-04-01"}}',
        f'{{"prediction_id": "{UNKNOWN}", "label": 1, "weight": 2}}',
        f'{{"items": [], "prediction_id": "{UNKNOWN}"}}', "[" * 100_000,
    ],
)  # fmt: skip
def test_feedback_that_is_none_is_refused(shared: Control, body: str) -> None:
    reply = shared.client.ask(
        "POST", "/api/feedback", body.encode("latin-1"), Content_Type="application/json"
    )

    assert reply.status == 400, reply.json
    assert labels(shared) == 0


def test_more_labels_than_may_come_at_once_are_refused(shared: Control) -> None:
    items = [{"prediction_id": UNKNOWN, "label": 1}] * (MOST_ITEMS + 1)

    reply = shared.client.post("/api/feedback", {"items": items})

    assert (reply.status, "10000" in reply.json["message"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "limit"), [(UNDO, BODY_LIMIT), ("/api/feedback", FEEDBACK_LIMIT), ("/login", 8192)]
)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_over_its_limit_is_refused_before_it_is_read(
    shared: Control, path: str, limit: int, declared: bool
) -> None:
    body = b'{"reason": "' + b"x" * limit + b'"}'
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {shared.state.token}\r\n"
    head += "Content-Type: application/json\r\nConnection: close\r\n"
    if declared:
        sent = f"{head}Content-Length: {10**12}\r\n\r\n".encode()
    else:
        sent = f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"

    answer = shared.anonymous.raw(sent)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error_code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_that_a_foreign_form_could_send_is_no_request(shared: Control, kind: str) -> None:
    reply = shared.client.ask("POST", UNDO, b'{"reason": "x"}', Content_Type=kind)

    assert (reply.status, "application/json" in reply.json["hint"]) == (400, True)


def test_headers_without_end_are_refused(shared: Control) -> None:
    small, large = (
        shared.anonymous.raw(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"x" * size + b"\r\n\r\n"
        )
        for size in (1_000, 200_000)
    )

    assert small.startswith(b"HTTP/1.1 200 ")
    assert large == b"" or large.startswith(b"HTTP/1.1 431 ")


# --- what nobody expected ---


def broken(*_: object) -> Reply:
    raise RuntimeError("the secret is 42")


@pytest.mark.parametrize(
    ("failure", "status"), [(broken, 500), (lambda *_: (_ for _ in ()).throw(AndonError("it broke")), 500)]
)
def test_a_fault_inside_is_a_problem_that_tells_no_secrets(
    control: Control, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    failure: Callable[..., Reply], status: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(control.world.ws, "status", failure)

    reply = control.client.get("/api/status")

    assert (reply.status, reply.json["error_code"]) == (status, "INTERNAL_ERROR")
    assert "secret" not in reply.text
    assert reply.json["request_id"] in caplog.text


def test_the_document_describes_every_path_and_method_of_the_api(shared: Control) -> None:
    document = shared.client.get("/api/openapi.json").json

    assert document["openapi"] == "3.1.0"
    assert document["paths"]["/api/endpoints/{endpoint}/undo"]["post"]["x-permission"] == "undo"
    assert set(document["paths"]["/api/runs"]) == {"get"}
