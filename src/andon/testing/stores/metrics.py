"""Checks of `Metrics`."""

from __future__ import annotations

import math

import pytest

from andon.core.entities import Metric
from andon.core.errors import Invalid, NotFound
from andon.core.ids import RunId
from andon.store.ports import Store, Transaction
from andon.testing import rows
from andon.testing.stores.place import StoreChecks, put

R1, R2 = RunId("r1"), RunId("r2")


def point(value: float, step: int = 0, *, key: str = "auc", run: RunId = R1, minutes: float = 0) -> Metric:
    """A point of a run's metric."""
    return Metric(run=run, key=key, value=value, at=rows.later(minutes), step=step)


class MetricChecks(StoreChecks):
    """Points are kept once, in order, whatever their values."""

    @pytest.fixture
    def two_runs(self, store: Store) -> None:
        put(store, rows.actor(), rows.line(), rows.run("r1"), rows.run("r2"))

    def test_points_come_back_by_step_time_and_value(self, store: Store, two_runs: None) -> None:
        points = [
            point(0.5, 2),
            point(0.7, 1, minutes=1),
            point(0.6, 1),
            point(0.1, 1, minutes=1),
            point(-0.25, -3),
        ]

        store.write(lambda tx: tx.metrics.log([*points, point(1.0, key="loss"), point(1.0, run=R2)]))

        assert store.read(lambda view: view.metrics.history(R1, "auc")) == [
            points[n] for n in (4, 2, 3, 1, 0)
        ]

    def test_what_is_no_number_is_kept(self, store: Store, two_runs: None) -> None:
        values = [math.inf, math.nan, -math.inf, 5e-324, 0.1 + 0.2]

        store.write(lambda tx: tx.metrics.log([point(value, step) for step, value in enumerate(values)]))

        found = [each.value for each in store.read(lambda view: view.metrics.history(R1, "auc"))]
        assert list(map(repr, found)) == list(map(repr, values))

    def test_the_same_point_again_changes_nothing(self, store: Store, two_runs: None) -> None:
        points = [point(math.nan), point(0.5), point(0.5)]

        for _ in range(2):
            store.write(lambda tx: tx.metrics.log(points))

        found = store.read(lambda view: view.metrics.history(R1, "auc"))
        assert [str(each.value) for each in found] == ["0.5", "nan"]

    @pytest.mark.parametrize("apart", [True, False], ids=["one by one", "at once"])
    def test_the_newest_value_is_that_of_the_highest_step_and_time(
        self, store: Store, two_runs: None, *, apart: bool
    ) -> None:
        points = [
            point(0.9, 5),
            point(0.8, 5, minutes=1),
            point(0.1, 4, minutes=9),
            point(0.7, 5, minutes=-1),
        ]
        points += [point(1.5, key="loss"), point(math.nan, 1, key="loss"), point(3.0, run=R2)]

        for some in [[each] for each in points] if apart else [points]:
            store.write(lambda tx, some=some: tx.metrics.log(some))  # type: ignore[misc]

        latest = store.read(lambda view: view.metrics.latest([R1, R2, RunId("r3")]))
        assert repr(latest) == repr({"r1": {"auc": 0.8, "loss": math.nan}, "r2": {"auc": 3.0}, "r3": {}})

    def test_a_long_history_is_read_in_pages(self, store: Store, two_runs: None) -> None:
        points = [point(float(n % 3), n // 3) for n in range(30)] + [point(math.nan, 5)]
        store.write(lambda tx: tx.metrics.log(points))

        def page(after: Metric | None) -> list[Metric]:
            return store.read(lambda view: view.metrics.history(R1, "auc", after=after, limit=4))

        found = page(None)
        while more := page(found[-1]):
            found += more

        assert repr(found) == repr(store.read(lambda view: view.metrics.history(R1, "auc")))
        assert len(found) == 31

    def test_the_newest_values_of_many_runs_come_at_once(self, store: Store, two_runs: None) -> None:
        many = [RunId(f"run {n:04}") for n in range(1201)]
        put(store, *(rows.run(ident) for ident in many))
        store.write(lambda tx: tx.metrics.log([point(float(n), run=run) for n, run in enumerate(many)]))

        latest = store.read(lambda view: view.metrics.latest(many))

        assert latest == {run: {"auc": float(n)} for n, run in enumerate(many)}

    def test_a_point_needs_its_run(self, store: Store, two_runs: None) -> None:
        def work(tx: Transaction) -> None:
            with pytest.raises(NotFound, match="run 'r9' does not exist"):
                tx.metrics.log([point(0.5), point(0.5, run=RunId("r9"))])
            tx.metrics.log([point(0.25)])

        store.write(work)

        assert store.read(lambda view: view.metrics.latest([R1])) == {"r1": {"auc": 0.25}}

    def test_a_point_that_cannot_be_kept_is_refused(self, store: Store, two_runs: None) -> None:
        with pytest.raises(Invalid, match="cannot be stored"):
            store.write(lambda tx: tx.metrics.log([point(0.5, 2**63)]))

    def test_points_go_with_their_run(self, store: Store, two_runs: None) -> None:
        store.write(lambda tx: tx.metrics.log([point(0.5)]))

        store.write(lambda tx: tx.runs.remove("r1"))

        assert store.read(lambda view: (view.metrics.latest([R1]), view.metrics.history(R1, "auc"))) == (
            {"r1": {}},
            [],
        )

    def test_nothing_to_log_is_no_error(self, store: Store) -> None:
        store.write(lambda tx: tx.metrics.log([]))

        assert store.read(lambda view: view.metrics.latest([])) == {}
