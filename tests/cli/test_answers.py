"""What commands print and how they end: one JSON object, exit codes that mean something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


def test_status_says_when_nothing_runs(project: Path) -> None:
    andon(project, "run", "--no-wait")

    done = andon(project, "status")

    assert "nothing runs here: start it with 'andon up'" in done.stdout
