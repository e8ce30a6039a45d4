"""Searches as clients ask them: MLflow's names of fields and statuses brought to the columns that the store searches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from andon.core.errors import Invalid
from andon.core.search import Condition, DatasetScope, Deleted, Field, Noun, Order, Query
from andon.core.states import LoggedModelState, RunState
from andon.tracking.grammar import parse_filter, parse_order

MOST_SCOPES = 10_000
"""In so many experiments one search can look."""
RUN_STATUS: Mapping[RunState, str] = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
    "blocked": "FAILED",
}
"""A run's state as MLflow says it. Nothing there is like `blocked`, which a contract or gate stopped."""
LOGGED_MODEL_STATUS: Mapping[LoggedModelState, str] = {
    "pending": "PENDING",
    "ready": "READY",
    "failed": "FAILED",
}
_COLUMNS: Mapping[Noun, Mapping[str, str]] = {
    "run": {
        "run_id": "id", "run_name": "name", "status": "state", "user_id": "claimed_user", "start_time": "started_at",
        "end_time": "finished_at",
    },
    "experiment": {
        "name": "name", "experiment_id": "id", "creation_time": "created_at", "last_update_time": "changed_at",
    },
    "model": {"name": "id", "creation_timestamp": "created_at", "last_updated_timestamp": "changed_at"},
    "model_version": {
        "name": "model", "version_number": "number", "run_id": "run", "source_path": "source",
        "creation_timestamp": "created_at", "last_updated_timestamp": "changed_at",
    },
    "logged_model": {
        "name": "name", "model_id": "id", "model_type": "model_type", "status": "state", "source_run_id": "run",
        "creation_timestamp": "created_at", "last_updated_timestamp": "changed_at",
    },
}  # fmt: skip
_STATUS: Mapping[Noun, Mapping[str, str]] = {
    "run": {str(state): said for state, said in RUN_STATUS.items()},
    "logged_model": {str(state): said for state, said in LOGGED_MODEL_STATUS.items()},
}
_LAST: Mapping[Noun, tuple[Order, ...]] = {
    "experiment": (Order(Field("attribute", "number"), down=True),),
    "model": (Order(Field("attribute", "id")),),
}
"""How ties go, where MLflow has a way of its own; else the newest comes first, then the id."""


def query(
    noun: Noun,
    filter_text: str | None = None,
    order_by: Iterable[str] | Iterable[Order] = (),
    *,
    scope: Sequence[str] = (),
    deleted: Deleted = "active",
    limit: int = 1000,
    page_token: str | None = None,
    datasets: Sequence[DatasetScope] = (),
) -> Query:
    """The query of a client's search.

    Args:
        filter_text: MLflow's filter; nothing asks for all.
        order_by: MLflow's order_by texts, or orders that were read already.
        scope: experiments to look in, for runs and logged models.
        limit: rows of a page.
        page_token: what the page before gave.
        datasets: metrics of logged models that were measured on these only.

    Raises:
        Invalid: filter, order or scope cannot be read; the message says where.

    >>> query("run", "status = 'FAILED'", scope=["0"]).where[0].value
    ('failed', 'blocked')
    """
    places = tuple(dict.fromkeys(scope))
    if len(places) > MOST_SCOPES:
        raise Invalid(
            f"{len(places)} experiments are too many for one search",
            hint=f"search {MOST_SCOPES} at a time",
            field="experiment_ids",
        )
    orders = list(order_by)
    read = [each for each in orders if isinstance(each, Order)]
    asked = read or parse_order(noun, [each for each in orders if isinstance(each, str)])
    return Query(
        noun=noun, scope=places, where=tuple(_where(noun, filter_text or "")), deleted=deleted, limit=limit,
        after=page_token or None, datasets=tuple(datasets), order=_order(noun, asked),
    )  # fmt: skip


def _where(noun: Noun, text: str) -> list[Condition]:
    return [found for each in parse_filter(noun, text) for found in _condition(noun, each)]


