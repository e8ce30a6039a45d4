"""Many who write at once: sixteen clients of the control process, and two processes beside it at the same database."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from andon.core.entities import Point, Run
from andon.governance.audit import verify
from andon.pipelines.workspace import OpenWorkspace
from tests.chaos.evidence import everything
from tests.chaos.test_tracking_kills import new_database
from tests.chaos.tracking_client import RawClient, Told
from tests.chaos.tracking_server import ControlProcess, environ_on

pytestmark = pytest.mark.chaos

CLIENTS, CALLS = 16, 25
BESIDE, WRITES = 2, 60
_BESIDE = """
import os, sys
from pathlib import Path
from andon.core.entities import Point, Run
from andon.core.events import EventDraft
from andon.core.ids import node
from andon.core.workspace import Layout, settings_from
from andon.pipelines.workspace import OpenWorkspace
from andon.tracking.experiments import ensure_experiment
from andon.tracking.runs import create_run, log_points

root, name, writes = sys.argv[1:]
with OpenWorkspace(Layout(Path(root)), settings_from(os.environ)) as ws:
    actor, at = ws.actor().id, ws.clock.now()
    home = ws.store.write(lambda tx: ensure_experiment(tx, name, actor, at))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(writes)):
        def work(tx):
            run, _ = create_run(tx, home.id, actor=actor, at=at, name=f"{name} {number}", tags={"mlflow.runName": name})
            log_points(tx, run.id, [Point("loss", 0.5, 1, step) for step in range(100)])
        ws.store.write(work)
"""


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlProcess]:
    url = None
    if request.param == "postgres":
        server, names = request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_names")
        url = new_database(server, next(names))
    with ControlProcess(tmp_path, environ_on(url)) as found:
        yield found


class Client(threading.Thread):
    """Logs as a training does; `bad` is all that was not answered with 200 at the first try."""

    def __init__(self, server: ControlProcess, number: int, begin: threading.Barrier) -> None:
        super().__init__(name=f"client-{number}")
        self.bad: list[str] = []
        self.slowest_s = 0.0
        self.run_id = ""
        self._client = RawClient(server.port, server.token)
        self._number, self._begin = number, begin

    def run(self) -> None:
        self._begin.wait(60)
        run = self._good(self._client.post("runs/create", {"experiment_id": "0"}))
        self.run_id = run.json["run"]["info"]["run_id"] if run.status == 200 else ""
        for number in range(CALLS):
            self._call(number)
        end = {"run_id": self.run_id, "status": "FINISHED", "end_time": 1}
        self._good(self._client.post("runs/update", end))
        self.slowest_s = self._client.toll.slowest_s
        self._client.close()

    def _call(self, number: int) -> None:
        run, point = {"run_id": self.run_id}, {"key": "loss", "value": 0.5, "timestamp": 1}
        self._good(self._client.post("runs/log-metric", {**run, **point, "step": number}))
        batch = [{**point, "key": "acc", "step": 100 * number + step} for step in range(100)]
        self._good(self._client.post("runs/log-batch", {**run, "metrics": batch}))
        self._good(self._client.post("runs/log-parameter", {**run, "key": f"p{number}", "value": "v"}))
        self._good(self._client.post("runs/set-tag", {**run, "key": "t", "value": str(number)}))
        self._good(self._client.upload(f"0/{self.run_id}/artifacts/{number}", bytes(number * 1000)))
        self._good(self._client.get("runs/get", **run))

    def _good(self, told: Told) -> Told:
        if (told.status, told.sent) != (200, 1):
            self.bad.append(f"{told.status} at try {told.sent}: {told.body[:300]!r}")
        return told


@pytest.mark.capability("C1", "L7")
def test_sixteen_clients_and_two_processes_beside_them_write_without_an_error(server: ControlProcess) -> None:
    names = [f"beside {number}" for number in range(BESIDE)]
    beside = [
        subprocess.Popen(
            [sys.executable, "-c", _BESIDE, str(server.layout.root), name, str(WRITES)],
            env=server.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in names
    ]  # fmt: skip
    for process in beside:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    begin = threading.Barrier(CLIENTS + 1)
    clients = [Client(server, number, begin) for number in range(CLIENTS)]

    for client in clients:
        client.start()
    begin.wait(60)
    said = [process.communicate("go\n", timeout=120)[1] for process in beside]
    for client in clients:
        client.join(120)

    assert [(process.returncode, text) for process, text in zip(beside, said, strict=True)] == [
        (0, "")
    ] * BESIDE
    assert [offence for client in clients for offence in client.bad] == []
    assert max(client.slowest_s for client in clients) < 20
    assert "locked" not in server.log.read_text()
    with OpenWorkspace(server.layout, server.settings) as ws:
        assert verify(ws.store).ok
        runs = everything(ws, lambda reader: reader.runs)
        own = {client.run_id for client in clients}
        assert sorted(run.number for run in runs) == list(range(1, len(runs) + 1))
        assert len(runs) == CLIENTS + BESIDE * WRITES
        for run in runs:
            steps = {key: [point.step for point in _points(ws, run, key)] for key in ("loss", "acc")}
            if run.id in own:
                assert steps == {"loss": list(range(CALLS)), "acc": list(range(100 * CALLS))}
            else:
                assert steps == {"loss": list(range(100)), "acc": []}


def _points(ws: OpenWorkspace, run: Run, key: str) -> list[Point]:
    return ws.store.read(lambda reader: reader.metrics.history(run, key))
