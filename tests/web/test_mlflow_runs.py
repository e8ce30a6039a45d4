"""Runs over the MLflow wire, by raw HTTP against a live control process."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import replace

from andon.core.entities import LoggedModel
from andon.core.ids import ExperimentId, LoggedModelId, new_id, node
from andon.testing.rows import line
from andon.testing.rows import run as line_run
from andon.testing.stores.place import put
from tests.web.mlflow import ABSENT, INVALID, Wire, wire

__all__ = ["wire"]

NOBODY = "f" * 32
LARGEST = 1.7976931348623157e308


def latest(wire: Wire, run: str) -> dict[str, Any]:
    return {each["key"]: each for each in wire.told(run)["data"].get("metrics", [])}


def pairs(wire: Wire, run: str, what: str) -> dict[str, str]:
    return {each["key"]: each["value"] for each in wire.told(run)["data"].get(what, [])}


def history(wire: Wire, run: str, key: str = "m", **more: Any) -> list[tuple[int, int, Any]]:
    found = wire.get("metrics/get-history", run_id=run, metric_key=key, **more)
    return [(each["step"], each["timestamp"], each["value"]) for each in found.get("metrics", [])]


def sealed(wire: Wire, run: str, number: int) -> Any:
    """The run's row once it has so many seals."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        row = wire.store.read(lambda reader: reader.runs.get(run))
        if row.seals >= number and row.seal is not None:
            return row
        wire.get("runs/get", run_id=run)
    raise AssertionError(f"run {run} was not sealed {number} times")


# --- begun ---


@pytest.mark.capability("C1")
def test_a_run_is_begun_and_told_as_mlflow_tells_it(wire: Wire) -> None:
    home = wire.experiment()
    tags = [{"key": "team", "value": "fraud"}, {"key": "mlflow.user", "value": "somebody"}]

    made = wire.post(
        "runs/create",
        experiment_id=home,
        user_id="somebody",
        run_name="first",
        start_time=1_600_000_000_123,
        tags=tags,
    )["run"]

    ident = made["info"]["run_id"]
    info = {
        "run_id": ident, "run_uuid": ident, "run_name": "first", "experiment_id": home, "user_id": "somebody",
        "status": "RUNNING", "start_time": 1_600_000_000_123, "lifecycle_stage": "active",
        "artifact_uri": f"mlflow-artifacts:/{home}/{ident}/artifacts",
    }  # fmt: skip
    told = [{"key": "mlflow.runName", "value": "first"}, *reversed(tags)]
    assert len(ident) == 32
    assert made["info"] == info
    assert sorted(made["data"]["tags"], key=str) == sorted(told, key=str)
    assert wire.told(ident) == {
        "info": info, "data": {"tags": sorted(told, key=lambda tag: tag["key"])}, "inputs": {}, "outputs": {},
    }  # fmt: skip
    assert wire.get("runs/get", run_uuid=ident)["run"]["info"] == info


@pytest.mark.capability("C2")
def test_a_spoofed_user_stays_a_claim(wire: Wire) -> None:
    run = wire.run(user_id="root", tags=[{"key": "mlflow.user", "value": "root"}])

    row = wire.store.read(lambda reader: reader.runs.get(run))
    (event,) = wire.store.read(lambda reader: reader.ledger.latest(subject=node("run", run)))

    me = wire.control.world.person.id
    assert (row.actor, event.actor, row.claimed_user) == (me, me, "root")


def test_a_run_without_name_or_start_gets_both(wire: Wire) -> None:
    before = time.time() * 1000

    told = wire.told(wire.run())

    assert told["info"]["run_name"] == told["data"]["tags"][0]["value"] != ""
    assert before - 1000 <= told["info"]["start_time"] <= time.time() * 1000 + 1000


def test_a_name_comes_as_field_or_as_tag_but_only_one(wire: Wire) -> None:
    home, tag = wire.experiment(), [{"key": "mlflow.runName", "value": "by tag"}]

    by_tag = wire.told(wire.run(home, tags=tag))["info"]["run_name"]
    both = wire.told(wire.run(home, tags=tag, run_name="by tag"))["info"]["run_name"]

    assert (by_tag, both) == ("by tag", "by tag")
    message = wire.refused(
        INVALID, "POST", "runs/create", {"experiment_id": home, "run_name": "other", "tags": tag}
    )
    assert "run_name" in message


def test_runs_of_an_experiment_with_a_place_of_its_own_name_that(wire: Wire) -> None:
    home = wire.experiment(artifact_location="s3://bucket/models/")

    run = wire.run(home)

    place = f"s3://bucket/models/{run}/artifacts"
    assert wire.told(run)["info"]["artifact_uri"] == place
    assert wire.post("runs/update", run_id=run)["run_info"]["artifact_uri"] == place
    (found,) = wire.post("runs/search", experiment_ids=[home])["runs"]
    assert found["info"]["artifact_uri"] == place


