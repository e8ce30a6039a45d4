"""A control process alone, from outside: on one port for as long as the test lasts, killed and started again."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from andon.core.workspace import FOLDER, Layout, Settings, settings_from
from andon.governance.access import read_token
from tests.chaos.house import free_ports, until


class ControlProcess:
    """`python -m andon.web` over a folder's workspace. `up` is set while nobody has killed it since it answered."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], *, python: Sequence[str] = (sys.executable,)
    ) -> None:
        self.layout = Layout(folder / FOLDER)
        (self.port,) = free_ports(1)
        self.environ = {name: value for name, value in environ.items() if not name.startswith("ANDON_")}
        if url := environ.get("ANDON_DATABASE_URL"):
            self.environ["ANDON_DATABASE_URL"] = url
        self.up = threading.Event()
        self.starts = 0
        self._python = list(python)
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ControlProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen is not None and self._popen.poll() is None:
            self.kill()

    @property
    def settings(self) -> Settings:
        return settings_from(self.environ)

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def token(self) -> str:
        return read_token(self.layout.token)

    def start(self, *, wait: bool = True) -> None:
        """Start it; it answers when this returns, unless nobody is to wait for that."""
        self.layout.create()
        self.starts += 1
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [*self._python, "-m", "andon.web", "--workspace", str(self.layout.root), "--port", str(self.port)],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        until("control answers", self.answers)
        self.up.set()

    def kill(self) -> None:
        """kill -9."""
        self.up.clear()
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait()

    def end(self) -> int:
        """SIGTERM; its exit code."""
        self.up.clear()
        assert self._popen is not None
        self._popen.send_signal(signal.SIGTERM)
        return self._popen.wait(30)

    def answers(self) -> bool:
        """Whether it does; AssertionError when it has ended by itself."""
        assert self._popen is not None
        assert self._popen.poll() is None, (
            f"control ended by itself with {self._popen.returncode}:\n{self.tail()}"
        )
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def processes(self) -> list[psutil.Process]:
        """What runs of it."""
        return [psutil.Process(self.pid)]

    def memory_bytes(self) -> int:
        """How much memory it has of its own just now."""
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def log(self) -> Path:
        return self.layout.logs / "control-alone.log"

    def tail(self, size: int = 3000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-size:]


def environ_on(url: str | None) -> dict[str, str]:
    """This process' environment, with a workspace's database in Postgres if there is one."""
    return {**os.environ, **({} if url is None else {"ANDON_DATABASE_URL": url})}
