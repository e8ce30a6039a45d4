"""Bringing a spool away: one thread for each open run, and the same steps for `andon sync` after a crash."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from andon.core.errors import AndonError, Corrupt, NotFound, Unavailable
from andon.core.ids import RunId
from andon.tracking.native.console import console_text
from andon.tracking.native.entries import Delivery, Entry, Kept, Refused
from andon.tracking.native.spool import Session, SpoolReader, SpoolWriter, sessions
from andon.tracking.native.targets import Target, find_target

log = logging.getLogger("andon.run")

TICK_S = 1.0
LONGEST_PAUSE_S = 60.0
_LETTING_GO_S = 0.5
CONSOLE = "andon/console.txt"


class Pump:
    """Carries the entries of a session to a target, in one request a step. The session must be taken. For one thread."""

    def __init__(self, session: Session, target: Target) -> None:
        self._session, self._target = session, target
        self._readers: dict[str, SpoolReader] = {}
        self._greeted: set[str] = set()
        self._skipping: set[str] = set()
        self._stored: set[str] = set()
        self.delivered = 0
        self.lost = 0
        self.refused: list[Refused] = []

    def step(self) -> bool:
        """Deliver what comes next; whether there was something.

        Raises:
            AndonError, OSError: it did not work; nothing is lost, and the same comes next.
        """
        for writer in self._session.writers():
            if writer not in self._readers:
                self._readers[writer] = self._session.reader(writer)
            if self._deliver(writer, self._readers[writer]):
                return True
        return False

    def ended(self) -> bool:
        """Whether the session's own process has said its end; what a forked child left alone has no other."""
        reader = self._readers.get(self._session.owner)
        return reader.ended if reader is not None else bool(self._readers)

    def _deliver(self, writer: str, reader: SpoolReader) -> bool:
        greeting = writer not in self._greeted
        entries = [] if greeting else reader.peek()
        if not entries and not greeting:
            reader.advance()
            return False
        for entry in entries:
            if isinstance(entry, Kept):
                self._upload(entry)
        said = self._target.deliver(
            Delivery(opening=reader.opening, entries=entries, skipping=writer in self._skipping)
        )
        self._greeted.add(writer)
        self.refused += said.refused
        if greeting or not entries:
            reader.acknowledge(said.seq)
            return True
        if said.seq >= entries[-1].seq:
            self._over(reader, entries)
            reader.acknowledge(said.seq)
            reader.advance()
            return True
        # The other side has less than it once said: what is still here is sent again, the rest is lost for good.
        if writer not in self._skipping:
            reader.acknowledge(said.seq)
            reader.rewind()
            again = reader.peek()
            if again and again[0].seq != said.seq + 1:
                self.lost += again[0].seq - said.seq - 1
                self._skipping.add(writer)
            return True
        raise Corrupt(
            f"entry {entries[0].seq} of run {self._session.run} is not taken", hint="ask the server's log"
        )

    def _upload(self, entry: Kept) -> None:
        if entry.digest in self._stored:
            return
        with contextlib.suppress(NotFound):  # then the entry is refused over there, and says so
            self._target.upload(self._session.run, entry.digest, self._session.file(entry.digest))
        self._stored.add(entry.digest)

    def _over(self, reader: SpoolReader, entries: list[Entry]) -> None:
        self.delivered += len(entries)
        self._skipping.discard(reader.opening.writer)
        for entry in entries:
            if isinstance(entry, Kept):
                self._session.file(entry.digest).unlink(missing_ok=True)


