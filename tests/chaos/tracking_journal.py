"""What writers know of what they wrote: what was acknowledged, and what nobody answered. Kept where no kill reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

V = TypeVar("V")

Place = tuple[int, int, str]
"""A point of a metric as it compares with another: its step, its time in ms, and its value as Python spells it."""


@dataclass
class Held(Generic[V]):
    """A value that is set again and again: the one that was acknowledged last, and those sent since that nobody answered."""

    known: V
    maybe: list[V] = field(default_factory=list)

    def sent(self, value: V) -> None:
        """It is on its way."""
        self.maybe.append(value)

    def acknowledged(self, value: V) -> None:
        """It was answered, so all before it is over."""
        self.known, self.maybe = value, []

    def allows(self, value: object) -> bool:
        """Whether it may be what is stored."""
        return value == self.known or value in self.maybe


@dataclass
class Batch:
    """What one request wrote to a run, all or nothing. Its params and tags are set by no other."""

    points: Mapping[str, tuple[Place, ...]]
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    acknowledged: bool = False


@dataclass
class RunJournal:
    """A run and what was done to it.

    Attributes:
        nonce: a tag that no other run has; a request that is repeated makes another run of the same.
        ident: None when nobody answered.
        sent: how many times the request for it was sent.
        status: its state in MLflow's words, and its end in ms.
        files: by path below its artifacts, the digest of each file, None for none.
    """

    nonce: str
    experiment: str
    name: str
    start_ms: int
    ident: str | None = None
    sent: int = 0
    batches: list[Batch] = field(default_factory=list)
    tags: dict[str, Held[str | None]] = field(default_factory=dict)
    status: Held[tuple[str, int | None]] = field(default_factory=lambda: Held(("RUNNING", None)))
    deleted: Held[bool] = field(default_factory=lambda: Held(known=False))
    files: dict[str, Held[str | None]] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return f"{self.experiment}/{self.ident}/artifacts"


@dataclass
class VersionJournal:
    """A version of a model; `number` is None when nobody answered. `files` are the digests by path."""

    model: str
    nonce: str
    source: str
    run: str
    files: Mapping[str, str]
    number: int | None = None
    sent: int = 0
    stage: Held[str] = field(default_factory=lambda: Held("None"))


@dataclass
class Journal:
    """All that one writer did; only its own thread changes it."""

    runs: list[RunJournal] = field(default_factory=list)
    versions: list[VersionJournal] = field(default_factory=list)
    aliases: dict[tuple[str, str], Held[int | None]] = field(default_factory=dict)
    acknowledged: int = 0
    torn: int = 0
    """Uploads that ended in the middle."""
