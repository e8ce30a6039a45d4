"""Tracked runs as rows and events: begun, written to, ended, taken up again, deleted and brought back."""

from __future__ import annotations

import math
import random
from functools import partial

import msgspec
import pytest

from andon.core.entities import ModelPoint, Point, Run, owner
from andon.core.errors import Invalid, NotFound
from andon.core.ids import LoggedModelId, RunId, node
from andon.store.ports import Store
from andon.testing.rows import ANN, AT, later, line, logged_model
from andon.testing.rows import run as line_run
from andon.testing.stores.place import put
from andon.tracking import runs as verbs

NOBODY = "f" * 32


def begun(store: Store, **more: object) -> Run:
    given = {
        "actor": ANN,
        "at": AT,
        "name": "first",
        "tags": {"mlflow.runName": "first", "team": "fraud"},
        **more,
    }
    return store.write(lambda tx: verbs.create_run(tx, "0", **given)[0])  # type: ignore[arg-type]


def now(store: Store, run: Run) -> Run:
    return store.read(lambda reader: reader.runs.get(run.id))


def update(store: Store, run: Run, **more: object) -> Run:
    return store.write(lambda tx: verbs.update_run(tx, run.id, **{"at": later(5), **more}))  # type: ignore[arg-type]


def log(store: Store, run: Run, *points: Point) -> bool:
    return store.write(lambda tx: verbs.log_points(tx, run.id, points))


@pytest.mark.capability("C2")
def test_who_began_a_run_is_on_record_and_what_the_client_says_is_a_claim(store: Store) -> None:
    run = begun(store, claimed_user="somebody else")

    (event,) = store.read(lambda reader: reader.ledger.latest(subject=node("run", run.id)))

    assert (run.actor, run.claimed_user, run.cause) == (ANN, "somebody else", "actor:act_ann")
    assert (event.kind, event.actor, event.inputs) == ("run.created", ANN, ("experiment:0",))
    assert "somebody" not in msgspec.json.encode(event).decode()


def test_a_run_is_written_as_it_was_begun(store: Store) -> None:
    run = begun(store, started_at=later(-60))

    found = now(store, run)

    assert found == run
    assert (found.state, found.name, found.started_at, found.finished_at) == (
        "running",
        "first",
        later(-60),
        None,
    )
    assert store.read(lambda reader: reader.run_tags.of([run.number])) == {
        run.number: {"mlflow.runName": "first", "team": "fraud"}
    }


def test_a_run_needs_an_experiment(store: Store) -> None:
    with pytest.raises(NotFound, match="No Experiment with id=7"):
        store.write(lambda tx: verbs.create_run(tx, "7", actor=ANN, at=AT, name="r", tags={}))


def test_points_are_kept_with_nan_and_the_latest_by_step(store: Store) -> None:
    run = begun(store)

    late = log(store, run, Point("loss", 1.0, 5, 0), Point("loss", math.nan, 6, 1), Point("acc", -0.0, 1, -3))

    latest = store.read(lambda reader: reader.metrics.latest([run]))[run.number]
    assert late is False
    assert math.isnan(latest["loss"].value)
    assert latest["acc"] == Point("acc", 0.0, 1, -3)
    assert now(store, run) == run


def test_a_param_keeps_its_first_value(store: Store) -> None:
    run = begun(store)

    store.write(lambda tx: verbs.log_params(tx, run.id, {"alpha": "1", "beta": "2"}))
    store.write(lambda tx: verbs.log_params(tx, run.id, {"alpha": "1"}))
    with pytest.raises(Invalid, match=r"Changing param values is not allowed.*'alpha' is '1', not '3'"):
        store.write(lambda tx: verbs.log_params(tx, run.id, {"gamma": "9", "alpha": "3"}))

    assert store.read(lambda reader: reader.params.of([run.number]))[run.number] == {
        "alpha": "1",
        "beta": "2",
    }


def test_the_name_and_its_tag_go_together(store: Store) -> None:
    run = begun(store)

    def named() -> tuple[str | None, str]:
        tags = store.read(lambda reader: reader.run_tags.of([run.number]))[run.number]
        return now(store, run).name, tags[verbs.NAME_TAG]

    update(store, run, name="second")
    by_verb = named()
    store.write(lambda tx: verbs.set_tags(tx, tx.runs.get(run.id), {verbs.NAME_TAG: "third", "a": "b"}))

    assert (by_verb, named()) == (("second", "second"), ("third", "third"))