def test_what_cannot_begin_is_refused(wire: Wire) -> None:
    home = wire.experiment()
    gone = wire.experiment()
    wire.post("experiments/delete", experiment_id=gone)

    wire.refused(ABSENT, "POST", "runs/create", {"experiment_id": "987654321"})
    for form in (
        {"experiment_id": gone},
        {"experiment_id": "x"},
        {"experiment_id": "-1"},
        {"experiment_id": "1e3"},
        {"experiment_id": "٣"},
        {"experiment_id": "9" * 5000},
        {"experiment_id": 7},
        {"experiment_id": home, "start_time": "noon"},
        {"experiment_id": home, "start_time": 1_700_000_000_000_000_000},
        {"experiment_id": home, "start_time": 10**30},
        {"experiment_id": home, "tags": "x"},
        {"experiment_id": home, "tags": [{"value": "x"}]},
        {"experiment_id": home, "tags": [{"key": "../x", "value": "x"}]},
        {"experiment_id": home, "tags": [{"key": "andon.actor", "value": "x"}]},
        {"experiment_id": home, "run_name": "a\0b"},
        {"experiment_id": home, "user_id": "a\0b"},
        {"experiment_id": home, "run_name": ["x"]},
    ):
        wire.refused(INVALID, "POST", "runs/create", form)
    assert wire.post("runs/search", experiment_ids=[home]) == {}


# --- changed, ended, deleted ---


@pytest.mark.parametrize(
    ("given", "told"),
    [(1, "RUNNING"), ("2", "SCHEDULED"), ("FINISHED", "FINISHED"), (4, "FAILED"), ("KILLED", "KILLED")],
)
def test_a_status_is_taken_by_name_or_number(wire: Wire, given: str | int, told: str) -> None:
    run = wire.run()

    info = wire.post("runs/update", run_id=run, status=given)["run_info"]

    assert info["status"] == told
    assert ("end_time" in info) is (told in ("FINISHED", "FAILED", "KILLED"))
    assert wire.told(run)["info"] == info


def test_an_end_is_kept_to_the_millisecond_and_a_run_goes_on_again(wire: Wire) -> None:
    run = wire.run()

    ended = wire.post("runs/update", run_id=run, status="FINISHED", end_time=1_700_000_000_456)["run_info"]
    again = wire.post("runs/update", run_uuid=run, status="RUNNING")["run_info"]
    wire.post("runs/log-metric", run_id=run, key="m", value=1, timestamp=1)
    failed = wire.post("runs/update", run_id=run, status="FAILED", end_time="1700000000789")["run_info"]

    assert [info["status"] for info in (ended, again, failed)] == ["FINISHED", "RUNNING", "FAILED"]
    assert (ended["end_time"], failed["end_time"]) == (1_700_000_000_456, 1_700_000_000_789)


def test_a_renamed_run_has_its_name_in_both_places(wire: Wire) -> None:
    run = wire.run(run_name="first")

    wire.post("runs/update", run_id=run, run_name="second")
    second = wire.told(run)["info"]["run_name"], pairs(wire, run, "tags")
    wire.post("runs/set-tag", run_id=run, key="mlflow.runName", value="third")
    third = wire.told(run)["info"]["run_name"], pairs(wire, run, "tags")
    wire.post("runs/log-batch", run_id=run, tags=[{"key": "mlflow.runName", "value": "fourth"}])

    assert second == ("second", {"mlflow.runName": "second"})
    assert third == ("third", {"mlflow.runName": "third"})
    assert wire.told(run)["info"]["run_name"] == "fourth"


def test_what_an_update_cannot_mean_is_refused(wire: Wire) -> None:
    run = wire.run()
    before = wire.told(run)

    wire.refused(ABSENT, "POST", "runs/update", {"run_id": NOBODY, "status": "FINISHED"})
    for form in (
        {}, {"run_id": run, "status": "DONE"}, {"run_id": run, "status": 99}, {"run_id": run, "status": 0},
        {"run_id": run, "status": []}, {"run_id": run, "end_time": "noon"}, {"run_id": run, "end_time": 10**18},
        {"run_id": run, "run_name": "a\ud800"}, {"run_id": ""}, {"run_id": None},
    ):  # fmt: skip
        wire.refused(INVALID, "POST", "runs/update", form)
    assert wire.told(run) == before


def test_a_deleted_run_is_told_takes_nothing_and_comes_back(wire: Wire) -> None:
    run = wire.run()
    wire.post("runs/delete", run_id=run)
    wire.post("runs/delete", run_id=run)

    assert wire.told(run)["info"]["lifecycle_stage"] == "deleted"
    for path, form in (
        ("log-metric", {"key": "a", "value": 1, "timestamp": 1}),
        ("log-parameter", {"key": "a", "value": "1"}),
        ("set-tag", {"key": "a", "value": "1"}),
        ("delete-tag", {"key": "mlflow.runName"}),
        ("log-batch", {"tags": [{"key": "a", "value": "1"}]}),
        ("log-batch", {}),
        ("update", {"status": "FINISHED"}),
        ("log-inputs", {}),
        ("outputs", {"models": []}),
        (
            "log-model",
            {
                "model_json": json.dumps(
                    {"artifact_path": "", "flavors": {}, "utc_time_created": "", "run_id": ""}
                )
            },
        ),
    ):
        assert "deleted" in wire.refused(INVALID, "POST", f"runs/{path}", {"run_id": run, **form})
    wire.post("runs/restore", run_id=run)
    wire.post("runs/restore", run_id=run)
    assert wire.told(run)["info"]["lifecycle_stage"] == "active"


