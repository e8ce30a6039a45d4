"""Blobs in a local folder: the contract, and what disks, crashes and other processes can do to them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from andon.core.canonical import Digest, digest_bytes
from andon.core.clock import SystemClock
from andon.core.errors import Corrupt, NotFound
from andon.store.blobs import BlobReader, LocalBlobs, storage_key
from andon.store.ports import Blobs
from andon.testing.blobs import BlobsConformance
from andon.testing.powercut import RecordingDisk
from tests.small_disk import small_disk

PUTTER = """
import sys
from pathlib import Path
from andon.store.blobs import LocalBlobs
blobs = LocalBlobs(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**9):
    data = (b"%d-" % number) * 20_000
    print(number, blobs.put(iter([data[:50_000], data[50_000:]]) if number % 2 else data), flush=True)
"""

FILLER = """
import sys
from pathlib import Path
from andon.core.errors import StorageFull
from andon.store.blobs import LocalBlobs
blobs = LocalBlobs(Path(sys.argv[1]))
try:
    for number in range(1, 100):
        print(blobs.put(b"x" * 30_000 * number))
except StorageFull:
    print(blobs.put(b"now it fits"))
"""

LIMITED = """
import resource, sys
from pathlib import Path
from andon.core.errors import StorageFull
from andon.store.blobs import LocalBlobs
blobs = LocalBlobs(Path(sys.argv[1]))
small = blobs.put(b"small")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for data in (b"x" * 5000, iter([b"x" * 3000, b"y" * 3000])):
    try:
        blobs.put(data)
    except StorageFull as error:
        print(error)
assert blobs.get(small) == b"small"
"""


class TestLocalBlobs(BlobsConformance):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> LocalBlobs:
        return LocalBlobs(tmp_path / "blobs")

    def damage(self, blobs: Blobs, digest: Digest, data: bytes) -> str:
        path = Path(blobs.path(digest))
        path.chmod(0o600)
        path.write_bytes(data)
        return str(path)


class LaterClock(SystemClock):
    """The machine's clock, some time from now."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def damage(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o400)


