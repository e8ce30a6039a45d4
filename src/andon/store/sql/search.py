"""Searches in SQL: the conditions and orders of `core.search` over the narrow tables of metrics, params and tags.

The first key of an order decides how a page is found. Its values are walked in the order of their index, and what they
belong to is looked up until the page is full; only ties are sorted. What has NaN, and what has no such value, comes in
phases of its own after that. When few rows can meet one of the conditions, those are fetched first and sorted instead.

A page begins after the sort values of the last row of the page before, never at a count of rows, so deep pages cost what
the first one does.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Table,
    and_,
    case,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.sql.selectable import NamedFromClause

from andon.core.canonical import digest_bytes
from andon.core.errors import Invalid
from andon.core.search import Condition, DatasetScope, Field, Found, Order, Query
from andon.store.sql import schema
from andon.store.sql.collection import Session
from andon.store.sql.labels import HEAD
from andon.store.sql.types import Moment, unstorable

FEW: Final = 10_000
"""What at most so many rows can meet is fetched and sorted; more is walked in the order of an index."""
MOST_SCOPES: Final = 8
"""How many experiments are walked one by one and merged; more are sorted together."""
LONGEST_PATTERN: Final = 10_000
_Value = str | int | float | None
_COMPARE: Final = {
    "=": "__eq__",
    "!=": "__ne__",
    "<": "__lt__",
    "<=": "__le__",
    ">": "__gt__",
    ">=": "__ge__",
}


class _Noun(NamedTuple):
    """Where the fields of a noun are. `owner` is what its labels and metrics refer to, `start` the column of ties."""

    table: Table
    owner: str
    scope: str | None
    start: str
    labels: dict[str, Table]
    metrics: Table | None = None


_NOUNS: Final[dict[str, _Noun]] = {
    "run": _Noun(
        schema.runs, "number", "experiment", "started_at",
        {"param": schema.params, "tag": schema.run_tags}, schema.latest_metrics,
    ),
    "experiment": _Noun(schema.experiments, "id", None, "changed_at", {"tag": schema.experiment_tags}),
    "model": _Noun(schema.models, "id", None, "id", {"tag": schema.model_tags}),
    "model_version": _Noun(schema.model_versions, "id", None, "changed_at", {"tag": schema.version_tags}),
    "logged_model": _Noun(
        schema.logged_models, "id", "experiment", "created_at",
        {"param": schema.logged_model_params, "tag": schema.logged_model_tags}, schema.logged_model_metrics,
    ),
}  # fmt: skip


class _Key(NamedTuple):
    """A key of the order as SQL: `place` is 0 for a value, 1 for NaN and 2 for none; None when there always is a value."""

    place: ColumnElement[int] | None
    value: ColumnElement[Any]
    down: bool


class _Place(NamedTuple):
    """Where a page begins: the phase, and the sort values of the last row before it."""

    phase: int
    values: tuple[_Value, ...]


class _Plan(NamedTuple):
    """What all statements of one query share."""

    query: Query
    noun: _Noun
    order: tuple[Order, ...]
    walks: bool
    few: Condition | None
    postgres: bool


def search(session: Session, query: Query) -> Found:
    """A page of ids; see `ports.Reader.search`."""
    noun = _NOUNS[query.noun]
    _check(noun, query)
    if query.limit <= 0:
        return Found(())
    place = _decode(query)
    order = _order(noun, query)
    many = len(query.scope) > MOST_SCOPES
    few = _few(session, noun, query)
    first = order[0].field
    walks = few is None and not many and (first.kind in ("param", "tag") or _is_walked(noun, first))
    plan = _Plan(query, noun, order, walks, few, session.connection.dialect.name == "postgresql")
    scopes: Sequence[tuple[str, ...]] = (
        [query.scope] if many or noun.scope is None else [(scope,) for scope in query.scope]
    )
    rows: list[tuple[int, Any]] = []
    for phase in _phases(plan):
        if place is not None and phase < place.phase:
            continue
        after = place.values if place is not None and phase == place.phase else None
        wanted = query.limit + 1 - len(rows)
        found = [_rows(session, plan, scope, phase, after, wanted) for scope in scopes]
        rows += [(phase, row) for row in _merged(plan, phase, found, wanted)]
        if len(rows) > query.limit:
            break
    page = rows[: query.limit]
    more = len(rows) > query.limit
    return Found(tuple(row[0] for _, row in page), _encode(query, *page[-1]) if more else None)


def _is_walked(noun: _Noun, field: Field) -> bool:
    """Whether an index of the noun has the metric's values in order: one row for each owner."""
    return field.kind == "metric" and noun.metrics is schema.latest_metrics


