"""The supervisor: starts control, gateways and worker, hands them their listening sockets, and restarts what dies.

`python -m andon.cli.supervisor --workspace PATH` runs it in the foreground until SIGTERM or SIGINT. It binds the ports
itself and its children inherit them, so a child that is killed is replaced without a refused connection. Children hold the
read end of a pipe; when the supervisor is gone they end in order.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from andon.core.clock import Clock, SystemClock
from andon.core.errors import AndonError, Conflict, PortInUse
from andon.core.workspace import Layout, Settings, settings_from
from andon.store.files import write_atomic

LOG_LIMIT = 10 * 2**20
_GRACE_S = 8.0
_TICK_S = 0.1
_LONGEST_PAUSE_S = 5.0
_SETTLED_S = 10.0


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What `.andon/run/supervisor.json` says: the addresses and the process ids of what runs."""

    pid: int
    control: str
    gateway: str
    processes: Mapping[str, int]


class Child:
    """One supervised process; `tick` starts it, or starts it again after a pause that grows while it keeps dying."""

    def __init__(self, name: str, command: Sequence[str], descriptors: Sequence[int], log: Path) -> None:
        self.name = name
        self._command = list(command)
        self._descriptors = tuple(descriptors)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s = 0.0
        self._started_s = 0.0
        self._again_s = 0.0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def tick(self, clock: Clock, environ: Mapping[str, str]) -> bool:
        """Start what should run; whether it was started just now."""
        now = clock.monotonic_s()
        if self._process is not None:
            if self._process.poll() is None:
                return False
            lived = now - self._started_s
            self._pause_s = (
                0.0 if lived > _SETTLED_S else min(max(self._pause_s * 2, _TICK_S), _LONGEST_PAUSE_S)
            )
            self._again_s, self._process = now + self._pause_s, None
        if now < self._again_s:
            return False
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=self._descriptors,
                env=dict(environ), start_new_session=True,
            )  # fmt: skip
        self._started_s = now
        return True

    def ask_to_end(self) -> None:
        """Ask it to end in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def end(self, within_s: float) -> None:
        """Wait for its end, and end it when it does not come in time."""
        if self._process is None:
            return
        try:
            self._process.wait(max(within_s, 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def trim_log(self) -> None:
        """Keep a log within its limit: the older half goes to `NAME.log.1`."""
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > LOG_LIMIT:
                shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                os.truncate(self._log, 0)


class Supervisor:
    """Everything a workspace runs on this machine."""

    def __init__(self, layout: Layout, settings: Settings, *, clock: Clock | None = None) -> None:
        self.layout = layout.create()
        self.settings = settings
        self._clock = clock or SystemClock()
        self._lock = _only_one(layout)
        # A supervisor that was killed leaves this file, and children that still hold the ports while they end in order.
        patience_s = _GRACE_S if (layout.run / "supervisor.json").exists() else 0.0
        self._sockets = [
            _listen(settings.host, settings.control_port, "ANDON_PORT", self._clock, patience_s),
            _listen(settings.host, settings.gateway_port, "ANDON_GATEWAY_PORT", self._clock, patience_s),
        ]
        self.control, self.gateway = (_address(sock) for sock in self._sockets)
        self._alive, self._held = os.pipe()
        self._children = list(self._plan())

    def run(self, stop: threading.Event) -> None:
        """Keep everything running until `stop` is set, then end it: all are asked at once, and have the same time of grace."""
        environ = dict(os.environ) | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            while not stop.is_set():
                started = [child.tick(self._clock, environ) for child in self._children]
                if any(started):
                    self._say()
                for child in self._children:
                    child.trim_log()
                stop.wait(_TICK_S)
        finally:
            deadline_s = self._clock.monotonic_s() + _GRACE_S
            for child in self._children:
                child.ask_to_end()
            for child in self._children:
                child.end(deadline_s - self._clock.monotonic_s())
            self.close()

    def close(self) -> None:
        """Let go of ports and lock."""
        for sock in self._sockets:
            sock.close()
        for descriptor in (self._alive, self._held):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        (self.layout.run / "supervisor.json").unlink(missing_ok=True)
        self._lock.close()

    def _plan(self) -> Iterator[Child]:
        control, gateway = (sock.fileno() for sock in self._sockets)
        logs, root, alive = self.layout.logs, str(self.layout.root), str(self._alive)

        def child(name: str, module: str, descriptors: Sequence[int], *extra: str) -> Child:
            command = [sys.executable, "-m", module, "--workspace", root, "--parent-fd", alive, *extra]
            return Child(name, command, [self._alive, *descriptors], logs / f"{name}.log")

        yield child("worker", "andon.pipelines.worker", [])
        yield child("control", "andon.web", [control], "--fd", str(control))
        for number in range(self.settings.gateways):
            extra = ("--fd", str(gateway), "--number", str(number))
            yield child(f"gateway-{number}", "andon.serving", [gateway], *extra)

    def _say(self) -> None:
        pids = {child.name: child.pid for child in self._children if child.pid is not None}
        said = Running(pid=os.getpid(), control=self.control, gateway=self.gateway, processes=pids)
        write_atomic(self.layout.run / "supervisor.json", msgspec.json.encode(said))


def running(layout: Layout) -> Running | None:
    """What runs in a workspace, or None when no supervisor does."""
    try:
        said = msgspec.json.decode((layout.run / "supervisor.json").read_bytes(), type=Running)
        os.kill(said.pid, 0)
    except (FileNotFoundError, ProcessLookupError, msgspec.DecodeError):
        return None
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """Run a supervisor in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m andon.cli.supervisor")
    parser.add_argument("--workspace", required=True, type=Path)
    options = parser.parse_args(argv)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        Supervisor(Layout(options.workspace), settings_from(os.environ)).run(stop)
    except AndonError as error:
        print(f"andon: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _only_one(layout: Layout) -> IO[str]:
    lock = (layout.run / "supervisor.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Conflict(
            f"the workspace {layout.root} runs already",
            hint=f"stop it first, or use it: {said.control}"
            if (said := running(layout))
            else "stop it first",
        ) from None
    return lock


def _listen(host: str, port: int, setting: str, clock: Clock, patience_s: float) -> socket.socket:
    deadline_s = clock.monotonic_s() + patience_s
    while True:
        try:
            sock = _bound(host, port)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        if clock.monotonic_s() >= deadline_s:
            raise PortInUse(
                f"port {port} on {host} is in use",
                hint=f"stop what listens there, or set {setting} to another port",
            )
        time.sleep(_TICK_S)
    sock.listen(1024)
    sock.set_inheritable(True)
    return sock


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by accepted connections; without it a small answer waits 40 ms for the client's acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
