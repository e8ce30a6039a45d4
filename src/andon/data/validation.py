"""Rows judged by a contract: all counts in one pass over the frame, rows shown only for rules that were broken.

A rule about single values (nulls, range, domain, length) warns while the share of rows that break it is within the contract's
tolerance and blocks above it; where nulls are allowed, more than the allowed share blocks. A column with `severity = "warn"`
only warns. At once block: no row, a missing column, another type, a null or double key, a row without a time, a label other
than 0 and 1. A new column, and a column that has become constant, only warn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
import polars as pl

from andon.core.canonical import Digest
from andon.core.errors import Corrupt
from andon.data.contracts import ColumnRule, Contract, Severity, kind_of

FORMAT = "andon.report/1"
Rule = Literal[
    "rows", "missing", "new", "type", "nulls", "range", "domain", "length", "constant", "key", "time", "label"
]

_SHOWN = 10
_WIDEST = 200
_ENOUGH = 200
"""Fewer values than this say nothing about a column having become constant."""


class FailingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that breaks a rule: its number in the frame as it was read (from 0), its key, and the value at fault, as text."""

    row: int
    key: dict[str, str | None]
    value: str | None


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A broken rule.

    Attributes:
        column: its name; "" for the table as a whole, several names of a key joined by ", ".
        bad: how many rows break it; all of them for a rule about the column itself.
        share: bad / rows, in [0, 1].
        expected: what the contract says, in words.
        rows: the first of the rows, where single rows are at fault.
    """

    column: str
    rule: Rule
    severity: Severity
    bad: int
    share: float
    expected: str
    rows: tuple[FailingRow, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a contract says of a frame; `checks` is how many rules were judged."""

    contract: Digest
    rows: int
    checks: int
    violations: tuple[Violation, ...]
    format: str = FORMAT

    @property
    def passed(self) -> bool:
        """Whether nothing blocks."""
        return all(violation.severity == "warn" for violation in self.violations)

    def encode(self) -> bytes:
        """JSON bytes, to be stored as a blob: evidence, so figures may be floats."""
        return msgspec.json.encode(self)

    def summary(self) -> str:
        """The worst faults in one line, for an alert or an error."""
        if not self.violations:
            return f"all {self.checks} checks of {self.rows} rows passed"
        worst = sorted(self.violations, key=lambda found: (found.severity != "block", -found.share))
        told = [
            f"{found.column or 'the table'}: {found.rule} ({found.bad} rows, {found.severity})"
            for found in worst[:3]
        ]
        return "; ".join(told) + (f"; and {len(worst) - 3} more" if len(worst) > 3 else "")


def decode_report(data: bytes) -> Report:
    """Read a stored report.

    Raises:
        Corrupt: it is not one.
    """
    try:
        return msgspec.json.decode(data, type=Report)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a validation report cannot be read: {error}") from None


def check(frame: pl.DataFrame, contract: Contract) -> Report:
    """Judge a frame by a contract.

    >>> contract = Contract(
    ...     dataset="d", label="y", columns=(ColumnRule(name="y", kind="integer", nulls=1.0),)
    ... )
    >>> report = check(pl.DataFrame({"y": [0, 1, 7]}), contract)
    >>> report.passed, report.summary()
    (False, 'y: label (1 rows, block)')
    """
    whole, sound = _table_faults(frame, contract)
    if frame.height == 0:
        return Report(contract=contract.digest, rows=0, checks=1, violations=whole)
    rules = list(_row_rules(frame, contract, sound))
    counts = (
        frame.select(rule.bad.sum().alias(str(number)) for number, rule in enumerate(rules)).row(0)
        if rules
        else ()
    )
    broken = [
        _judged(frame, contract, rule, int(bad or 0))
        for rule, bad in zip(rules, counts, strict=True)
        if bad and int(bad) > rule.free
    ]
    constant = _constant(frame, sound)
    columns = len({rule.name for rule in contract.columns} | set(frame.columns))
    return Report(
        contract=contract.digest,
        rows=frame.height,
        checks=1 + columns + len(rules),
        violations=(*whole, *broken, *constant),
    )


class _RowRule(NamedTuple):
    """A rule that single rows break: which do, how many may, and whether the tolerance is for it."""

    columns: tuple[str, ...]
    rule: Rule
    bad: pl.Expr
    expected: str
    severity: Severity = "block"
    tolerance: float = 0.0
    free: int = 0


def _table_faults(frame: pl.DataFrame, contract: Contract) -> tuple[tuple[Violation, ...], list[ColumnRule]]:
    """Faults of the table and of whole columns, and the rules of columns that are there with the right type."""
    faults: list[Violation] = []
    sound: list[ColumnRule] = []
    if frame.height == 0:
        faults.append(_whole("", "rows", "block", 0, "at least one row"))
    for rule in contract.columns:
        if rule.name not in frame.columns:
            if rule.required:
                faults.append(_whole(rule.name, "missing", rule.severity, frame.height, "the column"))
        elif not _fits(frame.schema[rule.name], rule):
            faults.append(
                _whole(
                    rule.name,
                    "type",
                    rule.severity,
                    frame.height,
                    f"{rule.kind}, not {frame.schema[rule.name]}",
                )
            )
        else:
            sound.append(rule)
    named = {rule.name for rule in contract.columns}
    faults += [
        _whole(name, "new", "warn", frame.height, "no such column")
        for name in frame.columns
        if name not in named
    ]
    return tuple(faults), sound