def _check(noun: _Noun, query: Query) -> None:
    """Refuse fields that the noun has not."""
    for field in (*(each.field for each in query.where), *(each.field for each in query.order)):
        there = {
            "attribute": field.key in noun.table.c,
            "metric": noun.metrics is not None,
            "param": "param" in noun.labels,
            "tag": "tag" in noun.labels,
            "dataset": query.noun == "run" and field.key in ("name", "digest", "context"),
        }[field.kind]
        if not there:
            raise Invalid(f"a {query.noun} has no {field.kind} {field.key!r} to search by")
        if fault := unstorable(field.key):
            raise Invalid(f"{field.key[:100]!r} {fault}")
    for condition in query.where:
        values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        for value in values:
            if fault := unstorable(value):
                raise Invalid(f"{str(value)[:100]!r} {fault}")
            if "LIKE" in condition.op and len(str(value)) > LONGEST_PATTERN:
                raise Invalid(f"a pattern has at most {LONGEST_PATTERN:,} characters")


def _order(noun: _Noun, query: Query) -> tuple[Order, ...]:
    """The whole order: what was asked for, then the newest first, then the id."""
    asked = list({order.field: order for order in reversed(query.order)}.values())[::-1]
    last = [Order(Field("attribute", noun.start), noun.start != "id"), Order(Field("attribute", "id"))]
    return (*asked, *(order for order in last if order.field not in {each.field for each in asked}))


def _phases(plan: _Plan) -> tuple[int, ...]:
    """The places of the first key that can come up, in order: 0 values, 1 NaN, 2 nothing."""
    first = plan.order[0].field
    if any(each.field == first and each.op not in ("IS NULL", "NOT IN", "!=") for each in plan.query.where):
        return (0,)
    if first.kind == "metric":
        return (0, 1, 2)
    if first.kind == "attribute":
        return (0, 2) if plan.noun.table.c[first.key].nullable else (0,)
    return (0, 2)


# --- one phase in one scope ---


def _rows(
    session: Session,
    plan: _Plan,
    scope: tuple[str, ...],
    phase: int,
    after: tuple[_Value, ...] | None,
    limit: int,
) -> list[Any]:
    """Rows of (id, sort values...) of one phase, in order."""
    if not plan.walks or phase != 0 or not plan.order[0].down:
        return list(session.connection.execute(_statement(plan, scope, phase, after, limit)))
    return _by_ties(session, plan, scope, after, limit)


def _by_ties(
    session: Session, plan: _Plan, scope: tuple[str, ...], after: tuple[_Value, ...] | None, limit: int
) -> list[Any]:
    """A descending walk. Where many rows share a value, they come value by value.

    The index has ties in the right order only when it is walked upwards; walked downwards, all rows of a value would be
    fetched and sorted for a page of a hundred of them.
    """
    found: list[Any] = []
    bound: _Value = None if after is None else after[0]
    if after is not None:
        found += session.connection.execute(_statement(plan, scope, 0, after, limit, tie=True))
    while len(found) < limit:
        peek = [row[0] for row in session.connection.execute(_peek(plan, scope, bound, limit))]
        if not peek:
            break
        if len(set(peek)) * 20 > len(peek):
            statement = _statement(plan, scope, 0, None, limit - len(found), below=bound)
            return found + list(session.connection.execute(statement))
        for value in dict.fromkeys(peek):
            bound = value
            statement = _statement(plan, scope, 0, None, limit - len(found), equal=value)
            found += session.connection.execute(statement)
            if len(found) >= limit:
                break
        if len(peek) < limit:
            break
    return found


def _peek(plan: _Plan, scope: tuple[str, ...], below: _Value, limit: int) -> Select[Any]:
    """The first values of a descending walk, as they lie in the index, whatever they belong to."""
    table, value = _walked(plan)
    statement = select(value).where(*_walk(plan, table, scope, 0)).order_by(value.desc()).limit(limit)
    return statement if below is None else statement.where(value < below)


