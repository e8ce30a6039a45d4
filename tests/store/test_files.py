"""The recipe for files that survive: replaced whole, appended whole, and there after every power cut."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from andon.core.errors import StorageFull
from andon.store.files import append_line, read_or_none, sync_folder, write_atomic
from andon.testing.powercut import RecordingDisk

LIMITED = """
import os, resource, sys
from pathlib import Path
from andon.core.errors import StorageFull
from andon.store.files import append_line, write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for verb in (write_atomic, append_line):
    try:
        verb(Path(sys.argv[1]), b"x" * 2000)
    except StorageFull as error:
        print(error)
"""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    write_atomic(path, b"old" * 100)

    write_atomic(path, b"new", mode=0o600)

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    write_atomic(tmp_path / "there", b"1")

    assert read_or_none(tmp_path / "there") == b"1"
    assert read_or_none(tmp_path / "not there") is None


def test_a_limit_on_file_size_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"before\n")

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )

    said = done.stdout.splitlines()
    assert len(said) == 2
    assert all(f"{path} was not written: file too large" in line for line in said)
    assert path.read_bytes() == b"before\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_that_is_not_a_full_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(tmp_path / "no folder" / "file", b"x")

    assert not isinstance(caught.value, StorageFull)


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lines = [str(number).encode() * 50 for number in range(40)]
    threads = [threading.Thread(target=append_line, args=(path, line)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(path.read_bytes().splitlines()) == sorted(lines)


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    append_line(path, b"whole")
    with path.open("ab") as file:
        file.write(b"to")

    append_line(path, b"next")

    assert path.read_bytes() == b"whole\nto\nnext\n"
    with pytest.raises(ValueError, match="line break"):
        append_line(path, b"two\nlines")


def replace_and_append(disk: RecordingDisk, folder: Path) -> None:
    for number in range(8):
        write_atomic(folder / "file", b"%d" % number * 30, disk=disk)
        disk.acknowledge(("file", number))
        append_line(folder / "journal", b"line %d" % number, disk=disk)
        disk.acknowledge(("journal", number))


def broken_promises(disk: RecordingDisk, folder: Path, cuts: int) -> int:
    broken = 0
    for number, cut in enumerate(disk.power_cuts(random.Random(1), cuts)):
        (state := folder / f"state-{number}").mkdir()
        cut.materialise(state)
        lines = (read_or_none(state / "journal") or b"").splitlines()
        content = read_or_none(state / "file") or b"-1"
        kept = all(
            content[:1].isdigit() and int(content[:1]) >= number and content == content[:1] * 30
            if what == "file"
            else b"line %d" % number in lines
            for what, number in cut.acknowledged
        )
        broken += not kept
    return broken


def test_files_and_journals_keep_their_promises_in_every_power_cut(tmp_path: Path) -> None:
    (work := tmp_path / "work").mkdir()
    disk = RecordingDisk(work)

    replace_and_append(disk, work)

    assert broken_promises(disk, tmp_path, 300) == 0


@pytest.mark.parametrize("left_out", ["sync", "sync folder"])
def test_the_power_cuts_catch_a_recipe_with_a_step_left_out(tmp_path: Path, left_out: str) -> None:
    class Careless(RecordingDisk):
        def sync(self, descriptor: int, /) -> None:
            folder = os.fstat(descriptor).st_mode & 0o040000
            if bool(folder) != (left_out == "sync folder"):
                super().sync(descriptor)

    (work := tmp_path / "work").mkdir()
    disk = Careless(work)

    replace_and_append(disk, work)

    assert broken_promises(disk, tmp_path, 100) > 20


def test_syncing_a_folder_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0

    for number in range(200):
        sync_folder(tmp_path)
        write_atomic(tmp_path / "file", b"%d" % number)

    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert after == before
