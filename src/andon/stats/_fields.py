"""Reading back what a `to_dict` wrote: each field is checked once, with a message that names it."""

from __future__ import annotations

import math
from collections.abc import Mapping


def number(data: Mapping[str, object], key: str) -> float:
    """A finite number."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"field {key} must be a finite number, got {value!r}.")
    return float(value)


def number_or_none(data: Mapping[str, object], key: str) -> float | None:
    """A finite number, or null."""
    return None if data.get(key, 0) is None else number(data, key)


def numbers(data: Mapping[str, object], key: str) -> tuple[float, ...]:
    """A list of finite numbers."""
    return tuple(number({key: value}, key) for value in _items(data, key))


def count(data: Mapping[str, object], key: str) -> int:
    """A whole number >= 0."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"field {key} must be a count >= 0, got {value!r}.")
    return value


def counts(data: Mapping[str, object], key: str) -> list[int]:
    """A list of whole numbers >= 0."""
    return [count({key: value}, key) for value in _items(data, key)]


def text(data: Mapping[str, object], key: str) -> str:
    """A string."""
    value = data.get(key)
    if not isinstance(value, str):
        raise ValueError(f"field {key} must be a string, got {value!r}.")
    return value


def texts(data: Mapping[str, object], key: str) -> tuple[str, ...]:
    """A list of strings."""
    return tuple(text({key: value}, key) for value in _items(data, key))


def objects(data: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    """A list of objects."""
    found: list[Mapping[str, object]] = []
    for value in _items(data, key):
        if not isinstance(value, Mapping):
            raise ValueError(f"field {key} must be a list of objects, got {value!r} in it.")
        found.append(value)
    return found


def _items(data: Mapping[str, object], key: str) -> list[object]:
    values = data.get(key)
    if not isinstance(values, list | tuple):
        raise ValueError(f"field {key} must be a list, got {values!r}.")
    return list(values)
