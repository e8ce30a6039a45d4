"""Registered models and versions over the MLflow wire, on a live control process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from andon.core.canonical import Digest
from andon.core.entities import Artifact, LoggedModel, Run
from andon.core.ids import LoggedModelId, RunId, new_id
from andon.registry.clients import VersionFiles
from andon.store.ports import Transaction
from andon.tracking.experiments import ensure_experiment
from tests.web.client import Reply
from tests.web.conftest import Control, serving
from tests.web.world import opened

API = "/api/2.0/mlflow/"


class Wire:
    """What an MLflow client sends, and the bytes a test puts where a client would."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.ws = control.world.ws
        self.actor = self.ws.actor().id

    def ask(self, method: str, path: str, form: Mapping[str, Any] | None = None) -> Reply:
        client = self.control.client
        if method == "GET":
            return client.ask("GET", f"{API}{path}?{urlencode(form or {}, doseq=True)}")
        body = json.dumps(form or {}).encode()
        return client.ask(method, API + path, body, Content_Type="application/json")

    def done(self, method: str, path: str, **form: Any) -> Any:
        reply = self.ask(method, path, form)
        assert reply.status == 200, reply.text
        return reply.json

    def refused(self, method: str, path: str, **form: Any) -> tuple[int, str]:
        reply = self.ask(method, path, form)
        return reply.status, reply.json["error_code"]

    def said(self, method: str, path: str, **form: Any) -> str:
        reply = self.ask(method, path, form)
        assert reply.status == 400, reply.text
        message: str = reply.json["message"]
        return message

    def model(self, name: str = "churn", **form: Any) -> str:
        self.done("POST", "registered-models/create", name=name, **form)
        return name

    def version(self, name: str = "churn", source: str = "s3://bucket/churn", **form: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.done("POST", "model-versions/create", name=name, source=source, **form)[
            "model_version"
        ]
        return made

    def get(self, name: str = "churn") -> dict[str, Any]:
        found: dict[str, Any] = self.done("GET", "registered-models/get", name=name)["registered_model"]
        return found

    def run(self) -> Run:
        """A run that a client tracks."""

        def work(tx: Transaction) -> Run:
            at = self.ws.clock.now()
            experiment = ensure_experiment(tx, "Default", self.actor, at)
            number = tx.counters.next("run")
            return tx.runs.add(
                Run(
                    id=RunId(new_id("run")), number=number, experiment=experiment.id, state="running",
                    cause=f"actor:{self.actor}", actor=self.actor, created_at=at, started_at=at,
                )
            )  # fmt: skip

        return self.ws.store.write(work)

    def logged(self) -> LoggedModel:
        """A logged model of a run."""
        run = self.run()
        row = LoggedModel(
            id=LoggedModelId(new_id("logged_model")), experiment=run.experiment, name="tree", state="ready",
            actor=self.actor, created_at=run.created_at, changed_at=run.created_at, run=run.id,
        )  # fmt: skip
        return self.ws.store.write(lambda tx: tx.logged_models.add(row))

    def file(self, path: str, data: bytes) -> Digest:
        """An artifact, as an upload leaves it."""
        digest = self.ws.blobs.put(data)

        def work(tx: Transaction) -> None:
            at = self.ws.clock.now()
            known = tx.artifacts.find(path)
            row = Artifact(
                id=path,
                digest=digest,
                size_bytes=len(data),
                actor=self.actor,
                changed_at=at,
                rev=known.rev if known else 0,
            )
            tx.artifacts.change(row) if known else tx.artifacts.add(row)

        self.ws.store.write(work)
        return digest


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with opened(tmp_path) as world, serving(world) as control:
        yield Wire(control)


# --- models ---


@pytest.mark.capability("E1")
def test_a_model_is_made_read_described_renamed_and_deleted(wire: Wire) -> None:
    name = wire.model("Mödel of a team", description="first", tags=[{"key": "team", "value": "fraud"}])
    found = wire.get(name)
    assert found == {
        "name": name, "description": "first", "tags": [{"key": "team", "value": "fraud"}],
        "creation_timestamp": found["creation_timestamp"], "last_updated_timestamp": found["creation_timestamp"],
    }  # fmt: skip

    changed = wire.done("PATCH", "registered-models/update", name=name, description="second")[
        "registered_model"
    ]
    assert (changed["description"], changed["last_updated_timestamp"] >= found["creation_timestamp"]) == (
        "second",
        True,
    )
    renamed = wire.done("POST", "registered-models/rename", name=name, new_name="churn")["registered_model"]
    assert (renamed["name"], renamed["description"], renamed["tags"]) == ("churn", "second", found["tags"])
    assert wire.refused("GET", "registered-models/get", name=name) == (404, "RESOURCE_DOES_NOT_EXIST")

    assert wire.done("DELETE", "registered-models/delete", name="churn") == {}
    assert wire.refused("GET", "registered-models/get", name="churn") == (404, "RESOURCE_DOES_NOT_EXIST")
    assert wire.model("churn") == "churn"


def test_names_that_mean_something_else_are_refused(wire: Wire) -> None:
    for name in ("", " ", "a/b", "a:b", ".", "..", "a" * 257, None):
        assert wire.refused("POST", "registered-models/create", name=name) == (
            400,
            "INVALID_PARAMETER_VALUE",
        ), name
    wire.model()
    assert wire.refused("POST", "registered-models/create", name="churn") == (400, "RESOURCE_ALREADY_EXISTS")
    wire.model("other")
    assert wire.refused("POST", "registered-models/rename", name="churn", new_name="other") == (
        400, "RESOURCE_ALREADY_EXISTS",
    )  # fmt: skip
    assert wire.refused("POST", "registered-models/rename", name="churn", new_name="a/b") == (
        400, "INVALID_PARAMETER_VALUE",
    )  # fmt: skip


def test_tags_of_models_and_versions_are_set_replaced_and_deleted(wire: Wire) -> None:
    wire.model()
    wire.version()

    for noun, more in (("registered-models", {}), ("model-versions", {"version": "1"})):
        wire.done("POST", f"{noun}/set-tag", name="churn", key="team", value="a", **more)
        wire.done("POST", f"{noun}/set-tag", name="churn", key="team", value="b", **more)
        wire.done("POST", f"{noun}/set-tag", name="churn", key="gone", **more)
        wire.done("DELETE", f"{noun}/delete-tag", name="churn", key="gone", **more)
        wire.done("DELETE", f"{noun}/delete-tag", name="churn", key="never was", **more)
        for key in ("", "a,b", "../up", "k" * 251):
            asked = {"name": "churn", "key": key, "value": "x", **more}
            assert wire.refused("POST", f"{noun}/set-tag", **asked) == (400, "INVALID_PARAMETER_VALUE"), key
        asked = {"name": "churn", "key": "long", "value": "x" * 100_001, **more}
        assert wire.refused("POST", f"{noun}/set-tag", **asked) == (400, "INVALID_PARAMETER_VALUE")

    assert wire.get()["tags"] == [{"key": "team", "value": "b"}]
    assert wire.get()["latest_versions"][0]["tags"] == [{"key": "team", "value": "b"}]


# --- versions, aliases, stages ---


def test_versions_are_counted_from_one_and_no_number_comes_twice(wire: Wire) -> None:
    wire.model()

    numbers = [wire.version()["version"] for _ in range(3)]
    wire.done("POST", "registered-models/alias", name="churn", alias="champion", version="3")
    wire.done("DELETE", "model-versions/delete", name="churn", version="3")

    assert (numbers, wire.version()["version"]) == (["1", "2", "3"], "4")
    assert wire.refused("GET", "model-versions/get", name="churn", version="3") == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
    )
    assert "aliases" not in wire.get()
    assert wire.refused("GET", "model-versions/get", name="churn", version="x") == (
        400,
        "INVALID_PARAMETER_VALUE",
    )
    assert wire.refused("GET", "model-versions/get", name="churn", version="9" * 40) == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
    )


