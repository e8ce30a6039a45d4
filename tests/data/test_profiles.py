"""Reference profiles: the same cells as `andon.stats`, windows by domain time, distances that see shifts and nulls."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import Corrupt, Invalid
from andon.data.profiles import (
    TableProfile,
    build_profile,
    count_rows,
    distance,
    distances,
    distances_from_rest,
    effect,
    effects_from_rest,
    window_distances,
    window_start,
)
from andon.stats import CategoricalProfile, NumericProfile, bin_counts, js_distance, ks_distance

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
COLUMNS = ["age", "income", "city", "member"]

REALS = st.none() | st.floats(allow_infinity=True, allow_nan=True) | st.sampled_from([0.0, -0.0, 1.0])
WORDS = st.none() | st.sampled_from(["a", "b", "c", ""])


def traffic(days: int = 30, seed: int = 0) -> pl.DataFrame:
    """Rows of some days, more on some than on others, with nulls."""
    rng = np.random.default_rng(seed)
    rows = 100 * days
    return pl.DataFrame(
        {
            "at": [START + timedelta(seconds=int(s)) for s in rng.integers(0, days * 86400, rows)],
            "age": rng.integers(18, 90, rows),
            "income": rng.lognormal(10, 1, rows),
            "city": rng.choice(["Bonn", "Lyon", "Oslo"], rows),
            "member": rng.random(rows) < 0.5,
        }
    ).with_columns(pl.when(pl.Series(rng.random(rows) < 0.1)).then(None).otherwise("income").alias("income"))


@given(st.lists(REALS, min_size=1, max_size=60), st.lists(REALS, max_size=60))
def test_numbers_fall_into_the_cells_that_stats_says(
    reference: list[float | None], live: list[float | None]
) -> None:
    profile = build_profile(pl.DataFrame({"x": pl.Series(reference, dtype=pl.Float64)}), ["x"])

    counts = count_rows(profile, pl.DataFrame({"x": pl.Series(live, dtype=pl.Float64)}))

    expected = NumericProfile.of(_floats(reference))
    assert profile.columns == {"x": expected}
    assert counts == {"x": bin_counts(expected, _floats(live))}


@given(st.lists(WORDS, min_size=1, max_size=60), st.lists(WORDS | st.just("new"), max_size=60))
def test_words_fall_into_the_cells_that_stats_says(
    reference: list[str | None], live: list[str | None]
) -> None:
    profile = build_profile(pl.DataFrame({"w": pl.Series(reference, dtype=pl.String)}), ["w"])

    counts = count_rows(profile, pl.DataFrame({"w": pl.Series(live, dtype=pl.String)}))

    expected = CategoricalProfile.of(reference)
    assert profile.columns == {"w": expected}
    assert counts == {"w": bin_counts(expected, live)}


def test_windows_are_stretches_of_domain_time_with_their_own_counts() -> None:
    frame = traffic()

    profile = build_profile(frame, COLUMNS, time="at", window=DAY)

    assert profile.starts == tuple(START + number * DAY for number in range(30))
    assert sum(profile.sizes) == profile.rows == 3000
    for number, start in enumerate(profile.starts):
        inside = frame.filter((pl.col("at") >= start) & (pl.col("at") < start + DAY))
        assert profile.sizes[number] == inside.height
        assert {name: profile.counts[name][number] for name in COLUMNS} == count_rows(profile, inside)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_window_of_the_reference_is_compared_with_the_rest_of_it(name: str) -> None:
    profile = build_profile(traffic(), COLUMNS, time="at", window=DAY)
    column, parts = profile.columns[name], profile.counts[name]

    found = distances_from_rest(column, np.array([part.cells for part in parts]))

    assert found.tolist() == pytest.approx(
        [distance(column.without(part), part) for part in parts], abs=1e-12
    )
    assert profile.calibration(200)[name] == found.tolist()


@given(st.lists(REALS, min_size=1, max_size=30), st.lists(WORDS, min_size=1, max_size=30), st.data())
def test_any_part_of_a_reference_is_as_far_from_the_rest_as_stats_says(
    numbers: list[float | None], words: list[str | None], data: st.DataObject
) -> None:
    for profile, values in [
        (NumericProfile.of(_floats(numbers)), _floats(numbers)),
        (CategoricalProfile.of(words), words),
    ]:
        part = bin_counts(profile, values[: data.draw(st.integers(0, len(values)))])  # type: ignore[arg-type, call-overload]

        [found] = distances_from_rest(profile, np.array([part.cells])).tolist()

        expected = distance(profile.without(part), part)
        assert found == pytest.approx(expected, abs=1e-7, nan_ok=True)
        if not math.isnan(found):
            [size] = effects_from_rest(profile, np.array([part.cells])).tolist()
            assert size == pytest.approx(effect(profile.without(part), part), rel=1e-9, abs=1e-7)


def test_fewer_rows_are_expected_to_stray_farther() -> None:
    profile = build_profile(traffic(), COLUMNS, time="at", window=DAY)

    few, many = (np.mean(profile.calibration(rows)["age"]) for rows in (10, 80))

    assert few > 2 * many
    assert profile.calibration(80) == profile.calibration(81)
    assert profile.calibration(80, seed=1) != profile.calibration(80)


def test_a_live_window_is_judged_by_windows_as_small_as_itself() -> None:
    """Thinned traffic, as when only a sample of requests arrives, is as unusual as the reference's own windows are."""
    profile = build_profile(traffic(120), COLUMNS, time="at", window=DAY)
    fresh = traffic(200, seed=5)
    ranks = []
    for number in range(200):
        found = profile.window(fresh.slice(100 * number, 20), seed=number)
        ranks.append(np.mean([usual >= found.distances["age"] for usual in found.calibration["age"]]))

    assert 0.4 < np.mean(ranks) < 0.75
    assert np.mean(np.array(ranks) < 0.05) < 0.1


