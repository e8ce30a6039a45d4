"""What was answered lately and what became of it: prediction records joined with their labels, kept in memory.

It is a cache: it starts empty, reads the prediction log and the feedback from wherever it stands, and forgets what is older
than its span of domain time. Losing it loses nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime, timedelta

from andon.core.clock import from_us, to_us
from andon.core.ids import PredictionId
from andon.core.predictions import PredictionRecord
from andon.store.ports import PredictionLog, Store

_BATCH = 10_000
_OVERLAP = timedelta(seconds=5)
"""Feedback is read again this far back, because transactions may commit in another order than they were begun."""


class Recent:
    """Records by domain time, and the newest label of each. Not safe to share between threads."""

    def __init__(self, store: Store, log: PredictionLog, *, span: timedelta) -> None:
        self._store = store
        self._log = log
        self._span = span
        self._position: dict[str, int] = {}
        self._records: list[PredictionRecord] = []
        self._times: list[int] = []
        self._unsorted: list[PredictionRecord] = []
        self._labels: dict[PredictionId, float] = {}
        self._heard: datetime | None = None

    def refresh(self) -> int:
        """Read what has come since; how many records."""
        fresh = 0
        while True:
            records, self._position = self._log.tail(self._position, limit=_BATCH)
            self._unsorted += records
            fresh += len(records)
            if len(records) < _BATCH:
                break
        self._hear()
        if self._unsorted:
            self._settle()
        return fresh

    def between(self, start: datetime, end: datetime) -> Iterator[PredictionRecord]:
        """Records with `start` <= domain time < `end`, in order of domain time."""
        first, last = bisect_left(self._times, to_us(start)), bisect_left(self._times, to_us(end))
        return iter(self._records[first:last])

    def since(self, start: datetime | None) -> Iterator[PredictionRecord]:
        """Records from a domain time on."""
        return iter(self._records[0 if start is None else bisect_left(self._times, to_us(start)) :])

    @property
    def labels(self) -> dict[PredictionId, float]:
        """The newest label of each prediction that has one."""
        return self._labels

    @property
    def newest(self) -> datetime | None:
        """Domain time of the newest record; None before the first."""
        return from_us(self._times[-1]) if self._times else None

    def _settle(self) -> None:
        """Merge new records in, forget what is older than the span."""
        self._records = sorted([*self._records, *self._unsorted], key=_time_us)
        self._unsorted = []
        horizon = _time_us(self._records[-1]) - self._span // timedelta(microseconds=1)
        keep = bisect_left([_time_us(record) for record in self._records], horizon)
        for record in self._records[:keep]:
            self._labels.pop(record.prediction_id, None)
        self._records = self._records[keep:]
        self._times = [_time_us(record) for record in self._records]

    def _hear(self) -> None:
        since = None if self._heard is None else self._heard - _OVERLAP
        last = None
        while True:
            where = {} if since is None else {"received_at": (">=", since)}
            rows = self._store.read(
                lambda reader, after=last, where=where: reader.feedback.select(  # type: ignore[misc]
                    where, order=("received_at",), after=after, limit=_BATCH
                )
            )
            for row in rows:
                self._labels[row.prediction] = row.label
            if rows:
                last = rows[-1]
                self._heard = last.received_at
            if len(rows) < _BATCH:
                return


def _time_us(record: PredictionRecord) -> int:
    return record.at_us if record.data_at_us is None else record.data_at_us
