"""Clients that are slow, broken or hostile: others get their answers as before, and the server's memory stays bounded."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import psutil
import pytest

from tests.chaos.battery import quantile
from tests.chaos.house import until
from tests.chaos.tracking_client import API, FILES, RawClient
from tests.chaos.tracking_server import ControlProcess

pytestmark = pytest.mark.chaos

MIB = 2**20
P99_S = 2.0
"""On a busy machine; a request that waits for one of the clients below waits for ever."""
HEALTHY_CALLS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlProcess]:
    with ControlProcess(tmp_path_factory.mktemp("clients"), os.environ) as found:
        yield found


class Healthy:
    """A client that logs and reads as ever, and how long each call took."""

    def __init__(self, server: ControlProcess) -> None:
        self._client = RawClient(server.port, server.token)
        told = self._client.post("runs/create", {"experiment_id": "0"})
        self.run = told.json["run"]["info"]["run_id"]
        self.root = f"{FILES}/0/{self.run}/artifacts"
        self.seconds: list[float] = []

    def work(self, calls: int = HEALTHY_CALLS) -> None:
        """So many calls, each answered with 200 at the first try."""
        for number in range(calls):
            point = {"run_id": self.run, "key": "loss", "value": 0.5, "timestamp": 1, "step": number}
            for told in (
                self._timed(lambda point=point: self._client.post("runs/log-metric", point)),  # type: ignore[misc]
                self._timed(lambda: self._client.get("runs/get", run_id=self.run)),
                self._timed(lambda: self._client.upload(f"0/{self.run}/artifacts/small", b"small")),
            ):
                assert (told.status, told.sent) == (200, 1)

    def upload(self, name: str, data: bytes) -> None:
        assert self._client.upload(f"0/{self.run}/artifacts/{name}", data).status == 200

    def close(self) -> None:
        self._client.close()

    def _timed(self, call: Callable[[], object]) -> object:
        began_s = time.monotonic()
        told = call()
        self.seconds.append(time.monotonic() - began_s)
        return told


@pytest.fixture
def healthy(server: ControlProcess) -> Iterator[Healthy]:
    found = Healthy(server)
    found.work(10)
    found.seconds.clear()
    yield found
    assert quantile(found.seconds, 0.99) < P99_S
    found.close()


@pytest.fixture
def bounded(server: ControlProcess, healthy: Healthy) -> Iterator[None]:
    """While a test goes on memory grows by little, and afterwards every connection of its is given back."""
    process = psutil.Process(server.pid)
    memory, open_before = server.memory_bytes(), len(process.net_connections("tcp"))
    most = [memory]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most.append(server.memory_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    done.set()
    watcher.join()
    assert max(most) - memory < 96 * MIB, f"memory grew by {(max(most) - memory) / MIB:.0f} MiB"
    until("connections are given back", lambda: len(process.net_connections("tcp")) <= open_before)
    assert process.num_fds() < 150, "the readers' pool has some, and nothing else keeps any"


def head(server: ControlProcess, method: str, path: str, **headers: object) -> bytes:
    """The start of a request, as far as its empty line."""
    given = {"Host": f"127.0.0.1:{server.port}", "Authorization": f"Bearer {server.token}", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


class Crowd(ExitStack):
    """Connections that have sent something and wait."""

    def __init__(self, server: ControlProcess) -> None:
        super().__init__()
        self._port = server.port
        self.sockets: list[socket.socket] = []

    def join(self, *parts: bytes, receive_bytes: int | None = None) -> socket.socket:
        sock = self.enter_context(socket.socket())
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", self._port))
        for part in parts:
            sock.sendall(part)
        self.sockets.append(sock)
        return sock


def answer(sock: socket.socket) -> tuple[int, str]:
    """Status and error code of what comes back, until the server closes or has said all."""
    data = b""
    while b"\r\n\r\n" not in data or not data.rstrip().endswith(b"}"):
        chunk = sock.recv(65536)
        if not chunk:
            break
        data += chunk
    status = int(data.split(b" ", 2)[1])
    return status, json.loads(data.partition(b"\r\n\r\n")[2]).get("error_code", "")


@pytest.mark.usefixtures("bounded")
def test_five_hundred_idle_connections_are_in_nobodys_way(server: ControlProcess, healthy: Healthy) -> None:
    ask = head(server, "GET", f"{API}/runs/get?run_id={healthy.run}")
    with Crowd(server) as crowd:
        for number in range(500):
            crowd.join(*([ask] if number % 2 else []))
        healthy.work()
        assert [answer(sock)[0] for sock in crowd.sockets[1::50]] == [200] * 10


@pytest.mark.usefixtures("bounded")
def test_headers_that_come_a_byte_at_a_time_are_in_nobodys_way(
    server: ControlProcess, healthy: Healthy
) -> None:
    request = head(server, "GET", f"{API}/runs/get?run_id={healthy.run}")
    with Crowd(server) as crowd:
        slow = [crowd.join(request[:20]) for _ in range(100)]
        for place in range(20, 60):
            for sock in slow:
                sock.send(request[place : place + 1])
            healthy.work(2)
        for sock in slow:
            sock.sendall(request[60:])
        assert {answer(sock)[0] for sock in slow} == {200}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("method", "size", "sent"), [("json", 600_000, 300_000), ("file", 8 * MIB, MIB // 2), ("file", 8 * MIB, 2 * MIB)]
)  # fmt: skip
def test_bodies_that_stop_in_the_middle_are_in_nobodys_way_and_leave_nothing(
    server: ControlProcess, healthy: Healthy, method: str, size: int, sent: int
) -> None:
    start = (
        head(server, "POST", f"{API}/runs/log-batch", Content_Length=size)
        if method == "json"
        else head(server, "PUT", f"{healthy.root}/half", Content_Length=size)
    )
    with Crowd(server) as crowd:
        for _ in range(60 if method == "json" else 40):
            crowd.join(start, b" " * sent)
        healthy.work()
    until("what they sent is gone", lambda: not list((server.layout.blobs / "tmp").iterdir()))
    with closing(RawClient(server.port, server.token)) as client:
        assert client.download(f"0/{healthy.run}/artifacts/half").status == 404


@pytest.mark.usefixtures("bounded")
def test_downloads_that_nobody_reads_are_in_nobodys_way(server: ControlProcess, healthy: Healthy) -> None:
    healthy.upload("large", os.urandom(MIB) * 100)
    ask = head(server, "GET", f"{healthy.root}/large")
    with Crowd(server) as crowd:
        for _ in range(20):
            crowd.join(ask, receive_bytes=4096)
        healthy.work()


@pytest.mark.usefixtures("bounded")
def test_histories_that_nobody_reads_are_in_nobodys_way(server: ControlProcess, healthy: Healthy) -> None:
    for start in range(0, 25_000, 1000):
        points = [
            {"key": "long", "value": step, "timestamp": step, "step": step}
            for step in range(start, start + 1000)
        ]
        with closing(RawClient(server.port, server.token)) as client:
            assert client.post("runs/log-batch", {"run_id": healthy.run, "metrics": points}).status == 200
    ask = head(server, "GET", f"{API}/metrics/get-history?run_id={healthy.run}&metric_key=long")
    with Crowd(server) as crowd:
        for _ in range(10):
            crowd.join(ask, receive_bytes=4096)
        healthy.work()


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
def test_bodies_over_the_limit_are_refused_without_being_kept(
    server: ControlProcess, healthy: Healthy, chunked: bool
) -> None:
    length: dict[str, object] = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": 10**12}
    start = head(server, "POST", f"{API}/runs/log-batch", **length)
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with Crowd(server) as crowd:
        for _ in range(20):
            sock = crowd.join(start)
            for _ in range(17 if chunked else 1):
                sock.sendall(piece)
            assert answer(sock) == (413, "INVALID_PARAMETER_VALUE")
        healthy.work()


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x16\x03\x01\x02" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    ],
    ids=["bytes", "version", "length", "two lengths", "chunk", "long line", "many headers"],
)
def test_garbage_after_a_good_request_is_refused_and_the_good_one_was_answered(
    server: ControlProcess, healthy: Healthy, garbage: bytes
) -> None:
    good = head(server, "GET", f"{API}/runs/get?run_id={healthy.run}")
    with Crowd(server) as crowd:
        for _ in range(20):
            sock = crowd.join(good)
            assert answer(sock)[0] == 200
            sock.sendall(garbage)
            status, code = answer(sock)
            assert 400 <= status < 500, (status, code)
            assert code
        healthy.work(20)


@pytest.mark.usefixtures("bounded")
def test_good_requests_in_one_piece_are_answered_in_their_order(
    server: ControlProcess, healthy: Healthy
) -> None:
    """Pipelined, as proxies do it."""
    body = json.dumps({"run_id": healthy.run, "key": "piped", "value": 1, "timestamp": 1}).encode()
    log = head(server, "POST", f"{API}/runs/log-metric", Content_Length=len(body)) + body
    get = head(
        server, "GET", f"{API}/metrics/get-history?run_id={healthy.run}&metric_key=piped", Connection="close"
    )
    with Crowd(server) as crowd:
        sock = crowd.join(log * 50 + get)
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
        assert data.count(b"HTTP/1.1 200 ") == 51
        assert json.loads(data.rpartition(b"\r\n\r\n")[2])["metrics"] == [
            {"key": "piped", "value": 1.0, "timestamp": 1, "step": 0}
        ]
        healthy.work(20)
