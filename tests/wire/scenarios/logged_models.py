"""Logged models, MLflow 3's own kind of thing: made, finished, tagged, measured, found, deleted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModelInput, LoggedModelOutput, LoggedModelStatus, Metric
from wire import answer, call, client, experiment, refused, run, unique


def made(experiment_id: str | None = None, **more: object) -> mlflow.entities.LoggedModel:
    return client.create_logged_model(experiment_id or experiment(), **more)


def check_a_model_goes_from_pending_to_ready() -> None:
    run_id = run()
    here = client.get_run(run_id).info.experiment_id

    new = made(
        here, name="tree", source_run_id=run_id, tags={"a": "1"}, params={"depth": "3"}, model_type="forest"
    )
    client.finalize_logged_model(new.model_id, LoggedModelStatus.READY)

    found = client.get_logged_model(new.model_id)
    assert (new.status, found.status) == (LoggedModelStatus.PENDING, LoggedModelStatus.READY)
    assert found.model_id.startswith("m-")
    assert len(found.model_id) == 34
    assert (found.name, found.experiment_id, found.source_run_id, found.model_type) == (
        "tree",
        here,
        run_id,
        "forest",
    )
    assert (found.tags["a"], found.params) == ("1", {"depth": "3"})
    assert found.artifact_location.endswith(f"{here}/models/{found.model_id}/artifacts")
    assert found.creation_timestamp <= found.last_updated_timestamp
    assert found.model_uri == f"models:/{found.model_id}"


def check_a_model_without_a_name_gets_one() -> None:
    assert made().name


def check_a_model_may_fail() -> None:
    new = made(name="broken")

    client.finalize_logged_model(new.model_id, "FAILED")

    assert client.get_logged_model(new.model_id).status == LoggedModelStatus.FAILED


def check_tags_are_set_and_removed() -> None:
    new = made(name="tagged", tags={"a": "1"})

    client.set_logged_model_tags(new.model_id, {"a": "2", "b c/d": "ü"})
    assert client.get_logged_model(new.model_id).tags == {"a": "2", "b c/d": "ü"}
    client.delete_logged_model_tag(new.model_id, "a")

    assert client.get_logged_model(new.model_id).tags == {"b c/d": "ü"}
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.delete_logged_model_tag(new.model_id, "a")


def check_parameters_can_be_added() -> None:
    new = made(name="parametrised", params={"a": "1"})

    answer(
        "POST",
        f"logged-models/{new.model_id}/params",
        {"model_id": new.model_id, "params": [{"key": "b", "value": "2"}]},
    )
    many = made(name="many", params={f"p{n}": str(n) for n in range(250)})

    assert client.get_logged_model(new.model_id).params == {"a": "1", "b": "2"}
    assert len(client.get_logged_model(many.model_id).params) == 250


def check_metrics_of_a_model_name_run_and_dataset() -> None:
    run_id = run()
    new = made(client.get_run(run_id).info.experiment_id, name="measured", source_run_id=run_id)
    other = run(new.experiment_id)

    client.log_metric(run_id, "auc", 0.7, step=1, timestamp=10, model_id=new.model_id)
    client.log_metric(
        other,
        "auc",
        0.8,
        step=0,
        timestamp=20,
        model_id=new.model_id,
        dataset_name="flights",
        dataset_digest="abc",
    )
    client.log_batch(
        run_id,
        [Metric("loss", 0.1, 5, 2, model_id=new.model_id), Metric("loss", 0.05, 6, 3, model_id=new.model_id)],
    )

    found = {
        (m.key, m.value, m.step, m.run_id, m.dataset_name, m.dataset_digest)
        for m in client.get_logged_model(new.model_id).metrics
    }
    assert found >= {
        ("auc", 0.7, 1, run_id, None, None),
        ("auc", 0.8, 0, other, "flights", "abc"),
        ("loss", 0.05, 3, run_id, None, None),
    }
    assert client.get_run(run_id).data.metrics == {"auc": 0.7, "loss": 0.05}


def check_runs_name_the_models_they_read_and_wrote() -> None:
    maker, reader = run(), run()
    new = made(client.get_run(maker).info.experiment_id, name="linked", source_run_id=maker)

    client.log_outputs(maker, [LoggedModelOutput(new.model_id, step=7)])
    client.log_inputs(reader, models=[LoggedModelInput(new.model_id)])

    (written,) = client.get_run(maker).outputs.model_outputs
    (read,) = client.get_run(reader).inputs.model_inputs
    assert (written.model_id, written.step, read.model_id) == (new.model_id, 7, new.model_id)


def check_models_are_found_by_everything_they_carry() -> None:
    here = experiment()
    run_id = run(here)
    first = made(
        here, name="First", tags={"team": "a"}, params={"depth": "3"}, model_type="tree", source_run_id=run_id
    )
    second = made(here, name="Second", tags={"team": "b"}, params={"depth": "4"}, model_type="net")
    third = made(here, name="Third", tags={"team": "b"})
    client.log_metric(run_id, "auc", 0.7, model_id=first.model_id, dataset_name="d", dataset_digest="1")
    client.log_metric(run_id, "auc", 0.9, model_id=second.model_id, dataset_name="d", dataset_digest="2")
    client.finalize_logged_model(first.model_id, "READY")
    letters = {first.model_id: "1", second.model_id: "2", third.model_id: "3"}

    def found(text: str | None = None, **more: object) -> str:
        page = client.search_logged_models([here], text, **more)
        return "".join(letters[m.model_id] for m in page)

    def some(text: str) -> str:
        return "".join(sorted(found(text)))

    assert found() == "321"
    assert (some("name = 'First'"), some("name != 'First'"), some("name LIKE '%ir%'")) == ("1", "23", "13")
    assert (some("name ILIKE 'SEC%'"), some(f"model_id = '{second.model_id}'")) == ("2", "2")
    assert (some("model_type = 'tree'"), some("status = 'READY'"), some("status != 'READY'")) == (
        "1",
        "1",
        "23",
    )
    assert (some(f"source_run_id = '{run_id}'"), some("params.depth = '4'"), some("tags.team = 'b'")) == (
        "1",
        "2",
        "23",
    )
    assert (some("tags.team != 'b'"), some("tags.team LIKE '_' AND params.depth = '3'")) == ("1", "1")
    assert (some("metrics.auc > 0.8"), some("metrics.auc <= 0.8"), some("metrics.auc > 0")) == (
        "2",
        "1",
        "12",
    )
    assert some(f"creation_timestamp >= {first.creation_timestamp}") == "123"
    assert "".join(found("metrics.auc > 0.1", datasets=[{"dataset_name": "d", "dataset_digest": "1"}])) == "1"
    assert found(order_by=[{"field_name": "creation_timestamp", "ascending": True}]) == "123"
    assert found(order_by=[{"field_name": "name", "ascending": False}]) == "321"
    assert found(order_by=[{"field_name": "metrics.auc", "ascending": False}]) == "213"
    assert found(order_by=[{"field_name": "metrics.auc", "ascending": True}]) == "123"
    by_first = {"field_name": "metrics.auc", "ascending": True, "dataset_name": "d", "dataset_digest": "2"}
    assert found(order_by=[by_first])[0] == "2"
    with refused("INVALID_PARAMETER_VALUE"):
        found("nonsense")
    with refused("INVALID_PARAMETER_VALUE"):
        found(order_by=[{"field_name": "colour"}])


def check_found_models_come_in_pages() -> None:
    here = experiment()
    models = [made(here, name=f"m{n}").model_id for n in range(5)]

    pages, token = [], None
    while token or not pages:
        page = client.search_logged_models([here], max_results=2, page_token=token)
        pages.append([m.model_id for m in page])
        token = page.token

    assert pages == [models[:2:-1], models[2:0:-1], models[:1]]


def check_a_deleted_model_is_not_found() -> None:
    here = experiment()
    new = made(here, name="gone")

    client.delete_logged_model(new.model_id)

    assert list(client.search_logged_models([here])) == []
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_logged_model(new.model_id)


def check_its_artifacts_are_listed_and_come_down() -> None:
    new = made(name="files")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "MLmodel").write_text("flavors: {}\n")
        (Path(folder) / "sub").mkdir()
        (Path(folder) / "sub/weights.bin").write_bytes(bytes(100))
        client.log_model_artifacts(new.model_id, folder)

    top = answer("GET", f"logged-models/{new.model_id}/artifacts/directories")["files"]
    found = {f["path"]: f.get("file_size") for f in top}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(f"models:/{new.model_id}", dst_path=folder))
        weights = (path / "sub/weights.bin").read_bytes()

    assert found == {"MLmodel": 12, "sub": None}
    assert {f.path for f in client.list_logged_model_artifacts(new.model_id, "sub")} == {"sub/weights.bin"}
    assert weights == bytes(100)


def check_what_is_not_there_is_said_so() -> None:
    nobody = "m-" + "f" * 32

    for read in (
        lambda: client.get_logged_model(nobody),
        lambda: client.finalize_logged_model(nobody, "READY"),
        lambda: client.delete_logged_model(nobody),
        lambda: client.create_logged_model("987654321"),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST"):
            read()
    tags = call(
        "PATCH", f"logged-models/{nobody}/tags", {"model_id": nobody, "tags": [{"key": "a", "value": "b"}]}
    )
    assert (tags.status_code, tags.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def check_names_that_mean_something_else_are_refused() -> None:
    here = experiment()

    for name in ("a/b", "a:b", "a.b", "a%b", 'a"b', "a'b"):
        status = call("POST", "logged-models", {"experiment_id": here, "name": name}).status_code
        assert status == 400, (name, status)


def check_the_active_model_collects_metrics() -> None:
    mlflow.set_experiment(unique("active"))

    active = mlflow.set_active_model(name="agent")
    with mlflow.start_run():
        mlflow.log_metric("quality", 0.9, model_id=active.model_id)
    mlflow.clear_active_model()

    assert [(m.key, m.value) for m in mlflow.get_logged_model(active.model_id).metrics] == [("quality", 0.9)]
