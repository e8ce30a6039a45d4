"""Deleting for good: rows, names and bytes that are really gone, on record, and nothing that anybody still needs.

A deletion that clients make hides a run, an experiment, a logged model or a version until it is restored. Here the rows of
what was hidden long enough go away, names become free, and then every blob that nothing names any more, found by looking at
all that is there. Both halves can be stopped at any moment: what has lost its rows loses its bytes the next time.

What is on record stays: versions that were judged or released, runs that a version was made by, and all that is a line's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec
from msgspec.structs import replace

from andon.core.canonical import Digest, hex_part
from andon.core.clock import Clock
from andon.core.entities import Artifact, Entity, Experiment, LoggedModel, ModelVersion, Run, owner
from andon.core.errors import Conflict, Invalid
from andon.core.events import EventDraft, Fact
from andon.core.ids import ActorId, Node, node
from andon.core.workspace import Layout
from andon.pipelines.references import needed, tree_leaves
from andon.registry.models import delete_model, delete_version, model_of, version_of
from andon.registry.requests import check_version_may_go
from andon.store.blobs import LocalBlobs
from andon.store.clearing import clearing
from andon.store.ports import Collection, Reader, Store, Transaction, Where
from andon.tracking.artifacts import model_root, run_root
from andon.tracking.experiments import delete_experiment, find_experiment
from andon.tracking.runs import ENDED, delete_run, find_run

Kind = Literal["run", "experiment", "model", "version"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OLDER: Final = timedelta(days=30)
"""How long what was deleted can be restored, if nothing else is said."""
GRACE: Final = timedelta(days=1)
"""How long a blob that nothing names may be on its way to a row that names it."""
_AT_ONCE: Final = 20
_PAGE: Final = 1000
_SHOWN: Final = 20
_WORKSPACE = node("workspace", "workspace")

Progress = Callable[[str], object]


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed for good, or what would be.

    Attributes:
        experiments, runs, logged_models, versions: rows that are gone.
        files: names of artifacts that are gone.
        blobs, bytes_freed: stored contents that nothing named any more.
        young: contents that nothing names and that were stored too lately to be sure; a later call takes them.
        kept: what was deleted and stays, with the reason; the first 20.
        kept_count: how much that is in all.
    """

    experiments: int = 0
    runs: int = 0
    logged_models: int = 0
    versions: int = 0
    files: int = 0
    blobs: int = 0
    bytes_freed: int = 0
    young: int = 0
    kept: tuple[str, ...] = ()
    kept_count: int = 0


def apply(
    layout: Layout,
    store: Store,
    blobs: LocalBlobs,
    *,
    actor: ActorId,
    clock: Clock,
    older_than: timedelta = OLDER,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    progress: Progress = lambda _: None,
) -> Removed:
    """Remove for good what was deleted long enough ago, and every blob that nothing names.

    Args:
        layout, store, blobs: the workspace; others may use it meanwhile.
        actor: who is on record for it.
        clock: for ages; blobs have wall times.
        older_than: how long ago it must have been deleted, >= 0.
        grace: how long ago a blob must have been stored, >= 0. Less than uploads and imports take to write down what names
            their blobs is not safe while they go on.
        dry_run: only say what would be removed.
        progress: is told what is being done.

    Raises:
        Conflict: a backup is being made, or another removal goes on.
        NotFound: a manifest is missing, so what it needs is not known; rows are gone, and no blob is.
        Corrupt: the same, and it is damaged.
    """
    before = clock.now() - older_than
    with clearing(layout):
        if dry_run:
            return _look(store, blobs, before, clock.now() - grace)
        count = _Count()
        for step in _STEPS:
            progress(f"{step.noun}s that were deleted before {before:%Y-%m-%d %H:%M}")
            for page in _deleted(store, step, before):
                _remove(store, step, page, before, count, actor, clock)
        return _clear(store, blobs, clock, grace, count, actor, progress)


def delete(store: Store, kind: Kind, ident: str, *, actor: ActorId, clock: Clock) -> None:
    """Delete a thing as MLflow's clients do: a run and an experiment can be restored.

    Args:
        store: the workspace's.
        kind, ident: a run's or experiment's id, a model's name, or `model/number`.
        actor: who is on record for it.
        clock: for the time of it.

    Raises:
        NotFound: there is none.
        Invalid: it is a line's.
        Conflict: it is a line's model, or one of which versions were judged or released; or a version that is live, on its
            way, or what an undo would bring back.
    """
    at = clock.now()
    match kind:
        case "run":
            store.write(lambda tx: delete_run(tx, ident, actor=actor, at=at))
        case "model":
            store.write(lambda tx: _model(tx, ident, actor, at))
        case "version":
            named = _named_version(ident)
            store.write(lambda tx: _hide_version(tx, version_of(tx, *named), actor, at))
        case "experiment":
            while not store.write(lambda tx: delete_experiment(tx, ident, actor=actor, at=at)):
                pass


