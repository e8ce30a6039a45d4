"""Points of runs' metrics in SQL: the history clustered by (run, key), and the newest of each key in a table of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select, tuple_
from sqlalchemy.exc import IntegrityError

from andon.core.entities import Metric
from andon.core.errors import Invalid, NotFound
from andon.core.ids import RunId
from andon.store.sql.collection import Session
from andon.store.sql.schema import latest_metrics, metrics, runs
from andon.store.sql.types import unstorable

_MANY = 500


class SqlMetrics:
    """`ports.Metrics`. NaN is kept as a flag, since SQLite would make it NULL."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def log(self, points: Sequence[Metric]) -> None:
        self._session.check_writable()
        if not points:
            return
        rows = [_values(point) for point in points]
        newest: dict[tuple[str, str], dict[str, Any]] = {}
        for row in sorted(rows, key=_place):
            newest[row["run"], row["key"]] = row
        try:
            with self._session.guard(self._session.connection):
                self._session.connection.execute(self._session.insert(metrics).on_conflict_do_nothing(), rows)
                self._session.connection.execute(self._raise_latest(), list(newest.values()))
        except IntegrityError:
            raise self._missing({point.run for point in points}) from None

    def latest(self, runs: Sequence[RunId]) -> dict[RunId, dict[str, float]]:
        found: dict[RunId, dict[str, float]] = {run: {} for run in runs}
        columns = (latest_metrics.c.run, latest_metrics.c.key, latest_metrics.c.nan, latest_metrics.c.value)
        for start in range(0, len(runs), _MANY):
            some = latest_metrics.c.run.in_(list(runs[start : start + _MANY]))
            for run, key, nan, value in self._session.connection.execute(
                select(*columns).where(some).order_by(*columns[:2])
            ):
                found[run][key] = math.nan if nan else value
        return found

    def history(
        self, run: RunId, key: str, *, after: Metric | None = None, limit: int = 25_000
    ) -> list[Metric]:
        place = (metrics.c.step, metrics.c.at, metrics.c.nan, metrics.c.value)
        statement = select(metrics).where(metrics.c.run == run, metrics.c.key == key)
        if after is not None:
            values = _values(after)
            here = tuple_(*(values[column.name] for column in place), types=[column.type for column in place])
            statement = statement.where(tuple_(*place) > here)
        return [
            _point(row) for row in self._session.connection.execute(statement.order_by(*place).limit(limit))
        ]

    def _raise_latest(self) -> Any:
        """Write a point, or put it in the place of an older one of its run and key."""
        insert = self._session.insert(latest_metrics)
        names = ("step", "at", "nan", "value")
        new = tuple_(*(insert.excluded[name] for name in names))
        old = tuple_(*(latest_metrics.c[name] for name in names))
        return insert.on_conflict_do_update(
            index_elements=["run", "key"],
            set_={name: insert.excluded[name] for name in names},
            where=new > old,
        )

    def _missing(self, wanted: set[RunId]) -> NotFound:
        known = set(
            self._session.connection.execute(select(runs.c.id).where(runs.c.id.in_(wanted))).scalars()
        )
        return NotFound(
            f"run {min(wanted - known, default='')!r} does not exist", hint="create it before its metrics"
        )


def _values(point: Metric) -> dict[str, Any]:
    nan = math.isnan(point.value)
    for value in (point.run, point.key, point.step, point.at):
        if fault := unstorable(value):
            raise Invalid(f"metric {point.key!r} of run {point.run!r} cannot be stored: {value!r} {fault}")
    return {
        "run": point.run, "key": point.key, "step": point.step, "at": point.at,
        "nan": nan, "value": 0.0 if nan else float(point.value),
    }  # fmt: skip


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["step"], row["at"], row["nan"], row["value"]


def _point(row: Row[Any]) -> Metric:
    return Metric(
        run=row.run, key=row.key, step=row.step, at=row.at, value=math.nan if row.nan else row.value
    )
