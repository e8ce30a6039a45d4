"""The reading end of the prediction log: follow it, find a record, and seal finished segments as Parquet blobs.

A segment is first a file that its writer appends to and holds locked (`predictions_writer`), then a row of `segments` and
a Parquet blob with the same records; in between it may be both for a while. Readers give each record once all the same: a
record is known by its boot and its number in it, wherever it lies.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import io
import re
import threading
from bisect import bisect_right, insort
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import polars as pl

from andon.core.clock import Clock, from_us, to_us
from andon.core.entities import Segment
from andon.core.errors import Conflict, Corrupt, Invalid, NotFound
from andon.core.events import EventDraft
from andon.core.ids import NUMBER_BITS, ActorId, PredictionId, ReleaseId, SegmentId, node, parse_prediction_id
from andon.core.predictions import PredictionRecord
from andon.store.ports import Blobs, Store, Transaction
from andon.store.predictions_file import SUFFIX, LogFile, held, log_file, log_files, place
from andon.store.predictions_writer import SegmentWriter

LEDGER = "ledger"
"""The key of a position that says up to which event sealed segments are known; the other keys are boots, 10 hex digits."""

_BOOT = re.compile(r"[0-9a-f]{10}\Z")
_PIN = ".pinned"
_STALE = timedelta(days=1)
_PAGE = 500
_ROW_GROUP = 2048
_MOST_ROWS = 20_000
_SCHEMA: Mapping[str, Any] = {
    "v": pl.Int32, "id": pl.Binary, "at_us": pl.Int64, "data_at_us": pl.Int64, "endpoint": pl.String, "release": pl.String,
    "model": pl.String, "version": pl.Int64, "epoch": pl.Int64, "generation": pl.Int64, "arm": pl.String,
    "propensity": pl.Float64, "entity": pl.String, "status": pl.Int32, "inputs": pl.String,
    "features": pl.List(pl.Float64), "output": pl.Float64, "error": pl.String, "micros": pl.Int64,
}  # fmt: skip
_Source = Callable[[int, int], list[PredictionRecord]]
_V = TypeVar("_V")


class SegmentLog:
    """The log of a workspace; implements `andon.store.ports.PredictionLog`. Safe to share between threads.

    Its memory is one number for each unsealed record, the rows of segments used lately, and the records of the last two
    sealed segments that were read.

    Args:
        folder: where the writers put their files.
        store, blobs: where sealed segments are.
        clock: wall time, to tell what a killed writer left behind from what one is just making.
    """

    def __init__(self, folder: Path, store: Store, blobs: Blobs, clock: Clock) -> None:
        self._folder, self._store, self._blobs, self._clock = folder, store, blobs, clock
        self._lock = threading.RLock()
        self._live: dict[int, list[LogFile]] = {}
        self._rows: dict[int, list[Segment]] = {}
        self._ids: _Kept[list[bytes]] = _Kept(64)
        self._decoded: _Kept[list[PredictionRecord]] = _Kept(2)

    def tail(
        self, position: Mapping[str, int], *, limit: int = 10_000
    ) -> tuple[list[PredictionRecord], dict[str, int]]:
        """Records after a position, at most `limit`, and the position after them. Fewer than `limit` means: that is all.

        A boot's records come in the order of their numbers; those of boots that still write are merged by time. The empty
        position is before the first record that is kept. A position says, for each boot that may have more, the number of
        its next record, and under `LEDGER` up to which event sealed segments are known. So it stays small, and holds across
        seals, drops and restarts, within one epoch of the workspace.

        Raises:
            Invalid: it is not a position.
        """
        with self._lock:
            seq, marks = _parse(position)
            given = set(marks)
            live = self._listing()
            seq, news = self._news(seq)
            for boot in live:
                marks.setdefault(boot, 0)
            for boot, first in news.items():
                if boot not in given and boot not in live:
                    marks[boot] = first
            records = self._ended(marks, given, live, limit)
            room = limit - len(records)
            batches = (
                [self._boot(boot, marks[boot], room, files) for boot, files in live.items()] if room else []
            )
            records += islice(heapq.merge(*batches, key=lambda item: item.at_us), room)
        for item in records:
            boot, number = place(item)
            if boot in marks:
                marks[boot] = number + 1
        return records, _position(seq, marks)

    def since(self, at: datetime) -> dict[str, int]:
        """A position from which `tail` gives every record written at or after a wall time, and few from before."""
        with self._lock:
            live = self._listing()
            seq = self._store.read(lambda reader: reader.ledger.head())[0]
            marks: dict[int, int] = {}
            for row in _pages(self._store, {"created_at": (">=", at)}):
                marks[row.boot] = min(row.first, marks.get(row.boot, row.first))
            for boot, files in live.items():
                with contextlib.suppress(FileNotFoundError):
                    files[0].refresh()
                    marks[boot] = min(files[0].first, marks.get(boot, files[0].first))
        return _position(seq, marks)

    def find(self, ident: PredictionId) -> PredictionRecord:
        """The record of a prediction.

        Raises:
            NotFound: no segment holds it.
            Invalid: it is not a prediction id.
            Corrupt: the blob that holds it is damaged; the message names it.
        """
        _, boot, number = parse_prediction_id(ident)
        with self._lock:
            found = self._in_files(boot, number)
            if found is None and (row := self._row_of(boot, number)) is not None:
                found = _from_frame(self._scan(row).slice(number - row.first, 1).collect())[0]
        if found is None or found.id != _id_bytes(ident):
            raise NotFound(f"no prediction {ident}", hint="an id comes with every answer as 'prediction_id'")
        return found

    def has(self, ident: PredictionId) -> bool:
        """Whether the log holds it; for many of one sealed segment much cheaper than `find`.

        Raises:
            Invalid: it is not a prediction id.
            Corrupt: the blob that would hold it is damaged.
        """
        _, boot, number = parse_prediction_id(ident)
        with self._lock:
            found = self._in_files(boot, number)
            if found is not None:
                return found.id == _id_bytes(ident)
            row = self._row_of(boot, number)
            if row is None:
                return False
            ids = self._ids.get(row.id, lambda: self._scan(row).select("id").collect()["id"].to_list())
        return bool(ids[number - row.first] == _id_bytes(ident))

    def unsealed(self) -> dict[str, dict[ReleaseId, int]]:
        """How many records of each release the files hold, by segment. A segment may have its row already."""
        counts: dict[str, dict[ReleaseId, int]] = {}
        with self._lock:
            for files in self._listing().values():
                for file in files:
                    with contextlib.suppress(FileNotFoundError):
                        counts[file.id] = dict(file.releases())
        return counts

    def sealable(self) -> list[str]:
        """Ids of segments that nobody writes any more and whose file is still there, in order."""
        self._sweep()
        found: list[str] = []
        for file in log_files(self._folder):
            with contextlib.suppress(FileNotFoundError):
                if not held(file.path):
                    found.append(file.id)
        return found

    def seal(self, segment: str) -> Segment | None:
        """Turn a finished segment into a Parquet blob; None when it holds no record. Sealing again gives the same row.

        A torn tail is cut. A file that is damaged at its head, or holds other records than its name says, is set aside as
        `*.damaged` and no longer offered; nothing of it is deleted.

        Raises:
            Conflict: it is still being written.
            NotFound: there is no such segment.
            Corrupt: its file was set aside.
        """
        file = self._file(segment)
        row = self._store.read(lambda reader: reader.segments.find(segment))
        if row is not None:
            return row
        try:
            if held(file.path):
                raise Conflict(
                    f"segment {segment} is still being written", hint="seal it when its writer is done"
                )
            records = file.records()
        except FileNotFoundError:
            raise NotFound(f"there is no segment {segment}", hint="list those that can be sealed") from None
        except Corrupt as error:
            aside = file.path.rename(file.path.with_suffix(".log.damaged"))
            raise Corrupt(f"{error.message}; it was set aside as {aside.name}", hint=error.hint) from None
        return _segment(file, records, self._blobs) if records else None

    def drop(self, segment: str) -> None:
        """Delete the file of a segment whose row is committed, or that holds no record. Dropping again changes nothing.

        While a backup reads the folder the file stays, to be dropped another time.

        Raises:
            Conflict: it is being written, or has records and no row.
        """
        file = self._file(segment)
        committed = self._store.read(lambda reader: reader.segments.find(segment)) is not None
        with contextlib.suppress(FileNotFoundError, BlockingIOError), (self._folder / _PIN).open("ab") as pin:
            fcntl.flock(pin, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if held(file.path) or (not committed and file.records()):
                raise Conflict(
                    f"segment {segment} has records that are not sealed", hint="commit its row first"
                )
            file.path.unlink()

    # --- where records are ---

    def _listing(self) -> dict[int, list[LogFile]]:
        """The files there are now, by boot; their indexes are kept from call to call."""
        known = {file.id: file for files in self._live.values() for file in files}
        self._live = {}
        for file in log_files(self._folder):
            self._live.setdefault(file.boot, []).append(known.get(file.id, file))
        return self._live

    def _news(self, seq: int) -> tuple[int, dict[int, int]]:
        """The head of the ledger, and for each boot with segments sealed after `seq` the first number of them."""
        firsts: dict[int, int] = {}
        while True:
            events, head = self._store.read(
                lambda reader, seq=seq: (  # type: ignore[misc]
                    reader.ledger.after(seq, limit=_PAGE, kinds=("segment.sealed",)),
                    reader.ledger.head()[0],
                )
            )
            for event in events:
                boot, first = int(event.subject.split(":")[1][:10], 16), int(event.facts["first"] or 0)
                firsts[boot] = min(first, firsts.get(boot, first))
            if len(events) < _PAGE:
                return head, firsts
            seq = events[-1].seq

    def _ended(
        self, marks: dict[int, int], given: set[int], live: Mapping[int, object], limit: int
    ) -> list[PredictionRecord]:
        """Records of boots that have no file any more. One that is read to its end leaves the position.

        A living writer always has a file, so a boot that was known before the folder was listed, and has none, has ended.
        """
        records: list[PredictionRecord] = []
        for boot in [boot for boot in marks if boot not in live]:
            room = limit - len(records)
            found = self._boot(boot, marks[boot], room, []) if room else []
            records += found
            if len(found) < room and boot in given:
                del marks[boot]
        return records

    def _boot(self, boot: int, number: int, limit: int, files: Sequence[LogFile]) -> list[PredictionRecord]:
        """Records of a boot from a number on. When a file vanishes meanwhile it was sealed: its blob has the rest."""
        while True:
            records: list[PredictionRecord] = []
            try:
                for source in self._sources(boot, number, files):
                    after = place(records[-1])[1] + 1 if records else number
                    records += source(after, limit - len(records))
                    if len(records) >= limit:
                        break
            except FileNotFoundError:
                files = self._listing().get(boot, [])
                continue
            return records

    def _sources(self, boot: int, number: int, files: Sequence[LogFile]) -> Iterator[_Source]:
        """Where a boot's records from a number on lie, in order: files, and blobs where there is no file."""
        names = {file.id for file in files}
        for file in files:
            file.refresh()
            if file.first > number:
                yield from self._sealed(boot, number, file.first, names)
            yield file.read
            number = max(number, file.end)
        if not files or not held(files[-1].path):
            yield from self._sealed(boot, number, 2**NUMBER_BITS, names)

    def _sealed(self, boot: int, number: int, end: int, without: set[SegmentId]) -> Iterator[_Source]:
        """Blobs that hold a boot's records in [number, end), but for segments that have a file."""
        row = self._row_of(boot, number)
        if row is not None and row.id not in without:
            yield self._reading(row)
        start = number if row is None else row.last + 1
        for row in _pages(self._store, {"boot": boot, "first": (">=", start)}):
            if row.first >= end:
                return
            if row.id not in without:
                yield self._reading(row)

    def _reading(self, row: Segment) -> _Source:
        def read(number: int, limit: int) -> list[PredictionRecord]:
            records = self._decoded.get(row.id, lambda: _from_frame(self._scan(row).collect()))
            start = max(0, number - row.first)
            return records[start : start + limit]

        return read

    def _in_files(self, boot: int, number: int) -> PredictionRecord | None:
        """The record at a place of the files, if they have one there: first as far as they are known, then read on."""
        for read_on in (False, True):
            for file in (self._listing() if read_on else self._live).get(boot, []):
                with contextlib.suppress(FileNotFoundError):
                    if read_on:
                        file.refresh()
                    if file.first <= number < file.end and (found := file.read(number, 1)):
                        return found[0]
        return None

    def _row_of(self, boot: int, number: int) -> Segment | None:
        """The row of the sealed segment that holds a place."""
        known = self._rows.get(boot, [])
        index = bisect_right(known, number, key=lambda row: row.first)
        if index and known[index - 1].last >= number:
            return known[index - 1]
        rows = self._store.read(
            lambda reader: reader.segments.select(
                {"boot": boot, "first": ("<=", number)}, order=("-first",), limit=1
            )
        )
        if not rows or rows[0].last < number:
            return None
        if sum(map(len, self._rows.values())) >= _MOST_ROWS:
            self._rows.clear()
        insort(self._rows.setdefault(boot, []), rows[0], key=lambda row: row.first)
        return rows[0]

    def _scan(self, row: Segment) -> pl.LazyFrame:
        return pl.scan_parquet(self._blobs.path(row.digest), glob=False, hive_partitioning=False)

    def _file(self, segment: str) -> LogFile:
        file = log_file(self._folder, segment)
        if file is None:
            raise Invalid(f"{segment[:80]!r} is not the id of a segment")
        return file

    def _sweep(self) -> None:
        """Remove what writers that were killed while they began a segment left behind."""
        oldest_ns = (to_us(self._clock.now()) - _STALE // timedelta(microseconds=1)) * 1000
        for path in self._folder.glob(f".*{SUFFIX}.new"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime_ns < oldest_ns and not held(path):
                    path.unlink()


def commit_segment(store: Store, segment: Segment, *, actor: ActorId, at: datetime) -> Segment:
    """Write a sealed segment's row and event. A segment is committed once; committing it again gives the row there is."""

    def work(tx: Transaction) -> Segment:
        known = tx.segments.find(segment.id)
        if known is not None:
            return known
        tx.ledger.append(
            EventDraft(
                kind="segment.sealed", actor=actor, at=at, subject=node("segment", segment.id),
                inputs=tuple(node("release", release) for release in sorted(segment.releases) if release),
                facts={"rows": segment.rows, "first": segment.first, "last": segment.last, "digest": segment.digest},
                data_at=segment.data_until,
            )
        )  # fmt: skip
        return tx.segments.add(segment)

    return store.write(work)


@contextlib.contextmanager
def pinned(folder: Path) -> Iterator[None]:
    """Nothing is dropped from a log's folder meanwhile, by any process: so a backup sees every record somewhere."""
    with (folder / _PIN).open("ab") as pin:
        fcntl.flock(pin, fcntl.LOCK_SH)
        yield


def _segment(file: LogFile, records: Sequence[PredictionRecord], blobs: Blobs) -> Segment:
    """The row of sealed records. Everything in it follows from them, so that sealing again gives the same."""
    told = [item.data_at_us for item in records if item.data_at_us is not None]
    return Segment(
        id=file.id, boot=file.boot, number=file.number, first=file.first, last=file.first + len(records) - 1,
        digest=blobs.put(_parquet(records)), rows=len(records),
        created_at=from_us(max(item.at_us for item in records)),
        data_from=from_us(min(told)) if told else None, data_until=from_us(max(told)) if told else None,
        releases=dict(Counter(item.release for item in records)),
    )  # fmt: skip


def _parquet(records: Sequence[PredictionRecord]) -> bytes:
    """The records as a table with a column for each field; inputs as JSON text. The same records, the same bytes."""
    columns: dict[str, list[Any]] = {name: [getattr(item, name) for item in records] for name in _SCHEMA}
    columns["inputs"] = [msgspec.json.encode(inputs).decode() for inputs in columns["inputs"]]
    target = io.BytesIO()
    pl.DataFrame(columns, schema=_SCHEMA).write_parquet(target, compression="zstd", row_group_size=_ROW_GROUP)
    return target.getvalue()


def _from_frame(frame: pl.DataFrame) -> list[PredictionRecord]:
    frame = frame.select(list(_SCHEMA))
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    inputs = list(_SCHEMA).index("inputs")
    records: list[PredictionRecord] = []
    for row in frame.iter_rows():
        values = list(row)
        values[inputs] = decode(row[inputs])
        records.append(PredictionRecord(*values))
    return records


def _pages(store: Store, where: Mapping[str, Any]) -> Iterator[Segment]:
    """Rows of segments by boot and number, in pages, each read on its own."""
    last: Segment | None = None
    while True:
        rows = store.read(
            lambda reader, last=last: reader.segments.select(
                where, order=("boot", "first"), after=last, limit=_PAGE
            )  # type: ignore[misc]
        )
        yield from rows
        if len(rows) < _PAGE:
            return
        last = rows[-1]


def _parse(position: Mapping[str, int]) -> tuple[int, dict[int, int]]:
    for key, value in position.items():
        if (key != LEDGER and not _BOOT.match(key)) or value < 0:
            raise Invalid(
                f"{key[:80]!r}: {value!r} is not part of a position", hint="give back what 'tail' gave"
            )
    return position.get(LEDGER, 0), {int(key, 16): value for key, value in position.items() if key != LEDGER}


def _position(seq: int, marks: Mapping[int, int]) -> dict[str, int]:
    return {LEDGER: seq, **{f"{boot:010x}": number for boot, number in marks.items()}}


def _id_bytes(ident: PredictionId) -> bytes:
    return bytes.fromhex(ident.replace("-", ""))


class _Kept(Generic[_V]):
    """The values used last, made when they are asked for."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[str, _V] = OrderedDict()

    def get(self, key: str, make: Callable[[], _V]) -> _V:
        if key in self._items:
            self._items.move_to_end(key)
        else:
            self._items[key] = make()
            if len(self._items) > self._most:
                self._items.popitem(last=False)
        return self._items[key]


__all__ = ["LEDGER", "SegmentLog", "SegmentWriter", "commit_segment", "pinned"]
