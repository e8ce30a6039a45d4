"""The gateway's private socket: undo and routes for who owns the workspace, with nothing else alive.

A Unix socket of mode 0600 in the workspace's `run` folder; the file's owner is the permission. Each line is a JSON object,
each answer one line; see docs/reference/gateway.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from andon.core.errors import AndonError, Invalid, Unavailable
from andon.core.ids import ReleaseId
from andon.serving.follower import Follower
from andon.serving.state import GatewayState

_LONGEST_LINE = 64 * 2**10
_LONGEST_PATH = 100
_IDLE_S = 30.0
_log = logging.getLogger("andon.gateway")


class _Undo(msgspec.Struct, frozen=True, tag_field="verb", tag="undo", forbid_unknown_fields=True):
    endpoint: str
    actor: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    release: ReleaseId | None = None
    reason: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class _Routes(msgspec.Struct, frozen=True, tag_field="verb", tag="routes", forbid_unknown_fields=True):
    pass


_requests = msgspec.json.Decoder(_Undo | _Routes)


class PrivateSocket:
    """Serves the private socket of one gateway from `open` to `close`."""

    def __init__(self, path: Path, follower: Follower, state: GatewayState) -> None:
        self._path = path
        self._follower = follower
        self._state = state
        self._server: asyncio.Server | None = None
        self._identity = (0, 0)

    async def open(self) -> None:
        """Begin to answer. A file that a killed gateway left behind is replaced.

        Raises:
            Unavailable: the operating system refuses the socket.
        """
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            fresh.unlink(missing_ok=True)
            bound = _bind(fresh)
        except OSError as error:
            raise Unavailable(f"the private socket {self._path} cannot be opened: {error}") from None
        self._server = await asyncio.start_unix_server(self._talk, sock=bound, limit=_LONGEST_LINE)
        fresh.replace(self._path)
        stat = self._path.stat()
        self._identity = (stat.st_dev, stat.st_ino)

    async def close(self) -> None:
        """Answer no more. The file goes too, unless another gateway has taken its place."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            stat = self._path.stat()
            if (stat.st_dev, stat.st_ino) == self._identity:
                self._path.unlink()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_IDLE_S):
                    line = await reader.readline()
                if not line:
                    break
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass  # idle, a line without end, or gone: there is nobody to tell
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = _requests.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refused(Invalid(f"this is no request: {error}", hint="verbs: undo, routes"))
        if isinstance(request, _Routes):
            return {"ok": True, **self._state.routes()}
        try:
            return await asyncio.to_thread(self._undo, request)
        except AndonError as error:
            return _refused(error)
        except OSError as error:
            _log.exception("undo of %s failed", request.endpoint)
            return _refused(
                AndonError(f"the override could not be written: {error}", hint="nothing was changed")
            )

    def _undo(self, request: _Undo) -> dict[str, Any]:
        override, table = self._follower.undo(
            request.endpoint, request.release, actor=request.actor, reason=request.reason
        )
        route = table.endpoints[request.endpoint].route
        stable = route.arm("stable")
        _log.warning("%s: %s undid %s", request.endpoint, request.actor, override.release)
        return {
            "ok": True,
            "override": override.id,
            "endpoint": override.endpoint,
            "release": override.release,
            "back_to": None if stable is None else stable.release,
            "epoch": route.epoch,
            "generation": route.generation,
            **self._state.identity(),
        }


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A connection to a gateway's private socket; for paths of any length.

    Raises:
        OSError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with _reachable(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _bind(path: Path) -> socket.socket:
    """A socket at a path that nobody but this user can open, from its first moment on."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with _reachable(path) as address:
            bound.bind(address)
    except BaseException:
        bound.close()
        raise
    finally:
        os.umask(before)
    return bound


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """An address for a path; the operating system takes about a hundred characters, so a longer one goes by its folder."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = Path(f"/proc/self/fd/{folder}")
        if not short.exists():
            raise OSError(
                errno.ENAMETOOLONG, f"{path} is too long for a socket; move the workspace to a shorter path"
            )
        yield str(short / path.name)
    finally:
        os.close(folder)


def _refused(error: AndonError) -> dict[str, Any]:
    return {"ok": False, "error_code": error.code, "message": error.message, "hint": error.hint}
