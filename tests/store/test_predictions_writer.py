"""The writing end of the prediction log: light, exact about numbers, and honest when the disk is full."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from andon.core.clock import SystemClock
from andon.core.errors import Invalid, StorageFull, TooLarge, Unavailable
from andon.core.predictions import (
    MAGIC,
    PredictionRecord,
    SegmentHeader,
    decode_header,
    decode_record,
    frame,
    frames,
)
from andon.store.files import LocalDisk
from andon.store.predictions_writer import SegmentWriter, segment_id
from andon.testing.powercut import RecordingDisk
from andon.testing.predictions import record
from tests.small_disk import small_disk

FULL = """
import sys
from pathlib import Path
from andon.core.clock import SystemClock
from andon.core.errors import StorageFull
from andon.store.predictions_writer import SegmentWriter
from andon.testing.predictions import record
folder = Path(sys.argv[1])
writer = SegmentWriter(folder, SystemClock(), durability=sys.argv[2])
refused = 0
while refused < 5:
    first = writer.next_number()
    try:
        writer.append([record(writer.boot, first + k) for k in range(7)])
    except StorageFull:
        refused += 1
        assert writer.next_number() == first
print(writer.boot, writer.next_number())
"""
LIGHT = """
import json, sys
import andon.store.predictions_writer, andon.store.blobs, andon.store.files
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


class Hand(SystemClock):
    """A clock whose monotonic hand is moved by the test."""

    def __init__(self) -> None:
        self.s = 0.0

    def monotonic_s(self) -> float:
        return self.s


def read(path: Path) -> tuple[SegmentHeader, list[PredictionRecord]]:
    """Header and records of a file, up to a torn tail."""
    data = path.read_bytes()
    assert data.startswith(MAGIC)
    payloads = [payload for _, payload in frames(data, len(MAGIC))]
    return decode_header(payloads[0]), [decode_record(payload) for payload in payloads[1:]]


def write(writer: SegmentWriter, count: int) -> list[PredictionRecord]:
    first = writer.next_number()
    records = [record(writer.boot, first + k) for k in range(count)]
    writer.append(records)
    return records


def test_a_file_has_magic_header_and_the_records(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, SystemClock())

    records = write(writer, 1) + write(writer, 3)

    (path,) = tmp_path.iterdir()
    header, found = read(path)
    assert path.name == f"{writer.boot:010x}-000000.log"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (header.boot, header.segment, header.first) == (writer.boot, 0, 0)
    assert found == records
    writer.close()


