"""Canonical bytes and content digests: the one way a value becomes an identity.

Canonical JSON here is RFC 8785 restricted to what needs no number formatting: null, booleans, integers within
+-(2**53 - 1), strings, lists and objects with string keys. Floats are refused: a figure that belongs in evidence
lives in a blob, and only its digest is part of an identity. Logical ids are `sha256:` plus 64 hex characters
(why sha256: docs/decisions/hash-algorithm.md).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import NewType

from andon.core.errors import Invalid

Digest = NewType("Digest", str)

ALGORITHM = "sha256"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_LARGEST = 2**53 - 1


def canonical(value: object) -> bytes:
    """The canonical bytes of a JSON value; equal values give equal bytes on every machine and version.

    Raises:
        Invalid: the value holds a float, a non-string key, an integer beyond 2**53 - 1, text that is no Unicode (a lone
            surrogate) or a foreign type.

    >>> canonical({"b": [1, True, None], "a": "\\u00e9"})
    b'{"a":"\\xc3\\xa9","b":[1,true,null]}'
    """
    _check(value, "$")
    try:
        return json.dumps(_sorted(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise Invalid(
            f"the text {error.object[:80]!r} cannot be written as UTF-8", hint="send whole characters"
        ) from None


def digest_bytes(data: bytes) -> Digest:
    """The digest of bytes.

    >>> digest_bytes(b"")
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    return Digest(f"{ALGORITHM}:{hashlib.sha256(data).hexdigest()}")


def digest_value(domain: str, value: object) -> Digest:
    """The digest of a JSON value within a domain such as `andon.model/1`.

    The domain is hashed in front, so values of two kinds never share an id by chance.

    >>> digest_value("x/1", {"a": 1}) != digest_value("x/2", {"a": 1})
    True
    """
    return digest_bytes(domain.encode() + b"\n" + canonical(value))


def digest_chunks(chunks: Iterable[bytes]) -> Digest:
    """The digest of a stream of chunks, in bounded memory.

    >>> digest_chunks([b"ab", b"c"]) == digest_bytes(b"abc")
    True
    """
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return Digest(f"{ALGORITHM}:{state.hexdigest()}")


def parse_digest(text: str) -> Digest:
    """Check that text is a digest: the door through which a client's string becomes an address.

    Raises:
        Invalid: it is not `sha256:` plus 64 lower-case hex characters.

    >>> parse_digest("sha256:" + "0" * 64)[:9]
    'sha256:00'
    """
    if not _DIGEST.match(text):
        raise Invalid(f"{text[:80]!r} is not a digest", hint="a digest is 'sha256:' and 64 hex characters")
    return Digest(text)


def hex_part(digest: Digest) -> str:
    """The hex characters of a digest, without the algorithm.

    >>> len(hex_part(digest_bytes(b"")))
    64
    """
    return digest.split(":", 1)[1]


def _check(value: object, path: str) -> None:
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        if abs(value) > _LARGEST:
            raise Invalid(f"{path}: the integer {value} is beyond 2**53 - 1", hint="store it as a string")
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Invalid(f"{path}: the key {key!r} is not a string")
            _check(item, f"{path}.{key}")
        return
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
        return
    raise Invalid(f"{path}: a {type(value).__name__} has no canonical form", hint="store figures in a blob")


def _sorted(value: object) -> object:
    """Objects with keys in UTF-16 code unit order, as RFC 8785 asks."""
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _sorted(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value