def delete_for_good(
    layout: Layout,
    store: Store,
    blobs: LocalBlobs,
    kind: Kind,
    ident: str,
    *,
    actor: ActorId,
    clock: Clock,
    grace: timedelta = GRACE,
    progress: Progress = lambda _: None,
) -> Removed:
    """Remove one thing now, deleted before or not, and every blob that nothing names.

    Args:
        layout, store, blobs: the workspace; others may use it meanwhile.
        kind, ident: a run's or experiment's id, a model's name, or `model/number`.
        actor: who is on record for it.
        clock: for the time of it.
        grace: see `apply`.
        progress: is told what is being done.

    Raises:
        NotFound: there is none.
        Conflict: somebody needs it, or it has not ended; nothing of it was removed. Or see `apply`.
    """
    at = clock.now()
    with clearing(layout):
        count = _Count()
        match kind:
            case "model":
                delete(store, kind, ident, actor=actor, clock=clock)
            case "run":
                gone = store.write(lambda tx: _or_refuse(_run(tx, find_run(tx, ident), actor, at)))
                count.add("run", ident, gone)
            case "version":
                named = _named_version(ident)
                gone = store.write(lambda tx: _or_refuse(_version(tx, _any_version(tx, *named), actor, at)))
                count.add("version", ident, gone)
            case "experiment":
                _whole_experiment(store, ident, actor, clock, count)
        return _clear(store, blobs, clock, grace, count, actor, progress)


class _Gone(NamedTuple):
    """What became of one thing: how many names of artifacts are gone with it, or why it stays."""

    files: int = 0
    why: str | None = None


class _Count:
    """What was removed so far."""

    def __init__(self) -> None:
        self.rows = {"run": 0, "experiment": 0, "logged model": 0, "version": 0}
        self.files = self.kept = 0
        self.why: list[str] = []

    def add(self, noun: str, ident: str, gone: _Gone) -> None:
        """Count a thing as gone, or as kept."""
        if gone.why is None:
            self.rows[noun] += 1
            self.files += gone.files
            return
        self.kept += 1
        if len(self.why) < _SHOWN:
            self.why.append(f"{noun} {ident}: {gone.why}")

    def removed(self, *, blobs: int, bytes_freed: int, young: int) -> Removed:
        """All of it."""
        return Removed(
            experiments=self.rows["experiment"], runs=self.rows["run"], logged_models=self.rows["logged model"],
            versions=self.rows["version"], files=self.files, kept=tuple(self.why), kept_count=self.kept, blobs=blobs,
            bytes_freed=bytes_freed, young=young,
        )  # fmt: skip


def _or_refuse(gone: _Gone) -> _Gone:
    if gone.why is not None:
        raise Conflict(f"it stays: {gone.why}", hint="what is on record, or goes on, is not removed")
    return gone


def _named_version(ident: str) -> tuple[str, str]:
    """Name and number of `model/number`.

    Raises:
        Invalid: it is not of that form.
    """
    name, slash, number = ident.rpartition("/")
    if not slash or not number.isdecimal():
        raise Invalid(f"{ident[:80]!r} names no version", hint="a version is model/number, such as churn/3")
    return name, number


def _model(tx: Transaction, name: str, actor: ActorId, at: datetime) -> None:
    """Remove a model, which clients cannot restore either."""
    row = model_of(tx, name)
    if tx.lines.find(name) is not None:
        raise Conflict(
            f"model {name!r} stays: the line of that name rules it",
            hint="its versions can be deleted one by one",
        )
    delete_model(tx, row, actor=actor, at=at)


def _hide_version(tx: Transaction, row: ModelVersion, actor: ActorId, at: datetime) -> None:
    check_version_may_go(tx, row)
    delete_version(tx, row, actor=actor, at=at)


def _any_version(reader: Reader, name: str, number: str) -> ModelVersion:
    """A version, deleted or not.

    Raises:
        NotFound: there is none.
    """
    found = reader.model_versions.select({"model": name, "number": int(number)}, limit=1)
    return found[0] if found and not _is_empty(found[0]) else version_of(reader, name, number)


# --- rows of one thing: why it stays, given that some versions are gone, and how it goes ---