def files(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def test_a_blob_is_a_read_only_file_named_by_its_digest(tmp_path: Path) -> None:
    digest = LocalBlobs(tmp_path).put(b"abc")

    path = tmp_path / storage_key(digest)
    assert files(tmp_path) == [storage_key(digest)]
    assert path.stat().st_mode & 0o777 == 0o400
    assert str(storage_key(digest)) == f"sha256/{digest[7:9]}/{digest[9:]}"


def test_opening_makes_nothing(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")

    assert list(blobs.digests()) == []
    assert list(tmp_path.iterdir()) == []


def test_files_of_other_names_are_not_blobs(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"abc")
    (tmp_path / storage_key(digest)).with_name("notes.txt").write_text("not ours")

    assert list(blobs.digests()) == [digest]


def test_a_cut_blob_is_healed_by_storing_it_again(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"abc" * 1000)
    path = Path(blobs.path(digest))
    path.chmod(0o600)
    path.write_bytes(b"abc")

    blobs.put(b"abc" * 1000)

    assert LocalBlobs(tmp_path).get(digest) == b"abc" * 1000


def test_a_file_is_checked_again_when_it_changed(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"abc")
    path = Path(blobs.path(digest))
    as_checked = path.stat()
    path.chmod(0o600)
    path.write_bytes(b"xyz")
    os.utime(path, ns=(as_checked.st_atime_ns, as_checked.st_mtime_ns))
    assert blobs.path(digest) == str(path), "size and time as checked: not hashed again"
    os.utime(path, ns=(as_checked.st_atime_ns, as_checked.st_mtime_ns + 1))

    with pytest.raises(Corrupt, match="does not match its digest"):
        blobs.path(digest)


def test_a_limit_on_file_size_is_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert done.stdout.count("was not written: file too large; nothing that was acknowledged is lost") == 2
    assert files(tmp_path) == [storage_key(digest_bytes(b"small"))]


def test_a_full_disk_loses_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", file_bytes=150_000) as python:
        done = subprocess.run(
            [*python, "-c", FILLER, str(tmp_path / "disk")], capture_output=True, text=True, check=True
        )
        blobs = LocalBlobs(tmp_path / "disk")
        stored = [Digest(line) for line in done.stdout.splitlines()]

        assert len(stored) > 2
        assert list((tmp_path / "disk" / "tmp").iterdir()) == []
        assert sorted(blobs.digests()) == sorted(stored)
        assert [len(blobs.get(digest)) for digest in stored] == [
            30_000 * n for n in range(1, len(stored))
        ] + [11]


def test_processes_that_are_killed_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(5)
    for cycle in range(6):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", PUTTER, str(tmp_path), str(cycle * 10_000)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        acknowledged = []
        for _ in range(rng.randint(1, 30)):
            for writer in writers:
                assert writer.stdout is not None
                acknowledged.append(writer.stdout.readline().split())
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            acknowledged += [
                line.split() for line in writer.communicate()[0].splitlines(keepends=True) if line[-1] == "\n"
            ]

        blobs = LocalBlobs(tmp_path)
        for number, digest in acknowledged:
            assert blobs.get(Digest(digest)) == f"{number}-".encode() * 20_000
        for digest in blobs.digests():
            blobs.get(digest)


def test_what_killed_writers_left_is_swept_after_a_day(tmp_path: Path) -> None:
    LocalBlobs(tmp_path).put(b"kept")
    (left := tmp_path / "tmp" / "left").write_bytes(b"half")
    LocalBlobs(tmp_path)
    assert left.exists()

    LocalBlobs(tmp_path, clock=LaterClock(timedelta(hours=25)))

    assert files(tmp_path) == [storage_key(digest_bytes(b"kept"))]


def test_a_sweep_takes_nothing_from_a_slow_writer(tmp_path: Path) -> None:
    def slow() -> Iterator[bytes]:
        yield b"first "
        LocalBlobs(tmp_path, clock=LaterClock(timedelta(days=3)))
        yield b"second"

    digest = LocalBlobs(tmp_path).put(slow())

    assert LocalBlobs(tmp_path).get(digest) == b"first second"


def test_a_blob_written_in_pieces_by_several_threads_is_that_of_its_bytes(tmp_path: Path) -> None:
    blobs, pieces = LocalBlobs(tmp_path), [bytes([number]) * 700_000 for number in range(30)]

    with blobs.writer() as writer, ThreadPoolExecutor(4) as threads:
        for piece in pieces:
            threads.submit(writer.write, piece).result(30)
        digest = threads.submit(writer.commit).result(30)

    assert writer.size_bytes == 21_000_000
    assert digest == digest_bytes(b"".join(pieces))
    assert files(tmp_path) == [storage_key(digest)]
    assert blobs.get(digest) == b"".join(pieces)


def test_what_is_not_committed_is_never_a_blob(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)

    with blobs.writer() as writer:
        writer.write(b"half")
        assert len(files(tmp_path)) == 1
    writer.close()

    assert files(tmp_path) == []
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")
    with pytest.raises(ValueError, match="closed"):
        writer.commit()


def test_a_damaged_blob_is_healed_by_writing_it_again(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"abc")
    damage(tmp_path / storage_key(digest), b"xyz")

    for heal, found in ((False, b"xyz"), (True, b"abc")):
        with blobs.writer() as writer:
            writer.write(b"abc")
            assert writer.commit(heal=heal) == digest
        assert (tmp_path / storage_key(digest)).read_bytes() == found


def test_any_part_of_a_checked_blob_is_read(tmp_path: Path) -> None:
    blobs, data = LocalBlobs(tmp_path), bytes(range(256)) * 10_000
    digest = blobs.put(data)

    with blobs.reader(digest) as reader:
        assert reader.size_bytes == len(data)
        assert reader.read(1_000_000, 999) == data[1_000_000:1_000_999]
        assert reader.read(0, 10) == data[:10]
        assert reader.read(len(data) - 5, 100) == data[-5:]
        blobs.remove(digest)
        assert reader.read(7, 7) == data[7:14], "an open blob outlives its removal"
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read(0, 1)
    with pytest.raises(NotFound):
        blobs.reader(digest)


def test_a_blob_that_is_changed_while_it_is_read_is_read_no_further(tmp_path: Path) -> None:
    blobs, data = LocalBlobs(tmp_path), bytes(5_000_000)
    digest = blobs.put(data)
    path = tmp_path / storage_key(digest)

    with blobs.reader(digest) as reader:
        assert reader.read(0, 5) == bytes(5)
        before = path.stat()
        path.chmod(0o600)
        assert reader.read(5, 5) == bytes(5), "touched, and whole as before"
        with path.open("r+b") as file:
            file.seek(4_000_000)
            file.write(b"!")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(Corrupt, match=str(path)):
            reader.read(10, 5)


def test_a_check_that_was_just_made_holds_until_the_file_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"abc" * 1000)
    path = tmp_path / storage_key(digest)
    monkeypatch.setattr("andon.store.blobs._SETTLED_NS", -1)  # as if the file were older
    checks = []
    monkeypatch.setattr(
        BlobReader, "check", lambda self, real=BlobReader.check: (checks.append(1), real(self))[1]
    )

    blobs.reader(digest, recent_s=300).close()
    blobs.reader(digest, recent_s=300).close()
    assert len(checks) == 1
    blobs.reader(digest).close()
    assert len(checks) == 2, "who does not ask for it gets no memory"
    blobs.reader(digest, recent_s=1e-9).close()
    assert len(checks) == 3, "too long ago"
    before = path.stat()
    damage(path, b"xyz" * 1000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(Corrupt):
        blobs.reader(digest, recent_s=300)


def test_a_young_file_is_checked_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"abc")
    checks = []
    monkeypatch.setattr(
        BlobReader, "check", lambda self, real=BlobReader.check: (checks.append(1), real(self))[1]
    )

    blobs.reader(digest, recent_s=300).close()
    blobs.reader(digest, recent_s=300).close()

    assert len(checks) == 2


def test_a_thousand_blobs_written_and_read_leave_no_descriptor(tmp_path: Path) -> None:
    blobs, open_before = LocalBlobs(tmp_path), psutil.Process().num_fds()

    for number in range(1000):
        with blobs.writer() as writer:
            writer.write(b"%d" % (number % 3))
            digest = writer.commit() if number % 2 else digest_bytes(b"none")
        with contextlib.suppress(NotFound), blobs.reader(digest) as reader:
            reader.read(0, 1)

    assert psutil.Process().num_fds() == open_before


def put_some(disk: RecordingDisk, root: Path) -> None:
    for number in range(10):
        blobs = LocalBlobs(root / "blobs", disk=disk)
        disk.acknowledge((blobs.put(b"%d" % number * 100), b"%d" % number * 100))
        disk.acknowledge((blobs.put(iter([b"a%d" % (number // 2), b"b"])), b"a%db" % (number // 2)))


def lost(disk: RecordingDisk, folder: Path, cuts: int) -> int:
    count = 0
    for number, cut in enumerate(disk.power_cuts(random.Random(3), cuts)):
        (state := folder / f"state-{number}").mkdir()
        blobs = LocalBlobs(cut.materialise(state) / "blobs")
        try:
            count += any(blobs.get(digest) != data for digest, data in cut.acknowledged)
        except (LookupError, RuntimeError):
            count += 1
    return count


def test_no_power_cut_loses_a_blob(tmp_path: Path) -> None:
    (work := tmp_path / "work").mkdir()
    disk = RecordingDisk(work)

    put_some(disk, work)

    assert lost(disk, tmp_path, 300) == 0


def test_a_blob_that_another_process_has_not_synced_yet_is_synced_before_it_is_promised(
    tmp_path: Path,
) -> None:
    (work := tmp_path / "work").mkdir()
    disk = RecordingDisk(work)
    root = work / "blobs"
    for folder in (root, root / "sha256", root / "sha256" / digest_bytes(b"abc")[7:9]):
        disk.make_folder(folder)
    descriptor = disk.open(root / storage_key(digest_bytes(b"abc")), os.O_WRONLY | os.O_CREAT)
    disk.write(descriptor, b"abc")
    disk.sync(descriptor)
    disk.close(descriptor)

    disk.acknowledge((LocalBlobs(root, disk=disk).put(b"abc"), b"abc"))

    assert lost(disk, tmp_path, 100) == 0


@pytest.mark.parametrize("left_out", ["file", "folder"])
def test_the_power_cuts_catch_a_store_with_a_sync_left_out(tmp_path: Path, left_out: str) -> None:
    class Careless(RecordingDisk):
        def sync(self, descriptor: int, /) -> None:
            is_folder = bool(os.fstat(descriptor).st_mode & 0o040000)
            if is_folder != (left_out == "folder"):
                super().sync(descriptor)

    (work := tmp_path / "work").mkdir()
    disk = Careless(work)

    put_some(disk, work)

    assert lost(disk, tmp_path, 60) > 15


def test_storing_again_costs_no_sync(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    blobs = LocalBlobs(tmp_path / "blobs", disk=disk)
    blobs.put(b"abc")
    calls = list(disk.calls)

    blobs.put(b"abc")

    assert calls.count("sync") == 1
    assert calls.count("sync folder") == 5, "parent, root, sha256, the shard's name in it, and the shard"
    assert disk.calls == calls
