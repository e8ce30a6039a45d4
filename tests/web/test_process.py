"""The control process itself: it starts, takes its socket from its parent, and ends in time whatever is open."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from andon.core.errors import PortInUse
from andon.core.workspace import Layout
from andon.governance.access import read_token
from andon.web.__main__ import listen
from andon.web.login import login_address
from tests.web.client import Client
from tests.web.world import World


@contextmanager
def started(
    world: World, *options: str, fds: tuple[int, ...] = ()
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A control process over a world, and where it answers."""
    command = [sys.executable, "-m", "andon.web", "--workspace", str(world.ws.layout.root), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=fds)
    assert process.stderr is not None
    try:
        address = ""
        for line in process.stderr:
            if found := re.search(r"control answers on (\S+)", line):
                address = found[1]
                break
        yield process, address
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def ended_within(process: subprocess.Popen[str], limit_s: float) -> int:
    return process.wait(limit_s)


def test_it_ends_in_time_with_streams_open(world: World) -> None:
    with started(world, "--port", "0") as (process, address):
        client = Client(address, Authorization=f"Bearer {read_token(world.ws.layout.token)}")
        streams = [client.stream(path) for path in ("/api/events/stream", "/now/stream")]
        for stream in streams:
            next(stream.lines())

        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = ended_within(process, 10)

        assert (code, time.monotonic() - began < 6) == (0, True)
        for stream in streams:
            assert len(list(stream.messages())) <= 1
            stream.close()


def test_it_answers_on_a_socket_that_was_handed_down(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.set_inheritable(True)
        with started(world, "--fd", str(sock.fileno()), fds=(sock.fileno(),)) as (process, address):
            assert address == f"http://127.0.0.1:{sock.getsockname()[1]}"
            assert Client(address).get("/ready").json == {"status": "ready"}
            process.send_signal(signal.SIGINT)
            assert ended_within(process, 6) == 0


def test_it_ends_when_who_started_it_is_gone(world: World) -> None:
    read, write = os.pipe()
    with started(world, "--port", "0", "--parent-fd", str(read), fds=(read,)) as (process, address):
        client = Client(address, Authorization=f"Bearer {read_token(world.ws.layout.token)}")
        with client.stream("/api/events/stream") as stream:
            next(stream.lines())
            os.close(read)

            os.close(write)

            assert ended_within(process, 6) == 0


def test_a_link_that_is_asked_for_with_the_token_opens_the_page(world: World) -> None:
    with started(world, "--port", "0") as (_, address):
        link = login_address(address, world.ws.layout)

        assert link.startswith(f"{address}/login?code=")
        assert Client(address).get(link.removeprefix(address)).status == 200
        assert Client(address).get(link.removeprefix(address)).status == 401


def test_a_port_in_use_is_named(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        done = subprocess.run(
            [sys.executable, "-m", "andon.web", "--workspace", str(world.ws.layout.root), "--port", str(port)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert done.returncode == PortInUse.exit_code
        assert (
            done.stderr.strip()
            == f"andon: another process listens on 127.0.0.1:{port}; set ANDON_PORT to a free port"
        )
        with pytest.raises(PortInUse):
            listen("127.0.0.1", port)


def test_a_token_that_others_can_read_stops_the_start(world: World) -> None:
    world.ws.layout.token.write_text("andon_" + "x" * 43)
    world.ws.layout.token.chmod(0o644)

    done = subprocess.run(
        [sys.executable, "-m", "andon.web", "--workspace", str(world.ws.layout.root), "--port", "0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 9
    assert "has mode 0644: others may have read it" in done.stderr


def test_nobody_can_listen_beyond_this_machine(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "andon.web", "--workspace", str(world.ws.layout.root), "--port", "0"],
        capture_output=True, text=True, check=False, env={**os.environ, "ANDON_HOST": "0.0.0.0"},
    )  # fmt: skip

    assert done.returncode == 2
    assert "which other machines can reach" in done.stderr


def test_no_key_or_token_is_in_the_page_or_the_log(world: World, tmp_path: Path) -> None:
    with started(world, "--port", "0") as (process, address):
        token = read_token(Layout(world.ws.layout.root).token)
        client = Client(address, Authorization=f"Bearer {token}")
        pages = [
            client.get(path).text
            for path in ("/", "/now.json", "/api/status", "/api/events", "/api/openapi.json")
        ]
        process.send_signal(signal.SIGTERM)
        assert ended_within(process, 6) == 0
        assert process.stderr is not None
        told = process.stderr.read()

    assert not [text for text in (*pages, told) if token in text]
