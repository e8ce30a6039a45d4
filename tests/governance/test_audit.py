"""The audit finds every change of the record, and nothing where nothing was changed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.core.clock import SystemClock
from andon.core.errors import LedgerBroken
from andon.core.events import GENESIS, EventDraft
from andon.core.ids import node
from andon.core.workspace import Layout, Settings
from andon.governance import audit
from andon.governance.audit import verify
from andon.store import open_store
from andon.store.blobs import LocalBlobs
from andon.store.ports import Store
from andon.store.predictions import SegmentLog, SegmentWriter, commit_segment
from andon.testing.predictions import record
from andon.testing.worlds import World, seed_world


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / ".andon").create()


@pytest.fixture
def store(layout: Layout) -> Iterator[Store]:
    store = open_store(layout, Settings())
    yield store
    store.close()


@pytest.fixture
def world(layout: Layout, store: Store) -> World:
    """Two generations and one sealed segment."""
    world = seed_world(store, SystemClock(), generations=2)
    log = SegmentLog(layout.predictions, store, LocalBlobs(layout.blobs), SystemClock())
    writer = SegmentWriter(layout.predictions, SystemClock())
    writer.append([record(writer.boot, number, release=world.live.release) for number in range(3)])
    writer.close()
    (ident,) = log.sealable()
    segment = log.seal(ident)
    assert segment is not None
    commit_segment(store, segment, actor=world.line_actor, at=SystemClock().now())
    return world


def change(layout: Layout, statement: str) -> None:
    """What somebody with the database file in hands might do."""
    connection = sqlite3.connect(layout.database)
    assert connection.execute(statement).rowcount > 0
    connection.commit()
    connection.close()


def test_an_untouched_ledger_is_whole(store: Store, world: World) -> None:
    report = verify(store)

    seq, head = store.read(lambda reader: reader.ledger.head())
    assert (report.events, report.head) == (seq, head)
    assert report.edges > report.events
    assert report.segments == 1
    assert report.notes == 3
    assert report.ok


def test_a_new_workspace_is_whole(store: Store) -> None:
    assert verify(store).events == store.read(lambda reader: reader.ledger.head())[0]


@pytest.mark.capability("M5")
@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("update events set actor = 'act_bob' where seq = 9", "broken at event 9: its bytes were changed"),
        ("update events set at = at + 1 where seq = 9", "broken at event 9: its bytes were changed"),
        ("update events set facts = '{}' where kind = 'verdict.given'", "its bytes were changed"),
        ("delete from events where seq = 9", "broken at event 9: it holds event 10 there"),
        ("delete from events where seq = (select max(seq) from events)", "were written and are gone"),
        ("update events set seq = 1000 where seq = 9", "broken at event 9"),
        ("update ledger_head set hash = 'sha256:' || hex(zeroblob(32))", "were written and are gone"),
        ("delete from edges where dst like 'release:%'", r"(?s)> release:\w+ of event \d+ is gone"),
        ("insert into edges values ('actor:act_bob', 'release:rel_x', 9)", "actor:act_bob > release:rel_x of event 9"),
        ("insert into edges values ('actor:act_bob', 'release:rel_x', 0)", "actor:act_bob > release:rel_x of event 0"),
        ("update edges set seq = seq + 1 where dst like 'verdict:%'", "was not said by it"),
        ("update edges set dst = 'release:rel_x' where dst like 'release:%' and src like 'verdict:%'", "release:rel_x"),
        ("update segments set digest = 'sha256:' || hex(zeroblob(32))", r"segment \w+-\d+ has another digest"),
        ("delete from segments", r"segment \w+-\d+ is gone"),
        ("update personal set text = 'all was well' where id like 'event:%'", "the text of its note was changed"),
    ],
)  # fmt: skip
def test_every_change_is_found(
    layout: Layout, store: Store, world: World, statement: str, message: str
) -> None:
    verify(store)
    change(layout, statement)

    with pytest.raises(LedgerBroken, match=message):
        verify(store)


def test_erasing_a_text_breaks_nothing(layout: Layout, store: Store, world: World) -> None:
    change(
        layout,
        "update personal set text = '', salt = '' where id = (select min(id) from personal where id like 'event:%')",
    )
    assert verify(store).notes == 2
    change(layout, "delete from personal where id like 'event:%'")

    assert verify(store).notes == 0


def test_pages_are_joined(store: Store, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = verify(store)

    for size in (1, 7, whole.events, whole.edges):
        monkeypatch.setattr(audit, "PAGE", size)
        assert verify(store) == whole


def test_it_can_be_verified_while_others_write(store: Store, world: World) -> None:
    at = SystemClock().now()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            draft = EventDraft(
                kind="alert.opened", actor=world.person, subject=node("alert", f"al_{number}"), at=at,
                inputs=(node("line", world.line),),
            )  # fmt: skip
            store.write(lambda tx, draft=draft: tx.ledger.append(draft))  # type: ignore[misc]

    thread = threading.Thread(target=write)
    thread.start()
    reports = [verify(store) for _ in range(20)]
    stop.set()
    thread.join(60)

    assert [report.events for report in reports] == sorted(report.events for report in reports)
    assert reports[-1].events > reports[0].events
    assert reports[0].head != GENESIS
