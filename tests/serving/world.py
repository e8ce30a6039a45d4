"""A workspace with real models and real gateway processes, as tests of the data plane need them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from andon.core.canonical import Digest
from andon.core.ids import ModelVersionId, OverrideId, ReleaseId
from andon.core.predictions import MAGIC, PredictionRecord, decode_record, frames
from andon.core.routes import Arm, EndpointRoute, Role, RouteFile, encode_routes
from andon.core.workspace import Layout
from andon.registry.packaging import build_package, infer_signature
from andon.serving.private_socket import connect
from andon.serving.process import listen
from andon.store.blobs import LocalBlobs
from andon.store.files import write_atomic
from andon.store.keys import route_key

T = TypeVar("T")
DEADLINE_S = 60.0
FILE_LIMIT = 64 * 2**10
_LIMITED = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_LIMIT}, resource.RLIM_INFINITY))
runpy.run_module("andon.serving", run_name="__main__")
"""
LIMITED = ("-c", _LIMITED)
"""Starts a gateway that can write no file larger than `FILE_LIMIT` bytes: what a full disk looks like to it."""
RECORD: dict[str, Any] = {"distance": 1200, "dep hour": 17.5, "carrier": "AA", "wet": True}
EXPRESSIONS = [
    pl.col("distance").log1p().alias("log_distance"),
    (pl.col("dep hour") / 24).alias("day_part"),
    pl.col("carrier")
    .replace_strict({"AA": 0.0, "DL": 1.0}, default=2.0, return_dtype=pl.Float64)
    .alias("carrier"),
    pl.col("wet").cast(pl.Float64).alias("wet"),
]


def until(what: str, check: Callable[[], T | None], *, limit_s: float = DEADLINE_S) -> T:
    """What `check` gives as soon as it gives something; fails when the deadline passes first."""
    deadline = time.monotonic() + limit_s
    while True:
        found = check()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"within {limit_s} s there was not: {what}"
        time.sleep(0.005)


def rows_of(seed: int) -> pl.DataFrame:
    """Raw rows like the requests' records."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "distance": rng.integers(50, 3000, 800),
            "dep hour": rng.uniform(5, 23, 800),
            "carrier": rng.choice(["AA", "DL"], 800),
            "wet": rng.random(800) < 0.3,
        }
    )


def package(
    blobs: LocalBlobs,
    rows: pl.DataFrame,
    expressions: Sequence[pl.Expr],
    objective: str,
    edit: Callable[[str], str],
    seed: int,
) -> Digest:
    """A small real model, packaged."""
    import lightgbm  # late: only this function needs it, and it is slow

    matrix = rows.select(expressions).to_numpy().astype(np.float64)
    risk = 1 / (1 + np.exp(2 - 0.15 * (matrix[:, 1] * 24 - 12) - 2 * matrix[:, 3]))
    label = np.random.default_rng(seed).random(len(rows)) < risk
    parameters = {"objective": objective, "num_leaves": 15, "num_threads": 1, "verbosity": -1, "seed": seed}
    booster = lightgbm.train(parameters, lightgbm.Dataset(matrix, label=label), num_boost_round=20)
    signature = infer_signature(rows, expressions, output="probability" if objective == "binary" else "value")
    made = build_package(
        blobs, expressions=expressions, booster_text=edit(booster.model_to_string()), raw_schema=signature,
        profile_bytes=b"{}", golden_rows=rows,
    )  # fmt: skip
    return made.digest


def good(seed: int) -> Callable[[LocalBlobs], Digest]:
    """A model that works; another seed gives other answers."""
    nullable = rows_of(seed).with_columns(
        pl.when(pl.col("wet")).then(None).otherwise(pl.col("carrier")).alias("carrier")
    )
    return lambda blobs: package(blobs, nullable, EXPRESSIONS, "binary", lambda text: text, seed)


def strict(blobs: LocalBlobs) -> Digest:
    """A model whose features cannot be computed for a carrier it never saw."""
    code = pl.col("carrier").replace_strict({"AA": 0.0, "DL": 1.0}, return_dtype=pl.Float64).alias("carrier")
    expressions = [*EXPRESSIONS[:2], code, EXPRESSIONS[3]]
    return package(blobs, rows_of(4), expressions, "binary", lambda text: text, 4)


def endless(blobs: LocalBlobs) -> Digest:
    """A model whose every output is infinite."""
    leaves = re.compile(r"(?<=^leaf_value=).*$", re.MULTILINE)

    def edit(text: str) -> str:
        # Of the same length, since the text says how long each tree is.
        return leaves.sub(
            lambda found: " ".join(f"1.{'0' * (len(one) - 6)}e308" for one in found[0].split()), text
        )

    return package(blobs, rows_of(5), EXPRESSIONS, "regression", edit, 5)


PACKAGES = (good(1), good(2), good(3), strict, endless)
"""Versions 1 to 5 of the model in every world."""
STRICT, ENDLESS = 4, 5


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `json` is the body when it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One kept-alive connection to a gateway."""

    port: int
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> Answer:
        data = body if body is None or isinstance(body, bytes) or chunked else json.dumps(body).encode()
        self.connection.request(method, path, data, dict(headers or {}), encode_chunked=chunked)
        response = self.connection.getresponse()
        return Answer(
            response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
        )

    def predict(self, record: Any = None, endpoint: str = "delay", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/predict/{endpoint}", RECORD if record is None else record, named)

    def close(self) -> None:
        self.connection.close()


class Process:
    """A gateway process on a socket that outlives it, as under the supervisor."""

    def __init__(
        self, world: World, number: int, port: int, process: subprocess.Popen[bytes], log: Path
    ) -> None:
        self.world = world
        self.number = number
        self.port = port
        self.process = process
        self.log = log

    def client(self) -> Client:
        client = Client(self.port)
        self.world.clients.append(client)
        return client

    def ready(self) -> Any:
        """Wait until the gateway is ready; what it says then."""
        return until(f"gateway {self.number} ready; its log: {self.log}", self._ready)

    def _ready(self) -> Any:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            state = self.routes()
            return state if state["pid"] == self.process.pid and state["ready"] else None

    def tell(self, message: Mapping[str, Any]) -> Any:
        """A request to the private socket."""
        path = self.world.layout.run / f"gateway-{self.number}.sock"
        with connect(path, DEADLINE_S) as connection, connection.makefile("rwb") as stream:
            stream.write(json.dumps(message).encode() + b"\n")
            stream.flush()
            return json.loads(stream.readline())

    def undo(self, endpoint: str = "delay", **more: str) -> Any:
        return self.tell(
            {"verb": "undo", "endpoint": endpoint, "actor": "act_test", "reason": "test", **more}
        )

    def routes(self) -> Any:
        return self.tell({"verb": "routes"})

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE_S)