class Backoff:
    """How long to leave a target alone after a failure: twice as long each time, up to a minute, never at the same moment
    as others. Its draws come from a generator of its own: a training's seeded ones are not touched."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._failures = 0

    def failed(self) -> float:
        """Seconds to wait after one more failure."""
        self._failures += 1
        return self._rng.uniform(0.5, 1.0) * min(LONGEST_PAUSE_S, TICK_S * 2.0 ** min(self._failures, 10))

    def worked(self) -> None:
        """It answers again."""
        self._failures = 0


class Sender:
    """The thread that delivers a run while it goes on. It ends with the run; what is left then stays in the spool.

    Args:
        session: the run's folder, which this process has taken.
        writer: this process's end of it, to be synced.
        target: makes the target when it is needed first.
        warn: called with what a person should know, in this thread.
    """

    def __init__(
        self, session: Session, writer: SpoolWriter, target: Callable[[], Target], warn: Callable[[str], None]
    ) -> None:
        self.session, self._writer, self._make, self._warn = session, writer, target, warn
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._closing = self._abandoned = self._over = False
        self._rounds = 0
        self.failing = ""
        self.complete = False
        self._thread = threading.Thread(target=self._run, name="andon-sender", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """There is enough for a delivery."""
        self._wake.set()

    def close(self, within_s: float) -> bool:
        """Deliver the rest within a time, then end; whether everything was taken over. Does not wait for a target that did
        not answer before and does not answer now either."""
        deadline = time.monotonic() + within_s
        with self._changed:
            failed_before, begun = bool(self.failing), self._rounds
            self._closing = True
            self._wake.set()
            while not self._over and (left := deadline - time.monotonic()) > 0:
                if failed_before and self.failing and self._rounds > begun:
                    break
                self._changed.wait(left)
            self._abandoned = True
            self._wake.set()
            self._changed.wait_for(lambda: self._over, _LETTING_GO_S)
            return self.complete

    def _run(self) -> None:
        target: Target | None = None
        pump: Pump | None = None
        backoff = Backoff()
        pause_s = 0.0
        while True:
            self._wake.wait(pause_s)
            self._wake.clear()
            closing, pause_s = self._closing, TICK_S
            try:
                self._sync()
                if target is None:
                    target = self._make()
                    pump = Pump(self.session, target)
                assert pump is not None
                while pump.step():
                    backoff.worked()
                self._say(pump)
                self._round("")
            except Exception as error:  # noqa: BLE001  # nothing may end this thread before its run
                pause_s = backoff.failed()
                self._round(str(error) or type(error).__name__)
            if closing and (not self.failing or self._abandoned):
                break
        self._end(target, whole=not self.failing and pump is not None and pump.ended())

    def _sync(self) -> None:
        try:
            self._writer.sync()
        except OSError as error:
            self._warn(f"the spool {self.session.folder} could not be synced: {error.strerror}")

    def _say(self, pump: Pump) -> None:
        for refused in pump.refused:
            self._warn(f"entry {refused.seq} was refused: {refused.why}")
        pump.refused.clear()
        if pump.lost:
            self._warn(f"{pump.lost} entries are lost: the server had them once, and has them no more")
            pump.lost = 0

    def _round(self, failing: str) -> None:
        if failing and not self.failing:
            self._warn(f"it is kept in {self.session.folder} for now: {failing}")
        with self._changed:
            self.failing = failing
            self._rounds += 1
            self._changed.notify_all()

    def _end(self, target: Target | None, *, whole: bool) -> None:
        if whole and not self.session.alive():
            self.session.remove()
        self.session.drop()
        with self._changed:
            self.complete = whole
        if target is not None:
            with contextlib.suppress(Exception):  # whoever opens the workspace next seals what is not sealed
                if whole:
                    target.seal(self.session.run)
            with contextlib.suppress(Exception):
                target.close()
        with self._changed:
            self._over = True
            self._changed.notify_all()


State = Literal["delivered", "in use", "left"]


class Synced(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one session: `in use` by a process that delivers it itself, or `left` with the reason."""

    run: RunId
    state: State
    entries: int
    refused: int = 0
    lost: int = 0
    killed: bool = False
    to: str = ""
    why: str = ""


def sync(
    root: Path,
    environ: Mapping[str, str],
    here: Path,
    *,
    to: str = "",
    default: str = "",
    attempts: int = 3,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Synced]:
    """Deliver everything that a spool holds; a run whose process is gone without a word is ended as killed.

    Args:
        root: the spool.
        to: where all of it goes instead of where each session says.
        default: where sessions go that say nothing.
        attempts: how often a target is tried that does not answer.
    """
    found = sessions(root)
    done: list[Synced] = []
    silent: dict[str, str] = {}
    for number, session in enumerate(found, 1):
        done.append(_sync(session, environ, here, silent, to=to, default=default, attempts=attempts))
        progress(f"{number} of {len(found)}: run {session.run} {done[-1].state}, {done[-1].entries} entries")
    return done


def _sync(
    session: Session,
    environ: Mapping[str, str],
    here: Path,
    silent: dict[str, str],
    *,
    to: str,
    default: str,
    attempts: int,
) -> Synced:
    """One session. `silent` has the places that did not answer, and why; they are not asked again."""
    if not session.take():
        return Synced(run=session.run, state="in use", entries=0)
    target: Target | None = None
    pump: Pump | None = None
    where, killed = to, False
    try:
        heads = [session.reader(writer).head for writer in session.writers()]
        where = to or next((head.to for head in heads if head.to), "") or default
        if not heads:
            session.remove()
            return Synced(run=session.run, state="delivered", entries=0)
        killed = _finish(session)
        if where in silent:
            raise Unavailable(silent[where])
        target = find_target(where, environ, here)
        pump = Pump(session, target)
        _drain(pump, attempts)
        whole = pump.ended() and not session.alive()
        if whole:
            session.remove()
            target.seal(session.run)
        return Synced(
            run=session.run, state="delivered" if whole else "in use", entries=pump.delivered,
            refused=len(pump.refused), lost=pump.lost, killed=killed, to=where,
        )  # fmt: skip
    except (AndonError, OSError) as error:
        entries = 0 if pump is None else pump.delivered
        if pump is not None and isinstance(error, OSError | Unavailable):
            silent[where] = str(error)
        return Synced(run=session.run, state="left", entries=entries, killed=killed, to=where, why=str(error))
    finally:
        session.drop()
        if target is not None:
            target.close()


def _finish(session: Session) -> bool:
    """Write the end of a process that was killed, and what it printed; whether that was so."""
    if session.alive(session.owner) or session.owner not in session.writers():
        return False
    reader = session.reader(session.owner)
    while reader.peek():
        reader.skip()
    if reader.ended:
        return False
    session.end(reader, [(CONSOLE, console_text(session.console))])
    return True


def _drain(pump: Pump, attempts: int) -> None:
    backoff, wait = Backoff(), threading.Event()
    failures = 0
    while True:
        try:
            while pump.step():
                failures = 0
        except (AndonError, OSError):
            failures += 1
            if failures >= attempts:
                raise
            wait.wait(backoff.failed())
        else:
            return


__all__ = ["CONSOLE", "Backoff", "Pump", "Sender", "Synced", "sync"]
