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
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from andon.core.canonical import ALGORITHM, Digest, digest_bytes, hex_part, parse_digest
from andon.core.clock import Clock, SystemClock, to_us
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.store.files import LOCAL, Disk, refusing_full, sync_folder, write_all

CHUNK = 2**20
STALE = timedelta(days=1)
_REMEMBERED = 65_536


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
            raise self._corrupt(digest)
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
            raise self._corrupt(digest)

    def _keep(self, digest: Digest, size: int) -> bool:
        """Whether the content is there already; then it is made to survive a power cut, whoever wrote it."""
        try:
            found = self._stat(digest)
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

    def _write(self, chunks: Iterable[bytes]) -> Digest:
        """Temporary file, sync, rename, sync of the folder."""
        self._prepare(self._tmp)
        temporary = self._tmp / secrets.token_hex(16)
        try:
            descriptor = self._disk.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # in use: no sweep takes it away
                digest, size = self._fill(descriptor, chunks)
                if not self._keep(digest, size):
                    self._disk.sync(descriptor)
                    path = self._path(digest)
                    self._prepare(path.parent)
                    self._disk.rename(temporary, path)
                    sync_folder(path.parent, self._disk)
                    _remember(self._durable, digest, self._stat(digest))
            finally:
                self._disk.close(descriptor)
        finally:
            self._disk.remove(temporary)
        return digest

    def _fill(self, descriptor: int, chunks: Iterable[bytes]) -> tuple[Digest, int]:
        state, size = hashlib.sha256(), 0
        for chunk in chunks:
            write_all(descriptor, chunk, self._disk)
            state.update(chunk)
            size += len(chunk)
        return Digest(f"{ALGORITHM}:{state.hexdigest()}"), size

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

    def _corrupt(self, digest: Digest) -> Corrupt:
        return Corrupt(
            f"the blob {self._path(digest)} does not match its digest",
            hint="it is not used; restore it from a backup, and check the disk",
        )


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
