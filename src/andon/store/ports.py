"""The ports of persistence. Rooms above know these and nothing of SQL, files or object stores.

Each port has at most twelve verbs. Conformance suites for all of them are in `andon.testing`, so anybody's back end can
run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from andon.core.canonical import Digest
from andon.core.entities import (
    Actor,
    Alert,
    Alias,
    Approval,
    Artifact,
    Cursor,
    DatasetVersion,
    Entity,
    Experiment,
    Feedback,
    Lease,
    Line,
    LoggedModel,
    Model,
    ModelPoint,
    ModelVersion,
    MonitorWindow,
    Owner,
    Personal,
    Point,
    Release,
    Rollout,
    RouteRow,
    Run,
    RunInput,
    RunModel,
    Segment,
    Trigger,
    Verdict,
    Workspace,
)
from andon.core.events import Edge, Event, EventDraft
from andon.core.ids import LoggedModelId, Node, PredictionId, ReleaseId
from andon.core.predictions import PredictionRecord
from andon.core.search import Found, Query

E = TypeVar("E", bound=Entity)
T = TypeVar("T")

Value = str | int | float | bool | datetime | None
Where = Value | Sequence[Value] | tuple[str, Value]
"""Equal to a value; one of a list of values; or compared, as in ("<", value), with one of < <= > >= !=."""


class Collection(Protocol, Generic[E]):
    """The rows of one noun.

    Not to be kept beyond the transaction it came from. A value returned is the caller's own: it is frozen and stays what it
    was. What a committed transaction wrote survives a power cut.
    """

    def get(self, ident: str) -> E:
        """The row of an id.

        Raises:
            NotFound: there is none.
        """

    def find(self, ident: str) -> E | None:
        """The row of an id, or None."""

    def select(
        self,
        where: Mapping[str, Where] | None = None,
        *,
        order: Sequence[str] = ("id",),
        after: E | None = None,
        limit: int = 1000,
    ) -> list[E]:
        """Rows that meet all conditions, in order (`-name` for descending; `id` always breaks ties), at most `limit`.

        `after` is the last row of the page before (keyset paging). NULL sorts last.
        """

    def count(self, where: Mapping[str, Where] | None = None) -> int:
        """How many rows meet all conditions."""

    def add(self, row: E) -> E:
        """Write a new row.

        Raises:
            AlreadyExists: its id, or what must be unique of it, is taken.
        """

    def change(self, row: E) -> E:
        """Write a changed row whose `rev` is the one it was read with; it comes back with `rev` raised by one.

        Raises:
            Conflict: somebody changed it since it was read, or what must be unique of it is taken.
            NotFound: it is gone.
        """

    def remove(self, ident: str) -> None:
        """Delete a row; deleting it again changes nothing."""


class Metrics(Protocol):
    """Points of metrics: many, small, append-only, no events."""

    def log(self, run: Run, points: Sequence[Point]) -> None:
        """Append points; the same (key, step, at, value) again changes nothing.

        Raises:
            NotFound: the run is gone.
        """

    def latest(self, runs: Sequence[Run]) -> dict[int, dict[str, Point]]:
        """For the number of each run the point of the highest (step, at) of each key, by key."""

    def history(self, run: Run, key: str, *, after: Point | None = None, limit: int = 25_000) -> list[Point]:
        """Points of one key by (step, at, value)."""

    def log_of_models(self, models: Sequence[LoggedModel], points: Sequence[ModelPoint]) -> None:
        """Note what was measured of logged models: the newest point of each (model, run, key, dataset) is kept."""

    def of_models(self, models: Sequence[LoggedModelId]) -> dict[LoggedModelId, list[ModelPoint]]:
        """What was measured of each, by key."""


class Labels(Protocol):
    """Short texts by key that owners of one noun have, and are searched by: params and tags."""

    def put(self, owner: Owner, pairs: Mapping[str, str]) -> None:
        """Set texts, in the place of earlier ones of their keys.

        Raises:
            NotFound: the owner is gone.
        """

    def add(self, owner: Owner, pairs: Mapping[str, str]) -> None:
        """Set texts that never change: the same again changes nothing.

        Raises:
            Conflict: a key has another text; none was set. The message names the keys.
            NotFound: the owner is gone.
        """

    def of(self, owners: Sequence[str | int]) -> dict[str | int, dict[str, str]]:
        """For each owner's id its texts by key, in the order of the keys."""

    def remove(self, owner: Owner, key: str) -> bool:
        """Delete one; whether it was there."""


