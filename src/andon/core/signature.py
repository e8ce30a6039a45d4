"""A model's signature: the fields a request must bring. One definition checks training data, packages and live traffic."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["integer", "number", "string", "boolean"]


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A raw input column. `max_length` is in characters and holds for strings."""

    name: str
    kind: Kind
    nullable: bool = False
    max_length: int = 256


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Raw inputs in order, the features made of them, and what the output is."""

    inputs: tuple[Field, ...]
    features: tuple[str, ...]
    output: Literal["probability", "value"] = "probability"
