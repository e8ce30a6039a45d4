"""Metrics: their latest value, their whole history in pages, odd numbers, and batches up to their limits."""

from __future__ import annotations

import math
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from wire import answer, call, client, experiment, refused, run


def points(run_id: str, key: str) -> list[tuple[int, int, float]]:
    """(step, timestamp, value) of a metric's history."""
    return [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run_id, key)]


def check_the_latest_is_that_of_the_highest_step() -> None:
    run_id = run()

    for step, value in ((0, 3.0), (2, 1.0), (1, 2.0)):
        client.log_metric(run_id, "loss", value, timestamp=1000 + int(value), step=step)

    assert client.get_run(run_id).data.metrics == {"loss": 1.0}
    assert sorted(points(run_id, "loss")) == [(0, 1003, 3.0), (1, 1002, 2.0), (2, 1001, 1.0)]


def check_of_one_step_the_later_and_then_the_greater_is_latest() -> None:
    run_id = run()

    client.log_metric(run_id, "a", 1.0, timestamp=200, step=5)
    client.log_metric(run_id, "a", 9.0, timestamp=100, step=5)
    client.log_metric(run_id, "b", 7.0, timestamp=100, step=5)
    client.log_metric(run_id, "b", 8.0, timestamp=100, step=5)
    client.log_metric(run_id, "b", 6.0, timestamp=100, step=5)

    assert client.get_run(run_id).data.metrics == {"a": 1.0, "b": 8.0}


def check_the_same_point_twice_is_one_point() -> None:
    run_id = run()

    for _ in range(3):
        client.log_metric(run_id, "a", 1.5, timestamp=100, step=1)

    assert points(run_id, "a") == [(1, 100, 1.5)]


def check_odd_numbers_survive() -> None:
    run_id = run()
    given = {
        "nan": math.nan, "negative": -1.5, "zero": 0.0, "tiny": 5e-324, "large": 1.7976931348623157e308,
        "third": 1 / 3, "whole": 3,
    }  # fmt: skip

    for key, value in given.items():
        client.log_metric(run_id, key, value)

    found = client.get_run(run_id).data.metrics
    assert math.isnan(found.pop("nan"))
    assert found == {key: float(value) for key, value in given.items() if key != "nan"}
    (point,) = client.get_metric_history(run_id, "nan")
    assert math.isnan(point.value)


def check_infinities_are_kept_as_the_largest_numbers() -> None:
    run_id = run()

    client.log_metric(run_id, "up", math.inf)
    client.log_batch(run_id, metrics=[Metric("down", -math.inf, 1, 0)])

    assert client.get_run(run_id).data.metrics == {
        "up": 1.7976931348623157e308,
        "down": -1.7976931348623157e308,
    }


def check_not_a_number_is_a_string_on_the_wire() -> None:
    run_id = run()

    answer(
        "POST", "runs/log-metric", {"run_id": run_id, "key": "a", "value": "NaN", "timestamp": 5, "step": 1}
    )

    (latest,) = answer("GET", "runs/get", {"run_id": run_id})["run"]["data"]["metrics"]
    (point,) = answer("GET", "metrics/get-history", {"run_id": run_id, "metric_key": "a"})["metrics"]
    assert latest == {"key": "a", "value": "NaN", "timestamp": 5, "step": 1}
    assert {key: point[key] for key in latest} == latest


def check_after_a_number_not_a_number_is_the_latest_of_a_higher_step() -> None:
    run_id = run()

    client.log_metric(run_id, "a", 1.0, timestamp=1, step=0)
    client.log_metric(run_id, "a", math.nan, timestamp=2, step=1)

    assert math.isnan(client.get_run(run_id).data.metrics["a"])


def check_steps_and_times_may_be_huge_or_negative() -> None:
    run_id = run()
    given = [(-5, 10), (0, 0), (2**62, 2**62), (9_223_372_036_854_775_807, 20)]

    for step, timestamp in given:
        client.log_metric(run_id, "a", 1.0, timestamp=timestamp, step=step)

    assert sorted((m.step, m.timestamp) for m in client.get_metric_history(run_id, "a")) == sorted(given)


def check_names_may_hold_slashes_spaces_and_letters_of_any_language() -> None:
    run_id = run()
    names = ["val/loss", "top 5", "präzision", "a.b-c_d", "精度", "time: total"]

    client.log_batch(run_id, metrics=[Metric(name, 1.0, 1, 0) for name in names])

    assert set(client.get_run(run_id).data.metrics) == set(names)
    assert points(run_id, "val/loss") == [(0, 1, 1.0)]


