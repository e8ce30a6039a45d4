"""Logged models over the MLflow wire, on a live control process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from andon.core.entities import Experiment
from andon.core.ids import new_id
from andon.store.ports import Transaction
from andon.tracking.experiments import create_experiment
from tests.web.client import Reply
from tests.web.conftest import Control, serving
from tests.web.world import opened

API = "/api/2.0/mlflow/logged-models"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
NOBODY = "m-" + "f" * 32


class Wire:
    """What an MLflow client sends about the models of one experiment."""

    def __init__(self, control: Control, experiment: Experiment) -> None:
        self.client = control.client
        self.experiment = experiment.id

    def ask(self, method: str, path: str, form: object = None) -> Reply:
        body = None if form is None else json.dumps(form).encode()
        return self.client.ask(method, API + path, body, Content_Type="application/json")

    def done(self, method: str, path: str, form: object = None) -> Any:
        reply = self.ask(method, path, form)
        assert reply.status == 200, reply.text
        return reply.json

    def made(self, **form: Any) -> str:
        answer = self.done("POST", "", {"experiment_id": self.experiment, "name": "forest", **form})
        ident: str = answer["model"]["info"]["model_id"]
        return ident

    def get(self, ident: str) -> Any:
        return self.done("GET", f"/{ident}")["model"]

    def found(self, **form: Any) -> list[str]:
        models = self.done("POST", "/search", {"experiment_ids": [self.experiment], **form}).get("models", [])
        return [model["info"]["model_id"] for model in models]


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """A server over a workspace in which nothing was."""
    with opened(tmp_path_factory.mktemp("models")) as world, serving(world) as found:
        yield found


@pytest.fixture
def wire(control: Control) -> Wire:
    """An experiment of the test's own."""
    ws, actor = control.world.ws, control.world.person.id

    def work(tx: Transaction) -> Experiment:
        return create_experiment(tx, new_id("run"), actor, ws.clock.now())

    return Wire(control, ws.store.write(work))


def error(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json["error_code"]


@pytest.mark.capability("C5", "C6")
def test_a_model_is_answered_in_the_shape_that_clients_read(wire: Wire) -> None:
    answer = wire.done(
        "POST", "",
        {
            "experiment_id": wire.experiment, "name": "forest", "model_type": "tree", "source_run_id": "a" * 32,
            "params": [{"key": "depth", "value": "3"}], "tags": [{"key": "team", "value": "ü"}], "unknown": [1],
        },
    )["model"]  # fmt: skip

    ident, at = answer["info"]["model_id"], answer["info"]["creation_timestamp_ms"]
    assert answer == {
        "info": {
            "model_id": ident, "experiment_id": wire.experiment, "name": "forest", "creation_timestamp_ms": at,
            "last_updated_timestamp_ms": at, "status": "LOGGED_MODEL_PENDING", "model_type": "tree",
            "artifact_uri": f"mlflow-artifacts:/{wire.experiment}/models/{ident}/artifacts", "source_run_id": "a" * 32,
            "tags": [{"key": "team", "value": "ü"}],
        },
        "data": {"params": [{"key": "depth", "value": "3"}]},
    }  # fmt: skip
    assert ident.startswith("m-")
    assert len(ident) == 34
    assert wire.get(ident) == answer


def test_a_model_needs_no_more_than_its_experiment(wire: Wire) -> None:
    answer = wire.done(
        "POST", "", {"experiment_id": wire.experiment, "name": "", "params": None, "tags": None}
    )["model"]

    assert answer["info"]["name"].count("-") == 2
    assert answer["data"] == {}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("LOGGED_MODEL_READY", "LOGGED_MODEL_READY"), (2, "LOGGED_MODEL_READY"), ("1", "LOGGED_MODEL_PENDING"),
        ("LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_UPLOAD_FAILED"), (3, "LOGGED_MODEL_UPLOAD_FAILED"),
    ],
)  # fmt: skip
def test_saving_a_model_ends(wire: Wire, said: object, told: str) -> None:
    ident = wire.made()

    answer = wire.done("PATCH", f"/{ident}", {"model_id": ident, "status": said})

    assert answer["model"]["info"]["status"] == told
    assert answer["model"] == wire.get(ident)


@pytest.mark.parametrize("status", [None, 0, 4, "READY", "", "LOGGED_MODEL_STATUS_UNSPECIFIED", 2.5])
def test_a_status_that_is_none_is_refused(wire: Wire, status: object) -> None:
    ident = wire.made()

    assert error(wire.ask("PATCH", f"/{ident}", {"status": status})) == (400, "INVALID_PARAMETER_VALUE")
    assert wire.get(ident)["info"]["status"] == "LOGGED_MODEL_PENDING"


