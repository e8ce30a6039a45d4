"""The server's own answers: is it there, which version it speaks, and under which prefixes."""

from __future__ import annotations

import mlflow
import requests
from wire import URI, answer, call, experiment, run


def check_it_is_healthy() -> None:
    health = call("GET", "/health")

    assert health.status_code == 200
    assert "ok" in health.text.lower()


def check_it_says_which_version_it_speaks() -> None:
    version = call("GET", "/version")

    assert version.status_code == 200
    assert version.text.strip().split(".")[0] == "3"


def check_it_says_what_it_can_do() -> None:
    info = answer("GET", "/api/3.0/mlflow/server-info")

    assert info["store_type"] == "SqlStore"
    assert info["workspaces_enabled"] is False
    assert info["artifact_serving_enabled"] is True


def check_the_same_call_is_answered_under_every_prefix() -> None:
    run_id = run()

    prefixes = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow")
    answers = [answer("GET", f"{prefix}/runs/get", {"run_id": run_id}) for prefix in prefixes]

    assert answers[0] == answers[1]


def check_unknown_keys_are_ignored_and_empty_lists_left_out() -> None:
    made = experiment()

    found = answer("POST", "runs/search", {"experiment_ids": [made], "something": {"new": 1}})

    assert found == {}


def check_an_unknown_path_is_not_found() -> None:
    assert call("GET", "/api/2.0/mlflow/nothing/here").status_code == 404
    assert call("POST", "/api/2.0/mlflow/nothing/here", {}).status_code == 404


def check_a_wrong_verb_is_refused() -> None:
    assert call("DELETE", "/api/2.0/mlflow/runs/get").status_code in {404, 405}


def check_one_connection_carries_many_calls() -> None:
    run_id = run()

    with requests.Session() as session:
        answers = [
            session.get(f"{URI}/api/2.0/mlflow/runs/get", params={"run_id": run_id}).status_code
            for _ in range(20)
        ]

    assert answers == [200] * 20


def check_the_client_knows_where_it_talks_to() -> None:
    assert mlflow.get_tracking_uri() == URI
    assert mlflow.get_registry_uri() == URI