def test_a_version_is_read_back_whole(wire: Wire) -> None:
    wire.model()

    made = wire.version(
        tags=[{"key": "a", "value": "1"}], run_link="https://example.org/run", description="d", run_id="a1",
        deployment_job_state=None,
    )  # fmt: skip

    assert made == wire.done("GET", "model-versions/get", name="churn", version=1)["model_version"]
    assert made == {
        "name": "churn", "version": "1", "current_stage": "None", "status": "READY", "source": "s3://bucket/churn",
        "description": "d", "run_id": "a1", "run_link": "https://example.org/run", "tags": [{"key": "a", "value": "1"}],
        "creation_timestamp": made["creation_timestamp"], "last_updated_timestamp": made["creation_timestamp"],
    }  # fmt: skip
    assert wire.done("GET", "model-versions/get-download-uri", name="churn", version="1") == {
        "artifact_uri": "s3://bucket/churn"
    }
    changed = wire.done("PATCH", "model-versions/update", name="churn", version="1", description="e")
    assert changed["model_version"]["description"] == "e"


@pytest.mark.capability("E2")
def test_stages_move_in_any_case_and_the_old_ones_are_archived(wire: Wire) -> None:
    wire.model()
    for _ in range(3):
        wire.version()

    def move(version: int, stage: str, **more: bool) -> str:
        asked = {"name": "churn", "version": str(version), "stage": stage, **more}
        moved: str = wire.done("POST", "model-versions/transition-stage", **asked)["model_version"][
            "current_stage"
        ]
        return moved

    assert [move(1, "PRODUCTION"), move(2, "staging")] == ["Production", "Staging"]
    assert move(3, "Production", archive_existing_versions=True) == "Production"
    found = wire.done("POST", "registered-models/get-latest-versions", name="churn")["model_versions"]
    assert {each["current_stage"]: each["version"] for each in found} == {
        "Staging": "2", "Production": "3", "Archived": "1"
    }  # fmt: skip
    some = wire.done(
        "GET", "registered-models/get-latest-versions", name="churn", stages=["production", "None"]
    )
    assert [each["version"] for each in some["model_versions"]] == ["3"]
    for stage, archive in (("Live", False), ("None", True), ("", False)):
        asked = {"name": "churn", "version": "1", "stage": stage, "archive_existing_versions": archive}
        assert wire.refused("POST", "model-versions/transition-stage", **asked) == (
            400,
            "INVALID_PARAMETER_VALUE",
        )
    moved = [event.facts for event in _events(wire, "stage.moved")]
    assert moved[-2:] == [
        {"stage": "Archived", "number": 1, "from": "Production"}, {"stage": "Production", "number": 3, "from": "None"},
    ]  # fmt: skip


