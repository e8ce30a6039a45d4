"""One file of the prediction log as a reader sees it: an index of its whole records that grows with the file."""

from __future__ import annotations

import fcntl
import os
import re
from array import array
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from andon.core.errors import Corrupt
from andon.core.ids import BOOT_BITS, NUMBER_BITS, ReleaseId, SegmentId
from andon.core.predictions import MAGIC, PredictionRecord, decode_header, decode_record, frames

SUFFIX = ".log"
_NAME = re.compile(r"([0-9a-f]{10})-([0-9]{6,})\Z")
_HEAD_BYTES = 8
_HEADER_BYTES = 64
_WINDOW = 8 * 2**20


class LogFile:
    """The index of one file: where each record begins. Not safe to share between threads.

    Every verb that reads raises FileNotFoundError when the file was dropped: then its records are in a sealed blob.
    """

    def __init__(self, path: Path, boot: int, number: int) -> None:
        self.path = path
        self.id = SegmentId(path.name.removesuffix(SUFFIX))
        self.boot = boot
        self.number = number
        self._forget()

    @property
    def end(self) -> int:
        """The number after the last record that was read."""
        return self.first + len(self._starts)

    def refresh(self) -> None:
        """Read what was appended since, as far as it is whole."""
        with self.path.open("rb", buffering=0) as file:
            if self._starts and _pread(file, self._starts[-1], _HEAD_BYTES) != self._last_head:
                self._forget()  # a refused write was taken back, and another came in its place
            if not self._offset and not self._read_header(file):
                return
            while self._read_window(file):
                pass
            if os.fstat(file.fileno()).st_size < self._offset:
                self._forget()

    def read(self, number: int, limit: int) -> list[PredictionRecord]:
        """Records from a number on, at most `limit`, of those that the last refresh saw."""
        first = max(0, number - self.first)
        if limit <= 0 or first >= len(self._starts):
            return []
        last = min(first + limit, len(self._starts))
        start = self._starts[first]
        stop = self._starts[last] if last < len(self._starts) else self._offset
        with self.path.open("rb", buffering=0) as file:
            data = _pread(file, start, stop - start)
        return [decode_record(payload) for _, payload in frames(data)]

    def records(self) -> list[PredictionRecord]:
        """All records of a finished file, up to a torn tail.

        Raises:
            Corrupt: its header is damaged, or it holds other records than its name and header say.
        """
        self._forget()
        self.refresh()
        if not self._offset:
            if len(self.path.read_bytes().strip(b"\0")) > _HEADER_BYTES:
                raise Corrupt(f"the prediction log {self.path} has a damaged header", hint="check the disk")
            return []
        records = self.read(self.first, len(self._starts))
        if [place(item) for item in records] != [(self.boot, self.first + k) for k in range(len(records))]:
            raise Corrupt(
                f"the prediction log {self.path} holds records of another place", hint="check the disk"
            )
        return records

    def releases(self) -> Counter[ReleaseId]:
        """How many records of each release it holds."""
        self.refresh()
        for item in self.read(self.first + self._counted, len(self._starts)):
            self._counts[item.release] += 1
            self._counted += 1
        return self._counts

    def _forget(self) -> None:
        self.first = 0
        self._starts = array("Q")
        self._offset = 0
        self._last_head = b""
        self._counts: Counter[ReleaseId] = Counter()
        self._counted = 0

    def _read_header(self, file: BinaryIO) -> bool:
        """Whether the file has a header; one that a power cut left without holds nothing."""
        data = _pread(file, 0, len(MAGIC) + 1024)
        if not data.startswith(MAGIC):
            return False
        end, payload = next(frames(data, len(MAGIC)), (0, b""))
        try:
            header = decode_header(payload)
        except Corrupt:
            return False
        if (header.boot, header.segment) != (self.boot, self.number):
            return False
        self.first, self._offset = header.first, end
        return True

    def _read_window(self, file: BinaryIO) -> bool:
        """Index what comes next; whether there was something. A window without a whole record is made wider."""
        size, left = _WINDOW, os.fstat(file.fileno()).st_size - self._offset
        while left > 0:
            data = _pread(file, self._offset, size)
            start, end = 0, 0
            for end, _ in frames(data):
                self._starts.append(self._offset + start)
                self._last_head = data[start : start + _HEAD_BYTES]
                start = end
            self._offset += end
            if end or size >= left:
                return end > 0
            size *= 4
        return False


def log_files(folder: Path) -> list[LogFile]:
    """The log files in a folder, by boot and number; other files are not ours."""
    try:
        names = [path.name.removesuffix(SUFFIX) for path in folder.iterdir() if path.suffix == SUFFIX]
    except FileNotFoundError:
        return []
    found = (log_file(folder, name) for name in names)
    return sorted((file for file in found if file), key=lambda file: (file.boot, file.number))


def log_file(folder: Path, segment: str) -> LogFile | None:
    """The file that a segment has or had in a folder; None when the id is not one of a segment.

    >>> log_file(Path("p"), "000000004d-000003").path.as_posix(), log_file(Path("p"), "../x")
    ('p/000000004d-000003.log', None)
    """
    match = _NAME.match(segment)
    return LogFile(folder / (segment + SUFFIX), int(match[1], 16), int(match[2])) if match else None


def whole_part(data: bytes) -> bytes:
    """The beginning of a log file's bytes that is whole; nothing when that holds no record."""
    ends = [end for end, _ in frames(data, len(MAGIC))] if data.startswith(MAGIC) else []
    return data[: ends[-1]] if len(ends) > 1 else b""


def held(path: Path) -> bool:
    """Whether a writer holds the file."""
    with path.open("rb", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def place(record: PredictionRecord) -> tuple[int, int]:
    """Boot and number of a record."""
    value = int.from_bytes(record.id)
    low = (value >> 64 & 0xFFF) << 62 | value & (2**62 - 1)
    return low >> NUMBER_BITS & (2**BOOT_BITS - 1), low & (2**NUMBER_BITS - 1)


def _pread(file: BinaryIO, start: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, start)
