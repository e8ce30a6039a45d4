"""Taking over an MLflow store: experiments, runs, models and artifacts with their ids, times and histories.

It reads the source as a stream and writes it in small transactions, each a whole step forward: a cursor in the database
says how far it came, and moves with what it speaks of. So an import that was killed is run again and goes on, and nothing is
there twice. Before the first row is written all ids and names are compared with what is here; one that is taken stops it.
At the end what is here is read back and compared with the source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, get_args
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from andon.core.canonical import Digest, digest_bytes, digest_value, hex_part
from andon.core.clock import Clock
from andon.core.entities import (
    Alias,
    Artifact,
    Cursor,
    Experiment,
    LoggedModel,
    Model,
    ModelPoint,
    ModelVersion,
    Point,
    Run,
    owner,
)
from andon.core.errors import AlreadyExists, Conflict, Invalid
from andon.core.events import EventDraft
from andon.core.ids import ActorId, ExperimentId, LoggedModelId, ModelVersionId, Node, RunId, new_id, node
from andon.core.states import LoggedModelState, RunState, Stage
from andon.core.tree import Leaf, Tree
from andon.store.blobs import CHUNK, LocalBlobs
from andon.store.ports import Reader, Store, Transaction
from andon.tracking import limits
from andon.tracking.artifacts import model_root, run_root
from andon.tracking.inputs import Dataset, log_datasets, log_models
from andon.tracking.moving.comparing import Compared, Progress, compare, nothing_yet
from andon.tracking.moving.roots import Outside, Roots, files_below, kind_of
from andon.tracking.moving.values import (
    Counts,
    ForeignExperiment,
    ForeignLoggedModel,
    ForeignModel,
    ForeignRun,
    ForeignStore,
    ForeignVersion,
)
from andon.tracking.runs import ENDED, NAME_TAG

ROWS: Final = 2000
"""About so many rows are written in one transaction, so that nobody else waits long."""
FROM: Final = "mlflow"
"""What the fact `imported` of the events says."""
RUN_LINK: Final = "andon.run_link"
PROMPT_TEXT: Final = "mlflow.prompt.text"
PROMPT: Final = "mlflow.prompt.is_prompt"
_AHEAD: Final = 2
_FILES: Final = 200
_SHOWN: Final = 20
_LARGEST_GIVEN: Final = 2**31
"""Experiment ids above this were drawn at random by MLflow's file store: no counter has to be above them."""
_OF_RUN = re.compile(r"(?=/([0-9a-zA-Z]{1,64})(/artifacts)(?:/|\Z))")
_OF_LOGGED = re.compile(r"(?:/models/(m-[0-9a-zA-Z]+)/artifacts(?:/.*)?|models:/(m-[0-9a-zA-Z]+))\Z")
_STATES: Mapping[str, RunState] = {
    "RUNNING": "running", "SCHEDULED": "queued", "FINISHED": "finished", "FAILED": "failed", "KILLED": "killed",
}  # fmt: skip
_SAVED: Mapping[int, LoggedModelState] = {1: "pending", 2: "ready", 3: "failed"}
_STAGES: Mapping[str, Stage] = {stage.lower(): stage for stage in get_args(Stage)}


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """An import that came to its end, or what one would do.

    Attributes:
        source: what was read.
        compared: counts of the source beside what was read back here.
        same: whether all that the source has is here.
        artifacts, artifact_bytes: files that were taken over by this call.
        elsewhere: runs, logged models and versions whose artifacts stay where they are, such as in S3.
        left_out: what could not be taken over, with the reason; the first 20.
        left_out_count: how much that is in all.
    """

    source: str
    compared: tuple[Compared, ...]
    same: bool
    artifacts: int = 0
    artifact_bytes: int = 0
    elsewhere: int = 0
    left_out: tuple[str, ...] = ()
    left_out_count: int = 0


