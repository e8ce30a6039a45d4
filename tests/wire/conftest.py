"""A live server for each back end, and the player of scenarios."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.wire import battery, clients
from tests.wire.battery import SCENARIOS, Check

# Read by the clients' interpreters, which have mlflow; ours has not.
collect_ignore_glob = ["scenarios/*"]
# A foreign server has no token of ours.
collect_ignore = ["test_credentials.py"] if battery.foreign() else []

PLAYER = Path(__file__).parent / "play.py"
LIMIT_S = 300
FAIL_FAST = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a call that is dropped or answered 500 fails at once
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Server:
    """A server that answers, and the file with the token of its workspace; a foreign one has none."""

    address: str
    token: Path | None


@contextmanager
def started(root: Path, database_url: str | None = None) -> Iterator[Server]:
    """Andon's control process over a fresh workspace."""
    options = {"ANDON_DATABASE_URL": database_url} if database_url else {}
    command = [sys.executable, "-m", "andon.web", "--workspace", str(root / ".andon"), "--port", "0"]
    log = root / "control.log"
    with log.open("w") as err:
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**_environment(), **options}
        )
        assert process.stderr is not None
        try:
            for line in process.stderr:
                err.write(line)
                if found := re.search(r"control answers on (\S+)", line):
                    break
            else:
                raise AssertionError(f"the control process ended: {log.read_text()}")
            yield Server(found[1], root / ".andon/keys/token")
        finally:
            process.terminate()
            process.communicate()


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("ANDON_", "MLFLOW_"))}


@pytest.fixture(scope="session")
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Server]]:
    """Back end to a running server, started when it is first asked for."""
    running: dict[str, Server] = {}
    with ExitStack() as stack:

        def server(backend: str) -> Server:
            if backend not in running:
                url = request.getfixturevalue("wire_database") if backend == "postgres" else None
                foreign = battery.foreign()
                running[backend] = (
                    Server(foreign, None)
                    if foreign
                    else stack.enter_context(started(tmp_path_factory.mktemp(backend), url))
                )
            return running[backend]

        yield server


@pytest.fixture(scope="session")
def wire_database(postgres_server: str, postgres_names: Iterator[str]) -> str:
    """The address of an empty Postgres database that the session's server has to itself."""
    import psycopg

    name = next(postgres_names)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres_server.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="session")
def error_of(
    servers: Callable[[str], Server], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Check], str | None]:
    """What went wrong in a check, None if nothing did. A scenario is played once, by one process, for all its checks."""
    played: dict[tuple[str, str, str], dict[str, str | None]] = {}

    def error(check: Check) -> str | None:
        key = check.backend, check.client, check.scenario
        if key not in played:
            played[key] = play(servers(check.backend), check, tmp_path_factory.mktemp(check.scenario))
        return played[key].get(check.name, played[key]["the client"])

    return error


def play(server: Server, check: Check, folder: Path, **more: str) -> dict[str, str | None]:
    """Check to its error; under "the client" stands how the process ended, for the checks it did not get to."""
    environment = {
        **_environment(), **FAIL_FAST, "HOME": str(folder), "MLFLOW_TRACKING_URI": server.address,
        "WIRE_CLIENTS": "100" if battery.is_full() else "16", **more,
    }  # fmt: skip
    answers = folder / "answers.jsonl"
    answers.touch()
    command = [
        clients.python(check.client),
        "-W",
        "ignore",
        PLAYER,
        SCENARIOS / f"{check.scenario}.py",
        answers,
    ]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        end = f"the client ended with {done.returncode}\n{done.stderr[-3000:]}"
    except subprocess.TimeoutExpired:
        end = f"the client was stopped after {LIMIT_S} s"
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    return {"the client": end, **{row["check"]: row["error"] for row in rows}}
