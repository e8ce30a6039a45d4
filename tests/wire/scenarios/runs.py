"""Runs: started, resumed, nested, named, tagged, given parameters, ended, deleted and brought back."""

from __future__ import annotations

import time

import mlflow
from mlflow.entities import Param, RunTag, ViewType
from wire import answer, client, experiment, refused, run, unique


def check_a_run_goes_from_running_to_finished() -> None:
    mlflow.set_experiment(experiment_id=experiment())

    with mlflow.start_run(run_name="first", tags={"team": "fraud"}, description="a try") as started:
        during = client.get_run(started.info.run_id).info.status
    after = client.get_run(started.info.run_id)

    assert (during, after.info.status) == ("RUNNING", "FINISHED")
    assert len(after.info.run_id) == 32
    assert after.info.run_name == after.data.tags["mlflow.runName"] == "first"
    assert after.data.tags["mlflow.note.content"] == "a try"
    assert after.data.tags["team"] == "fraud"
    assert after.info.lifecycle_stage == "active"
    assert 0 < after.info.start_time <= after.info.end_time <= time.time() * 1000 + 60_000
    assert after.info.artifact_uri.endswith(f"/{after.info.run_id}/artifacts")


def check_a_run_that_raises_has_failed() -> None:
    mlflow.set_experiment(experiment_id=experiment())

    try:
        with mlflow.start_run() as started:
            raise RuntimeError("training went wrong")
    except RuntimeError:
        pass

    assert client.get_run(started.info.run_id).info.status == "FAILED"


def check_a_run_without_a_name_gets_one() -> None:
    made = client.create_run(experiment())

    assert made.info.run_name
    assert made.data.tags["mlflow.runName"] == made.info.run_name


def check_what_a_run_is_made_of_is_read_back() -> None:
    made = client.create_run(experiment(), start_time=1_600_000_000_123, tags={"a": "1"}, run_name="näme")

    found = client.get_run(made.info.run_id)

    assert found.info.start_time == 1_600_000_000_123
    assert found.info.end_time is None
    assert (found.info.status, found.info.run_name, found.data.tags["a"]) == ("RUNNING", "näme", "1")
    assert (found.data.params, found.data.metrics) == ({}, {})


def check_an_answer_carries_both_names_of_the_id() -> None:
    run_id = run()

    by_id, by_uuid = (
        answer("GET", "runs/get", {key: run_id})["run"]["info"] for key in ("run_id", "run_uuid")
    )

    assert by_id == by_uuid
    assert by_id["run_id"] == by_id["run_uuid"] == run_id
    assert isinstance(by_id["start_time"], int)
    assert isinstance(by_id["experiment_id"], str)
    assert "end_time" not in by_id


def check_a_run_is_resumed_by_id() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    with mlflow.start_run() as started:
        mlflow.log_metric("loss", 1.0, step=0)

    with mlflow.start_run(run_id=started.info.run_id):
        during = client.get_run(started.info.run_id).info.status
        mlflow.log_metric("loss", 0.5, step=1)

    found = client.get_run(started.info.run_id)
    assert (during, found.info.status, found.data.metrics) == ("RUNNING", "FINISHED", {"loss": 0.5})


