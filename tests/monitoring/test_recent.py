"""What was answered lately: in order whatever order it came in, bounded, with the newest label of each, none of them lost."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.predictions import PredictionRecord
from tests.monitoring.world import DAY, START, MonitoringWorld

SECOND = timedelta(seconds=1)


def by_time(records: list[PredictionRecord]) -> list[PredictionRecord]:
    return sorted(
        records, key=lambda item: (item.data_at_us if item.data_at_us is not None else item.at_us, item.id)
    )


@settings(max_examples=20)
@given(
    st.lists(st.lists(st.integers(0, 30) | st.none(), max_size=6), max_size=6),
    st.integers(0, 30),
    st.integers(0, 30),
)
def test_records_come_in_order_of_domain_time_however_they_arrive(
    batches: list[list[int | None]], first: int, last: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = MonitoringWorld(Path(folder) / ".andon")
        recent = world.recent()
        written: list[PredictionRecord] = []
        for number, batch in enumerate(batches):
            times = [None if day is None else START + day * DAY for day in batch]
            written += world.records(times, at=START + number * DAY)
            if number % 2:
                world.another_boot()
            assert recent.refresh() == len(batch)

        start, end = START + first * DAY, START + last * DAY
        assert list(recent.since(None)) == by_time(written)
        assert list(recent.between(start, end)) == [
            item for item in by_time(written) if start <= _time(item) < end
        ]
        assert list(recent.since(start)) == [item for item in by_time(written) if _time(item) >= start]
        assert recent.newest == max(map(_time, written), default=None)
        world.close()


def _time(record: PredictionRecord) -> datetime:
    return START + timedelta(microseconds=(record.data_at_us or record.at_us)) - timedelta(microseconds=_US)


_US = int((START - datetime(1970, 1, 1, tzinfo=START.tzinfo)).total_seconds() * 1e6)


def test_two_that_start_at_different_times_see_the_same(world: MonitoringWorld) -> None:
    early = world.recent()
    for hour in (5, 1, 9, 3):
        world.records([START + hour * timedelta(hours=1)] * 3)
        early.refresh()
    late = world.recent()

    late.refresh()

    assert list(early.since(None)) == list(late.since(None))


def test_what_is_older_than_the_span_is_forgotten_with_its_labels(world: MonitoringWorld) -> None:
    old, new = world.records([START, START + 9 * DAY])
    world.tell(world.label(item.prediction_id, 1.0, received_at=START) for item in (old, new))
    recent = world.recent(span=7 * DAY)

    recent.refresh(START + 7 * DAY)
    before = (len(recent), dict(recent.labels))
    recent.refresh(START + 8 * DAY)

    assert before == (2, {old.prediction_id: 1.0, new.prediction_id: 1.0})
    assert list(recent.since(None)) == [new]
    assert recent.labels == {new.prediction_id: 1.0}


def test_a_client_that_sends_a_time_of_the_future_makes_nobody_forget(world: MonitoringWorld) -> None:
    (now,) = world.records([START])
    world.records([START + 4000 * DAY])
    recent = world.recent(span=DAY)

    recent.refresh(START)

    assert list(recent.between(START, START + DAY)) == [now]


def test_memory_is_bounded_by_a_sample_that_does_not_depend_on_the_order(world: MonitoringWorld) -> None:
    one = world.recent(most=500)
    for day in range(8):
        world.records([START + day * DAY] * 250)
        one.refresh()
    other = world.recent(most=500)
    other.refresh()

    assert 125 <= len(one) <= 500
    assert one.kept == other.kept < 1.0
    assert list(one.since(None)) == list(other.since(None))
    # Every part of the traffic is in the sample: each day has its share, give or take four standard deviations.
    share = one.kept
    for day in range(8):
        kept = len(list(one.between(START + day * DAY, START + (day + 1) * DAY)))
        assert abs(kept - 250 * share) < 4 * (250 * share * (1 - share)) ** 0.5


def test_the_news_are_told_in_full_though_only_a_sample_is_kept(world: MonitoringWorld) -> None:
    recent = world.recent(most=100)
    written = world.records([START] * 400)

    recent.refresh()

    news = recent.news(0)
    assert news is not None
    assert news.records == written
    assert len(recent) <= 100


def test_news_are_what_came_after_a_number(world: MonitoringWorld) -> None:
    recent = world.recent()
    first = world.records([START])
    recent.refresh()
    seen = recent.number
    second = world.records([START - DAY])
    world.tell([world.label(first[0].prediction_id, 1.0, received_at=START)])
    recent.refresh()
    recent.refresh()

    assert recent.news(seen) == (recent.number, second, {first[0].prediction_id: 1.0})
    assert recent.news(recent.number) == (recent.number, [], {})


def test_news_of_too_long_ago_are_not_half_told(
    world: MonitoringWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("andon.monitoring.recent._NEWS", 5)
    recent = world.recent()
    for _ in range(4):
        world.records([START] * 2)
        recent.refresh()

    assert recent.news(0) is None
    assert recent.news(recent.number - 2) is not None


def test_the_newest_label_counts_whenever_it_comes(world: MonitoringWorld) -> None:
    (record,) = world.records([START])
    recent = world.recent()
    recent.refresh()

    seen = []
    for label, late in ((1.0, 5), (0.0, 9), (1.0, 7)):
        world.tell(
            [
                world.label(
                    record.prediction_id, label, received_at=START + late * SECOND, data_at=START + late * DAY
                )
            ]
        )
        recent.refresh()
        seen.append(recent.labels[record.prediction_id])

    assert seen == [1.0, 0.0, 0.0]


@pytest.mark.capability("J3")
@pytest.mark.parametrize("behind", [timedelta(milliseconds=1), SECOND, timedelta(seconds=90)])
def test_feedback_that_is_committed_after_newer_feedback_is_not_lost(
    world: MonitoringWorld, behind: timedelta
) -> None:
    early, late = world.records([START] * 2)
    recent = world.recent()
    world.tell([world.label(late.prediction_id, 1.0, received_at=START + 2 * DAY)])
    recent.refresh()

    world.tell([world.label(early.prediction_id, 1.0, received_at=START + 2 * DAY - behind)])
    recent.refresh()

    assert recent.labels == {early.prediction_id: 1.0, late.prediction_id: 1.0}


def test_feedback_of_a_clock_that_was_set_back_is_found_by_the_audit(
    world: MonitoringWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("andon.monitoring.recent._AUDIT", 3)
    first, second = world.records([START] * 2)
    recent = world.recent()
    world.tell([world.label(first.prediction_id, 1.0, received_at=START + 9 * DAY)])
    recent.refresh()

    world.tell([world.label(second.prediction_id, 0.0, received_at=START)])
    for _ in range(3):
        recent.refresh()

    assert recent.labels == {first.prediction_id: 1.0, second.prediction_id: 0.0}


@settings(max_examples=15)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 300), st.booleans()), max_size=5), max_size=5
    ),
    st.integers(1, 3),
)
def test_labels_are_those_of_the_store_whatever_the_order_of_commits(
    batches: list[list[tuple[int, int, bool]]], page: int
) -> None:
    """Also when a page of feedback holds few rows, so that one refresh reads many pages."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("andon.monitoring.recent._BATCH", page)
        patch.setattr("andon.monitoring.recent._AUDIT", 1)
        world = MonitoringWorld(Path(folder) / ".andon")
        records = world.records([START] * 5)
        recent = world.recent()
        told = {}
        for number, batch in enumerate(batches):
            rows = [
                world.label(
                    records[which].prediction_id,
                    float(label),
                    received_at=START + at * SECOND,
                    data_at=START + number * DAY,
                )
                for which, at, label in batch
            ]
            fresh = {row.id: row for row in rows if row.id not in told}
            told |= fresh
            world.tell(fresh.values())
            recent.refresh()

        newest = sorted(told.values(), key=lambda row: (row.received_at, row.id))
        assert recent.labels == {row.prediction: row.label for row in newest}
        world.close()


