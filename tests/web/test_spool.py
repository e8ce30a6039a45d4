"""What `andon.run` delivers over HTTP: entries once, files part by part, and nothing that does not fit."""

from __future__ import annotations

import json
import random
import threading
from urllib.parse import quote

import msgspec
import pytest

from andon.core.canonical import digest_bytes
from andon.core.ids import RunId
from andon.tracking.native.entries import Delivery, Entry, Kept, Opening, Points, Tags, encode
from andon.tracking.native.targets import PACKED, PART_BYTES
from andon.web.api import spool
from tests.tracking.trained import trained
from tests.web.client import Client, Reply
from tests.web.conftest import Control

RUN = RunId("c" * 32)
OPENING = Opening(
    run=RUN, writer="a" * 16, opened_ms=1_700_000_000_000, experiment="http", claimed_user="mallory"
)
DATA = random.Random(26).randbytes(5000)
DIGEST = digest_bytes(DATA)


def deliver(client: Client, *entries: Entry, opening: Opening = OPENING, run: str = RUN) -> Reply:
    body = encode(Delivery(opening=opening, entries=list(entries)))
    return client.ask("POST", f"/api/runs/{run}/entries", body, Content_Type=PACKED)


def upload(
    client: Client, data: bytes, *, start: int = 0, size: int | None = len(DATA), digest: str = DIGEST
) -> Reply:
    query = "" if size is None else f"?start={start}&size_bytes={size}"
    return client.ask("POST", f"/api/runs/{RUN}/files/{quote(digest)}{query}", data, Content_Type=PACKED)


@pytest.mark.capability("C2")
def test_the_run_is_of_who_is_authenticated_and_the_rest_is_a_claim(control: Control) -> None:
    reply = deliver(control.client, Tags(1, 1_700_000_000_000, {"a": "b"}))

    run = trained(control.world.ws.store, RUN).run
    assert (reply.status, reply.json["seq"]) == (200, 1)
    assert (run.actor, run.claimed_user) == (control.world.person.id, "mallory")


def test_entries_are_taken_in_json_too(control: Control) -> None:
    body = {
        "opening": msgspec.to_builtins(OPENING),
        "entries": [["metrics", 1, 1_700_000_000_000, 0, {"loss": "NaN", "acc": 0.5}]],
    }

    reply = control.client.post(f"/api/runs/{RUN}/entries", body)

    assert reply.status == 200
    assert trained(control.world.ws.store, RUN).metrics["acc"] == [(0, 0.5)]


def test_what_is_delivered_twice_at_once_counts_once(control: Control) -> None:
    entries = [Points(seq, 1_700_000_000_000, seq, {"x": float(seq)}) for seq in range(1, 300)]
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(deliver(control.client, *entries))) for _ in range(8)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {(reply.status, reply.json["seq"]) for reply in replies} == {(200, 299)}
    assert trained(control.world.ws.store, RUN).metrics == {"x": [(seq, float(seq)) for seq in range(1, 300)]}


@pytest.mark.parametrize(
    ("run", "data", "kind", "why"),
    [
        (RUN, b"\xc1\xc1", PACKED, "cannot be read"),
        (RUN, b"{}", "application/json", "cannot be used"),
        (RUN, b"{", "application/json", "cannot be read"),
        (RUN, b"a=b", "application/x-www-form-urlencoded", "the body is application/x-www-form-urlencoded"),
        ("d" * 32, encode(Delivery(opening=OPENING)), PACKED, "the delivery is of run"),
        (
            "x",
            encode(Delivery(opening=msgspec.structs.replace(OPENING, run=RunId("x")))),
            PACKED,
            "not the id of a run",
        ),
        (RUN, encode(Delivery(opening=msgspec.structs.replace(OPENING, opened_ms=2**62))), PACKED, "no time"),
        (RUN, encode(Delivery(opening=msgspec.structs.replace(OPENING, v=9))), PACKED, "has version 9"),
    ],
)
def test_a_delivery_that_cannot_be_is_refused_and_leaves_nothing(
    control: Control, run: str, data: bytes, kind: str, why: str
) -> None:
    reply = control.client.ask("POST", f"/api/runs/{run}/entries", data, Content_Type=kind)

    assert reply.status == 400
    assert why in reply.json["message"]
    assert control.world.ws.store.read(lambda reader: reader.runs.find(RUN)) is None