def test_runs_that_are_not_there_are_said_so(wire: Wire) -> None:
    for method, path, form in (
        ("GET", "get", {}), ("POST", "delete", {}), ("POST", "restore", {}),
        ("POST", "set-tag", {"key": "a", "value": "b"}), ("POST", "log-batch", {}), ("POST", "log-inputs", {}),
        ("POST", "outputs", {"models": []}), ("POST", "delete-tag", {"key": "a"}),
        ("POST", "log-parameter", {"key": "a", "value": "1"}),
    ):  # fmt: skip
        for ident in (NOBODY, "../../etc/passwd", "%2e%2e", "a b", "'; drop table runs", "x" * 5000):
            wire.refused(ABSENT, method, f"runs/{path}", {"run_id": ident, **form})
        wire.refused(INVALID, method, f"runs/{path}", form)


def test_a_lines_run_is_told_and_takes_tags_only(wire: Wire) -> None:
    me = wire.control.world.person.id
    made = replace(line_run(new_id("run"), on="oven"), actor=me, state="blocked", number=10**9)
    put(wire.store, replace(line("oven"), actor=me), made)

    wire.post("runs/set-tag", run_id=made.id, key="seen", value="yes")
    for path, form in (
        ("log-metric", {"key": "a", "value": 1, "timestamp": 1}),
        ("log-parameter", {"key": "a", "value": "1"}),
        ("log-batch", {"params": [{"key": "a", "value": "1"}]}),
        ("update", {"status": "FINISHED"}),
        ("delete", {}),
    ):
        assert "oven" in wire.refused(INVALID, "POST", f"runs/{path}", {"run_id": made.id, **form})

    told = wire.told(made.id)
    assert (told["info"]["status"], told["info"]["run_name"]) == ("FAILED", "oven")
    assert told["data"] == {"tags": [{"key": "seen", "value": "yes"}]}


# --- metrics, params, tags ---


def test_a_metric_is_logged_and_its_latest_and_history_are_told(wire: Wire) -> None:
    run = wire.run()

    for step, value in ((0, 1.5), (2, 0.25), (1, 7)):
        wire.post("runs/log-metric", run_id=run, key="m", value=value, timestamp=100 + step, step=step)
    wire.post("runs/log-metric", run_uuid=run, key="m", value="2.5", timestamp="200", step="3")
    wire.post("runs/log-metric", run_id=run, key="n", value=1, timestamp=1)

    assert latest(wire, run) == {
        "m": {"key": "m", "value": 2.5, "timestamp": 200, "step": 3},
        "n": {"key": "n", "value": 1.0, "timestamp": 1, "step": 0},
    }
    assert history(wire, run) == [(0, 100, 1.5), (1, 101, 7.0), (2, 102, 0.25), (3, 200, 2.5)]


def test_nan_is_a_string_and_infinities_are_the_largest_numbers(wire: Wire) -> None:
    run = wire.run()

    for key, value in (
        ("nan", "NaN"),
        ("up", "Infinity"),
        ("down", "-Infinity"),
        ("tiny", 5e-324),
        ("zero", -0.0),
    ):
        wire.post("runs/log-metric", run_id=run, key=key, value=value, timestamp=1)
    wire.post(
        "runs/log-batch", run_id=run, metrics=[{"key": "nan", "value": "NaN", "timestamp": 2, "step": 1}]
    )

    told = {key: each["value"] for key, each in latest(wire, run).items()}
    assert told == {"nan": "NaN", "up": LARGEST, "down": -LARGEST, "tiny": 5e-324, "zero": 0.0}
    assert history(wire, run, "nan") == [(0, 1, "NaN"), (1, 2, "NaN")]


def test_the_same_point_again_is_one_point(wire: Wire) -> None:
    run = wire.run()
    point = {"key": "m", "value": 1.5, "timestamp": 5, "step": 1}

    for _ in range(2):
        wire.post("runs/log-metric", run_id=run, **point)
    wire.post("runs/log-batch", run_id=run, metrics=[point, point, {**point, "value": 2}])

    assert history(wire, run) == [(1, 5, 1.5), (1, 5, 2.0)]


