"""What a run's client says, one entry for each call, and its frame in a spool file.

Each process that speaks for a run is a writer of its own; its entries are numbered 1, 2, 3, ... without gaps, so that
whoever receives them knows which are new. A frame is `length (u32 LE) | crc32 of the payload (u32 LE) | payload`, as in
the prediction log, and the payload MessagePack. Fields are only ever added at the end of an entry.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any, Literal

import msgspec

from andon.core.canonical import Digest
from andon.core.errors import Corrupt, Invalid, TooLarge
from andon.core.ids import RunId

VERSION = 1
MAX_ENTRY = 2**20
_HEAD = struct.Struct("<II")
_RUN = re.compile(r"[0-9a-f]{32}\Z")
_WRITER = re.compile(r"[0-9a-f]{16}\Z")


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes, for which run. It goes with every delivery, so that any part of a spool can begin the run.

    Attributes:
        writer: 16 hex characters of this process's end of the run.
        opened_ms: wall time at which the writer began, milliseconds since 1970; the run's start when it is the first.
        experiment: the experiment's name; made when there is none.
        claimed_user: what the client calls its user. Who really delivers is known to the receiver.
        resumed: the run was there before, and goes on.
        helper: a process forked off the run's own; it neither begins nor ends the run.
    """

    run: RunId
    writer: str
    opened_ms: int
    experiment: str
    name: str | None = None
    claimed_user: str | None = None
    resumed: bool = False
    helper: bool = False
    v: int = VERSION


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame of a spool file: whose it is, its number, the number of its first entry, and where it should go.

    `to` is the address of a server or the folder of a workspace; empty when neither was known.
    """

    opening: Opening
    segment: int
    first: int
    to: str
    pid: int
    host: str


class _Entry(msgspec.Struct, frozen=True, array_like=True, tag_field="kind"):
    """`at_ms` is the client's wall time, milliseconds since 1970."""

    seq: int
    at_ms: int


class Points(_Entry, frozen=True, array_like=True, tag="metrics"):
    """Values of metrics at one step."""

    step: int
    values: dict[str, float]


class Params(_Entry, frozen=True, array_like=True, tag="params"):
    """Parameters, which never change."""

    values: dict[str, str]


class Tags(_Entry, frozen=True, array_like=True, tag="tags"):
    """Tags, of which the last counts."""

    values: dict[str, str]


class Used(_Entry, frozen=True, array_like=True, tag="input"):
    """A dataset that the run uses."""

    name: str
    digest: str
    source_type: str
    source: str
    context: str | None = None
    schema: str | None = None
    profile: str | None = None


class Kept(_Entry, frozen=True, array_like=True, tag="file"):
    """A file of the run; its bytes are stored before the entry is delivered."""

    name: str
    digest: Digest
    size_bytes: int


class Made(_Entry, frozen=True, array_like=True, tag="origin"):
    """What the run was made of: git commit, whether the folder differs from it, and the environment. None: unrecorded."""

    git_commit: str | None
    git_dirty: bool | None
    environment: Digest | None


class Ended(_Entry, frozen=True, array_like=True, tag="end"):
    """The run is over for this writer. `dropped` counts entries for which the disk had no room."""

    state: Literal["finished", "failed", "killed"]
    dropped: int = 0


Entry = Points | Params | Tags | Used | Kept | Made | Ended


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of one writer in their order. `skipping` says that what is missing before the first is lost for good."""

    opening: Opening
    entries: list[Entry] = []
    skipping: bool = False


class Refused(msgspec.Struct, frozen=True):
    """An entry that was received and could not be taken over, as a whole or in part."""

    seq: int
    why: str


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """The last entry that is taken care of, now or earlier, and what was refused just now."""

    run: RunId
    experiment: str
    seq: int
    refused: list[Refused] = []


_encoder = msgspec.msgpack.Encoder()
_entries: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)
_heads = msgspec.msgpack.Decoder(Head)


def frame(value: Head | Entry) -> bytes:
    """The frame of an entry or head, to be appended with one write.

    Raises:
        TooLarge: it is over 1 MiB.
        Invalid: it holds what cannot be encoded, such as an integer beyond 64 bits or half a character.
    """
    try:
        payload = _encoder.encode(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise Invalid(f"it cannot be written down: {error}") from None
    if len(payload) > MAX_ENTRY:
        raise TooLarge(
            f"it has {len(payload):,} bytes", hint=f"at most {MAX_ENTRY:,} fit; log it as an artifact"
        )
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def decode_entry(payload: bytes) -> Entry:
    """The entry of a payload whose CRC was right.

    Raises:
        Corrupt: it is none that this Andon knows.
    """
    try:
        return _entries.decode(payload)
    except msgspec.DecodeError as error:
        raise Corrupt(
            f"an entry of a spool cannot be read: {error}", hint="a newer Andon may have written it"
        ) from None


def decode_head(payload: bytes) -> Head:
    """The head of a spool file.

    Raises:
        Corrupt: it is none.
    """
    try:
        head = _heads.decode(payload)
        check_opening(head.opening)
    except (msgspec.DecodeError, Invalid) as error:
        raise Corrupt(f"the head of a spool cannot be read: {error}") from None
    return head


def check_opening(opening: Opening) -> Opening:
    """Refuse an opening whose ids are none, or that a newer Andon wrote.

    Raises:
        Invalid: it is not usable; the message says why.

    >>> check_opening(Opening(run=RunId("x"), writer="", opened_ms=0, experiment="e"))
    Traceback (most recent call last):
    andon.core.errors.Invalid: 'x' is not the id of a run; an id is 32 hex characters
    """
    try:
        msgspec.convert(msgspec.structs.asdict(opening), Opening)
    except msgspec.ValidationError as error:
        raise Invalid(f"a run cannot begin with this: {error}", hint="its names are texts") from None
    if not _RUN.match(opening.run):
        raise Invalid(f"{opening.run[:80]!r} is not the id of a run", hint="an id is 32 hex characters")
    if not _WRITER.match(opening.writer):
        raise Invalid(f"{opening.writer[:80]!r} is not the id of a writer", hint="an id is 16 hex characters")
    if opening.v > VERSION:
        raise Invalid(
            f"the spool has version {opening.v}",
            hint=f"this Andon reads up to {VERSION}; install a newer one",
        )
    for what, text, limit in (
        ("experiment", opening.experiment, 500),
        ("name", opening.name or "-", 250),
        ("user", opening.claimed_user or "-", 500),
    ):
        if not 0 < len(text) <= limit or "\0" in text or not _encodes(text):
            raise Invalid(
                f"{text[:80]!r} cannot be the {what} of a run",
                hint=f"it is a text of 1 to {limit} characters",
            )
    return opening


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_delivery(data: bytes, *, packed: bool) -> Delivery:
    """A delivery as it came, MessagePack or JSON (NaN and infinities as the strings "NaN", "Infinity", "-Infinity").

    Raises:
        Invalid: it is none; the message names the field.
    """
    try:
        if packed:
            found = msgspec.msgpack.decode(data, type=Delivery)
        else:
            found = msgspec.json.decode(data, type=Delivery, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid(f"the delivery cannot be used: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the delivery cannot be read: {error}") from None
    check_opening(found.opening)
    return found


def encode(value: Any) -> bytes:
    """A value as MessagePack."""
    return _encoder.encode(value)