def test_the_distance_is_ks_for_numbers_and_js_for_words() -> None:
    frame = traffic()
    profile = build_profile(frame, COLUMNS, time="at", window=DAY)
    live = traffic(2, seed=3)

    found = window_distances(profile, live)

    counts = count_rows(profile, live)
    assert found["age"] == ks_distance(profile.columns["age"], counts["age"])  # type: ignore[arg-type]  # a number column
    assert found["city"] == js_distance(profile.columns["city"], counts["city"])
    assert found["member"] == js_distance(profile.columns["member"], counts["member"])
    assert found == distances(profile, counts)


def test_a_shift_is_farther_than_every_window_of_the_reference_and_no_shift_is_not() -> None:
    profile = build_profile(traffic(), COLUMNS, time="at", window=DAY)
    same = traffic(1, seed=8)
    moved = same.with_columns(
        pl.col("age") + 40,
        pl.col("income") * 3,
        pl.lit("Kyiv").alias("city"),
        pl.lit(value=True).alias("member"),
    )

    found, usual = profile.window(moved), profile.window(same)

    for name in COLUMNS:
        assert found.distances[name] > max(found.calibration[name])
        assert found.excess[name] > 0.2
        assert usual.distances[name] < 1.5 * max(usual.calibration[name])
        assert usual.excess[name] < 0.1


def test_the_effect_of_a_shift_is_how_far_values_moved_in_deviations() -> None:
    """A quarter of a deviation is material however many rows say so; less than what chance alone does is nothing."""
    rng = np.random.default_rng(4)
    at = [START + timedelta(minutes=number) for number in range(90 * 1440)]
    profile = build_profile(
        pl.DataFrame({"at": at, "x": rng.normal(size=len(at))}), ["x"], time="at", window=DAY
    )

    for rows in (100, 300, 5000):
        moved, same = (
            profile.window(pl.DataFrame({"x": rng.normal(mean, size=rows)})) for mean in (0.25, 0.0)
        )
        assert 0.12 < moved.excess["x"] < 0.4
        assert moved.effects["x"] == pytest.approx(0.25, abs=0.15)
        assert same.excess["x"] < 0.1


def test_a_burst_of_nulls_in_a_number_column_is_seen() -> None:
    profile = build_profile(traffic(), ["income"])
    burst = traffic(1, seed=8).with_columns(pl.when(pl.col("age") < 60).then("income").alias("income"))
    gone = burst.with_columns(income=pl.lit(None, pl.Float64))

    assert window_distances(profile, burst)["income"] > 0.3
    assert window_distances(profile, gone)["income"] == pytest.approx(0.9, abs=0.03)


def test_a_window_without_rows_has_no_distance() -> None:
    profile = build_profile(traffic(), COLUMNS, time="at", window=DAY)

    assert all(math.isnan(found) for found in window_distances(profile, traffic().head(0)).values())
    found = profile.window(traffic().head(0))
    assert (found.rows, found.distances, found.calibration, found.excess, found.effects) == (
        0,
        {},
        {},
        {},
        {},
    )


def test_a_column_that_no_request_brought_counts_as_null() -> None:
    profile = build_profile(traffic(), COLUMNS, time="at", window=DAY)

    found = profile.window(traffic(1).drop("age", "city"))

    assert found.distances["age"] == 1
    assert found.distances["city"] == 1


