"""The spool: what was said is on disk at once, a torn tail is cut, a full disk costs only what did not fit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.core.canonical import digest_bytes
from andon.core.errors import Corrupt, Invalid, StorageFull, TooLarge, Unavailable
from andon.core.ids import RunId
from andon.tracking.native import spool
from andon.tracking.native.entries import Ended, Entry, Opening, Points, Tags, frame
from andon.tracking.native.spool import (
    Session,
    SpoolReader,
    SpoolWriter,
    read_head,
    session_folder,
    sessions,
    spool_folder,
)
from tests.small_disk import small_disk

OPENING = Opening(run=RunId("0" * 31 + "1"), writer="a" * 16, opened_ms=1_700_000_000_000, experiment="spool")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(session_folder(tmp_path / "spool", OPENING))


@pytest.fixture
def writer(session: Session) -> Iterator[SpoolWriter]:
    made = SpoolWriter(session.folder, OPENING, "")
    yield made
    made.close()


def read_all(session: Session, writer: str = OPENING.writer) -> list[Entry]:
    """Everything that one writer said and that can still be read."""
    reader, found = session.reader(writer), []
    while entries := reader.peek():
        found += entries
        reader.skip()
    return found


def logs(session: Session) -> list[str]:
    return sorted(path.name for path in session.folder.glob("*.log"))


# --- what was written comes back ---


def test_entries_come_back_in_their_order_and_numbered(session: Session, writer: SpoolWriter) -> None:
    writer.append(Points, 0, {"loss": 0.5, "acc": float("inf")}, at_ms=10)
    writer.append(Tags, {"a": "b"}, at_ms=11)
    writer.append(Ended, "finished", at_ms=12)

    assert read_all(session) == [
        Points(1, 10, 0, {"loss": 0.5, "acc": float("inf")}),
        Tags(2, 11, {"a": "b"}),
        Ended(3, 12, "finished", 0),
    ]


def test_every_log_says_whose_it_is(session: Session, writer: SpoolWriter) -> None:
    writer.append(Tags, {})

    head = read_head(session.folder / logs(session)[0])

    assert (head.opening, head.segment, head.first, head.pid) == (OPENING, 0, 1, os.getpid())


def test_a_batch_holds_at_most_a_thousand_points(session: Session, writer: SpoolWriter) -> None:
    for step in range(450):
        writer.append(Points, step, {"a": 1.0, "b": 2.0, "c": 3.0})
    reader = session.reader(OPENING.writer)

    sizes = []
    while batch := reader.peek():
        sizes.append(sum(len(entry.values) for entry in batch if isinstance(entry, Points)))
        reader.advance()

    assert sizes == [999, 351]


def test_peeking_again_gives_the_same_until_it_is_advanced(session: Session, writer: SpoolWriter) -> None:
    writer.append(Tags, {"n": "1"})
    reader = session.reader(OPENING.writer)

    first, again = reader.peek(), reader.peek()
    reader.advance()
    writer.append(Tags, {"n": "2"})

    assert first == again
    assert [entry.seq for entry in reader.peek()] == [2]


def test_what_the_other_side_has_is_left_out(session: Session, writer: SpoolWriter) -> None:
    for number in range(5):
        writer.append(Tags, {"n": str(number)})
    reader = session.reader(OPENING.writer)

    reader.acknowledge(3)

    assert [entry.seq for entry in reader.peek()] == [4, 5]


def test_logs_are_begun_anew_and_deleted_when_they_are_delivered(
    session: Session, writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 2000)
    for step in range(300):
        writer.append(Points, step, {"loss": 0.1})
    many, reader, found = len(logs(session)), session.reader(OPENING.writer), []

    while entries := reader.peek():
        found += [entry.seq for entry in entries]
        reader.advance()

    assert many > 5
    assert found == list(range(1, 301))
    assert len(logs(session)) == 1


def test_threads_share_a_writer(session: Session, writer: SpoolWriter) -> None:
    def say(name: str) -> None:
        for step in range(200):
            writer.append(Points, step, {name: float(step)})

    threads = [threading.Thread(target=say, args=(f"m{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = read_all(session)
    assert [entry.seq for entry in found] == list(range(1, 801))


def test_the_bytes_of_a_file_are_kept_by_their_digest(
    session: Session, writer: SpoolWriter, tmp_path: Path
) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(b"weights" * 100_000)

    digest, size = writer.keep(source)
    source.write_bytes(b"the next epoch's")

    assert (digest, size) == (digest_bytes(b"weights" * 100_000), 700_000)
    assert session.file(digest).read_bytes() == b"weights" * 100_000


def test_what_cannot_be_written_down_is_refused_and_takes_no_number(
    session: Session, writer: SpoolWriter
) -> None:
    with pytest.raises(Invalid, match="cannot be written down"):
        writer.append(Points, 2**70, {"a": 1.0})
    with pytest.raises(TooLarge, match="log it as an artifact"):
        writer.append(Tags, {"a": "x" * 2**20})
    writer.append(Tags, {"b": "c"})

    assert [entry.seq for entry in read_all(session)] == [1]


def test_a_writer_that_is_closed_takes_no_more(writer: SpoolWriter) -> None:
    writer.append(Tags, {})
    writer.close()

    with pytest.raises(Unavailable, match="it is closed"):
        writer.append(Tags, {})


# --- kill -9, torn tails, damage ---

VICTIM = """
import sys
from pathlib import Path
from andon.tracking.native.entries import Opening, Points
from andon.tracking.native.spool import SpoolWriter
opening = Opening(run=sys.argv[2], writer="a" * 16, opened_ms=1_700_000_000_000, experiment="spool")
writer = SpoolWriter(Path(sys.argv[1]), opening, "")
step = 0
while True:
    seq = writer.append(Points, step, {"loss": 1.0 / (step + 1), "acc": float(step)})
    sys.stdout.write(f"{seq}\\n")
    sys.stdout.flush()
    step += 1
