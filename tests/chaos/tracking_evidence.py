"""Everything that is known at the end: what writers were told, what the workspace holds, and what clients are given of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from andon.core.clock import SystemClock
from andon.core.entities import Artifact, ModelVersion, Point, Run
from andon.core.events import Event
from andon.governance.audit import verify
from andon.pipelines.workspace import OpenWorkspace
from andon.store.blobs import STALE, LocalBlobs
from andon.store.ports import Reader
from andon.tracking.sealing import read_seal, seal_ended
from tests.chaos.evidence import everything
from tests.chaos.tracking_client import RawClient
from tests.chaos.tracking_journal import Journal, Place
from tests.chaos.tracking_load import SEARCHED
from tests.chaos.tracking_server import ControlProcess

_PAGE = 1000
_SOME = 400
"""Of more seals, files and versions than this, these many are read again."""


@dataclass(frozen=True)
class Search:
    """The runs that clients were given for a filter on a metric, best first."""

    experiment: str
    over: float
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """`served` is the digest of what a download gave, by path, or its status. `unswept` are temporary files that are there
    for good."""

    journals: Sequence[Journal]
    offences: Sequence[str]
    runs: Mapping[str, Run]
    tags: Mapping[str, Mapping[str, str]]
    params: Mapping[str, Mapping[str, str]]
    histories: Mapping[tuple[str, str], tuple[Place, ...]]
    latest: Mapping[tuple[str, str], Place]
    artifacts: Mapping[str, Artifact]
    served: Mapping[str, str]
    versions: Sequence[ModelVersion]
    version_tags: Mapping[str, Mapping[str, str]]
    version_files: Mapping[str, Mapping[str, str]]
    aliases: Mapping[tuple[str, str], int]
    events: Sequence[Event]
    seals: Mapping[str, str]
    """What each sealed run's seal would be if it were made now."""
    searches: Sequence[Search]
    unswept: Sequence[str]
    left: int
    """Temporary files of killed uploads, before they were swept."""


def gather(server: ControlProcess, journals: Sequence[Journal], offences: Sequence[str]) -> Evidence:
    """Read all of it: from the running server what clients see, and from the workspace when nothing moves any more.

    Raises:
        LedgerBroken: the chain, an edge or a note does not verify.
    """
    client = RawClient(server.port, server.token)
    searches = _searches(client, journals)
    with OpenWorkspace(server.layout, server.settings) as ws:
        artifacts = {row.id: row for row in everything(ws, lambda reader: reader.artifacts)}
        versions = everything(ws, lambda reader: reader.model_versions)
        rng = Random(len(artifacts))
        served = {path: _given(client, path) for path in _some(rng, sorted(artifacts))}
        version_files = {each.id: _files(client, each) for each in _some(rng, versions) if each.held}
        client.close()
        assert server.end() == 0
        seal_ended(ws.store, ws.clock)
        assert verify(ws.store).ok
        runs = everything(ws, lambda reader: reader.runs)
        histories, latest, tags, params = _logged(ws, runs)
        left = _temporary(ws.layout.blobs)
        LocalBlobs(ws.layout.blobs, clock=_Tomorrow())
        return Evidence(
            journals=journals, offences=offences, runs={run.id: run for run in runs}, tags=tags, params=params,
            histories=histories, latest=latest, artifacts=artifacts, served=served, versions=versions,
            version_tags=_version_tags(ws, versions), version_files=version_files, searches=searches,
            aliases={(row.model, row.alias): row.number for row in everything(ws, lambda reader: reader.aliases)},
            events=tuple(_events(ws)),
            seals={run.id: read_seal(ws.store, run).digest for run in _some(rng, [run for run in runs if run.seal])},
            unswept=_temporary(ws.layout.blobs), left=len(left),
        )  # fmt: skip


class _Tomorrow(SystemClock):
    """When what killed writers left is old enough to be swept."""

    def now(self) -> Any:
        return super().now() + STALE + timedelta(hours=1)


def _temporary(blobs: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(path.name for path in (blobs / "tmp").iterdir())
    return []


def _some(rng: Random, items: Sequence[Any]) -> Sequence[Any]:
    return items if len(items) <= _SOME else rng.sample(list(items), _SOME)


def _logged(ws: OpenWorkspace, runs: Sequence[Run]) -> tuple[Any, Any, Any, Any]:
    """Histories and latest points by (run, key), tags and params by run."""
    histories: dict[tuple[str, str], tuple[Place, ...]] = {}
    latest: dict[tuple[str, str], Place] = {}
    tags: dict[str, Mapping[str, str]] = {}
    params: dict[str, Mapping[str, str]] = {}

    def look(reader: Reader, page: Sequence[Run]) -> None:
        numbers = [run.number for run in page]
        newest, of_tags, of_params = (
            reader.metrics.latest(page),
            reader.run_tags.of(numbers),
            reader.params.of(numbers),
        )
        for run in page:
            tags[run.id], params[run.id] = of_tags[run.number], of_params[run.number]
            for key, point in newest[run.number].items():
                latest[run.id, key] = place(point)
                history = reader.metrics.history(run, key, limit=10**9)
                histories[run.id, key] = tuple(place(each) for each in history)

    for start in range(0, len(runs), 50):
        page = runs[start : start + 50]
        ws.store.read(lambda reader, page=page: look(reader, page))  # type: ignore[misc]
    return histories, latest, tags, params


def place(point: Point) -> Place:
    """A point as journals have it."""
    return point.step, point.at_ms, repr(point.value)


def _version_tags(ws: OpenWorkspace, versions: Sequence[ModelVersion]) -> dict[str, Mapping[str, str]]:
    idents = [version.id for version in versions]
    return {
        str(key): value for key, value in ws.store.read(lambda reader: reader.version_tags.of(idents)).items()
    }


def _given(client: RawClient, path: str) -> str:
    told = client.download(path)
    return f"sha256:{hashlib.sha256(told.body).hexdigest()}" if told.status == 200 else str(told.status)


def _files(client: RawClient, version: ModelVersion) -> dict[str, str]:
    """The digests of a version's files, as a client loads them."""
    root = f"registry/{version.id}"
    return {name: _given(client, f"{root}/{name}") for name in ("MLmodel", "data/model.txt")}


def _searches(client: RawClient, journals: Sequence[Journal]) -> list[Search]:
    experiments = sorted({run.experiment for journal in journals for run in journal.runs})
    return [
        Search(experiment, over, tuple(_found(client, experiment, over)))
        for experiment in experiments
        for over in (0.0, 0.5, 0.9)
    ]


def _found(client: RawClient, experiment: str, over: float) -> Iterator[str]:
    token = None
    while True:
        form = {
            "experiment_ids": [experiment], "filter": f"metrics.{SEARCHED} > {over}", "max_results": 100,
            "order_by": [f"metrics.{SEARCHED} DESC"], **({"page_token": token} if token else {}),
        }  # fmt: skip
        told = client.post("runs/search", form)
        assert told.status == 200, told.body
        yield from (run["info"]["run_id"] for run in told.json.get("runs", ()))
        token = told.json.get("next_page_token")
        if not token:
            return


def _events(ws: OpenWorkspace) -> Iterator[Event]:
    seq = 0
    while page := ws.store.read(lambda reader, seq=seq: reader.ledger.after(seq, limit=_PAGE)):  # type: ignore[misc]
        yield from page
        seq = page[-1].seq
