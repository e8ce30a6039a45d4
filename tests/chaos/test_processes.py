"""How the processes start, share, hand over and end."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psutil
import pytest

from andon.core.entities import Lease
from andon.core.workspace import Layout
from andon.pipelines.reconciler import LEASE
from andon.pipelines.workspace import OpenWorkspace
from tests.chaos.client import BEGIN, Caller, History
from tests.chaos.house import House, alive, until
from tests.chaos.line import NAME

pytestmark = pytest.mark.chaos


@pytest.fixture
def ws(layout: Layout) -> Iterator[OpenWorkspace]:
    with OpenWorkspace(layout) as found:
        yield found


class Workers:
    """Workers without a supervisor."""

    def __init__(self, layout: Layout, stack: ExitStack) -> None:
        self._layout = layout
        self._stack = stack

    def start(self, *, until_it: str) -> subprocess.Popen[bytes]:
        """A worker that acts or waits, as it says itself."""
        path = self._layout.logs / f"worker-{secrets.token_hex(4)}.log"
        log = self._stack.enter_context(path.open("ab"))
        command = [sys.executable, "-m", "andon.pipelines.worker", "--workspace", str(self._layout.root)]
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._stack.callback(worker.wait)
        self._stack.callback(worker.kill)
        self._stack.callback(worker.send_signal, signal.SIGCONT)
        until(f"the worker {until_it}", lambda: until_it in path.read_text())
        return worker


@pytest.fixture
def workers(layout: Layout) -> Iterator[Workers]:
    with ExitStack() as stack:
        yield Workers(layout, stack)


def lease_of(ws: OpenWorkspace, worker: subprocess.Popen[bytes]) -> Lease | None:
    lease = ws.store.read(lambda reader: reader.leases.find(LEASE))
    return lease if lease is not None and f":{worker.pid}:" in lease.holder else None


def started(ws: OpenWorkspace) -> list[int]:
    """The fence of each start of a run, in order."""
    events = ws.store.read(lambda reader: reader.ledger.after(0, kinds=("run.started",)))
    return [int(event.facts["fence"] or 0) for event in events]


@pytest.mark.capability("L7")
def test_one_of_two_workers_acts_and_the_other_takes_over_within_three_seconds(
    ws: OpenWorkspace, workers: Workers
) -> None:
    first = workers.start(until_it="acts")
    held = lease_of(ws, first)
    second = workers.start(until_it="waits")
    until("a run has begun", lambda: started(ws))
    assert held is not None
    assert lease_of(ws, second) is None

    first.kill()
    killed_s = time.monotonic()
    taken = until("the second worker takes over", lambda: lease_of(ws, second))

    assert time.monotonic() - killed_s <= 3.0
    assert taken.fence == held.fence + 1
    until("the run is begun again", lambda: len(started(ws)) == 2)
    assert started(ws) == [held.fence, taken.fence]
    until("its model is live", lambda: ws.store.read(lambda reader: reader.releases.count({"state": "live"})))
    assert ws.store.read(lambda reader: reader.runs.count()) == 1
    assert ws.store.read(lambda reader: reader.model_versions.count()) == 1


@pytest.mark.capability("L7")
def test_a_worker_that_was_away_changes_nothing_when_it_comes_back(
    ws: OpenWorkspace, workers: Workers
) -> None:
    first = workers.start(until_it="acts")
    second = workers.start(until_it="waits")
    until("a run has begun", lambda: started(ws))
    first.send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    taken = until("the second worker takes over", lambda: lease_of(ws, second))
    took_s = time.monotonic() - stopped_s
    until("the run is begun again", lambda: len(started(ws)) == 2)

    first.send_signal(signal.SIGCONT)

    until("its model is live", lambda: ws.store.read(lambda reader: reader.releases.count({"state": "live"})))
    lease = lease_of(ws, second)
    assert lease is not None
    assert lease.fence == taken.fence
    assert first.poll() is None
    assert took_s <= 3.0
    runs = ws.store.read(lambda reader: reader.runs.select())
    assert [(run.state, run.fence) for run in runs] == [("finished", taken.fence)]
    assert ws.store.read(lambda reader: reader.model_versions.count()) == 1


@pytest.mark.capability("L7", "H11")
def test_sigterm_ends_everything_in_order_while_a_stream_is_open(house: House, ws: OpenWorkspace) -> None:
    house.start()
    until("a model is live", lambda: ws.store.read(lambda reader: reader.releases.count({"state": "live"})))
    until("control answers", house.control_answers)
    history = History()
    with closing(Caller(house.gateway_port, history)) as caller:
        said = until("a prediction is answered", lambda: _predict(caller))
    stream = http.client.HTTPConnection("127.0.0.1", house.control_port, timeout=30)
    stream.request("GET", "/api/events/stream?after=0", headers={"Authorization": f"Bearer {house.token()}"})
    answer = stream.getresponse()
    assert answer.status == 200
    assert answer.readline()

    began_s = time.monotonic()
    code = house.end()
    ended_s = time.monotonic() - began_s

    stream.close()
    assert code == 0
    assert ended_s < 10.0
    until("no process is left", lambda: not house.processes(), within_s=5.0)
    for port in (house.control_port, house.gateway_port):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
    unsealed = set(ws.log.unsealed())
    assert unsealed
    assert set(ws.log.sealable()) == unsealed
    assert ws.log.find(said["prediction_id"]).output == said["prediction"]
    assert not (house.layout.run / "supervisor.json").exists()


def _predict(caller: Caller) -> dict[str, str] | None:
    from tests.chaos.client import Lost

    try:
        found: dict[str, str] = caller.post(
            f"/predict/{NAME}", {"spend": 20.0, "visits": 3, "plan": "free"}, {"Andon-Time": BEGIN.isoformat()},
            fine=(200, 404),
        )  # fmt: skip
    except Lost:
        return None
    return found if "prediction_id" in found else None


@pytest.mark.parametrize(
    ("taken", "setting"), [("control_port", "ANDON_PORT"), ("gateway_port", "ANDON_GATEWAY_PORT")]
)
def test_a_port_in_use_is_named_and_nothing_is_started(house: House, taken: str, setting: str) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", getattr(house, taken)))
        sock.listen()

        house.start()
        assert house.supervisor is not None
        code = house.supervisor.wait(30)

    assert code == 13
    said = house.tail("supervisor")
    assert f"port {getattr(house, taken)} on 127.0.0.1 is in use" in said
    assert setting in said
    assert "Traceback" not in said
    assert not house.processes()


def test_a_second_supervisor_in_one_workspace_is_refused(house: House, layout: Layout) -> None:
    house.start()
    until("it runs", house.running)
    other = House(layout, os.environ)

    other.start()
    assert other.supervisor is not None
    code = other.supervisor.wait(30)

    assert code == 8
    assert "runs already" in house.tail("supervisor")
    assert house.pid("supervisor") is not None
    assert house.end() == 0


def test_a_supervisor_comes_back_on_its_ports_while_its_old_children_still_end(house: House) -> None:
    house.start()
    before = until("it runs", house.running)
    until("control answers", house.control_answers)

    house.kill("supervisor")
    house.start()

    after = until("it runs again", house.running)
    until("control answers again", house.control_answers)
    until("the old processes end", lambda: not any(alive(pid) for pid in before.processes.values()))
    assert set(before.processes.values()).isdisjoint(after.processes.values())
    assert house.end() == 0


def test_a_step_ends_with_its_worker(ws: OpenWorkspace, workers: Workers) -> None:
    worker = workers.start(until_it="acts")

    def steps() -> list[psutil.Process]:
        try:
            return psutil.Process(worker.pid).children()
        except psutil.NoSuchProcess:
            return []

    (step, *_) = until("a step runs", steps)

    worker.kill()

    until("the step ends", lambda: not alive(step.pid), within_s=10.0)
