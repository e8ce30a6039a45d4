"""Evidence: what it counts, under which share, and that it does not depend on the order in which anything arrives."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.ids import PredictionId, ReleaseId
from andon.core.predictions import PredictionRecord
from andon.rollout import Evidence, Tally
from andon.rollout.evidence import CEILING
from andon.stats import ceiling_log_e, harm_log_e_value, noninferiority_log_e
from tests.rollout.world import DAY, NEW, OLD, START, answer, gathered

AT = START
SHARES = [0.1, 0.5]

answers = st.builds(
    answer,
    st.integers(0, 60),
    candidate=st.booleans(),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    failed=st.booleans(),
    output=st.sampled_from([0.2, 0.8]),
    entity=st.none() | st.sampled_from(["ann", "bob"]),
    data_at=st.none() | st.integers(0, 12).map(lambda day: START + day * DAY),
    generation=st.sampled_from([0, 100, 300]),
    release=st.none() | st.just(ReleaseId("other")),
)
worlds = st.lists(answers, max_size=40, unique_by=lambda record: record.id)


def tally() -> Tally:
    return Tally(candidate=NEW, stable=OLD, began=(1, 100), horizon=DAY, margin_odds=1.5, expects_labels=True)


@given(worlds, st.data())
def test_the_order_of_arrival_changes_nothing(records: list[PredictionRecord], draw: st.DataObject) -> None:
    """However records and labels come in parts, also a label before its record, twice, or corrected."""
    labels = {
        record.prediction_id: float(draw.draw(st.booleans()))
        for record in records
        if draw.draw(st.booleans())
    }
    expected = gathered(records, labels)
    shuffled = draw.draw(st.permutations(records))
    cut = draw.draw(st.integers(0, len(shuffled)))
    early = {ident: 1.0 - label for ident, label in labels.items() if draw.draw(st.booleans())}

    counted = tally()
    counted.take(shuffled[:cut], early)
    counted.take(shuffled[cut:], {})
    counted.take(shuffled[:cut], labels)
    counted.take([], labels)

    assert counted.evidence(share=0.1, closed_until=START + 9 * DAY) == expected


@given(worlds)
def test_looking_changes_nothing(records: list[PredictionRecord]) -> None:
    counted = tally()
    for record in records:
        counted.take([record], {})
        counted.evidence(share=0.5, closed_until=None)

    assert counted.evidence(share=0.1, closed_until=None) == gathered(records, {}, closed_until=None)


@given(worlds)
def test_evidence_is_that_of_each_failure_under_its_own_share(records: list[PredictionRecord]) -> None:
    found = gathered(records).guards[0]

    counted = [
        record
        for record in sorted(records, key=lambda record: (record.at_us, record.id))
        if record.release in (OLD, NEW) and 0 < record.propensity < 1 and record.generation >= 100
    ]
    seen: set[str] = set()
    failures = []
    for record in counted:
        if record.status >= 500 and record.entity not in seen:
            failures.append(record)
            seen |= {record.entity} if record.entity else set()
    had = [record.release == NEW for record in failures]
    shares = [record.propensity for record in failures]
    mine = [record.status >= 500 for record in counted if record.release == NEW]
    two = [noninferiority_log_e(had, shares, margin_odds=1.5), ceiling_log_e(mine, ceiling=CEILING)]
    assert found.harm == pytest.approx(harm_log_e_value(had, shares), abs=1e-9)
    assert found.noninferior == pytest.approx(math.log10(sum(10**log for log in two) / 2), abs=1e-9)
    assert (found.candidate_failed, found.stable_failed) == (sum(had), len(had) - sum(had))


def many(count: int, **settings: Any) -> list[PredictionRecord]:
    first = settings.pop("first", 0)
    return [answer(first + k, **settings) for k in range(count)]


def test_requests_that_were_assigned_with_certainty_compare_nothing() -> None:
    records = many(9, candidate=True, failed=True, share=1.0) + many(9, first=20, failed=True, share=0.0)

    found = gathered(records)

    assert (found.candidate_requests, found.guards[0].stable, found.harm) == (0, 0, 0.0)


def test_what_an_older_route_or_another_release_answered_is_not_part_of_it() -> None:
    """Another candidate had its share before: stable's failures of that time say nothing about this one."""
    before = many(50, failed=True, generation=300)
    after = many(5, first=100, failed=True, generation=500)
    others = many(50, first=200, failed=True, generation=500, release=ReleaseId("third"))
    older_epoch = many(50, first=300, failed=True, epoch=0, generation=900)

    found = gathered(before + after + others + older_epoch, began=(1, 500))

    assert (found.guards[0].stable, found.guards[0].stable_failed) == (5, 5)