class Files(Protocol):
    """The paths of artifacts as folders. A folder is there as long as a file is in it."""

    def children(
        self, folder: str, *, after: str = "", limit: int = 1000
    ) -> list[tuple[str, Artifact | None]]:
        """Names of what lies directly in a folder (`a/b`, no slash at its end), in order; a folder has no artifact."""

    def under(self, folder: str, *, after: str = "", limit: int = 1000) -> list[Artifact]:
        """All files in a folder and its folders, by path; `after` is the last path of the page before."""

    def remove_under(self, folder: str) -> int:
        """Delete all files in a folder and its folders; how many there were. Their bytes stay."""


class Counters(Protocol):
    """Short numbers, given once each."""

    def next(self, name: str) -> int:
        """The next number of a noun, from 1. A transaction that fails may leave a gap."""

    def reach(self, name: str, value: int) -> None:
        """Let the next number be above a value that was given elsewhere."""


class Ledger(Protocol):
    """The events and the lineage graph that follows from them."""

    def append(self, draft: EventDraft) -> None:
        """Say what happened. Sequence and hash are given at commit, under one lock; with the transaction it is or is not."""

    def after(self, seq: int, *, limit: int = 1000, kinds: Sequence[str] = ()) -> list[Event]:
        """Committed events after a sequence number, in order."""

    def latest(self, *, limit: int = 50, subject: Node | None = None) -> list[Event]:
        """The newest events, newest first, of one subject if given."""

    def head(self) -> tuple[int, Digest]:
        """Sequence number and hash of the newest committed event; (0, GENESIS) when there is none."""

    def up(self, start: Node, *, depth: int | None = 12, limit: int = 10_000) -> list[Edge]:
        """Edges that lead to a node: what it was made of, and that of what, breadth first. No depth: all, oldest first."""

    def down(self, start: Node, *, depth: int | None = 12, limit: int = 100_000) -> list[Edge]:
        """Edges that lead away from a node: all that it was needed for, in the same orders."""

    def edges(self, *, after: Edge | None = None, limit: int = 1000) -> list[Edge]:
        """All edges by (src, dst), each with the first event that said it; `after` is the last of the page before."""


class Leases(Protocol):
    """Fenced leases. Time is not stored: a holder raises `beat`, and who waits watches it on a clock of its own."""

    def find(self, name: str) -> Lease | None:
        """The lease of a name as it stands."""

    def take(self, name: str, holder: str, *, seen: Lease | None) -> Lease:
        """Take a lease that nobody holds (`seen` None) or take it over as it was seen, with the fence raised by one.

        Raises:
            Conflict: it is not as it was seen.
        """

    def beat(self, lease: Lease) -> Lease:
        """Prove life.

        Raises:
            LeaseLost: it was taken over.
        """

    def check(self, lease: Lease) -> None:
        """Make the transaction valid only if the lease is still held: locked until commit.

        Raises:
            LeaseLost: it was taken over.
        """

    def drop(self, lease: Lease) -> None:
        """Give it back; the fence is kept so that it never goes down."""


class Reader(Protocol):
    """One consistent view of the workspace."""

    @property
    def workspaces(self) -> Collection[Workspace]: ...
    @property
    def actors(self) -> Collection[Actor]: ...
    @property
    def personal(self) -> Collection[Personal]: ...
    @property
    def lines(self) -> Collection[Line]: ...
    @property
    def dataset_versions(self) -> Collection[DatasetVersion]: ...
    @property
    def runs(self) -> Collection[Run]: ...
    @property
    def experiments(self) -> Collection[Experiment]: ...
    @property
    def run_inputs(self) -> Collection[RunInput]: ...
    @property
    def run_models(self) -> Collection[RunModel]: ...
    @property
    def logged_models(self) -> Collection[LoggedModel]: ...
    @property
    def artifacts(self) -> Collection[Artifact]: ...
    @property
    def models(self) -> Collection[Model]: ...
    @property
    def aliases(self) -> Collection[Alias]: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def params(self) -> Labels: ...
    @property
    def run_tags(self) -> Labels: ...
    @property
    def experiment_tags(self) -> Labels: ...
    @property
    def model_tags(self) -> Labels: ...
    @property
    def version_tags(self) -> Labels: ...
    @property
    def logged_model_params(self) -> Labels: ...
    @property
    def logged_model_tags(self) -> Labels: ...
    @property
    def files(self) -> Files: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def model_versions(self) -> Collection[ModelVersion]: ...
    @property
    def verdicts(self) -> Collection[Verdict]: ...
    @property
    def approvals(self) -> Collection[Approval]: ...
    @property
    def releases(self) -> Collection[Release]: ...
    @property
    def rollouts(self) -> Collection[Rollout]: ...
    @property
    def routes(self) -> Collection[RouteRow]: ...
    @property
    def monitor_windows(self) -> Collection[MonitorWindow]: ...
    @property
    def alerts(self) -> Collection[Alert]: ...
    @property
    def triggers(self) -> Collection[Trigger]: ...
    @property
    def segments(self) -> Collection[Segment]: ...
    @property
    def feedback(self) -> Collection[Feedback]: ...
    @property
    def cursors(self) -> Collection[Cursor]: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def ledger(self) -> Ledger: ...

    def search(self, query: Query) -> Found:
        """Ids of what a query asks for, one page of them.

        Raises:
            Invalid: the noun has no such field, or `after` is not of this query.
        """


