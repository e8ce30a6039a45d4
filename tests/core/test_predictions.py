"""The prediction log's bytes: the same for ever, and a torn tail never spoils what is before it."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import Corrupt
from andon.core.ids import ReleaseId, prediction_id
from andon.core.predictions import (
    MAGIC,
    MAX_PAYLOAD,
    VERSION,
    PredictionRecord,
    SegmentHeader,
    decode_header,
    decode_record,
    frame,
    frames,
)

HEADER = SegmentHeader(1, 0x00DEADBEEF, 3, 41, 1364817600123456)
HEADER_FRAME = bytes.fromhex("12000000edf433659501cedeadbeef0329cf0004d94b5c3d1240")
RECORD = PredictionRecord(
    v=1, id=bytes(range(16)), at_us=1364817600123456, data_at_us=None, endpoint="flights", release=ReleaseId("rel_1"),
    model="flights", version=2, epoch=1, generation=300, arm="candidate", propensity=0.1, entity=None, status=200,
    inputs={"dep_hour": 7, "origin": "JFK", "x": None, "f": 1.5, "b": True}, features=[7.0, math.nan], output=0.25,
    error=None, micros=412,
)  # fmt: skip
RECORD_FRAME = bytes.fromhex(
    "98000000f7601257dc001301c410000102030405060708090a0b0c0d0e0fcf0004d94b5c3d1240c0a7666c6967687473a572656c5f31a7666c69"
    "676874730201cd012ca963616e646964617465cb3fb999999999999ac0ccc885a86465705f686f757207a66f726967696ea34a464ba178c0a166"
    "cb3ff8000000000000a162c392cb401c000000000000cb7ff8000000000000cb3fd0000000000000c0cd019c"
)

inputs = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9),
    max_size=4,
)
records = st.builds(
    lambda number, values, features, output: msgspec.structs.replace(
        RECORD, id=number.to_bytes(16), inputs=values, features=features, output=output
    ),
    st.integers(0, 2**128 - 1), inputs, st.lists(st.floats(), max_size=4), st.none() | st.floats(0, 1),
)  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Equal, with NaN equal to itself and 1 different from True."""
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)


@pytest.mark.capability("J2")
def test_the_bytes_of_a_log_never_change() -> None:
    """A log written by any release is read by every later one: if this fails, the change is wrong, not the test."""
    assert MAGIC == b"ANDONLOG1\n"
    assert frame(HEADER) == HEADER_FRAME
    assert frame(RECORD) == RECORD_FRAME


def test_a_frame_is_length_crc_and_payload() -> None:
    payload = msgspec.msgpack.encode(RECORD)

    assert frame(RECORD) == struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


def test_the_bytes_of_old_logs_are_read() -> None:
    (_, payload), = frames(RECORD_FRAME)  # fmt: skip
    (_, head), = frames(HEADER_FRAME)  # fmt: skip

    assert same(decode_record(payload), RECORD)
    assert decode_header(head) == HEADER


@given(st.lists(records, max_size=4))
def test_records_come_back_as_they_were_written(written: list[PredictionRecord]) -> None:
    data = b"".join(frame(record) for record in written)

    found = list(frames(data))

    assert all(
        same(decode_record(payload), record) for (_, payload), record in zip(found, written, strict=True)
    )
    assert [end for end, _ in found][-1:] == ([len(data)] if written else [])


@given(st.lists(records, min_size=1, max_size=3), st.data())
def test_a_torn_tail_hides_only_itself(written: list[PredictionRecord], draw: st.DataObject) -> None:
    whole = [frame(record) for record in written]
    data = b"".join(whole)
    cut = draw.draw(st.integers(0, len(data)))
    ends = [sum(map(len, whole[: n + 1])) for n in range(len(whole))]

    assert [end for end, _ in frames(data[:cut])] == [end for end in ends if end <= cut]


@given(st.lists(records, min_size=1, max_size=3), st.data())
def test_a_flipped_byte_ends_the_log_there(written: list[PredictionRecord], draw: st.DataObject) -> None:
    whole = [frame(record) for record in written]
    data = bytearray(b"".join(whole))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= 1 << draw.draw(st.integers(0, 7))
    spoiled = next(n for n in range(len(whole)) if place < sum(map(len, whole[: n + 1])))

    assert len(list(frames(bytes(data)))) == spoiled


@pytest.mark.parametrize(
    "tail", [bytes(4096), struct.pack("<II", 0, 0), struct.pack("<II", MAX_PAYLOAD + 1, 0) + bytes(64)]
)
def test_zeros_and_absurd_lengths_are_a_torn_tail(tail: bytes) -> None:
    assert [end for end, _ in frames(RECORD_FRAME + tail)] == [len(RECORD_FRAME)]


def test_reading_goes_on_from_an_offset() -> None:
    data = RECORD_FRAME * 3

    assert [end for end, _ in frames(data, len(RECORD_FRAME))] == [
        2 * len(RECORD_FRAME),
        3 * len(RECORD_FRAME),
    ]
    assert list(frames(data, len(data))) == []


def test_fields_added_at_the_end_do_not_disturb_an_older_reader() -> None:
    longer = msgspec.msgpack.encode(
        [*msgspec.msgpack.decode(msgspec.msgpack.encode(RECORD)), "a field of next year"]
    )

    assert same(decode_record(longer), RECORD)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\xc1", "cannot be read"),
        (msgspec.msgpack.encode([1, 2]), "cannot be read"),
        (msgspec.msgpack.encode(msgspec.structs.replace(RECORD, v=VERSION + 1)), f"version {VERSION + 1}"),
    ],
)
def test_what_is_no_record_of_a_known_version_is_corrupt(payload: bytes, message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        decode_record(payload)


def test_what_is_no_header_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="header cannot be read"):
        decode_header(msgspec.msgpack.encode("no"))


def test_a_record_tells_its_id_as_text() -> None:
    ident = prediction_id(1_700_000_000_000, 77, 5)
    record = msgspec.structs.replace(RECORD, id=bytes.fromhex(ident.replace("-", "")))

    assert record.prediction_id == ident
