"""What `andon.run` delivers: entries of a run, each taken over once, and the bytes of its files, part by part."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Annotated
from weakref import WeakKeyDictionary

import msgspec

from andon.core.canonical import Digest, parse_digest
from andon.core.errors import Conflict, Invalid
from andon.governance.access import Permission
from andon.store.blobs import BlobWriter
from andon.tracking.native.delivery import absent, deliver
from andon.tracking.native.entries import Delivered, Ended, decode_delivery
from andon.tracking.native.targets import PACKED, PART_BYTES, Uploaded
from andon.web.endpoints import JSON, Call, Endpoint
from andon.web.state import State

ENTRIES_LIMIT = 4 * 2**20
MOST_UPLOADS = 64
IDLE_S = 3600.0


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the body belongs in the file. Without a size nothing is taken, and the answer says how much there is."""

    start: Annotated[int, msgspec.Meta(ge=0)] = 0
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None


def entries(call: Call) -> Delivered:
    delivery = decode_delivery(call.body, packed=_packed(call))
    if delivery.opening.run != call.path["run"]:
        raise Invalid(f"the delivery is of run {delivery.opening.run}, the path of {call.path['run'][:80]!r}")
    ws = call.state.ws
    lacking, at = absent(delivery, ws.blobs), ws.clock.now()
    said = ws.store.write(lambda tx: deliver(tx, delivery, actor=call.actor.id, at=at, lacking=lacking))
    if any(isinstance(entry, Ended) for entry in delivery.entries):
        call.state.sealer.wake()
    return said


def upload(call: Call) -> Uploaded:
    digest = parse_digest(call.path["digest"])
    return _uploads(call.state).take(digest, call.query, call.body)


def _packed(call: Call) -> bool:
    kind = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (PACKED, JSON):
        raise Invalid(f"the body is {kind or 'of no declared type'}", hint=f"send it as {PACKED} or {JSON}")
    return kind == PACKED


class _Upload:
    """A file that comes. One request at a time has it."""

    def __init__(self, writer: BlobWriter, now_s: float) -> None:
        self.writer, self.seen_s = writer, now_s
        self.lock = threading.Lock()


class Uploads:
    """Files on their way into a workspace's blobs. Safe to share between threads; a restart begins them anew.

    A file that nobody has gone on with for an hour is given up, and the one that waits longest when there are too many.
    """

    def __init__(self, state: State) -> None:
        self._blobs, self._clock = state.ws.blobs, state.ws.clock
        self._lock = threading.Lock()
        self._open: OrderedDict[Digest, _Upload] = OrderedDict()

    def take(self, digest: Digest, part: Part, data: bytes) -> Uploaded:
        """Append a part if it is the next; how much is there now.

        Raises:
            Conflict: another request brings the same file just now.
            Invalid: the file is complete and its bytes are not those of the digest, or they are more than was said.
            StorageFull: the disk is full; the file begins anew.
        """
        if self._blobs.has(digest):
            return Uploaded(received_bytes=self._blobs.size(digest), stored=True)
        upload = self._find(digest, begin=part.size_bytes is not None)
        if upload is None:
            return Uploaded(received_bytes=0, stored=False)
        if not upload.lock.acquire(blocking=False):
            raise Conflict(f"the file {digest} is being received from somebody else", hint="ask again")
        try:
            return self._append(digest, upload, part, data)
        except BaseException:
            self._forget(digest, upload)
            raise
        finally:
            upload.lock.release()

    def _append(self, digest: Digest, upload: _Upload, part: Part, data: bytes) -> Uploaded:
        writer = upload.writer
        if part.size_bytes is None or part.start != writer.size_bytes:
            return Uploaded(received_bytes=writer.size_bytes, stored=False)
        if part.start + len(data) > part.size_bytes:
            raise Invalid(
                f"the file {digest} is longer than the {part.size_bytes:,} bytes that were announced"
            )
        writer.write(data)
        if writer.size_bytes < part.size_bytes:
            return Uploaded(received_bytes=writer.size_bytes, stored=False)
        found = writer.commit()
        self._forget(digest, upload)
        if found != digest:
            raise Invalid(
                f"the bytes of the file {digest} are those of {found}", hint="send the file as it was logged"
            )
        return Uploaded(received_bytes=part.size_bytes, stored=True)

    def _find(self, digest: Digest, *, begin: bool) -> _Upload | None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            for old, upload in list(self._open.items()):
                if old != digest and (now_s - upload.seen_s > IDLE_S or len(self._open) > MOST_UPLOADS):
                    self._drop(old)
            if digest not in self._open and begin:
                self._open[digest] = _Upload(self._blobs.writer(), now_s)
            found = self._open.get(digest)
            if found is not None:
                found.seen_s = now_s
                self._open.move_to_end(digest)
            return found

    def _forget(self, digest: Digest, upload: _Upload) -> None:
        with self._lock:
            if self._open.get(digest) is upload:
                del self._open[digest]
        upload.writer.close()

    def _drop(self, digest: Digest) -> None:
        """Give a file up, unless a request has it."""
        upload = self._open[digest]
        if upload.lock.acquire(blocking=False):
            del self._open[digest]
            upload.writer.close()


_ALL: WeakKeyDictionary[State, Uploads] = WeakKeyDictionary()
_GUARD = threading.Lock()


def _uploads(state: State) -> Uploads:
    with _GUARD:
        if state not in _ALL:
            _ALL[state] = Uploads(state)
        return _ALL[state]


ENDPOINTS = (
    Endpoint(method="POST", path="/api/runs/{run}/entries", permission=Permission.RUN, handler=entries, body=bytes,
             returns=Delivered, limit=ENTRIES_LIMIT,
             summary="Entries of a run from one writer's spool; what was delivered before changes nothing."),
    Endpoint(method="POST", path="/api/runs/{run}/files/{digest}", permission=Permission.RUN, handler=upload, body=bytes,
             query=Part, returns=Uploaded, limit=PART_BYTES + 1024,
             summary="A part of a file of a run; the answer says how much is there."),
)  # fmt: skip
