"""Points of metrics in SQL: histories clustered by (run, key), and the newest of each key in a table that is searched."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, select, tuple_
from sqlalchemy.exc import IntegrityError

from andon.core.entities import LoggedModel, ModelPoint, Point, Run, owner
from andon.core.errors import Invalid, NotFound
from andon.core.ids import LoggedModelId
from andon.store.sql.collection import Many, Session
from andon.store.sql.ready import ready
from andon.store.sql.schema import latest_metrics, logged_model_metrics, metrics
from andon.store.sql.types import TEXT, WHOLE, unstorable

_AT_ONCE: Final = 500
_PLACE: Final = {"step": "bigint", "at_ms": "bigint", "nan": "boolean", "value": "double precision"}
_HISTORY: Final = Many(
    "INSERT INTO metrics (owner, key, step, at_ms, nan, value)", {"owner": "bigint", "key": "text", **_PLACE}
)
_LATEST: Final = Many(
    "INSERT INTO latest_metrics (scope, owner, key, step, at_ms, nan, value, rank)",
    {"scope": "text", "owner": "bigint", "key": "text", **_PLACE, "rank": "bigint"},
)
_OF_MODELS: Final = Many(
    "INSERT INTO logged_model_metrics "
    "(scope, owner, run, key, dataset_name, dataset_digest, step, at_ms, nan, value, rank)",
    {
        **dict.fromkeys(("scope", "owner", "run", "key", "dataset_name", "dataset_digest"), "text"),
        **_PLACE,
        "rank": "bigint",
    },
)


def _newer(table: str, key: str) -> str:
    """Put a point in the place of an older one."""
    names = ("step", "at_ms", "nan", "value")
    new, old = (", ".join(f"{where}.{name}" for name in names) for where in ("excluded", table))
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    return f"ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE ({new}) > ({old})"


_RAISE_LATEST: Final = _newer("latest_metrics", "owner, key")
_RAISE_OF_MODELS: Final = _newer("logged_model_metrics", "owner, run, key, dataset_name, dataset_digest")


def _stretch(compare: Callable[[Any, Any], ColumnElement[bool]]) -> Select[Any]:
    """A page of a history that begins at a place or after it."""
    place = (metrics.c.step, metrics.c.at_ms, metrics.c.nan, metrics.c.value)
    here = tuple_(*(bindparam(column.name, type_=column.type) for column in place))
    return (
        select(*place)
        .where(
            metrics.c.owner == bindparam("owner", type_=WHOLE), metrics.c.key == bindparam("key", type_=TEXT)
        )
        .where(compare(tuple_(*place), here))
        .order_by(*place)
        .limit(bindparam("most", type_=WHOLE))
    )


_FROM: Final = _stretch(operator.ge)
_AFTER: Final = _stretch(operator.gt)


class SqlMetrics:
    """`ports.Metrics`. NaN is kept as a flag, since SQLite would make it NULL."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def log(self, run: Run, points: Sequence[Point]) -> None:
        self._session.check_writable()
        _check(run.id, points)
        number, scope, rank = owner(run)
        rows = {(number, point.key, *_place(point)) for point in points}
        newest: dict[str, tuple[Any, ...]] = {}
        for row in rows:
            if row[1] not in newest or row[2:] > newest[row[1]][2:]:
                newest[row[1]] = row
        try:
            self._session.write_many(_HISTORY, sorted(rows), "ON CONFLICT DO NOTHING")
            self._session.write_many(_LATEST, [(scope, *row, rank) for row in newest.values()], _RAISE_LATEST)
        except IntegrityError:
            raise NotFound(f"run {run.id!r} does not exist any more; its metrics were not kept") from None

    def latest(self, runs: Sequence[Run]) -> dict[int, dict[str, Point]]:
        found: dict[int, dict[str, Point]] = {run.number: {} for run in runs}
        table = latest_metrics.c
        columns = (table.owner, table.key, table.nan, table.value, table.at_ms, table.step)
        numbers = list(found)
        for start in range(0, len(numbers), _AT_ONCE):
            some = table.owner.in_(numbers[start : start + _AT_ONCE])
            statement = select(*columns).where(some).order_by(table.owner, table.key)
            for number, key, nan, value, at_ms, step in self._session.connection.execute(statement).all():
                found[number][key] = Point(key, math.nan if nan else value, at_ms, step)
        return found

    def history(self, run: Run, key: str, *, after: Point | None = None, limit: int = 25_000) -> list[Point]:
        start = _place(after) if after is not None else (-(2**63), -(2**63), False, -math.inf)
        values = {"owner": run.number, "key": key, "most": limit, **dict(zip(_PLACE, start, strict=True))}
        statement = _AFTER if after is not None else _FROM
        asked = ready(statement, self._session.connection, tuple(values))
        found = asked.tuples(self._session.connection, values)
        return [Point(key, math.nan if row[2] else row[3], row[1], row[0]) for row in found]

    def log_of_models(self, models: Sequence[LoggedModel], points: Sequence[ModelPoint]) -> None:
        self._session.check_writable()
        owners = {model.id: owner(model) for model in models}
        newest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for point in points:
            _check(point.model, [point])
            key = (point.model, point.run, point.key, point.dataset_name or "", point.dataset_digest or "")
            newest[key] = max(newest.get(key, ()), _place(point))
        rows = [(owners[key[0]].scope, *key, *place, owners[key[0]].rank) for key, place in newest.items()]
        try:
            with (
                self._session.connection.begin_nested()
            ):  # SQLite would keep the rows before the one it refuses
                self._session.write_many(_OF_MODELS, rows, _RAISE_OF_MODELS)
        except IntegrityError:
            raise NotFound("a logged model does not exist any more; its metrics were not kept") from None

    def of_models(self, models: Sequence[LoggedModelId]) -> dict[LoggedModelId, list[ModelPoint]]:
        found: dict[LoggedModelId, list[ModelPoint]] = {model: [] for model in models}
        table = logged_model_metrics.c
        for start in range(0, len(models), _AT_ONCE):
            some = table.owner.in_(list(models[start : start + _AT_ONCE]))
            order = (table.owner, table.key, table.run, table.dataset_name, table.dataset_digest)
            for row in self._session.connection.execute(
                select(logged_model_metrics).where(some).order_by(*order)
            ):
                found[row.owner].append(
                    ModelPoint(
                        model=row.owner, run=row.run, key=row.key, value=math.nan if row.nan else row.value,
                        at_ms=row.at_ms, step=row.step, dataset_name=row.dataset_name or None,
                        dataset_digest=row.dataset_digest or None,
                    )
                )  # fmt: skip
        return found


def _check(whose: str, points: Iterable[Point | ModelPoint]) -> None:
    """Refuse what one of the databases could not keep."""
    points = list(points)
    numbers = [*(point.step for point in points), *(point.at_ms for point in points)]
    for value in (*{point.key for point in points}, *((min(numbers), max(numbers)) if numbers else ())):
        if fault := unstorable(value):
            raise Invalid(f"a metric of {whose!r} cannot be stored: {str(value)[:100]!r} {fault}")


def _place(point: Point | ModelPoint) -> tuple[int, int, bool, float]:
    nan = math.isnan(point.value)
    return point.step, point.at_ms, nan, 0.0 if nan else float(point.value)
