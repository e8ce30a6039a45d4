"""Everything that is known at the end of a battery: what clients were told, and what the workspace says. Gathered once."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from andon.core.entities import (
    Entity,
    Feedback,
    ModelVersion,
    Release,
    Rollout,
    RouteRow,
    Run,
    Segment,
    Trigger,
    Verdict,
)
from andon.core.events import Edge, Event
from andon.core.predictions import PredictionRecord
from andon.core.routes import Override, RouteFile, decode_routes
from andon.governance.audit import verify
from andon.pipelines.workspace import OpenWorkspace
from andon.rollout import journal, route_file
from andon.store.keys import route_key
from andon.store.ports import Collection, Reader
from andon.store.predictions_file import log_files
from tests.chaos.client import History

E = TypeVar("E", bound=Entity)
_PAGE = 1000


@dataclass(frozen=True)
class Evidence:
    """`seen` are offences noticed while the battery ran. `placed` counts where each record lies, blobs and files alike,
    without what a file holds of a segment that has its row."""

    history: History
    seen: tuple[str, ...]
    events: tuple[Event, ...]
    edges: tuple[Edge, ...]
    runs: tuple[Run, ...]
    triggers: tuple[Trigger, ...]
    versions: tuple[ModelVersion, ...]
    verdicts: tuple[Verdict, ...]
    releases: tuple[Release, ...]
    rollouts: tuple[Rollout, ...]
    routes: tuple[RouteRow, ...]
    feedback: tuple[Feedback, ...]
    segments: tuple[Segment, ...]
    records: tuple[PredictionRecord, ...]
    placed: Mapping[str, int]
    overrides: tuple[Override, ...]
    file: RouteFile
    wanted: RouteFile
    newest: Mapping[str, tuple[int, int]]
    """The (epoch, generation) of each endpoint's row at one moment, and below what each gateway served after it."""
    served: tuple[Mapping[str, tuple[int, int]], ...]


def gather(
    ws: OpenWorkspace,
    history: History,
    seen: tuple[str, ...],
    newest: Mapping[str, tuple[int, int]],
    served: tuple[Mapping[str, tuple[int, int]], ...],
) -> Evidence:
    """Read the whole workspace while nothing moves.

    Raises:
        LedgerBroken: the chain, an edge, a segment's digest or a note does not verify.
    """
    assert verify(ws.store).ok
    read = ws.store.read
    return Evidence(
        history=history, seen=seen, newest=newest, served=served,
        events=tuple(_events(ws)), edges=tuple(_edges(ws)),
        runs=everything(ws, lambda reader: reader.runs), triggers=everything(ws, lambda reader: reader.triggers),
        versions=everything(ws, lambda reader: reader.model_versions),
        verdicts=everything(ws, lambda reader: reader.verdicts),
        releases=everything(ws, lambda reader: reader.releases),
        rollouts=everything(ws, lambda reader: reader.rollouts), routes=everything(ws, lambda reader: reader.routes),
        feedback=everything(ws, lambda reader: reader.feedback),
        segments=(segments := everything(ws, lambda reader: reader.segments)),
        records=tuple(_records(ws)), placed=_placed(ws, segments), overrides=tuple(journal(ws.layout)),
        file=decode_routes(ws.layout.routes.read_bytes(), route_key(ws.layout)), wanted=read(route_file),
    )  # fmt: skip


def everything(ws: OpenWorkspace, of: Callable[[Reader], Collection[E]]) -> tuple[E, ...]:
    """All rows of a noun, in pages."""
    rows: list[E] = []
    while True:
        after = rows[-1] if rows else None
        page = ws.store.read(lambda reader, after=after: of(reader).select(after=after, limit=_PAGE))  # type: ignore[misc]
        rows += page
        if len(page) < _PAGE:
            return tuple(rows)


def _events(ws: OpenWorkspace) -> list[Event]:
    events: list[Event] = []
    while True:
        seq = events[-1].seq if events else 0
        page = ws.store.read(lambda reader, seq=seq: reader.ledger.after(seq, limit=_PAGE))  # type: ignore[misc]
        events += page
        if not page:
            return events


def _edges(ws: OpenWorkspace) -> list[Edge]:
    edges: list[Edge] = []
    while True:
        after = edges[-1] if edges else None
        page = ws.store.read(lambda reader, after=after: reader.ledger.edges(after=after, limit=_PAGE))  # type: ignore[misc]
        edges += page
        if not page:
            return edges


def _records(ws: OpenWorkspace) -> list[PredictionRecord]:
    """What a follower sees that begins at the beginning."""
    records: list[PredictionRecord] = []
    position: dict[str, int] = {}
    while True:
        page, position = ws.log.tail(position, limit=10_000)
        records += page
        if len(page) < 10_000:
            return records


def _placed(ws: OpenWorkspace, segments: tuple[Segment, ...]) -> Mapping[str, int]:
    """How often each prediction id lies somewhere, counted past the log's own reader."""
    counts: Counter[str] = Counter()
    for segment in segments:
        ids = pl.read_parquet(io.BytesIO(ws.blobs.get(segment.digest)), columns=["id"])["id"]
        counts.update(ident.hex() for ident in ids)
    sealed = {segment.id for segment in segments}
    for file in log_files(ws.layout.predictions):
        if file.id not in sealed:
            counts.update(record.id.hex() for record in file.records())
    return counts