def _walked(plan: _Plan) -> tuple[NamedFromClause, ColumnElement[Any]]:
    """The table whose index the first key walks, and the column of its values."""
    first = plan.order[0].field
    if first.kind == "metric":
        assert plan.noun.metrics is not None
        table = plan.noun.metrics.alias("walked")
        return table, table.c.value
    table = plan.noun.labels[first.kind].alias("walked")
    return table, table.c.head


def _walk(
    plan: _Plan, table: NamedFromClause, scope: tuple[str, ...], phase: int
) -> list[ColumnElement[bool]]:
    """The stretch of the index that is walked."""
    field = plan.order[0].field
    rules = [table.c.scope == (scope[0] if plan.noun.scope else ""), table.c.key == field.key]
    if field.kind == "metric":
        rules.append(table.c.nan == (phase == 1))
    rules += [
        _holds(plan, condition, table)
        for condition in plan.query.where
        if condition.field == field and condition.op not in ("IS NULL", "IS NOT NULL")
    ]
    return rules


def _statement(
    plan: _Plan,
    scope: tuple[str, ...],
    phase: int,
    after: tuple[_Value, ...] | None,
    limit: int,
    *,
    tie: bool = False,
    equal: _Value = None,
    below: _Value = None,
) -> Select[Any]:
    """SELECT id and sort values of a phase.

    Args:
        after: sort values of the last row before.
        tie: only rows that share the first sort value with `after`.
        equal, below: only rows whose first sort value is that, or is less.
    """
    noun, table = plan.noun, plan.noun.table
    first = plan.order[0].field
    source: FromClause = table
    rules: list[ColumnElement[bool]] = []
    if plan.walks and phase < 2:
        walked, value = _walked(plan)
        # The unary plus keeps SQLite from entering the other way round, by the owner.
        there = walked.c.owner if plan.postgres else walked.c.owner.op("+", is_comparison=False)(0)
        source = walked.join(table, table.c[noun.owner] == there)
        rules += _walk(plan, walked, scope, phase)
        keys = [_Key(None, value, plan.order[0].down)]
        if first.kind != "metric":
            keys.append(_Key(None, func.coalesce(walked.c.tail, ""), plan.order[0].down))
    else:
        source, keys = _joined(plan, source, plan.order[0], "k0")
        place = keys[0].place
        rules += [] if place is None else [place == phase]
        keys = [] if phase else [_Key(None, key.value, key.down) for key in keys]
    for number, order in enumerate(plan.order[1:], 1):
        source, more = _joined(plan, source, order, f"k{number}")
        keys += more
    if noun.scope is not None:
        rules.append(table.c[noun.scope].in_(scope) if len(scope) != 1 else table.c[noun.scope] == scope[0])
    rules += _conditions(plan, first if plan.walks and phase < 2 else None)
    sort = [part for key in keys for part in _parts(key)]
    if equal is not None:
        rules.append(sort[0][0] == equal)
    if below is not None:
        rules.append(sort[0][0] < below)
    if after is not None:
        rules.append(_beyond(sort, after, tie=tie))
    statement = select(table.c.id, *(column for column, _ in sort)).select_from(source).where(*rules)
    skip = 1 if equal is not None else 0
    ends = [column.desc() if down else column.asc() for column, down in sort[skip:]]
    return statement.order_by(*ends).limit(limit)


def _parts(key: _Key) -> list[tuple[ColumnElement[Any], bool]]:
    """The sort columns of a key, each with whether it descends."""
    return [*([] if key.place is None else [(key.place, False)]), (key.value, key.down)]


def _beyond(
    sort: list[tuple[ColumnElement[Any], bool]], after: tuple[_Value, ...], *, tie: bool
) -> ColumnElement[bool]:
    """The rows that follow one with these sort values."""
    ways: list[ColumnElement[bool]] = []
    same: list[ColumnElement[bool]] = []
    for (column, down), value in zip(sort, after, strict=True):
        ways.append(and_(*same, column < value if down else column > value))
        same.append(column == value)
    if tie:
        return or_(*ways[1:]) if len(ways) > 1 else false()
    first, down = sort[0]
    bound = first <= after[0] if down else first >= after[0]  # said apart, so that an index can begin there
    return and_(bound, or_(*ways))


