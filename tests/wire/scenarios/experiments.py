"""Experiments: made, found, renamed, tagged, deleted and brought back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import mlflow
from mlflow.entities import ViewType
from wire import client, experiment, refused, run, unique


def check_the_default_experiment_is_number_zero() -> None:
    default = client.get_experiment("0")

    assert (default.name, default.lifecycle_stage) == ("Default", "active")
    assert client.get_experiment_by_name("Default").experiment_id == "0"


def check_a_new_experiment_is_read_back_whole() -> None:
    name = unique("näme with spaces / and ‘signs’")
    made = client.create_experiment(name, tags={"team": "fraud", "note": "grüße"})

    found = client.get_experiment(made)

    assert made.isdigit()
    assert (found.name, found.lifecycle_stage, found.experiment_id) == (name, "active", made)
    assert found.tags["team"] == "fraud"
    assert found.tags["note"] == "grüße"
    assert found.creation_time == found.last_update_time
    assert found.artifact_location.endswith(f"/{made}")
    assert client.get_experiment_by_name(name).experiment_id == made


def check_what_is_not_there_is_said_so() -> None:
    assert client.get_experiment_by_name(unique("nobody")) is None
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_experiment("987654321")


def check_a_name_is_taken_once_even_by_a_deleted_experiment() -> None:
    name = unique("taken")
    made = client.create_experiment(name)

    with refused("RESOURCE_ALREADY_EXISTS"):
        client.create_experiment(name)
    client.delete_experiment(made)
    with refused("RESOURCE_ALREADY_EXISTS"):
        client.create_experiment(name)


def check_set_experiment_makes_it_and_finds_it_again() -> None:
    name = unique("set")

    made = mlflow.set_experiment(name)
    with mlflow.start_run() as started:
        pass

    assert started.info.experiment_id == made.experiment_id
    assert mlflow.set_experiment(name).experiment_id == made.experiment_id
    assert mlflow.set_experiment(experiment_id=made.experiment_id).name == name


def check_set_experiment_refuses_a_deleted_one() -> None:
    name = unique("deleted")
    client.delete_experiment(client.create_experiment(name))

    with refused("INVALID_PARAMETER_VALUE", "deleted"):
        mlflow.set_experiment(name)


def check_many_at_once_set_the_same_experiment() -> None:
    name = unique("race")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: mlflow.set_experiment(name).experiment_id, range(8)))

    assert len(set(found)) == 1


def check_a_rename_frees_the_old_name() -> None:
    old, new = unique("old"), unique("new")
    made = client.create_experiment(old)

    client.rename_experiment(made, new)

    assert client.get_experiment(made).name == new
    assert client.get_experiment_by_name(old) is None
    assert client.create_experiment(old) != made


def check_tags_are_set_replaced_and_removed() -> None:
    made = experiment()

    client.set_experiment_tag(made, "stage", "first")
    client.set_experiment_tag(made, "stage", "second")
    client.set_experiment_tag(made, "long", "x" * 5000)
    assert client.get_experiment(made).tags["stage"] == "second"
    client.delete_experiment_tag(made, "stage")

    assert "stage" not in client.get_experiment(made).tags
    assert client.get_experiment(made).tags["long"] == "x" * 5000


def check_delete_takes_the_runs_along_and_restore_brings_them_back() -> None:
    made = experiment()
    run_id = run(made)

    client.delete_experiment(made)
    gone = client.get_experiment(made).lifecycle_stage, client.get_run(run_id).info.lifecycle_stage
    client.restore_experiment(made)
    back = client.get_experiment(made).lifecycle_stage, client.get_run(run_id).info.lifecycle_stage

    assert (gone, back) == (("deleted", "deleted"), ("active", "active"))


def check_a_deleted_experiment_takes_no_runs() -> None:
    made = experiment()
    client.delete_experiment(made)

    with refused("INVALID_PARAMETER_VALUE"):
        client.create_run(made)


def check_search_shows_active_deleted_or_all() -> None:
    stem = unique("view")
    active, deleted = client.create_experiment(f"{stem}-a"), client.create_experiment(f"{stem}-b")
    client.delete_experiment(deleted)

    def found(view: int) -> set[str]:
        return {
            e.experiment_id for e in client.search_experiments(view, filter_string=f"name LIKE '{stem}%'")
        }

    assert found(ViewType.ACTIVE_ONLY) == {active}
    assert found(ViewType.DELETED_ONLY) == {deleted}
    assert found(ViewType.ALL) == {active, deleted}


def check_search_filters_by_name_tag_and_time() -> None:
    stem = unique("Filter")
    first = client.create_experiment(f"{stem}-one", tags={"kind": "a", "size": "big"})
    second = client.create_experiment(f"{stem}-two", tags={"kind": "b", "size": "big"})
    since = client.get_experiment(second).creation_time

    def found(text: str) -> set[str]:
        both = f"name LIKE '{stem}%' AND {text}"
        return {e.experiment_id for e in client.search_experiments(filter_string=both)}

    assert found(f"name = '{stem}-one'") == {first}
    assert found(f"name != '{stem}-one'") == {second}
    assert found(f"name ILIKE '{stem.lower()}-t%'") == {second}
    assert found("tags.kind = 'a'") == {first}
    assert found("tags.`kind` != 'a'") == {second}
    assert found("tag.size LIKE 'b_g'") == {first, second}
    assert found("tags.kind ILIKE 'B'") == {second}
    assert found(f"attribute.creation_time >= {since}") >= {second}
    assert found(f"last_update_time < {since - 3_600_000}") == set()
    for bad in ("kind = 'a'", "name = one", "tags.kind > 'a'", "name = 'a' OR name = 'b'", "metrics.x > 1"):
        with refused("INVALID_PARAMETER_VALUE"):
            client.search_experiments(filter_string=bad)


def check_search_is_ordered_and_paged() -> None:
    stem = unique("page")
    made = [client.create_experiment(f"{stem}-{letter}") for letter in "bdace"]
    by_name = sorted(made, key=lambda found: client.get_experiment(found).name)

    def pages(order: list[str]) -> list[list[str]]:
        found, token = [], None
        while True:
            page = client.search_experiments(
                filter_string=f"name LIKE '{stem}%'", order_by=order, max_results=2, page_token=token
            )
            found.append([e.experiment_id for e in page])
            token = page.token
            if not token:
                return found

    assert pages(["name ASC"]) == [by_name[:2], by_name[2:4], by_name[4:]]
    assert pages(["name DESC"]) == [by_name[:2:-1], by_name[2:0:-1], by_name[:1]]
    assert [*chain(*pages(["experiment_id"]))] == sorted(made, key=int)
    assert [*chain(*pages([]))] == sorted(made, key=int, reverse=True)
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_experiments(order_by=["colour"])
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_experiments(max_results=0)
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_experiments(max_results=2, page_token="not a token")
