"""Who may remove blobs, and when nobody may: a backup copies what its tables name, so nothing of it goes away meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from andon.core.errors import Conflict
from andon.core.workspace import Layout

_FILE = "blobs.lock"


@contextlib.contextmanager
def keeping(layout: Layout) -> Iterator[None]:
    """No blob is removed meanwhile; waits for a removal that goes on to end. A process that dies lets go."""
    with (layout.run / _FILE).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def clearing(layout: Layout) -> Iterator[None]:
    """This process alone removes blobs meanwhile, and no backup is made.

    Raises:
        Conflict: a backup is being made, or another process removes blobs.
    """
    with (layout.run / _FILE).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "a backup is being made, or something else is being removed for good",
                hint="try again when it is done",
            ) from None
        yield
