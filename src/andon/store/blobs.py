"""Blobs in a local folder: one read-only file for each content, named by its digest.

`LocalBlobs` is safe to share between threads and processes without a lock: a file is written under a name of its own in
`tmp/` and renamed into place when it is complete, so a name in `sha256/` always has its whole content.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from andon.core.canonical import ALGORITHM, Digest, digest_bytes, hex_part, parse_digest
from andon.core.clock import Clock, SystemClock, from_us, to_us
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.store.files import LOCAL, Disk, refusing_full, sync_folder, write_all

CHUNK = 2**20
STALE = timedelta(days=1)
_RENEW_NS = 60 * 10**9
_REMEMBERED = 65_536
_SETTLED_NS = 2_000_000_000
_AHEAD = 8 * CHUNK


class _Identity(NamedTuple):
    """What tells one file on disk from another that took its name."""

    device: int
    inode: int
    size: int
    changed_ns: int


def storage_key(digest: Digest) -> Path:
    """Where a content lies below the root. The one place that decides it; a digest is not its own address by nature.

    >>> storage_key(Digest("sha256:" + "ab" * 32)).as_posix()[:16]
    'sha256/ab/ababab'
    """
    name = hex_part(parse_digest(digest))
    return Path(ALGORITHM, name[:2], name[2:])


class LocalBlobs:
    """Content-addressed files below `root`; opening makes nothing, the first `put` makes the folders.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     blobs = LocalBlobs(Path(folder))
    ...     digest = blobs.put(b"abc")
    ...     blobs.get(digest), blobs.size(digest), list(blobs.digests()) == [digest]
    (b'abc', 3, True)
    """

    def __init__(self, root: Path, *, clock: Clock | None = None, disk: Disk = LOCAL) -> None:
        self._root = root.absolute()
        self._tmp = self._root / "tmp"
        self._disk = disk
        self._durable: dict[Digest, _Identity] = {}
        self._checked: dict[Digest, _Identity] = {}
        self._read: dict[Digest, tuple[_Identity, float]] = {}
        self._prepared: set[Path] = set()
        self._sweep(clock or SystemClock())

    def put(self, data: bytes | Iterable[bytes]) -> Digest:
        """Store bytes or a stream of chunks.

        What is there already is not written again: bytes then cost a hash, a stream its temporary file. A file whose
        size is wrong is replaced.

        Raises:
            StorageFull: nothing was stored.
        """
        with refusing_full(self._root):
            if isinstance(data, bytes):
                digest = digest_bytes(data)
                if self._keep(digest, len(data)):
                    return digest
                data = (data,)
            return self._write(data)

    def writer(self) -> BlobWriter:
        """A blob that comes in pieces, from whoever has them when they come. To be closed, as a `with` does.

        Raises:
            StorageFull: there is no room for it.
        """
        with refusing_full(self._root):
            self._prepare(self._tmp)
            return BlobWriter(self)

    def reader(self, digest: Digest, *, recent_s: float = 0) -> BlobReader:
        """The bytes, checked before this returns, to be read in any order. To be closed, as a `with` does.

        The whole file is hashed, unless that was done in the last `recent_s` seconds and nothing has touched the file
        since: a write moves its change time, which no file's owner can set back. Who reads one file in many pieces may ask
        for that; bits that rot on the disk in between are then met a little later.

        Raises:
            NotFound: there are none.
            Corrupt: the file does not match the digest; the message names it.
        """
        try:
            reader = BlobReader(self._path(digest), digest)
        except FileNotFoundError:
            raise self._missing(digest) from None
        began_ns, now_s = time.time_ns(), time.monotonic()
        known = self._read.get(digest)
        if known is not None and known[0] == reader.touched and now_s - known[1] < recent_s:
            return reader
        try:
            reader.check()
        except BaseException:
            reader.close()
            raise
        # A write within the same tick of the clock would look like none, so young files are not remembered.
        if began_ns - reader.touched.changed_ns > _SETTLED_NS:
            if len(self._read) >= _REMEMBERED:
                self._read.clear()
            self._read[digest] = (reader.touched, now_s)
        return reader

    def get(self, digest: Digest) -> bytes:
        """The bytes.

        Raises:
            NotFound: there are none.
            Corrupt: the file does not match the digest; the message names it.
        """
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise self._missing(digest) from None
        if hashlib.sha256(data).hexdigest() != hex_part(digest):
            raise _corrupt(self._path(digest))
        return data

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """The bytes in chunks of 1 MiB; a mismatch is raised after the last, so use nothing before.

        Raises:
            NotFound: there are none (raised at once).
            Corrupt: the file does not match the digest.
        """
        self._stat(digest)
        return self._chunks(digest)

    def has(self, digest: Digest) -> bool:
        """Whether there are bytes of that digest; they are not read."""
        return self._path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Size in bytes.

        Raises:
            NotFound: there are none.
        """
        return self._stat(digest).size

    def path(self, digest: Digest) -> str:
        """The file with the bytes, to be read only. Hashed once in a process, and again when the file has changed.

        Raises:
            NotFound: there are none.
            Corrupt: the file does not match the digest; the message names it.
        """
        before = self._stat(digest)
        if self._checked.get(digest) != before:
            for _ in self._chunks(digest):
                pass
            _remember(self._checked, digest, before)
        return str(self._path(digest))

    def digests(self) -> Iterator[Digest]:
        """All that are stored, in no order. Files of other names are not ours."""
        for folder in _entries(self._root / ALGORITHM):
            for file in _entries(Path(folder)):
                with contextlib.suppress(Invalid):
                    yield parse_digest(f"{ALGORITHM}:{folder.name}{file.name}")

    def remove(self, digest: Digest) -> None:
        """Delete; deleting again changes nothing."""
        self._disk.remove(self._path(digest))

    def put_at(self, digest: Digest) -> datetime:
        """When these bytes were last stored, by whoever stored them or stored them again; at most a minute before that.

        Raises:
            NotFound: there are none.
        """
        return from_us(self._stat(digest).changed_ns // 1000)

    def remove_unused(self, digest: Digest, *, before: datetime) -> int | None:
        """Delete what nothing names, unless somebody has stored it since: the bytes that are free now, or None.

        Who stores a blob writes down afterwards what names it. So a blob that was stored lately, again perhaps, may be
        named soon, and stays.
        """
        if not self.has(digest):
            return None
        with self._alone(fcntl.LOCK_EX):
            try:
                found = self._stat(digest)
            except NotFound:
                return None
            if found.changed_ns >= to_us(before) * 1000 - _RENEW_NS:
                return None
            self._disk.remove(self._path(digest))
        return found.size

    def _path(self, digest: Digest) -> Path:
        return self._root / storage_key(digest)

    def _stat(self, digest: Digest) -> _Identity:
        try:
            status = self._path(digest).stat()
        except FileNotFoundError:
            raise self._missing(digest) from None
        return _Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def _chunks(self, digest: Digest) -> Iterator[bytes]:
        state = hashlib.sha256()
        with self._path(digest).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                state.update(chunk)
                yield chunk
        if state.hexdigest() != hex_part(digest):
            raise _corrupt(self._path(digest))

    def _keep(self, digest: Digest, size: int) -> bool:
        """Whether the content is there already; then it is made to survive a power cut, whoever wrote it."""
        try:
            found = self._renewed(digest)
        except NotFound:
            return False
        if found.size != size:
            return False
        if self._durable.get(digest) != found:
            folder = self._path(digest).parent
            self._prepare(folder)
            sync_folder(folder, self._disk)
            _remember(self._durable, digest, found)
        return True

    def _renewed(self, digest: Digest) -> _Identity:
        """A file that is there, marked as stored just now, so that nobody takes it for one that nothing needs."""
        found = self._stat(digest)
        if time.time_ns() - found.changed_ns < _RENEW_NS:
            return found
        with self._alone(fcntl.LOCK_SH):
            self._stat(digest)
            os.utime(self._path(digest))
        return self._stat(digest)

    @contextlib.contextmanager
    def _alone(self, kind: int) -> Iterator[None]:
        """Many may store what is there already at once, and nobody while a file that nothing needs is deleted."""
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)

    def _write(self, chunks: Iterable[bytes]) -> Digest:
        with self.writer() as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    def _adopt(self, temporary: Path, descriptor: int, digest: Digest) -> None:
        """Give a whole temporary file the name of its content: sync, rename, sync of the folder."""
        self._disk.sync(descriptor)
        path = self._path(digest)
        self._prepare(path.parent)
        with self._alone(fcntl.LOCK_SH):
            self._disk.rename(temporary, path)
        sync_folder(path.parent, self._disk)
        _remember(self._durable, digest, self._stat(digest))

    def _is_whole(self, digest: Digest) -> bool:
        """Whether the bytes that are stored match their digest; they are read."""
        try:
            self.reader(digest).close()
        except (Corrupt, NotFound):
            return False
        return True

    def _prepare(self, folder: Path) -> None:
        """Make a folder and those above it up to the root's parent survive a power cut; once in a process for each."""
        if folder in self._prepared:
            return
        if folder == self._root:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            self._prepare(folder.parent)
        self._disk.make_folder(folder)
        sync_folder(folder.parent, self._disk)
        self._prepared.add(folder)

    def _sweep(self, clock: Clock) -> None:
        """Remove what killed writers left: old files in `tmp/` that nobody holds."""
        oldest_ns = (to_us(clock.now()) - STALE // timedelta(microseconds=1)) * 1000
        for entry in _entries(self._tmp):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                if entry.stat().st_mtime_ns < oldest_ns:
                    with Path(entry).open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        self._disk.remove(Path(entry))

    def _missing(self, digest: Digest) -> NotFound:
        return NotFound(f"there is no blob {digest} in {self._root}", hint="restore it from a backup")


class BlobWriter:
    """A blob that is being written. Safe to share between threads; a writer that dies leaves nothing that counts."""

    def __init__(self, blobs: LocalBlobs) -> None:
        self._blobs, self._disk = blobs, blobs._disk
        self._temporary = blobs._tmp / secrets.token_hex(16)
        self._state = hashlib.sha256()
        self._lock = threading.Lock()
        self.size_bytes = self._begun = 0
        self._descriptor = self._disk.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        self._open = True
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # in use: no sweep takes it away

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            StorageFull: there is no room for them; the writer can only be closed.
        """
        with self._lock, refusing_full(self._blobs._root):
            self._check_open()
            write_all(self._descriptor, chunk, self._disk)
            self._state.update(chunk)
            self.size_bytes += len(chunk)
            if self.size_bytes - self._begun >= _AHEAD:
                self._begun += _begin_writing(self._descriptor, self._begun, self.size_bytes - self._begun)

    def commit(self, *, heal: bool = False) -> Digest:
        """Store what was written, so that it survives a power cut. With `heal`, bytes that are there already are read, and
        replaced when they are damaged.

        Raises:
            StorageFull: nothing was stored.
        """
        with self._lock, refusing_full(self._blobs._root):
            self._check_open()
            digest = Digest(f"{ALGORITHM}:{self._state.hexdigest()}")
            if not self._blobs._keep(digest, self.size_bytes) or (heal and not self._blobs._is_whole(digest)):
                self._blobs._adopt(self._temporary, self._descriptor, digest)
        return digest

    def close(self) -> None:
        """Let go; what was not committed is gone. Closing twice changes nothing."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            try:
                self._disk.close(self._descriptor)
            finally:
                self._disk.remove(self._temporary)

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("this blob's writer is closed")


class BlobReader:
    """A blob's file that stays open. Safe to share between threads; `LocalBlobs.reader` gives one that is checked."""

    def __init__(self, path: Path, digest: Digest) -> None:
        self._path, self._digest = path, digest
        self._lock = threading.RLock()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open = True
        self.touched = self._look()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        return self.touched.size

    def read(self, start: int, count: int) -> bytes:
        """Bytes from a position on; fewer than `count` only at the end. A file that was touched is checked again.

        Raises:
            Corrupt: somebody has changed the bytes since they were checked; none of these are given.
        """
        with self._lock:
            if not self._open:
                raise ValueError("this blob's reader is closed")
            data = os.pread(self._descriptor, count, start)
            while self._look() != self.touched:
                self.check()
                data = os.pread(self._descriptor, count, start)
        return data

    def check(self) -> None:
        """Hash the whole file.

        Raises:
            Corrupt: it does not match the digest; the message names it.
        """
        with self._lock:
            self.touched = self._look()
            state, start = hashlib.sha256(), 0
            while chunk := os.pread(self._descriptor, CHUNK, start):
                state.update(chunk)
                start += len(chunk)
        if state.hexdigest() != hex_part(self._digest):
            raise _corrupt(self._path)

    def close(self) -> None:
        """Let go. Closing twice changes nothing."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._descriptor)

    def _look(self) -> _Identity:
        """Which file it is and when it last changed in any way: its owner cannot set that time back."""
        status = os.fstat(self._descriptor)
        return _Identity(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


def _corrupt(path: Path) -> Corrupt:
    return Corrupt(
        f"the blob {path} does not match its digest",
        hint="it is not used; restore it from a backup, and check the disk",
    )


def _begin_writing(descriptor: int, start: int, count: int) -> int:
    """Have the disk begin with what was written, so that the sync at the end finds little left; how much that was."""
    if hasattr(os, "posix_fadvise"):  # Linux takes the advice by starting to write back
        os.posix_fadvise(descriptor, start, count, os.POSIX_FADV_DONTNEED)
    return count


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing when the folder is not there."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _remember(known: dict[Digest, _Identity], digest: Digest, identity: _Identity) -> None:
    """Keep what was found out about a file, in bounded memory."""
    if len(known) >= _REMEMBERED:
        known.clear()
    known[digest] = identity
