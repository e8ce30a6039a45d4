"""What runs used and made."""

from __future__ import annotations

import msgspec
import pytest

from andon.core.entities import Run
from andon.core.errors import Invalid, NotFound
from andon.core.ids import LoggedModelId
from andon.store.ports import Store
from andon.testing.rows import AT, experiment, logged_model, tracked_run
from andon.testing.stores.place import put
from andon.tracking.inputs import Dataset, check_dataset, datasets_of, log_datasets, log_models

FLIGHTS = Dataset(
    name="flights", digest="d1", source_type="http", source="https://example.org/flights.csv", schema="{}", profile="{}",
    tags={"mlflow.data.context": "training", "split": "a"},
)  # fmt: skip


def run(store: Store, ident: str = "r1", number: int = 1, within: str = "0") -> Run:
    made = tracked_run(ident, number=number, within=within)
    put(store, made)
    return made


def used(store: Store, of: Run, *datasets: Dataset) -> None:
    store.write(lambda tx: log_datasets(tx, of, datasets, at=AT))


@pytest.mark.capability("C3")
def test_a_dataset_is_kept_in_the_clients_words_with_what_it_was_used_for(store: Store) -> None:
    made = run(store)

    used(store, made, FLIGHTS)

    (row,) = store.read(lambda reader: reader.run_inputs.select({"run": made.id}))
    assert (row.name, row.digest, row.source_type, row.source) == ("flights", "d1", "http", FLIGHTS.source)
    assert (row.context, row.tags, row.schema, row.experiment) == ("training", FLIGHTS.tags, "{}", "0")


def test_the_same_dataset_again_is_the_same_input_as_it_was_first(store: Store) -> None:
    made = run(store)
    again = msgspec.structs.replace(FLIGHTS, tags={"mlflow.data.context": "testing"})
    other = msgspec.structs.replace(FLIGHTS, digest="d2")

    used(store, made, FLIGHTS, again)
    used(store, made, again, other)

    rows = store.read(lambda reader: reader.run_inputs.select({"run": made.id}))
    assert {(row.digest, row.context) for row in rows} == {("d1", "training"), ("d2", "training")}


@pytest.mark.parametrize(
    ("field", "length"),
    [("name", 501), ("digest", 37), ("source", 65_536), ("schema", 1_048_576), ("profile", 16_777_216)],
)
def test_a_text_that_is_too_long_is_refused(field: str, length: int) -> None:
    with pytest.raises(Invalid, match=f"datasets.0..{field}"):
        check_dataset(msgspec.structs.replace(FLIGHTS, **{field: "x" * length}), "datasets[0]")


@pytest.mark.parametrize("tags", [{"k" * 256: "v"}, {"k": "v" * 501}])
def test_a_tag_of_an_input_that_is_too_long_is_refused(tags: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="tags"):
        check_dataset(msgspec.structs.replace(FLIGHTS, tags=tags), "datasets[0]")


def test_too_many_datasets_in_one_request_are_refused(store: Store) -> None:
    made = run(store)
    many = [msgspec.structs.replace(FLIGHTS, digest=str(n)) for n in range(1001)]

    with pytest.raises(Invalid, match="1001 datasets"):
        used(store, made, *many)
    used(store, made, *many[:1000])

    assert store.read(lambda reader: reader.run_inputs.count({"run": made.id})) == 1000


def test_models_that_a_run_used_and_made_are_noted_once_at_their_first_step(store: Store) -> None:
    put(store, logged_model("m-1"), logged_model("m-2"))
    made = run(store)
    one, two = LoggedModelId("m-1"), LoggedModelId("m-2")

    for step in (3, 4):
        store.write(lambda tx, step=step: log_models(tx, made, {one: step, two: 0}, "output", at=AT))  # type: ignore[misc]
    store.write(lambda tx: log_models(tx, made, {one: 0}, "input", at=AT))

    rows = store.read(lambda reader: reader.run_models.select({"run": made.id}))
    assert {(row.model, row.direction, row.step) for row in rows} == {
        ("m-1", "output", 3), ("m-2", "output", 0), ("m-1", "input", 0),
    }  # fmt: skip


def test_a_model_that_is_not_there_is_said_so_and_nothing_is_noted(store: Store) -> None:
    put(store, logged_model("m-1"))
    made = run(store)

    with pytest.raises(NotFound, match="m-9"):
        store.write(
            lambda tx: log_models(
                tx, made, {LoggedModelId("m-1"): 0, LoggedModelId("m-9"): 0}, "input", at=AT
            )
        )

    assert store.read(lambda reader: reader.run_models.count()) == 0


def test_the_datasets_of_experiments_are_listed_once(store: Store) -> None:
    put(store, experiment(1, "one"), experiment(2, "two"))
    first, second, elsewhere = run(store, "r1", 1, "1"), run(store, "r2", 2, "1"), run(store, "r3", 3, "2")
    for each in (first, second, elsewhere):
        used(store, each, FLIGHTS)
    used(store, second, msgspec.structs.replace(FLIGHTS, name="weather", tags={}))

    found = store.read(lambda reader: datasets_of(reader, ["1"]))

    assert [(row.name, row.digest, row.context) for row in found] == [
        ("flights", "d1", "training"), ("weather", "d1", None),
    ]  # fmt: skip
    assert len(store.read(lambda reader: datasets_of(reader, ["1", "2"]))) == 3
    assert store.read(lambda reader: datasets_of(reader, ["7"])) == []