def test_a_run_ends_and_is_taken_up_again(store: Store) -> None:
    run = begun(store)

    ended = update(store, run, state="finished")
    again = update(store, run, state="running")
    failed = update(store, run, state="failed", finished_at=later(9))

    assert (ended.state, ended.finished_at) == ("finished", later(5))
    assert (again.state, again.finished_at) == ("running", later(5))
    assert (failed.state, failed.finished_at) == ("failed", later(9))


def test_an_update_that_says_nothing_new_writes_nothing(store: Store) -> None:
    run = update(store, begun(store), state="finished", finished_at=later(1))

    assert update(store, run, state="finished", finished_at=later(1)) == run
    assert update(store, run) == run


def test_what_is_written_after_the_end_takes_the_seal_away(store: Store) -> None:
    run = update(store, begun(store), state="finished")
    store.write(lambda tx: tx.runs.change(msgspec.structs.replace(run, seal="sha256:0", seals=1)))

    late = log(store, run, Point("loss", 1.0, 5, 0))

    after = now(store, run)
    assert (late, after.seal, after.seals, after.rev) == (True, None, 1, run.rev + 2)


def test_a_late_write_that_is_refused_leaves_the_seal(store: Store) -> None:
    run = update(store, begun(store), state="finished")
    store.write(lambda tx: verbs.log_params(tx, run.id, {"a": "1"}))
    sealed = store.write(
        lambda tx: tx.runs.change(msgspec.structs.replace(tx.runs.get(run.id), seal="sha256:0", seals=1))
    )

    with pytest.raises(Invalid):
        store.write(lambda tx: verbs.log_params(tx, run.id, {"a": "2"}))

    assert now(store, run) == sealed


def test_deleting_hides_restoring_brings_back_and_both_are_on_record_once(store: Store) -> None:
    run = begun(store)

    for at in (later(1), later(2)):
        store.write(partial(verbs.delete_run, ident=run.id, actor=ANN, at=at))
    gone = now(store, run).deleted_at
    for at in (later(3), later(4)):
        store.write(partial(verbs.restore_run, ident=run.id, actor=ANN, at=at))

    events = store.read(lambda reader: reader.ledger.latest(subject=node("run", run.id)))
    assert (gone, now(store, run).deleted_at) == (later(1), None)
    assert [event.kind for event in events] == ["run.restored", "run.deleted", "run.created"]


def test_a_deleted_run_takes_nothing(store: Store) -> None:
    run = begun(store)
    store.write(lambda tx: verbs.delete_run(tx, run.id, actor=ANN, at=AT))

    for work in (
        lambda tx: verbs.log_points(tx, run.id, [Point("a", 1.0, 1)]),
        lambda tx: verbs.log_params(tx, run.id, {"a": "1"}),
        lambda tx: verbs.update_run(tx, run.id, name="new", at=AT),
        lambda tx: verbs.active_run(tx, run.id),
        lambda tx: verbs.delete_tag(tx, run.id, "team"),
    ):
        with pytest.raises(Invalid, match="must be in the 'active' state"):
            store.write(work)


def test_a_run_that_is_not_there_is_said_so(store: Store) -> None:
    for work in (
        lambda tx: verbs.log_points(tx, NOBODY, [Point("a", 1.0, 1)]),
        lambda tx: verbs.log_params(tx, NOBODY, {"a": "1"}),
        lambda tx: verbs.update_run(tx, NOBODY, at=AT),
        lambda tx: verbs.delete_tag(tx, NOBODY, "a"),
        lambda tx: verbs.delete_run(tx, NOBODY, actor=ANN, at=AT),
        lambda tx: verbs.restore_run(tx, NOBODY, actor=ANN, at=AT),
        lambda tx: verbs.find_run(tx, NOBODY),
    ):
        with pytest.raises(NotFound, match=f"Run with id={NOBODY} not found"):
            store.write(work)


def test_a_tag_that_is_not_there_is_said_so(store: Store) -> None:
    run = begun(store)

    store.write(lambda tx: verbs.delete_tag(tx, run.id, "team"))

    with pytest.raises(NotFound, match="No tag with name: team"):
        store.write(lambda tx: verbs.delete_tag(tx, run.id, "team"))


