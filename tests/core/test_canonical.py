"""Canonical bytes: equal values give equal bytes, and nothing is let in that could be written in two ways."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.canonical import (
    canonical,
    digest_bytes,
    digest_chunks,
    digest_value,
    hex_part,
    parse_digest,
)
from andon.core.errors import Invalid

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | text
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any) -> Any:
    """The same value with the keys of its objects in another order, and tuples for lists."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return tuple(shuffled(item) for item in value) if isinstance(value, list) else value


@given(values)
def test_the_order_of_keys_changes_nothing_and_json_reads_it_back(value: Any) -> None:
    said = canonical(value)

    assert canonical(shuffled(value)) == said
    assert json.loads(said) == value


@given(values, values)
def test_different_values_have_different_bytes(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def test_these_bytes_never_change() -> None:
    value = {
        "\u20ac": "euro", "\r": "return", "\ufb33": "dalet", "1": "one", "\U0001f600": "smile", "\x80": "control",
        "\u00f6": "o", "deep": [None, True, False, 0, -1, 2**53 - 1, {"b": [], "a": {}}], "text": "\x00\x1f\"\\/\b\f\n\r\t\x7f",
    }  # fmt: skip

    # The order of the first seven keys is the example of RFC 8785, section 3.2.3: by UTF-16 code units.
    assert canonical(value) == (
        b'{"\\r":"return","1":"one","deep":[null,true,false,0,-1,9007199254740991,{"a":{},"b":[]}],'
        b'"text":"\\u0000\\u001f\\"\\\\/\\b\\f\\n\\r\\t\x7f","\xc2\x80":"control","\xc3\xb6":"o","\xe2\x82\xac":"euro",'
        b'"\xf0\x9f\x98\x80":"smile","\xef\xac\xb3":"dalet"}'
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, r"\$: a float has no canonical form"),
        (float("nan"), "a float"),
        ([1, {"a": 1.0}], r"\$\[1\]\.a: a float"),
        ({"n": 2**53}, r"\$\.n: the integer 9007199254740992 is beyond"),
        (-(2**53), "beyond"),
        ({1: "x"}, "the key 1 is not a string"),
        (b"bytes", "a bytes"),
        ({"s": {1, 2}}, r"\$\.s: a set"),
        ("half a pair \ud800", "cannot be written as UTF-8"),
        ({"\udfff": 1}, "cannot be written as UTF-8"),
    ],
)
def test_what_could_be_written_in_two_ways_is_refused(value: object, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        canonical(value)


def test_a_digest_says_its_algorithm_and_its_domain_counts() -> None:
    assert digest_bytes(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_value("andon.x/1", {"a": 1}) == digest_bytes(b'andon.x/1\n{"a":1}')
    assert digest_value("andon.x/1", {"a": 1}) != digest_value("andon.x/2", {"a": 1})


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_a_stream_has_the_digest_of_its_bytes(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(places)]

    assert digest_chunks(chunks) == digest_bytes(data)


def test_a_digest_of_a_client_is_checked() -> None:
    good = "sha256:" + "0a" * 32

    assert hex_part(parse_digest(good)) == "0a" * 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0a" * 32,
        "md5:" + "0a" * 32,
        "sha256:" + "0A" * 32,
        "sha256:" + "0a" * 31,
        "sha256:" + "0a" * 32 + "\n",
        "../x",
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is not a digest"):
        parse_digest(text)
