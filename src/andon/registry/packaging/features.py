"""One definition of features: the expressions that made the training matrix compute a request's vector.

A `FeatureFunction` is a list of row-local polars expressions over a signature's raw columns, compiled once. It gives a
float64 matrix for a frame and a list for a single record, and both hold the very same bits. Nulls become NaN.

polars divides a column by a number as a product with the reciprocal, but a column of one row, or one it knows to be
constant, as a true quotient, which may differ in the last bit. So a single row is computed as a frame of two, and
constant columns as plain ones: every row takes the road that training took.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from andon.core.errors import Invalid
from andon.core.signature import Field, Kind, Signature
from andon.registry.packaging.expressions import columns_read
from andon.registry.packaging.lightgbm import Output

Floats = npt.NDArray[np.float64]
Record = Mapping[str, Any]

DTYPES: Mapping[Kind, pl.DataType] = {
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "string": pl.String(),
    "boolean": pl.Boolean(),
}
"""The column type in which a raw field reaches the expressions, in training as in serving."""


class FeatureFunction:
    """Compiled expressions. Safe to share between threads: it holds no state.

    Args:
        signature: its inputs are the columns that expressions may read, its features the names they must give, in order.
        expressions: row-local expressions (see `expressions.encode_expression`).

    Raises:
        Invalid: an expression reads a column that is no input, or the outputs are not the signature's features.

    >>> signature = Signature(inputs=(Field(name="a", kind="integer"),), features=("half",))
    >>> half = FeatureFunction(signature, [(pl.col("a") / 2).alias("half")])
    >>> half.row({"a": 3}), half.frame(pl.DataFrame({"a": [1, None]})).tolist()
    ([1.5], [[0.5], [nan]])
    """

    def __init__(self, signature: Signature, expressions: Iterable[pl.Expr]) -> None:
        self.signature = signature
        self.schema = pl.Schema({field.name: DTYPES[field.kind] for field in signature.inputs})
        if not signature.inputs:
            raise Invalid("the feature expressions read no column", hint="a model needs at least one input")
        plain = list(expressions)
        names, dtypes = _outputs(plain, self.schema)
        if names != signature.features:
            raise Invalid(
                f"the expressions give the features {_listed(names)}, the signature says {_listed(signature.features)}",
                hint="name each expression with .alias(...)",
            )
        for name, dtype in zip(names, dtypes, strict=True):
            if not (dtype.is_numeric() or dtype == pl.Boolean):
                raise Invalid(
                    f"the feature {name!r} is a {dtype}, and a model takes numbers",
                    hint="map categories to numbers, e.g. with replace_strict(..., return_dtype=pl.Float64)",
                    field=name,
                )
        self._expressions = [expression.cast(pl.Float64) for expression in plain]
        self._width = len(names)

    def frame(self, rows: pl.DataFrame) -> Floats:
        """The features (n, k) of raw rows, C-contiguous; columns that are no input are ignored.

        Raises:
            Invalid: an input is missing or of another type, or a value cannot be turned into a feature.
        """
        if not len(rows):
            return np.empty((0, self._width), dtype=np.float64)
        if len(rows) == 1:
            return self.frame(rows[[0, 0]])[:1]
        raw = conform(rows, self.signature)
        try:
            made = raw.select(self._expressions)
        except pl.exceptions.PolarsError as error:
            raise _unusable("these rows", error) from None
        if len(made) != len(raw):
            raise Invalid(f"the expressions gave {len(made)} rows of features for {len(raw)} rows")
        return np.ascontiguousarray(made.to_numpy(order="c"), dtype=np.float64)

    def row(self, record: Record) -> list[float]:
        """The features of one record whose fields have been checked against the signature; others are ignored.

        Raises:
            Invalid: a value cannot be turned into a feature.
        """
        try:
            made = (
                pl.DataFrame([record, record], schema=self.schema, orient="row")
                .select(self._expressions)
                .row(0)
            )
        except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
            raise _unusable("this record", error) from None
        return [np.nan if value is None else value for value in made]


def conform(rows: pl.DataFrame, signature: Signature) -> pl.DataFrame:
    """A signature's inputs, in its order and its types, out of a frame that may hold more.

    Only widenings that change no value are made: an integer column of any width is an `integer` or a `number`, a float a
    `number`, a category a `string`.

    Raises:
        Invalid: a column is missing, or of a type that would change values.

    >>> conform(
    ...     pl.DataFrame({"a": [1], "b": [2]}),
    ...     Signature(inputs=(Field(name="b", kind="number"),), features=()),
    ... ).row(0)
    (2.0,)
    """
    return pl.DataFrame([_conformed(rows, field) for field in signature.inputs])


def infer_signature(
    rows: pl.DataFrame, expressions: Sequence[pl.Expr], *, output: Output = "probability"
) -> Signature:
    """The signature of expressions over rows: the raw columns they read, in the frame's order, and the features they give.

    A field may be null in a request when its column is null somewhere in the rows; a string may be four times as long as
    the longest in the rows, and 256 characters at least.

    Args:
        rows: raw training rows.
        expressions: feature expressions.
        output: what the model's number is.

    Raises:
        Invalid: an expression reads a column that is not there, or one that a JSON request cannot carry.

    >>> infer_signature(pl.DataFrame({"a": [1, None], "b": ["x", "y"]}), [pl.col("a") * 2]).inputs
    (Field(name='a', kind='integer', nullable=True, max_length=256),)
    """
    read = {name for expression in expressions for name in columns_read(expression)}
    for name in sorted(read - set(rows.columns)):
        raise _not_an_input(name, rows.columns)
    inputs = tuple(_field(rows[name]) for name in rows.columns if name in read)
    names, _ = _outputs(expressions, rows.schema)
    return Signature(inputs=inputs, features=names, output=output)


def differing(one: Floats, other: Floats) -> tuple[int, int] | None:
    """Row and column of the first pair of values whose bits differ; every NaN equals every other. None when equal.

    >>> differing(np.array([[1.0, np.nan]]), np.array([[1.0, np.nan]]))
    >>> differing(np.array([[0.0]]), np.array([[-0.0]]))
    (0, 0)
    """
    same = (one.view(np.int64) == other.view(np.int64)) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return None
    row, column = np.argwhere(~same)[0]
    return int(row), int(column)


def prove_row_local(function: FeatureFunction, rows: pl.DataFrame) -> Floats:
    """Show on real rows that a row's features do not depend on its neighbours; the features come back.

    Computed as a batch, in reverse, and one by one as requests come: all three must hold the same bits.

    Raises:
        Invalid: they do not; the message names the feature and the row.
    """
    batch = function.frame(rows)
    reverse = np.ascontiguousarray(function.frame(rows.reverse())[::-1])
    single = np.array(
        [function.row(record) for record in conform(rows, function.signature).iter_rows(named=True)]
    )
    for how, other in (("in reverse order", reverse), ("as a single request", single.reshape(batch.shape))):
        if found := differing(batch, other):
            row, column = found
            name = function.signature.features[column]
            raise Invalid(
                f"the feature {name!r} of row {row} is {batch[row, column]!r} in a batch and {other[row, column]!r} {how}",
                hint="a feature may look at its own row alone",
                field=name,
            )
    return batch


def _outputs(
    expressions: Sequence[pl.Expr], schema: Mapping[str, pl.DataType]
) -> tuple[tuple[str, ...], list[pl.DataType]]:
    """Names and types of what expressions give over a schema, without computing anything."""
    if not expressions:
        raise Invalid("there are no feature expressions", hint="the entry returns (expressions, booster)")
    for expression in expressions:
        for name in sorted(columns_read(expression)):
            if name not in schema:
                raise _not_an_input(name, schema)
    try:
        made = pl.LazyFrame(schema=schema).select(expressions).collect_schema()
    except pl.exceptions.DuplicateError:
        raise Invalid(
            "two feature expressions have the same name", hint="name each with .alias(...)"
        ) from None
    except pl.exceptions.PolarsError as error:
        raise _unusable("columns of these types", error) from None
    return tuple(made.names()), made.dtypes()


def _conformed(rows: pl.DataFrame, field: Field) -> pl.Series:
    found = rows.schema.get(field.name)
    if found is None:
        raise Invalid(
            f"the column {field.name!r} is missing",
            hint="the model's signature asks for it",
            field=field.name,
        )
    if found != pl.Null and field.kind not in _kinds(found):
        raise Invalid(
            f"the column {field.name!r} is a {found}, the signature says {field.kind}", field=field.name
        )
    return rows.get_column(field.name).cast(DTYPES[field.kind])


def _field(column: pl.Series) -> Field:
    kinds = _kinds(column.dtype)
    if not kinds:
        raise Invalid(
            f"the column {column.name!r} is a {column.dtype}, which a JSON request cannot carry",
            hint="let the source give it as a number or a string, and parse it in the expression",
            field=column.name,
        )
    longest = column.cast(pl.String).str.len_chars().max() if kinds[0] == "string" else 0
    length = max(256, 4 * longest) if isinstance(longest, int) else 256
    return Field(name=column.name, kind=kinds[0], nullable=column.null_count() > 0, max_length=length)


def _kinds(dtype: pl.DataType) -> tuple[Kind, ...]:
    """The kinds a column may stand for without a change of value, the natural one first."""
    if dtype.is_integer() and dtype not in (pl.UInt64, pl.Int128):
        return ("integer", "number")
    if dtype.is_float():
        return ("number",)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return ("string",)
    return ("boolean",) if dtype == pl.Boolean else ()


def _not_an_input(name: str, known: Iterable[str]) -> Invalid:
    return Invalid(
        f"a feature expression reads the column {name!r}, which is no input",
        hint=f"inputs are {_listed(known)}",
        field=name,
    )


def _unusable(what: str, error: Exception) -> Invalid:
    reason = str(error).strip().split("\n", 1)[0]
    return Invalid(f"the features of {what} cannot be computed: {reason}")


def _listed(names: Iterable[str]) -> str:
    words = list(names)
    return ", ".join(words[:20]) + (f" and {len(words) - 20} more" if len(words) > 20 else "")