"""


def test_what_append_returned_from_is_there_after_kill_9(session: Session) -> None:
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(session.folder), OPENING.run], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    for _ in range(500):
        victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    said = [int(line) for line in victim.stdout.read().split("\n") if line.strip()]
    victim.wait()
    victim.stdout.close()

    found = [entry.seq for entry in read_all(session)]

    assert found == list(range(1, len(found) + 1))
    assert len(found) >= max([500, *said[:-1]])  # its last line may be torn
    assert not session.alive()


def test_a_tail_that_is_torn_at_any_byte_is_cut(
    session: Session, writer: SpoolWriter, tmp_path: Path
) -> None:
    for number in range(3):
        writer.append(Tags, {"n": str(number)}, at_ms=number)
    whole = (session.folder / logs(session)[0]).read_bytes()
    last = len(frame(Tags(3, 2, {"n": "2"})))

    for cut in range(1, last + 1):
        torn = tmp_path / str(cut) / session.folder.name
        torn.mkdir(parents=True)
        (torn / logs(session)[0]).write_bytes(whole[:-cut])
        assert [entry.seq for entry in read_all(Session(torn))] == [1, 2]


def test_a_flipped_bit_costs_the_rest_of_its_log_and_no_other(
    session: Session, writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 1500)
    for step in range(60):
        writer.append(Points, step, {"loss": 0.1})
    first = session.folder / logs(session)[0]
    data = bytearray(first.read_bytes())
    data[-30] ^= 1
    first.write_bytes(data)

    found = [entry.seq for entry in read_all(session)]

    heads = [read_head(session.folder / name).first for name in logs(session)]
    assert found[: heads[1] - 2] == list(range(1, heads[1] - 1))[: len(found)]
    assert set(range(heads[1], 61)) <= set(found)
    assert len(found) < 60


def test_zeros_that_a_power_cut_left_are_a_torn_tail(session: Session, writer: SpoolWriter) -> None:
    writer.append(Tags, {"a": "b"})
    with (session.folder / logs(session)[0]).open("ab") as file:
        file.write(b"\0" * 4096)

    assert [entry.seq for entry in read_all(session)] == [1]


def test_a_folder_without_a_head_that_can_be_read_is_said_to_be_damaged(session: Session) -> None:
    session.folder.mkdir(parents=True)
    (session.folder / f"{OPENING.writer}-000000.log").write_bytes(b"\0" * 100)

    with pytest.raises(Corrupt, match="no log of"):
        SpoolReader(session.folder, OPENING.writer)


class Broken(Exception):
    """What a signal handler raises, as Ctrl-C does."""


def test_an_exception_in_the_middle_of_a_call_spoils_no_other(session: Session, writer: SpoolWriter) -> None:
    """Ctrl-C may come between any two steps of a call; what comes afterwards is still numbered without gaps."""
    draw, said = random.Random(5), 0

    def broken(*_: object) -> None:
        raise Broken

    before = signal.signal(signal.SIGALRM, broken)
    try:
        for number in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.random() * 0.0002)
                while True:
                    said = writer.append(Tags, {"n": str(number)})
            except Broken:
                signal.setitimer(signal.ITIMER_REAL, 0)
        last = writer.append(Ended, "killed")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    found = read_all(session)
    assert [entry.seq for entry in found] == list(range(1, last + 1))
    assert isinstance(found[-1], Ended)
    assert last > said


def test_a_signal_handler_may_log_in_the_middle_of_a_call(session: Session, writer: SpoolWriter) -> None:
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        writer.append(Tags, {"from": "the handler"})

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        for _ in range(30_000):
            writer.append(Tags, {"from": "the training"})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    found = [entry.values["from"] for entry in read_all(session) if isinstance(entry, Tags)]
    assert handled > 10
    assert (found.count("the training"), found.count("the handler")) == (30_000, handled)


# --- full disks ---

FILL = """
import sys, time
from pathlib import Path
from andon.core.errors import StorageFull
from andon.tracking.native.entries import Ended, Opening, Tags
from andon.tracking.native.spool import SpoolWriter
opening = Opening(run=sys.argv[2], writer="a" * 16, opened_ms=1_700_000_000_000, experiment="spool")
writer = SpoolWriter(Path(sys.argv[1]), opening, "")
writer.reserve()
kept = refused = 0
while refused < 50:
    try:
        writer.append(Tags, {"text": "x" * 3000})
        kept += 1
    except StorageFull:
        refused += 1
