"""What became of a run: read from a workspace, to be compared as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from andon.core.entities import Run
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.ports import Reader, Store


@dataclass(frozen=True)
class Trained:
    """A run as a workspace has it."""

    run: Run
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, list[tuple[int, float]]]
    files: dict[str, str]


def trained(store: Store, run: str) -> Trained:
    """A run with everything of it. `metrics` has (step, value) of all its points, system metrics aside."""

    def look(reader: Reader) -> Trained:
        row = reader.runs.get(run)
        keys = [key for key in reader.metrics.latest([row])[row.number] if not key.startswith("system/")]
        return Trained(
            run=row,
            params=reader.params.of([row.number])[row.number],
            tags=reader.run_tags.of([row.number])[row.number],
            metrics={
                key: [(point.step, point.value) for point in reader.metrics.history(row, key, limit=100_000)]
                for key in keys
            },
            files={
                file.id.partition("/artifacts/")[2]: file.digest
                for file in reader.files.under(f"{row.experiment}/{run}/artifacts")
            },
        )

    return store.read(look)


def trained_in(root: Path, run: str) -> Trained:
    """The same, of a workspace that is opened for it."""
    store = open_store(Layout(root), Settings())
    try:
        return trained(store, run)
    finally:
        store.close()
