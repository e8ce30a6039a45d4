"""What the client does in the background: logging without waiting, and measuring the machine."""

from __future__ import annotations

import time

import mlflow
from mlflow.entities import Metric, Param, RunTag
from wire import client, experiment, run, unique


def check_calls_that_do_not_wait_arrive() -> None:
    mlflow.set_experiment(unique("async"))

    with mlflow.start_run() as started:
        for step in range(50):
            mlflow.log_metric("loss", 1 / (step + 1), step=step, synchronous=False)
        mlflow.log_params({"a": 1, "b": 2}, synchronous=False)
        mlflow.set_tag("done", "yes", synchronous=False)
        mlflow.flush_async_logging()

    data = client.get_run(started.info.run_id).data
    assert (data.metrics, data.params, data.tags["done"]) == ({"loss": 1 / 50}, {"a": "1", "b": "2"}, "yes")
    assert {m.step for m in client.get_metric_history(started.info.run_id, "loss")} == set(range(50))


def check_a_batch_that_does_not_wait_can_be_waited_for() -> None:
    run_id = run()

    operation = client.log_batch(
        run_id, [Metric("m", 1.0, 1, 0)], [Param("p", "1")], [RunTag("t", "1")], synchronous=False
    )
    operation.wait()

    assert client.get_run(run_id).data.metrics == {"m": 1.0}


def check_the_machine_is_measured() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    mlflow.set_system_metrics_sampling_interval(0.1)
    mlflow.set_system_metrics_samples_before_logging(1)

    with mlflow.start_run(log_system_metrics=True) as started:
        deadline = time.monotonic() + 20
        while not client.get_run(started.info.run_id).data.metrics and time.monotonic() < deadline:
            pass

    assert "system/cpu_utilization_percentage" in client.get_run(started.info.run_id).data.metrics
    assert "system/system_memory_usage_megabytes" in client.get_run(started.info.run_id).data.metrics
