"""Bytes of any size between a client and the blobs, in bounded memory.

An upload is hashed and written while it comes in, and has no name until it is whole. A download is checked before its
first byte leaves. The disk work is done in threads, a piece at a time, so a slow client holds none of them; at most two
pieces of a stream are in memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from andon.core.canonical import Digest
from andon.core.errors import Corrupt, NotFound
from andon.store.blobs import BlobReader, BlobWriter, LocalBlobs

log = logging.getLogger("andon.web")

T = TypeVar("T")

PIECE = 2**20
RECENT_S = 300
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")


async def receive_blob(request: Request, blobs: LocalBlobs) -> tuple[Digest, int]:
    """Store the body of a request; its digest and size in bytes, once it survives a power cut.

    Raises:
        ClientDisconnect: the client went away in the middle; nothing of it is left.
        StorageFull: nothing was stored.
    """
    pieces = _pieces(request)
    first = await anext(pieces, b"")
    if len(first) < PIECE:
        return await run_sync(_store, blobs, first), len(first)
    writer = await run_sync(blobs.writer)
    try:
        await _fill(writer, first, pieces)
        return await run_sync(lambda: writer.commit(heal=True)), writer.size_bytes
    finally:
        await run_sync(writer.close)


def _store(blobs: LocalBlobs, data: bytes) -> Digest:
    with blobs.writer() as writer:
        writer.write(data)
        return writer.commit(heal=True)


async def _fill(writer: BlobWriter, first: bytes, pieces: AsyncIterator[bytes]) -> None:
    """Write each piece while the next one comes in."""
    writing = _begin(writer.write, first)
    async for piece in pieces:
        await writing
        writing = _begin(writer.write, piece)
    await writing


def _begin(work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
    """Start work in a thread. Nobody has to wait for its end, nor for its error, when the client has gone."""
    future = asyncio.ensure_future(run_sync(work, *arguments))
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces of about a mebibyte."""
    parts, size = [], 0
    async for chunk in request.stream():
        parts.append(chunk)
        size += len(chunk)
        if size >= PIECE:
            yield b"".join(parts)
            parts, size = [], 0
    if size:
        yield b"".join(parts)


def serve_bytes(request: Request, data: bytes, name: str) -> Response:
    """The answer to a GET or HEAD of bytes that were made for it."""
    headers = {"Content-Type": "application/octet-stream", "Content-Disposition": attachment(name)}
    headers["Content-Length"] = str(len(data))
    return Response(b"" if request.method == "HEAD" else data, headers=headers)


async def serve_blob(request: Request, blobs: LocalBlobs, digest: Digest, size: int, name: str) -> Response:
    """The answer to a GET or HEAD of a blob: whole, or one range of it. Always as a file to be saved, never as a page.

    Args:
        request: its Range, If-Range and If-None-Match count.
        blobs: where the bytes are.
        digest: what they must be; it is the answer's ETag too.
        size: how many bytes there should be.
        name: what the file is called.

    Raises:
        Corrupt: the stored bytes are not these, or are gone; none of them were sent.
    """
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": attachment(name),
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": headers["ETag"]})
    part = asked_range(request.headers.get("range", ""), size)
    if part is not None and request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        part = None
    if part is not None and not part:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    start, stop = (part.start, part.stop) if part else (0, size)
    headers["Content-Length"] = str(stop - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    try:
        reader = await run_sync(lambda: blobs.reader(digest, recent_s=RECENT_S if part else 0))
    except (Corrupt, NotFound) as error:
        log.error("%s is not given out: %s", name, error)
        raise Corrupt(
            f"the stored bytes of {name!r} are not those that were written",
            hint="none of them were sent; restore them from a backup, or write them again",
        ) from error
    return _BlobResponse(reader, range(start, stop), status, headers)


class _BlobResponse(Response):
    """Bytes of an open blob. The next piece is read while one is sent."""

    def __init__(self, reader: BlobReader, part: range, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status, headers=headers)
        self._reader, self._part = reader, part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._send(Request(scope, receive), send)
        except Corrupt as error:
            log.error(
                "a download was cut off: %s", error
            )  # fewer bytes than were promised: the client sees it
        finally:
            await run_sync(self._reader.close)

    async def _send(self, request: Request, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        following = self._read(self._part.start)
        for start in range(self._part.start, self._part.stop, PIECE):
            piece, following = await following, self._read(start + PIECE)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if await request.is_disconnected():
                return
        await following
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _read(self, start: int) -> asyncio.Future[bytes]:
        count = max(0, min(PIECE, self._part.stop - start))
        return _begin(self._reader.read, start, count)


def attachment(name: str) -> str:
    """A Content-Disposition that makes a browser save a file under its name.

    >>> attachment("model.pkl")
    "attachment; filename=model.pkl; filename*=UTF-8''model.pkl"
    >>> attachment('a "b" ü.txt')
    "attachment; filename=a__b___.txt; filename*=UTF-8''a%20%22b%22%20%C3%BC.txt"
    """
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", name)
    return f"attachment; filename={plain}; filename*=UTF-8''{quote(name, safe='')}"


def asked_range(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for: None when it asks for all or cannot be read, empty when there are none.

    >>> asked_range("bytes=2-4", 10), asked_range("bytes=-3", 10), asked_range("bytes=8-99", 10)
    (range(2, 5), range(7, 10), range(8, 10))
    >>> asked_range("", 10), asked_range("bytes=0-1,4-5", 10), asked_range("bytes=10-", 10)
    (None, None, range(10, 10))
    """
    found = _RANGE.match(header.replace(" ", ""))
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    start = min(int(first), size)
    return range(start, min(int(last) + 1, size) if last else size)
