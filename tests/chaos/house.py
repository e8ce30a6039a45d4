"""A workspace with all its processes, from outside: started, looked at, killed, started again."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from andon.cli.supervisor import Running
from andon.core.errors import Unavailable
from andon.core.workspace import Layout
from andon.governance.access import read_token
from andon.pipelines.gateways import GatewayState, ask, states

T = TypeVar("T")
START_S = 60.0
_POLL_S = 0.02


def until(what: str, look: Callable[[], T | None], *, within_s: float = START_S) -> T:
    """Wait until `look` gives something; AssertionError when it does not in time."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(_POLL_S)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class House:
    """One supervisor at a time, on two ports that stay the same.

    `expected` holds the process ids that are known: one that is replaced without having been killed here died by itself.
    """

    def __init__(
        self, layout: Layout, environ: Mapping[str, str], *, gateways: int = 2, ports: Iterable[int] = ()
    ) -> None:
        self.layout = layout
        self.control_port, self.gateway_port = tuple(ports) or tuple(free_ports(2))
        self.gateways = gateways
        self.environ = {name: value for name, value in environ.items() if not name.startswith("ANDON_")} | {
            "ANDON_PORT": str(self.control_port),
            "ANDON_GATEWAY_PORT": str(self.gateway_port),
            "ANDON_GATEWAYS": str(gateways),
        }
        if url := environ.get("ANDON_DATABASE_URL"):
            self.environ["ANDON_DATABASE_URL"] = url
        self.supervisor: subprocess.Popen[bytes] | None = None
        self._killed: set[int] = set()
        self._known: dict[str, int] = {}
        self.died: list[str] = []

    # --- start and end ---

    def start(self) -> None:
        """Start a supervisor."""
        self.layout.create()
        with self.log("supervisor").open("ab") as log:
            self.supervisor = subprocess.Popen(
                [sys.executable, "-m", "andon.cli.supervisor", "--workspace", str(self.layout.root)],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._known = {}

    def end(self, within_s: float = 30.0) -> int:
        """SIGTERM to the supervisor; its exit code."""
        assert self.supervisor is not None
        self.supervisor.terminate()
        return self.supervisor.wait(within_s)

    def destroy(self) -> None:
        """Leave no process behind, whatever happened."""
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.kill_everything()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    # --- look ---

    def running(self) -> Running | None:
        """What the supervisor that was started last says it runs."""
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            said = msgspec.json.decode((self.layout.run / "supervisor.json").read_bytes(), type=Running)
            if self.supervisor is not None and said.pid == self.supervisor.pid:
                return said
        return None

    def pid(self, name: str) -> int | None:
        """The living process of a name."""
        if name == "supervisor":
            return (
                None if self.supervisor is None or self.supervisor.poll() is not None else self.supervisor.pid
            )
        said = self.running()
        found = said.processes.get(name) if said else None
        return found if found is not None and found not in self._killed and alive(found) else None

    def names(self) -> list[str]:
        return ["worker", "control", *(f"gateway-{number}" for number in range(self.gateways))]

    def processes(self) -> list[psutil.Process]:
        """Every process of this workspace that lives, steps included."""
        found = []
        root = str(self.layout.root)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and any(
                    root in part for part in process.cmdline()
                ):
                    found.append(process)
        return found

    def steps(self) -> list[psutil.Process]:
        """Running steps."""
        worker = self.pid("worker")
        if worker is None:
            return []
        with contextlib.suppress(psutil.Error):
            return [
                child
                for child in psutil.Process(worker).children()
                if "andon.pipelines.step" in child.cmdline()
            ]
        return []

    def gateway_states(self) -> list[GatewayState]:
        """What gateways that answer serve, of those that the supervisor runs now."""
        pids = {self.pid(name) for name in self.names()}
        return [state for state in states(self.layout) if state.reachable and state.pid in pids]

    def control_answers(self) -> bool:
        try:
            return self.get("/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str, *, timeout_s: float = 5.0) -> tuple[int, bytes]:
        """Ask control with the workspace's token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=timeout_s)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token()}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def token(self) -> str:
        return read_token(self.layout.token)

    def notice_deaths(self) -> None:
        """Note in `died` what was replaced without having been killed."""
        said = self.running()
        if said is None:
            return
        for name, pid in said.processes.items():
            before = self._known.get(name)
            if before is not None and before != pid and before not in self._killed:
                self.died.append(f"{name} (pid {before}) died by itself:\n{self.tail(name)}")
            self._known[name] = pid

    def log(self, name: str) -> Path:
        return self.layout.logs / f"{name}.log"

    def tail(self, name: str, size: int = 3000) -> str:
        try:
            return self.log(name).read_text(errors="replace")[-size:]
        except FileNotFoundError:
            return ""

    # --- kill ---

    def kill(self, name: str) -> bool:
        """kill -9 of a process by name; whether there was one. The supervisor alone leaves orphans that end in order."""
        self.notice_deaths()
        pid = self.pid(name)
        if pid is None:
            return False
        if name == "supervisor":
            assert self.supervisor is not None
            self._killed.update(self._known.values())
        self._killed.add(pid)
        os.kill(pid, signal.SIGKILL)
        if name == "supervisor" and self.supervisor is not None:
            self.supervisor.wait()
        return True

    def kill_step(self) -> bool:
        """kill -9 of a running step; whether there was one."""
        for step in self.steps():
            with contextlib.suppress(psutil.NoSuchProcess):
                step.kill()
                return True
        return False

    def kill_everything(self) -> None:
        """kill -9 of the supervisor and the process groups of all it started, as a machine that goes down does."""
        said = self.running()
        assert self.supervisor is not None
        self.kill("supervisor")
        for pid in said.processes.values() if said else ():
            self._killed.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    # --- tell a gateway itself ---

    def ask_gateway(self, number: int, message: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return ask(self.layout.run / f"gateway-{number}.sock", message)
        except Unavailable:
            return None


def alive(pid: int) -> bool:
    """Whether a process runs, and has not ended and only waits to be noticed."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