_NONE: frozenset[str] = frozenset()


def _run_stays(reader: Reader, row: Run, gone: frozenset[str] = _NONE) -> str | None:
    if row.line is not None:
        return "it is a run of a line"
    if row.deleted_at is None and row.state not in ENDED:
        return f"it is {row.state}: let it end, or delete it first"
    return _made(reader, "run", row.id, gone)


def _run(tx: Transaction, row: Run, actor: ActorId, at: datetime) -> _Gone:
    """Remove a run with its metrics, params, tags, inputs and names of artifacts."""
    if why := _run_stays(tx, row):
        return _Gone(why=why)
    files = tx.files.remove_under(run_root(row))
    tx.runs.remove(row.id)
    _say(tx, "run.deleted", node("run", row.id), actor, at, files)
    return _Gone(files)


def _logged_model_stays(reader: Reader, row: LoggedModel, gone: frozenset[str] = _NONE) -> str | None:
    return _made(reader, "logged_model", row.id, gone)


def _logged_model(tx: Transaction, row: LoggedModel, actor: ActorId, at: datetime) -> _Gone:
    """Remove a logged model with its params, tags, metrics and names of artifacts."""
    if why := _logged_model_stays(tx, row):
        return _Gone(why=why)
    files = tx.files.remove_under(model_root(row.experiment, row.id))
    tx.logged_models.remove(row.id)
    _say(tx, "logged_model.deleted", node("logged_model", row.id), actor, at, files)
    return _Gone(files)


def _made(reader: Reader, column: str, ident: str, gone: frozenset[str]) -> str | None:
    for version in reader.model_versions.select({column: ident}, limit=_PAGE):
        if version.id not in gone:
            return f"{version.model}/{version.number} was made of it"
    return None


def _version_stays(reader: Reader, row: ModelVersion, _: frozenset[str] = _NONE) -> str | None:
    if reader.releases.count({"model_version": row.id}):
        return "releases of it are on record"
    if reader.verdicts.count({"model_version": row.id}) or reader.verdicts.count({"against": row.id}):
        return "verdicts of it are on record"
    if reader.monitor_windows.count({"model_version": row.id}):
        return "monitors have watched it"
    return None


def _version(tx: Transaction, row: ModelVersion, actor: ActorId, at: datetime) -> _Gone:
    """Remove a version. Of the newest of a model an empty row stays, so that its number is never given again."""
    if why := _version_stays(tx, row):
        return _Gone(why=why)
    newest = tx.model_versions.select({"model": row.model}, order=("-number",), limit=1)[0]
    for alias in tx.aliases.select({"model": row.model, "number": row.number}, limit=_PAGE):
        tx.aliases.remove(alias.id)
    if newest.id == row.id:
        for key in tx.version_tags.of([row.id])[row.id]:
            tx.version_tags.remove(owner(row), key)
        tx.model_versions.change(_emptied(row, at))
    else:
        tx.model_versions.remove(row.id)
    subject = node("model_version", row.id)
    _say(tx, "model_version.deleted", subject, actor, at, model=row.model, number=row.number)
    return _Gone()


def _emptied(row: ModelVersion, at: datetime) -> ModelVersion:
    return replace(
        row, run=None, dataset_version=None, profile=None, source=None, logged_model=None, held=False, stage="None",
        description=None, claimed_user=None, deleted_at=row.deleted_at or at, data_from=None, data_until=None,
    )  # fmt: skip


def _is_empty(row: Entity) -> bool:
    """Whether a row is all that is left of a version."""
    return (
        isinstance(row, ModelVersion) and row == _emptied(row, row.created_at) and row.deleted_at is not None
    )


def _experiment_stays(reader: Reader, row: Experiment, _: frozenset[str] = _NONE) -> str | None:
    if row.number == 0:
        return "runs that name no experiment begin in it"
    if reader.lines.find(row.name) is not None:
        return "it holds the runs of the line of its name"
    return None


def _experiment(tx: Transaction, row: Experiment, actor: ActorId, at: datetime) -> _Gone:
    """Remove an experiment that has no run and no logged model any more; its name is free again."""
    if why := _experiment_stays(tx, row):
        return _Gone(why=why)
    if tx.runs.count({"experiment": row.id}) or tx.logged_models.count({"experiment": row.id}):
        return _Gone(why="a run or logged model of it stays")
    files = tx.files.remove_under(row.id)
    tx.experiments.remove(row.id)
    _say(tx, "experiment.deleted", node("experiment", row.id), actor, at, files)
    return _Gone(files)


