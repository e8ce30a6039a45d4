"""A lean HTTP client over keep-alive connections: how fast a server is when the client costs nearly nothing.

As a process, `python -m benchmarks.wire.raw` reads one order (JSON) from its input and prints one result: see `drive`.
"""

from __future__ import annotations

import json
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httptools

API = "/api/2.0/mlflow"
POINTS = 1000
PREBUILT = 400


class Lane:
    """One keep-alive connection with one request under way at a time. `ask` waits; `send` and `receive` do not."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self.connect()

    def connect(self) -> None:
        self.sock = socket.create_connection((self.host, self.port), timeout=120)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = httptools.HttpResponseParser(self)
        self.done, self.status, self.body = False, 0, bytearray()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done, self.status = True, self.parser.get_status_code()
        self.keep = self.parser.should_keep_alive()

    def send(self, request: bytes) -> None:
        self.done = False
        self.body.clear()
        self.sock.sendall(request)

    def receive(self) -> bool:
        """Read what is there; True when the answer is complete.

        Raises:
            ConnectionError: the server hung up.
        """
        data = self.sock.recv(262144)
        if not data:
            raise ConnectionResetError("the server hung up before its answer was complete")
        self.parser.feed_data(data)
        return self.done

    def ask(self, request: bytes) -> bytes:
        """Send a request and wait for the body of its answer.

        Raises:
            RuntimeError: the answer is not a 200.
        """
        self.send(request)
        while not self.receive():
            pass
        if self.status != 200:
            raise RuntimeError(f"{self.status}: {bytes(self.body[:300])!r}")
        return bytes(self.body)


def http(method: str, path: str, body: object = None) -> bytes:
    """The bytes of a request."""
    text = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(text)}\r\n\r\n".encode() + text


def post(path: str, body: object) -> bytes:
    return http("POST", API + path, body)


def new_experiment(lane: Lane) -> str:
    made = json.loads(lane.ask(post("/experiments/create", {"name": f"raw {time.time_ns()}"})))
    return str(made["experiment_id"])


def new_run(lane: Lane, experiment: str) -> str:
    made = json.loads(lane.ask(post("/runs/create", {"experiment_id": experiment, "start_time": 1})))
    return str(made["run"]["info"]["run_id"])


def metrics(run: str) -> Iterator[bytes]:
    step = 0
    while True:
        step += 1
        point = {"run_id": run, "key": "loss", "value": step / 7, "timestamp": 1_700_000_000_000 + step}
        yield post("/runs/log-metric", {**point, "step": step})


def runs(experiment: str) -> Iterator[bytes]:
    body = {"experiment_id": experiment, "start_time": 1_700_000_000_000, "run_name": "raw", "user_id": "me"}
    request = post("/runs/create", {**body, "tags": [{"key": "mlflow.source.name", "value": "raw"}]})
    while True:
        yield request


def batch(run: str, number: int, keys: int = 10) -> bytes:
    """A log-batch of 1,000 points that no other batch of the run has, spread over the keys m0, m1, ..."""
    points = [
        {
            "key": f"m{i % keys}", "value": (number * POINTS + i) / 7, "timestamp": 1_700_000_000_000 + i,
            "step": (number * POINTS + i) // keys,
        }
        for i in range(POINTS)
    ]  # fmt: skip
    return post("/runs/log-batch", {"run_id": run, "metrics": points})


def prebuilt(run: str, count: int) -> Iterator[bytes]:
    """Batches made before the clock starts."""
    return iter([batch(run, number) for number in range(count)])


def drive(order: dict[str, object]) -> dict[str, float]:
    """Send requests on some connections for some seconds, or until they run out; count what came back.

    Order: `url`, `task` (log_metric, create_run or log_batch), `connections`, `seconds`, `start_at` on the monotonic
    clock. Result: calls a second, errors (answers that are not 200 and broken connections), p50 in ms.
    """
    url, seconds, width = str(order["url"]), float(str(order["seconds"])), int(str(order["connections"]))
    lanes = [Lane(url) for _ in range(width)]
    experiment = new_experiment(lanes[0])
    make: dict[str, Callable[[Lane], Iterator[bytes]]] = {
        "log_metric": lambda lane: metrics(new_run(lane, experiment)),
        "create_run": lambda lane: runs(experiment),  # noqa: ARG005
        "log_batch": lambda lane: prebuilt(new_run(lane, experiment), PREBUILT // width),
    }
    sources = {lane.sock.fileno(): (lane, make[str(order["task"])](lane)) for lane in lanes}
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    time.sleep(max(0.0, start - time.monotonic()))
    count, errors, spent, sent = 0, 0, [], {}
    poll = select.epoll()
    for number, (lane, source) in sources.items():
        poll.register(number, select.EPOLLIN)
        sent[number] = time.monotonic()
        lane.send(next(source))
    now, end, open_lanes = start, start + seconds, width
    while open_lanes:
        for number, _ in poll.poll():
            lane, source = sources[number]
            try:
                if not lane.receive():
                    continue
            except ConnectionError:
                errors, open_lanes = errors + 1, open_lanes - 1
                poll.unregister(number)
                continue
            now = time.monotonic()
            count, errors = count + (lane.status == 200), errors + (lane.status != 200)
            spent.append(now - sent[number])
            request = next(source, None) if now < end else None
            if request is None:
                poll.unregister(number)
                open_lanes -= 1
                continue
            sent[number] = now
            lane.send(request)
    return {
        "per_s": count / (now - start),
        "errors": errors,
        "count": count,
        "p50_ms": statistics.median(spent) * 1e3 if spent else 0.0,
    }


if __name__ == "__main__":
    print(json.dumps(drive(json.loads(sys.stdin.readline()))), flush=True)
