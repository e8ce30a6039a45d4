"""What requests and answers of several nouns are made of."""

from __future__ import annotations

from collections.abc import Mapping

from andon.core.errors import Invalid
from andon.core.search import Deleted
from andon.tracking import limits
from andon.web.mlflow.wire import Message

_VIEWS: Mapping[str, Deleted] = {
    "ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all", "1": "active", "2": "deleted", "3": "all",
}  # fmt: skip


class Pair(Message):
    """A param or tag of a request."""

    key: str | None = None
    value: str | None = None


class KeyValue(Message, gc=False):
    """A param or tag, as it is answered."""

    key: str
    value: str


def pairs(texts: Mapping[str, str]) -> list[KeyValue]:
    """Params or tags, as they are answered."""
    return [KeyValue(key=key, value=value) for key, value in texts.items()]


def view(given: str | int | None) -> Deleted:
    """Which of deleted and other rows a client wants to see.

    Raises:
        Invalid: MLflow knows no such view.
    """
    found = "active" if given is None else _VIEWS.get(str(given))
    if found is None:
        raise Invalid(
            f"Invalid value {str(given)[:40]!r} for a view",
            hint="it is one of ACTIVE_ONLY, DELETED_ONLY and ALL",
            field="view_type",
        )
    return found


def experiment_id(given: str | None) -> str:
    """The id of an experiment, as it is kept.

    Raises:
        Invalid: none is named, or it is no number.
    """
    if not given:
        raise limits.missing("experiment_id")
    return known_id(given)


def known_id(given: str) -> str:
    """A number that may be an experiment's, without zeros before it.

    Raises:
        Invalid: it is no number.
    """
    if not (given.isascii() and given.isdigit()) or len(given) > 50:
        raise Invalid(
            f"Invalid experiment ID {given[:50]!r}: it must be a valid integer", field="experiment_id"
        )
    return str(int(given))


class RunForm(Message):
    """A request about one run, by either name of its id."""

    run_id: str | None = None
    run_uuid: str | None = None


def run_id(form: RunForm) -> str:
    """The run that is meant.

    Raises:
        Invalid: none is named.
    """
    ident = form.run_id or form.run_uuid
    if not ident:
        raise limits.missing("run_id")
    return ident


class Metric(Message, gc=False):
    """A point of a metric, as it is answered."""

    key: str
    value: float | str
    timestamp: int
    step: int