def _say(
    tx: Transaction, kind: str, subject: Node, actor: ActorId, at: datetime, files: int = 0, **facts: Fact
) -> None:
    """Put a removal on record, and erase the texts that the ledger kept of the thing."""
    for event in tx.ledger.latest(limit=_PAGE, subject=subject):
        if event.note is not None:
            tx.personal.remove(f"event:{event.seq}")
    told: dict[str, dict[str, Fact]] = {"artifacts.deleted": {"files": files}} if files else {}
    for each, said in (told | {kind: facts}).items():
        tx.ledger.append(
            EventDraft(kind=each, actor=actor, at=at, subject=subject, facts={**said, "for_good": True})
        )


# --- rows of many ---


class _Step(NamedTuple):
    """How the rows of a noun are found, judged and removed."""

    noun: str
    rows: Callable[[Reader], Collection[Any]]
    stays: Callable[[Reader, Any, frozenset[str]], str | None]
    remove: Callable[[Transaction, Any, ActorId, datetime], _Gone]


_LOGGED = _Step("logged model", lambda reader: reader.logged_models, _logged_model_stays, _logged_model)
_RUNS = _Step("run", lambda reader: reader.runs, _run_stays, _run)
_EXPERIMENTS = _Step("experiment", lambda reader: reader.experiments, _experiment_stays, _experiment)
_STEPS: tuple[_Step, ...] = (
    _Step("version", lambda reader: reader.model_versions, _version_stays, _version), _LOGGED, _RUNS, _EXPERIMENTS,
)  # fmt: skip
"""Versions first: what they need is not needed any more once they are gone."""


def _deleted(store: Store, step: _Step, before: datetime) -> Iterator[Sequence[Any]]:
    """Rows of a noun that were deleted before a time, in pages."""
    for page in _pages(store, step, {"deleted_at": ("<=", before)}):
        yield [row for row in page if not _is_empty(row)]


def _of_experiment(store: Store, step: _Step, ident: str) -> list[Any]:
    """All rows of a noun that are in an experiment."""
    return [row for page in _pages(store, step, {"experiment": ident}) for row in page]


def _pages(store: Store, step: _Step, where: Mapping[str, Where]) -> Iterator[Sequence[Any]]:
    last: Any = None

    def look(reader: Reader) -> Sequence[Any]:
        return step.rows(reader).select(where, after=last, limit=_PAGE)

    while page := store.read(look):
        yield page
        last = page[-1]


def _why(store: Store, step: _Step, row: Entity, gone: frozenset[str] = _NONE) -> str | None:
    """Why a row stays."""
    return store.read(lambda reader: step.stays(reader, row, gone))


def _remove(
    store: Store,
    step: _Step,
    page: Sequence[Any],
    before: datetime,
    count: _Count,
    actor: ActorId,
    clock: Clock,
) -> None:
    """Remove a page of rows, but those that came back meanwhile."""
    if step is _EXPERIMENTS:  # the logged models of one are deleted with it, and their rows do not say so
        for row in page:
            _remove_these(store, _LOGGED, _of_experiment(store, _LOGGED, row.id), count, actor, clock)

    def still(row: Any) -> bool:
        return row.deleted_at is not None and row.deleted_at <= before

    _remove_these(store, step, page, count, actor, clock, still)


def _remove_these(
    store: Store, step: _Step, page: Sequence[Any], count: _Count, actor: ActorId, clock: Clock,
    still: Callable[[Any], bool] = lambda _: True,
) -> None:  # fmt: skip
    at = clock.now()

    def work(tx: Transaction, some: Sequence[Any]) -> list[tuple[str, _Gone]]:
        there = [row for each in some if (row := step.rows(tx).find(each.id)) is not None and still(row)]
        return [(row.id, step.remove(tx, row, actor, at)) for row in there]

    for start in range(0, len(page), _AT_ONCE):
        for ident, gone in store.write(partial(work, some=page[start : start + _AT_ONCE])):
            count.add(step.noun, ident, gone)


def _whole_experiment(store: Store, ident: str, actor: ActorId, clock: Clock, count: _Count) -> None:
    """Remove an experiment with its runs and logged models, if none of them is needed.

    Raises:
        NotFound: there is none.
        Conflict: it, or one of them, is needed or goes on; nothing was removed.
    """
    experiment = store.read(lambda reader: find_experiment(reader, ident))
    inner = {step: _of_experiment(store, step, ident) for step in (_LOGGED, _RUNS)}
    for step, rows in {_EXPERIMENTS: [experiment], **inner}.items():
        for row in rows:
            if why := _why(store, step, row):
                raise Conflict(
                    f"experiment {ident} stays because of {step.noun} {row.id}: {why}",
                    hint="what is on record, or goes on, is not removed",
                )
    for step, rows in inner.items():
        _remove_these(store, step, rows, count, actor, clock)
    at = clock.now()
    gone = store.write(lambda tx: _or_refuse(_experiment(tx, tx.experiments.get(ident), actor, at)))
    count.add("experiment", ident, gone)