def test_a_lines_run_takes_tags_and_nothing_else(store: Store) -> None:
    put(store, line(), line_run("a" * 32))
    made = store.read(lambda reader: reader.runs.get("a" * 32))

    store.write(lambda tx: verbs.set_tags(tx, verbs.active_run(tx, made.id), {"reviewed": "yes"}))
    for work in (
        lambda tx: verbs.log_points(tx, made.id, [Point("a", 1.0, 1)]),
        lambda tx: verbs.log_params(tx, made.id, {"a": "1"}),
        lambda tx: verbs.update_run(tx, made.id, state="finished", at=AT),
        lambda tx: verbs.delete_run(tx, made.id, actor=ANN, at=AT),
    ):
        with pytest.raises(Invalid, match="belongs to the line 'churn'"):
            store.write(work)

    assert now(store, made) == made
    assert store.read(lambda reader: reader.run_tags.of([made.number]))[made.number] == {"reviewed": "yes"}


def test_what_is_measured_of_a_model_is_noted_with_it_and_with_the_run(store: Store) -> None:
    put(store, logged_model("m-1"))
    run = begun(store)
    point = Point("auc", 0.9, 5, 1)
    of_model = ModelPoint(
        model=LoggedModelId("m-1"), run=run.id, key="auc", value=0.9, at_ms=5, step=1, dataset_name="flights"
    )

    store.write(lambda tx: verbs.log_points(tx, run.id, [point], [of_model]))

    assert store.read(lambda reader: reader.metrics.of_models([LoggedModelId("m-1")])) == {"m-1": [of_model]}
    assert store.read(lambda reader: reader.metrics.latest([run]))[run.number] == {"auc": point}
    lost = msgspec.structs.replace(of_model, model=LoggedModelId("m-2"))
    with pytest.raises(NotFound, match="m-2"):
        store.write(lambda tx: verbs.log_points(tx, run.id, [Point("f1", 1.0, 1)], [lost]))
    assert set(store.read(lambda reader: reader.metrics.latest([run]))[run.number]) == {"auc"}


def test_models_of_older_clients_are_listed_in_a_tag_without_their_configuration(store: Store) -> None:
    run = begun(store)
    model = {
        "run_id": run.id, "artifact_path": "model", "utc_time_created": "2020", "signature": "left out",
        "flavors": {"sklearn": {"version": "1", "config": {"secret": 1}}, "odd": "text"},
    }  # fmt: skip

    store.write(lambda tx: verbs.note_model(tx, tx.runs.get(run.id), model))
    store.write(lambda tx: verbs.note_model(tx, tx.runs.get(run.id), {**model, "artifact_path": "other"}))

    text = store.read(lambda reader: reader.run_tags.of([run.number]))[run.number][verbs.MODELS_TAG]
    kept = {
        "run_id": run.id, "artifact_path": "model", "utc_time_created": "2020",
        "flavors": {"sklearn": {"version": "1"}, "odd": "text"},
    }  # fmt: skip
    assert msgspec.json.decode(text) == [kept, {**kept, "artifact_path": "other"}]


def test_a_tag_of_models_that_a_client_broke_begins_anew_and_grows_no_further_than_it_may(
    store: Store,
) -> None:
    run = begun(store)
    store.write(lambda tx: tx.run_tags.put(owner(run), {verbs.MODELS_TAG: "no list"}))

    store.write(lambda tx: verbs.note_model(tx, run, {"run_id": run.id}))

    text = store.read(lambda reader: reader.run_tags.of([run.number]))[run.number][verbs.MODELS_TAG]
    assert msgspec.json.decode(text) == [{"run_id": run.id}]
    with pytest.raises(Invalid, match="too many models"):
        store.write(lambda tx: verbs.note_model(tx, run, {"artifact_path": "x" * 1_000_000}))


def test_names_of_chance_differ_and_repeat_with_their_seed() -> None:
    names = [verbs.random_name(random.Random(seed)) for seed in range(50)]

    assert len(set(names)) > 45
    assert names == [verbs.random_name(random.Random(seed)) for seed in range(50)]


def test_a_run_may_bring_its_id(store: Store) -> None:
    assert begun(store, ident=RunId("b" * 32)).id == "b" * 32