class World:
    """A workspace whose control plane is the test itself: it writes route files and starts gateways."""

    def __init__(self, root: Path, packages: Path, digests: Sequence[Digest]) -> None:
        self.layout = Layout(root / ".andon").create()
        shutil.copytree(packages, self.layout.blobs, dirs_exist_ok=True)
        self.digests = digests
        self.key = route_key(self.layout)
        self.clients: list[Client] = []
        self.processes: list[Process] = []
        self.sockets: list[socket.socket] = []
        self.seq = 0

    def arm(self, role: Role, version: int) -> Arm:
        return Arm(
            release=ReleaseId(f"rel_{version}"), role=role, model="delay", version=version,
            model_version=ModelVersionId(f"mv_{version}"), digest=self.digests[version - 1],
        )  # fmt: skip

    def route(
        self, generation: int, *, stable: int | None = 1, candidate: int | None = None, previous: int | None = None,
        weight: float = 0.0, epoch: int = 1, endpoint: str = "delay", adopted: Sequence[str] = (), salt: str = "s",
    ) -> EndpointRoute:  # fmt: skip
        roles: tuple[tuple[Role, int | None], ...] = (
            ("stable", stable), ("candidate", candidate), ("previous", previous),
        )  # fmt: skip
        return EndpointRoute(
            endpoint=endpoint, epoch=epoch, generation=generation, salt=salt, weight=weight,
            arms=tuple(self.arm(role, version) for role, version in roles if version is not None),
            adopted=tuple(map(OverrideId, adopted)),
        )  # fmt: skip

    def publish(self, *routes: EndpointRoute, epoch: int | None = None) -> None:
        """Write the route file as the control plane does."""
        self.seq += 1
        routes_by_name = {route.endpoint: route for route in routes}
        number = max((route.epoch for route in routes), default=1) if epoch is None else epoch
        file = RouteFile(epoch=number, seq=self.seq, endpoints=routes_by_name)
        write_atomic(self.layout.routes, encode_routes(file, self.key))

    def start(
        self, number: int = 1, *, socket_of: Process | None = None, environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (), launcher: Sequence[str] = (), pass_fds: Sequence[int] = (),
    ) -> Process:  # fmt: skip
        """A gateway process, on the socket of another if given."""
        if socket_of is None:
            listener = listen("127.0.0.1", 0)
            self.sockets.append(listener)
        else:
            listener = next(one for one in self.sockets if one.getsockname()[1] == socket_of.port)
        port = listener.getsockname()[1]
        log = self.layout.logs / f"gateway-{number}-{len(self.processes)}.log"
        command = [
            sys.executable, "-W", "error", *(launcher or ["-m", "andon.serving"]), "--workspace", str(self.layout.root),
            "--number", str(number), "--fd", str(listener.fileno()), *arguments,
        ]  # fmt: skip
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **(environ or {})},
                pass_fds=(listener.fileno(), *pass_fds),
            )  # fmt: skip
        started = Process(self, number, port, process, log)
        self.processes.append(started)
        return started

    def records(self) -> dict[str, PredictionRecord]:
        """Everything in the prediction log, by prediction id."""
        found = {}
        for path in sorted(self.layout.predictions.glob("*.log")):
            data = path.read_bytes()
            payloads = [payload for _, payload in frames(data, len(MAGIC))]
            for record in map(decode_record, payloads[1:]):
                found[str(record.prediction_id)] = record
        return found

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for process in self.processes:
            if process.process.poll() is None:
                process.kill()
        for listener in self.sockets:
            listener.close()


@contextlib.contextmanager
def world(root: Path, packages: Path, digests: Sequence[Digest]) -> Iterator[World]:
    """A world whose processes are gone at the end."""
    made = World(root, packages, digests)
    try:
        yield made
    finally:
        made.close()