def import_mlflow(
    store: Store,
    blobs: LocalBlobs,
    source: ForeignStore,
    *,
    actor: ActorId,
    clock: Clock,
    artifacts: Sequence[Path] = (),
    with_artifacts: bool = True,
    dry_run: bool = False,
    progress: Progress = lambda *_: None,
) -> ImportReport:
    """Take over a store. Run again, it goes on where it was, and brings runs up to date that had not ended.

    Args:
        store, blobs: the workspace.
        source: what is read; the caller closes it.
        actor: who imports, and is on record for it; whom the source names stays a claim.
        clock: for the times of events.
        artifacts: folders in which the old server kept artifacts, or to which they were moved.
        with_artifacts: whether files are taken over; without, the runs and models are, and no file of theirs.
        dry_run: only compare ids and names, and count.
        progress: is told now and then.

    Raises:
        AlreadyExists: an experiment, run or model of the source is here already, and not from an import of it.
        Invalid: artifacts lie in a folder that was not named.
        Conflict: another import of the same store is going on.
        SourceError: the source cannot be read on.
        StorageFull: there is no room; what was taken over stays, and the import can go on.
    """
    return _Import(
        store, blobs, source, actor, clock, Roots(source.folders, artifacts), with_artifacts, progress
    ).run(dry_run=dry_run)