@pytest.mark.parametrize(
    "form",
    [
        {}, {"value": 1, "timestamp": 1}, {"key": "a", "timestamp": 1}, {"key": "a", "value": 1},
        {"key": "", "value": 1, "timestamp": 1}, {"key": 7, "value": 1, "timestamp": 1},
        {"key": "a" * 251, "value": 1, "timestamp": 1}, {"key": "../a", "value": 1, "timestamp": 1},
        {"key": "a", "value": "much", "timestamp": 1}, {"key": "a", "value": None, "timestamp": 1},
        {"key": "a", "value": [1], "timestamp": 1}, {"key": "a", "value": 1, "timestamp": -1},
        {"key": "a", "value": 1, "timestamp": "noon"}, {"key": "a", "value": 1, "timestamp": 1.5},
        {"key": "a", "value": 1, "timestamp": 2**63}, {"key": "a", "value": 1, "timestamp": 1, "step": 2**63},
        {"key": "a", "value": 1, "timestamp": 1, "step": -(2**63) - 1}, {"key": "a", "value": 1, "timestamp": 10**400},
        {"key": "a", "value": 1, "timestamp": 1, "step": "one"}, {"key": "a\0", "value": 1, "timestamp": 1},
        {"key": "a", "value": 10**400, "timestamp": 1},
    ],
)  # fmt: skip
def test_what_is_no_metric_is_refused(wire: Wire, form: dict[str, Any]) -> None:
    run = wire.run()

    wire.refused(INVALID, "POST", "runs/log-metric", {"run_id": run, **form})
    if form:
        wire.refused(INVALID, "POST", "runs/log-batch", {"run_id": run, "metrics": [form]})

    assert wire.told(run)["data"].get("metrics") is None


def test_steps_and_times_may_be_as_large_as_64_bits(wire: Wire) -> None:
    run = wire.run()
    given = [(-(2**63), 0), (0, 2**63 - 1), (2**63 - 1, 1)]

    for step, timestamp in given:
        wire.post("runs/log-metric", run_id=run, key="m", value=1, timestamp=timestamp, step=step)

    assert sorted((step, at) for step, at, _ in history(wire, run)) == given


def test_a_param_keeps_its_first_value(wire: Wire) -> None:
    run = wire.run()

    for _ in range(2):
        wire.post("runs/log-parameter", run_id=run, key="alpha", value="0.5")
    wire.post("runs/log-parameter", run_id=run, key="empty")
    one = wire.refused(INVALID, "POST", "runs/log-parameter", {"run_id": run, "key": "alpha", "value": "0.6"})
    many = wire.refused(
        INVALID, "POST", "runs/log-batch",
        {"run_id": run, "params": [{"key": "beta", "value": "1"}, {"key": "alpha", "value": "2"}],
         "metrics": [{"key": "m", "value": 1, "timestamp": 1}], "tags": [{"key": "t", "value": "1"}]},
    )  # fmt: skip

    for message in (one, many):
        assert "Changing param values is not allowed" in message
        assert "alpha" in message
    assert pairs(wire, run, "params") == {"alpha": "0.5", "empty": ""}
    assert latest(wire, run) == {}
    assert "t" not in pairs(wire, run, "tags")


def test_long_values_are_cut_as_mlflow_cuts_them(wire: Wire) -> None:
    run = wire.run()

    wire.post("runs/log-parameter", run_id=run, key="long", value="p" * 6001)
    wire.post("runs/set-tag", run_id=run, key="long", value="t" * 8001)
    wire.post("runs/log-batch", run_id=run, params=[{"key": "also", "value": "€" * 7000}])

    assert {key: len(text) for key, text in pairs(wire, run, "params").items()} == {
        "long": 6000,
        "also": 6000,
    }
    assert len(pairs(wire, run, "tags")["long"]) == 8000


def test_tags_are_set_replaced_and_removed(wire: Wire) -> None:
    run = wire.run(run_name="r")

    for value in ("1", "värde"):
        wire.post("runs/set-tag", run_id=run, key="a/b.c d", value=value)
    wire.post("runs/set-tag", run_id=run, key="none")
    wire.post("runs/log-batch", run_id=run, tags=[{"key": "t", "value": "1"}, {"key": "t", "value": "2"}])
    wire.post("runs/delete-tag", run_id=run, key="none")

    assert pairs(wire, run, "tags") == {"a/b.c d": "värde", "mlflow.runName": "r", "t": "2"}
    wire.refused(ABSENT, "POST", "runs/delete-tag", {"run_id": run, "key": "none"})
    for form in (
        {},
        {"key": ""},
        {"key": "a;b"},
        {"key": "k" * 251},
        {"key": "a", "value": 7},
        {"key": "andon.x", "value": "1"},
    ):
        wire.refused(INVALID, "POST", "runs/set-tag", {"run_id": run, **form})
    for form in ({}, {"key": "andon.x"}):
        wire.refused(INVALID, "POST", "runs/delete-tag", {"run_id": run, **form})


def test_what_may_be_a_param_is_the_same_alone_and_in_a_batch(wire: Wire) -> None:
    run = wire.run()

    for form in (
        {},
        {"key": ""},
        {"key": "/a"},
        {"key": "k" * 251},
        {"key": "a", "value": 7},
        {"key": "a", "value": "\0"},
    ):
        wire.refused(INVALID, "POST", "runs/log-parameter", {"run_id": run, **form})
        wire.refused(INVALID, "POST", "runs/log-batch", {"run_id": run, "params": [form]})
    twice = [{"key": "a", "value": "1"}, {"key": "a", "value": "1"}]
    assert "Duplicate" in wire.refused(INVALID, "POST", "runs/log-batch", {"run_id": run, "params": twice})
    assert pairs(wire, run, "params") == {}