def _joined(plan: _Plan, source: FromClause, order: Order, name: str) -> tuple[FromClause, list[_Key]]:
    """An order key, with the join that brings it where it is not a column of the noun."""
    noun, field = plan.noun, order.field
    owner = noun.table.c[noun.owner]
    if field.kind == "attribute":
        column = noun.table.c[field.key]
        value = type_coerce(column, BigInteger) if isinstance(column.type, Moment) else column
        if not column.nullable:
            return source, [_Key(None, value, order.down)]
        blank: Any = 0 if isinstance(column.type, Moment | BigInteger) else ""
        return source, [_Key(case((column.is_(None), 2), else_=0), func.coalesce(value, blank), order.down)]
    if field.kind == "metric" and noun.metrics is schema.logged_model_metrics:
        return source, [_of_model(noun, order)]
    if field.kind == "metric":
        assert noun.metrics is not None
        side = noun.metrics.alias(name)
        place = case((side.c.owner.is_(None), 2), (side.c.nan, 1), else_=0)
        keys = [_Key(place, func.coalesce(side.c.value, 0.0), order.down)]
    else:
        side = noun.labels[field.kind].alias(name)
        place = case((side.c.owner.is_(None), 2), else_=0)
        keys = [
            _Key(place, func.coalesce(side.c.head, ""), order.down),
            _Key(None, func.coalesce(side.c.tail, ""), order.down),
        ]
    on = and_(side.c.owner == owner, side.c.key == field.key)
    return source.outerjoin(side, on), keys


def _of_model(noun: _Noun, order: Order) -> _Key:
    """The newest value that was measured of a logged model, on the order's dataset if it names one."""
    side = schema.logged_model_metrics
    rules = [
        side.c.owner == noun.table.c.id,
        side.c.key == order.field.key,
        *_on_datasets(side, order.dataset),
    ]
    newest = select(side.c.value).where(*rules).order_by(side.c.at_ms.desc(), side.c.step.desc()).limit(1)
    nan = select(side.c.nan).where(*rules).order_by(side.c.at_ms.desc(), side.c.step.desc()).limit(1)
    value, is_nan = newest.scalar_subquery(), nan.scalar_subquery()
    return _Key(case((value.is_(None), 2), (is_nan, 1), else_=0), func.coalesce(value, 0.0), order.down)


def _on_datasets(side: Any, *datasets: DatasetScope | None) -> list[ColumnElement[bool]]:
    """That a metric was measured on one of the datasets that are named, if any are."""
    named = [each for each in datasets if each is not None]
    if not named:
        return []
    ways = [
        and_(
            side.c.dataset_name == each.name,
            *([] if each.digest is None else [side.c.dataset_digest == each.digest]),
        )
        for each in named
    ]
    return [or_(*ways)]


# --- conditions ---


def _conditions(plan: _Plan, walked: Field | None) -> list[ColumnElement[bool]]:
    """All conditions but those that the walk meets by itself."""
    table = plan.noun.table
    rules: list[ColumnElement[bool]] = []
    if plan.query.deleted != "all" and "deleted_at" in table.c:
        gone = table.c.deleted_at.is_not(None)
        rules.append(gone if plan.query.deleted == "deleted" else not_(gone))
    if plan.few is not None:
        candidates = _candidates(plan.noun, plan.query, plan.few, plan.postgres)
        assert candidates is not None
        rules.append(
            table.c[plan.noun.owner].in_(select(candidates.cte("few").prefix_with("MATERIALIZED").c[0]))
        )
    for condition in plan.query.where:
        if condition.field == walked and condition.op not in ("IS NULL", "IS NOT NULL"):
            continue
        rules.append(_rule(plan, condition))
    return rules


def _rule(plan: _Plan, condition: Condition) -> ColumnElement[bool]:
    """One condition, on the row of the noun."""
    noun, field = plan.noun, condition.field
    if field.kind == "attribute":
        column = noun.table.c[field.key]
        if condition.op == "IS NULL":
            return column.is_(None)
        if condition.op == "IS NOT NULL":
            return column.is_not(None)
        if isinstance(column.type, Moment):
            return _moment(type_coerce(column, BigInteger), condition)
        return _compare(column, condition, postgres=plan.postgres)
    if field.kind == "dataset":
        side: Any = schema.run_inputs.alias()
        column = side.c[field.key]
        there = and_(side.c.run == noun.table.c.id, _compare(column, condition, postgres=plan.postgres))
        return exists(select(literal(1)).select_from(side).where(there))
    table = noun.metrics if field.kind == "metric" else noun.labels[field.kind]
    assert table is not None
    side = table.alias()
    rules = [side.c.owner == noun.table.c[noun.owner], side.c.key == field.key]
    if table is schema.logged_model_metrics:
        rules += _on_datasets(side, *plan.query.datasets)
    if condition.op not in ("IS NULL", "IS NOT NULL"):
        rules.append(_holds(plan, condition, side))
    there = exists(select(literal(1)).select_from(side).where(and_(*rules)))
    return not_(there) if condition.op == "IS NULL" else there


