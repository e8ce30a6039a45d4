"""What comes in is a record of the signature, or an error that names the field."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import Invalid, TooLarge
from andon.core.signature import Field, Signature
from andon.serving.decode import MAX_RECORDS, RecordDecoder, batch

SIGNATURE = Signature(
    inputs=(
        Field(name="count", kind="integer"),
        Field(name="air time", kind="number"),
        Field(name="class", kind="string", nullable=True, max_length=5),
        Field(name="late", kind="boolean"),
    ),
    features=("x",),
)
GOOD = '{"count": 3, "air time": 2, "class": null, "late": true}'
DECODER = RecordDecoder(SIGNATURE)


def broken(name: str, literal: str) -> bytes:
    """The good record with one field's literal replaced."""
    fields = {"count": "3", "air time": "2", "class": "null", "late": "true"} | {name: literal}
    return ("{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}").encode()


def test_a_record_comes_back_by_column_name_and_an_integer_may_stand_for_a_number() -> None:
    record = DECODER.decode(GOOD.encode())

    assert record == {"count": 3, "air time": 2.0, "class": None, "late": True}
    assert type(record["air time"]) is float


BAD_VALUES = [
    ("count", "NaN"), ("count", "1.5"), ("count", '"3"'), ("count", "null"), ("count", "true"), ("count", str(2**53)),
    ("count", str(-(2**53))), ("count", "9" * 400), ("count", "9" * 5000), ("count", "{}"), ("count", "[1]"),
    ("air time", "NaN"), ("air time", "Infinity"), ("air time", "-Infinity"), ("air time", "1e999"), ("air time", "null"),
    ("air time", '"2"'), ("air time", "false"), ("air time", "[" * 50 + "]" * 50), ("class", '"abcdef"'),
    ("class", "7"), ("class", "[]"), ("late", "1"), ("late", "0"), ("late", '"true"'), ("late", "null"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "literal"), BAD_VALUES, ids=[f"{name}={value[:12]}" for name, value in BAD_VALUES]
)
def test_a_bad_value_is_refused_by_name(name: str, literal: str) -> None:
    with pytest.raises(Invalid) as caught:
        DECODER.decode(broken(name, literal))

    assert caught.value.field == name
    assert name in caught.value.message
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", SIGNATURE.inputs, ids=lambda field: field.name)
def test_a_missing_field_is_named_even_when_it_may_be_null(name: Field) -> None:
    fields = json.loads(GOOD)
    del fields[name.name]

    with pytest.raises(Invalid, match="is missing") as caught:
        DECODER.decode(json.dumps(fields).encode())

    assert caught.value.field == name.name
    assert "air time (number)" in caught.value.hint


def test_an_extra_field_is_named() -> None:
    with pytest.raises(Invalid, match="'price' is not known here") as caught:
        DECODER.decode(GOOD.replace("}", ', "price": 1}').encode())

    assert caught.value.field == "price"


def test_a_string_that_is_not_utf8_is_named() -> None:
    with pytest.raises(Invalid, match="not UTF-8") as caught:
        DECODER.decode(GOOD.replace("null", '"@"').encode().replace(b"@", b"\xff"))

    assert caught.value.field == "class"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"   ", "not JSON"),
        (b"[]", "is a list, not an object"),
        (b"[[1, 2]]", "is a list, not an object"),
        (b"null", "is null, not an object"),
        (b"3", "is 3, not an object"),
        (b'"x"', "is a string, not an object"),
        (b"{", "not JSON"),
        (GOOD.encode() + b"x", "not JSON"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "not JSON"),
        (b'{"\xff": 1}', "not JSON"),
        (b'{"count": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"count": ' + b'{"a":' * 100_000, "nested too deeply"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_object_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        DECODER.decode(body)

    assert caught.value.field is None


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        DECODER.decode(body)


@given(
    st.fixed_dictionaries(
        {
            "count": st.integers(-(2**53) + 1, 2**53 - 1),
            "air time": st.floats(allow_nan=False, allow_infinity=False),
            "class": st.none() | st.text(max_size=5),
            "late": st.booleans(),
        }
    )
)
def test_every_good_record_comes_through_unchanged(record: dict[str, object]) -> None:
    assert DECODER.decode(json.dumps(record).encode()) == record


def test_records_of_a_batch_are_named_by_their_place() -> None:
    records = batch(b'{"records": [' + GOOD.encode() + b', {"count": 1}]}')

    assert records is not None
    assert DECODER.decode(records[0], "records[0]")["count"] == 3
    with pytest.raises(Invalid) as caught:
        DECODER.decode(records[1], "records[1]")
    assert caught.value.field == "records[1].air time"


@pytest.mark.parametrize("body", [b"[1]", b"{}", b"x", b'{"recordss": []}'])
def test_what_is_no_batch_is_none(body: bytes) -> None:
    assert batch(body) is None


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (b'{"records": []}', "records", "empty"),
        (b'{"records": {}}', "records", "not a list"),
        (b'{"records": [], "n": 1}', "n", "beside"),
    ],
)
def test_a_batch_that_is_not_one_is_refused(body: bytes, field: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        batch(body)

    assert caught.value.field == field


def test_too_many_records_are_too_large() -> None:
    body = json.dumps({"records": [{}] * (MAX_RECORDS + 1)}).encode()

    with pytest.raises(TooLarge, match="1001 records"):
        batch(body)
