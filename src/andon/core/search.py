"""What can be asked of runs, models and versions: conditions and an order over their fields, as values.

A filter's text becomes these values once, at the door (`andon.tracking.grammar`); the store turns them into queries. So
neither knows of the other, and no text of a client comes near SQL.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Noun = Literal["experiment", "run", "model", "model_version", "logged_model"]
Kind = Literal["attribute", "metric", "param", "tag", "dataset"]
Op = Literal[
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "LIKE",
    "ILIKE",
    "NOT LIKE",
    "NOT ILIKE",
    "IN",
    "NOT IN",
    "IS NULL",
    "IS NOT NULL",
]
Deleted = Literal["active", "deleted", "all"]
Operand = str | float | int | tuple[str, ...] | tuple[int, ...] | None


class Field(msgspec.Struct, frozen=True):
    """A field of a noun: an attribute by its name in `docs/reference/search.md`, or a key of its metrics, params or tags."""

    kind: Kind
    key: str


class Condition(msgspec.Struct, frozen=True):
    """One condition. `value` is a number for metrics, a tuple for IN, None for IS NULL, else text.

    LIKE and ILIKE take `%` for any text and `_` for one character. Attributes that are times are in milliseconds.
    """

    field: Field
    op: Op
    value: Operand = None


class DatasetScope(msgspec.Struct, frozen=True):
    """Only metrics that were measured on this dataset count, for logged models; no digest: any content of that name."""

    name: str
    digest: str | None = None


class Order(msgspec.Struct, frozen=True):
    """One key of an order. What has no such value comes last either way, after NaN."""

    field: Field
    down: bool = False
    dataset: DatasetScope | None = None


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A search. All conditions must hold; ties go by newest start (or creation) first, then by id.

    `scope` names the experiments to look in, for runs and logged models; it is empty for other nouns. `datasets` restricts
    conditions on logged models' metrics to what was measured there, or, without one, the models to those that were measured
    there at all. `after` is the `next` of the page before, for the same query.
    """

    noun: Noun
    scope: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    order: tuple[Order, ...] = ()
    deleted: Deleted = "active"
    datasets: tuple[DatasetScope, ...] = ()
    limit: int = 1000
    after: str | None = None


class Found(msgspec.Struct, frozen=True):
    """A page: the ids in order, and where the next page begins, None after the last one."""

    ids: tuple[str, ...]
    next: str | None = None
