"""The split: nothing that was learned after the holdout began is trained on, and nothing is on both sides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from andon.core.errors import Invalid
from andon.data.split import Split, split

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@st.composite
def flights(draw: st.DrawFn) -> pl.DataFrame:
    """Rows in any order, with a first and a last one whose labels come at once; others come late or never."""
    hours = [0, 100, *draw(st.lists(st.integers(0, 100), max_size=40))]
    delays = draw(st.lists(st.none() | st.integers(0, 60), min_size=len(hours), max_size=len(hours)))
    delays[:2] = [0, 0]
    rows = [
        (number, START + hour * HOUR, None, None)
        if delay is None
        else (number, START + hour * HOUR, START + (hour + delay) * HOUR, number % 2)
        for number, (hour, delay) in enumerate(zip(hours, delays, strict=True))
    ]
    schema = {"id": pl.Int64, "at": pl.Datetime("us", "UTC"), "told": pl.Datetime("us", "UTC"), "y": pl.Int64}
    return pl.DataFrame(draw(st.permutations(rows)), schema=schema, orient="row")


HOLDOUTS = st.one_of(st.integers(1, 100).map(lambda hours: hours * HOUR), st.floats(0.01, 0.99))


@given(flights(), HOLDOUTS, st.none() | st.integers(1, 200))
def test_no_row_is_on_both_sides_and_no_label_known_after_the_holdout_began_is_trained_on(
    frame: pl.DataFrame, holdout: timedelta | float, window: int | None
) -> None:
    parts = _try(frame, holdout, window=None if window is None else window * HOUR)
    assume(isinstance(parts, Split))

    train, judged, cut = parts.train, parts.holdout, parts.holdout_from
    assert not set(train["id"]) & set(judged["id"])
    assert train.filter((pl.col("told") > cut) | (pl.col("at") >= cut)).is_empty()
    assert judged.filter((pl.col("at") < cut) | (pl.col("at") >= parts.holdout_until)).is_empty()
    assert train["y"].null_count() == judged["y"].null_count() == 0
    assert train.height + judged.height + parts.unlabelled + parts.late + parts.outside == frame.height
    assert parts.train_from <= train["at"].min()


@given(flights(), HOLDOUTS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing_but_the_order(
    frame: pl.DataFrame, holdout: object, random: object
) -> None:
    order = list(range(frame.height))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random

    assert _ids(frame, holdout) == _ids(frame[order], holdout) == _ids(frame, holdout)


def test_rows_are_sorted_into_their_classes() -> None:
    hours = {
        "old": 0,
        "known": 60,
        "late": 70,
        "never": 80,
        "judged": 95,
        "open": 98,
        "gone": 99,
        "next": 105,
    }
    told = {
        "old": 1,
        "known": 65,
        "late": 94,
        "never": None,
        "judged": 97,
        "open": 101,
        "gone": None,
        "next": 106,
    }
    frame = pl.DataFrame(
        {
            "id": list(hours),
            "at": [START + hour * HOUR for hour in hours.values()],
            "told": [None if hour is None else START + hour * HOUR for hour in told.values()],
            "y": [None if hour is None else 1 for hour in told.values()],
        }
    )

    parts = _split(frame, 10 * HOUR, window=50 * HOUR, until=START + 100 * HOUR)

    assert parts.train["id"].to_list() == ["known"]
    assert parts.holdout["id"].to_list() == ["judged"]
    assert (parts.unlabelled, parts.late, parts.outside) == (3, 1, 2)
    assert (parts.train_from, parts.train_until) == (START + 40 * HOUR, START + 90 * HOUR)
    assert (parts.holdout_from, parts.holdout_until) == (START + 90 * HOUR, START + 100 * HOUR)


def test_a_share_holds_back_the_newest_rows_and_keeps_an_instant_together() -> None:
    frame = pl.DataFrame({"at": [START + hour * HOUR for hour in (0, 1, 2, 3, 3, 3, 3, 4)], "y": [1] * 8})

    parts = split(frame, label="y", holdout=0.25, time="at")

    assert (parts.train.height, parts.holdout.height) == (3, 5)
    assert parts.holdout_until == START + 4 * HOUR + timedelta(microseconds=1)


@given(st.integers(0, 2**32), st.floats(0.1, 0.9))
def test_without_a_time_the_share_is_met_and_follows_the_key_alone(seed: int, share: float) -> None:
    frame = pl.DataFrame({"id": np.arange(4000), "x": np.arange(4000) % 7, "y": [1] * 4000})

    parts = split(frame, label="y", holdout=share, key=["id"], seed=seed)
    again = split(
        frame.with_columns(pl.col("x") + 1).reverse(), label="y", holdout=share, key=["id"], seed=seed
    )

    spread = 5 * (4000 * share * (1 - share)) ** 0.5
    assert abs(parts.holdout.height - 4000 * share) < spread
    assert set(again.holdout["id"]) == set(parts.holdout["id"])


def test_without_a_time_another_seed_is_another_split_and_equal_rows_stay_together() -> None:
    frame = pl.DataFrame({"x": list(range(200)) * 2, "y": [1] * 399 + [None]})

    first, second = (split(frame, label="y", holdout=0.5, seed=seed) for seed in (1, 2))

    assert not set(first.train["x"]) & set(first.holdout["x"]) - {199}
    assert set(first.holdout["x"]) != set(second.holdout["x"])
    assert first.unlabelled == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"holdout": HOUR}, "a holdout of 1:00:00 needs a time column"),
        ({"holdout": 1.0}, "a holdout of 1.0 is no share"),
        ({"holdout": HOUR, "time": "gap"}, "1 rows have no 'gap'"),
        ({"holdout": 500 * HOUR, "time": "at"}, "no row is left to train on: 0 rows have no label"),
        ({"holdout": HOUR, "time": "at", "until": START + 300 * HOUR}, "no row is left to hold back"),
        ({"holdout": 0.5, "label": "none"}, "no row is left to train on: 2 rows have no label"),
    ],
)
def test_a_split_that_cannot_be_made_says_why(arguments: dict[str, object], says: str) -> None:
    frame = pl.DataFrame(
        {"at": [START, START + 5 * HOUR], "gap": [None, START], "y": [0, 1], "none": [None, None]}
    )

    with pytest.raises(Invalid, match=says):
        split(frame, **{"label": "y", **arguments})  # type: ignore[arg-type]  # a table of arguments


def test_an_empty_frame_has_nothing_to_train_on() -> None:
    frame = pl.DataFrame(schema={"at": pl.Datetime("us", "UTC"), "y": pl.Int64})

    with pytest.raises(Invalid, match="no row is left to train on"):
        split(frame, label="y", holdout=HOUR, time="at")


def _split(frame: pl.DataFrame, holdout: object, **other: object) -> Split:
    return split(frame, label="y", holdout=holdout, time="at", label_time="told", **other)  # type: ignore[arg-type]


def _try(frame: pl.DataFrame, holdout: object, **other: object) -> Split | str:
    try:
        return _split(frame, holdout, **other)
    except Invalid as error:
        return str(error)


def _ids(frame: pl.DataFrame, holdout: object) -> object:
    parts = _try(frame, holdout)
    return (
        parts
        if isinstance(parts, str)
        else (set(parts.train["id"]), set(parts.holdout["id"]), parts.holdout_from)
    )
