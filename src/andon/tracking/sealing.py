"""Seals of tracked runs: soon after a run ends, what it holds gets a digest in the ledger.

A seal is over params, every point of every metric, inputs, outputs and files; tags and the name may still change after it.
What is written later takes it away (`andon.tracking.runs.note_late_write`) and leads to the next one, and the earlier ones
stay in the ledger. Sealing waits for nobody and nobody waits for it: a thread reads page by page, and writes only when
nothing changed meanwhile.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from andon.core.canonical import Digest, digest_chunks, digest_value
from andon.core.clock import Clock, to_us
from andon.core.entities import Artifact, Run, RunModel
from andon.core.errors import Invalid
from andon.core.events import EventDraft
from andon.core.ids import Node, node
from andon.store.ports import Reader, Store, Transaction
from andon.tracking.runs import ENDED

log = logging.getLogger("andon.tracking")

FORMAT = "andon.tracked_run/1"
_PAGE = 10_000
_AT_ONCE = 50
_SETTLE_S = 0.5
"""How long to wait after word of an end for more of the same, so that many are written at once."""
_SHARE = 0.25
"""The most of a processor that sealing takes when there is always more to seal."""
_LONGEST_S = 60.0
_AGAIN_S = 1.0
_LOOK_S = 30.0
"""How often to look for ended runs without any word: another process may write to the same database."""

T = TypeVar("T")


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """What a run held when it was read, at its revision `rev`."""

    run: str
    rev: int
    digest: Digest
    points: int
    params: int
    files: int
    used: tuple[Node, ...]
    made: tuple[Node, ...]


def read_seal(store: Store, run: Run, rest: Callable[[], None] = lambda: None) -> Seal:
    """The seal that a run would get as it stands: equal for equal content, on every machine.

    Reads pages of the history and of the list of files, so that no reading takes long; `rest` is called after each.
    """
    params, keys, inputs, models = store.read(lambda reader: _short(reader, run))
    metrics: dict[str, object] = {}
    points = 0
    for key in keys:
        count, digest = _history(store, run, key, rest)
        metrics[key] = {"points": count, "digest": digest}
        points += count
    files, listing = _files(store, run, rest)
    used = [row for row in models if row.direction == "input"]
    made = [row for row in models if row.direction == "output"]
    said = {
        "format": FORMAT, "run": run.id, "experiment": run.experiment, "state": run.state,
        "started_us": None if run.started_at is None else str(to_us(run.started_at)),
        "finished_us": None if run.finished_at is None else str(to_us(run.finished_at)),
        "params": params, "metrics": metrics, "inputs": inputs, "files": files, "listing": listing,
        "models_used": sorted(row.model for row in used), "models_made": sorted([row.model, str(row.step)] for row in made),
    }  # fmt: skip
    return Seal(
        run=run.id, rev=run.rev, digest=digest_value(FORMAT, said), points=points, params=len(params), files=files,
        used=_nodes(used), made=_nodes(made),
    )  # fmt: skip


def _nodes(models: Sequence[RunModel]) -> tuple[Node, ...]:
    return tuple(node("logged_model", row.model) for row in models)


def _short(
    reader: Reader, run: Run
) -> tuple[dict[str, str], list[str], list[dict[str, object]], list[RunModel]]:
    """What of a run is short: params, the keys of its metrics, its inputs, and the models it used and made."""
    inputs: list[dict[str, object]] = [
        {
            "name": row.name, "digest": row.digest, "source_type": row.source_type, "source": row.source, "tags": row.tags,
            "schema": row.schema, "profile": row.profile,
        }
        for row in reader.run_inputs.select({"run": run.id}, limit=100_000)
    ]  # fmt: skip
    return (
        reader.params.of([run.number])[run.number],
        sorted(reader.metrics.latest([run])[run.number]),
        inputs,
        reader.run_models.select({"run": run.id}, limit=100_000),
    )


def _history(store: Store, run: Run, key: str, rest: Callable[[], None]) -> tuple[int, Digest]:
    """How many points a metric has, and the digest of them: a line `step time value` each, the value in hex."""
    count = 0

    def lines() -> Iterator[bytes]:
        nonlocal count
        for page in _pages(
            store, lambda reader, last: reader.metrics.history(run, key, after=last, limit=_PAGE)
        ):
            count += len(page)
            yield "".join(f"{each.step} {each.at_ms} {_spelled(each.value)}\n" for each in page).encode()
            rest()

    digest = digest_chunks(lines())
    return count, digest


def _pages(store: Store, look: Callable[[Reader, T | None], list[T]]) -> Iterator[list[T]]:
    """Pages of rows, each looked up after the last row of the page before."""
    last: T | None = None

    def following(reader: Reader) -> list[T]:
        return look(reader, last)

    while page := store.read(following):
        yield page
        last = page[-1]


def _spelled(value: float) -> str:
    return "nan" if math.isnan(value) else value.hex()


def _files(store: Store, run: Run, rest: Callable[[], None]) -> tuple[int, Digest]:
    """How many files a run keeps in the workspace, and the digest of their digests, sizes and paths."""
    folder = f"{run.experiment}/{run.id}/artifacts"
    count = 0

    def page_after(reader: Reader, last: Artifact | None) -> list[Artifact]:
        return reader.files.under(folder, after="" if last is None else last.id, limit=_PAGE)

    def lines() -> Iterator[bytes]:
        nonlocal count
        for page in _pages(store, page_after):
            count += len(page)
            yield "".join(f"{each.digest} {each.size_bytes} {each.id}\n" for each in page).encode()
            rest()

    digest = digest_chunks(lines())
    return count, digest


def write_seal(tx: Transaction, seal: Seal, clock: Clock) -> bool:
    """Give a run its seal, if it is as it was read; whether it was."""
    run = tx.runs.find(seal.run)
    if run is None or run.rev != seal.rev or run.seal is not None or run.state not in ENDED:
        return False
    number = run.seals + 1
    tx.ledger.append(
        EventDraft(
            kind="run.sealed", actor=run.actor, at=clock.now(), subject=node("run", run.id), inputs=seal.used,
            outputs=seal.made,
            facts={
                "state": run.state, "seal": seal.digest, "number": number, "points": seal.points, "params": seal.params,
                "files": seal.files,
            },
        )
    )  # fmt: skip
    tx.runs.change(msgspec.structs.replace(run, seal=seal.digest, seals=number))
    return True


def unsealed(reader: Reader, last: Run | None = None) -> list[Run]:
    """A page of runs that have ended and hold no seal, or of those after `last`."""
    return reader.runs.select(
        {"seal": None, "state": sorted(ENDED)}, order=("state", "id"), limit=_AT_ONCE, after=last
    )


def seal_ended(store: Store, clock: Clock) -> int:
    """Seal all ended runs that hold no seal; how many there were. For who cannot wait for the thread."""
    count = 0
    for page in _pages(store, unsealed):
        seals = [read_seal(store, run) for run in page if run.line is None]
        count += store.write(partial(_write_all, seals=seals, clock=clock)).count(True)
    return count


def _write_all(tx: Transaction, seals: Sequence[Seal], clock: Clock) -> list[bool]:
    return [write_seal(tx, seal, clock) for seal in seals]


class _Stopped(Exception):
    """The thread was asked to stop in the middle of its work, which leaves nothing half done."""


class Sealer:
    """The thread that seals. Any thread may wake it; it takes up what an earlier process left.

    A run that is written to again and again after its end is sealed again after 2, 4, 8 .. 60 seconds, so that its ledger
    does not grow with each call.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._word = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._rested_at = 0.0
        self._due: dict[str, float] = {}
        """When runs that were sealed just now may be sealed again."""

    def start(self) -> None:
        """Begin with what is there already."""
        self._word.set()
        self._thread = threading.Thread(target=self._serve, name="andon-sealer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that a run has ended, or was written to after its end."""
        self._word.set()

    def close(self) -> None:
        """Stop, within the time of one batch. Closing twice changes nothing."""
        self._stop.set()
        self._word.set()
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        wait_s = 0.0
        while not self._stop.is_set():
            self._word.wait(wait_s)
            self._word.clear()
            if self._stop.wait(_SETTLE_S):
                return
            try:
                wait_s = self._round()
            except _Stopped:
                return
            except Exception:
                if not self._stop.is_set():
                    log.exception("sealing of runs goes on in a minute")
                wait_s = _LONGEST_S

    def _round(self) -> float:
        """Seal what is due; in how many seconds to look again."""
        soonest = _LOOK_S
        self._rested_at = self._clock.monotonic_s()
        for page in _pages(self._store, unsealed):
            if self._stop.is_set():
                break
            began = self._clock.monotonic_s()
            own = [run for run in page if run.line is None]  # a line seals its runs as it ends them
            waits = {run.id: self._due.get(run.id, began) - began for run in own}
            if not self._seal([run for run in own if waits[run.id] <= 0]):
                soonest = min(soonest, _AGAIN_S)
            soonest = min([soonest, *(wait for wait in waits.values() if wait > 0)])
            self._rest()
        now = self._clock.monotonic_s()
        self._due = {run: due for run, due in self._due.items() if due > now}
        return soonest

    def _rest(self) -> None:
        """Leave the processor to others, for so long that the share since the last rest is kept."""
        self._stop.wait((self._clock.monotonic_s() - self._rested_at) * (1 / _SHARE - 1))
        self._rested_at = self._clock.monotonic_s()
        if self._stop.is_set():
            raise _Stopped

    def _seal(self, runs: Sequence[Run]) -> bool:
        """Seal runs in one transaction; false when one of them changed meanwhile and has to be read again."""
        seals: list[Seal] = []
        now = self._clock.monotonic_s()
        for run in runs:
            try:
                seals.append(read_seal(self._store, run, self._rest))
                self._due[run.id] = now + min(_LONGEST_S, 2.0 ** min(run.seals + 1, 10))
            except Invalid as error:  # one run that cannot be sealed keeps no other from it
                log.error("run %s cannot be sealed: %s", run.id, error)
                self._due[run.id] = now + _LONGEST_S
        if not seals:
            return True
        done = self._store.write(partial(_write_all, seals=seals, clock=self._clock))
        for seal, ok in zip(seals, done, strict=True):
            if not ok:
                del self._due[seal.run]
        return all(done)
