"""What was answered with success is in the log: through kill -9, a full disk, and a stop that was asked for."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys

import psutil
import pytest

from andon.core.ids import parse_prediction_id
from andon.core.predictions import MAGIC, frames
from tests.serving.load import Load
from tests.serving.world import DEADLINE_S, FILE_LIMIT, LIMITED, RECORD, Process, World, until


def check_logged(world: World, load: Load) -> None:
    """Every acknowledged prediction is in the log as it was answered; no other status was seen."""
    assert {answer.status for answers in load.answers for answer in answers} <= {200, 503}
    logged = world.records()
    for said in load.good:
        record = logged[said["prediction_id"]]
        assert (record.output, record.release, record.generation) == (
            said["prediction"], said["release"], said["generation"],
        )  # fmt: skip


@pytest.mark.chaos
@pytest.mark.capability("J2")
def test_kill_9_under_load_loses_no_acknowledged_prediction(world: World) -> None:
    world.publish(world.route(100, candidate=2, weight=0.5))
    process = world.start()
    process.ready()

    with Load(process.port, clients=3) as load:
        for _ in range(5):
            load.wait(20)
            process.kill()
            process = world.start(socket_of=process)
            process.ready()
        load.wait(20)

    assert load.bad == []
    check_logged(world, load)
    boots = {parse_prediction_id(said["prediction_id"]).boot for said in load.good}
    assert len(boots) == 6


@pytest.mark.capability("H11")
def test_two_gateways_share_a_socket_and_one_goes_on_without_the_other(world: World) -> None:
    world.publish(world.route(100))
    first = world.start(1)
    first.ready()
    second = world.start(2, socket_of=first)
    second.ready()
    boots = {int(one.routes()["boot"], 16) for one in (first, second)}

    with Load(first.port, clients=8) as load:
        until("answers of both", lambda: {_boot(said) for said in load.good} == boots)
        first.kill()
        load.wait(20)

    assert load.bad == []
    check_logged(world, load)


def _boot(said: dict[str, str]) -> int:
    return parse_prediction_id(said["prediction_id"]).boot


def test_a_full_disk_is_a_503_and_the_log_goes_on_when_there_is_space(world: World) -> None:
    world.publish(world.route(100))
    process = world.start(launcher=LIMITED)
    process.ready()

    with Load(process.port) as load:
        until("no space", lambda: any(answer.status == 503 for answer in load.bad))
        full = process.client().predict()
        resource.prlimit(
            process.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        until("space", lambda: process.client().predict().status == 200)
        load.wait(20)

    assert (full.status, full.json["error_code"], full.headers["retry-after"]) == (503, "STORAGE_FULL", "1")
    assert "predictions/" not in full.body.decode()
    assert len(load.good) > 100
    check_logged(world, load)
    assert max(path.stat().st_size for path in world.layout.predictions.glob("*.log")) > FILE_LIMIT


def test_sigterm_ends_with_0_and_a_closed_log_and_the_next_one_takes_over(world: World) -> None:
    world.publish(world.route(100))
    process = world.start()
    process.ready()

    with Load(process.port) as load:
        load.wait(20)
        assert process.terminate() == 0
        assert not list(world.layout.run.glob("gateway-*.sock*"))
        for path in world.layout.predictions.glob("*.log"):
            data = path.read_bytes()
            assert [end for end, _ in frames(data, len(MAGIC))][-1] == len(data)
        world.start(socket_of=process).ready()
        load.wait(20)

    assert load.bad == []
    check_logged(world, load)
    assert "trace" not in process.log.read_text()


def test_sigterm_lets_a_request_finish_that_has_begun(world: World) -> None:
    world.publish(world.route(100))
    process = world.start()
    process.ready()
    body = json.dumps(RECORD).encode()
    head = b"POST /predict/delay HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)

    with socket.create_connection(("127.0.0.1", process.port), timeout=DEADLINE_S) as connection:
        connection.sendall(head + body[:10])
        until("the request", lambda: b"} 2" in process.client().ask("GET", "/metrics").body)
        process.process.terminate()
        until("the stop", lambda: "SIGTERM" in process.log.read_text())
        connection.sendall(body[10:])
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 200")
    assert process.process.wait(DEADLINE_S) == 0
    assert len(world.records()) == 1


def test_a_request_that_never_ends_does_not_hold_the_stop_back(world: World) -> None:
    world.publish(world.route(100))
    process = world.start()
    process.ready()

    with socket.create_connection(("127.0.0.1", process.port), timeout=DEADLINE_S) as connection:
        connection.sendall(b"POST /predict/delay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        until("the request", lambda: b"} 2" in process.client().ask("GET", "/metrics").body)

        assert process.terminate() == 0


def test_the_end_of_the_supervisor_is_the_end_of_the_gateway(world: World) -> None:
    world.publish(world.route(100))
    reading, writing = os.pipe()
    process = world.start(arguments=["--parent-fd", str(reading)], pass_fds=[reading])
    os.close(reading)
    process.ready()

    os.close(writing)

    assert process.process.wait(DEADLINE_S) == 0
    assert "the supervisor is gone" in process.log.read_text()


def test_swaps_and_connections_leave_nothing_behind(world: World) -> None:
    world.publish(world.route(100))
    process = world.start()
    process.ready()
    inside = psutil.Process(process.process.pid)
    _use(world, process, 200)
    before = (inside.num_fds(), inside.num_threads())

    for generation in range(300, 1300, 100):
        _use(world, process, generation)

    until("as many as before", lambda: (inside.num_fds(), inside.num_threads()) <= before)


def _use(world: World, process: Process, generation: int) -> None:
    """One swap, with connections of its own."""
    world.publish(world.route(generation, stable=1 + generation // 100 % 3))
    until("the swap", lambda: process.routes()["routes"]["delay"]["generation"] == generation)
    for _ in range(5):
        client = process.client()
        assert client.predict().status == 200
        client.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--workspace", "nowhere"], 4, "no workspace at"),
        (["--workspace", ".andon", "--port", "{taken}"], 13, "cannot be used"),
        (["--workspace", ".andon", "--fd", "0"], 2, "--fd 0 is no socket"),
        (["--workspace", ".andon", "--fd", "0", "--port", "1"], 2, "not allowed with"),
        ([], 2, "--workspace"),
    ],
)
def test_a_start_that_cannot_be_says_why(world: World, arguments: list[str], code: int, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "andon.serving", *(one.replace("{taken}", port) for one in arguments)],
            cwd=world.layout.project, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
            check=False,
        )  # fmt: skip

    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gateway_loads_no_database_and_no_framework() -> None:
    code = "import sys, andon.serving.process; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    heavy = {"sqlalchemy", "sqlite3", "psycopg", "starlette", "jinja2", "lightgbm", "pandas", "scipy"}
    assert heavy & set(loaded) == set()