def _holds(plan: _Plan, condition: Condition, side: Any) -> ColumnElement[bool]:
    """A condition on a row of metrics, params or tags."""
    if condition.field.kind != "metric":
        return _text(side, condition, postgres=plan.postgres)
    if not isinstance(condition.value, int | float):
        raise Invalid(
            f"metric {condition.field.key!r} is compared with {condition.value!r}, which is no number"
        )
    same = getattr(side.c.value, _COMPARE[condition.op])(float(condition.value))
    rule: ColumnElement[bool] = (
        or_(side.c.nan == true(), same) if condition.op == "!=" else and_(side.c.nan == false(), same)
    )
    return rule


def _text(side: Any, condition: Condition, *, postgres: bool) -> ColumnElement[bool]:
    """A condition on a text that is kept as head and tail."""
    if condition.op in ("=", "!="):
        text = str(condition.value)
        tail = text[HEAD:] or None
        end = side.c.tail.is_(None) if tail is None else side.c.tail == tail
        same: ColumnElement[bool] = and_(side.c.head == text[:HEAD], end)
        return same if condition.op == "=" else not_(same) if tail is None else or_(
            side.c.head != text[:HEAD], side.c.tail.is_(None), side.c.tail != tail
        )  # fmt: skip
    return _compare(side.c.head + func.coalesce(side.c.tail, ""), condition, postgres=postgres)


def _compare(column: Any, condition: Condition, *, postgres: bool) -> ColumnElement[bool]:
    value: Any = condition.value
    match condition.op:
        case "IN":
            return and_(column.in_(list(value)))
        case "NOT IN":
            return or_(column.is_(None), column.not_in(list(value)))
        case "LIKE":
            return _like(column, str(value), postgres=postgres)
        case "ILIKE":
            return _ilike(column, str(value), postgres=postgres)
        case "NOT LIKE":
            return not_(_like(column, str(value), postgres=postgres))
        case "NOT ILIKE":
            return not_(_ilike(column, str(value), postgres=postgres))
        case _:
            rule: ColumnElement[bool] = getattr(column, _COMPARE[condition.op])(value)
            return rule


def _like(column: Any, pattern: str, *, postgres: bool) -> ColumnElement[bool]:
    """LIKE that tells upper from lower case: in SQLite that is GLOB. A backslash is a plain character in both."""
    if postgres:
        rule: ColumnElement[bool] = column.like(pattern.replace("\\", "\\\\"))
        return rule
    plain = "".join(f"[{each}]" if each in "*?[" else each for each in pattern)
    glob: ColumnElement[bool] = column.op("GLOB", is_comparison=True)(
        plain.replace("%", "*").replace("_", "?")
    )
    return glob


def _ilike(column: Any, pattern: str, *, postgres: bool) -> ColumnElement[bool]:
    rule: ColumnElement[bool]
    if postgres:
        rule = column.op("ILIKE", is_comparison=True)(pattern.replace("\\", "\\\\"))
    else:
        rule = column.op("LIKE", is_comparison=True)(pattern)
    return rule


def _moment(column: ColumnElement[int], condition: Condition) -> ColumnElement[bool]:
    """A time, kept in microseconds, compared with milliseconds: what happened within one is equal to it."""
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    if not all(isinstance(value, int | float) and abs(value) < 2**53 for value in values):
        raise Invalid(
            f"{condition.field.key} is compared with {condition.value!r}, which is no time in milliseconds"
        )
    starts = [int(value) * 1000 for value in values if isinstance(value, int | float)]
    within = or_(*(and_(column >= start, column < start + 1000) for start in starts))
    match condition.op:
        case "=" | "IN":
            return within
        case "!=" | "NOT IN":
            return not_(within)
        case "<":
            return column < starts[0]
        case "<=":
            return column < starts[0] + 1000
        case ">":
            return column >= starts[0] + 1000
        case ">=":
            return column >= starts[0]
        case _:
            raise Invalid(f"{condition.field.key} is a time and knows no {condition.op}")


