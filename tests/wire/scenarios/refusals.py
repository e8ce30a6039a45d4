"""What the server refuses, with the status and error code of MLflow's own server (3.18), call by call.

Each row was taken from that server's answers. Left out is what it answers with 500, and what it takes but should not.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from wire import call, client, model, run, unique, version

INVALID, ABSENT, TAKEN, BAD = (
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
)
STATUS = {INVALID: 400, ABSENT: 404, TAKEN: 400, BAD: 400}

RUN = run()
HERE = client.get_run(RUN).info.experiment_id
NOBODY = "f" * 32


@cache
def a_model() -> str:
    """The name of a model with one version."""
    name = model()
    version(name, RUN)
    return name


@cache
def a_logged_model() -> str:
    return client.create_logged_model(HERE, name="tree").model_id


def expect(rows: list[tuple[str, str, dict[str, Any] | None]]) -> None:
    """Each call is refused with its code; all that differ are named."""
    wrong = []
    for code, asked, body in rows:
        sent = call(*asked.split(), body)
        told = (
            sent.json().get("error_code")
            if "json" in sent.headers.get("content-type", "")
            else sent.text[:80]
        )
        if (sent.status_code, told) != (STATUS[code], code):
            wrong.append(
                f"{asked} {str(body)[:120]}: {sent.status_code} {told}, expected {STATUS[code]} {code}"
            )
    assert not wrong, "\n".join(wrong)


def check_an_error_says_what_is_wrong() -> None:
    sent = call("POST", "runs/log-metric", {"run_id": RUN, "value": 1, "timestamp": 1})

    assert sent.headers["content-type"].startswith("application/json")
    assert "'key'" in sent.json()["message"]


def check_what_is_no_json_is_refused() -> None:
    for body in (b"{", b"", b"\xff", b"null", b'{"run_id": "x"'):
        for path in ("runs/log-metric", "experiments/create"):
            sent = call("POST", path, data=body, headers={"Content-Type": "application/json"})
            assert (sent.status_code, sent.json()["error_code"]) == (400, INVALID), (path, body, sent.text)


def check_numbers_may_be_written_as_strings() -> None:
    body = {"run_id": RUN, "key": "strings", "value": "1.5", "timestamp": "7", "step": "3"}

    assert call("POST", "runs/log-metric", body).status_code == 200

    (point,) = client.get_metric_history(RUN, "strings")
    assert (point.value, point.timestamp, point.step) == (1.5, 7, 3)


def check_what_is_deleted_twice_or_was_never_there_is_no_fault() -> None:
    for asked, body in (
        ("DELETE registered-models/delete-tag", {"name": a_model(), "key": "nothing"}),
        ("DELETE registered-models/alias", {"name": a_model(), "alias": "nobody"}),
        ("DELETE model-versions/delete-tag", {"name": a_model(), "version": "1", "key": "nothing"}),
        ("POST runs/log-batch", {"run_id": RUN}),
        ("POST runs/log-inputs", {"run_id": RUN}),
    ):
        sent = call(*asked.split(), body)
        assert (sent.status_code, sent.json()) == (200, {}), (asked, sent.text)


def check_refusals_of_experiments() -> None:
    expect([
        (INVALID, "POST experiments/create", {}),
        (INVALID, "POST experiments/create", {"name": ""}),
        (INVALID, "POST experiments/create", {"name": 7}),
        (INVALID, "POST experiments/create", {"name": "x" * 501}),
        (TAKEN, "POST experiments/create", {"name": "Default"}),
        (INVALID, "POST experiments/create", {"name": unique("e"), "artifact_location": "file:///etc#/../x"}),
        (INVALID, "POST experiments/create", {"name": unique("e"), "tags": "x"}),
        (INVALID, "GET experiments/get", {}),
        (ABSENT, "GET experiments/get", {"experiment_id": "987654321"}),
        (INVALID, "GET experiments/get", {"experiment_id": "abc"}),
        (INVALID, "GET experiments/get-by-name", {}),
        (ABSENT, "GET experiments/get-by-name", {"experiment_name": "nobody"}),
        (INVALID, "POST experiments/search", {"max_results": "many"}),
        (INVALID, "POST experiments/search", {}),
        (INVALID, "POST experiments/search", {"max_results": 50001}),
        (INVALID, "POST experiments/search", {"max_results": 1, "filter": "x"}),
        (INVALID, "POST experiments/update", {}),
        (INVALID, "POST experiments/update", {"experiment_id": HERE}),
        (ABSENT, "POST experiments/update", {"experiment_id": "987654321", "new_name": "x"}),
        (INVALID, "POST experiments/update", {"experiment_id": "0", "new_name": ""}),
        (INVALID, "POST experiments/delete", {}),
        (ABSENT, "POST experiments/delete", {"experiment_id": "987654321"}),
        (INVALID, "POST experiments/restore", {}),
        (ABSENT, "POST experiments/restore", {"experiment_id": "987654321"}),
        (ABSENT, "POST experiments/restore", {"experiment_id": HERE}),
        (INVALID, "POST experiments/set-experiment-tag", {"experiment_id": HERE}),
        (INVALID, "POST experiments/set-experiment-tag", {"experiment_id": HERE, "key": "", "value": "x"}),
        (INVALID, "POST experiments/set-experiment-tag", {"key": "a", "value": "b"}),
        (ABSENT, "POST experiments/set-experiment-tag", {"experiment_id": "987654321", "key": "a", "value": "b"}),
        (ABSENT, "POST experiments/delete-experiment-tag", {"experiment_id": HERE, "key": "nothing"}),
        (INVALID, "POST experiments/delete-experiment-tag", {"experiment_id": HERE}),
    ])  # fmt: skip


def check_refusals_of_runs() -> None:
    expect([
        (BAD, "POST runs/create", {}),
        (ABSENT, "POST runs/create", {"experiment_id": "987654321"}),
        (INVALID, "POST runs/create", {"experiment_id": HERE, "start_time": "noon"}),
        (INVALID, "POST runs/create", {"experiment_id": 7}),
        (INVALID, "GET runs/get", {}),
        (ABSENT, "GET runs/get", {"run_id": NOBODY}),
        (ABSENT, "GET runs/get", {"run_id": "../x"}),
        (INVALID, "POST runs/update", {}),
        (ABSENT, "POST runs/update", {"run_id": NOBODY, "status": "FINISHED"}),
        (INVALID, "POST runs/update", {"run_id": RUN, "end_time": "noon"}),
        (INVALID, "POST runs/delete", {}),
        (ABSENT, "POST runs/delete", {"run_id": NOBODY}),
        (INVALID, "POST runs/restore", {}),
        (ABSENT, "POST runs/restore", {"run_id": NOBODY}),
        (INVALID, "POST runs/search", {"experiment_ids": [HERE], "max_results": -1}),
        (INVALID, "POST runs/search", {"experiment_ids": [HERE], "max_results": 50001}),
        (INVALID, "POST runs/search", {"experiment_ids": [HERE], "max_results": "many"}),
        (INVALID, "POST runs/search", {"experiment_ids": HERE}),
        (INVALID, "POST runs/search", {"experiment_ids": [HERE], "filter": 7}),
        (INVALID, "POST runs/search", {"experiment_ids": [HERE], "filter": "x"}),
        (INVALID, "POST runs/search", {"experiment_ids": [HERE], "page_token": "x"}),
        (INVALID, "POST runs/log-metric", {}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "value": 1, "timestamp": 1}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "a", "timestamp": 1}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "a", "value": 1}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "a", "value": "much", "timestamp": 1}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "a", "value": 1, "timestamp": "noon"}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "a", "value": 1, "timestamp": 1, "step": "one"}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "", "value": 1, "timestamp": 1}),
        (ABSENT, "POST runs/log-metric", {"run_id": NOBODY, "key": "a", "value": 1, "timestamp": 1}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "a" * 251, "value": 1, "timestamp": 1}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": 7, "value": 1, "timestamp": 1}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "a", "value": 1, "timestamp": -1}),
        (INVALID, "POST runs/log-metric", {"run_id": RUN, "key": "a", "value": None, "timestamp": 1}),
        (INVALID, "POST runs/log-parameter", {}),
        (INVALID, "POST runs/log-parameter", {"run_id": RUN, "value": "1"}),
        (INVALID, "POST runs/log-parameter", {"run_id": RUN, "key": "", "value": "1"}),
        (INVALID, "POST runs/log-parameter", {"run_id": RUN, "key": "a", "value": 7}),
        (ABSENT, "POST runs/log-parameter", {"run_id": NOBODY, "key": "a", "value": "1"}),
        (INVALID, "POST runs/log-parameter", {"run_id": RUN, "key": "a" * 251, "value": "1"}),
        (INVALID, "POST runs/set-tag", {}),
        (INVALID, "POST runs/set-tag", {"run_id": RUN, "value": "1"}),
        (ABSENT, "POST runs/set-tag", {"run_id": NOBODY, "key": "a", "value": "1"}),
        (INVALID, "POST runs/set-tag", {"run_id": RUN, "key": "a" * 251, "value": "1"}),
        (INVALID, "POST runs/delete-tag", {}),
        (ABSENT, "POST runs/delete-tag", {"run_id": RUN, "key": "nothing"}),
        (ABSENT, "POST runs/delete-tag", {"run_id": NOBODY, "key": "a"}),
        (INVALID, "POST runs/log-batch", {}),
        (ABSENT, "POST runs/log-batch", {"run_id": NOBODY}),
        (INVALID, "POST runs/log-batch", {"run_id": RUN, "metrics": {"key": "a"}}),
        (INVALID, "POST runs/log-batch", {"run_id": RUN, "metrics": [{"value": 1, "timestamp": 1}]}),
        (INVALID, "POST runs/log-batch", {"run_id": RUN, "metrics": [{"key": "a", "timestamp": 1}]}),
        (INVALID, "POST runs/log-batch", {"run_id": RUN, "metrics": [{"key": "a", "value": 1}]}),
        (INVALID, "POST runs/log-batch", {"run_id": RUN, "params": [{"value": "1"}]}),
        (INVALID, "POST runs/log-batch", {"run_id": RUN, "tags": [{"value": "1"}]}),
        (INVALID, "POST runs/log-inputs", {}),
        (ABSENT, "POST runs/log-inputs", {"run_id": NOBODY, "datasets": []}),
        (INVALID, "POST runs/outputs", {}),
    ])  # fmt: skip


def check_refusals_of_histories_of_metrics() -> None:
    expect([
        (INVALID, "GET metrics/get-history", {}),
        (INVALID, "GET metrics/get-history", {"run_id": RUN}),
        (INVALID, "GET metrics/get-history", {"metric_key": "a"}),
        (INVALID, "GET metrics/get-history", {"run_id": RUN, "metric_key": "a", "page_token": "x"}),
        (INVALID, "GET metrics/get-history", {"run_id": RUN, "metric_key": "a", "max_results": -1}),
    ])  # fmt: skip


def check_refusals_of_artifacts() -> None:
    expect([
        (INVALID, "GET artifacts/list", {}),
        (ABSENT, "GET artifacts/list", {"run_id": NOBODY}),
        (ABSENT, "GET /get-artifact", {"run_id": RUN, "path": "nothing"}),
        (ABSENT, "GET /get-artifact", {"run_id": NOBODY, "path": "x"}),
    ])  # fmt: skip


def check_refusals_of_logged_models() -> None:
    expect([
        (INVALID, "POST logged-models", {}),
        (ABSENT, "POST logged-models", {"experiment_id": "987654321"}),
        (ABSENT, f"GET logged-models/m-{NOBODY}", None),
        (ABSENT, f"PATCH logged-models/m-{NOBODY}", {"model_id": f"m-{NOBODY}", "status": "LOGGED_MODEL_READY"}),
        (ABSENT, f"DELETE logged-models/m-{NOBODY}", None),
        (INVALID, "POST logged-models/search", {}),
        (INVALID, "POST logged-models/search", {"experiment_ids": [HERE], "filter": "x"}),
        (ABSENT, f"DELETE logged-models/{a_logged_model()}/tags/nothing", None),
        (ABSENT, f"GET logged-models/m-{NOBODY}/artifacts/directories", None),
    ])  # fmt: skip


def check_refusals_of_registered_models() -> None:
    expect([
        (INVALID, "POST registered-models/create", {}),
        (INVALID, "POST registered-models/create", {"name": ""}),
        (TAKEN, "POST registered-models/create", {"name": a_model()}),
        (INVALID, "POST registered-models/create", {"name": 7}),
        (INVALID, "POST registered-models/create", {"name": "a/b"}),
        (INVALID, "GET registered-models/get", {}),
        (ABSENT, "GET registered-models/get", {"name": "nobody"}),
        (INVALID, "PATCH registered-models/update", {}),
        (ABSENT, "PATCH registered-models/update", {"name": "nobody", "description": "x"}),
        (INVALID, "POST registered-models/rename", {"name": a_model()}),
        (INVALID, "POST registered-models/rename", {}),
        (ABSENT, "POST registered-models/rename", {"name": "nobody", "new_name": "x"}),
        (INVALID, "POST registered-models/rename", {"name": a_model(), "new_name": "a/b"}),
        (INVALID, "DELETE registered-models/delete", {}),
        (ABSENT, "DELETE registered-models/delete", {"name": "nobody"}),
        (INVALID, "GET registered-models/search", {"max_results": 1001}),
        (INVALID, "GET registered-models/search", {"filter": "x"}),
        (INVALID, "GET registered-models/search", {"page_token": "x"}),
        (INVALID, "GET registered-models/search", {"order_by": "x"}),
        (INVALID, "POST registered-models/set-tag", {}),
        (ABSENT, "POST registered-models/set-tag", {"name": "nobody", "key": "a", "value": "b"}),
        (INVALID, "POST registered-models/set-tag", {"name": a_model(), "key": "a" * 251, "value": "b"}),
        (INVALID, "POST registered-models/set-tag", {"name": a_model(), "key": "a", "value": "b" * 100001}),
        (ABSENT, "DELETE registered-models/delete-tag", {"name": "nobody", "key": "a"}),
        (INVALID, "DELETE registered-models/delete-tag", {"name": a_model()}),
        (INVALID, "POST registered-models/alias", {}),
        (ABSENT, "POST registered-models/alias", {"name": a_model(), "alias": "a", "version": "9"}),
        (INVALID, "POST registered-models/alias", {"name": a_model(), "alias": "latest", "version": "1"}),
        (INVALID, "POST registered-models/alias", {"name": a_model(), "alias": "v1", "version": "1"}),
        (INVALID, "POST registered-models/alias", {"name": a_model(), "alias": "a", "version": "one"}),
        (ABSENT, "POST registered-models/alias", {"name": "nobody", "alias": "a", "version": "1"}),
        (INVALID, "GET registered-models/alias", {"name": a_model(), "alias": "nobody"}),
        (INVALID, "GET registered-models/alias", {"name": a_model()}),
        (ABSENT, "GET registered-models/alias", {"name": "nobody", "alias": "a"}),
        (INVALID, "DELETE registered-models/alias", {"name": a_model()}),
        (ABSENT, "DELETE registered-models/alias", {"name": "nobody", "alias": "a"}),
        (INVALID, "POST registered-models/get-latest-versions", {}),
        (ABSENT, "POST registered-models/get-latest-versions", {"name": "nobody"}),
        (INVALID, "POST registered-models/get-latest-versions", {"name": a_model(), "stages": ["Live"]}),
        (INVALID, "POST registered-models/get-latest-versions", {"name": a_model(), "stages": "Production"}),
    ])  # fmt: skip


def check_refusals_of_model_versions() -> None:
    expect([
        (INVALID, "POST model-versions/create", {}),
        (INVALID, "POST model-versions/create", {"name": a_model()}),
        (INVALID, "POST model-versions/create", {"source": "x"}),
        (INVALID, "POST model-versions/create", {"name": a_model(), "source": "/etc/x"}),
        (INVALID, "POST model-versions/create", {"name": a_model(), "source": f"models:/m-{NOBODY}"}),
        (INVALID, "GET model-versions/get", {}),
        (INVALID, "GET model-versions/get", {"name": a_model()}),
        (ABSENT, "GET model-versions/get", {"name": a_model(), "version": "9"}),
        (INVALID, "GET model-versions/get", {"name": a_model(), "version": "one"}),
        (ABSENT, "GET model-versions/get", {"name": "nobody", "version": "1"}),
        (INVALID, "PATCH model-versions/update", {}),
        (ABSENT, "PATCH model-versions/update", {"name": a_model(), "version": "9", "description": "x"}),
        (INVALID, "DELETE model-versions/delete", {}),
        (ABSENT, "DELETE model-versions/delete", {"name": a_model(), "version": "9"}),
        (INVALID, "DELETE model-versions/delete", {"name": a_model(), "version": "one"}),
        (INVALID, "GET model-versions/search", {"max_results": 0}),
        (INVALID, "GET model-versions/search", {"max_results": 200001}),
        (INVALID, "GET model-versions/search", {"filter": "x"}),
        (INVALID, "GET model-versions/search", {"page_token": "x"}),
        (INVALID, "GET model-versions/search", {"order_by": "x"}),
        (INVALID, "POST model-versions/set-tag", {}),
        (ABSENT, "POST model-versions/set-tag", {"name": a_model(), "version": "9", "key": "a", "value": "b"}),
        (INVALID, "POST model-versions/set-tag", {"name": a_model(), "version": "1", "value": "b"}),
        (ABSENT, "DELETE model-versions/delete-tag", {"name": a_model(), "version": "9", "key": "a"}),
        (INVALID, "GET model-versions/get-download-uri", {}),
        (ABSENT, "GET model-versions/get-download-uri", {"name": a_model(), "version": "9"}),
        (INVALID, "POST model-versions/transition-stage", {}),
        (INVALID, "POST model-versions/transition-stage", {"name": a_model(), "version": "1", "stage": "Live"}),
        (INVALID, "POST model-versions/transition-stage", {"name": a_model(), "version": "1"}),
        (ABSENT, "POST model-versions/transition-stage", {"name": a_model(), "version": "9", "stage": "Production"}),
        (INVALID, "POST model-versions/transition-stage",
         {"name": a_model(), "version": "1", "stage": "Production", "archive_existing_versions": "maybe"}),
    ])  # fmt: skip
