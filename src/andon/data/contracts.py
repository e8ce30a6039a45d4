"""Data contracts: what rows must look like, inferred from the first data, reviewed by a person as TOML, then enforced.

The file is canonical: it is written from the contract alone, and its digest is the contract's id, whatever comments and spaces
a person's copy has. How rows are judged by it: `andon.data.validation`.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import polars as pl

from andon.core.canonical import Digest, digest_bytes
from andon.core.errors import Invalid, NotFound
from andon.core.policy import SourcePolicy
from andon.core.signature import Field

FORMAT = "andon.contract/1"
Kind = Literal["integer", "number", "string", "boolean", "time", "any"]
Severity = Literal["block", "warn"]

TOLERANCE = 0.01
_SLACK = 0.5
"""How far beyond what was seen a value may lie, as a share of the range seen."""
_LEVELS = 50
"""Text with at most so many levels, each seen twenty times on average, has a domain."""
_VARIES = 0.05
"""A column varies when at least this share of its values is not the most frequent one; it is then not to be constant."""
_SHORTEST = 32


class ColumnRule(msgspec.Struct, frozen=True, kw_only=True):
    """What one column must look like.

    Attributes:
        kind: `any` is only looked at for presence and nulls; integers are accepted where the kind is `number`.
        required: whether it must be there.
        nulls: greatest share of nulls (NaN counts as null), in [0, 1].
        min, max: bounds of numbers, both included.
        domain: levels of a text column.
        max_length: longest text, in characters.
        varies: whether it is worth a warning when all its values are the same.
        severity: `warn` makes every fault of this column a warning.
    """

    name: str
    kind: Kind
    required: bool = True
    nulls: float = 0.0
    min: int | float | None = None
    max: int | float | None = None
    domain: tuple[str, ...] | None = None
    max_length: int | None = None
    varies: bool = False
    severity: Severity = "block"


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows of a dataset must look like: its columns in order, and the roles some of them have."""

    dataset: str
    label: str
    columns: tuple[ColumnRule, ...]
    key: tuple[str, ...] = ()
    time: str | None = None
    label_time: str | None = None
    tolerance: float = TOLERANCE
    format: str = FORMAT

    def column(self, name: str) -> ColumnRule:
        """The rule of a column.

        Raises:
            NotFound: the contract does not name it.
        """
        for rule in self.columns:
            if rule.name == name:
                return rule
        names = ", ".join(rule.name for rule in self.columns)
        raise NotFound(f"the contract of {self.dataset!r} has no column {name!r}", hint=f"it has {names}")

    def encode(self) -> bytes:
        """The bytes that stand for the contract: what `to_toml` writes."""
        return to_toml(self).encode()

    @property
    def digest(self) -> Digest:
        """The contract's id, and the address of its bytes as a blob."""
        return digest_bytes(self.encode())


def infer(frame: pl.DataFrame, source: SourcePolicy) -> Contract:
    """The contract that a frame keeps, with slack for what the next rows may bring.

    Numbers may lie half the range seen beyond it, but not change sign where none did; nulls may double and grow by 5 % where
    there were any, and text be twice as long. Text with few levels gets them as its domain.

    Raises:
        Invalid: no row to learn from.

    >>> frame = pl.DataFrame({"age": [20, 40], "left": [0, 1]})
    >>> contract = infer(frame, SourcePolicy(name="people", source="people.csv", label="left"))
    >>> contract.column("age").min, contract.column("age").max
    (10, 50)
    """
    if frame.height == 0:
        raise Invalid(
            f"data.{source.name}: there is no row to infer a contract from", hint="check the source"
        )
    free = {source.label, source.label_time}
    columns = [_infer_column(series, free=series.name in free) for series in frame.get_columns()]
    return Contract(
        dataset=source.name,
        label=source.label,
        columns=tuple(columns),
        key=source.key,
        time=source.time,
        label_time=source.label_time,
    )


