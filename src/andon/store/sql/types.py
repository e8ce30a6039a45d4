"""Column types: how a field of an entity is written in both databases, and read back as it was."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Dialect, Double, Integer
from sqlalchemy import Text as _Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from andon.core.clock import from_us, to_us

TEXT: TypeEngine[str] = _Text().with_variant(_Text(collation="C"), "postgresql")
"""Text in the order of its bytes (UTF-8), on a server of any locale."""

WHOLE: TypeEngine[int] = BigInteger()
FLAG: TypeEngine[bool] = Boolean()
REAL: TypeEngine[float] = Double()

ROWID: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
"""A whole number that is SQLite's own row number when it is the primary key."""


class Moment(TypeDecorator[datetime]):
    """An aware time as microseconds since 1970: the same order, nothing lost, no time zone of a server in between."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_us(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_us(value)


class Json(TypeDecorator[Any]):
    """A tuple or an object as JSON text; it comes back as `kind`."""

    impl = _Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(TEXT)

    def process_bind_param(self, value: object, dialect: Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self._decoder.decode(value)


MOMENT = Moment()


def unstorable(value: object) -> str | None:
    """Why a value cannot be kept by every database, None when it can.

    >>> unstorable("caf\u00e9"), unstorable(float("nan"))
    (None, 'is NaN; None says that there is no value')
    """
    match value:
        case str():
            return (
                None if "\0" not in value and _encodes(value) else "holds a character that cannot be stored"
            )
        case float():
            return "is NaN; None says that there is no value" if math.isnan(value) else None
        case int():
            return None if -(2**63) <= value < 2**63 else "is beyond 64 bits"
        case datetime():
            return None if value.tzinfo is not None else "is a time without a zone"
        case _:
            return None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
