"""The door for requests: bytes become records of a model's signature, or an error that names the field.

The usual request costs one typed decoding. Only when that fails is the body looked at field by field, to say in plain words
what is wrong with which.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import msgspec

from andon.core.errors import Invalid, TooLarge
from andon.core.signature import Field, Signature

MAX_RECORDS = 1000
SAFE_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader and a float64 hold exactly."""

_KINDS: dict[str, Any] = {
    "integer": Annotated[int, msgspec.Meta(ge=-SAFE_INTEGER, le=SAFE_INTEGER)],
    "number": float,
    "boolean": bool,
}
_LITERALS = {
    ord('"'): "a string", ord("{"): "an object", ord("["): "a list", ord("t"): "true", ord("f"): "false", ord("n"): "null",
}  # fmt: skip
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_lists = msgspec.json.Decoder(list[msgspec.Raw])


class RecordDecoder:
    """Reads records of one signature. Safe to share between threads.

    >>> decoder = RecordDecoder(Signature(inputs=(Field(name="age", kind="integer"),), features=()))
    >>> decoder.decode(b'{"age": 41}')
    {'age': 41}
    """

    def __init__(self, signature: Signature) -> None:
        self.names = tuple(field.name for field in signature.inputs)
        self._fields = {field.name: field for field in signature.inputs}
        keys = [f"f{index}" for index in range(len(self.names))]
        form = msgspec.defstruct(
            "Record",
            list(zip(keys, map(_form, signature.inputs), strict=True)),
            rename=dict(zip(keys, self.names, strict=True)),
            forbid_unknown_fields=True,
            frozen=True,
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(form)

    def decode(self, data: bytes | msgspec.Raw, at: str = "") -> dict[str, Any]:
        """The record of a JSON object, by column name. `at` is put before field names in errors.

        Raises:
            Invalid: a field is missing, unknown, of another type, too long, too large or not finite; `field` names it.
        """
        try:
            return dict(zip(self.names, msgspec.structs.astuple(self._decoder.decode(data)), strict=True))
        except _UNREADABLE:
            raise self._explain(bytes(data), at) from None

    def _explain(self, data: bytes, at: str) -> Invalid:
        """What is wrong with a record that was refused."""
        try:
            given = _objects.decode(data)
        except msgspec.ValidationError:
            return Invalid(
                f"{at or 'the body'} is {_described(data)}, not an object",
                hint=self._takes(),
                field=at or None,
            )
        except _UNREADABLE as error:
            return _malformed(data, str(error), at)
        dot = f"{at}." if at else ""
        for name, raw in given.items():
            if name not in self._fields:
                return Invalid(
                    f"the field {name[:80]!r} is not known here", hint=self._takes(), field=dot + name[:80]
                )
            if wrong := _fault(self._fields[name], bytes(raw)):
                return Invalid(f"the field {name!r} {wrong}", field=dot + name)
        missing = next((name for name in self.names if name not in given), None)
        if missing is None:
            return Invalid(
                f"{at or 'the body'} cannot be read as a record", hint=self._takes(), field=at or None
            )
        return Invalid(f"the field {missing!r} is missing", hint=self._takes(), field=dot + missing)

    def _takes(self) -> str:
        shown = ", ".join(f"{field.name} ({field.kind})" for field in list(self._fields.values())[:20])
        return f"a record has the fields {shown}" + (", ..." if len(self._fields) > 20 else "")


def batch(data: bytes) -> list[msgspec.Raw] | None:
    """The records of `{"records": [...]}`, not yet decoded; None when the body is something else.

    Raises:
        Invalid: there are none, or something stands beside them.
        TooLarge: there are more than `MAX_RECORDS`.

    >>> [bytes(record) for record in batch(b'{"records": [{"a": 1}, {}]}') or []]
    [b'{"a": 1}', b'{}']
    """
    try:
        given = _objects.decode(data)
    except _UNREADABLE:
        return None
    if "records" not in given:
        return None
    for name in given:
        if name != "records":
            raise Invalid(
                f"{name[:80]!r} stands beside 'records'",
                hint="send the records and nothing else",
                field=name[:80],
            )
    try:
        records = _lists.decode(given["records"])
    except _UNREADABLE:
        raise Invalid("'records' is not a list of records", field="records") from None
    if not records:
        raise Invalid("'records' is empty", hint="send at least one record", field="records")
    if len(records) > MAX_RECORDS:
        raise TooLarge(
            f"{len(records)} records came in one request",
            hint=f"send at most {MAX_RECORDS} at a time",
            field="records",
        )
    return records


def _form(field: Field) -> Any:
    form: Any = (
        Annotated[str, msgspec.Meta(max_length=field.max_length)]
        if field.kind == "string"
        else _KINDS[field.kind]
    )
    return form | None if field.nullable else form


def _fault(field: Field, raw: bytes) -> str | None:
    """What is wrong with one value, or None."""
    try:
        msgspec.json.decode(raw, type=_form(field))
    except UnicodeDecodeError:
        return "is not UTF-8"
    except (msgspec.DecodeError, RecursionError):
        return f"is {_described(raw)}, expected {_wanted(field)}"
    return None


def _wanted(field: Field) -> str:
    words = {
        "integer": f"a whole number from -{SAFE_INTEGER} to {SAFE_INTEGER}",
        "number": "a finite number",
        "string": f"a string of at most {field.max_length} characters",
        "boolean": "true or false",
    }[field.kind]
    return f"{words} or null" if field.nullable else words


def _described(data: bytes) -> str:
    """A JSON value in a few words; never more than a few characters of it come back."""
    text = data.strip()
    if not text:
        return "empty"
    if text[0] in _LITERALS:
        word = _LITERALS[text[0]]
        return f"{word} of {len(text)} bytes" if word == "a string" and len(text) > 40 else word
    return f"{text[:40].decode('ascii', 'replace')}"


def _malformed(data: bytes, why: str, at: str) -> Invalid:
    """The error of a body that is not JSON; names the field when it is NaN or Infinity that spoils it."""
    try:
        loose = json.loads(data)
    except RecursionError:
        return Invalid(f"{at or 'the body'} is nested too deeply", field=at or None)
    except ValueError:
        return Invalid(f"{at or 'the body'} is not JSON: {why}", field=at or None)
    if isinstance(loose, dict):
        for name, value in loose.items():
            if isinstance(value, float) and not math.isfinite(value):
                where = f"{at}.{name}" if at else name
                return Invalid(f"the field {name[:80]!r} is not a finite number", field=where[:80])
    return Invalid(f"{at or 'the body'} is not JSON: {why}", field=at or None)
