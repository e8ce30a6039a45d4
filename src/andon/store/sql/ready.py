"""Statements that are run all the time, put into the database's words once.

SQLAlchemy finds a statement's compiled form by a key that it works out at every execution; for a statement that never
changes that is most of what a small one costs (measured: 110 us against 25).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, Dialect, Double
from sqlalchemy.sql.expression import ClauseElement

_KEEP: Final = {"preserve_rowcount": True}
_Processor = Callable[[Any], Any]


class Ready:
    """A statement of fixed form, for one dialect. Made once and shared by all connections; see `ready`."""

    def __init__(self, statement: Any, names: Sequence[str], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names) or None)
        self._sql = str(compiled)
        self._order: tuple[str, ...] | None = tuple(compiled.positiontup) if compiled.positional else None
        self._fixed: Mapping[str, Any] = compiled.construct_params(dict.fromkeys(names))
        processors: Mapping[str, _Processor | None] = compiled._bind_processors
        self._binds = {name: each for name, each in processors.items() if each is not None}
        columns = getattr(statement, "selected_columns", None) or getattr(statement, "_returning", None) or ()
        self._columns = tuple(column.name for column in columns)
        # Drivers give floats as they are; SQLAlchemy would ask for the code of the driver's type.
        self._results = tuple(
            None if isinstance(column.type, Double) else column.type._cached_result_processor(dialect, None)
            for column in columns
        )

    def run(self, connection: Connection, values: Mapping[str, Any]) -> CursorResult[Any]:
        """Execute it; rows come as the driver gives them."""
        return connection.exec_driver_sql(self._sql, self._given(values), execution_options=_KEEP)

    def tuples(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute it; all rows at once, as the driver makes them."""
        found = self.run(connection, values)
        rows = found.cursor.fetchall()
        found.close()
        return [*rows]

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute it once for each row."""
        connection.exec_driver_sql(self._sql, [self._given(row) for row in rows])

    def row(self, found: Sequence[Any]) -> dict[str, Any]:
        """A row of the driver as its columns' types have it, by name."""
        return {
            name: value if read is None else read(value)
            for name, read, value in zip(self._columns, self._results, found, strict=True)
        }

    def _given(self, values: Mapping[str, Any]) -> Any:
        given = {**self._fixed, **values}
        for name, write in self._binds.items():
            given[name] = write(given[name])
        return given if self._order is None else tuple(given[name] for name in self._order)


@cache
def _ready(statement: ClauseElement, names: tuple[str, ...], dialect: Dialect) -> Ready:
    return Ready(statement, names, dialect)


def ready(statement: Any, connection: Connection, names: Sequence[str] = ()) -> Ready:
    """The ready form of a statement, which is an object that lives as long as the program.

    Args:
        names: the parameters it is given at each execution; for an INSERT its columns.
    """
    return _ready(statement, tuple(names), connection.dialect)
