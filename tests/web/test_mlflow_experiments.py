"""Experiments over the MLflow wire, by raw HTTP against a live control process."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from andon.core.ids import node
from andon.testing.rows import line
from andon.testing.stores.place import put
from andon.tracking import experiments
from tests.web.mlflow import ABSENT, INVALID, TAKEN, Wire, wire

__all__ = ["wire"]


def get(wire: Wire, ident: str) -> Any:
    return wire.get("experiments/get", experiment_id=ident)["experiment"]


def test_the_default_experiment_is_number_zero(wire: Wire) -> None:
    told = get(wire, "0")

    assert (told["experiment_id"], told["name"], told["artifact_location"]) == (
        "0",
        "Default",
        "mlflow-artifacts:/0",
    )
    assert wire.get("experiments/get-by-name", experiment_name="Default")["experiment"] == told


@pytest.mark.capability("C1")
def test_an_experiment_is_made_and_told(wire: Wire) -> None:
    name = wire.unique("näme / ‘signs’ %2e ?#")

    ident = wire.post("experiments/create", name=name, tags=[{"key": "a/b", "value": "ü"}, {"key": "none"}])[
        "experiment_id"
    ]

    told = get(wire, ident)
    assert told == {
        "experiment_id": ident, "name": name, "artifact_location": f"mlflow-artifacts:/{ident}", "lifecycle_stage": "active",
        "creation_time": told["creation_time"], "last_update_time": told["creation_time"],
        "tags": [{"key": "a/b", "value": "ü"}, {"key": "none", "value": ""}],
    }  # fmt: skip
    assert ident.isdigit()
    assert wire.get("experiments/get-by-name", experiment_name=name)["experiment"] == told


def test_who_made_it_is_on_record_and_its_name_is_not_in_the_ledger(wire: Wire) -> None:
    ident = wire.post("experiments/create", name="Alice's secret plan")["experiment_id"]

    (event,) = wire.store.read(lambda reader: reader.ledger.latest(subject=node("experiment", ident)))

    assert (event.kind, event.actor) == ("experiment.created", wire.control.world.person.id)
    assert "Alice" not in str(event)


def test_a_name_is_taken_once(wire: Wire) -> None:
    name = wire.unique()
    ident = wire.post("experiments/create", name=name)["experiment_id"]

    wire.refused(TAKEN, "POST", "experiments/create", {"name": name})
    wire.post("experiments/delete", experiment_id=ident)
    wire.refused(TAKEN, "POST", "experiments/create", {"name": name})
    wire.refused(TAKEN, "POST", "experiments/update", {"experiment_id": wire.experiment(), "new_name": name})
    assert (
        wire.get("experiments/get-by-name", experiment_name=name)["experiment"]["lifecycle_stage"]
        == "deleted"
    )


def test_a_place_of_the_clients_own_is_told(wire: Wire) -> None:
    ident = wire.experiment(artifact_location="s3://bucket/a/")

    assert get(wire, ident)["artifact_location"] == "s3://bucket/a"
    assert get(wire, wire.experiment(artifact_location=""))["artifact_location"].startswith(
        "mlflow-artifacts:/"
    )


@pytest.mark.parametrize(
    "place",
    [
        "/etc", "../x", "C:\\x", "file:///etc", "file:///etc#/../x", "http://169.254.169.254/", "s3://b/../x", "s3://b/%2e%2e/x",
        "s3://b/%252e%252e/x", "s3://b/a#x", "s3://b/a;x", "s3://b/a?x=../y", "s3://b\\x", "mlflow-artifacts:/0",
        "mlflow-artifacts:/../x", "runs:/abc/x", "s3://b/" + "x" * 3000,
    ],
)  # fmt: skip
def test_a_place_that_would_be_opened_here_or_read_in_two_ways_is_refused(wire: Wire, place: str) -> None:
    form = {"name": wire.unique(), "artifact_location": place}

    assert "artifact_location" in wire.refused(INVALID, "POST", "experiments/create", form)

    wire.refused(ABSENT, "GET", "experiments/get-by-name", {"experiment_name": form["name"]})


def test_a_rename_frees_the_name_and_is_told(wire: Wire) -> None:
    old, new = wire.unique(), wire.unique("new")
    ident = wire.post("experiments/create", name=old)["experiment_id"]

    wire.post("experiments/update", experiment_id=ident, new_name=new)

    assert get(wire, ident)["name"] == new
    wire.refused(ABSENT, "GET", "experiments/get-by-name", {"experiment_name": old})
    assert wire.post("experiments/create", name=old)["experiment_id"] != ident


def test_delete_takes_the_runs_along_and_restore_brings_them_back(wire: Wire) -> None:
    home = wire.experiment()
    run = wire.run(home)

    wire.post("experiments/delete", experiment_id=home)
    gone = get(wire, home)["lifecycle_stage"], wire.told(run)["info"]["lifecycle_stage"]
    wire.refused(INVALID, "POST", "runs/create", {"experiment_id": home})
    wire.refused(
        INVALID, "POST", "experiments/set-experiment-tag", {"experiment_id": home, "key": "a", "value": "b"}
    )
    wire.refused(INVALID, "POST", "experiments/update", {"experiment_id": home, "new_name": wire.unique()})
    wire.refused(ABSENT, "POST", "experiments/delete", {"experiment_id": home})
    wire.post("experiments/restore", experiment_id=home)
    back = get(wire, home)["lifecycle_stage"], wire.told(run)["info"]["lifecycle_stage"]

    assert (gone, back) == (("deleted", "deleted"), ("active", "active"))
    wire.refused(ABSENT, "POST", "experiments/restore", {"experiment_id": home})


def test_an_experiment_of_more_runs_than_a_transaction_takes_goes_and_comes_whole(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "RUNS_AT_ONCE", 2)
    home = wire.experiment()
    runs = [wire.run(home) for _ in range(5)]

    wire.post("experiments/delete", experiment_id=home)
    gone = {wire.told(run)["info"]["lifecycle_stage"] for run in runs}
    wire.post("experiments/restore", experiment_id=home)

    assert (gone, {wire.told(run)["info"]["lifecycle_stage"] for run in runs}) == ({"deleted"}, {"active"})


def test_a_lines_experiment_is_neither_deleted_nor_renamed(wire: Wire) -> None:
    put(wire.store, replace(line("kiln"), actor=wire.control.world.person.id))
    ident = wire.post("experiments/create", name="kiln")["experiment_id"]

    assert "line" in wire.refused(INVALID, "POST", "experiments/delete", {"experiment_id": ident})
    assert "line" in wire.refused(
        INVALID, "POST", "experiments/update", {"experiment_id": ident, "new_name": wire.unique()}
    )


def test_tags_are_set_replaced_and_removed(wire: Wire) -> None:
    home = wire.experiment()

    for value in ("first", "x" * 20_000):
        wire.post("experiments/set-experiment-tag", experiment_id=home, key="a", value=value)
    wire.post("experiments/set-experiment-tag", experiment_id=home, key="b")
    wire.post("experiments/delete-experiment-tag", experiment_id=home, key="b")

    assert get(wire, home)["tags"] == [{"key": "a", "value": "x" * 20_000}]
    wire.refused(ABSENT, "POST", "experiments/delete-experiment-tag", {"experiment_id": home, "key": "b"})


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [
        ("POST", "create", {}), ("POST", "create", {"name": ""}), ("POST", "create", {"name": " "}),
        ("POST", "create", {"name": 7}), ("POST", "create", {"name": "x" * 501}), ("POST", "create", {"name": "a\0b"}),
        ("POST", "create", {"name": "ok", "tags": "x"}), ("POST", "create", {"name": "ok", "tags": [{"value": "x"}]}),
        ("POST", "create", {"name": "ok", "tags": [{"key": "a", "value": "x" * 20_001}]}),
        ("POST", "create", {"name": "ok", "artifact_location": ["s3://b"]}),
        ("GET", "get", {}), ("GET", "get", {"experiment_id": "abc"}), ("GET", "get", {"experiment_id": "-1"}),
        ("GET", "get", {"experiment_id": "1" * 100}), ("GET", "get-by-name", {}),
        ("POST", "update", {}), ("POST", "update", {"experiment_id": "0"}), ("POST", "update", {"new_name": "x"}),
        ("POST", "update", {"experiment_id": "0", "new_name": ""}),
        ("POST", "update", {"experiment_id": "0", "new_name": "x" * 501}),
        ("POST", "delete", {}), ("POST", "delete", {"experiment_id": "../0"}), ("POST", "restore", {}),
        ("POST", "set-experiment-tag", {"experiment_id": "0"}), ("POST", "set-experiment-tag", {"key": "a", "value": "b"}),
        ("POST", "set-experiment-tag", {"experiment_id": "0", "key": "", "value": "b"}),
        ("POST", "set-experiment-tag", {"experiment_id": "0", "key": "a;b", "value": "b"}),
        ("POST", "set-experiment-tag", {"experiment_id": "0", "key": "a", "value": "x" * 20_001}),
        ("POST", "delete-experiment-tag", {"experiment_id": "0"}), ("POST", "delete-experiment-tag", {"key": "a"}),
        ("POST", "search", {}), ("POST", "search", {"max_results": 0}), ("POST", "search", {"max_results": 50_001}),
        ("POST", "search", {"max_results": "many"}), ("POST", "search", {"max_results": 1, "filter": "x"}),
        ("POST", "search", {"max_results": 1, "filter": "metrics.a > 1"}),
        ("POST", "search", {"max_results": 1, "order_by": ["x"]}),
        ("POST", "search", {"max_results": 1, "page_token": "x"}), ("POST", "search", {"max_results": 1, "view_type": "x"}),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wire: Wire, method: str, path: str, form: dict[str, Any]) -> None:
    wire.refused(INVALID, method, f"experiments/{path}", form)


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [
        ("GET", "get", {}), ("POST", "update", {"new_name": "x"}), ("POST", "delete", {}), ("POST", "restore", {}),
        ("POST", "set-experiment-tag", {"key": "a", "value": "b"}), ("POST", "delete-experiment-tag", {"key": "a"}),
    ],
)  # fmt: skip
def test_an_experiment_that_is_not_there_is_said_so(
    wire: Wire, method: str, path: str, form: dict[str, Any]
) -> None:
    wire.refused(ABSENT, method, f"experiments/{path}", {"experiment_id": "987654321", **form})


@pytest.mark.capability("C4")
def test_experiments_are_searched_filtered_ordered_and_paged(wire: Wire) -> None:
    stem = wire.unique("search")
    made = {
        letter: wire.post(
            "experiments/create", name=f"{stem} {letter}", tags=[{"key": "kind", "value": letter * 2}]
        )["experiment_id"]
        for letter in "bca"
    }
    wire.post("experiments/delete", experiment_id=made["c"])
    letters = {ident: letter for letter, ident in made.items()}

    def seen(**form: Any) -> str:
        asked = {"max_results": 10, **form, "filter": f"name LIKE '{stem}%'{form.get('filter', '')}"}
        found = wire.post("experiments/search", **asked).get("experiments", [])
        by_query = wire.get(
            "experiments/search", **{key: value for key, value in asked.items() if value is not None}
        )
        assert by_query.get("experiments", []) == found
        assert all(each == get(wire, each["experiment_id"]) for each in found)
        return "".join(letters[each["experiment_id"]] for each in found)

    assert (seen(), seen(view_type="DELETED_ONLY"), seen(view_type=3)) == ("ab", "c", "acb")
    assert (seen(order_by=["name"]), seen(order_by=["name DESC"]), seen(order_by=["experiment_id"])) == (
        "ab",
        "ba",
        "ba",
    )
    assert (seen(filter=" AND tags.kind = 'bb'"), seen(filter=" AND tag.kind ILIKE 'A_'")) == ("b", "a")
    page = wire.post("experiments/search", max_results=1, order_by=["name"], filter=f"name LIKE '{stem}%'")
    more = wire.post(
        "experiments/search",
        max_results=1,
        order_by=["name"],
        filter=f"name LIKE '{stem}%'",
        page_token=page["next_page_token"],
    )
    assert [letters[each["experiments"][0]["experiment_id"]] for each in (page, more)] == ["a", "b"]
    assert "next_page_token" not in more


def test_older_clients_list_experiments(wire: Wire) -> None:
    home = wire.experiment()

    listed = wire.get("experiments/list")["experiments"]
    few = wire.get("experiments/list", max_results=1, view_type="ACTIVE_ONLY")

    assert {"0", home} <= {each["experiment_id"] for each in listed}
    assert len(few["experiments"]) == 1
    assert "next_page_token" in few


def test_the_datasets_of_experiments_are_listed_where_clients_look(wire: Wire) -> None:
    home = wire.experiment()
    dataset = {"name": "flights", "digest": "d1", "source_type": "local", "source": "x"}
    given = {"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "training"}]}
    for _ in range(2):
        wire.post("runs/log-inputs", run_id=wire.run(home), datasets=[given])

    found = [
        wire.post(f"/{prefix}/2.0mlflow/experiments/search-datasets", experiment_ids=[home])
        for prefix in ("api", "ajax-api")
    ]

    summary = {"experiment_id": home, "name": "flights", "digest": "d1", "context": "training"}
    assert found == [{"dataset_summaries": [summary]}] * 2
    for form in ({}, {"experiment_ids": []}, {"experiment_ids": ["0"] * 21}, {"experiment_ids": ["x"]}):
        wire.refused(INVALID, "POST", "/api/2.0mlflow/experiments/search-datasets", form)
