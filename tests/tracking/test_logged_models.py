"""Logged models as rows: made, finished, tagged, deleted, and read with all that belongs to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from andon.core.entities import LoggedModel, ModelPoint
from andon.core.errors import Invalid, NotFound
from andon.core.ids import LoggedModelId, RunId
from andon.core.workspace import Layout, Settings
from andon.store.ports import Store
from andon.testing.rows import ANN, AT, actor, experiment, later, tracked_run
from andon.testing.stores import Place
from andon.testing.stores.place import put
from andon.tracking.logged_models import (
    LoggedModelView,
    add_model_params,
    check_model_name,
    create_logged_model,
    delete_logged_model,
    delete_model_tag,
    find_logged_model,
    finish_logged_model,
    set_model_tags,
    views,
)

RUN = "a" * 32


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An experiment with a run, and one whose artifacts are elsewhere."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    settings = Settings() if url is None else Settings(database_url=url)
    store = Place(Layout(tmp_path / ".andon"), settings).open()
    away = replace(experiment(2, "away"), artifact_location="s3://bucket/away")
    put(store, actor(), experiment(), away, tracked_run(RUN, within="1"))
    yield store
    store.close()


def made(store: Store, name: str = "forest", within: str = "1", **more: object) -> LoggedModel:
    return store.write(lambda tx: create_logged_model(tx, within, name, actor=ANN, at=AT, **more))  # type: ignore[arg-type]


def seen(store: Store, *models: LoggedModel) -> list[LoggedModelView]:
    return store.read(lambda reader: views(reader, [model.id for model in models]))


def test_a_model_is_made_with_what_it_is_told_and_is_on_record(store: Store) -> None:
    model = made(
        store,
        run=RUN,
        model_type="tree",
        params={"depth": "3"},
        tags={"team": "a"},
        ident=LoggedModelId("m-1"),
    )
    other = made(store, "net")

    events = store.read(lambda reader: reader.ledger.latest(limit=2))
    assert (model.state, model.run, model.model_type, model.created_at) == ("pending", RUN, "tree", AT)
    assert [(event.kind, event.subject, event.inputs) for event in events] == [
        ("logged_model.created", f"logged_model:{other.id}", ("experiment:1",)),
        ("logged_model.created", "logged_model:m-1", (f"run:{RUN}",)),
    ]
    assert seen(store, other, model) == [
        LoggedModelView(model=other, location=None, params={}, tags={}, metrics=[]),
        LoggedModelView(model=model, location=None, params={"depth": "3"}, tags={"team": "a"}, metrics=[]),
    ]


def test_a_run_that_nobody_knows_is_a_claim_and_no_lineage(store: Store) -> None:
    model = made(store, run="f" * 32)

    (event,) = store.read(lambda reader: reader.ledger.latest(limit=1))
    assert (model.run, event.inputs) == ("f" * 32, ("experiment:1",))


def test_an_experiment_must_be_there_and_active(store: Store) -> None:
    store.write(lambda tx: tx.experiments.change(replace(tx.experiments.get("2"), deleted_at=AT)))

    with pytest.raises(NotFound):
        made(store, within="7")
    with pytest.raises(Invalid, match="'active' state"):
        made(store, within="2")
    assert store.read(lambda reader: reader.logged_models.count()) == 0


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a.b", "a%b", 'a"b', "a'b", "n" * 501])
def test_a_name_that_cannot_be_in_an_address_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="Invalid model name"):
        check_model_name(name)


def test_saving_ends_well_or_not_and_again(store: Store) -> None:
    model = made(store)

    ready = store.write(lambda tx: finish_logged_model(tx, model.id, "ready", at=later(1)))
    again = store.write(lambda tx: finish_logged_model(tx, model.id, "ready", at=later(2)))
    failed = store.write(lambda tx: finish_logged_model(tx, model.id, "failed", at=later(3)))

    assert (ready.state, ready.changed_at, again) == ("ready", later(1), ready)
    assert (failed.state, failed.changed_at) == ("failed", later(3))


def test_params_stay_and_tags_change(store: Store) -> None:
    model = made(store, params={"a": "1"}, tags={"t": "1"})

    store.write(lambda tx: add_model_params(tx, model.id, {"a": "1", "b": "2"}))
    with pytest.raises(Invalid, match="Changing param values is not allowed"):
        store.write(lambda tx: add_model_params(tx, model.id, {"c": "3", "a": "9"}))
    store.write(lambda tx: set_model_tags(tx, model.id, {"t": "2", "u": "3"}))
    store.write(lambda tx: delete_model_tag(tx, model.id, "u"))
    with pytest.raises(NotFound, match="No tag with key 'u'"):
        store.write(lambda tx: delete_model_tag(tx, model.id, "u"))

    (view,) = seen(store, model)
    assert (view.params, view.tags) == ({"a": "1", "b": "2"}, {"t": "2"})


def test_what_was_deleted_is_met_only_by_who_asks_for_it(store: Store) -> None:
    model = made(store)
    before = store.read(lambda reader: reader.ledger.head()[0])

    for _ in range(2):
        store.write(lambda tx: delete_logged_model(tx, model.id, actor=ANN, at=later(1)))

    found = store.read(lambda reader: find_logged_model(reader, model.id, deleted=True))
    events = store.read(lambda reader: reader.ledger.after(before))
    assert (found.deleted_at, found.changed_at) == (later(1), later(1))
    assert [(event.kind, event.subject) for event in events] == [
        ("logged_model.deleted", f"logged_model:{model.id}")
    ]
    for work in (
        lambda tx: find_logged_model(tx, model.id),
        lambda tx: finish_logged_model(tx, model.id, "ready", at=AT),
        lambda tx: add_model_params(tx, model.id, {"a": "1"}),
        lambda tx: set_model_tags(tx, model.id, {"a": "1"}),
        lambda tx: delete_model_tag(tx, model.id, "a"),
        lambda tx: delete_logged_model(tx, "m-none", actor=ANN, at=AT),
    ):
        with pytest.raises(NotFound, match="not found"):
            store.write(work)


def test_views_come_in_the_order_asked_for_with_metrics_and_place(store: Store) -> None:
    here, away = made(store), made(store, within="2")
    point = ModelPoint(model=here.id, run=RunId(RUN), key="auc", value=0.7, at_ms=5, step=1, dataset_name="d")
    store.write(lambda tx: tx.metrics.log_of_models([here], [point]))

    first, second = seen(store, away, replace(here, id=LoggedModelId("m-gone")), here)

    assert (first.model, first.location, first.metrics) == (away, "s3://bucket/away", [])
    assert (second.model, second.location, second.metrics) == (here, None, [point])
    assert seen(store) == []