def check_nested_runs_name_their_parent() -> None:
    made = experiment()
    mlflow.set_experiment(experiment_id=made)

    with mlflow.start_run() as parent, mlflow.start_run(nested=True) as child:
        mlflow.log_param("depth", 2)
    found = client.search_runs([made], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")

    assert [r.info.run_id for r in found] == [child.info.run_id]
    assert client.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    assert client.get_parent_run(parent.info.run_id) is None


def check_the_end_and_the_name_can_be_set() -> None:
    run_id = run()

    client.set_terminated(run_id, "KILLED", end_time=1_700_000_000_456)
    client.update_run(run_id, name="renamed")

    found = client.get_run(run_id)
    assert (found.info.status, found.info.end_time) == ("KILLED", 1_700_000_000_456)
    assert found.info.run_name == found.data.tags["mlflow.runName"] == "renamed"
    client.update_run(run_id, status="RUNNING")
    assert client.get_run(run_id).info.status == "RUNNING"
    client.set_tag(run_id, "mlflow.runName", "by tag")
    assert client.get_run(run_id).info.run_name == "by tag"


def check_a_deleted_run_is_hidden_and_comes_back() -> None:
    made = experiment()
    kept, deleted = run(made), run(made)

    client.delete_run(deleted)

    def found(view: int) -> set[str]:
        return {r.info.run_id for r in client.search_runs([made], run_view_type=view)}

    assert client.get_run(deleted).info.lifecycle_stage == "deleted"
    assert found(ViewType.ACTIVE_ONLY) == {kept}
    assert found(ViewType.DELETED_ONLY) == {deleted}
    assert found(ViewType.ALL) == {kept, deleted}
    client.restore_run(deleted)
    assert found(ViewType.ACTIVE_ONLY) == {kept, deleted}


def check_a_deleted_run_takes_nothing() -> None:
    run_id = run()
    client.delete_run(run_id)

    for write in (
        lambda: client.log_metric(run_id, "a", 1.0),
        lambda: client.log_param(run_id, "a", 1),
        lambda: client.set_tag(run_id, "a", "1"),
        lambda: client.log_batch(run_id, tags=[RunTag("a", "1")]),
        lambda: client.delete_tag(run_id, "a"),
    ):
        with refused("INVALID_PARAMETER_VALUE"):
            write()


def check_what_is_not_there_is_said_so() -> None:
    nobody = "f" * 32

    for read in (
        lambda: client.get_run(nobody),
        lambda: client.log_metric(nobody, "a", 1.0),
        lambda: client.set_tag(nobody, "a", "b"),
        lambda: client.delete_run(nobody),
        lambda: client.restore_run(nobody),
        lambda: client.set_terminated(nobody),
        lambda: client.create_run("987654321"),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST"):
            read()


def check_tags_are_set_replaced_and_removed() -> None:
    run_id = run(tags={"kept": "1", "gone": "2"})

    client.set_tag(run_id, "kept", "new")
    client.set_tag(run_id, "ünicode/with.dots and-dashes", "värde")
    client.set_tag(run_id, "empty", "")
    client.set_tag(run_id, "number", 7)
    client.delete_tag(run_id, "gone")

    tags = {k: v for k, v in client.get_run(run_id).data.tags.items() if not k.startswith("mlflow.")}
    assert tags == {"kept": "new", "ünicode/with.dots and-dashes": "värde", "empty": "", "number": "7"}
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.delete_tag(run_id, "gone")


def check_a_parameter_keeps_its_first_value() -> None:
    run_id = run()

    client.log_param(run_id, "alpha", 0.5)
    client.log_param(run_id, "alpha", 0.5)
    with refused("INVALID_PARAMETER_VALUE"):
        client.log_param(run_id, "alpha", 0.6)
    with refused("INVALID_PARAMETER_VALUE"):
        client.log_batch(run_id, params=[Param("beta", "1"), Param("alpha", "0.7")])

    assert client.get_run(run_id).data.params["alpha"] == "0.5"


def check_parameters_keep_their_text() -> None:
    run_id = run()
    given = {
        "none": None,
        "empty": "",
        "list": [1, 2],
        "signs": "a=b&c'd\"e\n\tü€",
        "long": "x" * 6000,
        "a/b.c-d e": 1,
    }

    for key, value in given.items():
        client.log_param(run_id, key, value)

    assert client.get_run(run_id).data.params == {key: str(value) for key, value in given.items()}


def check_what_is_too_long_or_misnamed_is_refused() -> None:
    run_id = run()

    for write in (
        lambda: client.log_param(run_id, "k" * 251, "x"),
        lambda: client.set_tag(run_id, "k" * 251, "x"),
        lambda: client.log_metric(run_id, "k" * 251, 1.0),
        lambda: client.log_param(run_id, "../up", "x"),
        lambda: client.log_param(run_id, "/absolute", "x"),
        lambda: client.log_param(run_id, "what?#", "x"),
        lambda: client.log_metric(run_id, "", 1.0),
        lambda: client.set_tag(run_id, "a//b", "x"),
    ):
        with refused("INVALID_PARAMETER_VALUE"):
            write()

    assert client.get_run(run_id).data.params == {}


def check_values_that_are_too_long_are_cut() -> None:
    run_id = run()

    client.log_param(run_id, "long", "p" * 6001)
    client.set_tag(run_id, "long", "t" * 8001)

    data = client.get_run(run_id).data
    assert (len(data.params["long"]), len(data.tags["long"])) == (6000, 8000)


def check_search_of_runs_in_no_experiment_is_empty() -> None:
    assert list(client.search_runs(["987654321"])) == []
    assert list(client.search_runs([experiment()])) == []


def check_the_fluent_calls_log_to_the_active_run() -> None:
    mlflow.set_experiment(unique("fluent"))

    with mlflow.start_run():
        mlflow.log_params({"a": 1, "b": "two"})
        mlflow.log_metrics({"m": 1.5, "n": 2})
        mlflow.set_tags({"t": "x", "u": 3})
        run_id = mlflow.active_run().info.run_id

    data = mlflow.get_run(run_id).data
    assert (data.params, data.metrics) == ({"a": "1", "b": "two"}, {"m": 1.5, "n": 2.0})
    assert (data.tags["t"], data.tags["u"]) == ("x", "3")
    assert mlflow.last_active_run().info.run_id == run_id
