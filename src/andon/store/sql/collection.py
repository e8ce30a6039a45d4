"""The rows of one noun: fields of the entity and columns of the table go by the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, Select, Table, UniqueConstraint, Update, bindparam, func, select, update
from sqlalchemy.exc import IntegrityError

from andon.core.entities import Entity
from andon.core.errors import AlreadyExists, AndonError, Conflict, Invalid, NotFound
from andon.store.ports import Where
from andon.store.sql.conditions import MOST_VALUES, beyond, conditions, ordering
from andon.store.sql.ready import ready
from andon.store.sql.schema import ENTITIES
from andon.store.sql.types import unstorable

E = TypeVar("E", bound=Entity)
_SIGNS = ("!=", "<", "<=", ">", ">=")


class Many(NamedTuple):
    """The beginning of an INSERT of many narrow rows, with the Postgres type of each column of it, in order."""

    insert: str
    types: Mapping[str, str]


class Session(NamedTuple):
    """An open transaction: its connection and what its dialect does in its own way.

    Attributes:
        insert: an INSERT that can say ON CONFLICT.
        guard: a context in which a refused statement does not spoil the whole transaction.
        writable: whether rows may be changed.
        many: writes many rows with as little as possible between them and the driver.
    """

    connection: Connection
    insert: Callable[[Table], Any]
    guard: Callable[[Connection], AbstractContextManager[Any]]
    writable: bool
    many: Callable[[Connection, Many, Sequence[tuple[Any, ...]], str], None]

    def write_many(self, what: Many, rows: Sequence[tuple[Any, ...]], conflict: str) -> None:
        """Insert rows; `conflict` is the ON CONFLICT clause. Rows of one call must not meet each other in it.

        Raises:
            IntegrityError: the database refused one; nothing of the call happened.
        """
        if rows:
            with self.guard(self.connection):
                self.many(self.connection, what, rows, conflict)

    def check_writable(self) -> None:
        """Refuse a change in a read-only view.

        Raises:
            Invalid: the transaction is one of `Store.read`.
        """
        if not self.writable:
            raise Invalid("nothing can be changed in a view that only reads", hint="use Store.write")


class SqlCollection(Generic[E]):
    """`ports.Collection` over one table; for the thread and the time of its transaction only."""

    def __init__(self, session: Session, kind: type[E]) -> None:
        self._session = session
        self._kind = kind
        self._plan = _plan(kind)
        self._table = self._plan.table

    def get(self, ident: str) -> E:
        row = self.find(ident)
        if row is None:
            raise NotFound(f"{self._plan.noun} {ident!r} does not exist")
        return row

    def find(self, ident: str) -> E | None:
        connection = self._session.connection
        get = ready(self._plan.get, connection, ("ident",))
        found = get.run(connection, {"ident": ident}).one_or_none()
        return None if found is None else self._kind(**get.row(found))

    def select(
        self,
        where: Mapping[str, Where] | None = None,
        *,
        order: Sequence[str] = ("id",),
        after: E | None = None,
        limit: int = 1000,
    ) -> list[E]:
        if limit < 0:
            raise Invalid(f"a page of {limit} {self._table.name} cannot be read", hint="a limit is 0 or more")
        shape = _shape(where) if after is None else None
        if shape is not None:
            page = _page(self._kind, shape, tuple(order))
            values: dict[str, Any] = {
                f"where_{name}": _bound(wanted) for name, wanted in (where or {}).items()
            }
            found = self._session.connection.execute(page, {**values, "most": limit})
        else:
            statement = self._plan.all.where(*conditions(self._table, where))
            if after is not None:
                statement = statement.where(beyond(self._table, order, after))
            statement = statement.order_by(*ordering(self._table, order)).limit(limit)
            found = self._session.connection.execute(statement)
        kind, names = self._kind, self._plan.names
        return [kind(**dict(zip(names, row, strict=True))) for row in found.all()]

    def count(self, where: Mapping[str, Where] | None = None) -> int:
        statement = select(func.count()).select_from(self._table).where(*conditions(self._table, where))
        return int(self._session.connection.execute(statement).scalar_one())

    def add(self, row: E) -> E:
        self._session.check_writable()
        values = self._values(row)
        if self._write(_add(self._session.insert, self._table), values) == 0:
            if self.find(row.id) is not None:
                raise AlreadyExists(f"{self._plan.noun} {row.id!r} already exists")
            raise AlreadyExists(self._taken(values))
        return row

    def change(self, row: E) -> E:
        self._session.check_writable()
        values = self._values(row)
        if (
            self._write(
                self._plan.change, {**values, "rev": row.rev + 1, "old_id": row.id, "old_rev": row.rev}
            )
            == 0
        ):
            now = self.get(row.id)
            raise Conflict(
                f"{self._plan.noun} {row.id!r} was changed by somebody else (it is at rev {now.rev}, not {row.rev})",
                hint="read it again and decide again",
            )
        return msgspec.structs.replace(row, rev=row.rev + 1)

    def remove(self, ident: str) -> None:
        self._session.check_writable()
        try:
            with self._session.guard(self._session.connection):
                self._session.connection.execute(self._table.delete().where(self._table.c.id == ident))
        except IntegrityError:
            raise Conflict(
                f"{self._plan.noun} {ident!r} is still referred to and cannot be deleted"
            ) from None

    def _write(self, statement: Any, values: dict[str, Any]) -> int:
        """Rows written: 1, or 0 when the statement found nothing to write."""
        try:
            with self._session.guard(self._session.connection):
                connection = self._session.connection
                return ready(statement, connection, tuple(values)).run(connection, values).rowcount
        except IntegrityError:
            raise self._refusal(values) from None

    def _values(self, row: E) -> dict[str, Any]:
        """The row's fields, each of the type that its entity says and of a form that both databases keep.

        Raises:
            Invalid: a field is of another type, holds NaN, or text that has no place in a database.
        """
        values = msgspec.structs.asdict(row)
        try:
            msgspec.convert(values, self._kind)
        except msgspec.ValidationError as error:
            raise Invalid(f"{self._plan.noun} {row.id!r} cannot be stored: {error}") from None
        for name, value in values.items():
            if fault := unstorable(value):
                raise Invalid(f"{self._plan.noun} {row.id!r} cannot be stored: {name} {fault}")
        return values

    def _refusal(self, values: dict[str, Any]) -> AndonError:
        """What the database refused: a reference to nothing, or a change to what must be unique."""
        for key in self._table.foreign_keys:
            value = values[key.parent.name]
            there = select(key.column).where(key.column == value)
            if value is not None and self._session.connection.execute(there).one_or_none() is None:
                return NotFound(
                    f"{self._plan.noun} {values['id']!r} refers to {key.parent.name} {value!r}, "
                    f"which is not in {key.column.table.name}",
                    hint="write that one first",
                )
        return Conflict(self._taken(values))

    def _taken(self, values: dict[str, Any]) -> str:
        """Which unique thing of a row another row has already."""
        noun, ident = self._plan.noun, values["id"]
        for rule in self._plan.unique:
            if rule.states and values["state"] not in rule.states:
                continue
            same = [self._table.c[name] == values[name] for name in rule.columns]
            if rule.states:
                same.append(self._table.c.state.in_(rule.states))
            other = self._session.connection.execute(select(self._table.c.id).where(*same)).scalar()
            if other is not None and other != ident:
                return (
                    f"{noun} {ident!r} cannot be written: {rule.said(values)}, and that is {noun} {other!r}"
                )
        return f"{noun} {ident!r} cannot be written: something that must be unique of it is taken"


class _Rule(NamedTuple):
    """Columns that must be unique together, among rows of some states if any are named, and how to say it."""

    columns: tuple[str, ...]
    states: tuple[str, ...] = ()
    words: str = ""

    def said(self, values: dict[str, Any]) -> str:
        taken = " and ".join(f"{name} {values[name]!r}" for name in self.columns)
        return self.words or f"{taken} is taken"


class _Plan(NamedTuple):
    """The statements of a noun, made once, so that SQLAlchemy compiles each of them once."""

    table: Table
    noun: str
    names: tuple[str, ...]
    get: Select[Any]
    all: Select[Any]
    change: Update
    unique: tuple[_Rule, ...]


@cache
def _add(insert: Callable[[Table], Any], table: Table) -> Any:
    """An INSERT that a row of the same id, or of what must be unique, turns into nothing instead of an error."""
    return insert(table).on_conflict_do_nothing()


@cache
def _plan(kind: type[Entity]) -> _Plan:
    table = ENTITIES[kind]
    same = (table.c.id == bindparam("old_id"), table.c.rev == bindparam("old_rev"))
    return _Plan(
        table=table,
        noun=_noun(kind),
        names=tuple(column.name for column in table.c),
        get=select(table).where(table.c.id == bindparam("ident")),
        all=select(table),
        change=update(table)
        .where(*same)
        .values({column: bindparam(column.name) for column in table.c if column.name != "id"}),
        unique=tuple(_rules(table)),
    )


def _shape(where: Mapping[str, Where] | None) -> tuple[tuple[str, bool], ...] | None:
    """Names of columns that are equal to a value, or to one of several (True); None when a condition is another one."""
    shape: list[tuple[str, bool]] = []
    for name, wanted in (where or {}).items():
        if wanted is None:
            return None
        several = isinstance(wanted, Sequence) and not isinstance(wanted, str)
        values: Sequence[Any] = wanted if isinstance(wanted, Sequence) and several else (wanted,)
        compared = isinstance(wanted, tuple) and len(wanted) == 2 and wanted[0] in _SIGNS
        if (
            compared
            or None in values
            or len(values) > MOST_VALUES
            or any(unstorable(value) for value in values)
        ):
            return None
        shape.append((name, several))
    return tuple(shape)


def _bound(wanted: Where) -> Any:
    return list(wanted) if isinstance(wanted, tuple) else wanted


@lru_cache(maxsize=512)
def _page(kind: type[Entity], shape: tuple[tuple[str, bool], ...], order: tuple[str, ...]) -> Select[Any]:
    """A SELECT that is made once for all values: making one costs more than most of them do."""
    plan = _plan(kind)
    table = plan.table
    check = conditions(table, dict.fromkeys(name for name, _ in shape))  # refuses what is no column
    assert len(check) == len(shape)
    rules = [
        table.c[name].in_(bindparam(f"where_{name}", expanding=True))
        if several
        else table.c[name] == bindparam(f"where_{name}", type_=table.c[name].type)
        for name, several in shape
    ]
    return plan.all.where(*rules).order_by(*ordering(table, order)).limit(bindparam("most"))


def _noun(kind: type[Entity]) -> str:
    """What a message calls a thing of a kind.

    >>> from andon.core.entities import ModelVersion, RouteRow
    >>> _noun(ModelVersion), _noun(RouteRow)
    ('model version', 'route')
    """
    spaced = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)
    return spaced.strip().removesuffix(" row")


def _rules(table: Table) -> list[_Rule]:
    """What must be unique of a row besides its id."""
    keys = [rule for rule in table.constraints if isinstance(rule, UniqueConstraint)]
    some = [index for index in table.indexes if index.unique]
    return [
        *(_Rule(tuple(column.name for column in rule.columns)) for rule in keys),
        *(_Rule(tuple(index.columns.keys()), index.info["states"], index.info["rule"]) for index in some),
    ]
