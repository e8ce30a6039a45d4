"""A live version is watched: each window once, by whoever comes first, with the same verdicts after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from andon.core.entities import ModelVersion, MonitorWindow
from andon.core.errors import LeaseLost
from andon.core.ids import node
from andon.core.policy import MetricRule
from andon.monitoring.recent import Recent
from andon.monitoring.watch import Watch
from andon.store.ports import Transaction
from tests.monitoring.world import DAY, POLICY, START, MonitoringWorld, scored

GOOD = (0.76, 0.74, 0.78)


def inputs(rng: np.random.Generator, rows: int, *, shift: float = 0.0) -> Iterator[dict[str, Any]]:
    words = rng.choice(["a", "b", "c"], rows)
    return ({"x": float(rng.normal(shift)), "c": str(word)} for word in words)


def replay(
    world: MonitoringWorld, rng: np.random.Generator, days: range, *, rows: int = 120, shift: float = 0.0,
    skill: float = 1.0, version: int = 1, labelled: float = 1.0,
) -> None:  # fmt: skip
    """Days of traffic with the labels that come of them."""
    for day in days:
        truth, outputs = scored(rng, rows, skill=skill)
        times = [START + day * DAY + k * DAY / rows for k in range(rows)]
        records = world.records(
            times, inputs=inputs(rng, rows, shift=shift), outputs=outputs.tolist(), version=version
        )
        known = int(rows * labelled)
        world.tell(
            world.label(
                record.prediction_id,
                float(label),
                received_at=START + day * DAY + timedelta(milliseconds=k),
                data_at=START,
            )
            for k, (record, label) in enumerate(zip(records[:known], truth[:known], strict=True))
        )


def step(world: MonitoringWorld, watch: Watch, recent: Recent, until: datetime) -> int:
    recent.refresh(until)
    return watch.step(recent, until, actor=world.actor, at=world.registry.now())


def summaries(rows: list[MonitorWindow]) -> list[tuple[datetime, int, bool, str]]:
    return [(row.data_from, row.rows, row.alarm, row.details["summary"]) for row in rows]


@pytest.fixture
def version(world: MonitoringWorld, rng: np.random.Generator) -> ModelVersion:
    return world.version(rng, auc=GOOD)


def test_a_window_is_written_when_it_has_closed_and_never_again(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    replay(world, rng, range(3))
    watch, recent = world.watch(version), world.recent()

    counts = [
        step(world, watch, recent, START + hours * timedelta(hours=1))
        for hours in (0, 23, 24, 24, 47, 72, 72)
    ]

    assert counts == [0, 0, 1, 0, 0, 2, 0]
    rows = world.windows("drift")
    assert [(row.data_from, row.data_until, row.rows) for row in rows] == [
        (START + day * DAY, START + (day + 1) * DAY, 120) for day in range(3)
    ]
    assert rows[0].id == f"churn/drift/{version.id}/{START.isoformat()}"


@pytest.mark.capability("J5", "J9")
def test_drift_and_lost_quality_each_open_one_alert_with_evidence(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    replay(world, rng, range(7))
    replay(world, rng, range(7, 21), shift=1.0, skill=0.2)
    watch, recent = world.watch(version), world.recent()

    for day in range(1, 24):
        step(world, watch, recent, START + day * DAY)

    alerts = world.read(lambda reader: reader.alerts.select(order=("monitor",)))
    assert [(alert.monitor, alert.state, alert.subject) for alert in alerts] == [
        ("auc", "open", node("model_version", version.id)),
        ("drift", "open", node("model_version", version.id)),
    ]
    for alert in alerts:
        first = next(row for row in world.windows(alert.monitor) if row.alarm)
        assert msgspec.json.decode(world.blobs.get(alert.evidence), type=MonitorWindow) == first
        assert alert.summary == first.details["summary"]
        assert alert.data_at == first.data_until
    assert not any(row.alarm for row in world.windows("drift")[:7])
    assert [row.alarm for row in world.windows("auc")] == [False, True, True]


@pytest.mark.capability("J3")
def test_quality_is_judged_when_the_label_horizon_has_closed(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    replay(world, rng, range(7), labelled=0.75)
    watch, recent = world.watch(version), world.recent()

    step(world, watch, recent, START + 8 * DAY - timedelta(seconds=1))
    before = world.windows("auc")
    step(world, watch, recent, START + 8 * DAY)

    (row,) = world.windows("auc")
    assert before == []
    assert row.rows == 7 * 90
    assert {key: row.details[key] for key in ("answered", "labelled", "never_labelled", "failed")} == {
        "answered": 840, "labelled": 630, "never_labelled": 210, "failed": 0,
    }  # fmt: skip


@pytest.mark.capability("J3")
def test_a_label_that_comes_twice_counts_once_and_one_that_comes_too_late_changes_nothing(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    replay(world, rng, range(7))
    records = world.records([START + DAY] * 60, inputs=inputs(rng, 60))
    world.tell(world.label(record.prediction_id, 1.0, received_at=START + DAY) for record in records[:30])
    world.tell(
        world.label(record.prediction_id, 0.0, received_at=START + 2 * DAY, data_at=START)
        for record in records[:30]
    )
    watch, recent = world.watch(version), world.recent()

    step(world, watch, recent, START + 8 * DAY)
    written = world.windows("auc")
    world.tell(world.label(record.prediction_id, 1.0, received_at=START + 9 * DAY) for record in records[30:])
    step(world, watch, recent, START + 9 * DAY)

    assert written[0].details["labelled"] == 7 * 120 + 30
    assert written[0].details["never_labelled"] == 30
    assert world.windows("auc") == written


def test_only_what_the_version_answered_is_in_its_windows(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    replay(world, rng, range(1))
    replay(world, rng, range(1), version=2, shift=5.0)
    world.records([START] * 80, endpoint="other", inputs=inputs(rng, 80, shift=5.0))
    watch, recent = world.watch(version), world.recent()

    step(world, watch, recent, START + DAY)

    assert [row.rows for row in world.windows("drift")] == [120]


@pytest.mark.parametrize("restart_after", [0, 3, 9, 14])
def test_after_a_restart_the_verdicts_are_the_same(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion, restart_after: int
) -> None:
    policy = msgspec.structs.replace(POLICY, metrics=(MetricRule(metric="auc", over=2 * DAY),))
    replay(world, rng, range(6))
    replay(world, rng, range(6, 16), shift=0.4)
    expected = _verdicts_without_a_restart(world, version, policy)

    watch, recent = world.watch(version, policy), world.recent()
    for day in range(1, 18):
        if day == restart_after + 1:
            watch, recent = world.watch(version, policy), world.recent()
        step(world, watch, recent, START + day * DAY)

    found = summaries(world.windows("drift")) + summaries(world.windows("auc"))
    assert found == expected
    assert any(alarm for _, _, alarm, _ in found)


def _verdicts_without_a_restart(world: MonitoringWorld, version: ModelVersion, policy: Any) -> list[Any]:
    """All windows in one go by one watch; then they are taken away again."""
    recent = world.recent()
    step(world, world.watch(version, policy), recent, START + 17 * DAY)
    rows = world.windows("drift") + world.windows("auc")
    world.write(lambda tx: [tx.monitor_windows.remove(row.id) for row in rows])
    return summaries(rows)


def test_two_watches_write_each_window_once_between_them_and_agree_afterwards(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    replay(world, rng, range(4))
    replay(world, rng, range(4, 14), shift=1.0)
    one, other = world.watch(version), world.watch(version)
    recents = world.recent(), world.recent()
    barrier = threading.Barrier(2)
    faults: list[BaseException] = []

    def run(watch: Watch, recent: Recent) -> None:
        try:
            for day in range(1, 15):
                barrier.wait(timeout=30)
                step(world, watch, recent, START + day * DAY)
        except BaseException as fault:  # noqa: BLE001  # told to the test, whatever it is
            faults.append(fault)
            barrier.abort()

    threads = [threading.Thread(target=run, args=pair) for pair in zip((one, other), recents, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)

    assert faults == []
    assert [row.data_from for row in world.windows("drift")] == [START + day * DAY for day in range(14)]
    assert [event.kind for event in world.registry.events()].count("alert.opened") == 1
    probe = world.records([START + 14 * DAY] * 100, inputs=inputs(rng, 100))
    assert one._drift.judge(probe, key="p") == other._drift.judge(probe, key="p")


def test_what_another_worker_wrote_is_what_counts(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    """The other had read less of the log: this one goes on from the row there is, not from its own opinion."""
    replay(world, rng, range(1), shift=3.0)
    behind, ahead = world.watch(version), world.watch(version)
    nothing, recent = world.recent(), world.recent()
    behind.step(nothing, START + DAY, actor=world.actor, at=START)

    step(world, ahead, recent, START + DAY)

    (row,) = world.windows("drift")
    assert row.rows == 0
    probe = world.records([START + DAY] * 100, inputs=inputs(rng, 100))
    assert ahead._drift.judge(probe, key="p") == world.watch(version)._drift.judge(probe, key="p")


def test_a_worker_that_lost_its_lease_writes_nothing(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    replay(world, rng, range(1))
    watch, recent = world.watch(version), world.recent()
    recent.refresh(START + DAY)

    def refused(work: Callable[[Transaction], None]) -> None:
        raise LeaseLost("taken over")

    with pytest.raises(LeaseLost):
        watch.step(recent, START + DAY, actor=world.actor, at=START, write=refused)

    assert world.windows("drift") == []
    assert step(world, watch, recent, START + DAY) == 1


def test_a_version_without_an_interval_of_its_holdout_is_measured_and_not_judged(
    world: MonitoringWorld, rng: np.random.Generator
) -> None:
    version = world.version(rng)
    replay(world, rng, range(7), skill=0.0)
    watch, recent = world.watch(version), world.recent()

    step(world, watch, recent, START + 8 * DAY)

    (row,) = world.windows("auc")
    assert (row.alarm, row.evidence) == (False, None)
    assert row.value is not None
    assert "no interval of its holdout" in row.details["summary"]


def test_a_version_that_a_client_registered_is_watched_without_a_profile(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    """It has no drift monitor, and what its client logged as `auc` is not taken for our own measurement."""
    bare = msgspec.structs.replace(version, profile=None, run=world.registry.tracked_run(world.registry.ann))
    replay(world, rng, range(8), skill=0.0)
    watch, recent = world.watch(bare), world.recent()

    step(world, watch, recent, START + 9 * DAY)

    assert world.windows("drift") == []
    assert [row.alarm for row in world.windows("auc")] == [False]
    assert watch.judged == START + 7 * DAY


def test_a_watch_without_any_monitor_holds_nothing_back(
    world: MonitoringWorld, version: ModelVersion
) -> None:
    policy = msgspec.structs.replace(POLICY, metrics=())
    watch, recent = world.watch(msgspec.structs.replace(version, profile=None), policy), world.recent()

    assert step(world, watch, recent, START + 9 * DAY) == 0
    assert watch.judged == START + 9 * DAY


def test_a_window_judged_from_a_sample_says_so(
    world: MonitoringWorld, rng: np.random.Generator, version: ModelVersion
) -> None:
    replay(world, rng, range(1), rows=600)
    watch, recent = world.watch(version), world.recent(most=400)

    step(world, watch, recent, START + DAY)

    (row,) = world.windows("drift")
    assert 200 <= row.rows <= 400
    assert row.details["sample"] == 0.5
    assert row.details["summary"].endswith("(a sample of 50.0%)")
