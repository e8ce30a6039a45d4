"""Following the ledger live: one poll of its head for all open streams, and none while nobody listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import msgspec
from anyio.to_thread import run_sync

from andon.core.errors import Invalid
from andon.core.events import Event
from andon.store.ports import Store

POLL_S = 0.2
KEEPALIVE_S = 10.0
BATCH = 500
KEEPALIVE = b": keepalive\n\n"


class Feed:
    """Tells streams when the ledger has grown. Belongs to one event loop.

    When the ledger cannot be read, every listener gets the error: a stream that ends is noticed at the other side, a silent
    one is not.
    """

    def __init__(self, store: Store, *, poll_s: float = POLL_S) -> None:
        self._store = store
        self._poll_s = poll_s
        self._listeners = 0
        self._task: asyncio.Task[None] | None = None
        self._tick = asyncio.Event()
        self._error: Exception | None = None
        self.head = 0
        self.closing = False

    @contextlib.contextmanager
    def listener(self) -> Iterator[None]:
        """Keep the poll going while a stream is open."""
        self._listeners += 1
        if not self.running:
            self._error = None
            self._task = asyncio.get_running_loop().create_task(self._poll())
        try:
            yield
        finally:
            self._listeners -= 1

    @property
    def running(self) -> bool:
        """Whether the ledger is polled just now."""
        return self._task is not None and not self._task.done()

    async def after(self, seq: int, *, limit_s: float) -> int:
        """Wait until the head is beyond `seq`, the feed closes or `limit_s` seconds pass; the head comes back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.head <= seq and not self.closing and self._error is None:
                    await self._tick.wait()
        if self._error is not None:
            raise self._error
        return self.head

    def close(self) -> None:
        """End every wait, and the streams with it."""
        self.closing = True
        self._wake()

    async def _poll(self) -> None:
        while self._listeners and not self.closing:
            try:
                head = await run_sync(self._read_head)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is handed to every listener
                self._error = error
                self._wake()
                return
            if head != self.head:
                self.head = head
                self._wake()
            await asyncio.sleep(self._poll_s)

    def _read_head(self) -> int:
        return self._store.read(lambda reader: reader.ledger.head()[0])

    def _wake(self) -> None:
        self._tick.set()
        self._tick = asyncio.Event()


def message(data: bytes | str, *, ident: int | None = None) -> bytes:
    r"""One message of an event stream.

    >>> message("a\nb", ident=7)
    b'id: 7\ndata: a\ndata: b\n\n'
    """
    text = data.decode() if isinstance(data, bytes) else data
    head = "" if ident is None else f"id: {ident}\n"
    return (head + "".join(f"data: {line}\n" for line in text.splitlines()) + "\n").encode()


def position(header: str | None, query: int | None) -> int | None:
    """Where a stream begins: after the last event its reader has seen. The header wins: browsers send it on their own.

    Raises:
        Invalid: the header is not a sequence number.
    """
    if header is None:
        return query
    if not header.isdigit() or len(header) > 18:
        raise Invalid(
            f"Last-Event-ID is {header[:40]!r}", hint="it is the id of the last message that was read"
        )
    return int(header)


async def events(store: Store, feed: Feed, start: int | None) -> AsyncIterator[bytes]:
    """The ledger's events as they happen, each with its sequence number as id. None starts with what happens next."""
    head = await run_sync(lambda: store.read(lambda reader: reader.ledger.head()[0]))
    seq = head if start is None else min(start, head)
    yield b"retry: 1000\n\n"
    with feed.listener():
        while not feed.closing:
            if await feed.after(seq, limit_s=KEEPALIVE_S) <= seq:
                yield KEEPALIVE
                continue
            for event in await run_sync(_batch, store, seq):
                seq = event.seq
                yield message(msgspec.json.encode(event), ident=seq)


def _batch(store: Store, seq: int) -> list[Event]:
    return store.read(lambda reader: reader.ledger.after(seq, limit=BATCH))
