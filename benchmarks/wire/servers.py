"""Servers to measure: started on a free port of their own, watched to their first healthy answer, and ended."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.figures import ROOT, peer_python, pip

MLFLOW = "mlflow==3.18.0"
# Its two halves that it pins are not published at that version; the wheel itself holds all the code.
BEFORE = "mlflow==3.17.2"
START_S = 240
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
OURS, FOUR, ONE, NULL = "ours", "stock4", "stock1", "null"
TITLES = {
    OURS: "Andon", FOUR: f"{MLFLOW}, 4 workers", ONE: f"{MLFLOW}, 1 worker", NULL: "answers 200 to everything",
}  # fmt: skip


@dataclass
class Server:
    """A server that answers at `url`. `wall_s` and `cpu_s` are what it took to its first healthy answer."""

    name: str
    url: str
    folder: Path
    pid: int | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    database: str | None = None
    filled: dict[int, str] = field(default_factory=dict)

    def family(self) -> list[psutil.Process]:
        """The process and all below it."""
        if self.pid is None:
            return []
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def memory_mb(self, kind: str) -> float:
        """Resident ("rss") or proportional ("pss") memory of them all, in 10**6 bytes."""
        return sum(getattr(one.memory_full_info(), kind) for one in self.family()) / 1e6


def mlflow_python() -> Path:
    """The Python of MLflow's own environment, made on first use."""
    python = peer_python("mlflow-3.18.0", BEFORE, "psycopg[binary]==3.3.9")
    stamp = python.parents[1] / ".upgraded"
    if not stamp.exists():
        pip(python, "install", "--no-deps", MLFLOW)
        stamp.touch()
    return python


def environment(database: str | None = None) -> dict[str, str]:
    """Ours without the settings of whoever measures, and nothing sent home."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "ANDON_"))}
    extra = {"ANDON_DATABASE_URL": database} if database else {}
    return {**kept, **extra, **QUIET, "PYTHONPATH": str(ROOT)}


def command(name: str, folder: Path, port: int, database: str | None) -> list[str]:
    """What starts a server of that name in a folder."""
    if name == OURS:
        return [sys.executable, "-m", "andon.web", "--workspace", str(folder / ".andon"), "--port", str(port)]
    if name == NULL:
        return [sys.executable, "-m", "benchmarks.wire.null", str(port)]
    store = stock_store(folder, database)
    subprocess.run([mlflow_python(), "-m", "mlflow", "db", "upgrade", store], check=True, env=environment(), cwd=folder,
                   capture_output=True)  # fmt: skip
    return [
        str(mlflow_python()), "-m", "mlflow", "server", "--backend-store-uri", store, "--artifacts-destination",
        str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
        *(["--workers", "1"] if name == ONE else []),
    ]  # fmt: skip


def stock_store(folder: Path, database: str | None) -> str:
    if database:
        return database.replace("postgresql://", "postgresql+psycopg://")
    return f"sqlite:///{folder}/mlflow.db"


@contextmanager
def started(name: str, folder: Path, database: str | None = None) -> Iterator[Server]:
    """A server from its start to its end, by process id.

    Raises:
        RuntimeError: it ended, or gave no healthy answer in time; its last lines are in the message.
    """
    folder.mkdir(exist_ok=True)
    port = free_port()
    line, log = command(name, folder, port, database), folder / f"{name}.log"
    start = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(line, cwd=folder, env=environment(database), stdout=out, stderr=out)
    server = Server(name, f"http://127.0.0.1:{port}", folder, process.pid, database=database)
    try:
        while not healthy(port):
            if process.poll() is not None or time.monotonic() - start > START_S:
                raise RuntimeError(f"{name} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.01)
        server.wall_s = time.monotonic() - start
        server.cpu_s = sum(cpu_s(one) for one in server.family())
        yield server
    finally:
        end(process, server)


def end(process: subprocess.Popen[bytes], server: Server) -> None:
    """Ask the process to stop; whatever is left of its family some seconds later is killed."""
    if process.poll() is not None:
        return
    family = server.family()
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
    _, left = psutil.wait_procs(family, timeout=3)
    for one in left:
        one.kill()


def cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
