"""Reading a request: its body within limits, who sent it, and the headers that Andon gives a meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from andon.core.clock import parse_time, to_us
from andon.core.errors import AndonError, Forbidden, Invalid, TooLarge

MAX_BODY_BYTES = 2**20
DRAINED_BYTES = 16 * 2**20
"""A body over the limit is read up to here and thrown away, so that a client that is still sending sees the answer."""
LONGEST_ENTITY = 256

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Headers = dict[bytes, bytes]


class UnsupportedEncoding(Invalid):
    """The body came compressed."""

    code, status = "UNSUPPORTED_ENCODING", 415


class RequestTimeout(AndonError, TimeoutError):
    """The client took too long to send its body; the connection is closed."""

    code, status = "REQUEST_TIMEOUT", 408


class Oversized(TooLarge):
    """As `TooLarge`; the connection is closed because the rest of the body was not read."""


class Gone(Exception):
    """The client left before its request was whole."""


class Bodies:
    """Reads the bodies of requests. For the event loop's thread only.

    Args:
        timeout_s: a body must be here within this time after its headers.
        now_s: monotonic time.
    """

    def __init__(self, timeout_s: float, now_s: Callable[[], float]) -> None:
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()

    def sweep(self) -> None:
        """Give up on bodies that are late; called about twice a second.

        A timer for each request would cost more than all the rest of reading it.
        """
        now = self._now_s()
        for task, deadline in list(self._reading.items()):
            if now > deadline and task not in self._late:
                self._late.add(task)
                task.cancel()

    async def read(self, headers: Headers, receive: Receive, began_s: float) -> bytes:
        """The whole body of a request.

        Raises:
            TooLarge: it is over the limit, whatever its header said.
            RequestTimeout: it did not come in time.
            UnsupportedEncoding: it is compressed.
            Gone: the client left.
        """
        length = int(headers.get(b"content-length", b"0"))
        if length > DRAINED_BYTES or (length > MAX_BODY_BYTES and b"expect" in headers):
            raise Oversized(_too_large(length))
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = began_s + self._timeout_s
        try:
            message = await receive()
            if message.get("more_body") or message["type"] != "http.request":
                body = await _rest(message, receive)
            else:
                body = message.get("body", b"")
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise RequestTimeout(
                f"the body did not come within {self._timeout_s:g} s", hint="send it again"
            ) from None
        finally:
            del self._reading[task]
            self._late.discard(task)
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(_too_large(len(body)), hint="send fewer records at a time")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise UnsupportedEncoding("the body is compressed", hint="send plain JSON")
        return body


class Senders:
    """Refuses what a web page from elsewhere may have sent: by the Host header, and on writing requests by the Origin.

    Args:
        hosts: names by which this gateway may be called, without ports.

    >>> senders = Senders(["localhost"])
    >>> senders.check("POST", {b"host": b"localhost:8080", b"origin": b"http://localhost:5000"})
    """

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._seen: set[bytes] = set()

    def check(self, method: str, headers: Headers) -> None:
        """Let a request pass.

        Raises:
            Forbidden: Host or Origin names somebody else.
        """
        host = headers.get(b"host", b"")
        if host not in self._seen:
            self._check_host(host)
        if method in ("GET", "HEAD"):
            return
        origin = headers.get(b"origin")
        if origin is None:
            if headers.get(b"sec-fetch-site") == b"cross-site":
                raise Forbidden("a page of another site may not call this gateway")
        elif _origin_name(origin.decode("latin-1")) not in self._hosts:
            raise Forbidden(f"a page of {origin.decode('latin-1')[:80]!r} may not call this gateway")

    def _check_host(self, host: bytes) -> None:
        if _host_name(host.decode("latin-1")) not in self._hosts:
            raise Forbidden(
                f"this gateway is not called {host.decode('latin-1')[:80]!r}",
                hint="call it by a loopback name, or add the name to ANDON_ALLOWED_HOSTS",
            )
        if len(self._seen) < 1000:
            self._seen.add(host)


def entity_of(headers: Headers) -> str | None:
    """The sticky unit a client names in `Andon-Entity`, None when it names none.

    Raises:
        Invalid: it is empty, too long or not UTF-8.
    """
    given = headers.get(b"andon-entity")
    if given is None:
        return None
    try:
        entity = given.decode()
    except UnicodeDecodeError:
        entity = ""
    if not 0 < len(entity) <= LONGEST_ENTITY:
        raise Invalid(
            "the header Andon-Entity is not an entity",
            hint=f"1 to {LONGEST_ENTITY} characters of UTF-8",
            field="Andon-Entity",
        )
    return entity


def data_at_us_of(headers: Headers) -> int | None:
    """The domain time of `Andon-Time` in microseconds since 1970, None when there is none.

    Raises:
        Invalid: it is no RFC 3339 time with a zone.
    """
    given = headers.get(b"andon-time")
    if given is None:
        return None
    try:
        return to_us(parse_time(given.decode("ascii")))
    except (ValueError, OverflowError):
        raise Invalid(
            f"the header Andon-Time is {given.decode('latin-1')[:80]!r}, not a time with a zone",
            hint="RFC 3339, as in 2013-04-01T12:00:00Z",
            field="Andon-Time",
        ) from None


async def _rest(message: Message, receive: Receive) -> bytes:
    """The body that goes on after its first part; what is over the limit is counted, not kept."""
    kept = bytearray()
    seen = 0
    while True:
        if message["type"] != "http.request":
            raise Gone
        part = message.get("body", b"")
        seen += len(part)
        if seen <= MAX_BODY_BYTES:
            kept += part
        if not message.get("more_body"):
            break
        if seen > DRAINED_BYTES:
            raise Oversized(_too_large(seen))
        message = await receive()
    if seen > MAX_BODY_BYTES:
        raise TooLarge(_too_large(seen), hint="send fewer records at a time")
    return bytes(kept)


def _too_large(size: int) -> str:
    return f"the body has {size} bytes or more, at most {MAX_BODY_BYTES} are taken"


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets.

    >>> [_host_name(host) for host in ("LOCALHOST:8080", "127.0.0.1", "[::1]:80")]
    ['localhost', '127.0.0.1', '::1']
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _origin_name(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
