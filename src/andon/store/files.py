"""Files that are there after a power cut: the one recipe that blobs, the route file, journals and logs share.

A file is written under another name in the same folder, synced, renamed, and its folder synced: each step is needed
(without the last, 22 of 60 simulated power cuts lost what had been acknowledged). `Disk` names the calls that change
files, so that a test can record them and play back every power cut; `andon.testing.powercut` does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from andon.core.errors import StorageFull

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the operating system says when a disk, a quota or a file is at its limit."""


class Disk(Protocol):
    """The calls that change files. Each behaves as its namesake in `os`; `open` always closes on exec."""

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int: ...
    def write(self, descriptor: int, data: bytes, /) -> int: ...
    def truncate(self, descriptor: int, size: int, /) -> None: ...
    def sync(self, descriptor: int, /) -> None: ...
    def close(self, descriptor: int, /) -> None: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def remove(self, path: Path) -> None: ...
    def make_folder(self, path: Path) -> None: ...


class LocalDisk:
    """The operating system's own."""

    write = staticmethod(os.write)
    truncate = staticmethod(os.ftruncate)
    close = staticmethod(os.close)

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def sync(self, descriptor: int, /) -> None:
        if sys.platform == "darwin":  # there fsync stops at the drive's own cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)


LOCAL = LocalDisk()


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, disk: Disk = LOCAL) -> None:
    """Replace a file by new bytes: readers see the old ones or the new ones, and after a power cut so do they.

    Raises:
        StorageFull: the file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with refusing_full(path):
        try:
            descriptor = disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                write_all(descriptor, data, disk)
                disk.sync(descriptor)
            finally:
                disk.close(descriptor)
            disk.rename(temporary, path)
            sync_folder(path.parent, disk)
        finally:
            disk.remove(temporary)


def append_line(path: Path, line: bytes, *, mode: int = 0o600, disk: Disk = LOCAL) -> None:
    """Add a line (given without its line break) to a journal that several processes may write; made when it is missing.

    When this returns the line survives a power cut. A line that a crash left torn is ended first, so it spoils no other.

    Raises:
        StorageFull: nothing of the line is in the journal.
        ValueError: the line holds a line break.
    """
    if b"\n" in line:
        raise ValueError("a journal's line holds no line break")
    with refusing_full(path):
        descriptor = disk.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            try:
                write_all(descriptor, b"\n" * torn + line + b"\n", disk)
                disk.sync(descriptor)
            except OSError:
                disk.truncate(descriptor, size)
                raise
        finally:
            disk.close(descriptor)
        sync_folder(path.parent, disk)


def read_or_none(path: Path) -> bytes | None:
    """The bytes of a file, None when there is none.

    >>> read_or_none(Path("no/such/file")) is None
    True
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write_all(descriptor: int, data: bytes, disk: Disk = LOCAL) -> None:
    """Write bytes, however many calls it takes."""
    done = disk.write(descriptor, data)
    while done < len(data):
        done += disk.write(descriptor, data[done : done + 2**20])


def sync_folder(path: Path, disk: Disk = LOCAL) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = disk.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)


@contextlib.contextmanager
def refusing_full(path: Path) -> Iterator[None]:
    """Turn the ways in which a disk says that it is full into one error that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full(path, error) from error
        raise


def full(path: Path, error: OSError) -> StorageFull:
    """The error for a file that did not fit."""
    return StorageFull(
        f"{path} was not written: {(error.strerror or 'no space').lower()}",
        hint="nothing that was acknowledged is lost; free space or raise the limit, then try again",
    )
