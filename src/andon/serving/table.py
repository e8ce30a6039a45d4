"""What a gateway answers with: one immutable table, made anew for each change and switched in whole.

A request reads the table once and uses nothing else, so it sees exactly one generation of a route and the models that
belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from andon.core.canonical import Digest
from andon.core.ids import ModelVersionId, ReleaseId
from andon.core.routes import Arm, EndpointRoute, Override, effective, pick
from andon.core.signature import Signature
from andon.serving.decode import RecordDecoder


class Model(Protocol):
    """A model that answers records of its signature. For one thread at a time."""

    @property
    def signature(self) -> Signature: ...

    def predict_one(self, record: dict[str, Any]) -> tuple[list[float], float]:
        """The features of a record and the prediction."""

    def predict_many(self, records: Sequence[dict[str, Any]]) -> list[tuple[list[float], float]]:
        """The same for several records, in order."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A loaded model and the door to it."""

    model: Model
    decoder: RecordDecoder


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint's effective route and the runtimes of its arms."""

    route: EndpointRoute
    runtimes: Mapping[ReleaseId, Runtime]

    def pick(self, unit: str) -> tuple[Arm, Runtime] | None:
        """The arm that answers a unit and its runtime; None when there is none to answer."""
        arm = pick(self.route, unit)
        if arm is None:
            return None
        runtime = self.runtimes.get(arm.release)
        return None if runtime is None else (arm, runtime)

    def takes(self, name: str) -> bool:
        """Whether a model of this endpoint has an input of that name."""
        return any(name in runtime.decoder.names for runtime in self.runtimes.values())


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a gateway could not follow, and what it does instead. `endpoint` is None when it concerns all."""

    what: str
    message: str
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """All endpoints of a gateway at one moment. `waiting` names endpoints that were published and have no model yet."""

    epoch: int = 0
    seq: int = 0
    known: bool = False
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether routes are known and every endpoint of them has its models."""
        return self.known and not self.waiting


def endpoints(
    base: Iterable[EndpointRoute],
    overrides: Sequence[Override],
    loaded: Mapping[Digest, Runtime],
    replaced: Mapping[ModelVersionId, Runtime],
) -> dict[str, Endpoint]:
    """The endpoints of published routes, with the overrides in force taken into account. Pure.

    `replaced` runs in place of a version's own runtime: a rehearsed fault.
    """
    found: dict[str, Endpoint] = {}
    for published in base:
        route = effective(published, overrides)
        runtimes = {
            arm.release: replaced.get(arm.model_version, loaded[arm.digest])
            for arm in route.arms
            if arm.digest in loaded
        }
        found[route.endpoint] = Endpoint(route, runtimes)
    return found
