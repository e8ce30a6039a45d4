"""Checks of `Reader.search`: random queries over a random world, against a search written the slow and obvious way."""

from __future__ import annotations

import math
import operator
import random
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from andon.core.clock import to_us
from andon.core.entities import LoggedModel, ModelPoint, Point, Run, RunInput, owner
from andon.core.errors import Invalid
from andon.core.ids import ExperimentId, RunId
from andon.core.search import Condition, DatasetScope, Field, Found, Order, Query
from andon.store.ports import Reader, Store, Transaction
from andon.testing import rows
from andon.testing.stores.place import StoreChecks, put

RUNS = 90
QUERIES = 150
EXPERIMENTS = ("0", "1", "2")
TEXTS = ("a", "b", "B", "a" * 200 + "z", "a" * 200 + "y", "a" * 200, "100%", "x_y", "", "ab*[c]?", "\\")
METRICS = (0.0, 0.5, 0.5, -1.0, 1e300, math.inf, -math.inf, math.nan)
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Thing(msgspec.Struct):
    """A run, with all that it can be searched by."""

    run: Run
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    datasets: list[dict[str, str | None]]


class SearchChecks(StoreChecks):
    """Every page holds what the obvious search gives, in that order, once."""

    @pytest.fixture
    def world(self, store: Store) -> list[Thing]:
        put(store, rows.actor(), rows.experiment(1, "one"), rows.experiment(2, "two"))
        made = things(random.Random(7))
        for thing in made:
            store.write(partial(_write, thing))
        return made

    def test_random_queries_give_what_an_obvious_search_gives(self, store: Store, world: list[Thing]) -> None:
        rng = random.Random(11)

        for number in range(QUERIES):
            query = random_query(rng)
            assert pages(store, query) == expected(world, query), (number, query)

    def test_a_page_token_belongs_to_its_query(self, store: Store, world: list[Thing]) -> None:
        query = Query(noun="run", scope=EXPERIMENTS, limit=5)
        token = store.read(lambda view: view.search(query)).next
        assert token is not None

        for other in (
            msgspec.structs.replace(query, scope=("0",), after=token),
            msgspec.structs.replace(query, order=(Order(Field("metric", "m")),), after=token),
            msgspec.structs.replace(query, after=token[:-4]),
            msgspec.structs.replace(query, after="no token"),
            msgspec.structs.replace(query, after="\N{SNOWMAN}"),
        ):
            with pytest.raises(Invalid, match="page token"):
                store.read(lambda view, other=other: view.search(other))  # type: ignore[misc]

    def test_an_empty_page_was_asked_for(self, store: Store, world: list[Thing]) -> None:
        assert store.read(lambda view: view.search(Query(noun="run", scope=("0",), limit=0))).ids == ()
        assert store.read(lambda view: view.search(Query(noun="run", scope=(), limit=9))).ids == ()

    @pytest.mark.parametrize(
        "field",
        [
            Field("attribute", "mood"),
            Field("dataset", "size"),
            Field("metric", "a\0b"),
            Field("param", "\ud800"),
        ],
    )
    def test_a_field_that_is_not_there_is_refused(self, store: Store, field: Field) -> None:
        query = Query(noun="run", scope=("0",), where=(Condition(field, "=", "x"),))

        with pytest.raises(Invalid):
            store.read(lambda view: view.search(query))

    def test_text_of_a_client_is_never_a_statement(self, store: Store, world: list[Thing]) -> None:
        evil = "x' OR 1=1; DROP TABLE runs; --"
        where = (Condition(Field("tag", evil), "=", evil), Condition(Field("param", "p"), "LIKE", evil))

        found = store.read(lambda view: view.search(Query(noun="run", scope=("0",), where=where)))

        assert found.ids == ()
        assert store.read(lambda view: view.runs.count()) == RUNS

    @pytest.mark.parametrize("text", ["%a" * 2000, "a%" * 2000 + "b", "_%" * 2000, "%" * 5000])
    def test_a_pattern_that_makes_others_run_for_ever_ends(
        self, store: Store, world: list[Thing], text: str
    ) -> None:
        run = world[0].run
        store.write(lambda tx: tx.run_tags.put(owner(run), {"long": "a" * 5000}))
        where = (Condition(Field("tag", "long"), "ILIKE", text),)

        found = store.read(
            lambda view: view.search(Query(noun="run", scope=(run.experiment,), where=where, deleted="all"))
        )

        assert set(found.ids) <= {run.id}

    def test_times_compare_in_milliseconds(self, store: Store, world: list[Thing]) -> None:
        some = world[0].run
        assert some.started_at is not None
        at_ms = to_us(some.started_at) // 1000
        same = Condition(Field("attribute", "started_at"), "=", at_ms)
        later = Condition(Field("attribute", "started_at"), ">", at_ms)

        def ids(*where: Condition) -> set[str]:
            query = Query(noun="run", scope=(some.experiment,), where=where, deleted="all")
            return set(store.read(lambda view: view.search(query)).ids)

        assert some.id in ids(same)
        assert some.id not in ids(later)

    def test_logged_models_are_found_by_what_was_measured_of_them(self, store: Store) -> None:
        models = [_logged_model(number) for number in range(4)]
        put(store, rows.actor(), *models)
        points = [
            _of_model(models[0], 0.5, "train"), _of_model(models[0], 0.9, "test", at_ms=5), _of_model(models[1], 0.7, "test"),
            _of_model(models[2], math.nan, "test"),
        ]  # fmt: skip
        store.write(lambda tx: tx.metrics.log_of_models(models, points))
        store.write(lambda tx: tx.logged_model_params.put(owner(models[3]), {"p": "1"}))

        def ids(**asked: Any) -> list[str]:
            query = Query(noun="logged_model", scope=("0",), limit=1, **asked)
            return pages(store, query)

        accuracy = Field("metric", "acc")
        assert ids() == ["m-3", "m-2", "m-1", "m-0"]
        assert ids(order=(Order(accuracy, down=True),)) == ["m-0", "m-1", "m-2", "m-3"]
        assert ids(order=(Order(accuracy, dataset=DatasetScope("train")),)) == ["m-0", "m-3", "m-2", "m-1"]
        assert ids(where=(Condition(accuracy, "<", 0.8),)) == ["m-1", "m-0"]
        assert ids(where=(Condition(accuracy, "<", 0.8),), datasets=(DatasetScope("test", "d"),)) == ["m-1"]
        assert ids(where=(Condition(Field("param", "p"), "=", "1"),)) == ["m-3"]
        assert ids(datasets=(DatasetScope("train"), DatasetScope("test", "other"))) == ["m-0"]


