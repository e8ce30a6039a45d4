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
from functools import cache
from typing import Any, Final, NamedTuple, cast

import msgspec
from sqlalchemy import (
    BigInteger,
    BindParameter,
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
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.selectable import NamedFromClause

from andon.core.canonical import digest_bytes
from andon.core.errors import Invalid
from andon.core.search import Condition, DatasetScope, Field, Found, Order, Query
from andon.store.sql import schema
from andon.store.sql.collection import Session
from andon.store.sql.labels import HEAD
from andon.store.sql.types import Moment, unstorable

FEW: Final = 20_000
"""What fewer rows than this, and fewer than a tenth, can meet is fetched and sorted; more is walked in an index's order."""
_ALWAYS_FEW: Final = 500
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
    labels = noun.scope is not None and first.kind in noun.labels
    walks = few is None and not many and (labels or _is_walked(noun, first))
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
    """What was asked for, each field once, or else the newest first. Ties are seen to in `_statement`."""
    asked = {order.field: order for order in reversed(query.order)}
    return tuple(asked.values())[::-1] or (Order(Field("attribute", noun.start), noun.start != "id"),)


def _age(noun: _Noun) -> ColumnElement[Any]:
    """When a row began, in milliseconds: what is said by `rank`, the other way round."""
    column: Any = noun.table.c[noun.start]
    if not isinstance(column.type, Moment):
        return cast("ColumnElement[Any]", column)
    began = func.coalesce(column, noun.table.c.created_at) if column.nullable else column
    return type_coerce(began, BigInteger) // 1000


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
    first = plan.order[0]
    upwards = (
        first.field.kind == "metric" and not first.down
    )  # then the index has the ties in their order, too
    if not plan.walks or phase != 0 or upwards:
        return list(session.connection.execute(_statement(plan, scope, phase, after, limit)))
    return _by_ties(session, plan, scope, after, limit)


def _by_ties(
    session: Session, plan: _Plan, scope: tuple[str, ...], after: tuple[_Value, ...] | None, limit: int
) -> list[Any]:
    """A walk whose index has not the ties in their order.

    It goes in strides: the index says which value comes so many places on, what lies before that is sorted, and what has
    that very value comes in an order that the index has. So a value that half of all rows share costs no more than others.
    """
    found: list[Any] = []
    bound: _Value = None
    stride = limit
    if after is not None:
        bound = after[0]
        found += session.connection.execute(_statement(plan, scope, 0, after, limit, tie=True))
    while len(found) < limit:
        seen = [row[0] for row in session.connection.execute(_peek(plan, scope, bound, stride))]
        if not seen:
            break
        end = seen[-1]
        if seen[0] != end:
            statement = _statement(plan, scope, 0, None, limit - len(found), between=(seen[0], end))
            found += session.connection.execute(statement)
        if len(found) < limit:
            found += session.connection.execute(
                _statement(plan, scope, 0, None, limit - len(found), equal=end)
            )
        if len(seen) < stride:
            break
        bound = end
        stride *= 4
    return found


def _peek(plan: _Plan, scope: tuple[str, ...], bound: _Value, limit: int) -> Select[Any]:
    """The next values of a walk, as they lie in the index, whatever they belong to."""
    table, value = _walked(plan)
    down = plan.order[0].down
    statement = select(value).where(*_walk(plan, table, scope, 0)).limit(limit)
    statement = statement.order_by(value.desc() if down else value.asc())
    return statement if bound is None else statement.where(_past(value, bound, down=down))


def _past(value: ColumnElement[Any], bound: _Value, *, down: bool) -> ColumnElement[bool]:
    """What comes after a value."""
    rule: ColumnElement[bool] = value < bound if down else value > bound
    return rule


def _walked(plan: _Plan) -> tuple[NamedFromClause, ColumnElement[Any]]:
    """The table whose index the first key walks, and the column of its values."""
    first = plan.order[0].field
    if first.kind == "metric":
        assert plan.noun.metrics is not None
        table = _side(plan.noun.metrics, "walked")
        return table, table.c.value
    table = _side(plan.noun.labels[first.kind], "walked")
    return table, table.c.head


def _walk(
    plan: _Plan, table: NamedFromClause, scope: tuple[str, ...], phase: int, *, fixed: bool = False
) -> list[ColumnElement[bool]]:
    """The stretch of the index that is walked. `fixed`: it is part of one that has met the conditions on its bounds."""
    field = plan.order[0].field
    rules = [table.c.scope == (scope[0] if plan.noun.scope else ""), table.c.key == field.key]
    if field.kind == "metric":
        rules.append(table.c.nan == (phase == 1))
    rules += [
        _holds(plan, condition, table)
        for condition in plan.query.where
        if condition.field == field
        and condition.op not in ("IS NULL", "IS NOT NULL")
        # SQLite enters an index by one bound only, and would take that one.
        and not (fixed and field.kind == "metric" and condition.op != "!=")
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
    between: tuple[_Value, _Value] | None = None,
) -> Select[Any]:
    """SELECT id and sort values of a phase.

    Args:
        after: sort values of the last row before.
        tie: only rows that share the first sort value with `after`.
        equal: only rows whose first sort value is that.
        between: only rows whose first sort value is the one, or comes after it and before the other.
    """
    noun, table = plan.noun, plan.noun.table
    first = plan.order[0].field
    source: FromClause = table
    rules: list[ColumnElement[bool]] = []
    ties = _Key(None, _age(noun), noun.start != "id")
    if plan.walks and phase < 2:
        walked, value = _walked(plan)
        source = walked.join(table, table.c[noun.owner] == _off(plan, walked.c.owner))
        rules += _walk(plan, walked, scope, phase, fixed=tie or equal is not None or between is not None)
        keys = [_Key(None, value, plan.order[0].down)]
        if first.kind != "metric":
            head = equal if equal is not None else after[0] if tie and after else None
            tail = literal("") if _is_whole(head) else func.coalesce(walked.c.tail, "")
            keys.append(_Key(None, tail, plan.order[0].down))
        ties = _Key(None, walked.c.rank, False)
    elif first.kind == "attribute":
        column = table.c[first.key]
        rules += [column.is_(None)] if phase else [column.is_not(None)] if column.nullable else []
        keys = [] if phase else [_Key(None, _plain(column), plan.order[0].down)]
    else:
        source, keys = _joined(plan, source, plan.order[0], "k0")
        place = keys[0].place
        rules += [] if place is None else [place == phase]
        keys = [] if phase else [_Key(None, key.value, key.down) for key in keys]
    for number, order in enumerate(plan.order[1:], 1):
        source, more = _joined(plan, source, order, f"k{number}")
        keys += more
    keys += [ties, _Key(None, table.c.id, False)]
    if noun.scope is not None:
        place_in = _off(plan, table.c[noun.scope])
        rules.append(place_in.in_(scope) if len(scope) != 1 else place_in == scope[0])
    rules += _conditions(plan, first if plan.walks and phase < 2 else None)
    sort = [part for key in keys for part in _parts(key)]
    if equal is not None:
        rules.append(sort[0][0] == equal)
    if between is not None:
        value, down = sort[0]
        rules += [
            value <= between[0] if down else value >= between[0],
            _past(value, between[1], down=not down),
        ]
    if after is not None and tie:
        rules += [sort[0][0] == after[0], _beyond(sort[1:], after[1:])]
    elif after is not None:
        rules.append(_beyond(sort, after))
    statement = select(table.c.id, *(column for column, _ in sort)).select_from(source).where(*rules)
    skip = 1 if equal is not None else 0
    varying = [each for each in sort[skip:] if not isinstance(each[0], BindParameter)]
    ends = [column.desc() if down else column.asc() for column, down in varying]
    return statement.order_by(*ends).limit(limit)


def _is_whole(head: _Value) -> bool:
    """Whether a text's head is all of it, so that no tail can follow in the order."""
    return isinstance(head, str) and len(head) < HEAD


def _off(plan: _Plan, column: Any) -> Any:
    """A column by whose indexes SQLite is not to enter, because the way in is decided: that is what a plus says there."""
    if plan.postgres or not (plan.walks or plan.few is not None):
        return column
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def _parts(key: _Key) -> list[tuple[ColumnElement[Any], bool]]:
    """The sort columns of a key, each with whether it descends."""
    return [*([] if key.place is None else [(key.place, False)]), (key.value, key.down)]


def _beyond(sort: list[tuple[ColumnElement[Any], bool]], after: tuple[_Value, ...]) -> ColumnElement[bool]:
    """The rows that follow one with these sort values."""
    ways: list[ColumnElement[bool]] = []
    same: list[ColumnElement[bool]] = []
    for (column, down), value in zip(sort, after, strict=True):
        ways.append(and_(*same, column < value if down else column > value))
        same.append(column == value)
    first, down = sort[0]
    bound = first <= after[0] if down else first >= after[0]  # said apart, so that an index can begin there
    return and_(bound, or_(*ways))


def _joined(plan: _Plan, source: FromClause, order: Order, name: str) -> tuple[FromClause, list[_Key]]:
    """An order key, with the join that brings it where it is not a column of the noun."""
    noun, field = plan.noun, order.field
    owner = noun.table.c[noun.owner]
    if field.kind == "attribute":
        column = noun.table.c[field.key]
        value = _plain(column)
        if not column.nullable:
            return source, [_Key(None, value, order.down)]
        blank: Any = 0 if isinstance(column.type, Moment | BigInteger) else ""
        return source, [_Key(case((column.is_(None), 2), else_=0), func.coalesce(value, blank), order.down)]
    if field.kind == "metric" and noun.metrics is schema.logged_model_metrics:
        return source, [_of_model(noun, order)]
    if field.kind == "metric":
        assert noun.metrics is not None
        side = _side(noun.metrics, name)
        place = case((side.c.owner.is_(None), 2), (side.c.nan, 1), else_=0)
        keys = [_Key(place, func.coalesce(side.c.value, 0.0), order.down)]
    else:
        side = _side(noun.labels[field.kind], name)
        place = case((side.c.owner.is_(None), 2), else_=0)
        keys = [
            _Key(place, func.coalesce(side.c.head, ""), order.down),
            _Key(None, func.coalesce(side.c.tail, ""), order.down),
        ]
    on = and_(side.c.owner == owner, side.c.key == field.key)
    return source.outerjoin(side, on), keys


@cache
def _side(table: Table, name: str) -> NamedFromClause:
    """A table under another name; SQLAlchemy makes one slowly."""
    return table.alias(name)


def _plain(column: Any) -> ColumnElement[Any]:
    """A column as the database has it: times are whole microseconds."""
    return type_coerce(column, BigInteger) if isinstance(column.type, Moment) else column


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
        gone = _off(plan, table.c.deleted_at).is_not(None)
        rules.append(gone if plan.query.deleted == "deleted" else not_(gone))
    if plan.few is not None:
        candidates = _candidates(plan.noun, plan.query, plan.few, plan.postgres)
        assert candidates is not None
        rules.append(
            table.c[plan.noun.owner].in_(select(candidates.cte("few").prefix_with("MATERIALIZED").c[0]))
        )
    if plan.query.datasets and not any(each.field.kind == "metric" for each in plan.query.where):
        side = _side(schema.logged_model_metrics, "measured")
        there = and_(side.c.owner == table.c.id, *_on_datasets(side, *plan.query.datasets))
        rules.append(exists(select(literal(1)).select_from(side).where(there)))
    for condition in plan.query.where:
        if condition.field == walked and condition.op not in ("IS NULL", "IS NOT NULL"):
            continue
        rules.append(_rule(plan, condition))
    return rules


def _rule(plan: _Plan, condition: Condition) -> ColumnElement[bool]:
    """One condition, on the row of the noun."""
    noun, field = plan.noun, condition.field
    if field.kind == "attribute":
        column: Any = _off(plan, noun.table.c[field.key])
        if condition.op in ("IS NULL", "IS NOT NULL"):
            nothing: ColumnElement[bool] = column.is_(None)
            return nothing if condition.op == "IS NULL" else not_(nothing)
        if isinstance(column.type, Moment):
            return _moment(type_coerce(column, BigInteger), condition)
        return _compare(column, condition, postgres=plan.postgres)
    if field.kind == "dataset":
        data = _side(schema.run_inputs, "side")
        value = _compare(data.c[field.key], condition, postgres=plan.postgres)
        there = and_(data.c.run == noun.table.c.id, value)
        return exists(select(literal(1)).select_from(data).where(there))
    table = noun.metrics if field.kind == "metric" else noun.labels[field.kind]
    assert table is not None
    side: Any = _side(table, "side")
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
    most = min(FEW, max(_total(session, query) // 10, _ALWAYS_FEW)) if query.where else 0
    postgres = session.connection.dialect.name == "postgresql"
    first = query.order[0].field if query.order else None
    for condition in query.where:
        if condition.field == first and condition.op in ("<", "<=", ">", ">="):
            continue  # the walk begins at that bound
        candidates = _candidates(noun, query, condition, postgres)
        if candidates is None:
            continue
        some = candidates.limit(most).subquery()
        count = int(session.connection.execute(select(func.count()).select_from(some)).scalar_one())
        if count < most and (best is None or count < best[0]):
            best = count, condition
    return None if best is None else best[1]


def _total(session: Session, query: Query) -> int:
    """About how many rows the noun has, without counting them."""
    given = select(schema.counters.c.value).where(schema.counters.c.name == query.noun)
    return int(session.connection.execute(given).scalar() or 0)


def _candidates(noun: _Noun, query: Query, condition: Condition, postgres: bool) -> Select[Any] | None:
    """Owners that meet a condition, by an index, and maybe some more; None where no index finds them."""
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
    value = _holds(plan, condition, table) if ranged else table.c.head == str(condition.value)[:HEAD]
    return select(table.c.owner).where(table.c.scope.in_(scope), table.c.key == field.key, value)


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
    first, walks = plan.order[0], plan.walks and phase < 2
    downs = [first.down] * (2 if first.field.kind in ("param", "tag") else 1) if walks or not phase else []
    for number, order in enumerate(plan.order[1:]):
        _, keys = _joined(plan, plan.noun.table, order, f"d{number}")
        downs += [down for key in keys for _, down in _parts(key)]
    return [*downs, not walks and plan.noun.start != "id", False]


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