def kind_of(dtype: pl.DataType) -> Kind:
    """The kind of a column's type.

    >>> kind_of(pl.UInt8()), kind_of(pl.Date())
    ('integer', 'time')
    """
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "number"
    if dtype == pl.Boolean:
        return "boolean"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "string"
    return "time" if isinstance(dtype, pl.Date | pl.Datetime) else "any"


def signature(contract: Contract, columns: Sequence[str]) -> tuple[Field, ...]:
    """The fields of a request that brings these columns, in their order.

    Raises:
        NotFound: the contract does not name a column.
        Invalid: a column is a time or of another kind that a request cannot bring.

    >>> signature(
    ...     Contract(dataset="d", label="y", columns=(ColumnRule(name="age", kind="integer"),)), ["age"]
    ... )
    (Field(name='age', kind='integer', nullable=False, max_length=256),)
    """
    return tuple(_field(contract.column(name)) for name in columns)


def _field(rule: ColumnRule) -> Field:
    if rule.kind == "time" or rule.kind == "any":  # noqa: PLR1714  # mypy narrows this form only
        raise Invalid(
            f"the column {rule.name!r} is of the kind {rule.kind!r}, which a request cannot bring",
            hint="make numbers or text of it in the source, such as its hour",
            field=rule.name,
        )
    return Field(
        name=rule.name,
        kind=rule.kind,
        nullable=rule.nulls > 0 or not rule.required,
        max_length=rule.max_length or 256,
    )


def _infer_column(series: pl.Series, *, free: bool) -> ColumnRule:
    """The rule of one column; `free` for a label and its time, which may be unknown for any number of rows."""
    kind = kind_of(series.dtype)
    values = series.drop_nulls()
    if kind == "number":
        values = values.drop_nans()
    missing = 1 - len(values) / len(series)
    rule = ColumnRule(
        name=series.name,
        kind=kind,
        nulls=1.0 if free else math.ceil(min(1.0, 2 * missing + 0.05) * 1000) / 1000 if missing else 0.0,
        varies=_varies(values, kind),
    )
    if free or values.is_empty():
        return rule
    if kind in ("integer", "number"):
        low, high = _range(values, kind)
        return msgspec.structs.replace(rule, min=low, max=high)
    if kind == "string":
        return msgspec.structs.replace(rule, domain=_domain(values), max_length=_longest(values))
    return rule


def _varies(values: pl.Series, kind: Kind) -> bool:
    if values.is_empty() or kind == "any":
        return False
    return 1 - int(values.unique_counts().max() or 0) / len(values) >= _VARIES  # type: ignore[arg-type]  # counts are integers


def _range(values: pl.Series, kind: Kind) -> tuple[int | float | None, int | float | None]:
    finite = values if kind == "integer" else values.filter(values.is_finite())
    if finite.is_empty():
        return None, None
    least, most = float(finite.min()), float(finite.max())  # type: ignore[arg-type]  # a column of numbers
    slack = _SLACK * ((most - least) or abs(most) or 1.0)
    low, high = least - slack, most + slack
    low, high = max(low, 0.0) if least >= 0 else low, min(high, 0.0) if most <= 0 else high
    if not (math.isfinite(low) and math.isfinite(high)):
        return None, None
    return (math.floor(low), math.ceil(high)) if kind == "integer" else (low, high)


def _domain(values: pl.Series) -> tuple[str, ...] | None:
    levels = values.cast(pl.String).unique()
    if len(levels) > _LEVELS or len(values) < 20 * len(levels):
        return None
    return tuple(sorted(levels.to_list()))


def _longest(values: pl.Series) -> int:
    return max(2 * int(values.cast(pl.String).str.len_chars().max() or 0), _SHORTEST)  # type: ignore[arg-type]  # lengths are integers


_HEAD = """\
# The data contract of the dataset {name}.
# Andon inferred it from the first data; review it, change what is not so, and it is enforced from then on.
#   kind        integer, number, string, boolean, time, or any
#   required    false: the column may be missing
#   nulls       greatest share of nulls, 0 to 1
#   min, max    bounds of numbers, both included
#   domain      the only texts there may be
#   max_length  longest text, in characters
#   varies      true: warn when all values are the same
#   severity    block stops the line, warn only tells
"""


