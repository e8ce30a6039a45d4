"""The control process: `python -m andon.web --workspace PATH [--port N | --fd N] [--parent-fd N]`."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import msgspec
import uvicorn
from starlette.applications import Starlette

from andon.core.errors import AndonError, PortInUse
from andon.core.workspace import Layout, settings_from
from andon.pipelines.workspace import OpenWorkspace
from andon.serving.connection import Connection
from andon.web.app import create_app
from andon.web.state import State

GRACE_S = 3
HEADERS_S = 30.0


class ControlConnection(Connection):
    """A connection that remembers who its other end belongs to, once that has been asked."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        self._peer: list[bool] = []
        super().connection_made(transport)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.scope["andon.peer"] = self._peer  # type: ignore[typeddict-unknown-key]


class Server(uvicorn.Server):
    """Ends open streams as soon as it is asked to stop, so that stopping takes milliseconds and not for ever."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._state.close)

    async def on_tick(self, counter: int) -> bool:
        """Now and then, clients that do not get on with their request are let go."""
        if counter % 5 == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.sweep(asyncio.get_running_loop().time(), HEADERS_S)
        return await super().on_tick(counter)

    def stop_when_closed(self, descriptor: int) -> None:
        """Stop when the other end of a pipe is closed: the process that started this one is gone."""

        def closed() -> None:
            if not os.read(descriptor, 1):
                asyncio.get_running_loop().remove_reader(descriptor)
                self.handle_exit(signal.SIGTERM, None)

        asyncio.get_running_loop().add_reader(descriptor, closed)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        PortInUse: another process listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"another process listens on {host}:{port}", hint="set ANDON_PORT to a free port"
            ) from None
        raise
    return sock


def configure(app: Starlette) -> uvicorn.Config:
    """How uvicorn serves the application: bounded headers, no proxy headers believed, and an end to every wait."""
    return uvicorn.Config(
        app, loop="auto", http=ControlConnection, ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=30,
    )  # fmt: skip


def serve(
    ws: OpenWorkspace,
    sock: socket.socket,
    *,
    parent: int | None = None,
    listening: Callable[[str, str], None] | None = None,
) -> None:
    """Answer until told to stop. `listening` is told the address and a login link, once connections are taken."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    app = create_app(ws)
    config = configure(app)
    server = Server(config, app.state.andon)

    async def run() -> None:
        if parent is not None:
            server.stop_when_closed(parent)
        await server.serve([sock])

    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    logging.getLogger("andon.web").info("control answers on http://%s:%d", shown, port)
    if listening is not None:
        listening(
            f"http://{shown}:{port}", f"http://{shown}:{port}/login?code={app.state.andon.codes.mint()}"
        )
    gc.collect()
    gc.freeze()  # what has been loaded stays: without it, each full collection stops everybody for 25 ms
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())


def main(arguments: Sequence[str] | None = None, listening: Callable[[str, str], None] | None = None) -> int:
    """Open the workspace and serve it; exit codes are those of the errors. `listening` is as in `serve`."""
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has stopped
        signal.signal(number, lambda *_: sys.exit(0))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        settings = settings_from(os.environ)
        if options.port is not None:
            settings = msgspec.structs.replace(settings, control_port=options.port)
        sock = (
            socket.socket(fileno=options.fd)
            if options.fd is not None
            else listen(settings.host, settings.control_port)
        )
        with OpenWorkspace(Layout(options.workspace.absolute()), settings) as ws:
            serve(ws, sock, parent=options.parent_fd, listening=listening)
    except AndonError as error:
        sys.stderr.write(f"andon: {error}\n")
        return error.exit_code
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m andon.web", description="Andon's control process: API and pages."
    )
    parser.add_argument("--workspace", type=Path, required=True, help="the .andon folder")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--fd", type=int, help="number of a listening socket that was handed down")
    where.add_argument("--port", type=int, help="port to listen on; 0 takes a free one")
    parser.add_argument("--parent-fd", type=int, help="number of a pipe; when its other end closes, stop")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