def _condition(noun: Noun, condition: Condition) -> list[Condition]:
    """A condition on columns; none when every row meets it."""
    key = condition.field.key
    if condition.field.kind != "attribute":
        return [condition]
    if noun == "run" and key == "artifact_uri":
        return _of_artifacts(condition)
    field = Field("attribute", _COLUMNS[noun][key])
    if key != "status":
        return [Condition(field, condition.op, condition.value)]
    says = _STATUS[noun]
    fit = tuple(state for state, said in says.items() if _meets(said, condition))
    return [] if len(fit) == len(says) else [Condition(field, "IN", fit)]


def _meets(said: str, condition: Condition) -> bool:
    """Whether a status, which a client knows by MLflow's name, meets a condition."""
    value = condition.value
    match condition.op:
        case "=":
            return said == value
        case "!=":
            return said != value
        case "IN":
            return isinstance(value, tuple) and said in value
        case "NOT IN":
            return isinstance(value, tuple) and said not in value
        case "LIKE" | "ILIKE":
            pattern = "".join({"%": ".*", "_": "."}.get(each, re.escape(each)) for each in str(value)[:100])
            flags = re.DOTALL | (re.IGNORECASE if condition.op == "ILIKE" else 0)
            return len(str(value)) <= 100 and re.fullmatch(pattern, said, flags) is not None
        case _:
            raise Invalid(f"a status is not compared by {condition.op}", field="filter")


_PLACE = re.compile(
    r"(?P<any>%?)(?P<root>(?:mlflow-artifacts:/|/)?)(?:(?P<experiment>\d{1,20})/(?!artifacts))?(?P<run>[\w%]*)(?P<artifacts>(?:/artifacts)?)"
    r"(?P<more>%?)\Z"
)
"""An artifact_uri of ours, or a pattern of one: `mlflow-artifacts:/EXPERIMENT/RUN/artifacts`."""


def _of_artifacts(condition: Condition) -> list[Condition]:
    """What is asked of artifact_uri, as conditions on the experiment and the run that the place is named after."""
    text = str(condition.value)[:500]
    found = _PLACE.match(text)
    run = Field("attribute", "id")
    if condition.op in ("=", "!="):
        whole = found is not None and found["experiment"] and found["artifacts"] and "%" not in text
        return [Condition(run, condition.op, found["run"] if found is not None and whole else "")]
    if found is None:
        raise Invalid(
            f"artifact_uri is not compared with {text[:100]!r}",
            hint="it is mlflow-artifacts:/EXPERIMENT/RUN/artifacts, and a pattern may leave out an end of it",
            field="filter",
        )
    experiment, loose = found["experiment"], found["any"] if not found["root"] else ""
    rules = (
        [Condition(Field("attribute", "experiment"), condition.op, loose + experiment)] if experiment else []
    )
    head = found["any"] if not experiment and not found["root"] else ""
    tail = "" if found["artifacts"] else found["more"]
    return [*rules, Condition(run, condition.op, head + found["run"] + tail)]


def _order(noun: Noun, orders: Sequence[Order]) -> tuple[Order, ...]:
    if noun == "experiment" and not orders:
        return (Order(Field("attribute", "created_at"), down=True), Order(Field("attribute", "number")))
    found = [_column(noun, each) for each in orders]
    asked = {each.field for each in found}
    return (*found, *(each for each in _LAST.get(noun, ()) if each.field not in asked))


def _column(noun: Noun, order: Order) -> Order:
    if order.field.kind != "attribute":
        return order
    key = order.field.key
    if noun == "run" and key == "artifact_uri":
        column = "id"
    elif noun == "experiment" and key == "experiment_id":
        column = "number"
    else:
        column = _COLUMNS[noun][key]
    return msgspec.structs.replace(order, field=Field("attribute", column))


def check_page(max_results: int | None, *, default: int, most: int, path: str = "max_results") -> int:
    """How many rows a page has.

    Raises:
        Invalid: fewer than one, or more than may be.
    """
    if max_results is None:
        return default
    if not 1 <= max_results <= most:
        raise Invalid(
            f"Invalid value {max_results} for parameter '{path}' supplied. It must be a positive integer of at most {most}",
            field=path,
        )
    return max_results
