"""The five minutes of the README, as a new user goes through them, and every command on the way."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ANDON = str(Path(sys.executable).parent / "andon")
DEADLINE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Shell:
    """A folder and the environment that commands run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = {"ANDON_PORT": str(free_port()), "ANDON_GATEWAY_PORT": str(free_port())}
        self.environ = {**os.environ, **ports, "NO_COLOR": "1"}

    def run(self, *words: str, code: int = 0) -> Any:
        done = subprocess.run(
            [ANDON, *words, "--json"], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False,
            timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A project from the template with everything running."""
    made = Shell(tmp_path_factory.mktemp("quick"))
    made.run("init", "churn")
    made.folder = made.folder / "churn"
    log = (made.folder.parent / "up.log").open("w+")
    up = subprocess.Popen([ANDON, "up"], cwd=made.folder, env=made.environ, stdout=log, stderr=log)
    deadline = time.monotonic() + DEADLINE_S
    while "Now page:" not in (text := Path(log.name).read_text()) and time.monotonic() < deadline:
        assert up.poll() is None, text
        time.sleep(0.05)
    assert "curl" in text, text
    yield made
    up.terminate()
    assert up.wait(20) == 0
    log.close()


def curl(shell: Shell) -> dict[str, Any]:
    """The printed line, with curl's two arguments understood as curl does."""
    text = (shell.folder.parent / "up.log").read_text()
    line = next(line for line in text.splitlines() if line.startswith("curl"))
    _, _, address, _, body = shlex.split(line)
    with urllib.request.urlopen(urllib.request.Request(address, body.encode())) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


@pytest.mark.capability("R4", "F7", "H3")
def test_the_printed_curl_line_gets_a_prediction_that_names_its_model(shell: Shell) -> None:
    said = curl(shell)

    assert 0.0 < said["prediction"] < 1.0
    assert (said["endpoint"], said["model"], said["version"]) == ("churn", "churn", 1)


@pytest.mark.capability("M1")
def test_why_answers_for_a_prediction(shell: Shell) -> None:
    said = shell.run("why", curl(shell)["prediction_id"])

    text = json.dumps(said)
    assert all(word in text for word in ("customers", "churn", "sha256:", "passed"))


@pytest.mark.capability("B5")
def test_impact_counts_the_predictions_of_a_dataset_version(shell: Shell) -> None:
    curl(shell)

    said = shell.run("impact", "customers@1")

    assert said["predictions"] >= 1


def test_status_says_what_is_live(shell: Shell) -> None:
    said = shell.run("status")

    assert [endpoint["live"]["number"] for endpoint in said["endpoints"]] == [1]
    assert all(gateway["reachable"] for gateway in said["gateways"])


def test_doctor_finds_nothing_wrong(shell: Shell) -> None:
    said = shell.run("doctor")

    assert said["ok"]


def test_the_ledger_verifies(shell: Shell) -> None:
    said = shell.run("audit", "verify")

    assert said["events"] > 10


def test_undo_of_the_first_release_says_that_there_is_nothing_to_go_back_to(shell: Shell) -> None:
    said = shell.run("undo", "churn", code=8)

    assert "no release to go back to" in said["message"]


def test_undo_of_an_unknown_endpoint_names_the_known_ones(shell: Shell) -> None:
    said = shell.run("undo", "chrun", code=4)

    assert "churn" in said["hint"]


def test_an_unknown_prediction_is_not_found(shell: Shell) -> None:
    said = shell.run("why", "0199a1b2-0000-7000-8000-000000000000", code=4)

    assert said["error_code"] == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"plan": 3}, 400, "plan"),
        ({"colour": "red"}, 400, "colour"),
        ({"tenure_months": "long"}, 400, "tenure_months"),
        ({"plan": "x" * 10_000}, 400, "plan"),
    ],
)
def test_a_bad_field_is_named(shell: Shell, body: dict[str, Any], status: int, field: str) -> None:
    whole = {
        "plan": "basic", "region": "north", "tenure_months": 11, "monthly_fee": 22.79, "tickets_90d": 1,
        "usage_hours": 4.1, "seats": 9, **body,
    }  # fmt: skip
    address = f"http://127.0.0.1:{shell.environ['ANDON_GATEWAY_PORT']}/predict/churn"

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(address, json.dumps(whole).encode()))

    said = json.load(caught.value)
    caught.value.close()
    assert (caught.value.code, said["field"]) == (status, field)


@pytest.mark.capability("A9")
def test_a_backup_comes_back_in_another_folder_with_a_new_epoch(shell: Shell, tmp_path: Path) -> None:
    prediction = curl(shell)["prediction_id"]

    shell.run("backup", str(tmp_path / "backup"))
    back = Shell(tmp_path)
    said = back.run("restore", str(tmp_path / "backup"), "--into", str(tmp_path))

    assert said["epoch"] == 2
    assert back.run("audit", "verify")["events"] > 10
    assert back.run("why", prediction)["prediction"] is not None


def test_a_second_up_in_the_same_workspace_is_refused(shell: Shell) -> None:
    said = shell.run("up", code=8)

    assert "runs already" in said["message"]


def test_a_port_in_use_is_said_with_the_setting_that_changes_it(shell: Shell, tmp_path: Path) -> None:
    other = Shell(tmp_path)
    other.environ = shell.environ
    other.run("init", "second")
    other.folder = tmp_path / "second"

    said = other.run("up", code=13)

    assert shell.environ["ANDON_PORT"] in said["message"]
    assert "ANDON_PORT" in said["hint"]


def test_outside_a_workspace_a_command_says_how_to_make_one(tmp_path: Path) -> None:
    said = Shell(tmp_path).run("status", code=4)

    assert "andon init" in said["hint"]


def test_a_broken_policy_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "andon.toml").write_text('[line]\nname = "x"\nentry = 3\n')

    said = Shell(tmp_path).run("run", code=2)

    assert "line 3: line.entry is 3" in said["message"]


def test_the_template_s_own_tests_pass_in_a_new_project(tmp_path: Path) -> None:
    Shell(tmp_path).run("init", "mine")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path / "mine", capture_output=True, text=True, check=False, timeout=DEADLINE_S,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "mine")},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.capability("E6", "I2", "I9")
def test_a_challenger_gets_its_share_and_one_word_takes_it_back(shell: Shell) -> None:
    """A run, its canary, a second run that has to wait, an undo that holds the endpoint, and the release of it."""
    first = shell.run("run")
    waits = shell.run("run", code=8)
    before = shell.run("status")["endpoints"][0]
    undone = shell.run("undo", "churn", "--reason", "rehearsal")
    after = shell.run("status")["endpoints"][0]
    released = shell.run("release", "churn")

    assert first["run"]["state"] == "finished"
    assert "on its way" in waits["message"]
    assert (before["live"]["number"], before["candidate"]["number"], before["candidate_percent"]) == (
        1,
        2,
        10,
    )
    assert (undone["release"], undone["back_to"]) == (before["candidate"]["id"], before["live"]["id"])
    assert undone["unreached"] == []
    assert undone["seconds"] < 2.0
    assert (after["live"]["number"], after["candidate"], after["held"]) == (1, None, True)
    assert not released["held"]