@pytest.mark.capability("E2")
def test_an_alias_of_a_model_that_no_line_rules_moves_at_once(wire: Wire) -> None:
    wire.model()
    wire.version()
    wire.version()

    for version in ("1", "2", "2"):
        assert (
            wire.done("POST", "registered-models/alias", name="churn", alias="production", version=version)
            == {}
        )
    wire.done("POST", "registered-models/alias", name="churn", alias="Cand_2-b", version=1)

    assert wire.get()["aliases"] == [
        {"alias": "Cand_2-b", "version": "1"},
        {"alias": "production", "version": "2"},
    ]
    found = wire.done("GET", "registered-models/alias", name="churn", alias="production")["model_version"]
    assert (found["version"], found["aliases"]) == ("2", ["production"])
    newest = wire.done("GET", "registered-models/alias", name="churn", alias="latest")["model_version"]
    assert newest["version"] == "2"
    for alias in ("latest", "Latest", "v1", "V22", "", "a b", "a/b", "a" * 256):
        asked = {"name": "churn", "alias": alias, "version": "1"}
        assert wire.refused("POST", "registered-models/alias", **asked) == (400, "INVALID_PARAMETER_VALUE"), (
            alias
        )
    wire.done("DELETE", "registered-models/alias", name="churn", alias="production")
    asked = {"name": "churn", "alias": "production"}
    assert wire.refused("GET", "registered-models/alias", **asked) == (400, "INVALID_PARAMETER_VALUE")
    assert [(event.facts["alias"], event.facts["number"], event.facts["from"]) for event in _events(wire, "alias.moved")] == [
        ("production", 1, None), ("production", 2, 1), ("Cand_2-b", 1, None),
    ]  # fmt: skip