def test_a_label_read_before_its_record_is_kept_for_it(world: MonitoringWorld) -> None:
    """The log is read first, then the feedback: an answer and its label may both come in between."""
    recent = world.recent()
    made: list[PredictionRecord] = []
    tail = world.log.tail

    def late(position: dict[str, int], *, limit: int) -> tuple[list[PredictionRecord], dict[str, int]]:
        found = tail(position, limit=limit)
        if not made:
            made.extend(world.records([START]))
            world.tell([world.label(made[0].prediction_id, 1.0, received_at=START)])
        return found

    world.log.tail = late  # type: ignore[method-assign,assignment]
    recent.refresh()
    before = dict(recent.labels)
    recent.refresh()

    assert before == {}
    assert recent.labels == {made[0].prediction_id: 1.0}
    news = recent.news(0)
    assert news is not None
    assert news.labels == {made[0].prediction_id: 1.0}


def test_labels_of_predictions_that_are_not_kept_are_not_hoarded(world: MonitoringWorld) -> None:
    (old,) = world.records([START - 100 * DAY])
    recent = world.recent()
    recent.refresh(START)
    world.tell([world.label(old.prediction_id, 1.0, received_at=START)])
    for _ in range(3):
        recent.refresh(START)

    assert recent.labels == {}
    assert recent._early == {}