def to_toml(contract: Contract) -> str:
    """The contract as reviewable TOML; `from_toml` gives it back exactly.

    >>> text = to_toml(Contract(dataset="d", label="y", columns=(ColumnRule(name="a b", kind="integer"),)))
    >>> text.splitlines()[-3:]
    ['[columns."a b"]', 'kind = "integer"', 'nulls = 0.0']
    """
    lines = [
        _HEAD.format(name=_value(contract.dataset)),
        f"format = {_value(contract.format)}",
        f"dataset = {_value(contract.dataset)}",
    ]
    lines += [f"label = {_value(contract.label)}", f"key = {_value(list(contract.key))}"]
    lines += [
        f"{role} = {_value(getattr(contract, role))}"
        for role in ("time", "label_time")
        if getattr(contract, role)
    ]
    lines.append(
        "# Share of rows that may break a rule about values: up to it a warning, above it the line stops."
    )
    lines.append(f"tolerance = {_value(contract.tolerance)}")
    for rule in contract.columns:
        lines += ["", f"[columns.{_key(rule.name)}]", *_rule_lines(rule)]
    return "\n".join(lines) + "\n"


def _rule_lines(rule: ColumnRule) -> list[str]:
    plain = ColumnRule(name=rule.name, kind=rule.kind)
    lines = []
    for name in ColumnRule.__struct_fields__:
        value = getattr(rule, name)
        if name != "name" and (name in ("kind", "nulls") or value != getattr(plain, name)):
            lines.append(f"{name} = {_value(list(value) if isinstance(value, tuple) else value)}")
    return lines


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def read_contract(path: Path) -> Contract:
    """Read a contract's file.

    Raises:
        NotFound: it is not there.
        Invalid: it is malformed; the message names file, line, key and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(
            f"the contract {path} does not exist", hint="a first run without it infers one"
        ) from None
    except UnicodeDecodeError:
        raise Invalid(f"{path} is not UTF-8 text") from None
    return from_toml(text, where=str(path))


def from_toml(text: str, *, where: str = "contract.toml") -> Contract:
    """Parse a contract.

    Raises:
        Invalid: it is malformed; the message names line, key and what was expected.

    >>> from_toml('format = "andon.contract/1"\\ndataset = "d"\\nlabel = 7\\n')
    Traceback (most recent call last):
    andon.core.errors.Invalid: contract.toml, line 3: label is 7; expected a name
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{where} is not valid TOML: {error}") from None
    return _Reading(text, where).contract(document)


