"""Where a run's entries go: to a server over HTTP, or straight into a workspace on this machine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from andon.core.canonical import Digest
from andon.core.clock import SystemClock
from andon.core.errors import AndonError, Invalid, NotFound, Unauthenticated, Unavailable
from andon.core.ids import RunId
from andon.core.workspace import LOOPBACK, Layout, find_workspace, settings_from
from andon.tracking.native.entries import Delivered, Delivery, encode

if TYPE_CHECKING:
    import http.client

    from andon.core.entities import Actor
    from andon.store.blobs import LocalBlobs
    from andon.store.ports import Store

T = TypeVar("T")

PACKED = "application/msgpack"
PART_BYTES = 4 * 2**20
_TIMEOUT_S = 30.0
_STORING_S = 600.0
"""How long the last part of a file may take: the server reads and syncs all of it."""
_LARGEST_ANSWER = 2**20


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a file a server has, and whether that is all and stored."""

    received_bytes: int
    stored: bool


class Target(Protocol):
    """Takes entries and files. For one thread at a time; both verbs may be repeated, and change nothing then.

    Both raise AndonError or OSError when it did not work, or when nobody knows whether it did.
    """

    def deliver(self, delivery: Delivery) -> Delivered:
        """Hand entries over."""

    def upload(self, run: RunId, digest: Digest, path: Path) -> None:
        """Hand the bytes of a file over. NotFound: they are not in the file, nor on the other side."""

    def seal(self, run: RunId) -> None:
        """Everything of a run is handed over and it has ended: give it its seal, where nobody else does."""

    def close(self) -> None:
        """Let go. Closing twice changes nothing."""


def find_target(to: str, environ: Mapping[str, str], here: Path) -> Target:
    """The target of an address: a server's URL, or the folder of a workspace.

    Raises:
        Invalid: it is neither, or the URL is not one of a server.
        NotFound: there is no such workspace.
    """
    if not to:
        raise NotFound(
            "there is no workspace here and no server is named", hint="set ANDON_URL, or run 'andon init'"
        )
    if "://" in to:
        return HttpTarget(to, token_for(to, environ, here))
    root = Path(to)
    if not root.is_dir():
        raise NotFound(f"the workspace {root} is gone", hint="name another place with 'andon sync --to'")
    return WorkspaceTarget(Layout(root), environ)


def address(environ: Mapping[str, str], here: Path) -> str:
    """Where runs of this place go: `ANDON_URL`, else the workspace's folder; empty when there is neither."""
    if url := environ.get("ANDON_URL"):
        return url
    with contextlib.suppress(NotFound):
        return str(find_workspace(here, environ).root)
    return ""


def token_for(url: str, environ: Mapping[str, str], here: Path) -> str | None:
    """The token for a server: `ANDON_TOKEN`, else the workspace's own, which is shown to this machine only."""
    if token := environ.get("ANDON_TOKEN"):
        return token.strip()
    if (urlsplit(url).hostname or "") not in LOOPBACK:
        return None
    from andon.governance.access import read_token

    try:
        return read_token(find_workspace(here, environ).token)
    except (AndonError, OSError):
        return None