def test_a_body_that_is_too_large_is_not_read(control: Control) -> None:
    reply = control.client.ask(
        "POST", f"/api/runs/{RUN}/entries", b"x" * (spool.ENTRIES_LIMIT + 1), Content_Type=PACKED
    )

    assert (reply.status, reply.json["error_code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("role", ["viewer", "client"])
def test_who_may_not_run_may_deliver_nothing(control: Control, role: str) -> None:
    browser = control.browser(role)

    assert [deliver(browser).status, upload(browser, DATA).status] == [403, 403]


def test_on_this_machine_ones_own_user_needs_no_token(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = deliver(control.anonymous).status
    monkeypatch.setattr("andon.web.state.peer_uid", lambda *_: 12345)

    assert (own, deliver(control.anonymous).status) == (200, 401)


# --- files ---


def test_a_file_comes_in_parts_and_is_stored_when_it_is_whole(control: Control) -> None:
    replies = [upload(control.client, DATA[start : start + 2000], start=start) for start in (0, 2000, 4000)]

    assert [reply.json for reply in replies] == [
        {"received_bytes": 2000, "stored": False},
        {"received_bytes": 4000, "stored": False},
        {"received_bytes": 5000, "stored": True},
    ]
    assert control.world.ws.blobs.get(DIGEST) == DATA


def test_a_part_that_is_not_the_next_changes_nothing_and_says_which_is(control: Control) -> None:
    upload(control.client, DATA[:2000])

    again = upload(control.client, DATA[:2000])
    early = upload(control.client, DATA[4000:], start=4000)
    asked = upload(control.client, b"", size=None)

    assert [reply.json["received_bytes"] for reply in (again, early, asked)] == [2000, 2000, 2000]
    assert upload(control.client, DATA[2000:], start=2000).json["stored"] is True


def test_a_file_that_is_there_already_is_not_sent_again(control: Control) -> None:
    control.world.ws.blobs.put(DATA)

    assert upload(control.client, b"", size=None).json == {"received_bytes": 5000, "stored": True}


def test_an_empty_file_is_a_file(control: Control) -> None:
    assert upload(control.client, b"", size=0, digest=digest_bytes(b"")).json == {
        "received_bytes": 0,
        "stored": True,
    }


@pytest.mark.parametrize(
    ("data", "size", "digest", "why"),
    [
        (b"x" * 5000, 5000, DIGEST, "the bytes of the file"),
        (b"x" * 5000, 10, DIGEST, "is longer than the 10 bytes"),
        (DATA, 5000, "sha256:../../../etc/passwd", "there is nothing at"),
        (DATA, 5000, "md5:00", "is not a digest"),
        (DATA, -1, DIGEST, "size_bytes"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    control: Control, data: bytes, size: int, digest: str, why: str
) -> None:
    reply = upload(control.client, data, size=size, digest=digest)

    assert reply.status in (400, 404)
    assert why in reply.json["message"]
    assert not control.world.ws.blobs.has(DIGEST)
    assert upload(control.client, DATA).json["stored"] is True  # nothing of it is in the way


def test_a_part_that_is_too_large_is_not_taken(control: Control) -> None:
    reply = upload(control.client, b"x" * (PART_BYTES + 2048), size=PART_BYTES * 2)

    assert reply.status == 413


def test_a_file_is_named_when_its_bytes_are_there(control: Control) -> None:
    kept = Kept(1, 1_700_000_000_000, "plots/a.bin", DIGEST, len(DATA))
    other = msgspec.structs.replace(OPENING, writer="b" * 16, helper=True)

    too_soon = deliver(control.client, kept)
    upload(control.client, DATA)
    in_time = deliver(control.client, kept, opening=other)

    assert [refused["seq"] for refused in too_soon.json["refused"]] == [1]
    assert in_time.json["refused"] == []
    assert trained(control.world.ws.store, RUN).files == {"plots/a.bin": DIGEST}


def test_files_that_nobody_goes_on_with_are_given_up(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MOST_UPLOADS", 3)
    waiting = control.world.ws.layout.blobs / "tmp"
    for number in range(10):
        data = bytes([number]) * 100
        upload(control.client, data[:50], size=100, digest=digest_bytes(data))

    assert len(list(waiting.iterdir())) <= 4


def test_an_mlflow_client_sees_the_run_like_any_other(control: Control) -> None:
    deliver(
        control.client, Points(1, 1_700_000_000_000, 0, {"loss": 0.5}), Tags(2, 1_700_000_000_000, {"a": "b"})
    )

    reply = control.client.get(f"/api/2.0/mlflow/runs/get?run_id={RUN}")

    assert reply.status == 200
    run = json.loads(reply.body)["run"]
    assert run["info"]["user_id"] == "mallory"
    assert run["data"]["metrics"][0]["value"] == 0.5
    assert {"key": "a", "value": "b"} in run["data"]["tags"]