class _Reading:
    """One pass over a document; knows how to say where a fault is."""

    def __init__(self, text: str, where: str) -> None:
        self.lines = text.split("\n")
        self.where = where

    def contract(self, document: dict[str, Any]) -> Contract:
        self._known(
            document,
            None,
            {"format", "dataset", "label", "key", "time", "label_time", "tolerance", "columns"},
        )
        if document.get("format") != FORMAT:
            raise self._fault(None, "format", f"is {document.get('format')!r}", repr(FORMAT))
        dataset, label = self._text(document, "dataset"), self._text(document, "label")
        tables = document.get("columns")
        if not isinstance(tables, dict) or not tables:
            raise self._fault(None, "columns", "is missing", "a table [columns.NAME] for each column")
        contract = Contract(
            dataset=dataset,
            label=label,
            columns=tuple(self._rule(name, table) for name, table in tables.items()),
            key=tuple(self._texts(document, None, "key", [])),
            time=self._text(document, "time") if "time" in document else None,
            label_time=self._text(document, "label_time") if "label_time" in document else None,
            tolerance=self._share(document, None, "tolerance", TOLERANCE),
        )
        roles = {"label": contract.label, "time": contract.time, "label_time": contract.label_time}
        for role, name in [*roles.items(), *(("key", name) for name in contract.key)]:
            if name is not None and name not in tables:
                raise self._fault(None, role, f"names {name!r}", f"one of {', '.join(tables)}")
        return contract

    def _rule(self, name: str, table: object) -> ColumnRule:
        if not isinstance(table, dict):
            raise self._fault(None, f"columns.{name}", "is not a table", f"[columns.{_key(name)}]")
        self._known(table, name, set(ColumnRule.__struct_fields__) - {"name"})
        domain = self._texts(table, name, "domain", None)
        rule = ColumnRule(
            name=name,
            kind=self._word(table, name, "kind", get_args(Kind)),
            required=self._flag(table, name, "required", default=True),
            nulls=self._share(table, name, "nulls", 0.0),
            min=self._number(table, name, "min"),
            max=self._number(table, name, "max"),
            domain=None if domain is None else tuple(domain),
            max_length=self._length(table, name),
            varies=self._flag(table, name, "varies", default=False),
            severity=self._word(table, name, "severity", get_args(Severity), "block"),
        )
        for field, kinds in _ONLY.items():
            if getattr(rule, field) is not None and rule.kind not in kinds:
                raise self._fault(
                    name,
                    field,
                    f"does not go with the kind {rule.kind!r}",
                    f"it on a column of {' or '.join(kinds)}",
                )
        if rule.min is not None and rule.max is not None and rule.min > rule.max:
            raise self._fault(name, "min", f"is {rule.min}, above max", f"at most {rule.max}")
        return rule

    def _text(self, table: dict[str, Any], key: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value:
            raise self._fault(None, key, "is missing" if value is None else f"is {value!r}", "a name")
        return value

    def _texts(self, table: dict[str, Any], column: str | None, key: str, default: Any) -> Any:
        value = table.get(key, default)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(item, str) for item in value)
        ):
            raise self._fault(column, key, f"is {value!r}", "a list of texts")
        return value

    def _word(
        self, table: dict[str, Any], column: str, key: str, words: Sequence[str], default: str | None = None
    ) -> Any:
        value = table.get(key, default)
        if value not in words:
            raise self._fault(
                column, key, "is missing" if value is None else f"is {value!r}", ", ".join(words)
            )
        return value

    def _flag(self, table: dict[str, Any], column: str, key: str, *, default: bool) -> bool:
        value = table.get(key, default)
        if not isinstance(value, bool):
            raise self._fault(column, key, f"is {value!r}", "true or false")
        return value

    def _number(self, table: dict[str, Any], column: str | None, key: str) -> int | float | None:
        value = table.get(key)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
        ):
            raise self._fault(column, key, f"is {value!r}", "a number")
        return value

    def _share(self, table: dict[str, Any], column: str | None, key: str, default: float) -> float:
        value = self._number(table, column, key)
        if value is not None and not 0 <= value <= 1:
            raise self._fault(column, key, f"is {value!r}", "a share from 0 to 1")
        return default if value is None else float(value)

    def _length(self, table: dict[str, Any], column: str) -> int | None:
        value = table.get("max_length")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise self._fault(column, "max_length", f"is {value!r}", "a whole number of at least 1")
        return value

    def _known(self, table: dict[str, Any], column: str | None, known: set[str]) -> None:
        for key in table:
            if key not in known:
                raise self._fault(column, key, "is not a key Andon knows", ", ".join(sorted(known)))

    def _fault(self, column: str | None, key: str, what: str, expected: str) -> Invalid:
        path = key if column is None else f"columns.{column}.{key}"
        line = self._line(column, key)
        at = f"{self.where}, line {line}" if line else self.where
        return Invalid(f"{at}: {path} {what}; expected {expected}", field=path)

    def _line(self, column: str | None, key: str) -> int | None:
        """The line of a key, of its table where the key is missing, or None."""
        inside, header = column is None, None
        for number, line in enumerate(self.lines, start=1):
            text = line.strip()
            if text.startswith("["):
                if column is None:
                    return None
                inside = text in (f"[columns.{_key(column)}]", f"[columns.{_value(column)}]")
                header = number if inside else header
            elif inside and re.match(rf"[\"']?{re.escape(key)}[\"']?\s*=", text):
                return number
        return header


_ONLY: dict[str, tuple[str, ...]] = {
    "min": ("integer", "number"), "max": ("integer", "number"), "domain": ("string",), "max_length": ("string",),
}  # fmt: skip
