"""`andon serve`: one process by itself, over a workspace that is made when it is not there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`andon serve control` in a folder, and where it answers."""
    command = [sys.executable, "-m", "andon", "serve", "control", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)
    assert process.stderr is not None
    try:
        found = None
        for line in process.stderr:
            if found := re.search(r"control answers on (\S+)", line):
                break
        assert found is not None
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    ("options", "state"),
    [((), ".andon"), (("--workspace", "new"), "new/.andon"), (("--workspace", ".andon"), ".andon")],
)
def test_a_new_workspace_answers_mlflow_clients(tmp_path: Path, options: tuple[str, ...], state: str) -> None:
    with serving(tmp_path, *options) as (process, address):
        with urllib.request.urlopen(f"{address}/api/3.0/mlflow/server-info", timeout=10) as answer:
            info = json.load(answer)
        process.send_signal(signal.SIGTERM)
        code = process.wait(10)

    assert (code, info["workspaces_enabled"]) == (0, False)
    assert (tmp_path / state / "andon.db").is_file()


def test_json_says_where_it_answers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "andon", "serve", "control", "--port", "0", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    try:
        said = "".join(iter(process.stdout.readline, "}\n")) + "}"
        with urllib.request.urlopen(json.loads(said)["login"], timeout=10) as answer:
            assert b"<title>" in answer.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_workspace_above_the_current_folder_is_served(tmp_path: Path) -> None:
    (tmp_path / ".andon").mkdir()
    (tmp_path / "deep").mkdir()

    with serving(tmp_path / "deep"):
        assert (tmp_path / ".andon" / "andon.db").is_file()
        assert not (tmp_path / "deep" / ".andon").exists()


def test_a_folder_that_cannot_be_made_is_named_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    command = [sys.executable, "-m", "andon", "serve", "control", "--port", "0", "--workspace", "file/x"]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 14
    assert ended.stderr.startswith("andon: the workspace ")
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_says_what_to_do(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, address):
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", "andon", "serve", "control", "--port", port]
        again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert again.returncode == 13
    assert "another process listens" in again.stderr