def test_a_rename_takes_versions_tags_and_aliases_along(wire: Wire) -> None:
    wire.model(tags=[{"key": "team", "value": "a"}])
    wire.version()
    wire.done("POST", "registered-models/alias", name="churn", alias="champion", version="1")

    wire.done("POST", "registered-models/rename", name="churn", new_name="leavers")

    found = wire.get("leavers")
    assert (found["aliases"], found["tags"]) == (
        [{"alias": "champion", "version": "1"}],
        [{"key": "team", "value": "a"}],
    )
    assert found["latest_versions"][0]["name"] == "leavers"
    assert wire.model("churn") == "churn"


def test_what_is_not_there_is_said_so(wire: Wire) -> None:
    wire.model()

    for method, path, form in (
        ("GET", "registered-models/get", {"name": "nobody"}),
        ("PATCH", "registered-models/update", {"name": "nobody"}),
        ("DELETE", "registered-models/delete", {"name": "nobody"}),
        ("POST", "registered-models/rename", {"name": "nobody", "new_name": "x"}),
        ("POST", "registered-models/set-tag", {"name": "nobody", "key": "a", "value": "b"}),
        ("GET", "registered-models/get-latest-versions", {"name": "nobody"}),
        ("POST", "model-versions/create", {"name": "nobody", "source": "s3://b/x"}),
        ("GET", "model-versions/get", {"name": "churn", "version": "1"}),
        ("PATCH", "model-versions/update", {"name": "churn", "version": "1"}),
        ("DELETE", "model-versions/delete", {"name": "churn", "version": "1"}),
        ("POST", "model-versions/transition-stage", {"name": "churn", "version": "1", "stage": "Staging"}),
        ("GET", "model-versions/get-download-uri", {"name": "churn", "version": "1"}),
        ("POST", "registered-models/alias", {"name": "churn", "alias": "a", "version": "1"}),
        ("GET", "registered-models/alias", {"name": "nobody", "alias": "a"}),
    ):
        assert wire.refused(method, path, **form) == (404, "RESOURCE_DOES_NOT_EXIST"), path
    for method, path in (
        ("GET", "registered-models/get"),
        ("POST", "model-versions/create"),
        ("POST", "registered-models/alias"),
    ):
        assert wire.refused(method, path) == (400, "INVALID_PARAMETER_VALUE"), path


# --- search ---


@pytest.mark.capability("E9")
def test_models_and_versions_are_found_by_what_they_carry_page_by_page(wire: Wire) -> None:
    for name, team in (("a-1", "x"), ("b-1", "y"), ("c-1", "x")):
        wire.model(name, tags=[{"key": "team", "value": team}])
        wire.version(name, tags=[{"key": "team", "value": team}], run_id=f"run{team}")
    wire.version("a-1", run_id="other")

    def found(text: str = "", **more: Any) -> list[str]:
        page = wire.done("GET", "registered-models/search", filter=text, **more)
        return [each["name"] for each in page.get("registered_models", [])]

    def versions(text: str = "", **more: Any) -> list[str]:
        page = wire.done("GET", "model-versions/search", filter=text, **more)
        return [f"{each['name']}/{each['version']}" for each in page.get("model_versions", [])]

    assert (found(), found("name LIKE '%-1'", order_by=["name DESC"])) == (
        ["a-1", "b-1", "c-1"],
        ["c-1", "b-1", "a-1"],
    )
    assert (found("tags.team = 'x'"), found("tags.team = 'x' AND name = 'c-1'")) == (["a-1", "c-1"], ["c-1"])
    assert found("name = 'nobody'") == []
    assert versions("name = 'a-1'") == ["a-1/2", "a-1/1"]
    assert (versions("run_id = 'runy'"), versions("tags.team = 'y'")) == (["b-1/1"], ["b-1/1"])
    assert versions("version_number > 1") == ["a-1/2"]
    assert versions("source_path = 's3://bucket/churn'", order_by=["name ASC", "version_number ASC"]) == [
        "a-1/1", "a-1/2", "b-1/1", "c-1/1",
    ]  # fmt: skip
    first = wire.done("GET", "registered-models/search", max_results=2)
    second = wire.done("GET", "registered-models/search", max_results=2, page_token=first["next_page_token"])
    assert [each["name"] for each in second["registered_models"]] == ["c-1"]
    assert "next_page_token" not in second
    assert [
        each["name"] for each in wire.done("GET", "registered-models/list")["registered_models"]
    ] == found()
    for noun in ("registered-models", "model-versions"):
        for bad in ({"filter": "colour = 'x'"}, {"max_results": 0}, {"max_results": 10**9}, {"page_token": "x"},
                    {"order_by": "colour"}, {"filter": "name = 'a' OR name = 'b'"}):  # fmt: skip
            assert wire.refused("GET", f"{noun}/search", **bad) == (400, "INVALID_PARAMETER_VALUE"), (
                noun,
                bad,
            )


