"""What leaves a workspace as a whole: its runs and models as an MLflow store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from andon.core.entities import ModelVersion
from andon.registry.clients import VersionFile, files_of
from andon.registry.models import aliases_of
from andon.registry.requests import Rulings, live_of, shown_aliases, shown_stage
from andon.store.ports import Blobs, Store
from andon.tracking.moving.comparing import Progress
from andon.tracking.moving.exporting import ExportReport, export_mlflow


def export_store(
    store: Store,
    blobs: Blobs,
    target: Path,
    *,
    artifact_root: str | None = None,
    progress: Progress = lambda *_: None,
) -> ExportReport:
    """Write all experiments, runs, models and artifacts as an MLflow store; see `export_mlflow`.

    Raises:
        Conflict: the folder holds other things.
        Corrupt: a stored file does not match its digest.
        StorageFull: there is no room; nothing there is a store yet.
    """
    return export_mlflow(
        store, blobs, _Shown(store, blobs), target, artifact_root=artifact_root, progress=progress
    )


class _Shown:
    """Models as clients see them: what a policy rules points at what is live."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store, self._blobs = store, blobs
        self._rules = Rulings(store, blobs).now()

    def files(self, version: ModelVersion) -> Mapping[str, VersionFile]:
        return files_of(self._blobs, version)

    def aliases(self, model: str) -> Mapping[str, int]:
        rule = self._rules.get(model)
        return self._store.read(
            lambda reader: shown_aliases(reader, aliases_of(reader, [model])[model], rule)
        )

    def stage(self, version: ModelVersion) -> str:
        rule = self._rules.get(version.model)
        return self._store.read(lambda reader: shown_stage(version, rule, live_of(reader, rule)))