class Transaction(Reader, Protocol):
    """A reader whose changes are committed together with their events and edges, or not at all."""


class Store(Protocol):
    """The metadata of a workspace. Safe to share between threads; open one in each process.

    `write` runs its function inside a transaction, maybe more than once (after a lost race for a lock) and maybe together
    with others (group commit): it must not touch anything outside the transaction, run user code or wait. When `write`
    returns, what it did survives a power cut; when it raises, nothing of it happened.
    """

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Do work in a transaction.

        Raises:
            StorageFull: the disk is full; nothing of it happened.
        """

    def submit(self, work: Callable[[Transaction], T]) -> Future[T]:
        """Hand in the work of a `write` without waiting; the future ends as that would."""

    def read(self, work: Callable[[Reader], T]) -> T:
        """Look at one consistent view; at most a second."""

    def tables(self) -> Iterator[tuple[str, list[dict[str, Value]]]]:
        """Every table with its rows as plain values, in an order in which they can be loaded, from one consistent view."""

    def load(self, tables: Iterable[tuple[str, list[dict[str, Value]]]]) -> None:
        """Fill an empty workspace with what `tables` gave, in one transaction."""

    def close(self) -> None:
        """Finish what was handed in and let go of everything. Closing twice changes nothing."""


class Blobs(Protocol):
    """Immutable bytes named by their digest. Safe to share between threads and processes.

    What `put` returned survives a power cut. Bytes come back only when they match their digest.
    """

    def put(self, data: bytes | Iterable[bytes]) -> Digest:
        """Store bytes or a stream of chunks; storing them again costs a hash and changes nothing.

        Raises:
            StorageFull: nothing was stored.
        """

    def get(self, digest: Digest) -> bytes:
        """The bytes.

        Raises:
            NotFound: there are none.
            Corrupt: what is stored does not match the digest; the message names the file.
        """

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """The bytes as a stream; a mismatch is raised at its end, so use nothing before."""

    def has(self, digest: Digest) -> bool:
        """Whether bytes of that digest are stored (their content is not checked)."""

    def size(self, digest: Digest) -> int:
        """Their size in bytes; NotFound when there are none."""

    def path(self, digest: Digest) -> str:
        """A local file with the bytes, checked, to be read only: for readers that need a file (Parquet)."""

    def digests(self) -> Iterator[Digest]:
        """All that are stored, in no order."""

    def remove(self, digest: Digest) -> None:
        """Delete; deleting again changes nothing."""


class PredictionWriter(Protocol):
    """One gateway worker's end of the prediction log. For one thread only."""

    @property
    def boot(self) -> int:
        """The boot that ids of this writer carry."""

    def next_number(self) -> int:
        """The number that the next appended record must carry in its id."""

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Write records, in one write, before their answer leaves.

        Raises:
            StorageFull: nothing of them is in the log; the answer must not be a success.
        """

    def close(self) -> None:
        """Close the segment so that it can be sealed."""


class PredictionLog(Protocol):
    """Reading side of the prediction log: open segments and sealed ones alike."""

    def tail(
        self, position: Mapping[str, int], *, limit: int = 10_000
    ) -> tuple[list[PredictionRecord], dict[str, int]]:
        """Records after a position, at most `limit`, and the position after them. Fewer than `limit` means: that is all.

        The empty position is before the first record. A position is a small map to be kept as it is given; it holds across
        seals, drops and restarts, within one epoch. Each record comes once, those of one boot in the order of their numbers.
        """

    def since(self, at: datetime) -> dict[str, int]:
        """A position from which `tail` gives every record written at or after a wall time, and few from before."""

    def find(self, ident: PredictionId) -> PredictionRecord:
        """The record of a prediction.

        Raises:
            NotFound: no segment holds it.
        """

    def has(self, ident: PredictionId) -> bool:
        """Whether the log holds it."""

    def unsealed(self) -> dict[str, dict[ReleaseId, int]]:
        """How many records of each release lie outside sealed blobs, by segment. A segment may have its row already."""

    def sealable(self) -> list[str]:
        """Ids of segments that are finished (rotated, or their writer is gone) and not yet sealed."""

    def seal(self, segment: str) -> Segment | None:
        """Turn a finished segment into a Parquet blob; None when it holds no record. Sealing again gives the same row.

        The file stays until `drop`, so that the row can be committed first.
        """

    def drop(self, segment: str) -> None:
        """Delete the file of a segment whose row is committed."""
