"""Named faults, for rehearsing what a bad model meets: the gate, or the canary's guard. Neither is told.

A run that has one says so in the ledger. The live fault works only in gateways that were started with `ANDON_FAULTS=1`.
"""

from __future__ import annotations

import msgspec
import polars as pl

from andon.core.ids import RunId
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.packaging import install, load
from andon.store.files import write_atomic


def shuffle_labels(rows: pl.DataFrame, label: str, *, seed: int) -> pl.DataFrame:
    """`shuffled-labels`: what a join on the wrong key does to a training set."""
    return rows.with_columns(pl.col(label).shuffle(seed=seed))


def break_feature(ws: OpenWorkspace, run: RunId) -> None:
    """`broken-feature`: the live source of the first feature of a run's model does not answer."""
    versions = ws.store.read(lambda reader: reader.model_versions.select({"run": run}, limit=1))
    for version in versions:
        with load(install(ws.blobs, version.digest, ws.layout.models)) as model:
            feature = model.signature.features[0]
        stuck = {"model_version": version.id, "feature": feature, "value": None}
        write_atomic(ws.layout.run / "faults.json", msgspec.json.encode({"stuck_feature": stuck}))
