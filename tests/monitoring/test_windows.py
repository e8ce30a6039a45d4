"""Windows on a grid of domain time, and what the realised metric of one says."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.clock import EPOCH
from andon.core.ids import PredictionId, ReleaseId, prediction_id
from andon.core.policy import MetricRule
from andon.core.predictions import PredictionRecord
from andon.monitoring.windows import MIN_ROWS, Finding, Reference, closed_windows, performance
from andon.stats import auc_interval
from tests.monitoring.world import scored

RULE = MetricRule(metric="auc", over=timedelta(days=7))
moments = st.integers(-(10**6), 10**6).map(lambda minutes: EPOCH + timedelta(hours=7, minutes=minutes))
hours = st.integers(1, 24 * 40).map(lambda number: timedelta(hours=number))


@given(hours, moments, st.integers(0, 3000).map(lambda number: timedelta(hours=number)), hours)
def test_windows_lie_on_the_grid_without_gaps_and_none_too_early_or_missing(
    width: timedelta, since: datetime, ahead: timedelta, lateness: timedelta
) -> None:
    until = since + ahead

    windows = closed_windows(width, since, until, lateness)

    for start, end in windows:
        assert (start - EPOCH) % width == timedelta(0)
        assert end - start == width
        assert start >= since
        assert end + lateness <= until
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    if windows:
        assert windows[0][0] - width < since
        assert windows[-1][1] + width + lateness > until
    else:
        first = -((EPOCH - since) // width) * width + EPOCH
        assert first + width + lateness > until


@given(hours, moments, st.integers(0, 2000).map(lambda number: timedelta(hours=number)))
def test_windows_seen_in_two_steps_are_those_seen_in_one(
    width: timedelta, since: datetime, ahead: timedelta
) -> None:
    until = since + ahead
    middle = since + ahead / 2

    once = closed_windows(width, since, until, timedelta(0))
    first = closed_windows(width, since, middle, timedelta(0))
    rest = closed_windows(width, first[-1][1] if first else since, until, timedelta(0))

    assert first + rest == once


def answers(outputs: Any, *, failed: int = 0) -> list[PredictionRecord]:
    def made(number: int, output: float | None) -> PredictionRecord:
        return PredictionRecord(
            v=1, id=UUID(prediction_id(1_700_000_000_000, 7, number)).bytes, at_us=0, data_at_us=None, endpoint="e",
            release=ReleaseId("r"), model="m", version=1, epoch=1, generation=100, arm="stable", propensity=0.0, entity=None,
            status=200 if output is not None else 500, inputs={}, features=[], output=output, error=None, micros=1,
        )  # fmt: skip

    scores = [float(output) for output in outputs]
    return [made(number, output) for number, output in enumerate([*scores, *[None] * failed])]


def judged(
    truth: Any, outputs: Any, reference: Reference | None, *, n: int = 1000, rule: MetricRule = RULE
) -> Finding:
    records = answers(outputs)
    labels = {record.prediction_id: float(label) for record, label in zip(records, truth, strict=True)}
    return performance(records, labels, rule, reference, false_alarms_per=n)


def reference_of(truth: Any, outputs: Any) -> Reference:
    found = auc_interval(truth, outputs)
    return Reference(value=found.value, low=found.low, high=found.high)


@pytest.mark.capability("J9")
def test_without_a_change_windows_alarm_as_often_as_the_policy_says(rng: np.random.Generator) -> None:
    """1 per 20 windows, to be counted: 1,200 pairs of a holdout and a window give 60, give or take 3 x 7.5."""
    alarms = 0
    for _ in range(1200):
        reference = reference_of(*scored(rng, 400))
        alarms += judged(*scored(rng, 200), reference, n=20).alarm

    assert 60 - 23 <= alarms <= 60 + 23


@pytest.mark.capability("J9")
def test_a_loss_of_skill_is_found_and_told_with_interval_and_sample_size(rng: np.random.Generator) -> None:
    reference = reference_of(*scored(rng, 4000))

    found = judged(*scored(rng, 1500, skill=0.3), reference)

    assert found.alarm
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high < reference.low
    assert found.rows == 1500
    assert found.summary == (
        f"AUC {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] on 1500 labelled of 1500; "
        f"reference {reference.value:.3f} [{reference.low:.3f}, {reference.high:.3f}]"
    )


@pytest.mark.parametrize(("scale", "drop"), [("absolute", 0.3), ("relative", 0.4)])
def test_a_drop_that_is_allowed_does_not_alarm(rng: np.random.Generator, scale: Any, drop: float) -> None:
    reference = reference_of(*scored(rng, 4000))
    lost = scored(rng, 1500, skill=0.3)
    rule = MetricRule(metric="auc", over=timedelta(days=7), drop=drop, scale=scale)

    assert judged(*lost, reference).alarm
    assert not judged(*lost, reference, rule=rule).alarm


@pytest.mark.capability("J3")
def test_labels_that_never_come_are_a_class_of_their_own(rng: np.random.Generator) -> None:
    """A cancelled flight has no arrival: whether it would have been late is not known, and it is not counted as on time."""
    truth, outputs = scored(rng, 400)
    records = answers(outputs, failed=7)
    labels = {
        record.prediction_id: float(label) for record, label in zip(records[:300], truth[:300], strict=True)
    }

    found = performance(records, labels, RULE, reference_of(*scored(rng, 4000)), false_alarms_per=1000)

    known = auc_interval(truth[:300], outputs[:300])
    assert (found.value, found.rows) == (known.value, 300)
    assert found.details["answered"] == 400
    assert found.details["labelled"] == 300
    assert found.details["never_labelled"] == 100
    assert found.details["failed"] == 7
    assert found.details["positive"] == int(truth[:300].sum())
    assert "on 300 labelled of 400" in found.summary


def test_too_few_rows_are_recorded_and_judged_as_nothing(rng: np.random.Generator) -> None:
    found = judged(*scored(rng, MIN_ROWS - 1), reference_of(*scored(rng, 400)))

    assert (found.alarm, found.value, found.evidence, found.rows) == (False, None, None, MIN_ROWS - 1)
    assert found.summary == f"{MIN_ROWS - 1} labelled of {MIN_ROWS - 1}: too few to judge"


def test_a_window_of_one_class_cannot_be_ranked(rng: np.random.Generator) -> None:
    found = judged(np.zeros(80), rng.random(80), reference_of(*scored(rng, 400)))

    assert (found.alarm, found.value) == (False, None)
    assert "all of one class" in found.summary


def test_without_a_reference_the_value_is_told_and_nothing_is_judged(rng: np.random.Generator) -> None:
    found = judged(*scored(rng, 400, skill=0.0), None)

    assert (found.alarm, found.evidence) == (False, None)
    assert found.value is not None
    assert "no interval of its holdout" in found.summary


def test_labels_that_are_no_plain_zeros_and_ones_are_cut_at_a_half(rng: np.random.Generator) -> None:
    truth, outputs = scored(rng, 200)
    reference = reference_of(*scored(rng, 400))

    assert judged(truth * 0.4 + 0.3, outputs, reference) == judged(truth, outputs, reference)


def test_labels_of_other_predictions_change_nothing(rng: np.random.Generator) -> None:
    truth, outputs = scored(rng, 100)
    records = answers(outputs)
    labels = {record.prediction_id: float(label) for record, label in zip(records, truth, strict=True)}
    others = {PredictionId(f"other {number}"): 1.0 for number in range(50)}
    reference = reference_of(*scored(rng, 400))

    with_others = performance(records, {**labels, **others}, RULE, reference, false_alarms_per=1000)

    assert with_others == performance(records, labels, RULE, reference, false_alarms_per=1000)