def test_a_column_without_any_value_in_the_reference_has_a_profile_all_the_same() -> None:
    frame = traffic().with_columns(income=pl.lit(None, pl.Float64))
    profile = build_profile(frame, ["income"], time="at", window=DAY)

    assert set(profile.calibration(100)["income"]) == {0.0}
    assert window_distances(profile, traffic())["income"] == pytest.approx(0.9, abs=0.03)


def test_a_reference_of_a_single_window_has_nothing_to_calibrate_with() -> None:
    profile = build_profile(traffic(1), ["age"], time="at", window=1000 * DAY)

    assert len(profile.calibration(50)["age"]) == 1
    assert profile.calibration(1000) == {"age": []}
    assert profile.window(traffic(30)).distances == {}


def test_counts_of_parts_of_a_window_add_up_to_the_window() -> None:
    frame = traffic()
    profile = build_profile(frame, COLUMNS)
    parts = [count_rows(profile, frame.slice(start, 700)) for start in range(0, 3000, 700)]

    for name in COLUMNS:
        assert parts[0][name].merge(*(part[name] for part in parts[1:])) == count_rows(profile, frame)[name]


@pytest.mark.parametrize("window", [DAY, None])
def test_the_order_of_rows_changes_nothing(window: timedelta | None) -> None:
    frame = traffic()
    time = "at" if window else None

    again = build_profile(frame.reverse(), COLUMNS, time=time, window=window)

    assert again == build_profile(frame, COLUMNS, time=time, window=window)


def test_without_a_time_sixty_blocks_of_the_same_size_stand_in() -> None:
    profile = build_profile(traffic(60), COLUMNS)

    assert (profile.window_length, profile.starts, profile.sizes) == (None, (), (100,) * 60)
    assert build_profile(traffic().head(7), COLUMNS).sizes == (1,) * 7


def test_old_windows_are_left_out_and_small_ones_when_others_remain() -> None:
    hours = [START + hour * timedelta(hours=1) for hour in range(700)]
    frame = pl.DataFrame({"at": [*hours, *hours[-30:], *hours[-30:], None], "x": np.arange(761) % 9})

    profile = build_profile(frame, ["x"], time="at", window=timedelta(hours=1))

    assert len(profile.starts) == len(profile.sizes) == len(profile.counts["x"]) == 500
    assert profile.starts[-1] == hours[-1]
    assert len(profile.calibration(1)["x"]) == 500
    assert len(profile.calibration(6)["x"]) == 30
    assert len(profile.calibration(60)["x"]) == 500


@pytest.mark.parametrize(
    "frame", [traffic(), traffic().head(1), traffic().with_columns(city=pl.lit(None, pl.String))]
)
def test_a_profile_is_written_and_read_back_exactly(frame: pl.DataFrame) -> None:
    profile = build_profile(frame, COLUMNS, time="at", window=DAY)

    again = TableProfile.from_bytes(profile.to_bytes())

    assert again == profile
    assert again.to_bytes() == profile.to_bytes()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format":"andon.profile/1"}'])
def test_bytes_that_are_no_profile_are_refused(data: bytes) -> None:
    with pytest.raises(Corrupt, match="a reference profile cannot be read"):
        TableProfile.from_bytes(data)


def test_a_profile_of_a_later_format_is_refused() -> None:
    data = build_profile(traffic(), ["age"]).to_bytes().replace(b"andon.profile/1", b"andon.profile/2")

    with pytest.raises(
        Corrupt, match=r"has the format 'andon.profile/2', this Andon reads 'andon.profile/1'"
    ):
        TableProfile.from_bytes(data)


def test_what_cannot_be_profiled_is_named() -> None:
    frame = traffic()

    with pytest.raises(Invalid, match="there is no column 'hat' to profile; there are at, age"):
        build_profile(frame, ["hat"])
    with pytest.raises(Invalid, match=r"the column 'at' is Datetime.*, which has no profile"):
        build_profile(frame, ["at"])
    with pytest.raises(Invalid, match="there is no row to profile"):
        build_profile(frame.head(0), ["age"])
    with pytest.raises(Invalid, match="needs the length of a window"):
        build_profile(frame, ["age"], time="at")


def test_live_values_as_json_brings_them_are_counted_in_the_columns_kind() -> None:
    profile = build_profile(traffic(), ["age", "member"])

    counts = count_rows(profile, pl.DataFrame({"age": ["41", "old"], "member": ["true", None]}))

    assert (counts["age"].n, counts["age"].nulls) == (1, 1)
    assert counts["member"].cells.tolist() == [0, 1, 0, 1]


def test_a_window_begins_at_a_multiple_of_its_length() -> None:
    assert window_start(START + timedelta(hours=30), DAY) == START + DAY
    assert window_start(datetime(1969, 12, 31, 23, tzinfo=UTC), DAY) == datetime(1969, 12, 31, tzinfo=UTC)


def _floats(values: list[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
