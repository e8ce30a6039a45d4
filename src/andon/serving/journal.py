"""The override journal: undos made at gateways, on disk before they are answered, shared by all gateways of a machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from andon.core.errors import AndonError
from andon.core.routes import Override, decode_override, encode_override
from andon.store.files import append_line, read_or_none


class Journal:
    """A file of signed lines. Safe to share between threads and processes; what `add` returned survives a power cut.

    A line that is torn, foreign or changed counts for nothing and is reported by its number.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._key = key

    def read(self) -> tuple[list[Override], list[int]]:
        """All overrides in order, and the numbers (from 1) of lines that are none."""
        found: list[Override] = []
        bad: list[int] = []
        for number, line in enumerate((read_or_none(self.path) or b"").split(b"\n"), start=1):
            if not line:
                continue
            try:
                found.append(decode_override(line, self._key))
            except (AndonError, ValueError):
                bad.append(number)
        return found, bad

    def add(self, decide: Callable[[Sequence[Override]], Override]) -> Override:
        """Append what `decide` makes of the overrides so far; one that is there already is not written again.

        Nobody else adds in between. Whatever `decide` raises goes to the caller and nothing is written.

        Raises:
            StorageFull: the disk is full; nothing was written.
        """
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before, _ = self.read()
            override = decide(before)
            if all(other.id != override.id for other in before):
                append_line(self.path, encode_override(override, self._key))
            return override
        finally:
            os.close(lock)
