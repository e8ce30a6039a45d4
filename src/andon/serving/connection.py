"""uvicorn's HTTP/1.1 connection, with limits that it leaves open: on headers, on readers that never read, on connections."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from andon.core.ids import uuid7

MAX_CONNECTIONS = 4096
MAX_HEADER_BYTES = 64 * 2**10
LINGER_S = 1.0
STALLED_S = 30.0
"""A client that does not take its answers for this long is cut off."""
SILENT_S = 60.0
"""A client that stops in the middle of what it sends is cut off after this long."""


class Connection(HttpToolsProtocol):
    """One client's connection. Errors it answers on its own have the gateway's one shape."""

    began_s: float | None = None
    stalled_s: float | None = None
    heard_s = 0.0
    _header_bytes = 0
    _deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        self.began_s = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            self.refuse(503, "TOO_MANY_CONNECTIONS", f"more than {MAX_CONNECTIONS} connections are open")

    def data_received(self, data: bytes) -> None:
        """Bytes came; headers that do not end are refused."""
        if self._deaf:
            return
        self.heard_s = self.loop.time()
        super().data_received(data)
        if self.began_s is not None:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.refuse(431, "HEADERS_TOO_LARGE", f"the headers have more than {MAX_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self.began_s = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The request can be answered."""
        self.began_s = None
        self._header_bytes = 0
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client does not read what it asked for."""
        self.stalled_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self.stalled_s = None
        super().resume_writing()

    def sweep(self, now_s: float, headers_s: float) -> None:
        """Close the connection when its client lets the gateway wait too long; called about twice a second.

        Headers must be whole within `headers_s` after a request's first byte, and a new connection must send one.
        """
        deaf = self.stalled_s is not None and now_s - self.stalled_s > STALLED_S
        silent = self._waits_for_body() and now_s - self.heard_s > SILENT_S
        if deaf or silent:
            self.transport.abort()
        elif self.began_s is not None and now_s - self.began_s > headers_s:
            self.refuse(408, "REQUEST_TIMEOUT", f"no whole request came within {headers_s:g} s")

    def _waits_for_body(self) -> bool:
        """Whether the rest of a body is awaited, and it is not we who have stopped reading."""
        cycle = getattr(self, "cycle", None)
        return (
            cycle is not None
            and cycle.more_body
            and not cycle.response_complete
            and not self.flow.read_paused
            and not self._deaf
        )

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self.refuse(400, "INVALID_PARAMETER_VALUE", msg)

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer in the gateway's shape and close; in the middle of another answer just close.

        What the client is still sending is thrown away for a moment: closing at once could take the answer with it.
        """
        self.began_s = None
        cycle = getattr(self, "cycle", None)
        if self.transport.is_closing() or (
            cycle is not None and cycle.response_started and not cycle.response_complete
        ):
            self.transport.abort()
            return
        ident = uuid7().hex
        said: dict[str, Any] = {"error_code": code, "message": message, "hint": "", "request_id": ident}
        body = msgspec.json.encode(said)
        head = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nx-request-id: {ident}\r\n"
            "x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.write_eof()
        self._deaf = True
        self.loop.call_later(LINGER_S, self.transport.close)
