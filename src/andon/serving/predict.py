"""From a request's bytes to a logged answer: pick the arm, decode, predict, append, encode.

Requests that are there at the same moment are answered together: one pass over the models and one write to the log. Nobody
waits for company; while one flush computes, the next gathers by itself, so the saving grows with the load (four concurrent
requests cost about half of what they cost alone).

The prediction's id is made first, because without an entity it is what the arm is picked by. The record is in the prediction
log before the answer exists; what the log cannot take is not answered with success.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from andon.core.clock import Clock, to_us
from andon.core.errors import AndonError, Invalid, NotFound, Unavailable
from andon.core.ids import PredictionId, ReleaseId, prediction_id
from andon.core.predictions import VERSION, PredictionRecord
from andon.core.routes import EndpointRoute
from andon.serving.decode import batch
from andon.serving.inference import Item, Outcome, infer
from andon.serving.metrics import Metrics
from andon.serving.table import Endpoint, Table
from andon.store.ports import PredictionWriter

_MOST_AT_ONCE = 64


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


class Request(NamedTuple):
    """What a client asks.

    Attributes:
        endpoint: the endpoint's name.
        body: the request's whole body: one record or a batch.
        entity: the sticky unit; None assigns by prediction id.
        data_at_us: domain time the client gave.
        began_s: when the request came, on the clock's monotonic time.
    """

    endpoint: str
    body: bytes
    entity: str | None
    data_at_us: int | None
    began_s: float


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


class _Job(NamedTuple):
    """A request that can be answered, by the route it uses."""

    request: Request
    future: asyncio.Future[bytes]
    route: EndpointRoute
    items: list[Item]
    many: bool


class Predictor:
    """Answers requests of all endpoints. For the event loop's thread only, like the log's writer.

    `table` gives the table in force; it is read once for each flush.
    """

    def __init__(
        self, table: Callable[[], Table], open_log: Callable[[], LogWriter], clock: Clock, metrics: Metrics
    ) -> None:
        self._table = table
        self._open_log = open_log
        self._writer = open_log()
        self._clock = clock
        self._metrics = metrics
        self._queue: deque[tuple[Request, asyncio.Future[bytes]]] = deque()
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

    def ask(self, request: Request) -> asyncio.Future[bytes]:
        """The JSON answer of a request, which is in the log when it comes.

        Raises:
            NotFound: no such endpoint.
            Invalid: the body is no record of the arm's signature; nothing is logged.
            Unavailable: the endpoint has no arm with a model to answer with.
            ModelFailed: the model failed; logged with status 500.
            StorageFull: the log is full; nothing is logged.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        if not self._queue:
            loop.call_soon(self._flush)
        self._queue.append((request, future))
        return future

    def _flush(self) -> None:
        """Answer what waits, all from one table."""
        taken = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST_AT_ONCE))]
        if self._queue:
            asyncio.get_running_loop().call_soon(self._flush)
        try:
            self._answer(taken, self._table())
        except Exception as error:  # noqa: BLE001  # whoever waits gets the fault; the gateway goes on
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)

    def _answer(self, taken: Sequence[tuple[Request, asyncio.Future[bytes]]], table: Table) -> None:
        at_us = to_us(self._clock.now())
        number = self._writer.next_number()
        jobs: list[_Job] = []
        for request, future in taken:
            try:
                job = self._prepare(table, request, future, at_us, number)
            except AndonError as error:
                if not future.done():
                    future.set_exception(error)
                continue
            number += len(job.items)
            jobs.append(job)
        outcomes = infer([item for job in jobs for item in job.items])
        self._append(_records(jobs, outcomes, at_us, self._clock.monotonic_s()))
        place = 0
        for job in jobs:
            own = outcomes[place : place + len(job.items)]
            place += len(own)
            self._reply(job, own)

    def _prepare(
        self, table: Table, request: Request, future: asyncio.Future[bytes], at_us: int, number: int
    ) -> _Job:
        endpoint = table.endpoints.get(request.endpoint)
        if endpoint is None:
            raise _absent(table, request.endpoint)
        item = self._assign(endpoint, request.entity, at_us, number)
        try:
            items = [item._replace(record=item.runtime.decoder.decode(request.body))]
            return _Job(request, future, endpoint.route, items, many=False)
        except Invalid:
            many = None if endpoint.takes("records") else batch(request.body)
            if many is None:
                raise
        items = []
        for index, raw in enumerate(many):
            item = self._assign(endpoint, request.entity, at_us, number + index)
            items.append(item._replace(record=item.runtime.decoder.decode(raw, f"records[{index}]")))
        return _Job(request, future, endpoint.route, items, many=True)

    def _assign(self, endpoint: Endpoint, entity: str | None, at_us: int, number: int) -> Item:
        """An item that has its id and arm, and no record yet."""
        ident = prediction_id(at_us // 1000, self._writer.boot, number)
        picked = endpoint.pick(entity or ident)
        if picked is None:
            raise Unavailable(
                f"endpoint {endpoint.route.endpoint!r} has no model to answer with",
                hint="GET /routes says what is published and GET /health/ready what is wrong with it",
            )
        return Item(ident, *picked, {})

    def _append(self, records: Sequence[PredictionRecord]) -> None:
        """Put records into the log. A writer that can take no more is replaced for the next request."""
        if not records:
            return
        try:
            self._writer.append(records)
        except Unavailable:
            self._writer.close()
            self._writer = self._open_log()
            raise

    def _reply(self, job: _Job, outcomes: Sequence[Outcome]) -> None:
        """The answer, when every record has one. A failure is counted for its own arm alone."""
        route = job.route
        answers: list[Answer] = []
        failed: Item | None = None
        for item, outcome in zip(job.items, outcomes, strict=True):
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
        if job.future.done():
            return
        if failed is None:
            job.future.set_result(self._encode(_Batch(answers) if job.many else answers[0]))
        else:
            job.future.set_exception(
                ModelFailed(
                    f"model {failed.arm.model} v{failed.arm.version} failed on this request",
                    hint="the prediction log holds what it failed on, under this request_id",
                    prediction=failed.id,
                )
            )


def _records(
    jobs: Sequence[_Job], outcomes: Sequence[Outcome], at_us: int, now_s: float
) -> list[PredictionRecord]:
    """The log's records of jobs, whose outcomes stand in the same order."""
    following = iter(outcomes)
    return [
        _record(
            job.request, job.route, item, next(following), at_us, int((now_s - job.request.began_s) * 1e6)
        )
        for job in jobs
        for item in job.items
    ]


def _record(
    request: Request, route: EndpointRoute, item: Item, outcome: Outcome, at_us: int, micros: int
) -> PredictionRecord:
    arm = item.arm
    role: Literal["stable", "candidate"] = "candidate" if arm.role == "candidate" else "stable"
    return PredictionRecord(
        v=VERSION, id=bytes.fromhex(item.id.replace("-", "")), at_us=at_us, data_at_us=request.data_at_us,
        endpoint=route.endpoint, release=arm.release, model=arm.model, version=arm.version, epoch=route.epoch,
        generation=route.generation, arm=role, propensity=route.weight, entity=request.entity,
        status=500 if outcome.error else 200, inputs=item.record, features=outcome.features, output=outcome.output,
        error=outcome.error, micros=micros,
    )  # fmt: skip


def _absent(table: Table, name: str) -> AndonError:
    """Why a name is not served: nobody published it, or its models cannot be loaded."""
    if name in table.waiting:
        return Unavailable(f"no model could be loaded for {name!r} yet", hint="GET /health/ready says why")
    if not table.known:
        return Unavailable("the gateway has not yet read a route file", hint="is the control plane up?")
    known = ", ".join(sorted(table.endpoints)) or "none"
    return NotFound(f"no endpoint {name[:80]!r} here", hint=f"endpoints: {known}")
