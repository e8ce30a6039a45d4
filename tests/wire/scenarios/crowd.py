"""Many clients at once: every call is answered, and all that was logged is there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from wire import client, experiment, model, run, version

CLIENTS = int(os.environ.get("WIRE_CLIENTS", "16"))
POINTS = 20


def check_many_clients_log_at_once() -> None:
    made = experiment()

    def one(number: int) -> str:
        own = MlflowClient()
        run_id = own.create_run(made, run_name=f"client-{number}").info.run_id
        own.log_batch(run_id, params=[Param("number", str(number))])
        for step in range(POINTS):
            own.log_metric(run_id, "loss", number + step / POINTS, step=step)
        own.log_batch(run_id, [Metric("batch", n, n, n) for n in range(50)])
        own.log_text(run_id, f"client {number}", "note.txt")
        own.set_terminated(run_id)
        return run_id

    with ThreadPoolExecutor(CLIENTS) as pool:
        runs = list(pool.map(one, range(CLIENTS)))

    found = client.search_runs([made], "status = 'FINISHED'", order_by=["metrics.loss ASC"], max_results=1000)
    assert [r.info.run_id for r in found] == runs
    assert [r.data.params["number"] for r in found] == [str(n) for n in range(CLIENTS)]
    assert [r.data.metrics["loss"] for r in found] == [n + (POINTS - 1) / POINTS for n in range(CLIENTS)]
    for number in (0, CLIENTS - 1):
        assert len(client.get_metric_history(runs[number], "loss")) == POINTS
        assert mlflow.artifacts.load_text(f"runs:/{runs[number]}/note.txt") == f"client {number}"


def check_many_clients_write_to_one_run() -> None:
    run_id = run()

    def one(number: int) -> None:
        own = MlflowClient()
        for step in range(POINTS):
            own.log_metric(run_id, "shared", number, timestamp=number, step=step)
        own.set_tag(run_id, f"tag-{number}", "x")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(CLIENTS)))

    assert len(client.get_metric_history(run_id, "shared")) == CLIENTS * POINTS
    assert client.get_run(run_id).data.metrics == {"shared": CLIENTS - 1}


def check_versions_made_at_once_get_numbers_of_their_own() -> None:
    name, run_id = model(), run()

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: version(name, run_id), range(8)))

    assert sorted(numbers, key=int) == [str(n) for n in range(1, 9)]
