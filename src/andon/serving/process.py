"""One gateway process: put the parts together, serve until told to stop, leave in order.

It forks nothing and needs no database. Several of them may share one inherited listening socket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
import uvicorn
import uvloop

from andon.core.clock import Clock, SystemClock
from andon.core.errors import AndonError, Invalid, NotFound, PortInUse
from andon.core.workspace import LOOPBACK, Layout, Settings, settings_from
from andon.serving.app import Gateway
from andon.serving.connection import Connection
from andon.serving.follower import Follower
from andon.serving.metrics import Metrics
from andon.serving.models import FaultSwitches, loading, no_faults
from andon.serving.predict import Predictor
from andon.serving.private_socket import PrivateSocket
from andon.serving.state import GatewayState
from andon.store.blobs import LocalBlobs
from andon.store.keys import route_key
from andon.store.predictions_writer import SegmentWriter

GRACE_S = 5
KEEP_ALIVE_S = 75
BACKLOG = 2048
_TICK_S = 0.5
_log = logging.getLogger("andon.gateway")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway is started with.

    Attributes:
        workspace: the `.andon` folder.
        number: this gateway's number; no two that run have the same.
        fd: a listening socket that was inherited; None listens on `port`.
        port: 0 takes a free one; None takes the settings'.
        parent_fd: the reading end of a pipe; when its other end is gone, so is the supervisor, and the gateway stops.
        read_timeout_s: a request's headers, and then its body, must be here within this time.
    """

    workspace: Path
    number: int = 1
    fd: int | None = None
    port: int | None = None
    parent_fd: int | None = None
    read_timeout_s: float = 10.0


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: a stop that was asked for ends with 0, not with the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket for gateways to inherit; port 0 takes a free one.

    Raises:
        PortInUse: another process listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise PortInUse(
            f"port {port} on {host} cannot be used: {error.strerror}",
            hint="stop the other process, or set ANDON_GATEWAY_PORT to another port",
        ) from None
    bound.listen(BACKLOG)
    return bound


def serve(options: Options, environ: Mapping[str, str], clock: Clock | None = None) -> None:
    """Be a gateway until SIGTERM, SIGINT or the supervisor's end.

    Raises:
        NotFound: there is no such workspace.
        PortInUse: another process listens on the port.
        Invalid: a setting, or the inherited descriptor, is not what it should be.
    """
    layout = Layout(options.workspace.absolute())
    if not layout.root.is_dir():
        raise NotFound(f"no workspace at {layout.root}", hint="make one with 'andon init NAME'")
    settings = settings_from(environ)
    listener = _listener(options, settings)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            _Process(options, layout.create(), settings, environ, clock or SystemClock()).run(listener)
        )


class _Process:
    def __init__(
        self, options: Options, layout: Layout, settings: Settings, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self._options = options
        self._clock = clock
        faults = (
            FaultSwitches(layout.run / "faults.json") if environ.get("ANDON_FAULTS") == "1" else no_faults
        )
        self._follower = Follower(
            layout,
            options.number,
            key=route_key(layout),
            clock=clock,
            load=loading(LocalBlobs(layout.blobs), layout.models),
            faults=faults,
        )
        durability: Literal["process", "disk"] = "disk" if settings.durability == "disk" else "process"
        metrics = Metrics(options.number)
        self._predictor = Predictor(
            lambda: self._follower.table,
            lambda: SegmentWriter(layout.predictions, clock, durability=durability),
            clock,
            metrics,
        )
        state = GatewayState(options.number, self._follower, self._predictor)
        named = [host.strip() for host in environ.get("ANDON_ALLOWED_HOSTS", "").split(",") if host.strip()]
        self._gateway = Gateway(
            state,
            self._predictor,
            metrics,
            clock,
            hosts=[*LOOPBACK, *named],
            read_timeout_s=options.read_timeout_s,
        )
        self._private = PrivateSocket(layout.run / f"gateway-{options.number}.sock", self._follower, state)
        self._server = _Server(
            uvicorn.Config(
                self._gateway,
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                backlog=BACKLOG,
            )
        )
        self._stop = threading.Event()

    async def run(self, listener: socket.socket) -> None:
        """Load, then listen; at the end finish what is in flight and close the log."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave, signal.Signals(number).name)
        if self._options.parent_fd is not None:
            loop.add_reader(self._options.parent_fd, self._watch_parent, self._options.parent_fd)
        await asyncio.to_thread(self._follower.start)
        following = threading.Thread(target=self._follower.run, args=(self._stop,), name="follower")
        following.start()
        ticking = asyncio.create_task(self._tick())
        try:
            await self._private.open()
            gc.collect()
            gc.freeze()
            host, port = listener.getsockname()[:2]
            _log.info("gateway %s listens on %s port %s", self._options.number, host, port)
            await self._server.serve(sockets=[listener])
        finally:
            ticking.cancel()
            self._stop.set()
            self._follower.stop()
            await self._private.close()
            self._predictor.close()
            following.join()
            self._follower.join()
        _log.info("gateway %s has stopped", self._options.number)

    def _leave(self, why: str) -> None:
        _log.info("stopping: %s", why)
        self._server.should_exit = True
        self._stop.set()
        self._follower.stop()

    def _watch_parent(self, descriptor: int) -> None:
        if not os.read(descriptor, 4096):
            asyncio.get_running_loop().remove_reader(descriptor)
            self._leave("the supervisor is gone")

    async def _tick(self) -> None:
        """What must happen now and then: late clients are let go, a due segment is finished."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            self._gateway.bodies.sweep()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, Connection):
                    connection.sweep(loop.time(), self._options.read_timeout_s)
            try:
                self._predictor.roll()
            except (AndonError, OSError) as error:
                _log.warning("the prediction log's segment cannot be finished yet: %s", error)


class _Lines(logging.Formatter):
    """One JSON object for each record."""

    def __init__(self, worker: int) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "worker": self._worker,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(said).decode()


def _listener(options: Options, settings: Settings) -> socket.socket:
    if options.fd is None:
        listener = listen(settings.host, settings.gateway_port if options.port is None else options.port)
    else:
        try:
            listener = socket.socket(fileno=options.fd)
        except OSError as error:
            raise Invalid(f"--fd {options.fd} is no socket: {error.strerror}") from None
    # Connections inherit it; without it an answer may wait 40 ms for the client's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m andon.serving", description="One gateway process.")
    parser.add_argument("--workspace", type=Path, required=True, help="the .andon folder")
    parser.add_argument("--number", type=int, default=1, help="this gateway's number")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--fd", type=int, help="descriptor of an inherited listening socket")
    where.add_argument("--port", type=int, help="port to listen on; 0 takes a free one")
    parser.add_argument("--parent-fd", type=int, help="pipe whose end means that the supervisor is gone")
    parser.add_argument(
        "--read-timeout-s",
        type=float,
        default=10.0,
        help="seconds a request's headers, and its body, may take",
    )
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a gateway; the exit code is 0 after a stop that was asked for, else the error's."""
    options = _options(sys.argv[1:] if arguments is None else arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(options.number))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("andon").setLevel(logging.INFO)
    try:
        serve(options, os.environ)
    except AndonError as error:
        _log.error("%s", error)
        return error.exit_code
    return 0
