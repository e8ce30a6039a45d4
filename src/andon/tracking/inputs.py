"""What a run used and made: datasets as clients describe them, and logged models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from andon.core.canonical import digest_value
from andon.core.entities import Run, RunInput, RunModel
from andon.core.errors import Invalid, NotFound
from andon.core.ids import LoggedModelId
from andon.store.ports import Reader, Transaction
from andon.tracking import limits

CONTEXT_TAG = "mlflow.data.context"
"""The tag of an input that says what its dataset was used for."""
MOST_DATASETS = 1000
MOST_EXPERIMENTS = 20
"""In so many experiments one look for datasets goes."""
MOST_SUMMARIES = 1000
_NAME, _DIGEST, _SOURCE, _SCHEMA, _PROFILE = 500, 36, 65_535, 1_048_575, 16_777_215
_TAG_KEY, _TAG_VALUE = 255, 500


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that a run used, in the client's own words; `tags` are of its use."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: Mapping[str, str] = {}


def check_dataset(dataset: Dataset, path: str) -> Dataset:
    """A dataset whose texts are as long as MLflow lets them be.

    Raises:
        Invalid: one is longer.
    """
    limits.check_text(dataset.name, _NAME, f"{path}.name")
    limits.check_text(dataset.digest, _DIGEST, f"{path}.digest")
    limits.check_text(dataset.source, _SOURCE, f"{path}.source")
    limits.check_text(dataset.schema or "", _SCHEMA, f"{path}.schema")
    limits.check_text(dataset.profile or "", _PROFILE, f"{path}.profile")
    for key, value in dataset.tags.items():
        limits.check_text(key, _TAG_KEY, f"{path}.tags.key")
        limits.check_text(value, _TAG_VALUE, f"{path}.tags.value")
    return dataset


def log_datasets(tx: Transaction, run: Run, datasets: Sequence[Dataset], *, at: datetime) -> None:
    """Note datasets that a run used. The same (name, digest) again changes nothing.

    Raises:
        Invalid: they are too many for one request.
    """
    if len(datasets) > MOST_DATASETS:
        raise Invalid(
            f"{len(datasets)} datasets are too many for one request, which takes {MOST_DATASETS}",
            field="datasets",
        )
    named = {_ident(run, dataset): dataset for dataset in reversed(datasets)}
    known = {row.id for row in tx.run_inputs.select({"id": list(named)}, limit=len(named) or 1)}
    for ident, dataset in reversed(named.items()):
        if ident not in known:
            tx.run_inputs.add(
                RunInput(
                    id=ident, run=run.id, experiment=run.experiment, name=dataset.name, digest=dataset.digest,
                    source_type=dataset.source_type, source=dataset.source, created_at=at, schema=dataset.schema,
                    context=dataset.tags.get(CONTEXT_TAG), profile=dataset.profile, tags=dict(dataset.tags),
                )
            )  # fmt: skip


def _ident(run: Run, dataset: Dataset) -> str:
    return digest_value("andon.run_input/1", [run.id, dataset.name, dataset.digest])


def log_models(
    tx: Transaction,
    run: Run,
    steps: Mapping[LoggedModelId, int],
    direction: Literal["input", "output"],
    *,
    at: datetime,
) -> None:
    """Note logged models that a run used or made, each at a step. The same again changes nothing.

    Raises:
        NotFound: one of them does not exist.
    """
    idents = {f"{run.id}/{direction}/{model}": model for model in steps}
    known = {row.id for row in tx.run_models.select({"id": list(idents)}, limit=len(idents) or 1)}
    fresh = {ident: model for ident, model in idents.items() if ident not in known}
    there = {row.id for row in tx.logged_models.select({"id": list(fresh.values())}, limit=len(fresh) or 1)}
    if lost := [model for model in fresh.values() if model not in there]:
        raise NotFound(f"Logged model with ID {lost[0][:100]!r} not found")
    for ident, model in fresh.items():
        tx.run_models.add(
            RunModel(
                id=ident,
                run=run.id,
                model=model,
                direction=direction,
                created_at=at,
                step=steps[model],
            )
        )


def datasets_of(reader: Reader, experiments: Sequence[str]) -> list[RunInput]:
    """Datasets that runs of some experiments used: of each (experiment, name, digest, context) one use.

    At most 1,000, and among the first 50,000 uses by name.
    """
    found: dict[tuple[str, str, str, str | None], RunInput] = {}
    last: RunInput | None = None
    where = {"experiment": list(experiments)}
    for _ in range(50):
        page = reader.run_inputs.select(where, order=("experiment", "name"), after=last, limit=1000)
        for each in page:
            found.setdefault((each.experiment, each.name, each.digest, each.context), each)
        if len(page) < 1000 or len(found) >= MOST_SUMMARIES:
            break
        last = page[-1]
    return list(found.values())[:MOST_SUMMARIES]
