"""Artifacts through the server: written, listed, read back and deleted, whatever their names and sizes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from urllib.parse import quote

import mlflow
from mlflow.artifacts import download_artifacts, load_dict, load_text
from mlflow.exceptions import MlflowException
from wire import URI, call, client, experiment, run

NAMES = [
    "plain.txt", "with space.txt", "ünïcode-名前.txt", "100%.txt", "a+b&c=d,e.txt", "(round) [square] {curly}.txt",
    "quote'single.txt", ".hidden", "~tilde.txt", "a:b@c!d$e.txt", "two..dots",
]  # fmt: skip
TRICKY = ["hash#mark.txt", "semi;colon.txt", "back\\slash.txt", "question?mark.txt"]


def listed(run_id: str, path: str | None = None) -> dict[str, int | None]:
    """Path to size of what a folder holds, None for folders."""
    return {found.path: found.file_size for found in client.list_artifacts(run_id, path)}


def fetched(run_id: str, path: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_bytes()


def check_a_file_is_written_listed_and_read_back() -> None:
    run_id = run()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "numbers.csv").write_bytes(b"a,b\r\n1,2\r\n")
        client.log_artifact(run_id, f"{folder}/numbers.csv")
        client.log_artifact(run_id, f"{folder}/numbers.csv", "deep/er")

    assert listed(run_id) == {"deep": None, "numbers.csv": 10}
    assert listed(run_id, "deep") == {"deep/er": None}
    assert listed(run_id, "deep/er") == {"deep/er/numbers.csv": 10}
    assert fetched(run_id, "deep/er/numbers.csv") == fetched(run_id, "numbers.csv") == b"a,b\r\n1,2\r\n"


def check_a_folder_goes_up_and_comes_down_whole() -> None:
    run_id = run()
    given = {
        "a.txt": b"a",
        "sub/b.bin": bytes(range(256)),
        "sub/deeper/c.txt": b"",
        "sub2/d.txt": b"d" * 100_000,
    }
    with tempfile.TemporaryDirectory() as folder:
        for path, content in given.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(content)
        client.log_artifacts(run_id, folder, "all")

    with tempfile.TemporaryDirectory() as folder:
        top = Path(client.download_artifacts(run_id, "all", folder))
        found = {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    assert found == given


def check_all_of_a_run_comes_down_by_its_address() -> None:
    run_id = run()
    client.log_text(run_id, "one", "one.txt")
    client.log_text(run_id, "two", "folder/two.txt")

    for address in (f"runs:/{run_id}/.", f"runs:/{run_id}/folder", client.get_run(run_id).info.artifact_uri):
        with tempfile.TemporaryDirectory() as folder:
            top = Path(download_artifacts(artifact_uri=address, dst_path=folder))
            assert "two.txt" in {path.name for path in top.rglob("*")}
    assert load_text(f"runs:/{run_id}/one.txt") == "one"


def check_text_tables_and_pictures_are_logged() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    picture = b"\x89PNG\r\n\x1a\n" + bytes(200)

    with mlflow.start_run() as started:
        mlflow.log_text("grüße\n", "notes/hello.txt")
        mlflow.log_dict({"a": [1, 2], "ü": None}, "conf.json")
        mlflow.log_dict({"a": [1, 2]}, "conf.yaml")
        mlflow.log_table({"x": [1, 2], "y": ["a", "b"]}, "table.json")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "plot.png").write_bytes(picture)
            mlflow.log_artifact(f"{folder}/plot.png", "figures")

    run_id = started.info.run_id
    assert load_text(f"runs:/{run_id}/notes/hello.txt") == "grüße\n"
    assert load_dict(f"runs:/{run_id}/conf.json") == {"a": [1, 2], "ü": None}
    assert b"- 1" in fetched(run_id, "conf.yaml")
    assert json.loads(fetched(run_id, "table.json"))["columns"] == ["x", "y"]
    assert fetched(run_id, "figures/plot.png") == picture


def check_any_name_is_kept() -> None:
    run_id = run()

    for name in NAMES:
        client.log_text(run_id, f"content of {name}", f"odd folder 1/{name}")

    assert set(listed(run_id, "odd folder 1")) == {f"odd folder 1/{name}" for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(client.download_artifacts(run_id, "odd folder 1", folder))
        assert {path.name: path.read_text() for path in top.iterdir()} == {
            n: f"content of {n}" for n in NAMES
        }


def check_a_tricky_name_is_kept_or_refused() -> None:
    run_id = run()
    root = client.get_run(run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")

    for name in TRICKY:
        address = f"/api/2.0/mlflow-artifacts/artifacts/{root}/tricky/{quote(name)}"
        sent = call("PUT", address, data=name.encode())
        if sent.status_code == 200:
            assert (call("GET", address).content, listed(run_id, "tricky")) == (
                name.encode(),
                {f"tricky/{name}": len(name)},
            )
            call("DELETE", address)
        else:
            assert (sent.status_code, sent.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), name


def check_a_file_is_replaced() -> None:
    run_id = run()

    client.log_text(run_id, "first, and longer", "note.txt")
    client.log_text(run_id, "second", "note.txt")

    assert fetched(run_id, "note.txt") == b"second"
    assert listed(run_id) == {"note.txt": 6}


def check_eight_megabytes_arrive_as_they_were() -> None:
    run_id = run()
    content = hashlib.sha256(b"seed").digest() * (8 * 1024 * 1024 // 32)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "large.bin").write_bytes(content)
        client.log_artifact(run_id, f"{folder}/large.bin")

    assert listed(run_id) == {"large.bin": len(content)}
    assert hashlib.sha256(fetched(run_id, "large.bin")).digest() == hashlib.sha256(content).digest()


def check_a_run_without_artifacts_has_none() -> None:
    run_id = run()

    assert listed(run_id) == {}
    assert listed(run_id, "nothing") == {}
    try:
        fetched(run_id, "nothing.txt")
    except (MlflowException, OSError):
        return
    raise AssertionError("what is not there was read")


def check_a_file_has_no_content_as_a_folder() -> None:
    run_id = run()
    client.log_text(run_id, "text", "folder/file.txt")

    assert listed(run_id, "folder/file.txt") == {}


def check_what_is_deleted_is_gone() -> None:
    run_id = run()
    for name in ("a.txt", "folder/b.txt", "folder/c.txt"):
        client.log_text(run_id, name, name)
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(
        client.get_run(run_id).info.artifact_uri
    )

    repository.delete_artifacts("folder/b.txt")
    assert listed(run_id, "folder") == {"folder/c.txt": 12}
    repository.delete_artifacts("folder")
    assert listed(run_id) == {"a.txt": 5}
    repository.delete_artifacts()
    assert listed(run_id) == {}


def check_the_server_lists_and_sends_files_over_plain_http() -> None:
    run_id = run()
    client.log_text(run_id, "hello", "folder/a bü.txt")
    root = client.get_run(run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    proxy = "/api/2.0/mlflow-artifacts/artifacts"

    files = call("GET", proxy, {"path": f"{root}/folder"}).json()["files"]
    body = call("GET", f"{proxy}/{root}/folder/a%20b%C3%BC.txt")
    absent = call("GET", f"{proxy}/{root}/nothing.txt")
    by_run = call("GET", "artifacts/list", {"run_id": run_id, "path": "folder"}).json()

    assert files == [{"path": "a bü.txt", "is_dir": False, "file_size": 5}]
    assert (body.status_code, body.content) == (200, b"hello")
    assert absent.status_code == 404
    assert absent.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert by_run["files"] == [{"path": "folder/a bü.txt", "is_dir": False, "file_size": 5}]
    assert by_run["root_uri"] == client.get_run(run_id).info.artifact_uri
    sent = call("PUT", f"{proxy}/{root}/raw%20put.bin", data=b"\x00\x01")
    assert sent.status_code == 200
    assert fetched(run_id, "raw put.bin") == b"\x00\x01"


def check_an_artifact_can_be_read_as_the_web_page_does() -> None:
    run_id = run()
    client.log_text(run_id, "hello", "folder/a.txt")

    found = call("GET", "/get-artifact", {"run_id": run_id, "path": "folder/a.txt"})

    assert (found.status_code, found.content) == (200, b"hello")


def check_a_name_that_leads_out_is_refused() -> None:
    run_id = run()
    root = client.get_run(run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    proxy = f"{URI}/api/2.0/mlflow-artifacts/artifacts"

    for path in ("..%2f..%2fup.txt", "%2e%2e/%2e%2e/up.txt", "a%2f..%2f..%2fup.txt", "%252e%252e/up.txt"):
        answers = [call("PUT", f"{proxy}/{root}/{path}".removeprefix(URI), data=b"x")]
        answers.append(call("GET", f"{proxy}/{root}/{path}".removeprefix(URI)))
        assert [a.status_code for a in answers if a.status_code not in (400, 404)] == [], (path, answers)
    for path in ("../..", "/etc", "a/../../..", "%2e%2e/%2e%2e"):
        status = call("GET", "artifacts/list", {"run_id": run_id, "path": path}).status_code
        assert status == 400, (path, status)
        status = call("GET", "/api/2.0/mlflow-artifacts/artifacts", {"path": path}).status_code
        assert status == 400, (path, status)
