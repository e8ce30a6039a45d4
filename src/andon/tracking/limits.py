"""What clients may call things and how long that may be: MLflow's rules, since its clients rely on them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

from andon.core.clock import EPOCH, from_us
from andon.core.errors import Invalid

MOST_METRICS = 1000
MOST_PARAMS = 100
MOST_TAGS = 100
MOST_ENTITIES = 1000
KEY = 250
"""Longest key of a metric, param or tag, in characters."""
PARAM_VALUE = 6000
TAG_VALUE = 8000
EXPERIMENT_TAG_VALUE = 20_000
EXPERIMENT_NAME = 500
LARGEST = 1.7976931348623157e308
"""The place of an infinity: MLflow's clients expect the largest number back."""

_KEY = re.compile(r"[/\w.\- :]*")
_LAST_MS = int((datetime(9999, 12, 31, tzinfo=UTC) - EPOCH).total_seconds()) * 1000
_FIRST_MS = -int((EPOCH - datetime(1, 1, 2, tzinfo=UTC)).total_seconds()) * 1000


def check_key(key: str | None, path: str = "key") -> str:
    """A key of a metric, param or tag, if MLflow's clients may use it.

    Args:
        key: letters and digits of any script, `_ - . : /` and spaces; read as a file's path it names itself.
        path: where it stands in the request, for the message.

    Raises:
        Invalid: it is missing, too long or of other characters, or another key would name the same file.

    >>> check_key("val/loss")
    'val/loss'
    >>> check_key("../loss")
    Traceback (most recent call last):
    andon.core.errors.Invalid: Invalid value '../loss' for parameter 'key': read as a path it would not name itself
    """
    if not key:
        raise missing(path)
    if len(key) > KEY:
        raise Invalid(
            f"'{path}' exceeds the maximum length of {KEY} characters: {key[:50]!r}... has {len(key)}",
            field=path,
        )
    if fault := _fault(key):
        raise Invalid(f"Invalid value {key!r} for parameter '{path}': {fault}", field=path)
    return key


@lru_cache(maxsize=4096)
def _fault(key: str) -> str:
    if not _KEY.fullmatch(key):
        return "a name holds letters, digits, '_', '-', '.', ':', '/' and spaces only"
    plain = posixpath.normpath(key)
    if plain != key or plain == "." or plain.startswith(("..", "/")):
        return "read as a path it would not name itself"
    return ""


def cut(text: str, limit: int) -> str:
    """A value at most as long as may be: MLflow's server cuts what is longer, and its users count on being let through."""
    return text if len(text) <= limit else text[:limit]


def check_text(text: str, limit: int, path: str) -> str:
    """A text that is not too long.

    Raises:
        Invalid: it is.
    """
    if len(text) > limit:
        raise Invalid(
            f"'{path}' exceeds the maximum length of {limit} characters: it has {len(text)}", field=path
        )
    return text


def check_batch(metrics: int, params: int, tags: int) -> None:
    """Whether one batch may hold so many of each.

    Raises:
        Invalid: it may not; the message says how many.
    """
    most: Mapping[str, tuple[int, int]] = {
        "metrics": (metrics, MOST_METRICS),
        "params": (params, MOST_PARAMS),
        "tags": (tags, MOST_TAGS),
        "metrics, params and tags": (metrics + params + tags, MOST_ENTITIES),
    }
    for what, (count, limit) in most.items():
        if count > limit:
            raise Invalid(
                f"a batch can contain at most {limit} {what}, this one has {count}",
                hint="split it up",
                field=what if what in ("metrics", "params", "tags") else None,
            )


def time_of(at_ms: int, path: str) -> datetime:
    """The time that a client means by milliseconds since 1970.

    Raises:
        Invalid: no calendar has it; nanoseconds where milliseconds belong look like that.

    >>> time_of(1_000, "start_time").isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    if not _FIRST_MS <= at_ms <= _LAST_MS:
        raise Invalid(
            f"Invalid value {at_ms} for parameter '{path}': it is no time in milliseconds since 1970",
            field=path,
        )
    return from_us(at_ms * 1000)


def missing(path: str) -> Invalid:
    """The error that a request lacks a field."""
    return Invalid(f"Missing value for required parameter '{path}'", field=path)


def once(keys: Iterable[str]) -> None:
    """Refuse params of which a batch has one twice.

    Raises:
        Invalid: a key is there twice.
    """
    seen: set[str] = set()
    twice = sorted({key for key in keys if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
    if twice:
        raise Invalid(
            f"Duplicate parameter keys have been submitted: {', '.join(twice[:10])}", field="params"
        )
