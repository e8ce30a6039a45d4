"""The prediction log's record and its frame: what every answer leaves behind before it goes out.

A frame is `length (u32 LE) | crc32 of the payload (u32 LE) | payload`; the payload is the MessagePack array of
`PredictionRecord`, whose first item is its version. Fields are only ever added at the end. A log file begins with `MAGIC`
and a header frame; a torn tail (short or with a wrong CRC) is cut by readers and writers alike.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Literal
from uuid import UUID

import msgspec

from andon.core.errors import Corrupt
from andon.core.ids import PredictionId, ReleaseId

MAGIC = b"ANDONLOG1\n"
VERSION = 1
MAX_PAYLOAD = 16 * 2**20
_HEAD = struct.Struct("<II")


class PredictionRecord(msgspec.Struct, frozen=True, array_like=True):
    """One answer.

    Attributes:
        v: version of the record.
        id: 16 bytes of the prediction id.
        at_us: wall time, microseconds since 1970.
        data_at_us: domain time the client gave; None when it gave none.
        endpoint, release, model, version: what answered.
        epoch, generation: of the one route that was used.
        arm: the arm that answered.
        propensity: the candidate's share of requests in [0, 1] when this one was assigned.
        entity: the sticky unit; None when assigned by prediction id.
        status: HTTP status of the answer for this record (200, or 5xx when the model failed).
        inputs: the request's fields as they came.
        features: the vector that the model saw; empty when it saw none.
        output: the prediction; None when there is none.
        error: what failed, in a few words; None when nothing did.
        micros: time in the gateway up to the log write.
    """

    v: int
    id: bytes
    at_us: int
    data_at_us: int | None
    endpoint: str
    release: ReleaseId
    model: str
    version: int
    epoch: int
    generation: int
    arm: Literal["stable", "candidate"]
    propensity: float
    entity: str | None
    status: int
    inputs: dict[str, Any]
    features: list[float]
    output: float | None
    error: str | None
    micros: int

    @property
    def prediction_id(self) -> PredictionId:
        """The id as text."""
        return PredictionId(str(UUID(bytes=self.id)))


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True):
    """The first frame of a log file: the worker boot, the file's number in it, and the number of its first record."""

    v: int
    boot: int
    segment: int
    first: int
    opened_at_us: int


_encoder = msgspec.msgpack.Encoder()
_records = msgspec.msgpack.Decoder(PredictionRecord)
_headers = msgspec.msgpack.Decoder(SegmentHeader)


def frame(record: PredictionRecord | SegmentHeader) -> bytes:
    """The frame of a record, to be appended with one write."""
    payload = _encoder.encode(record)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The whole frames of data from an offset: (offset after the frame, payload). Stops at a torn tail.

    Zeros, which a power cut can leave behind in place of data, are a torn tail: no frame is empty.

    >>> [end for end, _ in frames(frame(SegmentHeader(1, 7, 0, 0, 0)) + b"torn")]
    [14]
    """
    view = memoryview(data)
    while start + _HEAD.size <= len(view):
        length, crc = _HEAD.unpack_from(view, start)
        end = start + _HEAD.size + length
        if not 0 < length <= MAX_PAYLOAD or end > len(view):
            return
        payload = bytes(view[start + _HEAD.size : end])
        if zlib.crc32(payload) != crc:
            return
        yield end, payload
        start = end


def decode_record(payload: bytes) -> PredictionRecord:
    """The record of a payload whose CRC was right.

    Raises:
        Corrupt: it is not a record of a version this Andon reads.
    """
    try:
        record = _records.decode(payload)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a prediction record cannot be read: {error}") from None
    if record.v > VERSION:
        raise Corrupt(f"a prediction record has version {record.v}, this Andon reads up to {VERSION}")
    return record


def decode_header(payload: bytes) -> SegmentHeader:
    """The header of a log file.

    Raises:
        Corrupt: it is not one.
    """
    try:
        return _headers.decode(payload)
    except msgspec.DecodeError as error:
        raise Corrupt(f"a prediction log's header cannot be read: {error}") from None