def test_a_batch_is_taken_up_to_its_limits_and_refused_whole_above(wire: Wire) -> None:
    run = wire.run()
    metrics = [{"key": f"m{n % 7}", "value": n, "timestamp": n, "step": n} for n in range(1001)]
    params = [{"key": f"p{n}", "value": str(n)} for n in range(101)]

    for form in (
        {"metrics": metrics},
        {"params": params},
        {"tags": params},
        {"metrics": metrics[:801], "params": params[:100], "tags": params[:100]},
    ):
        assert "at most" in wire.refused(INVALID, "POST", "runs/log-batch", {"run_id": run, **form})
    assert wire.told(run)["data"].keys() == {"tags"}
    wire.post("runs/log-batch", run_id=run, metrics=metrics[:1000])
    wire.post("runs/log-batch", run_id=run, metrics=metrics[:800], params=params[:100], tags=params[:100])

    assert {key: each["value"] for key, each in latest(wire, run).items()} == {
        f"m{n % 7}": n for n in range(1000)
    }
    assert (len(pairs(wire, run, "params")), len(history(wire, run, "m0"))) == (100, 143)


def test_a_batch_names_the_entry_at_fault(wire: Wire) -> None:
    run = wire.run()
    good = {"key": "m", "value": 1, "timestamp": 1}

    message = wire.refused(
        INVALID, "POST", "runs/log-batch", {"run_id": run, "metrics": [good, {**good, "key": "a;b"}]}
    )

    assert "metrics[1]" in message
    assert latest(wire, run) == {}


def test_many_clients_log_to_one_run_at_once_and_nothing_is_lost(wire: Wire) -> None:
    run = wire.run()

    def log(client: int) -> None:
        for step in range(20):
            wire.post("runs/log-metric", run_id=run, key=f"m{client}", value=step, timestamp=1, step=step)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(log, range(16)))

    assert {key: each["value"] for key, each in latest(wire, run).items()} == {
        f"m{n}": 19.0 for n in range(16)
    }
    assert all(len(history(wire, run, f"m{n}")) == 20 for n in range(16))


# --- histories ---


def test_a_history_comes_whole_or_in_pages(wire: Wire) -> None:
    run = wire.run()
    wire.post(
        "runs/log-batch",
        run_id=run,
        metrics=[{"key": "m", "value": n / 2, "timestamp": n, "step": n} for n in range(25)],
    )

    pages: list[list[int]] = []
    token: dict[str, str] = {}
    while token or not pages:
        page = wire.get("metrics/get-history", run_id=run, metric_key="m", max_results=10, **token)
        pages.append([each["step"] for each in page["metrics"]])
        token = {"page_token": page["next_page_token"]} if "next_page_token" in page else {}

    assert pages == [list(range(10)), list(range(10, 20)), list(range(20, 25))]
    assert history(wire, run) == history(wire, run, max_results=25) == [(n, n, n / 2) for n in range(25)]


def test_points_are_in_the_order_of_their_times(wire: Wire) -> None:
    run = wire.run()
    points = [(5, 3), (1, 9), (3, 3), (0, 10)]
    wire.post(
        "runs/log-batch",
        run_id=run,
        metrics=[{"key": "m", "value": 1, "timestamp": at, "step": step} for step, at in points],
    )

    assert [(step, at) for step, at, _ in history(wire, run)] == [(3, 3), (5, 3), (1, 9), (0, 10)]