class _Import:
    """One import. `_rev` is the revision that the cursor has when all that was handed in so far is committed."""

    def __init__(
        self, store: Store, blobs: LocalBlobs, source: ForeignStore, actor: ActorId, clock: Clock, roots: Roots,
        with_artifacts: bool, progress: Progress,
    ) -> None:  # fmt: skip
        self._store, self._blobs, self._source = store, blobs, source
        self._actor, self._at = actor, clock.now()
        self._roots, self._with_artifacts, self._progress = roots, with_artifacts, progress
        self._cursor = f"import:{FROM}:{hex_part(digest_value('andon.import/1', source.name))[:16]}"
        self._mark = hex_part(digest_value("andon.import/1", source.name))[:16]
        self._known = store.read(lambda reader: reader.cursors.find(self._cursor))
        self._rev = self._known.rev if self._known else 0
        self._going: list[Future[None]] = []
        self._homes: dict[int, bool] = {}
        self._files = self._bytes = self._elsewhere = self._left = 0
        self._left_out: list[str] = []

    def run(self, *, dry_run: bool) -> ImportReport:
        """All of it, in order."""
        counts = self._source.counts()
        experiments = list(self._source.experiments())
        names = [model.name for model in self._source.models()]
        self._store.read(lambda reader: self._check(reader, experiments, names))
        if not self._known:
            self._check_runs()
        self._check_roots(experiments)
        for noun, number in self._source.others().items():
            self._leave_out(f"{number:,} {noun}", "there is no place for them here")
        if dry_run:
            return self._report(nothing_yet(counts))
        self._store.write(lambda tx: self._begin(tx, experiments, names))
        self._hand_in([self._experiment(each) for each in experiments])
        for number, logged in enumerate(self._source.logged_models(), start=1):
            self._take_logged(logged)
            self._progress("logged models", number, counts.logged_models)
        self._take_runs(counts)
        for number, model in enumerate(self._source.models(), start=1):
            self._hand_in([self._model(model)])
            self._progress("registered models", number, counts.models)
        self._finish()
        return self._report(compare(self._store, self._source, counts, self._progress))

    # --- before anything is written ---

    def _check(self, reader: Reader, experiments: Sequence[ForeignExperiment], names: Sequence[str]) -> None:
        """That no id or name is taken by what did not come from here."""
        taken: list[str] = []
        for each in experiments:
            found = reader.experiments.find(str(each.id))
            if found is not None and not self._is_free(reader, found):
                taken.append(f"experiment {each.id} ({found.name!r} here, {each.name!r} there)")
            other = reader.experiments.select({"name": each.name}, limit=1)
            if other and other[0].id != str(each.id):
                taken.append(f"an experiment named {each.name!r} (it is {other[0].id} here)")
        taken += [
            f"a model named {name!r}"
            for name in names
            if reader.models.find(name) is not None and not self._is_ours(reader, node("model", name))
        ]
        self._refuse(taken)

    def _is_free(self, reader: Reader, found: Experiment) -> bool:
        """Whether the source's experiment may have the place of the one that is found."""
        if self._is_ours(reader, node("experiment", found.id)):
            return True
        return found.number == 0 and not reader.runs.count({"experiment": found.id})

    def _is_ours(self, reader: Reader, subject: Node) -> bool:
        """Whether an earlier import of this source made a thing."""
        if self._known is None:
            return False
        events = reader.ledger.latest(limit=1000, subject=subject)
        return any(
            event.facts.get("imported") == FROM and event.facts.get("source") == self._mark
            for event in events
        )

    def _check_runs(self) -> None:
        ids = self._source.run_ids()
        while some := list(islice(ids, 500)):
            page = some
            found = self._store.read(lambda reader: reader.runs.select({"id": page}, limit=5))  # noqa: B023  # done at once
            self._refuse([f"run {run.id}" for run in found])

    def _refuse(self, taken: Sequence[str]) -> None:
        if taken:
            more = f" and {len(taken) - 5} more" if len(taken) > 5 else ""
            raise AlreadyExists(
                f"the workspace has already {'; '.join(taken[:5])}{more}. Nothing was imported",
                hint="ids are kept, so import into a workspace where they are free: a new one, for instance",
            )

    def _check_roots(self, experiments: Iterable[ForeignExperiment]) -> None:
        """That the files of each experiment may be read, or are elsewhere."""
        for each in experiments if self._with_artifacts else ():
            kind = kind_of(each.location)
            try:
                self._roots.find(each.location, str(each.id))
            except Outside as place:
                raise self._unnamed(each, f"in {place}") from None
            if kind == "served" and not self._roots.has_named:
                raise self._unnamed(each, f"behind the server that serves {each.location}")

    def _unnamed(self, each: ForeignExperiment, where: str) -> Invalid:
        return Invalid(
            f"the artifacts of experiment {each.id} ({each.name!r}) lie {where}, which was not named",
            hint="name the folder they are in with --artifacts DIR, or leave all files out with --no-artifacts",
        )

    # --- writing ---

    def _begin(self, tx: Transaction, experiments: Sequence[ForeignExperiment], names: Sequence[str]) -> None:
        """Put down the cursor, and keep the ids of the source from being given to others."""
        self._check(tx, experiments, names)
        given = [each.id for each in experiments if each.id < _LARGEST_GIVEN]
        tx.counters.reach("experiment", max(given, default=0))
        if self._known is None:
            tx.cursors.add(Cursor(id=self._cursor, seq=0))

    def _hand_in(self, steps: Sequence[_Step]) -> None:
        """Have steps written in transactions of about `ROWS` rows, while the next ones are read."""
        batch: list[_Step] = []
        for step in steps:
            batch.append(step)
            if sum(each.rows for each in batch) >= ROWS:
                self._submit(batch)
                batch = []
        if batch:
            self._submit(batch)

    def _submit(self, steps: Sequence[_Step]) -> None:
        expected = self._rev
        self._rev += 1

        def work(tx: Transaction) -> None:
            cursor = tx.cursors.get(self._cursor)
            if cursor.rev != expected:
                raise Conflict("another import of the same store is going on", hint="let it come to its end")
            done, into = cursor.seq, _Into(tx, {})
            for step in steps:
                done = max(done, step.write(into) or 0)
            tx.cursors.change(replace(cursor, seq=done))

        self._going.append(self._store.submit(work))
        while len(self._going) > _AHEAD:
            self._going.pop(0).result()

    def _finish(self) -> None:
        """Wait until all that was handed in is committed."""
        while self._going:
            self._going.pop(0).result()

    def _experiment(self, each: ForeignExperiment) -> _Step:
        created = _moment(each.created_ms, self._at)
        changed = _moment(each.changed_ms, created)
        here = kind_of(each.location) != "elsewhere"
        self._homes[each.id] = here
        row = Experiment(
            id=ExperimentId(str(each.id)), number=each.id, name=each.name, actor=self._actor, created_at=created,
            changed_at=changed, artifact_location=None if here else each.location.rstrip("/"),
            deleted_at=changed if each.deleted else None,
        )  # fmt: skip

        def write(into: _Into) -> None:
            tx = into.tx
            found = tx.experiments.find(row.id)
            if found is not None and self._is_ours(tx, node("experiment", row.id)):
                return
            made = tx.experiments.change(replace(row, rev=found.rev)) if found else tx.experiments.add(row)
            tx.experiment_tags.put(owner(made), each.tags)
            self._say(tx, "experiment.created", node("experiment", row.id), note=each.name)

        return _Step(1 + len(each.tags), write)

    def _take_logged(self, each: ForeignLoggedModel) -> None:
        """A logged model and its files."""
        created = _moment(each.created_ms, self._at)
        changed = _moment(each.changed_ms, created)
        row = LoggedModel(
            id=LoggedModelId(each.id), experiment=ExperimentId(str(each.experiment)), name=each.name,
            state=_SAVED.get(each.status, "pending"), actor=self._actor, created_at=created, changed_at=changed,
            run=RunId(each.run) if each.run else None, model_type=each.model_type, state_message=each.message,
            deleted_at=changed if each.deleted else None,
        )  # fmt: skip
        points = [
            ModelPoint(
                model=row.id, run=RunId(one.run), key=one.point.key, value=one.point.value, at_ms=one.point.at_ms,
                step=one.point.step, dataset_name=one.dataset_name, dataset_digest=one.dataset_digest,
            )
            for one in each.points
        ]  # fmt: skip

        def write(into: _Into) -> None:
            tx = into.tx
            found = tx.logged_models.find(row.id)
            if found is None:
                tx.logged_models.add(row)
                self._say(
                    tx,
                    "logged_model.created",
                    node("logged_model", row.id),
                    (node("experiment", row.experiment),),
                )
            tx.logged_model_params.put(owner(row), each.params)
            tx.logged_model_tags.put(owner(row), each.tags)
            tx.metrics.log_of_models([row], points)

        self._hand_in([_Step(1 + len(each.params) + len(each.tags) + len(points), write)])
        place = f"{each.experiment}/models/{each.id}/artifacts"
        self._hand_in(
            list(self._artifacts(each.artifacts, place, f"logged model {each.id}", each.experiment))
        )

    def _take_runs(self, counts: Counts) -> None:
        """Runs with their points and files. Of each the last step moves the cursor past it."""
        batch: list[_Step] = []
        rows = done = points = 0
        run: ForeignRun | None = None

        def end() -> None:
            if run is not None:
                for step in self._artifacts(
                    run.artifacts, f"{run.experiment}/{run.id}/artifacts", f"run {run.id}", run.experiment
                ):
                    batch.append(step)
                batch.append(_passed(run.id))

        for each in self._source.runs(self._is_wanted):
            if isinstance(each, list):
                assert run is not None, "points follow their run"
                batch.append(_logged(run.id, each))
                points += len(each)
                rows += len(each)
            else:
                end()
                run = each
                batch.append(self._run(each))
                rows += batch[-1].rows
                done += 1
            if rows >= ROWS:
                self._submit(batch)
                batch, rows = [], 0
                self._progress("runs", done, counts.runs)
        end()
        if batch:
            self._submit(batch)
        self._progress("runs", counts.runs, counts.runs)

    def _is_wanted(self, ident: str) -> bool:
        """Whether a run has not come to its end here yet."""
        if self._known is None:
            return True
        passed = self._known.seq
        found = self._store.read(lambda reader: reader.runs.find(ident))
        return found is None or found.number > passed or found.state not in ENDED

    def _run(self, each: ForeignRun) -> _Step:
        started = _moment(each.start_ms, self._at)
        ended = None if each.end_ms is None else _moment(each.end_ms, started)
        deleted = _moment(each.deleted_ms, ended or self._at) if each.deleted else None
        state = _STATES.get(each.status.upper(), "running")
        fresh = Run(
            id=RunId(each.id), number=0, experiment=ExperimentId(str(each.experiment)), state=state,
            cause=node("actor", self._actor), actor=self._actor, created_at=started,
            name=each.name or each.tags.get(NAME_TAG) or None, claimed_user=each.user or None, started_at=started,
            finished_at=ended, deleted_at=deleted,
        )  # fmt: skip
        used = [
            Dataset(
                name=one.name, digest=one.digest, source_type=one.source_type, source=one.source, schema=one.schema,
                profile=one.profile, tags=one.tags,
            )
            for one in each.inputs
        ]  # fmt: skip

        def write(into: _Into) -> None:
            tx = into.tx
            row, home = fresh, tx.experiments.get(fresh.experiment)
            if (
                row.deleted_at is not None
                and home.deleted_at is not None
                and row.deleted_at >= home.deleted_at
            ):
                row = replace(row, deleted_at=home.deleted_at)  # deleted with it, so it comes back with it
            found = tx.runs.find(row.id) if self._known else None
            if found is None:
                row = tx.runs.add(replace(row, number=tx.counters.next("run")))
                self._say(tx, "run.created", node("run", row.id), (node("experiment", row.experiment),))
            else:
                row = tx.runs.change(replace(row, number=found.number, rev=found.rev, seals=found.seals))
            into.runs[row.id] = row
            tx.params.put(owner(row), each.params)
            tx.run_tags.put(owner(row), each.tags)
            if used:
                log_datasets(tx, row, used, at=row.created_at)
            for use in each.models:
                log_models(tx, row, {LoggedModelId(use.model): use.step}, use.direction, at=row.created_at)

        return _Step(3 + len(each.params) + len(each.tags) + len(used) + len(each.models), write)

    def _model(self, each: ForeignModel) -> _Step:
        created = _moment(each.created_ms, self._at)
        model = Model(
            id=each.name, actor=self._actor, created_at=created, changed_at=_moment(each.changed_ms, created),
            description=each.description or None,
        )  # fmt: skip
        versions = [(self._version(each, version, created), version) for version in each.versions]

        def write(into: _Into) -> None:
            tx = into.tx
            fresh = tx.models.find(model.id) is None
            if fresh:
                tx.models.add(model)
                tx.model_tags.put(owner(model), each.tags)
                self._say(tx, "model.created", node("model", model.id))
            for row, version in versions:
                if tx.model_versions.count({"model": model.id, "number": row.number}) == 0:
                    self._write_version(tx, row, version)
            for alias, number in each.aliases.items() if fresh else ():
                self._write_alias(tx, model, alias, number)

        return _Step(1 + len(each.tags) + sum(2 + len(version.tags) for version in each.versions), write)

    def _version(self, model: ForeignModel, each: ForeignVersion, created: datetime) -> ModelVersion:
        made = _moment(each.created_ms, created)
        changed = _moment(each.changed_ms, made)
        prompt = (each.tags.get(PROMPT) or model.tags.get(PROMPT) or "").lower() == "true"
        tree = None if prompt or each.deleted else self._tree(each, f"version {model.name}/{each.number}")
        if prompt:
            digest = digest_bytes(each.tags.get(PROMPT_TEXT, "").encode())
        else:
            digest = tree or digest_value("andon.address/1", each.source)
        logged = _OF_LOGGED.search(each.source) or _OF_LOGGED.search(each.location)
        return ModelVersion(
            id=ModelVersionId(""), model=model.name, number=each.number, digest=digest, state="candidate",
            actor=self._actor, created_at=made, changed_at=changed, run=RunId(each.run) if each.run else None,
            logged_model=LoggedModelId(logged[1] or logged[2]) if logged else None, source=each.source, held=tree is not None,
            stage=_STAGES.get(each.stage.lower(), "None"), description=each.description or None,
            claimed_user=each.user or None, deleted_at=changed if each.deleted else None,
        )  # fmt: skip

    def _write_version(self, tx: Transaction, row: ModelVersion, each: ForeignVersion) -> None:
        made = replace(row, id=ModelVersionId(new_id("model_version")), source=_our_source(tx, row))
        if made.logged_model is not None and tx.logged_models.find(made.logged_model) is None:
            made = replace(made, logged_model=None)
        tx.model_versions.add(made)
        tx.version_tags.put(
            owner(made), {**each.tags, **({RUN_LINK: each.run_link} if each.run_link else {})}
        )
        there = made.run is not None and tx.runs.find(made.run) is not None
        self._say(
            tx, "model_version.registered", node("model_version", made.id),
            (
                *([node("run", made.run)] if made.run and there else []),
                *([node("logged_model", made.logged_model)] if made.logged_model else []),
            ),
            model=made.model, number=made.number, digest=made.digest, held=made.held, stage=made.stage,
        )  # fmt: skip

    def _write_alias(self, tx: Transaction, model: Model, alias: str, number: int) -> None:
        found = tx.model_versions.select({"model": model.id, "number": number}, limit=1)
        tx.aliases.add(
            Alias(
                id=f"{model.id}/{alias}", model=model.id, alias=alias, number=number, actor=self._actor,
                changed_at=model.changed_at,
            )
        )  # fmt: skip
        pointed = tuple(node("model_version", version.id) for version in found)
        self._say(tx, "alias.moved", node("model", model.id), pointed, alias=alias, number=number)

    def _say(
        self, tx: Transaction, kind: str, subject: Node, inputs: tuple[Node, ...] = (), *, note: str | None = None,
        **facts: str | int | bool | None,
    ) -> None:  # fmt: skip
        tx.ledger.append(
            EventDraft(
                kind=kind, actor=self._actor, at=self._at, subject=subject, inputs=inputs, note=note,
                facts={"imported": FROM, "source": self._mark, **facts},
            )
        )  # fmt: skip

    # --- files ---

    def _artifacts(self, address: str, place: str, whose: str, experiment: int) -> Iterator[_Step]:
        """Take over the files of an address; the steps that give them their names below `place`."""
        folder = self._folder(address, whose, place)
        if folder is not None and not self._homes.get(experiment, True):
            self._leave_out(whose, f"its files are in {folder}, and those of its experiment elsewhere")
            return
        files = iter(files_below(folder)) if folder is not None else iter(())
        while some := list(islice(files, _FILES)):
            known = self._known_sizes([f"{place}/{path}" for path, _ in some])
            rows = self._stored(some, place, whose, known)
            if rows:
                yield _Step(len(rows), _named(rows))

    def _known_sizes(self, paths: list[str]) -> dict[str, int]:
        """Files that an earlier import has named."""
        if self._known is None:
            return {}
        found = self._store.read(lambda reader: reader.artifacts.select({"id": paths}, limit=len(paths)))
        return {row.id: row.size_bytes for row in found}

    def _stored(
        self, some: Sequence[tuple[str, Path | None]], place: str, whose: str, known: Mapping[str, int]
    ) -> list[Artifact]:
        """Files as blobs, four at a time, since each waits for the disk."""
        takable: list[tuple[str, Path]] = []
        for path, file in some:
            if file is None:
                self._leave_out(whose, f"{path!r} is a link, or no client could ask for its name")
            elif known.get(f"{place}/{path}") != file.stat().st_size:
                takable.append((path, file))
        with ThreadPoolExecutor(4) as pool:
            stored = list(pool.map(lambda one: _put(self._blobs, one[1]), takable))
        self._files += len(stored)
        self._bytes += sum(size for _, size in stored)
        return [
            Artifact(
                id=f"{place}/{path}", digest=digest, size_bytes=size, actor=self._actor, changed_at=self._at
            )
            for (path, _), (digest, size) in zip(takable, stored, strict=True)
        ]

    def _tree(self, version: ForeignVersion, whose: str) -> Digest | None:
        """The files of a version as a tree that is stored; None when nothing of it is on this machine."""
        folder = self._folder(version.location, whose)
        if folder is None:
            return None
        leaves: dict[str, Leaf] = {}
        for path, file in files_below(folder):
            if file is None:
                self._leave_out(whose, f"{path!r} is a link, or no client could ask for its name")
                continue
            digest, size = _put(self._blobs, file)
            leaves[path] = Leaf(digest=digest, size_bytes=size)
        return self._blobs.put(Tree(files=leaves).encode()) if leaves else None

    def _folder(self, address: str, whose: str, *tails: str) -> Path | None:
        if not self._with_artifacts or not address:
            return None
        if kind_of(address) == "elsewhere":
            self._elsewhere += 1
            return None
        try:
            return self._roots.find(address, *tails)
        except Outside as place:
            self._leave_out(whose, f"{place} is in no folder that was named with --artifacts")
            return None

    def _leave_out(self, whose: str, why: str) -> None:
        self._left += 1
        if len(self._left_out) < _SHOWN:
            self._left_out.append(f"{whose}: {why}")

    # --- at the end ---

    def _report(self, compared: tuple[Compared, ...]) -> ImportReport:
        return ImportReport(
            source=self._source.name, compared=compared,
            same=all(one.here is not None and one.here >= one.source for one in compared), artifacts=self._files,
            artifact_bytes=self._bytes, elsewhere=self._elsewhere, left_out=tuple(self._left_out), left_out_count=self._left,
        )  # fmt: skip


