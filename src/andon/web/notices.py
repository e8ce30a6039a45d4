"""What an action did, said once on the page that comes next."""

from __future__ import annotations

import threading
from typing import Literal

import msgspec

from andon.governance.access import MOST_SESSIONS, Session


class Notice(msgspec.Struct, frozen=True):
    """A few lines above the page."""

    level: Literal["good", "held", "bad"]
    title: str
    lines: tuple[str, ...] = ()


class Notices:
    """Notices on their way to a session's next page. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Notice] = {}

    def put(self, session: Session, notice: Notice) -> None:
        """Keep a notice for a session's next page; it replaces one that was not read."""
        with self._lock:
            while len(self._waiting) >= MOST_SESSIONS:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[session.id] = notice

    def take(self, session: Session | None) -> Notice | None:
        """The notice of a session, once."""
        with self._lock:
            return None if session is None else self._waiting.pop(session.id, None)
