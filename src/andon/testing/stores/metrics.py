"""Checks of `Metrics`."""

from __future__ import annotations

import math

import msgspec
import pytest

from andon.core.entities import LoggedModel, ModelPoint, Point, Run
from andon.core.errors import Invalid, NotFound
from andon.core.ids import LoggedModelId, RunId
from andon.store.ports import Store, Transaction
from andon.testing import rows
from andon.testing.stores.place import StoreChecks, put

R1, R2, R9 = rows.run("r1"), rows.tracked_run("r2"), rows.tracked_run("r9")
M1, M2, M9 = rows.logged_model("m-1"), rows.logged_model("m-2"), rows.logged_model("m-9")
AT_MS = 1_364_819_400_000


def point(value: float, step: int = 0, *, key: str = "auc", minutes: float = 0) -> Point:
    """A point of a metric."""
    return Point(key, value, AT_MS + int(minutes * 60_000), step)


def of_model(value: float, step: int = 0, *, model: str = "m-1", run: str = "r1", **more: str) -> ModelPoint:
    """A point of a metric of a logged model."""
    said = ModelPoint(
        model=LoggedModelId(model), run=RunId(run), key="auc", value=value, at_ms=AT_MS, step=step
    )
    return msgspec.structs.replace(said, **more)


class MetricChecks(StoreChecks):
    """Points are kept once, in order, whatever their values."""

    @pytest.fixture
    def two_runs(self, store: Store) -> None:
        put(store, rows.actor(), rows.line(), R1, R2)

    @pytest.fixture
    def two_models(self, store: Store) -> None:
        put(store, rows.actor(), M1, M2)

    def test_points_come_back_by_step_time_and_value(self, store: Store, two_runs: None) -> None:
        points = [
            point(0.5, 2),
            point(0.7, 1, minutes=1),
            point(0.6, 1),
            point(0.1, 1, minutes=1),
            point(-0.25, -3),
        ]

        log(store, R1, *points, point(1.0, key="loss"))
        log(store, R2, point(1.0))

        assert history(store) == [points[n] for n in (4, 2, 3, 1, 0)]

    def test_what_is_no_number_is_kept(self, store: Store, two_runs: None) -> None:
        values = [math.inf, math.nan, -math.inf, 5e-324, 0.1 + 0.2]

        log(store, R1, *(point(value, step) for step, value in enumerate(values)))

        assert list(map(repr, (each.value for each in history(store)))) == list(map(repr, values))

    def test_at_one_step_and_time_nan_is_behind_all_numbers(self, store: Store, two_runs: None) -> None:
        log(store, R1, *map(point, [math.nan, math.inf, -math.inf, 0.5]))

        assert [str(each.value) for each in history(store)] == ["-inf", "0.5", "inf", "nan"]
        assert math.isnan(latest(store, R1)[R1.number]["auc"].value)

    def test_the_same_point_again_changes_nothing(self, store: Store, two_runs: None) -> None:
        points = [point(math.nan), point(0.5), point(0.5)]

        for _ in range(2):
            log(store, R1, *points)

        assert [str(each.value) for each in history(store)] == ["0.5", "nan"]

    @pytest.mark.parametrize("apart", [True, False], ids=["one by one", "at once"])
    def test_the_newest_value_is_that_of_the_highest_step_and_time(
        self, store: Store, two_runs: None, *, apart: bool
    ) -> None:
        newest = point(0.8, 5, minutes=1)
        points = [point(0.9, 5), newest, point(0.1, 4, minutes=9), point(0.7, 5, minutes=-1)]
        points += [point(1.5, key="loss"), point(math.nan, 1, key="loss")]

        for some in [[each] for each in points] if apart else [points]:
            log(store, R1, *some)
        log(store, R2, point(3.0))

        assert repr(latest(store, R1, R2, R9)) == repr(
            {
                R1.number: {"auc": newest, "loss": point(math.nan, 1, key="loss")},
                R2.number: {"auc": point(3.0)},
                R9.number: {},
            }
        )

    def test_a_long_history_is_read_in_pages(self, store: Store, two_runs: None) -> None:
        log(store, R1, *(point(float(n % 3), n // 3) for n in range(30)), point(math.nan, 5))

        def page(after: Point | None) -> list[Point]:
            return store.read(lambda view: view.metrics.history(R1, "auc", after=after, limit=4))

        found = page(None)
        while more := page(found[-1]):
            found += more

        assert repr(found) == repr(history(store))
        assert len(found) == 31

    def test_the_newest_values_of_many_runs_come_at_once(self, store: Store, two_runs: None) -> None:
        many = [rows.run(f"run {n:04}") for n in range(1201)]
        put(store, *many)

        def fill(tx: Transaction) -> None:
            for n, run in enumerate(many):
                tx.metrics.log(run, [point(float(n))])

        store.write(fill)

        assert latest(store, *many) == {run.number: {"auc": point(float(n))} for n, run in enumerate(many)}

    @pytest.mark.parametrize("key", ["a" * 250, "100 % _ \\ 'é' \" 😀", "system/cpu", "K", "k", ""])
    def test_the_key_of_a_metric_is_any_text(self, store: Store, two_runs: None, key: str) -> None:
        log(store, R1, point(0.5, key=key), point(0.25, key=f"{key}."))

        assert store.read(lambda view: view.metrics.history(R1, key)) == [point(0.5, key=key)]

    def test_a_point_needs_its_run(self, store: Store, two_runs: None) -> None:
        def work(tx: Transaction) -> None:
            with pytest.raises(NotFound, match="run 'r9' does not exist"):
                tx.metrics.log(R9, [point(0.5)])
            tx.metrics.log(R1, [point(0.25)])

        store.write(work)

        assert latest(store, R1, R9) == {R1.number: {"auc": point(0.25)}, R9.number: {}}

    @pytest.mark.parametrize(
        "bad",
        [point(0.5, 2**63), point(0.5, -(2**63) - 1), Point("auc", 0.5, 2**63), point(0.5, key="a\0b")],
        ids=["a large step", "a small step", "a late time", "NUL"],
    )
    def test_a_point_that_cannot_be_kept_is_refused(self, store: Store, two_runs: None, bad: Point) -> None:
        with pytest.raises(Invalid, match="cannot be stored"):
            log(store, R1, point(0.25), bad)

        assert latest(store, R1) == {R1.number: {}}

    def test_points_go_with_their_run(self, store: Store, two_runs: None) -> None:
        log(store, R1, point(0.5))

        store.write(lambda tx: tx.runs.remove("r1"))

        assert (latest(store, R1), history(store)) == ({R1.number: {}}, [])

    def test_nothing_to_log_is_no_error(self, store: Store) -> None:
        log(store, R9)
        store.write(lambda tx: tx.metrics.log_of_models([], []))

        assert latest(store) == {}
        assert measured(store) == {}

    def test_what_was_measured_of_a_model_is_kept_by_run_and_dataset(
        self, store: Store, two_models: None
    ) -> None:
        points = [
            of_model(0.5),
            of_model(0.6, dataset_name="day", dataset_digest="ab"),
            of_model(0.7, dataset_name="day", dataset_digest="cd"),
            of_model(0.8, run="r2"),
            of_model(math.nan, key="loss"),
        ]

        store.write(lambda tx: tx.metrics.log_of_models([M1, M2], [*points, of_model(0.1, model="m-2")]))

        assert repr(measured(store, "m-1", "m-2", "m-9")) == repr(
            {"m-1": points, "m-2": [of_model(0.1, model="m-2")], "m-9": []}
        )

    @pytest.mark.parametrize("apart", [True, False], ids=["one by one", "at once"])
    def test_of_a_model_the_newest_point_is_kept(
        self, store: Store, two_models: None, *, apart: bool
    ) -> None:
        points = [of_model(0.5, 3), of_model(math.inf, 4), of_model(0.9, 2)]

        for some in [[each] for each in points] if apart else [points]:
            store.write(lambda tx, some=some: tx.metrics.log_of_models([M1], some))  # type: ignore[misc]

        assert measured(store, "m-1") == {"m-1": [of_model(math.inf, 4)]}

    def test_what_is_measured_of_a_model_needs_the_model(self, store: Store, two_models: None) -> None:
        def work(tx: Transaction) -> None:
            with pytest.raises(NotFound, match="does not exist"):
                tx.metrics.log_of_models([M1, M9], [of_model(0.5), of_model(0.5, model="m-9")])
            with pytest.raises(Invalid, match="cannot be stored"):
                tx.metrics.log_of_models([M1], [of_model(0.5, 2**63)])
            tx.metrics.log_of_models([M2], [of_model(0.25, model="m-2")])

        store.write(work)

        assert measured(store, "m-1", "m-2") == {"m-1": [], "m-2": [of_model(0.25, model="m-2")]}

    def test_what_was_measured_goes_with_the_model(self, store: Store, two_models: None) -> None:
        store.write(lambda tx: tx.metrics.log_of_models([M1], [of_model(0.5)]))

        store.write(lambda tx: tx.logged_models.remove("m-1"))
        put(store, M1)

        assert measured(store, "m-1") == {"m-1": []}

    def test_what_was_measured_of_many_models_comes_at_once(self, store: Store, two_models: None) -> None:
        many: list[LoggedModel] = [rows.logged_model(f"m-{n:04}") for n in range(1201)]
        put(store, *many)
        points = [of_model(float(n), model=model.id) for n, model in enumerate(many)]

        store.write(lambda tx: tx.metrics.log_of_models(many, points))

        found = measured(store, *(model.id for model in many))
        assert found == {model.id: [point] for model, point in zip(many, points, strict=True)}


def log(store: Store, run: Run, *points: Point) -> None:
    store.write(lambda tx: tx.metrics.log(run, points))


def history(store: Store) -> list[Point]:
    return store.read(lambda view: view.metrics.history(R1, "auc"))


def latest(store: Store, *runs: Run) -> dict[int, dict[str, Point]]:
    return store.read(lambda view: view.metrics.latest(runs))


def measured(store: Store, *models: str) -> dict[LoggedModelId, list[ModelPoint]]:
    return store.read(lambda view: view.metrics.of_models([LoggedModelId(model) for model in models]))