def test_one_append_is_one_write(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    writer = SegmentWriter(tmp_path, SystemClock(), disk=disk)
    begun = list(disk.calls)

    write(writer, 50)
    writer.append([])

    assert begun == ["create", "write", "rename"]
    assert disk.calls == [*begun, "write"]
    writer.close()


def test_level_disk_syncs_before_it_returns(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    writer = SegmentWriter(tmp_path, SystemClock(), durability="disk", disk=disk)
    begun = list(disk.calls)

    write(writer, 2)

    assert begun == ["create", "write", "sync", "rename", "sync folder"]
    assert disk.calls == [*begun, "write", "sync"]
    writer.close()


def test_a_full_segment_is_finished_and_the_next_begun(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, SystemClock(), max_bytes=1000)

    records = [item for _ in range(30) for item in write(writer, 1)]

    files = sorted(tmp_path.iterdir())
    read_back = [read(path) for path in files]
    assert len(files) > 3
    assert [header.segment for header, _ in read_back] == list(range(len(files)))
    assert [item for _, items in read_back for item in items] == records
    assert all(
        header.first == int.from_bytes(items[0].id) & (2**34 - 1) for header, items in read_back if items
    )
    assert [locked(path) for path in files] == [False] * (len(files) - 1) + [True]
    writer.close()


def locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_an_old_segment_is_finished_even_when_nothing_comes(tmp_path: Path) -> None:
    clock = Hand()
    writer = SegmentWriter(tmp_path, clock, max_age_s=30)
    clock.s = 31
    writer.roll()
    assert len(list(tmp_path.iterdir())) == 1, "an empty segment is never finished"
    write(writer, 1)
    writer.roll()
    clock.s = 61

    writer.roll()

    first, second = sorted(tmp_path.iterdir())
    assert not locked(first)
    assert locked(second)
    assert read(second)[0].first == 1
    writer.close()
    assert sorted(tmp_path.iterdir()) == [first], "nothing was written to the second"


def test_closing_lets_go_and_refuses_more(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, SystemClock())
    write(writer, 1)

    writer.close()
    writer.close()

    (path,) = tmp_path.iterdir()
    assert not locked(path)
    with pytest.raises(Unavailable, match="it is closed"):
        write(writer, 1)


def test_what_cannot_be_encoded_is_refused_whole(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, SystemClock())
    for inputs in ({"x": 2**70}, {"x": "\ud800"}, {"x": object()}):
        with pytest.raises(Invalid, match="record 1 cannot be logged"):
            writer.append(
                [record(writer.boot, 0), msgspec.structs.replace(record(writer.boot, 1), inputs=inputs)]
            )
    with pytest.raises(TooLarge, match="record 0 has 167"):
        writer.append([msgspec.structs.replace(record(writer.boot, 0), inputs={"x": "y" * 2**24})])

    records = write(writer, 2)

    assert read(next(tmp_path.iterdir()))[1] == records
    writer.close()


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_full_disk_refuses_and_keeps_what_was_acknowledged(tmp_path: Path, durability: str) -> None:
    with small_disk(tmp_path / "disk", disk_bytes=200_000, file_bytes=100_000) as python:
        command = [*python, "-c", FULL, str(tmp_path / "disk"), durability]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        boot, count = map(int, done.stdout.split())

        found = [item for path in sorted((tmp_path / "disk").glob("*.log")) for item in read(path)[1]]
        assert count > 100
        assert found == [record(boot, number) for number in range(count)]


class FailingDisk(LocalDisk):
    """A disk whose calls fail when they are told to."""

    def __init__(self) -> None:
        self.fail: dict[str, OSError] = {}
        self.short = False

    def write(self, descriptor: int, data: bytes, /) -> int:  # type: ignore[override]
        if self.short:
            return os.write(descriptor, data[: len(data) // 2])
        return os.write(descriptor, data)

    def sync(self, descriptor: int, /) -> None:
        if "sync" in self.fail:
            raise self.fail["sync"]

    def truncate(self, descriptor: int, size: int, /) -> None:  # type: ignore[override]
        if "truncate" in self.fail:
            raise self.fail["truncate"]
        os.ftruncate(descriptor, size)


def test_a_write_cut_short_is_taken_back(tmp_path: Path) -> None:
    disk = FailingDisk()
    writer = SegmentWriter(tmp_path, SystemClock(), disk=disk)
    records = write(writer, 3)
    disk.short = True
    with pytest.raises(StorageFull):
        write(writer, 4)
    disk.short = False

    records += write(writer, 2)

    assert read(next(tmp_path.iterdir()))[1] == records
    writer.close()


def test_a_segment_whose_sync_failed_gets_no_more(tmp_path: Path) -> None:
    disk = FailingDisk()
    writer = SegmentWriter(tmp_path, SystemClock(), durability="disk", disk=disk)
    records = write(writer, 3)
    disk.fail["sync"] = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        write(writer, 2)
    with pytest.raises(OSError, match="Input/output error"):
        write(writer, 2)
    assert [locked(path) for path in tmp_path.iterdir()] == [True], "a boot that lives always has its file"
    disk.fail.clear()

    records += write(writer, 2)

    files = sorted(tmp_path.iterdir())
    assert [len(read(path)[1]) for path in files] == [3, 2]
    assert [item for path in files for item in read(path)[1]] == records
    writer.close()


def test_a_write_that_cannot_be_taken_back_ends_the_writer(tmp_path: Path) -> None:
    disk = FailingDisk()
    writer = SegmentWriter(tmp_path, SystemClock(), disk=disk)
    disk.short = True
    disk.fail["truncate"] = OSError(5, "Input/output error")

    for _ in range(2):
        with pytest.raises(Unavailable, match="restart the gateway"):
            write(writer, 1)
    writer.close()


def test_every_cut_of_a_file_gives_a_clean_beginning(tmp_path: Path) -> None:
    records = [record(77, number) for number in range(4)]
    whole = MAGIC + frame(SegmentHeader(1, 77, 0, 0, 0)) + b"".join(map(frame, records))
    ends = [end for end, _ in frames(whole, len(MAGIC))]

    for size in range(len(MAGIC), len(whole) + 1):
        for tail in (b"", bytes(40), b"\xff" * 40):
            data = whole[:size] + tail
            payloads = [payload for _, payload in frames(data, len(MAGIC))]
            count = sum(data[:end] == whole[:end] for end in ends)
            assert len(payloads) == count
            assert [decode_record(payload) for payload in payloads[1:]] == records[: max(0, count - 1)]


def test_every_changed_bit_is_found() -> None:
    records = [record(77, number) for number in range(3)]
    whole = b"".join(map(frame, records))
    ends = [0] + [end for end, _ in frames(whole)]
    rng = random.Random(2)

    for _ in range(500):
        bit = rng.randrange(len(whole) * 8)
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        found = [decode_record(payload) for _, payload in frames(bytes(changed))]
        assert found == records[: sum(end <= bit // 8 for end in ends) - 1]


def test_no_power_cut_loses_a_record_of_level_disk(tmp_path: Path) -> None:
    (work := tmp_path / "work").mkdir()
    disk = RecordingDisk(work)
    writer = SegmentWriter(work, SystemClock(), durability="disk", max_bytes=1500, disk=disk)
    for _ in range(20):
        for item in write(writer, 2):
            disk.acknowledge(item)
    writer.close()

    for number, cut in enumerate(disk.power_cuts(random.Random(4), 200)):
        (state := tmp_path / f"state-{number}").mkdir()
        found = [item for path in sorted(cut.materialise(state).glob("*.log")) for item in read(path)[1]]
        assert found[: len(cut.acknowledged)] == cut.acknowledged


def test_the_writer_is_light_to_import() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)

    assert not set(json.loads(done.stdout)) & {"numpy", "polars", "sqlalchemy", "sqlite3", "uvicorn"}


def test_opening_and_closing_a_thousand_times_leaves_nothing_open(tmp_path: Path) -> None:
    def descriptors() -> int:
        probe = os.open(tmp_path, os.O_RDONLY)
        os.close(probe)
        return probe

    before = descriptors()

    for _ in range(1000):
        SegmentWriter(tmp_path, SystemClock()).close()

    assert descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_ids_of_segments_sort_as_they_were_written() -> None:
    assert sorted([segment_id(5, 10), segment_id(5, 9)]) == [segment_id(5, 9), segment_id(5, 10)]