class _Into(NamedTuple):
    """A transaction that steps write into, and the runs that they have met in it, by id."""

    tx: Transaction
    runs: dict[str, Run]

    def run(self, ident: str) -> Run:
        """A run that an earlier step wrote, in this transaction or before."""
        if ident not in self.runs:
            self.runs[ident] = self.tx.runs.get(ident)
        return self.runs[ident]


class _Step(NamedTuple):
    """Rows that belong together. `write` gives the number of a run that is whole with it, if it is that."""

    rows: int
    write: Callable[[_Into], int | None]


def _logged(ident: str, points: Sequence[Point]) -> _Step:
    def write(into: _Into) -> None:
        into.tx.metrics.log(into.run(ident), points)

    return _Step(len(points), write)


def _passed(ident: str) -> _Step:
    return _Step(0, lambda into: into.run(ident).number)


def _named(rows: Sequence[Artifact]) -> Callable[[_Into], None]:
    def write(into: _Into) -> None:
        tx = into.tx
        found = {
            row.id: row for row in tx.artifacts.select({"id": [row.id for row in rows]}, limit=len(rows))
        }
        for row in rows:
            before = found.get(row.id)
            if before is None:
                tx.artifacts.add(row)
            elif before.digest != row.digest:
                tx.artifacts.change(replace(row, rev=before.rev))

    return write


