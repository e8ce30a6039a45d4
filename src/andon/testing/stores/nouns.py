"""Checks of `Collection`, on all nouns."""

from __future__ import annotations

import math
import re
from datetime import datetime

import msgspec
import pytest

from andon.core.entities import Cursor, Entity, MonitorWindow, RunModel
from andon.core.errors import AlreadyExists, Conflict, Invalid, NotFound
from andon.core.ids import LoggedModelId, RunId
from andon.store.ports import Store, Transaction
from andon.testing import rows
from andon.testing.stores.place import StoreChecks, put

replace = msgspec.structs.replace
WORLD = rows.world()


class NounChecks(StoreChecks):
    """Rows are kept as they were given, found by what they hold, and changed by one at a time."""

    def test_rows_come_back_as_they_were_written(self, full: Store) -> None:
        found = full.read(lambda view: [rows.rows_of(view, type(row)).get(row.id) for row in WORLD])

        assert found == WORLD

    def test_every_noun_has_its_collection(self, full: Store) -> None:
        counts = full.read(lambda view: {kind: rows.rows_of(view, kind).count() for kind in rows.COLLECTIONS})

        expected = {kind: sum(type(row) is kind for row in WORLD) for kind in rows.COLLECTIONS}
        expected |= {
            kind: expected[kind] + 1
            for kind in rows.COLLECTIONS
            if kind.__name__ in ("Workspace", "Actor", "Experiment")
        }
        assert counts == expected

    def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        for kind in rows.COLLECTIONS:
            assert store.read(lambda view, kind=kind: rows.rows_of(view, kind).find("nobody")) is None  # type: ignore[misc]
            with pytest.raises(NotFound, match="'nobody' does not exist"):
                store.read(lambda view, kind=kind: rows.rows_of(view, kind).get("nobody"))  # type: ignore[misc]

    def test_an_id_is_taken_once(self, full: Store) -> None:
        for row in WORLD:
            with pytest.raises(AlreadyExists, match=f"{re.escape(repr(row.id))} already exists"):
                full.write(lambda tx, row=row: rows.rows_of(tx, type(row)).add(row))  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("row", "named"),
        [
            (rows.actor("act_eve", "os:1000"), "subject 'os:1000' is taken, and that is actor 'act_ann'"),
            (rows.trigger("tr_2", "manual:1"), "line 'churn' and key 'manual:1' is taken"),
            (rows.model_version("mv_9", 1), "model 'churn' and number 1 is taken"),
            (rows.dataset_version(1, "other"), "dataset 'customers' and number 1 is taken"),
            (replace(rows.dataset_version(3), id="another"), "dataset 'customers' and manifest"),
            (rows.experiment(9, "a/b % _ \\ é"), "is taken, and that is experiment '2'"),
            (rows.tracked_run("r9", number=3), "number 3 is taken, and that is run 'r3'"),
            (
                rows.release("rel_9"),
                "an endpoint has one release in progress at most, and that is release 'rel_1'",
            ),
            (replace(rows.release("rel_9"), state="live"), "an endpoint has one live release at most"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_what_must_be_unique_is_taken_once(self, full: Store, row: Entity, named: str) -> None:
        with pytest.raises(AlreadyExists) as error:
            full.write(lambda tx: rows.rows_of(tx, type(row)).add(row))

        assert named in str(error.value)

    def test_releases_that_have_ended_may_be_many(self, full: Store) -> None:
        put(
            full,
            *(
                replace(rows.release(f"rel_x{state}"), state=state)
                for state in ("undone", "refused", "superseded")
            ),
        )

        assert full.read(lambda view: view.releases.count({"endpoint": rows.LINE})) == 5

    def test_a_change_raises_the_rev(self, full: Store) -> None:
        old = full.read(lambda view: view.runs.get("r1"))

        new = full.write(
            lambda tx: tx.runs.change(replace(old, state="running", error="é", started_at=rows.later(2)))
        )

        assert new == replace(old, state="running", error="é", started_at=rows.later(2), rev=1)
        assert full.read(lambda view: view.runs.get("r1")) == new

    def test_a_change_of_what_somebody_else_changed_is_refused(self, full: Store) -> None:
        old = full.read(lambda view: view.runs.get("r1"))
        full.write(lambda tx: tx.runs.change(replace(old, state="running")))

        with pytest.raises(
            Conflict, match=r"run 'r1' was changed by somebody else \(it is at rev 1, not 0\)"
        ):
            full.write(lambda tx: tx.runs.change(replace(old, state="killed")))
        assert full.read(lambda view: view.runs.get("r1")).state == "running"

    def test_a_change_of_what_is_gone_is_not_found(self, full: Store) -> None:
        with pytest.raises(NotFound, match="run 'r9' does not exist"):
            full.write(lambda tx: tx.runs.change(rows.run("r9")))

    def test_a_change_to_what_must_be_unique_is_refused(self, full: Store) -> None:
        full.write(lambda tx: tx.releases.change(replace(tx.releases.get("rel_1"), state="undone")))

        with pytest.raises(
            Conflict, match="an endpoint has one live release at most, and that is release 'rel_2'"
        ):
            full.write(lambda tx: tx.releases.change(replace(tx.releases.get("rel_1"), state="live")))

    def test_one_live_release_gives_way_to_the_next_in_one_transaction(self, full: Store) -> None:
        def switch(tx: Transaction) -> None:
            tx.releases.change(replace(tx.releases.get("rel_2"), state="superseded"))
            tx.releases.change(replace(tx.releases.get("rel_1"), state="live"))

        full.write(switch)

        assert [row.id for row in full.read(lambda view: view.releases.select({"state": "live"}))] == [
            "rel_1"
        ]

    @pytest.mark.parametrize(
        ("row", "named"),
        [
            (rows.run("r9", on="nowhere"), "refers to line 'nowhere', which is not in lines"),
            (
                replace(rows.run("r9"), experiment="9"),
                "refers to experiment '9', which is not in experiments",
            ),
            (
                replace(rows.model_version("mv_9", 9), model="x"),
                "refers to model 'x', which is not in models",
            ),
            (
                RunModel(
                    id="x", run=RunId("r9"), model=LoggedModelId("m-1"), direction="input", created_at=rows.AT
                ),
                "refers to run 'r9', which is not in runs",
            ),
            (rows.release("rel_9", endpoint="x", version="mv_9"), "refers to model_version 'mv_9'"),
        ],
        ids=["line", "experiment", "model", "run", "model version"],
    )
    def test_a_row_that_refers_to_nothing_is_refused(self, full: Store, row: Entity, named: str) -> None:
        with pytest.raises(NotFound) as error:
            full.write(lambda tx: rows.rows_of(tx, type(row)).add(row))

        assert named in str(error.value)

    def test_what_is_referred_to_cannot_be_removed(self, full: Store) -> None:
        with pytest.raises(Conflict, match="line 'churn' is still referred to"):
            full.write(lambda tx: tx.lines.remove(rows.LINE))

    def test_removing_twice_changes_nothing(self, full: Store) -> None:
        for _ in range(2):
            full.write(lambda tx: tx.feedback.remove("fb_1"))

        assert full.read(lambda view: view.feedback.count()) == 0

    def test_what_only_a_run_has_goes_with_it_and_what_it_made_stays(self, full: Store) -> None:
        for ident in ("r3", "r1"):
            full.write(lambda tx, ident=ident: tx.runs.remove(ident))  # type: ignore[misc]

        left = full.read(
            lambda view: (view.run_inputs.count(), view.run_models.count(), view.logged_models.get("m-2").run)
        )
        assert left == (0, 0, "r3")
        assert full.read(lambda view: view.model_versions.get("mv_1").run) == "r1"

    def test_a_logged_model_that_goes_leaves_no_link(self, full: Store) -> None:
        full.write(lambda tx: tx.logged_models.remove("m-2"))

        assert full.read(lambda view: (view.run_models.count(), view.runs.get("r3").id)) == (0, "r3")

    def test_an_experiment_goes_after_its_runs(self, full: Store) -> None:
        with pytest.raises(Conflict, match="experiment '1' is still referred to"):
            full.write(lambda tx: tx.experiments.remove("1"))

        full.write(lambda tx: tx.experiments.remove("2"))

        assert full.read(lambda view: view.experiments.find("2")) is None

    def test_a_refusal_that_is_caught_does_not_spoil_the_transaction(self, full: Store) -> None:
        def work(tx: Transaction) -> str:
            with pytest.raises(AlreadyExists):
                tx.triggers.add(rows.trigger("tr_2", "manual:1"))
            with pytest.raises(NotFound):
                tx.runs.add(rows.run("r9", on="nowhere"))
            with pytest.raises(Conflict):
                tx.releases.change(replace(tx.releases.get("rel_1"), state="live"))
            with pytest.raises(Conflict):
                tx.lines.remove(rows.LINE)
            return tx.triggers.add(rows.trigger("tr_3", "manual:3")).id

        assert full.write(work) == "tr_3"
        assert full.read(lambda view: view.triggers.count()) == 2

    @pytest.mark.parametrize(
        ("row", "named"),
        [
            (replace(rows.run("r9"), error="a\0b"), "error holds a character that cannot be stored"),
            (replace(rows.run("r9"), error="\ud800"), "error holds a character"),
            (replace(rows.run("r9"), created_at=datetime(2013, 1, 1)), "created_at is a time without a zone"),  # noqa: DTZ001
            (replace(rows.run("r9"), seed=2**63), "seed is beyond 64 bits"),
            (replace(rows.run("r9"), state="dreaming"), r"Invalid enum value 'dreaming'"),
            (replace(rows.run("r9"), seed="7"), r"Expected `int`, got `str`"),
            (Cursor(id="x", seq=True), "Expected `int`, got `bool`"),
        ],
        ids=["NUL", "half a pair", "no zone", "too large", "no state", "no number", "no number either"],
    )
    def test_what_no_database_keeps_is_refused_at_the_door(
        self, full: Store, row: Entity, named: str
    ) -> None:
        with pytest.raises(Invalid) as error:
            full.write(lambda tx: rows.rows_of(tx, type(row)).add(row))

        assert named in str(error.value)

    def test_nan_is_no_value_of_a_noun(self, full: Store) -> None:
        window = next(row for row in WORLD if isinstance(row, MonitorWindow))

        with pytest.raises(Invalid, match="value is NaN"):
            full.write(lambda tx: tx.monitor_windows.add(replace(window, id="x", value=math.nan)))
