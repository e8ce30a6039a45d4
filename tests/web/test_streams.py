"""Streams: nothing is missed or told twice, a broken one goes on where it was, and none outlives its session or process."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from andon.core.errors import Unavailable
from andon.core.ids import node
from andon.web import feed, pages, state
from andon.web.feed import message, position
from tests.web.client import EventStream
from tests.web.conftest import Control

DEADLINE_S = 20.0


def until(check: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""
    deadline = time.monotonic() + DEADLINE_S
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def happen(control: Control, count: int) -> None:
    for _ in range(count):
        control.world.event("backup.made", node("line", "flights"))


def head(control: Control) -> int:
    return int(control.client.get("/api/events").json["head"])


def seqs(stream: EventStream, count: int) -> list[int]:
    return [int(each.id) for each in itertools.islice(stream.messages(), count)]


def test_a_stream_tells_what_happens_from_now_on(control: Control) -> None:
    before = head(control)
    with control.client.stream("/api/events/stream") as stream:
        next(stream.lines())
        until(lambda: control.state.feed.head == before)

        happen(control, 3)

        assert seqs(stream, 3) == [before + 1, before + 2, before + 3]
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-store"


def test_a_stream_goes_on_after_the_last_event_its_reader_has_seen(control: Control) -> None:
    with control.client.stream("/api/events/stream?after=2") as stream:
        first = seqs(stream, 2)

    happen(control, 1)
    with control.client.stream("/api/events/stream", Last_Event_ID=str(first[-1])) as stream:
        rest = seqs(stream, head(control) - first[-1])

    assert first + rest == list(range(3, head(control) + 1))


def test_a_reader_that_is_ahead_of_a_restored_ledger_hears_what_comes(control: Control) -> None:
    before = head(control)
    with control.client.stream("/api/events/stream", Last_Event_ID="999999") as stream:
        next(stream.lines())
        until(lambda: control.state.feed.head == before)
        happen(control, 1)

        assert seqs(stream, 1) == [before + 1]


def test_more_events_than_one_batch_holds_are_all_told(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BATCH", 2)

    with control.client.stream("/api/events/stream?after=0") as stream:
        assert seqs(stream, head(control)) == list(range(1, head(control) + 1))


def test_a_quiet_stream_stays_alive(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "KEEPALIVE_S", 0.05)

    with control.client.stream("/api/events/stream") as stream:
        assert next(line for line in stream.lines() if line.startswith(":")) == ": keepalive"


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "", "9" * 30])
def test_a_position_that_is_none_is_refused_before_the_stream_begins(shared: Control, given: str) -> None:
    reply = shared.client.get("/api/events/stream", Last_Event_ID=given)

    assert (reply.status, reply.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_the_header_wins_over_the_query() -> None:
    assert [position("7", 3), position(None, 3), position(None, None)] == [7, 3, None]


def test_a_reader_that_hangs_up_is_forgotten(control: Control) -> None:
    streams = [control.client.stream("/api/events/stream") for _ in range(3)]
    until(lambda: control.state.streams.count == 3)

    for stream in streams:
        stream.close()

    until(lambda: control.state.streams.count == 0)
    until(lambda: not control.state.feed.running)


def test_only_so_many_streams_are_open_at_once(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MOST_STREAMS", 1)
    with control.client.stream("/api/events/stream"):
        until(lambda: control.state.streams.count == 1)

        reply = control.client.get("/api/events/stream")

    assert (reply.status, reply.headers["retry-after"]) == (503, "1")


def test_a_stream_ends_with_its_session(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "KEEPALIVE_S", 0.05)
    browser = control.browser()
    with browser.stream("/api/events/stream") as stream:
        next(stream.lines())

        browser.form("/logout")

        assert list(stream.messages()) == []


def test_a_stream_ends_when_the_ledger_cannot_be_read(
    control: Control, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> int:
        raise Unavailable("the database does not answer")

    with control.client.stream("/api/events/stream") as stream:
        next(stream.lines())
        monkeypatch.setattr(control.world.ws.store, "read", broken)

        assert list(stream.messages()) == []
    assert "the database does not answer" in caplog.text


def test_the_page_is_told_again_when_it_changes(control: Control) -> None:
    with control.browser().stream("/now/stream") as stream:
        messages = stream.messages()
        first = next(messages).data

        control.world.alert()
        later = next(each.data for each in messages if "AUC 0.612" in each.data)

    assert "AUC 0.612" not in first
    assert 'id="endpoint-flights"' in later
    assert "<html" not in later


def test_the_page_is_not_told_again_while_it_says_the_same(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "REFRESH_S", 0.02)
    monkeypatch.setattr(pages, "KEEPALIVE_S", 0.1)
    monkeypatch.setattr(
        pages, "_fragment", lambda *_: (pages.now_view(control.world.ws, control.state.traffic), "same")
    )

    with control.browser().stream("/now/stream") as stream:
        lines = list(itertools.islice(stream.lines(), 4))

    assert lines == ["data: same", "", ": keepalive", ""]


def test_a_message_keeps_its_lines() -> None:
    assert message("<p>\n\n</p>") == b"data: <p>\ndata: \ndata: </p>\n\n"


def test_streams_that_come_and_go_leave_nothing_behind(control: Control) -> None:
    def cycle(count: int) -> tuple[int, int]:
        for _ in range(count):
            with control.client.stream("/api/events/stream") as stream:
                next(stream.lines())
            control.client.get("/api/status")
        until(lambda: control.state.streams.count == 0)
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = cycle(20)

    after = cycle(150)

    assert after[0] <= before[0] + 5
    assert after[1] <= before[1] + 5