def test_pages_of_equal_steps_and_nan_lose_nothing(wire: Wire) -> None:
    run = wire.run()
    values: list[Any] = ["NaN", 1, 2, 3, "NaN"]
    wire.post(
        "runs/log-batch",
        run_id=run,
        metrics=[{"key": "m", "value": value, "timestamp": n // 4} for n, value in enumerate(values)],
    )

    found: list[Any] = []
    token: dict[str, str] = {}
    while token or not found:
        page = wire.get("metrics/get-history", run_id=run, metric_key="m", max_results=1, **token)
        found += [(each["timestamp"], each["value"]) for each in page["metrics"]]
        token = {"page_token": page["next_page_token"]} if "next_page_token" in page else {}

    assert found == [(0, 1.0), (0, 2.0), (0, 3.0), (0, "NaN"), (1, "NaN")]


def test_a_history_that_is_not_there_is_empty_and_a_wrong_question_refused(wire: Wire) -> None:
    run = wire.run()

    assert wire.get("metrics/get-history", run_id=run, metric_key="m") == {}
    assert wire.get("metrics/get-history", run_id=NOBODY, metric_key="m") == {}
    for form in (
        {}, {"run_id": run}, {"metric_key": "m"}, {"run_id": run, "metric_key": "m", "max_results": 0},
        {"run_id": run, "metric_key": "m", "max_results": -1}, {"run_id": run, "metric_key": "m", "max_results": "x"},
        {"run_id": run, "metric_key": "m", "page_token": "x"}, {"run_id": run, "metric_key": "m", "page_token": "AAAA"},
        {"run_id": run, "metric_key": "m", "page_token": "ü"}, {"run_id": run, "metric_key": "m", "max_results": 10**30},
    ):  # fmt: skip
        wire.refused(INVALID, "GET", "metrics/get-history", form)


def test_histories_of_several_runs_come_in_one_answer(wire: Wire) -> None:
    home = wire.experiment()
    runs = [wire.run(home) for _ in range(3)]
    for run in runs:
        wire.post(
            "runs/log-batch",
            run_id=run,
            metrics=[{"key": "m", "value": n, "timestamp": n, "step": n} for n in range(5)],
        )

    bulk = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
    found = wire.get(bulk, run_id=[*runs, NOBODY], metric_key="m")["metrics"]
    few = wire.get(bulk, run_id=runs, metric_key="m", max_results=7)["metrics"]

    assert [(each["run_id"], each["step"], each["value"]) for each in found] == [
        (run, n, n) for run in sorted(runs) for n in range(5)
    ]
    assert few == found[:7]
    assert wire.get(bulk, run_id=runs, metric_key="none") == {"metrics": []}
    for form in ({}, {"run_id": runs}, {"metric_key": "m"}, {"run_id": [NOBODY] * 101, "metric_key": "m"}):
        wire.refused(INVALID, "GET", bulk, form)


def test_histories_of_several_runs_are_thinned_out_between_two_steps(wire: Wire) -> None:
    home = wire.experiment()
    runs = [wire.run(home) for _ in range(2)]
    for run in runs:
        wire.post(
            "runs/log-batch",
            run_id=run,
            metrics=[{"key": "m", "value": n, "timestamp": n, "step": n} for n in range(101)],
        )

    def steps(**form: Any) -> list[int]:
        found = wire.get("metrics/get-history-bulk-interval", run_ids=runs, metric_key="m", **form).get(
            "metrics", []
        )
        return [each["step"] for each in found if each["run_id"] == runs[1]]

    assert steps() == list(range(101))
    assert steps(max_results=5) == [0, 25, 50, 75, 100]
    assert steps(max_results=1) == [100]
    assert steps(start_step=10, end_step=14) == [10, 11, 12, 13, 14]
    assert steps(start_step=10, end_step=30, max_results=3) == [10, 20, 30]
    assert steps(start_step=200, end_step=300) == []
    assert steps(start_step=-(2**63), end_step=2**63 - 1) == list(range(101))


def test_what_cannot_be_thinned_out_is_refused(wire: Wire) -> None:
    run = wire.run()
    asked = {"run_ids": [run], "metric_key": "m"}

    for form in (
        {}, {"run_ids": [run]}, {"metric_key": "m"}, {**asked, "start_step": 1}, {**asked, "end_step": 1},
        {**asked, "start_step": 2, "end_step": 1}, {**asked, "max_results": 0}, {**asked, "max_results": 2501},
        {**asked, "run_ids": [run] * 101}, {**asked, "start_step": "x", "end_step": 1},
    ):  # fmt: skip
        wire.refused(INVALID, "GET", "metrics/get-history-bulk-interval", form)
    wire.refused(ABSENT, "GET", "metrics/get-history-bulk-interval", {"run_ids": [NOBODY], "metric_key": "m"})


# --- inputs and outputs ---


def model(wire: Wire) -> str:
    """A logged model's id."""
    at, me = wire.control.world.ws.clock.now(), wire.control.world.person.id
    row = LoggedModel(
        id=LoggedModelId(new_id("logged_model")), experiment=ExperimentId("0"), name="tree", state="ready", actor=me,
        created_at=at, changed_at=at,
    )  # fmt: skip
    put(wire.store, row)
    return row.id


@pytest.mark.capability("C3")
def test_datasets_and_models_of_a_run_are_told_with_it(wire: Wire) -> None:
    home = wire.experiment()
    run, used, made = wire.run(home), model(wire), model(wire)
    dataset = {
        "name": "flights",
        "digest": "d1",
        "source_type": "http",
        "source": "https://example.org/x.csv",
        "schema": "{}",
        "profile": "{}",
    }
    given = {"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "training"}]}

    for _ in range(2):
        wire.post("runs/log-inputs", run_id=run, datasets=[given], models=[{"model_id": used}])
        wire.post("runs/outputs", run_id=run, models=[{"model_id": made, "step": "3"}])

    told = wire.told(run)
    (found,) = wire.post("runs/search", experiment_ids=[home], filter="datasets.context = 'training'")["runs"]
    assert (
        told["inputs"] == found["inputs"] == {"dataset_inputs": [given], "model_inputs": [{"model_id": used}]}
    )
    assert told["outputs"] == found["outputs"] == {"model_outputs": [{"model_id": made, "step": 3}]}


def test_what_is_no_input_or_output_is_refused(wire: Wire) -> None:
    run = wire.run()
    dataset = {"name": "a", "digest": "1", "source_type": "local", "source": "x"}

    for wrong in (
        {"datasets": [{}]}, {"datasets": [{"dataset": {}}]}, {"datasets": "x"}, {"models": [{}]},
        {"datasets": [{"dataset": {**dataset, "name": "n" * 501}}]},
        {"datasets": [{"dataset": {**dataset, "digest": "d" * 37}}]},
        {"datasets": [{"dataset": {**dataset, "source": "a\0"}}]},
        {"datasets": [{"dataset": dataset, "tags": [{"value": "x"}]}]},
        *({"datasets": [{"dataset": {key: value for key, value in dataset.items() if key != name}}]} for name in dataset),
    ):  # fmt: skip
        wire.refused(INVALID, "POST", "runs/log-inputs", {"run_id": run, **wrong})
    for wrong in ({}, {"models": [{}]}, {"models": 7}, {"models": [{"model_id": "m-1", "step": "x"}]}):
        wire.refused(INVALID, "POST", "runs/outputs", {"run_id": run, **wrong})
    for path in ("log-inputs", "outputs"):
        wire.refused(ABSENT, "POST", f"runs/{path}", {"run_id": run, "models": [{"model_id": "m-" + NOBODY}]})
    assert wire.told(run)["inputs"] == wire.told(run)["outputs"] == {}


def test_a_profile_may_be_large(wire: Wire) -> None:
    run = wire.run()
    dataset = {"name": "a", "digest": "1", "source_type": "local", "source": "x", "profile": "p" * 16_777_215}

    wire.post("runs/log-inputs", run_id=run, datasets=[{"dataset": dataset}])

    assert wire.told(run)["inputs"]["dataset_inputs"][0]["dataset"] == dataset
    dataset["profile"] += "p"
    wire.refused(INVALID, "POST", "runs/log-inputs", {"run_id": run, "datasets": [{"dataset": dataset}]})


def test_a_model_of_an_older_client_is_noted_in_its_tag(wire: Wire) -> None:
    run = wire.run()
    info = {
        "run_id": run,
        "artifact_path": "model",
        "utc_time_created": "2020-01-01",
        "flavors": {"sklearn": {"a": 1}},
    }

    wire.post("runs/log-model", run_id=run, model_json=json.dumps(info))

    assert json.loads(pairs(wire, run, "tags")["mlflow.log-model.history"]) == [info]
    for text in ("", "{", "[]", "7", json.dumps({"run_id": run}), "[" * 100_000):
        wire.refused(INVALID, "POST", "runs/log-model", {"run_id": run, "model_json": text})


def test_a_metric_of_a_model_needs_the_model(wire: Wire) -> None:
    run, known = wire.run(), model(wire)
    point = {
        "run_id": run,
        "key": "auc",
        "value": 0.5,
        "timestamp": 1,
        "dataset_name": "a",
        "dataset_digest": "1",
    }

    wire.post("runs/log-metric", **point, model_id=known)
    wire.refused(ABSENT, "POST", "runs/log-metric", {**point, "key": "f1", "model_id": "m-" + NOBODY})

    (noted,) = wire.store.read(lambda reader: reader.metrics.of_models([LoggedModelId(known)]))[
        LoggedModelId(known)
    ]
    assert (noted.key, noted.value, noted.dataset_name, noted.run) == ("auc", 0.5, "a", run)
    assert set(latest(wire, run)) == {"auc"}


# --- found ---


def made(wire: Wire, home: str) -> list[str]:
    runs = []
    for n in range(6):
        run = wire.run(home, start_time=1000 + n, run_name=f"run {n}")
        wire.post(
            "runs/log-batch", run_id=run, metrics=[{"key": "auc", "value": "NaN" if n == 5 else n % 3, "timestamp": 1}],
            params=[{"key": "alpha", "value": str(n)}], tags=[{"key": "team", "value": "a" if n < 3 else "b"}],
        )  # fmt: skip
        runs.append(run)
    return runs


@pytest.mark.capability("C4")
def test_runs_are_filtered_ordered_and_paged(wire: Wire) -> None:
    home = wire.experiment()
    runs = made(wire, home)

    def seen(**form: Any) -> list[int]:
        answer = wire.post("runs/search", experiment_ids=[home], **form)
        return [runs.index(each["info"]["run_id"]) for each in answer.get("runs", [])]

    assert seen() == [5, 4, 3, 2, 1, 0]
    assert seen(filter="metrics.auc > 0", order_by=["metrics.auc DESC", "start_time ASC"]) == [2, 1, 4]
    assert seen(order_by=["metrics.auc"]) == [3, 0, 4, 1, 2, 5]
    assert seen(order_by=["params.alpha DESC"]) == [5, 4, 3, 2, 1, 0]
    assert seen(filter="tags.team = 'b' AND params.alpha != '4'", order_by=["created"]) == [3, 5]
    assert seen(filter="attributes.run_name LIKE '%3'") == [3]
    assert (
        seen(filter="")
        == seen(order_by=[])
        == seen(order_by=None, filter=None, page_token=None, max_results=None)
    )
    pages: list[list[int]] = []
    token: dict[str, str] = {}
    while token or not pages:
        page = wire.post(
            "runs/search", experiment_ids=[home], max_results=4, order_by=["metrics.auc"], **token
        )
        pages.append([runs.index(each["info"]["run_id"]) for each in page["runs"]])
        token = {"page_token": page["next_page_token"]} if "next_page_token" in page else {}
    assert pages == [[3, 0, 4, 1], [2, 5]]


def test_a_found_run_is_told_whole(wire: Wire) -> None:
    home = wire.experiment()
    runs = made(wire, home)

    found = wire.post("runs/search", experiment_ids=[home])["runs"]

    assert found == [wire.told(run) for run in reversed(runs)]


@pytest.mark.parametrize(
    ("view", "seen"), [(None, "kept"), ("ACTIVE_ONLY", "kept"), (2, "gone"), ("3", "both")]
)
def test_deleted_runs_are_found_by_who_asks_for_them(wire: Wire, view: str | int | None, seen: str) -> None:
    home = wire.experiment()
    names = {wire.run(home): "kept", wire.run(home): "gone"}
    wire.post("runs/delete", run_id=next(run for run, name in names.items() if name == "gone"))

    found = wire.post("runs/search", experiment_ids=[home], run_view_type=view)["runs"]

    assert {names[each["info"]["run_id"]] for each in found} == (
        {"kept", "gone"} if seen == "both" else {seen}
    )


def test_runs_are_found_in_the_experiments_that_are_named(wire: Wire) -> None:
    one, two = wire.experiment(), wire.experiment(artifact_location="s3://bucket/x")
    runs = {wire.run(one), wire.run(two)}

    found = wire.post("runs/search", experiment_ids=[one, two, one, "987654321", f"00{two}"])["runs"]

    assert {each["info"]["run_id"] for each in found} == runs
    assert wire.post("runs/search", experiment_ids=[]) == wire.post("runs/search") == {}


@pytest.mark.parametrize(
    "form",
    [
        {"filter": "x"}, {"filter": 7}, {"filter": "metrics.a > 'x'"}, {"filter": "a" * 200_000}, {"filter": "tags.a = '\0'"},
        {"filter": "(" * 5000}, {"filter": "tags.`" + "a" * 3000}, {"filter": "params.a LIKE '" + "%a" * 20_000 + "'"},
        {"order_by": ["colour"]}, {"order_by": "start_time"}, {"order_by": [7]}, {"order_by": ["start_time"] * 200},
        {"max_results": 0}, {"max_results": -1}, {"max_results": 50_001}, {"max_results": "many"}, {"page_token": "x"},
        {"page_token": "AAAA"}, {"run_view_type": "SOME"}, {"run_view_type": 9}, {"experiment_ids": ["x"]},
        {"experiment_ids": "0"}, {"experiment_ids": [7]}, {"experiment_ids": ["0"] * 3 + [None]},
        {"experiment_ids": [str(n) for n in range(20_000)]},
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_read_is_refused_quickly(wire: Wire, form: dict[str, Any]) -> None:
    began = time.monotonic()

    wire.refused(INVALID, "POST", "runs/search", {"experiment_ids": ["0"], **form})

    assert time.monotonic() - began < 10


def test_a_page_token_is_good_for_its_own_search_only(wire: Wire) -> None:
    home = wire.experiment()
    made(wire, home)
    token = wire.post("runs/search", experiment_ids=[home], max_results=2)["next_page_token"]

    wire.refused(
        INVALID,
        "POST",
        "runs/search",
        {"experiment_ids": [home], "filter": "metrics.auc > 0", "page_token": token},
    )


# --- sealed ---


@pytest.mark.capability("C1")
def test_an_ended_run_is_sealed_and_a_late_write_leads_to_the_next_seal(wire: Wire) -> None:
    run = wire.run()
    wire.post(
        "runs/log-batch",
        run_id=run,
        metrics=[{"key": "m", "value": n, "timestamp": n, "step": n} for n in range(10)],
    )
    wire.post("runs/update", run_id=run, status="FINISHED")
    first = sealed(wire, run, 1)

    wire.post("runs/log-metric", run_id=run, key="late", value=1, timestamp=1)
    between = wire.store.read(lambda reader: reader.runs.get(run))
    second = sealed(wire, run, 2)

    events = wire.store.read(lambda reader: reader.ledger.latest(subject=node("run", run)))
    told = [event.facts for event in reversed(events) if event.kind == "run.sealed"]
    assert between.seal is None
    assert [fact["seal"] for fact in told] == [first.seal, second.seal]
    assert [(fact["number"], fact["points"]) for fact in told] == [(1, 10), (2, 11)]
