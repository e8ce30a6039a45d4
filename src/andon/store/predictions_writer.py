"""The writing end of the prediction log, as light as a gateway worker needs it: no data frames, no database.

Each worker boot writes files of its own, `<boot, 10 hex>-<segment, 6 digits>.log`, one after the other. Whoever writes a
file holds a lock on it; a file without a lock is finished, because a file gets its name only when it is locked and has
its header. `andon.store.predictions` reads and seals them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from andon.core.clock import Clock, to_us
from andon.core.errors import Invalid, StorageFull, TooLarge, Unavailable
from andon.core.ids import BOOT_BITS, NUMBER_BITS, SegmentId
from andon.core.predictions import MAGIC, MAX_PAYLOAD, VERSION, PredictionRecord, SegmentHeader, frame
from andon.store.files import FULL, LOCAL, Disk, full, sync_folder

SUFFIX = ".log"
_HEAD_BYTES = 8
_LOW_BITS = 62


def segment_id(boot: int, number: int) -> SegmentId:
    """The id of a boot's segment, which is also its file's name without the suffix.

    >>> segment_id(77, 3)
    '000000004d-000003'
    """
    return SegmentId(f"{boot:010x}-{number:06d}")


class SegmentWriter:
    """One worker's end of the log; implements `andon.store.ports.PredictionWriter`. For one thread only.

    Args:
        folder: where the files go.
        clock: wall time for headers, monotonic time for the age of a segment.
        durability: what a record survives once `append` has returned: `process` is kill -9, `disk` also a power cut.
        max_bytes, max_age_s: a segment that reached either is finished, and the next append begins another.
        disk: the calls that change files.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        durability: Literal["process", "disk"] = "process",
        max_bytes: int = 4 * 2**20,
        max_age_s: float = 30.0,
        disk: Disk = LOCAL,
    ) -> None:
        self._folder, self._clock, self._disk = folder, clock, disk
        self._synced = durability == "disk"
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._boot = _unused_boot(folder)
        self._boot_high = self._boot >> (_LOW_BITS - NUMBER_BITS)
        self._boot_low = 2 << _LOW_BITS | (self._boot << NUMBER_BITS) & (2**_LOW_BITS - 1)
        self._number = 0
        self._segment = -1
        self._descriptor = -1
        self._failed = ""
        self._begin()

    @property
    def boot(self) -> int:
        """The boot that ids of this writer carry, 40 random bits."""
        return self._boot

    def next_number(self) -> int:
        """The number that the next record must carry in its id: 0, 1, 2, ... without gaps."""
        return self._number

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Write records with one call, before their answers leave.

        Raises:
            StorageFull: nothing of them is in the log, and their numbers are free again; the writer stays usable.
            Invalid: a record carries another number than its place, or cannot be encoded; nothing was written.
            Unavailable: an earlier write failed in a way that cannot be taken back; a new writer is needed.
        """
        if not records:
            return
        data = self._encode(records)
        self._make_way()
        try:
            if self._disk.write(self._descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "no space left for the whole of it")
            if self._synced:
                self._disk.sync(self._descriptor)
        except OSError as error:
            self._take_back(error)
            raise
        self._size += len(data)
        self._number += len(records)

    def roll(self) -> None:
        """Finish the segment if it is due, so that an idle worker's records get sealed too; call it now and then.

        Raises:
            StorageFull: there is no room for the next one; this one goes on.
        """
        if self._due() and self._number > self._first:
            self._begin()

    def close(self) -> None:
        """Finish the segment so that it can be sealed. Closing twice changes nothing."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1
            if self._number == self._first:
                self._disk.remove(self._path)
            self._failed = "it is closed"

    def _encode(self, records: Sequence[PredictionRecord]) -> bytes:
        parts: list[bytes] = []
        for number, record in enumerate(records, self._number):
            high, low = int.from_bytes(record.id[6:8]) & 0xFFF, int.from_bytes(record.id[8:])
            if high != self._boot_high or low != self._boot_low | number:
                raise Invalid(
                    f"the record {record.id.hex()} is not record {number} of boot {self._boot:010x}"
                )
            try:
                part = frame(record)
            except (OverflowError, TypeError, ValueError) as error:
                raise Invalid(f"record {number} cannot be logged: {error}") from None
            if len(part) > MAX_PAYLOAD + _HEAD_BYTES:
                raise TooLarge(
                    f"record {number} has {len(part)} bytes", hint=f"at most {MAX_PAYLOAD} bytes are logged"
                )
            parts.append(part)
        return b"".join(parts)

    def _make_way(self) -> None:
        """Have an open segment with room. One that is only due goes on when the next cannot be begun."""
        if self._failed:
            raise Unavailable(
                f"the prediction log {self._path} takes no more: {self._failed}", hint="restart the gateway"
            )
        if self._spent or (self._due() and self._number > self._first):
            try:
                self._begin()
            except StorageFull:
                if self._spent:
                    raise

    def _due(self) -> bool:
        return self._size >= self._max_bytes or self._clock.monotonic_s() - self._since >= self._max_age_s

    def _take_back(self, error: OSError) -> None:
        """Leave the file as it was before the write that failed."""
        try:
            self._disk.truncate(self._descriptor, self._size)
        except OSError as second:
            self._failed = f"a failed write could not be taken back ({second.strerror})"
            raise Unavailable(
                f"the prediction log {self._path} failed: {error.strerror}", hint="restart the gateway"
            ) from error
        # A file whose sync failed once is not to be trusted with another.
        self._spent = self._synced
        if error.errno in FULL:
            raise full(self._path, error) from error

    def _begin(self) -> None:
        """Begin the next segment, then let go of the last: a boot that lives always has a file in the folder."""
        path = self._folder / (segment_id(self._boot, self._segment + 1) + SUFFIX)
        header = SegmentHeader(VERSION, self._boot, self._segment + 1, self._number, to_us(self._clock.now()))
        data = MAGIC + frame(header)
        descriptor = self._create(path, data)
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
        self._descriptor, self._path, self._size = descriptor, path, len(data)
        self._segment, self._first, self._since = header.segment, header.first, self._clock.monotonic_s()
        self._spent = False

    def _create(self, path: Path, data: bytes) -> int:
        """A locked file with its header, which gets its name last."""
        unnamed = path.with_name(f".{path.name}.new")
        descriptor = -1
        try:
            descriptor = self._disk.open(unnamed, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._disk.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "no space left for its header")
            if self._synced:
                self._disk.sync(descriptor)
            self._disk.rename(unnamed, path)
            if self._synced:
                sync_folder(self._folder, self._disk)
        except OSError as error:
            if descriptor >= 0:
                self._disk.close(descriptor)
                self._disk.remove(unnamed)
                self._disk.remove(path)
            if error.errno in FULL:
                raise full(path, error) from error
            raise
        return descriptor


def _unused_boot(folder: Path) -> int:
    while True:
        boot = secrets.randbits(BOOT_BITS)
        if not any(folder.glob(f"*{boot:010x}-*")):
            return boot