def test_tags_and_params_are_set(wire: Wire) -> None:
    ident = wire.made(params=[{"key": "a", "value": "1"}], tags=[{"key": "t", "value": "1"}])

    answers = [
        wire.done(
            "PATCH", f"/{ident}/tags", {"tags": [{"key": "t", "value": "2"}, {"key": "x/y z", "value": "3"}]}
        ),
        wire.done(
            "POST",
            f"/{ident}/params",
            {"params": [{"key": "b", "value": "2"}, {"key": "(c) ü", "value": None}]},
        ),
        wire.done("DELETE", f"/{ident}/tags/{quote('x/y z', safe='')}"),
    ]

    found = wire.get(ident)
    assert answers == [{}, {}, {}]
    assert found["info"]["tags"] == [{"key": "t", "value": "2"}]
    assert {pair["key"]: pair["value"] for pair in found["data"]["params"]} == {
        "a": "1",
        "b": "2",
        "(c) ü": "",
    }
    for refused in (
        wire.ask("POST", f"/{ident}/params", {"params": [{"key": "a", "value": "9"}]}),
        wire.ask(
            "POST", f"/{ident}/params", {"params": [{"key": "d", "value": "1"}, {"key": "d", "value": "2"}]}
        ),
        wire.ask("POST", f"/{ident}/params", {"params": [{"value": "1"}]}),
        wire.ask("POST", f"/{ident}/params", {"params": [{"key": "k" * 251, "value": "1"}]}),
        wire.ask("POST", f"/{ident}/params", {"params": [{"key": "a\0b", "value": "1"}]}),
        wire.ask("POST", f"/{ident}/params", {"params": "many"}),
        wire.ask("PATCH", f"/{ident}/tags", {"tags": [{"key": "andon.release", "value": "1"}]}),
        wire.ask("POST", "", {"experiment_id": wire.experiment, "tags": [{"key": "andon.x", "value": "1"}]}),
    ):
        assert error(refused) == (400, "INVALID_PARAMETER_VALUE")
    assert error(wire.ask("DELETE", f"/{ident}/tags/none")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert wire.get(ident) == found


@pytest.mark.capability("C5")
def test_what_is_not_there_is_said_so(wire: Wire) -> None:
    gone = wire.made()
    wire.done("DELETE", f"/{gone}")
    wire.done("DELETE", f"/{gone}")

    for ident in (NOBODY, gone, "m-x", "..", "%2e%2e"):
        for method, rest, form in (
            ("GET", "", None), ("PATCH", "", {"status": 2}), ("PATCH", "/tags", {"tags": []}), ("POST", "/params", {}),
            ("DELETE", "/tags/a", None), ("GET", "/artifacts/directories", None),
            ("GET", "/artifacts/files?artifact_file_path=MLmodel", None),
        ):  # fmt: skip
            assert error(wire.ask(method, f"/{ident}{rest}", form)) == (404, "RESOURCE_DOES_NOT_EXIST"), (
                ident,
                method,
                rest,
            )
    assert error(wire.ask("DELETE", f"/{NOBODY}")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert error(wire.ask("POST", "", {"experiment_id": "987654"})) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert error(wire.ask("POST", "", {"name": "x"})) == (400, "INVALID_PARAMETER_VALUE")
    assert wire.done("GET", f"/{gone}?allow_deleted=true")["model"]["info"]["model_id"] == gone
    assert wire.found() == []


@pytest.mark.parametrize("name", ["a/b", "a:b", "a.b", "a%b", 'a"b', "a'b", "n" * 501])
def test_names_that_mean_something_else_are_refused(wire: Wire, name: str) -> None:
    refused = wire.ask("POST", "", {"experiment_id": wire.experiment, "name": name})

    assert error(refused) == (400, "INVALID_PARAMETER_VALUE")
    assert wire.found() == []


@pytest.mark.capability("C4", "C5")
def test_models_are_found_by_what_they_carry_in_the_order_asked_for(wire: Wire, control: Control) -> None:
    def measured(ident: str, value: object, dataset: str | None = None) -> None:
        run = wire.client.post("/api/2.0/mlflow/runs/create", {"experiment_id": wire.experiment}).json["run"]
        form = {
            "run_id": run["info"]["run_id"], "key": "auc", "value": value, "timestamp": 5, "model_id": ident,
            "dataset_name": dataset, "dataset_digest": None if dataset is None else "1",
        }  # fmt: skip
        assert wire.client.post("/api/2.0/mlflow/runs/log-metric", form).status == 200

    one = wire.made(name="one", tags=[{"key": "t", "value": "x"}])
    two = wire.made(name="two", params=[{"key": "p", "value": "1"}])
    three = wire.made(name="three")
    measured(one, 0.5, "flights")
    measured(two, 0.9)
    measured(three, "NaN")

    assert wire.found() == [three, two, one]
    assert wire.found(filter="tags.t = 'x'") == [one]
    assert wire.found(filter="params.p = '1' AND name = 'two'") == [two]
    assert wire.found(filter="metrics.auc > 0.4") == [two, one]
    assert wire.found(filter="metrics.auc > 0.4", datasets=[{"dataset_name": "flights"}]) == [one]
    elsewhere = [{"dataset_name": "flights", "dataset_digest": "2"}]
    assert wire.found(filter="metrics.auc > 0.4", datasets=elsewhere) == []
    assert wire.found(order_by=[{"field_name": "metrics.auc"}]) == [one, two, three]
    assert wire.found(order_by=[{"field_name": "metrics.auc", "ascending": False}]) == [two, one, three]
    assert wire.found(order_by=[{"field_name": "name", "ascending": True}]) == [one, three, two]
    by_flights = {"field_name": "metrics.auc", "dataset_name": "flights", "dataset_digest": "1"}
    assert wire.found(order_by=[by_flights])[0] == one
    (metric,) = wire.get(one)["data"]["metrics"]
    assert metric["run_id"]
    assert {**metric, "run_id": ""} == {
        "key": "auc", "value": 0.5, "timestamp": 5, "step": 0, "model_id": one, "run_id": "", "dataset_name": "flights",
        "dataset_digest": "1",
    }  # fmt: skip
    assert wire.get(three)["data"]["metrics"][0]["value"] == "NaN"


def test_pages_of_a_search_follow_each_other(wire: Wire) -> None:
    made = [wire.made(name=f"m{number}") for number in range(5)]

    pages, token = [], None
    while token is not None or not pages:
        form = {"experiment_ids": [wire.experiment], "max_results": 2, "page_token": token}
        answer = wire.done("POST", "/search", form)
        pages.append([model["info"]["model_id"] for model in answer["models"]])
        token = answer.get("next_page_token")

    assert pages == [made[4:2:-1], made[2:0:-1], made[:1]]


@pytest.mark.parametrize(
    "form",
    [
        {"experiment_ids": []}, {"experiment_ids": None}, {"filter": "nonsense"}, {"filter": "name = 'a' OR name = 'b'"},
        {"order_by": [{"field_name": "colour"}]}, {"order_by": [{}]}, {"order_by": ["name"]},
        {"order_by": [{"field_name": "metrics.a", "dataset_digest": "1"}]}, {"datasets": [{"dataset_digest": "1"}]},
        {"datasets": [{}]}, {"max_results": -1}, {"max_results": 100_000}, {"page_token": "!"}, {"filter": "x" * 100_000},
    ],
    ids=str,
)  # fmt: skip
def test_a_search_that_cannot_be_read_is_refused(wire: Wire, form: dict[str, Any]) -> None:
    refused = wire.ask("POST", "/search", {"experiment_ids": [wire.experiment], **form})

    assert error(refused) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.capability("C6")
def test_its_files_are_listed_and_read(wire: Wire) -> None:
    ident = wire.made()
    root = f"{wire.experiment}/models/{ident}/artifacts"
    for path, data in (("MLmodel", b"flavors: {}\n"), ("data/model.bin", bytes(100))):
        assert wire.client.ask("PUT", f"{PROXY}/{root}/{path}", data).status == 200

    top = wire.done("GET", f"/{ident}/artifacts/directories")
    below = wire.done("GET", f"/{ident}/artifacts/directories?artifact_directory_path=data")
    file = wire.ask("GET", f"/{ident}/artifacts/files?artifact_file_path=data/model.bin")

    assert top == {
        "files": [{"path": "MLmodel", "is_dir": False, "file_size": 12}, {"path": "data", "is_dir": True}],
        "root_uri": f"mlflow-artifacts:/{root}",
    }
    assert below["files"] == [{"path": "data/model.bin", "is_dir": False, "file_size": 100}]
    assert file.body == bytes(100)
    for path in ("..", "../../x", "/etc/passwd", "%252e%252e/x", "a%5cb"):
        for address in ("directories?artifact_directory_path=", "files?artifact_file_path="):
            assert error(wire.ask("GET", f"/{ident}/artifacts/{address}{path}")) == (
                400,
                "INVALID_PARAMETER_VALUE",
            )
    assert error(wire.ask("GET", f"/{ident}/artifacts/files")) == (400, "INVALID_PARAMETER_VALUE")


def test_who_has_no_token_changes_and_sees_nothing(wire: Wire, control: Control) -> None:
    ident = wire.made()
    for method, path in (("POST", ""), ("GET", f"/{ident}"), ("PATCH", f"/{ident}"), ("DELETE", f"/{ident}")):
        reply = control.anonymous.ask(method, API + path, b"{}", Authorization="Bearer guess")
        assert error(reply) == (401, "UNAUTHENTICATED")
    assert wire.found() == [ident]