# --- bytes ---


def _clear(
    store: Store,
    blobs: LocalBlobs,
    clock: Clock,
    grace: timedelta,
    count: _Count,
    actor: ActorId,
    progress: Progress,
) -> Removed:
    """Remove every blob that nothing names and that was not stored lately, and put all of it on record."""
    before = clock.now() - grace
    progress("what is still needed")
    loose, young = _loose(blobs, needed(store, blobs), before)
    progress(f"{len(loose):,} stored contents that nothing names")
    freed = [size for digest in loose if (size := blobs.remove_unused(digest, before=before)) is not None]
    removed = count.removed(blobs=len(freed), bytes_freed=sum(freed), young=young + len(loose) - len(freed))
    if freed or any(count.rows.values()):
        told = ("experiments", "runs", "logged_models", "versions", "files", "blobs", "bytes_freed")
        facts: dict[str, Fact] = {name: getattr(removed, name) for name in told}
        at = clock.now()
        said = EventDraft(kind="retention.applied", actor=actor, at=at, subject=_WORKSPACE, facts=facts)
        store.write(lambda tx: tx.ledger.append(said))
    return removed


def _loose(blobs: LocalBlobs, keep: set[bytes], before: datetime) -> tuple[list[Digest], int]:
    """Blobs that nothing names, and how many more were stored lately. What a young tree names is not loose either."""
    free = [digest for digest in blobs.digests() if _key(digest) not in keep]
    young = [digest for digest in free if blobs.put_at(digest) >= before]
    held = {_key(digest) for digest in young}.union(*(tree_leaves(blobs, digest) for digest in young))
    return [digest for digest in free if _key(digest) not in held], len(young)


def _key(digest: Digest) -> bytes:
    return bytes.fromhex(hex_part(digest))


# --- only looking ---


def _look(store: Store, blobs: LocalBlobs, before: datetime, stored_before: datetime) -> Removed:
    """What `apply` would remove."""
    count, gone = _Count(), _Doomed()
    for step in _STEPS:
        for page in _deleted(store, step, before):
            for row in page:
                if step is _EXPERIMENTS:
                    gone.add_logged(store, row, count)
                why = _why(store, step, row, frozenset(gone.ids["version"]))
                if why is None and step is _EXPERIMENTS and not gone.empties(store, row):
                    why = "a run or logged model of it stays"
                count.add(step.noun, row.id, _Gone(why=why))
                gone.ids[step.noun].update([row.id] if why is None else [])
    loose, young = _loose(blobs, needed(store, blobs, gone.has), stored_before)
    count.files = gone.files
    return count.removed(blobs=len(loose), bytes_freed=sum(map(blobs.size, loose)), young=young)


class _Doomed:
    """Ids of what would be removed, by noun."""

    def __init__(self) -> None:
        self.ids: dict[str, set[str]] = {step.noun: set() for step in _STEPS}
        self.files = 0

    def add_logged(self, store: Store, experiment: Experiment, count: _Count) -> None:
        """The logged models of an experiment that would go, which go first."""
        for row in _of_experiment(store, _LOGGED, experiment.id):
            if row.id not in self.ids["logged model"]:
                why = _why(store, _LOGGED, row, frozenset(self.ids["version"]))
                count.add("logged model", row.id, _Gone(why=why))
                self.ids["logged model"].update([row.id] if why is None else [])

    def empties(self, store: Store, experiment: Experiment) -> bool:
        """Whether nothing of an experiment would be left."""
        return all(
            row.id in self.ids[step.noun]
            for step in (_LOGGED, _RUNS)
            for row in _of_experiment(store, step, experiment.id)
        )

    def has(self, row: Entity) -> bool:
        """Whether a row would go."""
        if isinstance(row, Artifact):
            home, second, third = (*row.id.split("/", 3), "", "")[:3]
            went = home in self.ids["experiment"] or second in self.ids["run"]
            went = went or (second == "models" and third in self.ids["logged model"])
            self.files += went
            return went
        noun = {ModelVersion: "version", Run: "run"}.get(type(row))
        return noun is not None and row.id in self.ids[noun]