def _fits(dtype: pl.DataType, rule: ColumnRule) -> bool:
    """Whether a column has its kind; one without any value is judged by its nulls, whatever its type."""
    found = kind_of(dtype)
    return dtype == pl.Null or rule.kind in ("any", found) or (rule.kind, found) == ("number", "integer")


def _whole(column: str, rule: Rule, severity: Severity, rows: int, expected: str) -> Violation:
    return Violation(column=column, rule=rule, severity=severity, bad=rows, share=1.0, expected=expected)


def _row_rules(frame: pl.DataFrame, contract: Contract, sound: list[ColumnRule]) -> Iterator[_RowRule]:
    there = {rule.name for rule in sound}
    strict = {*contract.key, contract.time}
    for rule in sound:
        dtype = frame.schema[rule.name]
        if rule.name not in strict:
            yield _null_rule(rule, dtype, frame.height, contract.tolerance)
        if dtype != pl.Null:
            yield from _value_rules(rule, dtype, contract.tolerance)
        if rule.name == contract.label and dtype != pl.Null:
            yield _label_rule(rule, dtype)
    if contract.time in there:
        yield _RowRule((contract.time,), "time", pl.col(contract.time).is_null(), "a time in each row")
    if contract.key and set(contract.key) <= there:
        double = pl.struct(contract.key).is_duplicated()
        empty = pl.any_horizontal(pl.col(list(contract.key)).is_null())
        yield _RowRule(contract.key, "key", double | empty, "a key in each row, each once")


def _null_rule(rule: ColumnRule, dtype: pl.DataType, rows: int, tolerance: float) -> _RowRule:
    column = pl.col(rule.name)
    missing = column.is_null() | column.is_nan() if dtype.is_float() else column.is_null()
    expected = f"nulls in at most {rule.nulls:.1%} of rows" if rule.nulls else "no nulls"
    allowed = int(rule.nulls * rows)
    return _RowRule(
        (rule.name,), "nulls", missing, expected, rule.severity, 0.0 if rule.nulls else tolerance, allowed
    )


def _value_rules(rule: ColumnRule, dtype: pl.DataType, tolerance: float) -> Iterator[_RowRule]:
    column = pl.col(rule.name)
    if rule.min is not None or rule.max is not None:
        low = column < rule.min if rule.min is not None else pl.lit(value=False)
        high = column > rule.max if rule.max is not None else pl.lit(value=False)
        numeric = column.is_not_nan() if dtype.is_float() else pl.lit(value=True)
        expected = f"{'-inf' if rule.min is None else rule.min} to {'inf' if rule.max is None else rule.max}"
        yield _RowRule((rule.name,), "range", numeric & (low | high), expected, rule.severity, tolerance)
    if rule.domain is not None:
        known = column.cast(pl.String).is_in(list(rule.domain))
        yield _RowRule(
            (rule.name,),
            "domain",
            ~known,
            "one of " + _clip(", ".join(rule.domain)),
            rule.severity,
            tolerance,
        )
    if rule.max_length is not None:
        long = column.cast(pl.String).str.len_chars() > rule.max_length
        yield _RowRule(
            (rule.name,), "length", long, f"at most {rule.max_length} characters", rule.severity, tolerance
        )


def _label_rule(rule: ColumnRule, dtype: pl.DataType) -> _RowRule:
    column = pl.col(rule.name)
    if dtype == pl.Boolean:
        bad = pl.lit(value=False) & column
    elif dtype.is_numeric():
        bad = (column != 0) & (column != 1)
    else:
        bad = column.is_not_null()
    return _RowRule((rule.name,), "label", bad, "0, 1, true, false, or nothing where it is not known")


def _judged(frame: pl.DataFrame, contract: Contract, rule: _RowRule, bad: int) -> Violation:
    share = bad / frame.height
    return Violation(
        column=", ".join(rule.columns),
        rule=rule.rule,
        severity="warn" if share <= rule.tolerance else rule.severity,
        bad=bad,
        share=share,
        expected=rule.expected,
        rows=tuple(_failing(frame, contract, rule)),
    )


def _failing(frame: pl.DataFrame, contract: Contract, rule: _RowRule) -> Iterator[FailingRow]:
    numbers = frame.select(rule.bad.fill_null(value=False).arg_true().head(_SHOWN)).to_series()
    shown = frame[numbers]
    for number, record in zip(numbers.to_list(), shown.iter_rows(named=True), strict=True):
        value = ", ".join(str(record[name]) for name in rule.columns)
        yield FailingRow(
            row=number,
            key={
                name: None if record[name] is None else _clip(str(record[name]))
                for name in contract.key
                if name in record
            },
            value=None if len(rule.columns) == 1 and record[rule.columns[0]] is None else _clip(value),
        )


def _constant(frame: pl.DataFrame, sound: list[ColumnRule]) -> tuple[Violation, ...]:
    """Columns that varied once and now hold one value only."""
    asked = [rule.name for rule in sound if rule.varies and frame.schema[rule.name] != pl.Null]
    if not asked:
        return ()
    found = frame.select(
        ((pl.col(name).drop_nulls().first() == pl.col(name)).all() & (pl.col(name).count() >= _ENOUGH)).alias(
            name
        )
        for name in asked
    ).row(0, named=True)
    return tuple(
        _whole(name, "constant", "warn", frame.height, "values that vary") for name in asked if found[name]
    )


def _clip(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
