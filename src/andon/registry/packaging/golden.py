"""Golden rows: real rows with the features and outputs they must give, kept so that no bit is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import polars as pl

from andon.core.errors import Corrupt, Invalid
from andon.registry.packaging.features import Floats

MIN_ROWS = 16
MAX_ROWS = 64


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """Raw records (n), the features (n, k) they have and the outputs (n,) they get."""

    rows: tuple[Mapping[str, Any], ...]
    features: Floats
    outputs: Floats


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Computed numbers as `float.hex()` text, which every language reads exactly; raw values as a request brings them."""

    rows: tuple[dict[str, str | int | float | bool | None], ...]
    features: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...]


def make_golden(rows: pl.DataFrame, features: Floats, outputs: Floats) -> bytes:
    """The bytes of golden rows.

    Raises:
        Invalid: there are fewer than 16.
    """
    if len(rows) < MIN_ROWS:
        raise Invalid(
            f"there are {len(rows)} golden rows that a request could bring, and a package needs {MIN_ROWS}",
            hint="give more rows; rows with NaN or infinity do not count, since JSON cannot carry them: make them null",
        )
    return msgspec.json.encode(
        _Stored(
            rows=tuple(rows.iter_rows(named=True)),
            features=tuple(tuple(value.hex() for value in row) for row in features.tolist()),
            outputs=tuple(value.hex() for value in outputs.tolist()),
        )
    )


def read_golden(data: bytes, where: str) -> Golden:
    """The golden rows of bytes; `where` names the file in errors.

    Raises:
        Corrupt: they are none.
    """
    try:
        stored = msgspec.json.decode(data, type=_Stored)
        features = np.array([[float.fromhex(value) for value in row] for row in stored.features])
        outputs = np.array([float.fromhex(value) for value in stored.outputs])
    except (msgspec.DecodeError, ValueError) as error:
        raise Corrupt(f"{where} cannot be read: {error}") from None
    if (
        len(stored.rows) < MIN_ROWS
        or features.ndim != 2
        or not len(stored.rows) == len(features) == len(outputs)
    ):
        raise Corrupt(f"{where} does not hold {MIN_ROWS} rows with features and outputs")
    return Golden(rows=stored.rows, features=features, outputs=outputs)
