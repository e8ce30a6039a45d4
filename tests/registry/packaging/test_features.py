"""Features of a frame and of a single request hold the same bits; what cannot be served so is refused with its name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import Invalid
from andon.core.signature import Field, Signature
from andon.registry.packaging.features import (
    FeatureFunction,
    conform,
    differing,
    infer_signature,
    prove_row_local,
)
from tests.registry.packaging.models import expressions, flights

ROWS = flights(200)


def function(*made: pl.Expr, rows: pl.DataFrame = ROWS) -> FeatureFunction:
    return FeatureFunction(infer_signature(rows, made), made)


@pytest.mark.capability("B2")
def test_a_request_has_the_features_of_its_row_in_the_training_matrix_bit_for_bit() -> None:
    made = function(*expressions())

    trained = ROWS.select(expression.cast(pl.Float64) for expression in expressions()).to_numpy()
    served = np.array([made.row(record) for record in ROWS.drop("late").iter_rows(named=True)])

    assert differing(np.ascontiguousarray(trained), served) is None
    assert differing(made.frame(ROWS), served) is None
    assert np.isnan(served).any()


records = st.fixed_dictionaries(
    {
        "distance": st.integers(-(2**40), 2**40),
        "wind": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "carrier": st.sampled_from(["AA", "B6", "UA", "ZZ", "", "é\x00"]),
        "heavy": st.booleans(),
    }
)


@given(st.lists(records, min_size=1, max_size=12))
def test_any_batch_gives_what_single_requests_give(batch: list[dict[str, Any]]) -> None:
    made = function(*expressions())
    frame = pl.DataFrame(batch, schema=made.schema, orient="row")

    assert differing(prove_row_local(made, frame), np.array([made.row(record) for record in batch])) is None


def test_a_matrix_is_contiguous_float64_and_nulls_are_nan() -> None:
    matrix = function(pl.col("wind"), pl.col("heavy"), pl.col("distance")).frame(ROWS)

    assert matrix.dtype == np.float64
    assert matrix.flags.c_contiguous
    assert np.isnan(matrix[:, 0]).sum() == ROWS["wind"].null_count()
    assert function(pl.col("wind")).frame(ROWS.clear()).shape == (0, 1)


def test_constant_columns_and_single_rows_take_the_road_of_training() -> None:
    rows = pl.DataFrame({"minutes": [59] * 300})
    made = function((pl.col("minutes") / 1000).alias("x"), rows=rows)
    trained = rows.select(pl.col("minutes") / 1000)["minutes"][0]
    ways = [
        rows,
        rows.head(1),
        rows.head(2),
        pl.concat([pl.DataFrame({"minutes": [59]})] * 5),
        pl.DataFrame({"other": range(9)}).with_columns(minutes=pl.lit(59, dtype=pl.Int64)),
    ]

    assert {float(value) for way in ways for value in made.frame(way)[:, 0]} == {trained}
    assert made.row({"minutes": 59}) == [trained]
    assert trained != 59 / 1000, "polars divides as Python does now: the detour of a second row can go"


def test_other_columns_and_narrower_types_change_nothing() -> None:
    made = function(*expressions())
    narrow = ROWS.with_columns(
        pl.col("distance").cast(pl.Int16), pl.col("carrier").cast(pl.Categorical), extra=pl.lit("x")
    )

    assert differing(made.frame(narrow.select(reversed(narrow.columns))), made.frame(ROWS)) is None


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (ROWS.drop("wind"), "'wind' is missing"),
        (
            ROWS.with_columns(distance=pl.col("distance").cast(pl.Float64)),
            "'distance' is a Float64, .* says integer",
        ),
        (ROWS.with_columns(carrier=pl.lit(3)), "'carrier' is a Int32, .* says string"),
        (ROWS.with_columns(heavy=pl.lit(1)), "'heavy' is a Int32, .* says boolean"),
    ],
)
def test_a_frame_that_does_not_fit_the_signature_is_refused(frame: pl.DataFrame, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        function(*expressions()).frame(frame)


def test_a_value_without_a_feature_is_refused_with_the_reason() -> None:
    made = function(pl.col("carrier").replace_strict({"AA": 1, "B6": 2, "UA": 3, "WN": 4}))

    with pytest.raises(Invalid, match="replace_strict"):
        made.row({"carrier": "ZZ"})


@pytest.mark.parametrize(
    ("made", "name", "said"),
    [
        ([], "wind", "no feature expressions"),
        ([pl.col("nowhere")], "wind", "'nowhere', which is no input; inputs are distance, wind"),
        ([pl.col("wind"), pl.col("wind")], "wind", "same name"),
        ([pl.col("carrier")], "carrier", "'carrier' is a String, and a model takes numbers"),
        ([pl.col("carrier").str.to_datetime("%Y")], "carrier", "is a Datetime"),
        ([pl.col("wind") + pl.col("carrier")], "wind", "cannot be computed"),
        ([pl.col("wind").alias("other")], "wind", "give the features other, the signature says wind"),
    ],
)
def test_expressions_that_do_not_give_the_signatures_features_are_refused(
    made: list[pl.Expr], name: str, said: str
) -> None:
    signature = infer_signature(
        ROWS, [pl.col(name).is_null() for name in ("distance", "wind", "carrier", "heavy")]
    )
    signature = Signature(inputs=signature.inputs, features=(name,))

    with pytest.raises(Invalid, match=said):
        FeatureFunction(signature, made)


@pytest.mark.parametrize(
    "sneaky",
    [
        pl.col("wind") - pl.col("wind").mean(),
        pl.col("wind").shift(1),
        pl.col("wind").rank(),
        pl.col("distance").cum_sum(),
        pl.col("wind").fill_null(strategy="forward"),
        pl.col("distance") + pl.lit(pl.Series(range(len(ROWS)))),
        pl.col("distance") / pl.len(),
        pl.col("carrier").rank("dense"),
    ],
)
def test_real_rows_show_what_is_not_row_local(sneaky: pl.Expr) -> None:
    with pytest.raises(Invalid, match=r"a batch and|cannot be computed|rows of features"):
        prove_row_local(function(sneaky.alias("x")), ROWS)


def test_a_constant_alone_is_no_feature_of_a_row() -> None:
    with pytest.raises(Invalid, match="read no column"):
        function(pl.lit(1.0).alias("one"))

    assert function(pl.lit(1.0).alias("one"), pl.col("wind")).frame(ROWS)[:, 0].tolist() == [1.0] * 200


def test_the_signature_is_read_off_rows_and_expressions() -> None:
    rows = ROWS.with_columns(
        note=pl.lit("x" * 100), small=pl.lit(1, dtype=pl.Int8), real=pl.lit(1, dtype=pl.Float32)
    )

    signature = infer_signature(
        rows,
        [*expressions(), pl.col("note").str.len_chars(), pl.col("small", "real")],
        output="value",
    )

    assert signature == Signature(
        inputs=(
            Field(name="distance", kind="integer"),
            Field(name="wind", kind="number", nullable=True),
            Field(name="carrier", kind="string"),
            Field(name="heavy", kind="boolean"),
            Field(name="note", kind="string", max_length=400),
            Field(name="small", kind="integer"),
            Field(name="real", kind="number"),
        ),
        features=(
            *("thousand_miles", "wind", "wind_z", "wind_unknown", "carrier", "heavy_distance"),
            *("note", "small", "real"),
        ),
        output="value",
    )  # fmt: skip


def test_a_column_that_a_request_cannot_carry_is_refused() -> None:
    rows = ROWS.with_columns(day=pl.lit("2013-01-01").str.to_date())

    with pytest.raises(Invalid, match="'day' is a Date, which a JSON request cannot carry"):
        infer_signature(rows, [pl.col("day").dt.month()])
    with pytest.raises(Invalid, match="'nowhere'"):
        infer_signature(rows, [pl.col("nowhere")])


def test_conform_takes_columns_of_nothing_but_nulls() -> None:
    signature = Signature(inputs=(Field(name="a", kind="string", nullable=True),), features=())

    assert conform(pl.DataFrame({"a": [None, None]}), signature).schema == {"a": pl.String}


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ([[1.0, math.nan]], [[1.0, math.nan]], None),
        ([[1.0, 2.0]], [[1.0, math.nextafter(2.0, 3.0)]], (0, 1)),
        ([[0.0], [0.0]], [[0.0], [-0.0]], (1, 0)),
        ([[math.nan]], [[0.0]], (0, 0)),
    ],
)
def test_differing_finds_the_first_bit(
    one: list[Any], other: list[Any], found: tuple[int, int] | None
) -> None:
    assert differing(np.array(one), np.array(other)) == found


def test_an_operation_that_only_fails_on_values_is_refused_with_the_reason() -> None:
    made = function(pl.col("carrier").dt.hour())

    with pytest.raises(Invalid, match=r"these rows cannot be computed: .*hour"):
        prove_row_local(made, ROWS)
    with pytest.raises(Invalid, match=r"this record cannot be computed: .*hour"):
        made.row({"carrier": "AA"})
