"""The spool: what a run said and nobody has taken over yet, in a folder for each process that began a run.

    <spool>/<run, 32 hex>.<writer, 16 hex>/   one session: a run, and the process that began or resumed it
        <writer>-<number, 6 digits>.log       what a writer said: a head, then entries; the first writer is the session's,
                                              others are processes that were forked off
        files/<sha256, 64 hex>                bytes of artifacts, until they are delivered
        console-head, console-0, console-1    what was printed (`andon.tracking.native.console`)
        lock                                  held by who delivers
        reserve                               room that the last entry gets when the disk is full

Whoever writes a log holds a lock on it; a log without a lock is finished. A frame is one write, so what `append` returned
from survives the end of the process; `sync`, which the sender calls once a second, makes it survive a power cut too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from andon.core.canonical import ALGORITHM, Digest, hex_part
from andon.core.errors import AndonError, Corrupt, NotFound, StorageFull, Unavailable
from andon.core.ids import RunId
from andon.core.predictions import frames
from andon.core.workspace import find_workspace
from andon.store.files import FULL, LOCAL, Disk, full, refusing_full, sync_folder, write_all
from andon.tracking.native.entries import (
    Ended,
    Entry,
    Head,
    Kept,
    Opening,
    Points,
    decode_entry,
    decode_head,
    frame,
)

MAGIC = b"ANDONRUN1\n"
SEGMENT_BYTES = 16 * 2**20
RESERVE_BYTES = 16 * 1024
MOST_POINTS = 1000
MOST_ENTRIES = 1000
MOST_BYTES = 2**20
_SESSION = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{16})\Z")
_LOG = re.compile(r"([0-9a-f]{16})-([0-9]{6,})\.log\Z")
_WINDOW = 2 * 2**20
_PAUSE_S = 0.2
_HEAD_BYTES = 8


def spool_folder(environ: Mapping[str, str], here: Path) -> Path:
    """Where runs of this place write: `ANDON_SPOOL`, else the workspace's `spool/`, else the user's own state folder.

    >>> spool_folder({"ANDON_SPOOL": "/s"}, Path("/")).as_posix()
    '/s'
    >>> spool_folder({"XDG_STATE_HOME": "/x"}, Path("/")).as_posix()
    '/x/andon/spool'
    """
    if named := environ.get("ANDON_SPOOL"):
        return Path(named).absolute()
    try:
        return find_workspace(here, environ).root / "spool"
    except NotFound:
        pass
    if state := environ.get("XDG_STATE_HOME"):
        return Path(state) / "andon" / "spool"
    try:
        return Path.home() / ".local" / "state" / "andon" / "spool"
    except RuntimeError:  # a container's user without a home
        return here / ".andon-spool"


def new_writer() -> str:
    """The id of a writer nobody else has."""
    return secrets.token_hex(8)


class SpoolWriter:
    """One process's end of a run. Safe to share between threads; a forked child makes one of its own.

    Args:
        folder: the session's folder; made when it is missing.
        opening: who writes for which run.
        to: where the entries should go.
        after: number of the last entry, and of the last log, that this writer has written already.
        disk: the calls that change files.
    """

    def __init__(
        self, folder: Path, opening: Opening, to: str, *, after: tuple[int, int] = (0, -1), disk: Disk = LOCAL
    ) -> None:
        self.folder, self.opening, self._to, self._disk = folder, opening, to, disk
        self._lock = threading.RLock()
        self._descriptor = -1
        self._at, self._segment = (0, after[0]), after[1]
        self._next: tuple[int, int] | None = None
        self._busy = False
        self._waiting: list[tuple[type[Entry], tuple[Any, ...], int]] = []
        self._again_s = 0.0
        self._why = ""
        self._synced = True
        self._named: list[Path] = []

    @property
    def seq(self) -> int:
        """The number of the last entry that was written."""
        return self._at[1]

    def append(self, kind: type[Entry], *fields: Any, at_ms: int | None = None) -> int:
        """Write an entry with one write; its number comes back. It is of now unless a time is given.

        Raises:
            StorageFull: there is no room; nothing of it was written. The disk is asked again a little later.
            Invalid: it cannot be written down.
            Unavailable: the folder cannot be written to; it is tried again a little later.
        """
        if at_ms is None:
            at_ms = time.time_ns() // 1_000_000
        with self._lock:
            if (
                self._busy
            ):  # a signal handler of this very thread: its entry comes after the one it broke into
                self._waiting.append((kind, fields, at_ms))
                return self._at[1]
            self._busy = True
            try:
                self._settle()
                self._catch_up()
                seq = self._write(kind, fields, at_ms)
                self._catch_up()
                return seq
            finally:
                self._busy = False

    def keep(self, source: Path | bytes) -> tuple[Digest, int]:
        """Copy the bytes of an artifact into the spool; their digest and size.

        Raises:
            StorageFull: there is no room; nothing was kept.
            OSError: the source cannot be read.
        """
        files = self.folder / "files"
        temporary = files / f".{secrets.token_hex(8)}"
        with refusing_full(files):
            files.mkdir(mode=0o700, parents=True, exist_ok=True)
            state, size = hashlib.sha256(), 0
            try:
                descriptor = self._disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                try:
                    for chunk in [source] if isinstance(source, bytes) else _chunks(source):
                        write_all(descriptor, chunk, self._disk)
                        state.update(chunk)
                        size += len(chunk)
                finally:
                    self._disk.close(descriptor)
                self._disk.rename(temporary, files / state.hexdigest())
            finally:
                self._disk.remove(temporary)
        with self._lock:
            self._named.append(files / state.hexdigest())
        return Digest(f"{ALGORITHM}:{state.hexdigest()}"), size

    def reserve(self) -> None:
        """Set room aside for the run's end, so that a disk that fills up does not keep it from being said."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = self._disk.open(self.folder / "reserve", os.O_WRONLY | os.O_CREAT)
            try:
                write_all(descriptor, b"\0" * RESERVE_BYTES, self._disk)
            finally:
                self._disk.close(descriptor)

    def release(self) -> None:
        """Give the room that was set aside to what is written next."""
        with contextlib.suppress(OSError):
            self._disk.remove(self.folder / "reserve")
        with self._lock:
            self._again_s = 0.0

    def sync(self) -> None:
        """Make what was written survive a power cut. Others go on writing meanwhile.

        Raises:
            OSError: the disk failed; the entries are there as long as the machine runs.
        """
        with self._lock:
            if self._synced and not self._named:
                return
            descriptor = os.dup(self._descriptor) if self._descriptor >= 0 else -1
            named, self._named, self._synced = self._named, [], True
        try:
            for path in named:
                with contextlib.suppress(FileNotFoundError):
                    _sync_path(path, self._disk)
            if descriptor >= 0:
                self._disk.sync(descriptor)
            sync_folder(self.folder, self._disk)
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of the log, which is finished by that. Closing twice changes nothing."""
        with self._lock:
            with contextlib.suppress(AndonError, OSError):
                self._settle()
                self._catch_up()
            self._waiting.clear()
            self._let_go()
            self._again_s, self._why = float("inf"), "it is closed"

    def forget(self) -> None:
        """What a forked child does with its parent's writer: let go of the descriptor, and never touch it again."""
        self._lock = threading.RLock()
        self._next, self._busy = None, False
        self._waiting.clear()
        self.close()

    def _write(self, kind: type[Entry], fields: tuple[Any, ...], at_ms: int) -> int:
        size, seq = self._at
        data = frame(kind(seq + 1, at_ms, *fields))
        if self._descriptor < 0 or size + len(data) > SEGMENT_BYTES:
            self._make_way()
            size = self._at[0]
        self._next = size + len(data), seq + 1
        try:
            if self._disk.write(self._descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "no space left for the whole of it")
        except OSError as error:
            self._take_back(error)
            raise full(self.folder, error) from None
        self._at, self._next, self._synced = self._next, None, False
        return seq + 1

    def _settle(self) -> None:
        """Find out what became of a write in whose middle an exception came, such as Ctrl-C: the file's size tells."""
        if self._next is None:
            return
        if self._descriptor >= 0:
            size = os.fstat(self._descriptor).st_size
            if size == self._next[0]:
                self._at = self._next
            elif size != self._at[0]:
                self._disk.truncate(self._descriptor, self._at[0])
        self._next = None

    def _catch_up(self) -> None:
        """Write what signal handlers said in the middle of another call."""
        while self._waiting:
            self._write(*self._waiting.pop(0))

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1

    def _make_way(self) -> None:
        """Have an open segment with room. After a failure the disk is left alone for a moment."""
        if time.monotonic() < self._again_s:
            raise StorageFull(self._why) if self._why.endswith("full") else Unavailable(self._why)
        try:
            self._begin()
        except OSError as error:
            self._again_s = time.monotonic() + _PAUSE_S
            if error.errno in FULL:
                self._why = f"the disk of {self.folder} is full"
                raise full(self.folder, error) from None
            self._why = f"the spool {self.folder} cannot be written to: {error.strerror}"
            raise Unavailable(self._why, hint="set ANDON_SPOOL to a folder that can be written to") from None

    def _take_back(self, error: OSError) -> None:
        """Leave the log as it was before the write that failed, and begin another one later."""
        with contextlib.suppress(OSError):
            self._disk.truncate(self._descriptor, self._at[0])
        self._let_go()
        self._next = None
        self._why = f"the disk of {self.folder} is full"
        self._again_s = time.monotonic() + _PAUSE_S

    def _begin(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = self._segment + 1
        path = self.folder / f"{self.opening.writer}-{number:06d}.log"
        head = Head(
            opening=self.opening, segment=number, first=self._at[1] + 1, to=self._to, pid=os.getpid(),
            host=socket.gethostname(),
        )  # fmt: skip
        data = MAGIC + frame(head)
        unnamed = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = self._disk.open(unnamed, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._disk.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "no space left for its head")
            self._disk.rename(unnamed, path)
        except BaseException:
            self._disk.close(descriptor)
            with contextlib.suppress(OSError):
                self._disk.remove(unnamed)
            raise
        self._let_go()
        self._at = len(data), self._at[1]
        self._descriptor, self._segment, self._synced = descriptor, number, False


class SpoolReader:
    """The entries of one writer, from the first that is not taken over yet. Not safe to share between threads."""

    def __init__(self, folder: Path, writer: str) -> None:
        self._folder, self._writer = folder, writer
        self._at: tuple[int, int] = (-1, 0)
        self._after: tuple[int, int] = (-1, 0)
        self._acknowledged = 0
        self.head = self._first_head()
        self.last = 0
        self.last_ms = self.head.opening.opened_ms
        self.ended = False

    @property
    def opening(self) -> Opening:
        return self.head.opening

    def peek(self) -> list[Entry]:
        """The next entries for one delivery, at most 1,000 points and a megabyte; the same again until `advance`. Where
        damage has left a gap, the entries after it are a delivery of their own.

        Raises:
            Corrupt: an entry is none that this Andon knows.
        """
        found: list[Entry] = []
        points, size, self._after = 0, 0, self._at
        for segment, end, payload in self._frames(self._at):
            entry = decode_entry(payload)
            size += len(payload)
            points += len(entry.values) if isinstance(entry, Points) else 1
            full_up = size > MOST_BYTES or points > MOST_POINTS or len(found) >= MOST_ENTRIES
            if found and (full_up or entry.seq != found[-1].seq + 1):
                break
            self._after = (segment, end)
            self.last, self.last_ms = max(self.last, entry.seq), entry.at_ms
            self.ended = self.ended or isinstance(entry, Ended)
            if entry.seq > self._acknowledged:
                found.append(entry)
            else:
                size, points = 0, 0
        return found

    def advance(self) -> None:
        """Go past what `peek` gave; logs that lie behind are deleted."""
        before, self._at = self._at[0], self._after
        for number, path in self._segments():
            if before <= number < self._at[0]:
                path.unlink(missing_ok=True)

    def skip(self) -> None:
        """Go past what `peek` gave, and delete nothing."""
        self._at = self._after

    def acknowledge(self, seq: int) -> None:
        """Leave out entries up to a number: they are taken over already."""
        self._acknowledged = seq

    def rewind(self) -> None:
        """Begin again at the oldest entry that is still here."""
        self._at = self._after = (-1, 0)

    def _segments(self) -> list[tuple[int, Path]]:
        return sorted(
            (number, path) for writer, number, path in _logs(self._folder) if writer == self._writer
        )

    def _first_head(self) -> Head:
        for _, path in self._segments():
            with contextlib.suppress(Corrupt, FileNotFoundError):
                return read_head(path)
        raise Corrupt(f"no log of {self._writer} in {self._folder} has a head that can be read")

    def _frames(self, start: tuple[int, int]) -> Iterator[tuple[int, int, bytes]]:
        """Frames from a place on: (segment, offset after it, payload). A torn tail ends its segment."""
        segments = [(number, path) for number, path in self._segments() if number >= start[0]]
        for number, path in segments:
            offset = start[1] if number == start[0] else 0
            for end, payload in _read_frames(path, offset):
                yield number, end, payload


class Session:
    """The folder of one run and the process that began or resumed it, as who delivers it sees it."""

    def __init__(self, folder: Path) -> None:
        match = _SESSION.match(folder.name)
        if match is None:
            raise Corrupt(f"{folder} is not the folder of a run's spool")
        self.folder = folder
        self.run = RunId(match[1])
        self.owner = match[2]
        self._lock = -1

    @property
    def console(self) -> Path:
        """Where what is printed is kept, as the beginning of file names."""
        return self.folder / "console"

    def writers(self) -> list[str]:
        """Who wrote here, the session's own process first."""
        found = {writer for writer, _, _ in _logs(self.folder)}
        return sorted(found, key=lambda writer: (writer != self.owner, writer))

    def reader(self, writer: str) -> SpoolReader:
        """The entries of one of them.

        Raises:
            Corrupt: none of its logs can be read.
        """
        return SpoolReader(self.folder, writer)

    def end(self, reader: SpoolReader, files: Sequence[tuple[str, bytes]]) -> None:
        """Write the end of a writer whose process is gone without a word, after what it left as files. It was killed after
        its last entry."""
        numbers = [number for writer, number, _ in _logs(self.folder) if writer == reader.opening.writer]
        writer = SpoolWriter(self.folder, reader.opening, reader.head.to, after=(reader.last, max(numbers)))
        try:
            for name, data in files:
                writer.append(Kept, name, *writer.keep(data), at_ms=reader.last_ms)
            writer.append(Ended, "killed", at_ms=reader.last_ms)
            writer.sync()
        finally:
            writer.close()

    def alive(self, writer: str | None = None) -> bool:
        """Whether a process still writes: any, or that of one writer."""
        return any(_held(path) for who, _, path in _logs(self.folder) if writer is None or who == writer)

    def file(self, digest: Digest) -> Path:
        """Where the bytes of an artifact are until they are delivered."""
        return self.folder / "files" / hex_part(digest)

    def take(self) -> bool:
        """Become the one who delivers; whether that worked. It ends with `drop`, or with the process."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def drop(self) -> None:
        """Let somebody else deliver. Doing it again changes nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete everything, when all of it is taken over."""
        shutil.rmtree(self.folder, ignore_errors=True)


def sessions(root: Path) -> list[Session]:
    """The sessions in a spool, oldest run first; what is not ours is left alone."""
    try:
        names = sorted(path for path in root.iterdir() if _SESSION.match(path.name) and path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [Session(path) for path in names]


def session_folder(root: Path, opening: Opening) -> Path:
    """The folder of a session in a spool."""
    return root / f"{opening.run}.{opening.writer}"


def read_head(path: Path) -> Head:
    """The head of a log.

    Raises:
        Corrupt: it has none.
        FileNotFoundError: it is gone.
    """
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), 64 * 1024, 0)
    if data.startswith(MAGIC):
        for _, payload in frames(data, len(MAGIC)):
            return decode_head(payload)
    raise Corrupt(f"the log {path} has no head", hint="check the disk")


def _read_frames(path: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """The whole frames of a log after its head: (offset after the frame, payload)."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return
    with file:
        if not offset:
            data = os.pread(file.fileno(), _WINDOW, 0)
            if not data.startswith(MAGIC):
                return
            offset = next((end for end, _ in frames(data, len(MAGIC))), 0)
            if not offset:
                return
        while data := os.pread(file.fileno(), _WINDOW, offset):
            end = 0
            for end, payload in frames(data):
                yield offset + end, payload
            if not end:
                return
            offset += end


def _logs(folder: Path) -> list[tuple[str, int, Path]]:
    try:
        names = list(folder.iterdir())
    except FileNotFoundError:
        return []
    return [(match[1], int(match[2]), path) for path in names if (match := _LOG.match(path.name))]


def _held(path: Path) -> bool:
    try:
        with path.open("rb", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(2**20):
            yield chunk


def _sync_path(path: Path, disk: Disk) -> None:
    descriptor = disk.open(path, os.O_RDONLY)
    try:
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)


__all__ = [
    "MAGIC",
    "MOST_POINTS",
    "Session",
    "SpoolReader",
    "SpoolWriter",
    "new_writer",
    "read_head",
    "session_folder",
    "sessions",
    "spool_folder",
]
