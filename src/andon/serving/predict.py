"""From a request's bytes to a logged answer: pick the arm, decode, predict, append, encode. Nothing here waits.

The prediction's id is made first, because without an entity it is what the arm is picked by. The record is in the prediction
log before the answer exists; what the log cannot take is not answered with success.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import polars as pl

from andon.core.clock import Clock, to_us
from andon.core.errors import AndonError, Invalid, Unavailable
from andon.core.ids import PredictionId, ReleaseId, prediction_id
from andon.core.predictions import VERSION, PredictionRecord
from andon.core.routes import Arm
from andon.serving.decode import batch
from andon.serving.metrics import Metrics
from andon.serving.table import Endpoint, Runtime
from andon.store.ports import PredictionWriter

_LONGEST_ERROR = 300


class LogWriter(PredictionWriter, Protocol):
    """The log's writer, which also finishes a segment that is due while nobody asks anything."""

    def roll(self) -> None:
        """Finish the segment if it is due."""


class ModelFailed(AndonError, RuntimeError):
    """A model raised or gave no finite number for a record that fits its signature."""

    code, status = "MODEL_FAILED", 500

    def __init__(self, message: str, *, prediction: PredictionId, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.prediction = prediction


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a client gets for a record. `prediction` is a probability or a value, as the model's signature says."""

    prediction_id: PredictionId
    prediction: float
    endpoint: str
    model: str
    version: int
    release: ReleaseId
    epoch: int
    generation: int


class _Batch(msgspec.Struct, frozen=True, gc=False):
    predictions: list[Answer]


class _Item(NamedTuple):
    """A record on its way through the gateway."""

    id: PredictionId
    arm: Arm
    runtime: Runtime
    record: dict[str, Any]


class _Outcome(NamedTuple):
    features: list[float]
    output: float | None
    error: str | None


class Predictor:
    """Answers requests of all endpoints. For the event loop's thread only, like the log's writer."""

    def __init__(self, open_log: Callable[[], LogWriter], clock: Clock, metrics: Metrics) -> None:
        self._open_log = open_log
        self._writer = open_log()
        self._clock = clock
        self._metrics = metrics
        self._encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode

    @property
    def boot(self) -> int:
        """The boot that prediction ids carry now."""
        return self._writer.boot

    def roll(self) -> None:
        """Finish the log's segment if it is due; called about once a second."""
        self._writer.roll()

    def close(self) -> None:
        """Finish the log."""
        self._writer.close()

    def answer(
        self, endpoint: Endpoint, body: bytes, *, entity: str | None, data_at_us: int | None, began_s: float
    ) -> bytes:
        """The JSON answer of a request, one record or a batch; logged when it comes back.

        Args:
            endpoint: from the one table that this request uses.
            body: the request's whole body.
            entity: the sticky unit; None assigns by prediction id.
            data_at_us: domain time the client gave.
            began_s: when the request came, on the clock's monotonic time.

        Raises:
            Invalid: the body is no record of the arm's signature; nothing is logged.
            Unavailable: the endpoint has no arm with a model to answer with.
            ModelFailed: the model failed; logged with status 500.
            StorageFull: the log is full; nothing is logged.
        """
        at_us = to_us(self._clock.now())
        first = self._writer.next_number()
        ident, arm, runtime = self._assign(endpoint, at_us, first, entity)
        try:
            items = [_Item(ident, arm, runtime, runtime.decoder.decode(body))]
            many = None
        except Invalid:
            many = None if endpoint.takes("records") else batch(body)
            if many is None:
                raise
            items = self._items(endpoint, many, at_us, first, entity)
        outcomes = [_predict(items[0])] if many is None else _predict_all(items)
        micros = int((self._clock.monotonic_s() - began_s) * 1e6)
        self._append(
            [
                _record(
                    endpoint, item, outcome, at_us=at_us, data_at_us=data_at_us, entity=entity, micros=micros
                )
                for item, outcome in zip(items, outcomes, strict=True)
            ]
        )
        answers = self._answers(endpoint, items, outcomes)
        return self._encode(answers[0] if many is None else _Batch(answers))

    def _append(self, records: Sequence[PredictionRecord]) -> None:
        """Put records into the log. A writer that can take no more is replaced for the next request."""
        try:
            self._writer.append(records)
        except Unavailable:
            self._writer.close()
            self._writer = self._open_log()
            raise

    def _assign(
        self, endpoint: Endpoint, at_us: int, number: int, entity: str | None
    ) -> tuple[PredictionId, Arm, Runtime]:
        ident = prediction_id(at_us // 1000, self._writer.boot, number)
        picked = endpoint.pick(entity or ident)
        if picked is None:
            raise Unavailable(
                f"endpoint {endpoint.route.endpoint!r} has no model to answer with",
                hint="GET /routes says what is published and GET /health/ready what is wrong with it",
            )
        return ident, *picked

    def _items(
        self, endpoint: Endpoint, many: Sequence[msgspec.Raw], at_us: int, first: int, entity: str | None
    ) -> list[_Item]:
        items = []
        for index, raw in enumerate(many):
            ident, arm, runtime = self._assign(endpoint, at_us, first + index, entity)
            items.append(_Item(ident, arm, runtime, runtime.decoder.decode(raw, f"records[{index}]")))
        return items

    def _answers(
        self, endpoint: Endpoint, items: Sequence[_Item], outcomes: Sequence[_Outcome]
    ) -> list[Answer]:
        """The answers, when every record has one. A failure is counted for its own arm alone."""
        route = endpoint.route
        answers: list[Answer] = []
        failed: _Item | None = None
        for item, outcome in zip(items, outcomes, strict=True):
            arm = item.arm
            good = outcome.output is not None
            self._metrics.count(route.endpoint, arm.model, str(arm.version), arm.role, 200 if good else 500)
            if outcome.output is None:
                failed = failed or item
            else:
                answers.append(
                    Answer(
                        item.id, outcome.output, route.endpoint, arm.model, arm.version, arm.release, route.epoch,
                        route.generation,
                    )
                )  # fmt: skip
        if failed is not None:
            raise ModelFailed(
                f"model {failed.arm.model} v{failed.arm.version} failed on this request",
                hint="the prediction log holds what it failed on, under this request_id",
                prediction=failed.id,
            )
        return answers


def _predict(item: _Item) -> _Outcome:
    try:
        features, output = item.runtime.model.predict_one(item.record)
    except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001  # a model's failure is an answer: 500
        return _failed(error)
    return _checked(features, output)


def _predict_all(items: Sequence[_Item]) -> list[_Outcome]:
    """Outcomes of several records, in order; each model gets its records at once."""
    groups: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(id(item.runtime), []).append(index)
    outcomes: list[_Outcome] = [_Outcome([], None, "not predicted")] * len(items)
    for indices in groups.values():
        model = items[indices[0]].runtime.model
        try:
            results = [
                _checked(*result) for result in model.predict_many([items[index].record for index in indices])
            ]
        except (Exception, pl.exceptions.PanicException):  # noqa: BLE001  # one by one tells which record it is
            results = [_predict(items[index]) for index in indices]
        for index, outcome in zip(indices, results, strict=True):
            outcomes[index] = outcome
    return outcomes


def _checked(features: list[float], output: float) -> _Outcome:
    if not math.isfinite(output):
        return _Outcome(features, None, f"the model gave {output}")
    return _Outcome(features, output, None)


def _failed(error: BaseException) -> _Outcome:
    return _Outcome([], None, f"{type(error).__name__}: {error}"[:_LONGEST_ERROR])


def _record(
    endpoint: Endpoint,
    item: _Item,
    outcome: _Outcome,
    *,
    at_us: int,
    data_at_us: int | None,
    entity: str | None,
    micros: int,
) -> PredictionRecord:
    route, arm = endpoint.route, item.arm
    role: Literal["stable", "candidate"] = "candidate" if arm.role == "candidate" else "stable"
    return PredictionRecord(
        v=VERSION, id=bytes.fromhex(item.id.replace("-", "")), at_us=at_us, data_at_us=data_at_us, endpoint=route.endpoint,
        release=arm.release, model=arm.model, version=arm.version, epoch=route.epoch, generation=route.generation, arm=role,
        propensity=route.weight, entity=entity, status=500 if outcome.error else 200, inputs=item.record,
        features=outcome.features, output=outcome.output, error=outcome.error, micros=micros,
    )  # fmt: skip