def check_a_batch_is_taken_up_to_its_limits() -> None:
    run_id = run()

    client.log_batch(run_id, metrics=[Metric(f"m{n % 7}", n, n, n) for n in range(1000)])
    client.log_batch(
        run_id,
        params=[Param(f"p{n}", str(n)) for n in range(100)],
        tags=[RunTag(f"t{n}", str(n)) for n in range(100)],
    )

    data = client.get_run(run_id).data
    assert data.metrics == {f"m{n % 7}": float(n) for n in range(1000)}
    assert data.params == {f"p{n}": str(n) for n in range(100)}
    assert len(points(run_id, "m0")) == 143


def check_a_batch_of_one_more_is_refused_whole() -> None:
    run_id = run()
    metric = {"key": "m", "value": 1, "timestamp": 1, "step": 0}
    batches: list[dict[str, Any]] = [
        {"metrics": [{**metric, "step": n} for n in range(1001)]},
        {"params": [{"key": f"p{n}", "value": "1"} for n in range(101)]},
        {"tags": [{"key": f"t{n}", "value": "1"} for n in range(101)]},
        {
            "metrics": [{**metric, "step": n} for n in range(801)],
            "params": [{"key": f"p{n}", "value": "1"} for n in range(100)],
            "tags": [{"key": f"t{n}", "value": "1"} for n in range(100)],
        },
    ]

    answers = [call("POST", "runs/log-batch", {"run_id": run_id, **batch}) for batch in batches]

    assert [(a.status_code, a.json()["error_code"]) for a in answers] == [
        (400, "INVALID_PARAMETER_VALUE")
    ] * 4
    data = client.get_run(run_id).data
    assert (data.metrics, data.params) == ({}, {})


def check_a_batch_with_one_bad_entry_is_refused_whole() -> None:
    run_id = run()

    with refused("INVALID_PARAMETER_VALUE"):
        client.log_batch(run_id, metrics=[Metric("good", 1.0, 1, 0)], params=[Param("k" * 251, "1")])
    with refused("INVALID_PARAMETER_VALUE"):
        client.log_batch(run_id, params=[Param("twice", "1"), Param("twice", "2")])

    assert (client.get_run(run_id).data.metrics, client.get_run(run_id).data.params) == ({}, {})


def check_a_large_batch_is_split_by_the_client() -> None:
    run_id = run()

    client.log_batch(run_id, metrics=[Metric("m", n / 2, n, n) for n in range(2500)])

    history = points(run_id, "m")
    assert sorted(history) == [(n, n, n / 2) for n in range(2500)]


def check_history_comes_in_pages() -> None:
    run_id = run()
    client.log_batch(run_id, metrics=[Metric("m", n, n, n) for n in range(25)])
    asked = {"run_id": run_id, "metric_key": "m", "max_results": 10}

    pages: list[list[int]] = []
    token: str | None = None
    while token is not None or not pages:
        page = answer("GET", "metrics/get-history", {**asked, **({"page_token": token} if token else {})})
        pages.append([m["step"] for m in page.get("metrics", [])])
        token = page.get("next_page_token") or None

    assert [step for page in pages for step in page] == list(range(25))
    assert [len(page) for page in pages if page] == [10, 10, 5]


def check_a_history_that_is_not_there_is_empty() -> None:
    assert client.get_metric_history(run(), "nothing") == []


def check_the_histories_of_many_runs_come_in_one_answer() -> None:
    made = experiment()
    runs = [run(made) for _ in range(3)]
    for run_id in runs:
        client.log_batch(run_id, metrics=[Metric("m", n, n, n) for n in range(5)])

    found = answer(
        "GET",
        "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
        {"run_id": runs, "metric_key": "m", "max_results": 100},
    )["metrics"]

    assert {(m["run_id"], m["step"], m["value"]) for m in found} == {
        (r, n, n) for r in runs for n in range(5)
    }


def check_the_histories_of_many_runs_are_thinned() -> None:
    made = experiment()
    runs = [run(made) for _ in range(2)]
    for run_id in runs:
        client.log_batch(run_id, metrics=[Metric("m", n, n, n) for n in range(100)])

    found = answer(
        "GET",
        "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval",
        {"run_ids": runs, "metric_key": "m", "max_results": 10},
    )["metrics"]

    assert {m["run_id"] for m in found} == set(runs)
    for run_id in runs:
        steps = [m["step"] for m in found if m["run_id"] == run_id]
        assert {0, 99} <= set(steps)
        assert 5 <= len(steps) <= 20
