"""The receiving end: entries of a run's client become rows, each exactly once.

How far each writer of a run has been heard is kept beside what its entries did, in the same transaction. So whatever is
delivered again, after a lost answer or by two senders at once, changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

import msgspec

from andon.core.canonical import Digest, parse_digest
from andon.core.clock import from_us
from andon.core.entities import Cursor, Point, Run
from andon.core.errors import AndonError, Invalid, NotFound
from andon.core.ids import ActorId
from andon.core.states import RunState, advance
from andon.store.ports import Blobs, Transaction
from andon.tracking.artifacts import check_path, put_artifact, run_root
from andon.tracking.experiments import ensure_experiment
from andon.tracking.inputs import CONTEXT_TAG, Dataset, log_datasets
from andon.tracking.limits import PARAM_VALUE, TAG_VALUE, check_key, check_text, cut, time_of
from andon.tracking.native.entries import (
    Delivered,
    Delivery,
    Ended,
    Entry,
    Kept,
    Made,
    Opening,
    Params,
    Points,
    Refused,
    Tags,
    Used,
)
from andon.tracking.runs import NAME_TAG, create_run, note_late_write, random_name, set_params, set_tags

DROPPED_TAG = "andon.dropped"
REFUSED_TAG = "andon.refused"
_MOST_SAID = 20


def deliver(
    tx: Transaction, delivery: Delivery, *, actor: ActorId, at: datetime, lacking: Collection[Digest] = ()
) -> Delivered:
    """Take entries over that were not taken over before; the number of the last that is taken care of comes back.

    The run and its experiment are made when they are missing. What cannot be taken over (a parameter with another value, a
    name that is no name) is refused entry by entry and keeps nothing else back. Entries that come too early, because some
    before them are missing, are left alone: the answer's `seq` says where to go on.

    Args:
        actor: who is authenticated; the client's own user is a claim.
        at: wall time of the receiver.
        lacking: contents of files that are named and not stored, as `absent` says; such a file is refused.

    Raises:
        NotFound: the run was removed for good since its first entries came.
        Invalid: the run is a line's own, or its opening says what cannot be.
    """
    opening = delivery.opening
    cursor = tx.cursors.find(f"spool:{opening.run}:{opening.writer}")
    done = 0 if cursor is None else cursor.seq
    run = _find(tx, opening, actor, at, known=cursor is not None)
    fresh = [entry for entry in delivery.entries if entry.seq > done]
    _check_order(fresh)
    if fresh and fresh[0].seq != done + 1 and not delivery.skipping:
        fresh = []
    work = _Work(tx, run, actor, at, lacking)
    if cursor is None and not opening.helper:
        work.open(opening)
    work.take(fresh, opening)
    seq = fresh[-1].seq if fresh else done
    if cursor is None:
        tx.cursors.add(Cursor(id=f"spool:{opening.run}:{opening.writer}", seq=seq))
    elif seq != done:
        tx.cursors.change(msgspec.structs.replace(cursor, seq=seq))
    return Delivered(run=run.id, experiment=run.experiment, seq=seq, refused=work.refused[:_MOST_SAID])


def absent(delivery: Delivery, blobs: Blobs) -> set[Digest]:
    """Contents that a delivery names and that are not stored; asked before its transaction begins."""
    found: set[Digest] = set()
    for entry in delivery.entries:
        if isinstance(entry, Kept):
            try:
                there = blobs.has(parse_digest(entry.digest))
            except Invalid:
                there = False
            if not there:
                found.add(entry.digest)
    return found


def _find(tx: Transaction, opening: Opening, actor: ActorId, at: datetime, *, known: bool) -> Run:
    """The run of an opening, begun if need be."""
    run = tx.runs.find(opening.run)
    if run is None and known:
        raise NotFound(
            f"run {opening.run} was removed for good", hint="what is still in its spool has no place to go"
        )
    if run is None:
        experiment = ensure_experiment(tx, check_text(opening.experiment, 500, "experiment"), actor, at)
        name = opening.name or random_name(random.Random(opening.run))
        run, _ = create_run(
            tx, experiment.id, actor=actor, at=at, name=check_text(name, 250, "name"), tags={NAME_TAG: name},
            claimed_user=opening.claimed_user, started_at=time_of(opening.opened_ms, "opened_ms"), ident=opening.run,
        )  # fmt: skip
    if run.line is not None:
        raise Invalid(f"run {run.id} is the line {run.line!r}'s own", hint="begin a run of your own")
    return run


def _check_order(entries: Sequence[Entry]) -> None:
    for before, entry in pairwise(entries):
        if entry.seq != before.seq + 1:
            raise Invalid(
                f"entry {entry.seq} follows entry {before.seq}", hint="entries are numbered without gaps"
            )


class _Work:
    """One delivery's changes to its run."""

    def __init__(
        self, tx: Transaction, run: Run, actor: ActorId, at: datetime, lacking: Collection[Digest]
    ) -> None:
        self.tx, self.run, self.actor, self.at, self.lacking = tx, run, actor, at, lacking
        self.refused: list[Refused] = []
        self._newest = f"spool:{run.id}"

    def open(self, opening: Opening) -> None:
        """Note that a process took the run up; only the newest that did may end it."""
        newest = self.tx.cursors.find(self._newest)
        if newest is None:
            self.tx.cursors.add(Cursor(id=self._newest, seq=opening.opened_ms))
        elif newest.seq < opening.opened_ms:
            self.tx.cursors.change(msgspec.structs.replace(newest, seq=opening.opened_ms))
        if (
            opening.resumed
            and (newest is None or newest.seq < opening.opened_ms)
            and self.run.state != "running"
        ):
            self._state("running")

    def take(self, entries: Sequence[Entry], opening: Opening) -> None:
        """Carry entries out: those of one kind together, the end last."""
        if not entries:
            return
        self._points([entry for entry in entries if isinstance(entry, Points)])
        self._params([entry for entry in entries if isinstance(entry, Params)])
        self._tags([entry for entry in entries if isinstance(entry, Tags)])
        for entry in entries:
            if isinstance(entry, Used | Kept | Made):
                self._try(entry.seq, self._one, entry)
        if any(isinstance(entry, Points | Params | Used) for entry in entries):
            note_late_write(self.tx, self.run)
            self.run = self.tx.runs.get(self.run.id)
        for entry in entries:
            if isinstance(entry, Ended):
                self._end(entry, opening)
        if self.refused:
            last = self.refused[-1]
            self._set_tags({REFUSED_TAG: cut(f"entry {last.seq}: {last.why}", TAG_VALUE)})

    def _try(self, seq: int, act: Callable[..., None], *arguments: object) -> None:
        try:
            act(*arguments)
        except AndonError as error:
            self.refused.append(Refused(seq, str(error)[:1000]))

    def _points(self, entries: Iterable[Points]) -> None:
        found: list[Point] = []
        for entry in entries:
            for key, value in entry.values.items():
                try:
                    found.append(
                        Point(check_key(key), value, _checked_ms(entry.at_ms), _checked_step(entry.step))
                    )
                except AndonError as error:
                    self.refused.append(Refused(entry.seq, str(error)[:1000]))
        if found:
            self.tx.metrics.log(self.run, found)

    def _params(self, entries: Sequence[Params]) -> None:
        """All at once; one by one when one of them is not what it was."""
        texts = [
            (entry.seq, key, text)
            for entry in entries
            for key, text in self._texts(entry, PARAM_VALUE).items()
        ]
        together = {key: text for _, key, text in texts}
        try:
            if len(together) == len(texts):
                set_params(self.tx, self.run, together)
                return
        except Invalid:
            pass
        for seq, key, text in texts:
            self._try(seq, set_params, self.tx, self.run, {key: text})

    def _tags(self, entries: Iterable[Tags]) -> None:
        found: dict[str, str] = {}
        for entry in entries:
            found |= self._texts(entry, TAG_VALUE)
        if found:
            self._set_tags(found)

    def _texts(self, entry: Params | Tags, limit: int) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for key, text in entry.values.items():
            try:
                found[check_key(key)] = cut(text.replace("\0", "\ufffd"), limit)
            except AndonError as error:
                self.refused.append(Refused(entry.seq, str(error)[:1000]))
        return found

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        self.run = set_tags(self.tx, self.run, tags)

    def _one(self, entry: Used | Kept | Made) -> None:
        match entry:
            case Used():
                self._use(entry)
            case Kept():
                self._keep(entry)
            case Made():
                self._change(
                    git_commit=entry.git_commit, git_dirty=entry.git_dirty, environment=entry.environment
                )

    def _use(self, entry: Used) -> None:
        if not entry.name or not entry.digest:
            raise Invalid("an input needs a name and a digest")
        dataset = Dataset(
            name=check_text(entry.name, 500, "name"), digest=check_text(entry.digest, 100, "digest"),
            source_type=entry.source_type, source=check_text(entry.source, 65_535, "source"), schema=entry.schema,
            profile=entry.profile, tags={CONTEXT_TAG: entry.context} if entry.context else {},
        )  # fmt: skip
        log_datasets(self.tx, self.run, [dataset], at=self.at)

    def _keep(self, entry: Kept) -> None:
        path = check_path(f"{run_root(self.run)}/{entry.name}")
        if entry.digest in self.lacking:
            raise NotFound(f"the bytes of {entry.name!r} were lost before they were stored")
        put_artifact(
            self.tx, path, parse_digest(entry.digest), entry.size_bytes, actor=self.actor, at=self.at
        )
        self.run = self.tx.runs.get(self.run.id)

    def _end(self, entry: Ended, opening: Opening) -> None:
        if entry.dropped:
            self._set_tags({DROPPED_TAG: str(entry.dropped)})
        newest = self.tx.cursors.find(self._newest)
        if opening.helper or (newest is not None and newest.seq > opening.opened_ms):
            return
        if self.run.state != entry.state:
            self._state(entry.state)
        finished = from_us(_checked_ms(entry.at_ms) * 1000)
        self._change(finished_at=max(finished, self.run.started_at or finished), seal=None)

    def _state(self, state: RunState) -> None:
        self._change(state=advance("tracked_run", f"run {self.run.id}", self.run.state, state), seal=None)

    def _change(self, **changes: object) -> None:
        self.run = self.tx.runs.change(msgspec.structs.replace(self.run, **changes))


def _checked_ms(at_ms: int) -> int:
    time_of(at_ms, "at_ms")
    return at_ms


def _checked_step(step: int) -> int:
    if not -(2**63) <= step < 2**63:
        raise Invalid(f"the step {step} is beyond 64 bits")
    return step
