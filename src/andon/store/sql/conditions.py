"""`where` and `order` of the ports as SQL: conditions, a total order with NULL last, and the page after a row."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, UnaryExpression, and_, false, literal, or_

from andon.core.entities import Entity
from andon.core.errors import Invalid
from andon.store.ports import Value, Where
from andon.store.sql.types import Json, unstorable

_COMPARE: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MOST_VALUES: Final = 10_000
"""The longest list of values in one condition."""


def conditions(table: Table, where: Mapping[str, Where] | None) -> list[ColumnElement[bool]]:
    """The conditions of a `where`.

    Raises:
        Invalid: an unknown column, one that holds a tuple or object, or a comparison with nothing.
    """
    return [_condition(_column(table, name), wanted) for name, wanted in (where or {}).items()]


def keys(table: Table, order: Sequence[str]) -> list[tuple[ColumnElement[Any], bool]]:
    """The columns of an order, each with whether it descends; `id` ends it, in the direction of the key before."""
    found = [(_column(table, name.removeprefix("-")), name.startswith("-")) for name in order]
    if not any(column.name == "id" for column, _ in found):
        found.append((table.c.id, bool(found) and found[-1][1]))
    return [*found]


def ordering(table: Table, order: Sequence[str]) -> list[UnaryExpression[Any]]:
    """ORDER BY of an order. NULLS LAST is only said where a NULL can be, since it keeps SQLite from using an index."""
    return [
        side.nulls_last() if column.nullable else side
        for column, down in keys(table, order)
        for side in (column.desc() if down else column.asc(),)
    ]


def beyond(table: Table, order: Sequence[str], row: Entity) -> ColumnElement[bool]:
    """The rows that follow a row in an order.

    Said as a disjunction (`a > x or a = x and b > y`), and once more as a bound of the leading column, by which both
    databases enter the index at the right place.
    """
    before: list[ColumnElement[bool]] = []
    ways: list[ColumnElement[bool]] = []
    ordered = keys(table, order)
    for column, down in ordered:
        value = getattr(row, column.name)
        ways.append(and_(*before, _follows(column, value, down=down)))
        before.append(column.is_(None) if value is None else column == value)
    first, down = ordered[0]
    if first.nullable:
        return or_(*ways)
    value = literal(getattr(row, first.name), first.type)
    return and_(first <= value if down else first >= value, or_(*ways))


def _follows(column: ColumnElement[Any], value: Value, *, down: bool) -> ColumnElement[bool]:
    if value is None:
        return false()
    there = literal(value, column.type)  # bound, for SQLAlchemy compares no column with a Python boolean
    beyond_it = column < there if down else column > there
    return or_(beyond_it, column.is_(None)) if column.nullable else beyond_it


def _column(table: Table, name: str) -> Any:
    column = table.c.get(name)
    if column is None:
        raise Invalid(
            f"{table.name} have no column {name!r}", hint="columns are " + ", ".join(table.c.keys())
        )
    if isinstance(column.type, Json):
        raise Invalid(f"{table.name} cannot be searched or ordered by {name!r}, which holds several values")
    return column


def _condition(column: Any, wanted: Where) -> Any:
    if fault := unstorable(wanted):
        raise Invalid(f"{column} cannot be compared: the value {fault}")
    if isinstance(wanted, tuple) and len(wanted) == 2 and (wanted[0] == "!=" or wanted[0] in _COMPARE):
        return _compared(column, str(wanted[0]), wanted[1])
    if isinstance(wanted, str | int | float | datetime) or wanted is None:
        return column.is_(None) if wanted is None else column == wanted
    values = [value for value in wanted if value is not None]
    if len(values) > MOST_VALUES:
        raise Invalid(
            f"{len(values)} values for {column} are too many", hint=f"ask for {MOST_VALUES} at a time"
        )
    some = column.in_(values)
    return some if len(values) == len(wanted) else or_(some, column.is_(None))


def _compared(column: Any, sign: str, value: Value) -> Any:
    if sign == "!=":
        return column.is_distinct_from(value)
    if value is None:
        raise Invalid(f"{column} cannot be compared by {sign} with nothing", hint="use None or ('!=', None)")
    return _COMPARE[sign](column, literal(value, column.type))