@pytest.mark.capability("Q1")
def test_prompts_are_models_that_only_those_who_ask_for_prompts_find(wire: Wire) -> None:
    is_prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    wire.model("plain")
    wire.model("greeting", tags=[is_prompt])
    text = {"key": "mlflow.prompt.text", "value": "Hello {{name}}"}
    made = wire.version("greeting", "dummy-source", tags=[is_prompt, text])
    wire.version("greeting", "prompt-template", tags=[is_prompt, text])
    wire.done("POST", "registered-models/alias", name="greeting", alias="production", version="1")

    def found(text: str) -> list[str]:
        page = wire.done("GET", "registered-models/search", filter=text)
        return [each["name"] for each in page.get("registered_models", [])]

    assert {tag["key"]: tag["value"] for tag in made["tags"]}["mlflow.prompt.text"] == "Hello {{name}}"
    assert (found(""), found("tags.`mlflow.prompt.is_prompt` = 'false'")) == (["plain"], ["plain"])
    assert found("tags.`mlflow.prompt.is_prompt` = 'true'") == ["greeting"]
    assert found("tags.`mlflow.prompt.is_prompt` != 'true'") == ["plain"]
    assert wire.done("GET", "model-versions/search", filter="name = 'greeting'") == {}
    pinned = wire.done("GET", "registered-models/alias", name="greeting", alias="production")["model_version"]
    assert pinned["version"] == "1"
    one, two = wire.ws.store.read(lambda reader: reader.model_versions.select({"model": "greeting"}))
    assert one.digest == two.digest
    asked = {"name": "greeting", "source": "s3://b/x", "tags": [is_prompt]}
    assert wire.refused("POST", "model-versions/create", **asked) == (400, "INVALID_PARAMETER_VALUE")
    assert wire.refused("POST", "registered-models/create", name="greeting") == (
        400,
        "RESOURCE_ALREADY_EXISTS",
    )
    assert wire.refused("POST", "model-versions/create", name="plain", source="models:/greeting/1") == (
        400, "INVALID_PARAMETER_VALUE",
    )  # fmt: skip


# --- sources and files ---


def test_a_source_lies_where_the_client_says_it_belongs(wire: Wire) -> None:
    wire.model()
    run, other, logged = wire.run(), wire.run(), wire.logged()
    root, theirs = f"{run.experiment}/{run.id}/artifacts", f"{other.experiment}/{other.id}/artifacts"
    below = f"{logged.experiment}/models/{logged.id}/artifacts"
    wire.file(f"{root}/model/MLmodel", b"{}")
    wire.file(f"{below}/MLmodel", b"{}")

    good = (
        {"source": f"mlflow-artifacts:/{root}/model", "run_id": run.id},
        {"source": f"runs:/{run.id}/model", "run_id": run.id},
        {"source": f"models:/{logged.id}", "model_id": logged.id},
        {"source": f"models:/{logged.id}"},
        {"source": f"mlflow-artifacts:/{below}", "model_id": logged.id},
    )
    made = [wire.version(**each) for each in good]  # type: ignore[arg-type]
    bad = (
        {"source": f"mlflow-artifacts:/{root}/model"},
        {"source": f"mlflow-artifacts:/{theirs}/model", "run_id": run.id},
        {"source": f"mlflow-artifacts:/{root}x/model", "run_id": run.id},
        {"source": f"mlflow-artifacts:/{run.experiment}", "run_id": run.id},
        {"source": f"mlflow-artifacts:/{below}", "run_id": run.id},
        {"source": f"runs:/{run.id}/model"},
        {"source": f"runs:/{run.id}/model", "run_id": other.id},
        {"source": f"runs:/{run.id}", "run_id": run.id},
        {"source": f"runs:/{'0' * 32}/model", "run_id": "0" * 32},
        {"source": f"models:/{logged.id}", "model_id": "m-0"},
        {"source": "models:/m-0"},
        {"source": f"mlflow-artifacts:/{root}/model", "model_id": logged.id},
    )

    assert [each["run_id"] for each in made] == [run.id, run.id, logged.run, logged.run, logged.run]
    versions = wire.ws.store.read(lambda reader: reader.model_versions.select(order=("number",)))
    assert [version.held for version in versions] == [True] * 5
    for form in bad:
        assert wire.refused("POST", "model-versions/create", name="churn", **form) == (
            400,
            "INVALID_PARAMETER_VALUE",
        ), form
    tags = wire.ws.store.read(lambda reader: reader.logged_model_tags.of([logged.id]))[logged.id]
    assert json.loads(tags["mlflow.modelVersions"]) == [
        {"name": "churn", "version": number} for number in (3, 4, 5)
    ]


