"""Expressions come back exactly as written; what is not row-local, or not data, is refused by name before it is built."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import Corrupt, Invalid
from andon.registry.packaging.expressions import decode_expression, encode_expression

a, b, s = pl.col("a"), pl.col("b"), pl.col("s")

ACCEPTED = {
    "column": a,
    "columns": pl.col("a", "b") * 2,
    "arithmetic": ((a - 3.25) / b % 7 // 2 + 1).alias("x"),
    "cast": s.cast(pl.Float64, strict=False),
    "categories": s.cast(pl.Enum(["Object", "Categorical", "c"]), strict=False).to_physical(),
    "map": s.replace_strict({"u": 1, "v": 2}, default=None, return_dtype=pl.Float64),
    "replace": a.replace({1: 2}),
    "branch": pl.when(a > 1).then(b).when(a < 0).then(None).otherwise(0.5),
    "fill": a.fill_null(0.0).fill_nan(None),
    "coalesce": pl.coalesce("a", "b"),
    "maths": a.abs().log().exp().sqrt().pow(0.3).clip(0, 9).round(2)
    + a.log1p()
    + a.sin()
    + pl.arctan2("a", "b"),
    "tests": a.is_between(0, 1) & s.is_in(["u", "v"]) | b.is_null() | a.is_nan() | ~(a == b),
    "across columns": pl.max_horizontal("a", "b")
    + pl.sum_horizontal("a", "b")
    + pl.mean_horizontal("a", "b"),
    "strings": s.str.to_lowercase().str.strip_chars().str.slice(0, 2).str.len_chars()
    + s.str.count_matches("u"),
    "parts": s.str.split("-").list.get(0).str.to_integer(strict=False),
    "joined": pl.concat_str("s", "s", separator="-").str.contains("u"),
    "time": s.str.to_datetime("%Y-%m-%d %H:%M", strict=False).dt.hour(),
    "date": pl.date(2013, "m", "d").dt.weekday(),
    "suffix": a.name.suffix("_raw"),
    "not a number": pl.when(a > 0).then(math.nan).otherwise(math.inf),
}

REFUSED = {
    "sum": (a.sum(), "uses Agg"),
    "mean inside": (a - a.mean(), "uses Agg"),
    "standard score": ((a - a.mean()) / a.std(), "uses Agg"),
    "first": (a.first(), "uses Agg"),
    "window": (a.mean().over("s"), "uses Over"),
    "rank over": (a.rank().over("s"), "uses Over"),
    "shift": (a.shift(1), "uses Shift"),
    "difference": (a.diff(), "uses Diff"),
    "sort": (a.sort(), "uses Sort"),
    "rank": (a.rank(), "uses Rank"),
    "cumulative": (a.cum_sum(), "uses CumSum"),
    "rolling": (a.rolling_mean(3), "uses RollingExpr"),
    "fill forward": (a.forward_fill(), "uses FillNullWithStrategy"),
    "fill with mean": (a.fill_null(strategy="mean"), "uses FillNullWithStrategy"),
    "fill with own mean": (a.fill_null(a.mean()), "uses Agg"),
    "interpolate": (a.interpolate(), "uses Interpolate"),
    "quantile": (a.quantile(0.5), "uses Quantile"),
    "reverse": (a.reverse(), "uses Reverse,"),
    "number of rows": (a / pl.len(), "uses Len"),
    "row number": (pl.int_range(pl.len()), "uses "),
    "filter": (a.filter(a > 0), "uses Filter"),
    "unique": (a.unique(), "uses Unique"),
    "duplicated": (a.is_duplicated(), "uses IsDuplicated"),
    "any": ((a > 0).any(), "uses Any"),
    "sample": (a.shuffle(seed=1), "uses Random"),
    "hash": (s.hash(), "uses Hash"),
    "list sum": (pl.col("l").list.sum(), "uses Sum"),
    "list eval": (pl.col("l").list.eval(pl.element() * 2), "uses Eval"),
    "all columns": (pl.all() * 2, "uses Selector"),
    "columns by pattern": (pl.col("^a.*$"), "uses Selector"),
    "categorical codes": (s.cast(pl.Categorical).to_physical(), "casts to Categorical"),
    "guessed time format": (s.str.to_datetime(), "guesses the format"),
    "guessed date format": (s.str.strptime(pl.Date), "guesses the format"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_row_local_expression_comes_back_as_it_was(name: str) -> None:
    expression = ACCEPTED[name]

    data = encode_expression(expression)

    assert decode_expression(data).meta.eq(expression)
    assert encode_expression(decode_expression(data)) == data


@given(st.floats(width=64))
def test_a_learned_number_keeps_every_bit(value: float) -> None:
    back = decode_expression(encode_expression(pl.lit(value)))

    (found,) = pl.select(back.alias("x"))["x"].to_list()
    assert math.copysign(1, found) == math.copysign(1, value)
    assert found == value or (math.isnan(found) and math.isnan(value))


@pytest.mark.parametrize("name", REFUSED)
def test_an_expression_that_sees_other_rows_is_refused(name: str) -> None:
    expression, said = REFUSED[name]

    with pytest.raises(Invalid, match=said) as caught:
        encode_expression(expression.alias("x"))

    assert caught.value.hint


@pytest.mark.parametrize(
    "make",
    [
        lambda: a.map_batches(lambda series: series * 2, return_dtype=pl.Float64),
        lambda: a.map_elements(lambda value: float(str(value)), return_dtype=pl.Float64),
        lambda: pl.struct("a", "b").map_batches(lambda series: series, return_dtype=pl.Float64),
    ],
)
def test_a_python_function_is_refused(make: Callable[[], pl.Expr]) -> None:
    with pytest.raises(Invalid, match=r"python_udf|python_map"):
        encode_expression(make())


PICKLE = b"PLPYUDF" + b"\x80\x05."
COLUMN = {"Column": "a"}
FORGED = {
    "a Python function": {"AnonymousFunction": {"input": [COLUMN], "function": PICKLE}},
    "a Python function among functions": {"Function": {"input": [COLUMN], "function": {"Python": PICKLE}}},
    "a pickle as a literal": {"Literal": {"Scalar": {"List": PICKLE}}},
    "a pickle inside an option": {"Function": {"input": [COLUMN], "function": {"Clip": {"has_min": PICKLE}}}},
    "a pickle as a type": {
        "Cast": {"expr": COLUMN, "dtype": {"Literal": {"Enum": PICKLE}}, "options": "Strict"}
    },
    "an object column": {"Literal": {"Series": b"\xff\xff\xff\xffPOLARS_EXTENSION_TYPE"}},
    "a plugin library": {
        "Function": {"input": [COLUMN], "function": {"FfiPlugin": {"lib": "evil.so", "symbol": "f"}}}
    },
    "a renaming function": {"RenameAlias": {"expr": COLUMN, "function": {"Map": PICKLE}}},
    "a subquery": {"SubPlan": [{"Scan": {}}, ["a"]]},
    "two kinds at once": {"Column": "a", "AnonymousFunction": {}},
    "an unknown kind": {"Whatever": COLUMN},
    "a hidden part": {
        "BinaryExpr": {"left": COLUMN, "op": "Plus", "right": COLUMN, "more": {"AnonymousFunction": {}}}
    },
    "a number": 3,
    "an extension": msgspec.msgpack.Ext(3, b"x"),
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_forged_tree_is_refused_before_polars_sees_it(
    name: str, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {"Alias": [FORGED[name], "x"]} if wrapped else FORGED[name]
    seen: list[object] = []
    monkeypatch.setattr(pl.Expr, "deserialize", lambda source: seen.append(source))

    with pytest.raises(Corrupt, match="packaged feature expression"):
        decode_expression(msgspec.msgpack.encode(tree))

    assert seen == []


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81", b"{}", b"\xff" * 40])
def test_bytes_that_are_no_tree_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_expression(data)


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=10_000))
def test_damaged_bytes_never_do_more_than_raise(noise: bytes, at: int) -> None:
    whole = bytearray(encode_expression(ACCEPTED["branch"]))
    place = at % len(whole)
    whole[place : place + len(noise)] = noise

    try:
        back = decode_expression(bytes(whole))
    except Corrupt:
        return

    assert encode_expression(back)


@pytest.mark.parametrize("depth", [350, 1200, 6000])
def test_a_tree_too_deep_is_refused(depth: int) -> None:
    expression = pl.lit(0.0)
    for index in range(depth):
        expression = pl.when(a == index).then(float(index)).otherwise(expression)

    with pytest.raises(Invalid, match=r"nested|deep"):
        encode_expression(expression)


def test_a_map_of_a_thousand_categories_is_no_problem() -> None:
    expression = s.replace_strict(
        {f"c{i}": i / 7 for i in range(1000)}, default=None, return_dtype=pl.Float64
    )

    assert decode_expression(encode_expression(expression)).meta.eq(expression)


def test_the_same_expression_has_the_same_bytes_in_another_process() -> None:
    program = (
        "import polars as pl, sys\n"
        "from andon.registry.packaging.expressions import encode_expression\n"
        "e = pl.col('s').replace_strict({'u': 1.1, 'v': 2.7}, default=None, return_dtype=pl.Float64) + pl.lit(0.1)\n"
        "sys.stdout.write(encode_expression(e).hex())\n"
    )

    texts = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }

    assert len(texts) == 1
    assert texts != {""}
