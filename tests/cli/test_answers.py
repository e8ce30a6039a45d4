"""What commands print and how they end: one JSON object, exit codes that mean something."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from andon.cli.scaffold import copy_template

CONTRACT = """\
format = "andon.contract/1"
dataset = "customers"
label = "churned"

[columns.plan]
kind = "string"
domain = ["gold"]

[columns.churned]
kind = "integer"
nulls = 1.0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy_template("churn", tmp_path)
    return tmp_path


def andon(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("andon")), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@contextmanager
def started(folder: Path) -> Iterator[dict[str, Any]]:
    """`andon up` on free ports: what it says once the model answers."""
    environ = {**os.environ, "ANDON_PORT": "0", "ANDON_GATEWAY_PORT": "0"}
    command = [str(Path(sys.executable).with_name("andon")), "up", "--json"]
    with (folder / "up.err").open("w") as errors:
        up = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert up.stdout is not None
    try:
        lines = iter(up.stdout.readline, "}\n")
        yield json.loads("".join(lines) + "}")
    finally:
        up.terminate()
        up.communicate(timeout=30)
    assert up.returncode == 0, (folder / "up.err").read_text()


def test_a_run_that_its_contract_blocks_ends_with_7_and_one_json_object(project: Path) -> None:
    (project / "contracts").mkdir()
    (project / "contracts/customers.toml").write_text(CONTRACT)

    done = andon(project, "run", "--json")

    assert done.returncode == 7
    assert json.loads(done.stdout)["run"]["state"] == "blocked"
    assert "plan: domain" in done.stderr


def test_a_run_that_fails_ends_with_1_and_one_json_object(project: Path) -> None:
    (project / "customers.csv").unlink()

    done = andon(project, "run", "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["run"]["state"] == "failed"
    assert "customers.csv does not exist" in done.stderr


def test_a_doctor_that_finds_a_fault_prints_one_json_object(project: Path) -> None:
    andon(project, "run", "--no-wait")
    (project / "andon.toml").write_text("[line]\n")

    done = andon(project, "doctor", "--json")

    assert done.returncode == 1
    assert not json.loads(done.stdout)["ok"]


def test_an_error_without_an_answer_is_one_json_object(tmp_path: Path) -> None:
    done = andon(tmp_path, "status", "--json")

    assert done.returncode == 4
    assert json.loads(done.stdout)["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_up_after_a_run_of_its_own_says_an_address_that_answers(project: Path) -> None:
    andon(project, "run")

    with started(project) as said:
        words = shlex.split(said["curl"])
        with urllib.request.urlopen(urllib.request.Request(words[2], words[4].encode())) as answer:
            assert json.load(answer)["version"] == 1


def test_a_run_of_a_replay_that_was_told_no_time_says_so_instead_of_waiting(project: Path) -> None:
    policy = project / "andon.toml"
    policy.write_text(policy.read_text().replace("[line]\n", '[line]\nclock = "data"\n'))

    done = andon(project, "run", "--json")

    assert done.returncode == 8
    assert "/api/lines/churn/watermark" in json.loads(done.stdout)["hint"]


def test_a_workspace_keeps_its_keys_out_of_version_control_and_a_clean_project_clean(project: Path) -> None:
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "all")

    andon(project, "run", "--no-wait")

    assert git(project, "status", "--porcelain") == ""


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_status_says_when_nothing_runs(project: Path) -> None:
    andon(project, "run", "--no-wait")

    done = andon(project, "status")

    assert "nothing runs here: start it with 'andon up'" in done.stdout