print(kept)
writer.release()
writer.append(Ended, "finished", refused)
writer.sync()
"""


def test_a_full_disk_costs_what_did_not_fit_and_the_end_is_still_said(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", disk_bytes=2**18, file_bytes=2**17) as python:
        session = Session(session_folder(tmp_path / "disk", OPENING))

        done = subprocess.run(
            [*python, "-c", FILL, str(session.folder), OPENING.run],
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stderr
        found = read_all(session)
    assert [entry.seq for entry in found] == list(range(1, int(done.stdout) + 2))
    assert isinstance(found[-1], Ended)
    assert found[-1].dropped == 50


def test_a_disk_that_fails_in_the_middle_of_a_write_leaves_nothing_of_it(session: Session) -> None:
    class Torn(type(spool.LOCAL)):  # type: ignore[misc]
        fails = False

        def write(self, descriptor: int, data: bytes, /) -> int:
            return os.write(descriptor, data[:7] if self.fails else data)

    disk = Torn()
    writer = SpoolWriter(session.folder, OPENING, "", disk=disk)
    writer.append(Tags, {"n": "1"})
    disk.fails = True
    with pytest.raises(StorageFull, match="nothing that was acknowledged is lost"):
        writer.append(Tags, {"n": "2"})
    disk.fails = False
    writer.release()
    writer.append(Tags, {"n": "3"})
    writer.close()

    assert [(entry.seq, entry.values) for entry in read_all(session) if isinstance(entry, Tags)] == [
        (1, {"n": "1"}),
        (2, {"n": "3"}),
    ]


# --- who delivers ---


def test_only_one_may_deliver_a_session(session: Session) -> None:
    other = Session(session.folder)

    assert session.take()
    assert not other.take()
    session.drop()
    assert other.take()
    other.drop()


def test_a_session_is_alive_while_its_writer_is(session: Session, writer: SpoolWriter) -> None:
    writer.append(Tags, {})
    before = session.alive()
    writer.close()

    assert (before, session.alive()) == (True, False)


def test_what_is_not_a_session_is_left_alone(tmp_path: Path, session: Session, writer: SpoolWriter) -> None:
    writer.append(Tags, {})
    (session.folder.parent / "notes.txt").write_text("mine")
    (session.folder.parent / "other").mkdir()

    assert [found.run for found in sessions(session.folder.parent)] == [OPENING.run]
    assert sessions(tmp_path / "nowhere") == []


def test_a_killed_writer_is_ended_after_its_last_entry(session: Session, writer: SpoolWriter) -> None:
    writer.append(Tags, {"a": "b"}, at_ms=1_700_000_005_000)
    writer.close()
    reader = session.reader(OPENING.writer)
    while reader.peek():
        reader.skip()

    session.end(reader, [])

    assert read_all(session)[-1] == Ended(2, 1_700_000_005_000, "killed", 0)


# --- where it is ---


def test_the_spool_of_a_workspace_is_in_it(tmp_path: Path) -> None:
    (tmp_path / ".andon").mkdir()
    (tmp_path / "deep/er").mkdir(parents=True)

    assert spool_folder({}, tmp_path / "deep/er") == tmp_path / ".andon/spool"
    assert spool_folder({"ANDON_SPOOL": str(tmp_path / "s")}, tmp_path) == tmp_path / "s"


def test_without_a_workspace_it_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert (
        spool_folder({"ANDON_HOME": str(tmp_path / "gone")}, Path("/"))
        == tmp_path / ".local/state/andon/spool"
    )
    assert spool_folder({"XDG_STATE_HOME": "/x"}, Path("/")) == Path("/x/andon/spool")
