"""Requests of one moment are answered by one pass over the models and one write to the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from andon.core.clock import SystemClock
from andon.core.errors import Invalid, NotFound
from andon.core.predictions import PredictionRecord
from andon.serving.metrics import Metrics
from andon.serving.models import loading
from andon.serving.predict import ModelFailed, Predictor, Request
from andon.serving.table import Table, endpoints
from andon.store.blobs import LocalBlobs
from andon.store.predictions_writer import SegmentWriter
from tests.serving.world import RECORD, STRICT, World

CLOCK = SystemClock()


class CountingWriter(SegmentWriter):
    """The real writer, which remembers how much came in each write."""

    writes: list[int]

    def append(self, records: Sequence[PredictionRecord]) -> None:
        self.writes.append(len(records))
        super().append(records)


def together(world: World, requests: Sequence[tuple[str, Any]]) -> tuple[list[Any], list[int]]:
    """Ask everything at once: what came back for each, and how many records each write had."""
    load = loading(LocalBlobs(world.layout.blobs), world.layout.models)
    versions = (1, 2, STRICT)
    base = [
        world.route(100, stable=1, candidate=2, weight=0.5),
        world.route(100, stable=STRICT, endpoint="strict"),
    ]
    runtimes = {world.digests[version - 1]: load(world.digests[version - 1]) for version in versions}
    table = Table(known=True, endpoints=endpoints(base, [], runtimes, {}))
    writer = CountingWriter(world.layout.predictions, CLOCK)
    writer.writes = []

    async def ask() -> list[Any]:
        predictor = Predictor(lambda: table, lambda: writer, CLOCK, Metrics(1))
        futures = [
            predictor.ask(Request(endpoint, json.dumps(body).encode(), None, None, CLOCK.monotonic_s()))
            for endpoint, body in requests
        ]
        return await asyncio.gather(*futures, return_exceptions=True)

    answers = asyncio.run(ask())
    writer.close()
    return answers, writer.writes


def test_what_comes_together_is_written_together(world: World) -> None:
    answers, writes = together(world, [("delay", RECORD)] * 100)

    assert writes == [64, 36]
    assert {json.loads(answer)["version"] for answer in answers} == {1, 2}
    assert [json.loads(answer)["prediction_id"] for answer in answers] == list(world.records())


def test_each_gets_its_own_answer_or_its_own_fault(world: World) -> None:
    requests = [
        ("delay", RECORD), ("nope", RECORD), ("delay", {}), ("strict", RECORD), ("strict", RECORD | {"carrier": "ZZ"}),
        ("strict", RECORD), ("delay", {"records": [RECORD] * 5}), ("strict", {"records": [RECORD, RECORD | {"wet": 1}]}),
    ]  # fmt: skip

    answers, writes = together(world, requests)

    assert [type(answer) for answer in answers] == [
        bytes,
        NotFound,
        Invalid,
        bytes,
        ModelFailed,
        bytes,
        bytes,
        Invalid,
    ]
    assert writes == [9]
    assert [record.status for record in world.records().values()] == [200, 200, 500, 200, *[200] * 5]
    assert answers[4].prediction == next(name for name, one in world.records().items() if one.status == 500)
    assert len(json.loads(answers[6])["predictions"]) == 5
    assert answers[7].field == "records[1].wet"
