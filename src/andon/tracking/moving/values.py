"""What is in a foreign MLflow store, whatever form it has: the nouns as plain values, and the port that reads them.

Times are milliseconds since 1970, as MLflow has them; words are MLflow's. Nothing of these values is trusted: where
artifacts lie is an address to be judged (`andon.tracking.moving.roots`), ids and names are texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol

import msgspec

from andon.core.entities import Point


class ForeignExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment. `location` is the root of its runs' artifacts."""

    id: int
    name: str
    location: str
    deleted: bool
    created_ms: int | None
    changed_ms: int | None
    tags: Mapping[str, str] = {}


class ForeignInput(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that a run used."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: Mapping[str, str] = {}


class ForeignModelUse(msgspec.Struct, frozen=True):
    """A logged model that a run used or made."""

    direction: Literal["input", "output"]
    model: str
    step: int = 0


class ForeignRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run with all of it but its metrics."""

    id: str
    experiment: int
    status: str
    name: str
    user: str
    start_ms: int | None
    end_ms: int | None
    deleted: bool
    deleted_ms: int | None
    artifacts: str
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    inputs: tuple[ForeignInput, ...] = ()
    models: tuple[ForeignModelUse, ...] = ()


class ForeignModelPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured of a logged model, on a dataset if one is named."""

    run: str
    point: Point
    dataset_name: str | None = None
    dataset_digest: str | None = None


class ForeignLoggedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a client saved in an experiment. `status` is MLflow's number: 1 pending, 2 ready, 3 failed."""

    id: str
    experiment: int
    name: str
    status: int
    artifacts: str
    created_ms: int
    changed_ms: int
    deleted: bool
    model_type: str | None = None
    run: str | None = None
    message: str | None = None
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    points: tuple[ForeignModelPoint, ...] = ()


class ForeignVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a registered model. `location` is where its files are, `source` what the client said."""

    number: int
    stage: str
    source: str
    location: str
    created_ms: int | None
    changed_ms: int | None
    deleted: bool = False
    description: str | None = None
    user: str | None = None
    run: str | None = None
    run_link: str | None = None
    tags: Mapping[str, str] = {}


class ForeignModel(msgspec.Struct, frozen=True, kw_only=True):
    """A registered model or a prompt, with its versions by number and its aliases."""

    name: str
    created_ms: int | None
    changed_ms: int | None
    description: str | None
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    versions: tuple[ForeignVersion, ...]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many there are of each. Latest metrics are the (run, key) pairs, points all of their histories."""

    experiments: int = 0
    experiment_tags: int = 0
    runs: int = 0
    params: int = 0
    tags: int = 0
    points: int = 0
    latest_metrics: int = 0
    inputs: int = 0
    model_uses: int = 0
    logged_models: int = 0
    models: int = 0
    versions: int = 0
    aliases: int = 0


class ForeignStore(Protocol):
    """A store that is read, in one consistent view, as a stream. For one thread; to be closed."""

    @property
    def name(self) -> str:
        """What identifies the store: the same at the next opening, without secrets."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Local folders in which the store's own artifacts may lie: what its owner named by naming the store."""

    def experiments(self) -> Iterator[ForeignExperiment]:
        """All experiments."""

    def run_ids(self) -> Iterator[str]:
        """The ids of all runs."""

    def logged_models(self) -> Iterator[ForeignLoggedModel]:
        """All logged models."""

    def runs(self, wanted: Callable[[str], bool]) -> Iterator[ForeignRun | list[Point]]:
        """Runs whose id is wanted, in one order; each is followed by its points, if it has some, in pieces."""

    def models(self) -> Iterator[ForeignModel]:
        """All registered models."""

    def counts(self) -> Counts:
        """How much there is. A point that is there twice is one."""

    def others(self) -> Mapping[str, int]:
        """How many there are of what has no place in Andon, such as traces, by noun; only what there is."""

    def close(self) -> None:
        """Let go."""