@pytest.mark.capability("I1")
def test_a_sticky_entity_counts_once_where_it_failed_first() -> None:
    records = [
        answer(1, entity="ann", candidate=True, failed=True),
        answer(2, entity="ann", candidate=True, failed=True),
        answer(3, entity="bob", candidate=False, failed=True),
        answer(4, entity="bob", candidate=True, failed=True, share=0.5),
        answer(5, entity="cid", candidate=True),
        answer(6, entity=None, candidate=True, failed=True),
        answer(7, entity=None, candidate=True, failed=True),
    ]

    found = gathered(records[::-1]).guards[0]

    assert (found.candidate_failed, found.stable_failed) == (3, 1)
    assert (found.candidate, found.stable) == (5, 1)
    assert found.harm == pytest.approx(harm_log_e_value([True, False, True, True], [0.1] * 4))


def labelled(records: list[PredictionRecord], label: float) -> dict[PredictionId, float]:
    return {record.prediction_id: label for record in records}


@pytest.mark.capability("J3")
def test_only_cohorts_whose_horizon_has_closed_are_compared() -> None:
    """A label that comes early says more often 'on time' than one that comes late: nobody looks before all could have come."""
    early = many(10, candidate=True, output=0.9, data_at=START)
    late = many(10, first=50, candidate=True, output=0.9, data_at=START + 3 * DAY)
    labels = labelled(early + late, 0.0)

    def wrong(until: Any) -> tuple[int, int, int]:
        found = gathered(early + late, labels, closed_until=until)
        return found.guards[1].candidate_failed, found.step_labelled, found.unlabelled

    assert wrong(None) == (0, 0, 0)
    assert wrong(START + DAY - timedelta(microseconds=1)) == (0, 0, 0)
    assert wrong(START + DAY) == (10, 10, 0)
    assert wrong(START + 4 * DAY) == (20, 20, 0)


@pytest.mark.capability("J3")
def test_labels_that_never_come_are_a_class_of_their_own() -> None:
    cancelled = many(30, candidate=True, output=0.9)
    flown = many(10, first=50, candidate=True, output=0.9)

    found = gathered(cancelled + flown, labelled(flown, 1.0))

    assert found.unlabelled == 30
    assert (found.guards[1].candidate, found.guards[1].candidate_failed) == (10, 0)


def test_a_request_that_failed_has_no_decision_to_be_wrong() -> None:
    records = many(10, candidate=True, failed=True)

    found = gathered(records, labelled(records, 1.0))

    assert (found.guards[1].candidate, found.unlabelled) == (0, 0)


def test_the_newest_label_counts() -> None:
    records = many(4, candidate=True, output=0.9)
    counted = tally()

    counted.take(records, labelled(records, 0.0))
    counted.take([], labelled(records[:3], 1.0))

    assert counted.evidence(share=0.1, closed_until=START + 9 * DAY).guards[1].candidate_failed == 1


def test_steps_count_the_requests_that_were_assigned_under_their_share() -> None:
    """Not by time: a request that was under way when the share changed belongs to the old one."""
    first, second = many(30, candidate=True, share=0.1), many(7, first=50, candidate=True, share=0.5)
    records = first + second + many(9, first=90, share=0.5)

    found = gathered(records, labelled(second[:5], 0.0), share=0.5)

    assert (found.candidate_requests, found.step_requests, found.step_labelled) == (37, 7, 5)


def test_labels_of_other_predictions_are_not_hoarded() -> None:
    counted = tally()
    for day in range(3):
        counted.take([], {PredictionId(answer(1000 + day * 100 + k).prediction_id): 1.0 for k in range(50)})

    assert len(counted._early) == 50


def test_a_line_without_labels_has_one_guard() -> None:
    assert [guard.name for guard in gathered(many(3)).guards] == ["failures"]
    assert [guard.name for guard in gathered(many(3), {}).guards] == ["failures", "wrong"]


def test_no_traffic_is_no_evidence() -> None:
    nothing = gathered([], {})

    assert nothing.harm == 0.0
    assert all(guard.noninferior == 0.0 for guard in nothing.guards)


def test_evidence_beyond_the_range_of_floats_stays_finite_or_is_capped() -> None:
    records = many(3000, candidate=True, failed=True)
    random.Random(1).shuffle(records)

    found: Evidence = gathered(records, {})

    assert 290 < found.harm < 310
    assert math.isfinite(found.guards[0].noninferior)
