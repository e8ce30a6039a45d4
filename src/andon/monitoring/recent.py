"""What was answered lately and what became of it: prediction records joined with their labels, kept in memory.

It is a cache: it starts empty, reads the prediction log and the feedback from wherever it stands, and forgets what is older
than its span of domain time. Losing it loses nothing.

Its memory is bounded: beyond `most` records it keeps a sample, chosen by the id alone, so that the same records stay whatever
order they came in and whatever they say. What came since is told in full (`news`), before any sampling.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from andon.core.clock import EPOCH, from_us, to_us
from andon.core.entities import Feedback
from andon.core.ids import PredictionId
from andon.core.predictions import PredictionRecord
from andon.store.ports import PredictionLog, Reader, Store

_BATCH = 10_000
_NEWS = 50_000
_OVERLAPS = (timedelta(seconds=2), timedelta(minutes=2))
"""How far back feedback is read again when rows turn up behind what was read: transactions commit in another order than
they were begun."""
_AUDIT = 256
"""Every so many refreshes all feedback is counted, for what was committed even later or while the clock was set back."""

_Row = tuple[int, bytes, PredictionRecord]


class News(NamedTuple):
    """Records and labels that came up to a refresh. A label may be told twice, and for a prediction that is not wanted."""

    number: int
    records: list[PredictionRecord]
    labels: dict[PredictionId, float]


class Recent:
    """Records by domain time, and the newest label of each. Not safe to share between threads.

    Adding k records to n costs O(k log k) when they are about in order of domain time, and at most O(n) more when not.

    Args:
        store, log: where feedback and records are.
        span: how much domain time is kept.
        most: how many records are kept at most.
    """

    def __init__(self, store: Store, log: PredictionLog, *, span: timedelta, most: int = 200_000) -> None:
        self._store = store
        self._log = log
        self._span_us = span // timedelta(microseconds=1)
        self._most = most
        self._position: dict[str, int] = {}
        self._rows: list[_Row] = []
        self._ids: set[bytes] = set()
        self._halvings = 0
        self._labels: dict[PredictionId, float] = {}
        self._early: dict[PredictionId, float] = {}
        self._heard = _Heard()
        self._news: deque[News] = deque()
        self._told = 0
        self._number = 0
        self._refreshes = 0

    def refresh(self, until: datetime | None = None) -> int:
        """Read what has come since; how many records and labels.

        Args:
            until: domain time up to which nobody needs to look back: what is older than the span before it is forgotten.
                None forgets nothing.
        """
        floor = None if until is None else to_us(until) - self._span_us
        fresh: list[PredictionRecord] = []
        while True:
            records, self._position = self._log.tail(self._position, limit=_BATCH)
            fresh += self._take(records, floor)
            if len(records) < _BATCH:
                break
        labels = {**self._early, **self._listen()}
        self._label(labels)
        self._refreshes += 1
        if fresh or labels:
            self._tell(fresh, labels)
        return len(fresh) + len(labels)

    def between(self, start: datetime, end: datetime) -> Iterator[PredictionRecord]:
        """Records with `start` <= domain time < `end`, in order of domain time and id."""
        first, last = (bisect_left(self._rows, (to_us(at),)) for at in (start, end))
        return (record for _, _, record in self._rows[first:last])

    def since(self, start: datetime | None) -> Iterator[PredictionRecord]:
        """Records from a domain time on, in order of domain time and id."""
        first = 0 if start is None else bisect_left(self._rows, (to_us(start),))
        return (record for _, _, record in self._rows[first:])

    def news(self, after: int) -> News | None:
        """Everything that came after a number (of `number`, or of earlier news); None when that is too long ago to say."""
        if after < self._number and (not self._news or self._news[0].number > after + 1):
            return None
        parts = [part for part in self._news if part.number > after]
        return News(
            self._number,
            [record for part in parts for record in part.records],
            {ident: label for part in parts for ident, label in part.labels.items()},
        )

    @property
    def number(self) -> int:
        """The number of the newest news."""
        return self._number

    @property
    def labels(self) -> dict[PredictionId, float]:
        """The newest label of each kept prediction that has one."""
        return self._labels

    @property
    def kept(self) -> float:
        """The share of records that is kept, in (0, 1]: 1 until there are too many."""
        return 0.5**self._halvings

    @property
    def newest(self) -> datetime | None:
        """Domain time of the newest record; None before the first."""
        return from_us(self._rows[-1][0]) if self._rows else None

    def __len__(self) -> int:
        return len(self._rows)

    def _take(self, records: Iterable[PredictionRecord], floor: int | None) -> list[PredictionRecord]:
        """Merge records in, forget and thin out; those that were not known come back."""
        fresh: list[PredictionRecord] = []
        rows: list[_Row] = []
        for record in records:
            if record.id in self._ids:
                continue
            fresh.append(record)
            if self._keeps(record.id):
                self._ids.add(record.id)
                rows.append((_time_us(record), record.id, record))
        rows.sort()
        if rows:
            # Only what the new rows overlap is sorted again: two runs in order, which sorting merges.
            place = bisect_left(self._rows, rows[0])
            self._rows[place:] = sorted([*self._rows[place:], *rows]) if place < len(self._rows) else rows
        if floor is not None:
            self._forget(bisect_left(self._rows, (floor,)))
        while len(self._rows) > self._most:
            self._halvings += 1
            self._drop(row for row in self._rows if not self._keeps(row[1]))
            self._rows = [row for row in self._rows if self._keeps(row[1])]
        return fresh

    def _forget(self, count: int) -> None:
        if count:
            self._drop(self._rows[:count])
            del self._rows[:count]

    def _drop(self, rows: Iterable[_Row]) -> None:
        for _, ident, record in rows:
            self._ids.discard(ident)
            self._labels.pop(record.prediction_id, None)

    def _keeps(self, ident: bytes) -> bool:
        if not self._halvings:
            return True
        drawn = int.from_bytes(hashlib.blake2b(ident, digest_size=4).digest())
        return drawn >> (32 - self._halvings) == 0

    def _label(self, labels: dict[PredictionId, float]) -> None:
        """Note labels of known records. One that is not known gets a second chance: its record may have been written after
        the log was read and before the feedback was."""
        again = self._early
        self._early = {}
        for ident, label in labels.items():
            if bytes.fromhex(ident.replace("-", "")) in self._ids:
                self._labels[ident] = label
            elif ident not in again:
                self._early[ident] = label

    def _tell(self, records: list[PredictionRecord], labels: dict[PredictionId, float]) -> None:
        self._number += 1
        self._news.append(News(self._number, records, labels))
        self._told += len(records) + len(labels)
        while len(self._news) > 1 and self._told > _NEWS:
            old = self._news.popleft()
            self._told -= len(old.records) + len(old.labels)

    def _listen(self) -> dict[PredictionId, float]:
        """Labels that came since, the newest of each prediction."""
        audit = self._refreshes % _AUDIT == _AUDIT - 1
        labels, whole = self._hear(EPOCH, self._heard.last, audit=audit)
        for since in self._heard.back():
            if whole:
                break
            again, whole = self._hear(since, None, audit=audit)
            labels |= again
        self._heard.trim()
        return labels

    def _hear(
        self, since: datetime, last: Feedback | None, *, audit: bool
    ) -> tuple[dict[PredictionId, float], bool]:
        """Feedback received from a time on and after a row, in order; and whether nothing is missing then."""
        heard = self._heard
        labels: dict[PredictionId, float] = {}

        def read(reader: Reader) -> tuple[list[Feedback], bool]:
            where = {"received_at": (">=", since)}
            rows = reader.feedback.select(where, order=("received_at",), after=last, limit=_BATCH)
            heard.add(rows)
            return rows, len(rows) < _BATCH and heard.whole(reader, audit=audit)

        while True:
            rows, whole = self._store.read(read)
            for row in rows:
                labels[row.prediction] = row.label
            if len(rows) < _BATCH:
                return labels, whole
            heard.trim()
            last = rows[-1]


class _Heard:
    """Which feedback was read: how many rows in all, and the ids of the newest, to notice rows that turn up behind them."""

    def __init__(self) -> None:
        self.last: Feedback | None = None
        self._total = 0
        self._floor = EPOCH
        self._newest: dict[str, datetime] = {}

    def add(self, rows: list[Feedback]) -> None:
        """Note rows that were read, maybe again."""
        for row in rows:
            if row.id not in self._newest and row.received_at >= self._floor:
                self._newest[row.id] = row.received_at
                self._total += 1
        if rows and (self.last is None or _order(rows[-1]) > _order(self.last)):
            self.last = rows[-1]

    def whole(self, reader: Reader, *, audit: bool) -> bool:
        """Whether every row of the last while was read, and with `audit` every row there is."""
        newest = reader.feedback.count({"received_at": (">=", self._floor)}) == len(self._newest)
        return newest and (not audit or reader.feedback.count() == self._total)

    def back(self) -> Iterator[datetime]:
        """From where to read again when rows are missing: a little back, further, and everything."""
        if self.last is not None:
            yield max(self._floor, self.last.received_at - _OVERLAPS[0])
            yield self._floor
        self._total, self._floor, self._newest = 0, EPOCH, {}
        yield EPOCH

    def trim(self) -> None:
        """Forget the ids of rows that came long before the newest."""
        if self.last is not None and self.last.received_at - _OVERLAPS[1] - self._floor > _OVERLAPS[0]:
            self._floor = self.last.received_at - _OVERLAPS[1]
            self._newest = {ident: at for ident, at in self._newest.items() if at >= self._floor}


def _order(row: Feedback) -> tuple[datetime, str]:
    return row.received_at, row.id


def _time_us(record: PredictionRecord) -> int:
    return record.at_us if record.data_at_us is None else record.data_at_us