def pages(store: Store, query: Query) -> list[str]:
    """The ids of all pages of a query."""
    found: list[str] = []
    while True:
        page = store.read(partial(_page, query))
        assert len(page.ids) <= query.limit
        found += page.ids
        if page.next is None:
            return found
        assert len(page.ids) == query.limit
        query = msgspec.structs.replace(query, after=page.next)


def _page(query: Query, view: Reader) -> Found:
    return view.search(query)


# --- a random world ---


def things(rng: random.Random) -> list[Thing]:
    """Runs of all kinds: some deleted, some that never started, many that share a value."""
    return [_thing(rng, number) for number in range(1, RUNS + 1)]


def _thing(rng: random.Random, number: int) -> Thing:
    started = rows.AT + timedelta(milliseconds=rng.randrange(40))
    run = Run(
        id=RunId(f"{rng.getrandbits(128):032x}"), number=number, experiment=ExperimentId(rng.choice(EXPERIMENTS)),
        state=rng.choice(("running", "finished")), cause="actor:act_ann", actor=rows.ANN, created_at=started,
        started_at=None if number % 17 == 0 else started, name=rng.choice((None, "n", "m", "N")),
        deleted_at=rows.AT if rng.random() < 0.2 else None,
    )  # fmt: skip
    some = {key: rng.choice(METRICS) for key in ("m", "k") if rng.random() < 0.8}
    datasets = [
        {"name": rng.choice("de"), "digest": rng.choice("12"), "context": rng.choice((None, "training"))}
        for _ in range(rng.randrange(3))
    ]
    return Thing(
        run, some, {key: rng.choice(TEXTS) for key in ("p", "q") if rng.random() < 0.7},
        {"t": rng.choice(TEXTS)} if rng.random() < 0.7 else {}, datasets,
    )  # fmt: skip


def _write(thing: Thing, tx: Transaction) -> None:
    run = tx.runs.add(thing.run)
    tx.metrics.log(run, [Point(key, value, 0) for key, value in thing.metrics.items()])
    tx.params.add(owner(run), thing.params)
    tx.run_tags.put(owner(run), thing.tags)
    for number, each in enumerate(thing.datasets):
        tx.run_inputs.add(
            RunInput(
                id=f"{run.id}/{number}", run=run.id, experiment=run.experiment, source_type="local", source="x",
                created_at=rows.AT, name=str(each["name"]), digest=str(each["digest"]), context=each["context"],
            )
        )  # fmt: skip


def random_query(rng: random.Random) -> Query:
    """A query of up to three conditions and two keys."""
    fields = [
        Field("metric", "m"), Field("metric", "k"), Field("param", "p"), Field("param", "q"), Field("tag", "t"),
        Field("attribute", "name"), Field("attribute", "state"),
    ]  # fmt: skip
    where = tuple(_condition(rng, rng.choice(fields)) for _ in range(rng.choice((0, 0, 1, 1, 2, 3))))
    if rng.random() < 0.15:
        where += (Condition(Field("dataset", rng.choice(("name", "digest"))), "=", rng.choice("de12")),)
    orders = [
        *fields,
        Field("attribute", "started_at"),
        Field("attribute", "finished_at"),
        Field("attribute", "id"),
    ]
    order = tuple(Order(rng.choice(orders), rng.random() < 0.5) for _ in range(rng.choice((0, 1, 1, 1, 2))))
    return Query(
        noun="run", scope=tuple(rng.sample(EXPERIMENTS, rng.choice((1, 1, 2, 3)))), where=where, order=order,
        deleted=rng.choice(("active", "active", "deleted", "all")), limit=rng.choice((1, 4, 7, 30, 200)),
    )  # fmt: skip