def check_url(url: str) -> SplitResult:
    """The parts of a server's address.

    Raises:
        Invalid: it is no http or https address, or holds a user, a query or a fragment.

    >>> check_url("https://andon.example.com/team").path
    '/team'
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise Invalid(f"{url[:200]!r} is no address of a server") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise Invalid(f"{url[:200]!r} is no address of a server", hint="it looks like http://127.0.0.1:5000")
    if parts.username is not None or parts.query or parts.fragment:
        raise Invalid(
            "the server's address holds more than host, port and path", hint="give the token as ANDON_TOKEN"
        )
    return parts


class HttpTarget:
    """A server's API, over one connection that is kept. Redirects are not followed: the token stays where it was meant for."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = check_url(url)
        self._token = token
        self._connection: http.client.HTTPConnection | None = None

    def deliver(self, delivery: Delivery) -> Delivered:
        body = self._ask(f"/api/runs/{delivery.opening.run}/entries", encode(delivery), _TIMEOUT_S)
        return self._read(body, Delivered)

    def upload(self, run: RunId, digest: Digest, path: Path) -> None:
        where = f"/api/runs/{run}/files/{digest}"
        said = self._read(self._ask(where, b"", _TIMEOUT_S), Uploaded)
        while not said.stored:
            start = said.received_bytes
            try:
                size, part = path.stat().st_size, _part(path, start)
            except FileNotFoundError:
                raise NotFound(f"the bytes of {digest} are not in the spool any more") from None
            last = start + len(part) >= size
            body = self._ask(
                f"{where}?start={start}&size_bytes={size}", part, _STORING_S if last else _TIMEOUT_S
            )
            said = self._read(body, Uploaded)
            if not said.stored and said.received_bytes <= start:
                raise Unavailable(f"{self._url.netloc} began the file {digest} anew")

    def seal(self, run: RunId) -> None:
        """The server does that by itself."""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, path: str, body: bytes, timeout_s: float) -> bytes:
        """One POST; on a kept connection that the server has closed meanwhile, once more."""
        import http.client  # not before a run needs it: it loads ssl

        kept = self._connection is not None
        try:
            return self._post(path, body, timeout_s)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.close()
            if not kept:
                raise
            return self._post(path, body, timeout_s)
        except BaseException:
            self.close()
            raise

    def _post(self, path: str, body: bytes, timeout_s: float) -> bytes:
        import http.client

        connection = self._connection = self._connection or self._connect()
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        headers = {"Content-Type": PACKED, "User-Agent": "andon-run"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request("POST", self._url.path.rstrip("/") + path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read(_LARGEST_ANSWER)
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            raise Unavailable(f"{self._url.netloc} does not speak HTTP: {type(error).__name__}") from None
        if answer.will_close or not answer.isclosed():
            self.close()
        if answer.status != 200:
            raise self._problem(answer.status, data)
        return data

    def _connect(self) -> http.client.HTTPConnection:
        import http.client
        import ssl

        host = self._url.hostname or ""
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, self._url.port, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, self._url.port)

    def _problem(self, status: int, data: bytes) -> AndonError:
        said = f"{self._url.netloc} answers {status}"
        try:
            problem = msgspec.json.decode(data, type=dict[str, object])
            said += f": {str(problem.get('message', ''))[:500]}"
        except msgspec.DecodeError:
            pass
        if status in (401, 403):
            return Unauthenticated(said, hint="set ANDON_TOKEN to the server's token")
        return Unavailable(said)

    def _read(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError:
            raise Unavailable(
                f"{self._url.netloc} answers what no Andon does", hint="check ANDON_URL"
            ) from None


class WorkspaceTarget:
    """A workspace's own store, opened in this process when something is delivered, and shared by all runs of it."""

    def __init__(self, layout: Layout, environ: Mapping[str, str]) -> None:
        self._layout, self._environ = layout, environ
        self._opened: _Opened | None = None

    def deliver(self, delivery: Delivery) -> Delivered:
        from andon.tracking.native.delivery import absent, deliver

        opened = self._open()
        lacking, at = absent(delivery, opened.blobs), SystemClock().now()
        return opened.store.write(
            lambda tx: deliver(tx, delivery, actor=opened.actor.id, at=at, lacking=lacking)
        )

    def upload(self, run: RunId, digest: Digest, path: Path) -> None:
        blobs = self._open().blobs
        if blobs.has(digest):
            return
        try:
            stored = blobs.put(_chunks(path))
        except FileNotFoundError:
            raise NotFound(f"the bytes of {digest} are not in the spool any more") from None
        if stored != digest:
            raise NotFound(f"the bytes of {digest} were changed in the spool")

    def seal(self, run: RunId) -> None:
        from andon.tracking.sealing import read_seal, write_seal

        store = self._open().store
        row = store.read(lambda reader: reader.runs.find(run))
        if row is not None and row.seal is None:
            seal = read_seal(store, row)
            store.write(lambda tx: write_seal(tx, seal, SystemClock()))

    def close(self) -> None:
        if self._opened is not None:
            self._opened.release()
            self._opened = None

    def _open(self) -> _Opened:
        if self._opened is None:
            self._opened = _Opened.get(self._layout, self._environ)
        return self._opened


class _Opened:
    """One open store for each workspace and process; closed when its last run is."""

    _all: dict[tuple[int, Path], _Opened] = {}  # noqa: RUF012  # the process's own
    _guard = threading.Lock()

    def __init__(self, layout: Layout, environ: Mapping[str, str]) -> None:
        from andon.governance.access import ensure_actor, person_of_this_process
        from andon.store import open_store
        from andon.store.blobs import LocalBlobs

        subject, name = person_of_this_process()
        self.store: Store = open_store(layout.create(), settings_from(environ))
        try:
            self.blobs: LocalBlobs = LocalBlobs(layout.blobs)
            now = SystemClock().now()
            self.actor: Actor = self.store.write(lambda tx: ensure_actor(tx, subject, "person", name, now))
        except BaseException:
            self.store.close()
            raise
        self._key = (os.getpid(), layout.root)
        self._users = 0

    @classmethod
    def get(cls, layout: Layout, environ: Mapping[str, str]) -> _Opened:
        """The open store of a workspace; each `get` has its `release`."""
        with cls._guard:
            key = (os.getpid(), layout.root)
            found = cls._all.get(key)
            if found is None:
                found = cls._all[key] = cls(layout, environ)
            found._users += 1
            return found

    def release(self) -> None:
        with self._guard:
            self._users -= 1
            if self._users == 0:
                del self._all[self._key]
                self.store.close()

    @classmethod
    def forked(cls) -> None:
        """In a forked child: the parent's stores are not ours."""
        cls._guard = threading.Lock()
        cls._all.clear()


os.register_at_fork(after_in_child=_Opened.forked)


def _part(path: Path, start: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), PART_BYTES, start)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(2**20):
            yield chunk
