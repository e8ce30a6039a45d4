"""Feature expressions as bytes and back, and the rule of what an expression may do.

A polars expression is kept as the MessagePack that polars itself writes: exact to the last bit of every number (its JSON
form is not: reading a float back may lose the last bit). The tree is checked against an allow-list *before* polars reads
it, so a package can carry no Python function, no plugin library and nothing that would be unpickled, and an operation
that looks at other rows (sums, windows, shifts, sorts) is refused by name.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from andon.core.errors import Corrupt, Invalid

ELEMENTWISE = {
    *(
        "Abs",
        "Negate",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
        "RoundSF",
        "Truncate",
        "Clip",
        "Exp",
        "Log",
        "Log1p",
        "Pow",
    ),
    *("Trigonometry", "Atan2", "FillNull", "Coalesce", "Replace", "ReplaceStrict", "ToPhysical"),
    *("MaxHorizontal", "MinHorizontal", "SumHorizontal", "MeanHorizontal"),
    *("Boolean", "StringExpr", "TemporalExpr", "ListExpr"),
}
"""Functions whose value in a row depends on that row alone; the last four are families, narrowed by `FAMILIES`."""

FAMILIES = {
    "Boolean": {
        *(
            "IsNull",
            "IsNotNull",
            "IsNan",
            "IsNotNan",
            "IsFinite",
            "IsInfinite",
            "IsBetween",
            "IsIn",
            "IsClose",
        ),
        *("AllHorizontal", "AnyHorizontal", "Not"),
    },
    "StringExpr": {
        *(
            "LenChars",
            "LenBytes",
            "Uppercase",
            "Lowercase",
            "Titlecase",
            "Reverse",
            "Slice",
            "Head",
            "Tail",
            "Split",
        ),
        *(
            "StripChars",
            "StripCharsStart",
            "StripCharsEnd",
            "StripPrefix",
            "StripSuffix",
            "ZFill",
            "PadStart",
            "PadEnd",
        ),
        *("Contains", "ContainsAny", "StartsWith", "EndsWith", "Find", "CountMatches", "Replace", "Extract"),
        *("ConcatHorizontal", "ToInteger", "Strptime"),
    },
    "TemporalExpr": {
        *(
            "Year",
            "IsoYear",
            "IsLeapYear",
            "Quarter",
            "Month",
            "MonthStart",
            "MonthEnd",
            "Week",
            "WeekDay",
            "Day",
        ),
        *(
            "OrdinalDay",
            "Date",
            "Time",
            "Hour",
            "Minute",
            "Second",
            "Millisecond",
            "Microsecond",
            "Nanosecond",
        ),
        *("TimeStamp", "Truncate", "DatetimeFunction", "Duration", "TotalDays", "TotalHours", "TotalMinutes"),
        *("TotalSeconds", "TotalMilliseconds"),
    },
    "ListExpr": {"Get", "Length", "Contains"},
}

_DEPTH = 300
_MARKS = (b"PLPYUDF", b"POLARS_EXTENSION_TYPE")
_UNSTABLE = ("Categorical", "Object", "Unknown")
_BINARY = {"left", "op", "right"}
_TERNARY = {"predicate", "truthy", "falsy"}


def encode_expression(expression: pl.Expr) -> bytes:
    """The bytes of an expression that may be packaged.

    Raises:
        Invalid: it looks at other rows, runs Python, or cannot be kept.

    >>> decode_expression(encode_expression(pl.col("a") + 0.1)).meta.eq(pl.col("a") + 0.1)
    True
    >>> encode_expression(pl.col("a") - pl.col("a").mean())
    Traceback (most recent call last):
    andon.core.errors.Invalid: the expression [(col("a")) - (col("a").mean())] uses Agg, which is not known to look at
    its own row alone; ...
    """
    try:
        data = expression.meta.serialize()
        _check(data)
        same = decode_expression(data).meta.eq(expression)
    except (pl.exceptions.PolarsError, RecursionError) as error:
        raise _not_kept(expression, error) from None
    except _Refused as refused:
        raise Invalid(f"the expression {_short(expression)} {refused}", hint=refused.hint) from None
    if not same:
        raise Invalid(f"the expression {_short(expression)} does not come back as it was written")
    return data


def decode_expression(data: bytes) -> pl.Expr:
    """The expression of bytes, after the check that it is one that may be packaged.

    Raises:
        Corrupt: the bytes are no such expression, or the installed polars reads another language.
    """
    try:
        _check(data)
        return pl.Expr.deserialize(io.BytesIO(data))
    except _Refused as refused:
        raise Corrupt(f"a packaged feature expression {refused}") from None
    except (pl.exceptions.PolarsError, RecursionError) as error:
        raise Corrupt(f"polars {pl.__version__} cannot read a packaged feature expression: {error}") from None


def columns_read(expression: pl.Expr) -> set[str]:
    """Names of the columns an expression reads.

    Raises:
        Invalid: it holds a Python function.

    >>> sorted(columns_read(pl.col("a", "b") * pl.col("c")))
    ['a', 'b', 'c']
    """
    try:
        waiting: list[Any] = [msgspec.msgpack.decode(expression.meta.serialize())]
    except (pl.exceptions.PolarsError, msgspec.DecodeError, RecursionError) as error:
        raise _not_kept(expression, error) from None
    names: set[str] = set()
    while waiting:
        match waiting.pop():
            case {"Column": str(name)}:
                names.add(name)
            case {"ByName": {"names": [*found]}}:
                names.update(found)
            case {**items}:
                waiting.extend(items.values())
            case [*items]:
                waiting.extend(items)
    return names


class _Refused(Exception):
    """Why a tree is not accepted, as the end of a sentence about it."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint


def _check(data: bytes) -> None:
    """Walk the tree of an expression without building it."""
    try:
        tree = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Refused(
            "is not a tree that can be read, or is nested too deeply", "use replace_strict for long maps"
        ) from None
    waiting: list[tuple[Any, int]] = [(tree, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _DEPTH:
            raise _Refused(f"is nested more than {_DEPTH} deep", "use replace_strict for long maps")
        waiting.extend((child, depth + 1) for child in _children(item))


def _children(item: Any) -> Iterator[Any]:
    """The expressions inside an expression; raises for one that is not on the list."""
    if not isinstance(item, dict) or len(item) != 1:
        raise _unknown(item if isinstance(item, str) else "something unreadable")
    ((kind, body),) = item.items()
    match kind, body:
        case "Column", str():
            return
        case "Selector", {"ByName": {"names": list(), **rest}} if set(rest) <= {"strict"}:
            return
        case "Literal", _:
            _check_literal(body)
        case ("Alias", [inner, str()]) | ("KeepName", inner):
            yield inner
        case "RenameAlias", {"expr": inner, "function": {**how}} if set(how) <= {"Prefix", "Suffix"}:
            yield inner
        case "BinaryExpr", {"left": left, "op": str(), "right": right} if set(body) == _BINARY:
            yield from (left, right)
        case "Ternary", {"predicate": test, "truthy": yes, "falsy": no} if set(body) == _TERNARY:
            yield from (test, yes, no)
        case "Cast", {"expr": inner, "dtype": dtype, "options": str()} if len(body) == 3:
            _check_dtype(dtype)
            yield inner
        case "Function", {"input": [*inputs], "function": function} if len(body) == 2:
            _check_function(function)
            yield from inputs
        case _:
            raise _unknown(str(kind))


def _check_function(function: Any) -> None:
    """A function is a word, or a word with its settings, such as {"Clip": {...}} or {"Boolean": "IsNull"}."""
    name, settings = _word(function)
    if name not in ELEMENTWISE:
        raise _unknown(name)
    if name in FAMILIES:
        member, settings = _word(settings)
        if member not in FAMILIES[name]:
            raise _unknown(member)
        if member == "Strptime":
            _check_strptime(settings)
    if name == "ReplaceStrict" and isinstance(settings, dict):
        _check_dtype(settings.get("return_dtype"))
    _check_plain(settings)


def _check_strptime(settings: Any) -> None:
    """A time format that is guessed is guessed from the first row of a batch."""
    match settings:
        case [_, {"format": str()}]:
            return
    raise _Refused(
        "guesses the format of times from the first row", "give the format, e.g. str.to_datetime('%Y-%m-%d')"
    )


def _check_literal(body: Any) -> None:
    name, value = _word(body)
    if name not in ("Dyn", "Scalar", "Series"):
        raise _unknown(f"the literal {name}")
    _check_plain(value)


def _check_dtype(dtype: Any) -> None:
    for name in _UNSTABLE:
        if name in _words(dtype):
            raise _Refused(
                f"casts to {name}, whose codes depend on other rows",
                "cast to pl.Enum([...]) with the categories",
            )
    _check_plain(dtype)


def _check_plain(value: Any) -> None:
    """Settings and literals hold plain values; packed columns in them no Python objects."""
    if isinstance(value, dict):
        for inner in value.values():
            _check_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner)
    elif isinstance(value, bytes):
        if any(mark in value for mark in _MARKS):
            raise _Refused("holds a Python object", "keep numbers, strings and lists of them in expressions")
    elif not (value is None or isinstance(value, str | int | float)):
        raise _unknown(f"a {type(value).__name__}")


def _words(dtype: Any) -> Iterator[str]:
    """The names in a type; categories of an Enum are packed bytes and none of them."""
    if isinstance(dtype, str):
        yield dtype
    elif isinstance(dtype, dict):
        for name, inner in dtype.items():
            yield name
            yield from _words(inner)
    elif isinstance(dtype, list):
        for inner in dtype:
            yield from _words(inner)


def _word(value: Any) -> tuple[str, Any]:
    match value:
        case str():
            return value, None
        case {**items} if len(items) == 1:
            ((name, inner),) = items.items()
            return str(name), inner
    raise _unknown("something unreadable")


def _unknown(name: str) -> _Refused:
    return _Refused(
        f"uses {name}, which is not known to look at its own row alone",
        "features are computed for one request at a time: keep aggregates, windows and Python functions out, and put"
        " what was learned from the training rows in as numbers",
    )


def _not_kept(expression: pl.Expr, error: Exception) -> Invalid:
    return Invalid(
        f"the expression {_short(expression)} cannot be kept: {error}",
        hint="write it with polars operations only",
    )


def _short(expression: pl.Expr) -> str:
    text = str(expression)
    return text if len(text) <= 200 else text[:200] + "..."