def _condition(rng: random.Random, field: Field) -> Condition:
    if field.kind == "metric":
        return Condition(field, rng.choice(("=", "!=", "<", "<=", ">", ">=")), rng.choice(METRICS[:-1]))
    if field.key == "state":
        return Condition(field, rng.choice(("=", "!=")), rng.choice(("running", "finished")))
    if rng.random() < 0.2:
        return Condition(field, rng.choice(("IS NULL", "IS NOT NULL")))
    if rng.random() < 0.2 and field.kind == "attribute":
        return Condition(field, rng.choice(("IN", "NOT IN")), tuple(rng.sample(("n", "m", "x"), 2)))
    if rng.random() < 0.4:
        pattern = rng.choice(("a%", "%z", "_", "%B%", "%\\%", "%*%", "%[c]%", "100_", "%y", ""))
        return Condition(field, rng.choice(("LIKE", "ILIKE")), pattern)
    return Condition(field, rng.choice(("=", "!=")), rng.choice(TEXTS))


# --- the obvious search ---


def expected(world: list[Thing], query: Query) -> list[str]:
    """The ids that a query must give, in order."""
    found = [
        thing
        for thing in world
        if thing.run.experiment in query.scope
        and query.deleted in ("all", "active" if thing.run.deleted_at is None else "deleted")
        and all(_meets(thing, condition) for condition in query.where)
    ]
    found.sort(key=lambda thing: thing.run.id)
    found.sort(key=lambda thing: to_us(thing.run.started_at or thing.run.created_at) // 1000, reverse=True)
    for order in reversed(query.order or (Order(Field("attribute", "started_at"), down=True),)):
        found.sort(key=lambda thing, order=order: _sort_value(thing, order.field), reverse=order.down)  # type: ignore[misc]
        found.sort(key=lambda thing, order=order: _sort_place(thing, order.field))  # type: ignore[misc]
    return [thing.run.id for thing in found]


def _value(thing: Thing, field: Field) -> Any:
    if field.kind == "attribute":
        return getattr(thing.run, field.key)
    where: dict[str, dict[str, Any]] = {
        "metric": {**thing.metrics}, "param": {**thing.params}, "tag": {**thing.tags}
    }  # fmt: skip
    return where[field.kind].get(field.key)


def _sort_place(thing: Thing, field: Field) -> int:
    value = _value(thing, field)
    return 2 if value is None else 1 if isinstance(value, float) and math.isnan(value) else 0


def _sort_value(thing: Thing, field: Field) -> Any:
    if _sort_place(thing, field):
        return _blank(field)
    value = _value(thing, field)
    return value.encode() if isinstance(value, str) else value


def _blank(field: Field) -> Any:
    if field.kind == "metric":
        return 0.0
    return rows.AT if field.key in ("started_at", "finished_at") else b""


def _meets(thing: Thing, condition: Condition) -> bool:
    if condition.field.kind == "dataset":
        return any(each[condition.field.key] == condition.value for each in thing.datasets)
    value, wanted = _value(thing, condition.field), condition.value
    match condition.op:
        case "IS NULL":
            return value is None
        case "IS NOT NULL":
            return value is not None
        case "NOT IN":
            return value is None or value not in wanted  # type: ignore[operator]
        case "IN":
            return value in wanted  # type: ignore[operator]
        case "LIKE" | "ILIKE":
            return value is not None and _like(value, str(wanted), condition.op == "ILIKE")
        case _:
            return value is not None and _COMPARE[condition.op](value, wanted)


def _like(text: str, pattern: str, either_case: bool) -> bool:
    plain = "".join({"%": ".*", "_": "."}.get(each, re.escape(each)) for each in pattern)
    return re.fullmatch(plain, text, re.DOTALL | (re.IGNORECASE if either_case else 0)) is not None


def _logged_model(number: int) -> LoggedModel:
    made = rows.logged_model(f"m-{number}")
    return msgspec.structs.replace(made, created_at=rows.later(number))


def _of_model(model: LoggedModel, value: float, dataset: str, at_ms: int = 0) -> ModelPoint:
    return ModelPoint(
        model=model.id,
        run=RunId("r1"),
        key="acc",
        value=value,
        at_ms=at_ms,
        dataset_name=dataset,
        dataset_digest="d",
    )