def test_a_model_elsewhere_is_kept_as_an_address_and_never_as_its_files(wire: Wire) -> None:
    wire.model()

    for source in (
        "s3://bucket/a b/%20c", "gs://bucket/x", "abfss://c@host.example/x", "wasbs://c@host.example/x", "dbfs:/x/y",
        "hdfs://host:8020/x", "https://example.org/model", "http://example.org:80/model",
    ):  # fmt: skip
        made = wire.version(source=source)
        uri = wire.done("GET", "model-versions/get-download-uri", name="churn", version=made["version"])
        assert (made["source"], uri["artifact_uri"]) == (source, source)
    versions = wire.ws.store.read(lambda reader: reader.model_versions.select())
    assert {version.held for version in versions} == {False}
    assert len({version.digest for version in versions}) == 8


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("/etc", id="a path"),
        pytest.param("../../etc", id="a relative path"),
        pytest.param("file:///etc", id="a file address"),
        pytest.param("FILE:/etc", id="a file address in capitals"),
        pytest.param("C:\\Windows", id="a drive"),
        pytest.param("\\\\host\\share", id="a share"),
        pytest.param("mlflow-artifacts:/{root}/../../../etc", id="dots"),
        pytest.param("mlflow-artifacts:/{root}/%2e%2e/x", id="encoded dots"),
        pytest.param("mlflow-artifacts:/{root}/%252e%252e/x", id="dots encoded twice"),
        pytest.param("mlflow-artifacts:/{root}/./x", id="one dot"),
        pytest.param("mlflow-artifacts:/{root}/x#/../../etc", id="a fragment"),
        pytest.param("mlflow-artifacts:/{root}/x;/../../etc", id="a parameter"),
        pytest.param("mlflow-artifacts:/{root}/x?y=../..", id="a query"),
        pytest.param("mlflow-artifacts:/{root}\\..\\x", id="a backslash"),
        pytest.param("mlflow-artifacts:/{root}%5c..%5cx", id="an encoded backslash"),
        pytest.param("mlflow-artifacts:/{root}/x%00", id="a null byte"),
        pytest.param("mlflow-artifacts:/{root}/%ff", id="no text"),
        pytest.param("mlflow-artifacts://evil.example/{root}", id="another server"),
        pytest.param("mlflow-artifacts:/", id="nothing"),
        pytest.param("runs:/{run}/../../etc", id="dots in a run"),
        pytest.param("runs://evil.example/{run}/model", id="a run of another server"),
        pytest.param("models://evil.example/churn/1", id="a model of another server"),
        pytest.param("models:/churn/1/x", id="more than a version"),
        pytest.param("https://example.org/../../etc", id="dots elsewhere"),
        pytest.param("http:///#/../../etc", id="a fragment elsewhere"),
        pytest.param("http://host/api/2.0/mlflow-artifacts/artifacts/x", id="this server by another name"),
        pytest.param("s3://bucket/%2e%2e/x", id="encoded dots elsewhere"),
        pytest.param("gopher://x/y", id="an unknown scheme"),
        pytest.param("s3://b/" + "x" * 5000, id="far too long"),
        pytest.param("", id="empty"),
    ],
)
def test_a_source_that_may_mean_another_place_is_refused(wire: Wire, source: str) -> None:
    wire.model()
    run = wire.run()
    text = source.replace("{root}", f"{run.experiment}/{run.id}/artifacts").replace("{run}", run.id)

    reply = wire.ask("POST", "model-versions/create", {"name": "churn", "source": text, "run_id": run.id})

    assert (reply.status, reply.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert wire.ws.store.read(lambda reader: reader.model_versions.count()) == 0


def test_the_same_content_is_the_same_digest_and_later_uploads_change_no_version(wire: Wire) -> None:
    wire.model()
    run, logged = wire.run(), wire.logged()
    first, second = (
        f"{run.experiment}/{run.id}/artifacts/model",
        f"{logged.experiment}/models/{logged.id}/artifacts",
    )
    for folder in (first, second):
        wire.file(f"{folder}/MLmodel", b"flavors: {}")
        wire.file(f"{folder}/data/model.txt", b"tree")

    one = wire.version(source=f"runs:/{run.id}/model", run_id=run.id)
    two = wire.version(source=f"models:/{logged.id}", model_id=logged.id)
    wire.file(f"{first}/data/model.txt", b"another tree")
    three = wire.version(source=f"runs:/{run.id}/model", run_id=run.id)
    copied = wire.version(source="models:/churn/1")

    rows = wire.ws.store.read(lambda reader: reader.model_versions.select(order=("number",)))
    assert [row.digest == rows[0].digest for row in rows] == [True, True, False, True]
    assert [each["version"] for each in (one, two, three, copied)] == ["1", "2", "3", "4"]
    assert (copied["source"], copied["run_id"]) == ("models:/churn/1", run.id)
    files = VersionFiles(wire.ws.store, wire.ws.blobs).of(rows[0].id)
    assert {path: wire.ws.blobs.get(file.digest) for path, file in files.items() if file.digest} == {
        "MLmodel": b"flavors: {}", "data/model.txt": b"tree",
    }  # fmt: skip
    assert wire.done("GET", "model-versions/get-download-uri", name="churn", version="1") == {
        "artifact_uri": f"mlflow-artifacts:/registry/{rows[0].id}"
    }


@pytest.mark.capability("E10")
def test_the_files_of_a_version_are_given_out_whole_or_not_at_all_and_never_changed(wire: Wire) -> None:
    wire.model()
    run = wire.run()
    digest = wire.file(f"{run.experiment}/{run.id}/artifacts/model/data/model.txt", b"tree")
    wire.version(source=f"runs:/{run.id}/model", run_id=run.id)
    uri = wire.done("GET", "model-versions/get-download-uri", name="churn", version="1")["artifact_uri"]
    root, client = uri.removeprefix("mlflow-artifacts:/"), wire.control.client
    base = "/api/2.0/mlflow-artifacts/artifacts"

    listed = client.get(f"{base}?path={root}").json
    whole = client.get(f"{base}/{root}/data/model.txt")
    written = client.ask("PUT", f"{base}/{root}/data/model.txt", b"other")
    removed = client.ask("DELETE", f"{base}/{root}/data")
    client.ask("DELETE", f"{base}/{run.experiment}/{run.id}/artifacts/model")
    after = client.get(f"{base}/{root}/data/model.txt")
    stored = Path(wire.ws.blobs.path(digest))
    stored.chmod(0o600)
    stored.write_bytes(b"evil")
    damaged = client.get(f"{base}/{root}/data/model.txt")

    assert listed == {"files": [{"path": "data", "is_dir": True}]}
    assert (whole.status, whole.body, after.body) == (200, b"tree", b"tree")
    assert (written.status, removed.status) == (400, 400)
    assert (damaged.status, damaged.json["error_code"]) == (422, "DATA_LOSS")
    assert b"evil" not in damaged.body


def _events(wire: Wire, kind: str) -> list[Any]:
    return wire.ws.store.read(lambda reader: reader.ledger.after(0, limit=1000, kinds=[kind]))