# --- few rows ---


def _few(session: Session, noun: _Noun, query: Query) -> Condition | None:
    """The condition that the fewest rows can meet, if they are few."""
    best: tuple[int, Condition] | None = None
    postgres = session.connection.dialect.name == "postgresql"
    for condition in query.where:
        candidates = _candidates(noun, query, condition, postgres)
        if candidates is None:
            continue
        some = candidates.limit(FEW).subquery()
        count = int(session.connection.execute(select(func.count()).select_from(some)).scalar_one())
        if count < FEW and (best is None or count < best[0]):
            best = count, condition
    return None if best is None else best[1]


def _candidates(noun: _Noun, query: Query, condition: Condition, postgres: bool) -> Select[Any] | None:
    """Owners that meet a condition, by an index; None where no index finds them."""
    field, op = condition.field, condition.op
    scope = query.scope if noun.scope is not None else ("",)
    plan = _Plan(query, noun, (), False, None, postgres)
    if field.kind == "attribute" and field.key == "id" and op in ("=", "IN"):
        return select(noun.table.c[noun.owner]).where(_compare(noun.table.c.id, condition, postgres=postgres))
    if field.kind == "dataset" and op in ("=", "IN"):
        side: Any = schema.run_inputs
        return (
            select(schema.runs.c.number)
            .select_from(side.join(schema.runs, schema.runs.c.id == side.c.run))
            .where(side.c.experiment.in_(scope), _compare(side.c[field.key], condition, postgres=postgres))
        )
    ranged = (
        field.kind == "metric" and op in ("=", "<", "<=", ">", ">=") and noun.metrics is schema.latest_metrics
    )
    if not ranged and not (field.kind in noun.labels and op == "="):
        return None
    table = noun.metrics if ranged else noun.labels[field.kind]
    assert table is not None
    return select(table.c.owner).where(
        table.c.scope.in_(scope), table.c.key == field.key, _holds(plan, condition, table)
    )


# --- pages ---


def _merged(plan: _Plan, phase: int, found: list[list[Any]], limit: int) -> list[Any]:
    """The first rows of several scopes, in order."""
    if len(found) == 1:
        return found[0][:limit]
    downs = _directions(plan, phase)

    def compare(one: Any, other: Any) -> int:
        for left, right, down in zip(one[1:], other[1:], downs, strict=True):
            if left != right:
                return 1 if (left < right) == down else -1
        return 0

    return sorted((row for rows in found for row in rows), key=functools.cmp_to_key(compare))[:limit]


def _directions(plan: _Plan, phase: int) -> list[bool]:
    """Which sort values of a row descend."""
    downs: list[bool] = []
    for number, order in enumerate(plan.order):
        if number == 0 and not (plan.walks and phase < 2) and phase:
            continue
        _, keys = _joined(plan, plan.noun.table, order, f"d{number}")
        for key in keys:
            place = key.place is not None and number > 0
            downs += [*([False] if place else []), key.down]
    return downs


def _encode(query: Query, phase: int, row: Any) -> str:
    told = (_query_digest(query), phase, *row[1:])
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(told)).decode().rstrip("=")


def _decode(query: Query) -> _Place | None:
    if query.after is None:
        return None
    try:
        raw = base64.urlsafe_b64decode(query.after.encode() + b"=" * (-len(query.after) % 4))
        said, phase, *values = msgspec.msgpack.decode(raw, type=tuple[str | int | float | bool | None, ...])
    except (ValueError, msgspec.DecodeError, msgspec.ValidationError):
        said, phase, values = None, 0, []
    if said != _query_digest(query) or phase not in (0, 1, 2):
        raise Invalid("this page token belongs to another search", hint="begin again without one")
    return _Place(int(phase), tuple(values))


def _query_digest(query: Query) -> str:
    """What a page token is bound to: all of the query but its page."""
    same: tuple[Any, ...] = (query.noun, query.scope, query.where, query.order, query.deleted, query.datasets)
    return digest_bytes(msgspec.msgpack.encode(same))[-16:]