def _put(blobs: LocalBlobs, file: Path) -> tuple[Digest, int]:
    """A file as a blob: its digest and size in bytes. A link in its place is not followed."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as stream, blobs.writer() as writer:
        while chunk := stream.read(CHUNK):
            writer.write(chunk)
        return writer.commit(), writer.size_bytes


def _moment(at_ms: int | None, otherwise: datetime) -> datetime:
    """A time of the source; another one where it has none, or none that a calendar has."""
    if at_ms is None:
        return otherwise
    try:
        return limits.time_of(at_ms, "time")
    except Invalid:
        return otherwise


def _our_source(tx: Reader, version: ModelVersion) -> str | None:
    """Where a version's files lie here, when the source named a path of its own run or logged model."""
    text = version.source or ""
    if kind_of(text) == "elsewhere":
        return version.source
    if (
        version.logged_model is not None
        and (model := tx.logged_models.find(version.logged_model)) is not None
    ):
        return f"mlflow-artifacts:/{model_root(model.experiment, model.id)}"
    for found in _OF_RUN.finditer(text):
        run = tx.runs.find(found[1])
        if run is not None:
            rest = text[found.end(2) :]
            return f"mlflow-artifacts:/{run_root(run)}{unquote(rest) if text.startswith('file:') else rest}"
    return version.source


__all__ = ["Compared", "ImportReport", "Progress", "import_mlflow"]
