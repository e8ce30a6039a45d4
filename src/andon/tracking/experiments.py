"""Experiments: runs that belong together, found by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from andon.core.entities import Experiment, Run
from andon.core.errors import AlreadyExists, Invalid, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, ExperimentId, node
from andon.store.ports import Reader, Transaction


def ensure_experiment(tx: Transaction, name: str, actor: ActorId, at: datetime) -> Experiment:
    """The experiment of a name; made when there is none, restored when it was deleted."""
    found = tx.experiments.select({"name": name}, limit=1)
    if not found:
        return create_experiment(tx, name, actor, at)
    if found[0].deleted_at is None:
        return found[0]
    restored = tx.experiments.change(msgspec.structs.replace(found[0], deleted_at=None, changed_at=at))
    tx.ledger.append(
        EventDraft(
            kind="experiment.restored", actor=actor, at=at, subject=node("experiment", restored.id), note=name
        )
    )
    return restored


def create_experiment(
    tx: Transaction, name: str, actor: ActorId, at: datetime, *, artifact_location: str | None = None
) -> Experiment:
    """Make an experiment; the name may hold what a client likes, so the ledger keeps it as an erasable note.

    Raises:
        AlreadyExists: the name is taken, if only by a deleted experiment.
    """
    number = tx.counters.next("experiment")
    made = tx.experiments.add(
        Experiment(
            id=ExperimentId(str(number)), number=number, name=name, actor=actor, created_at=at, changed_at=at,
            artifact_location=artifact_location,
        )
    )  # fmt: skip
    tx.ledger.append(
        EventDraft(
            kind="experiment.created", actor=actor, at=at, subject=node("experiment", made.id), note=name,
            facts={"number": number},
        )
    )  # fmt: skip
    return made


def rename_experiment(tx: Transaction, ident: str, name: str, *, actor: ActorId, at: datetime) -> None:
    """Give an experiment another name.

    Raises:
        NotFound: no such experiment.
        Invalid: it is deleted, or a line's.
        AlreadyExists: the name is taken.
    """
    found = active_experiment(tx, ident)
    if found.name == name:
        return
    _check_own(tx, found)
    if taken := tx.experiments.select({"name": name}, limit=1):
        raise AlreadyExists(f"Experiment(name={name}) already exists: it is experiment {taken[0].id}")
    tx.experiments.change(msgspec.structs.replace(found, name=name, changed_at=at))
    tx.ledger.append(
        EventDraft(
            kind="experiment.changed", actor=actor, at=at, subject=node("experiment", found.id), note=name
        )
    )


RUNS_AT_ONCE = 200
"""How many runs one transaction hides or brings back, so that no other waits long for it."""


def delete_experiment(tx: Transaction, ident: str, *, actor: ActorId, at: datetime) -> bool:
    """Hide an experiment and its runs until it is restored; whether that is done.

    An experiment of many runs takes several transactions: call again as long as it is not done. It takes no new runs from
    the first of them on, and all its runs are deleted at the time at which it was.

    Raises:
        NotFound: no such experiment, or it is deleted already.
        Invalid: it is a line's.
    """
    found = tx.experiments.find(ident)
    runs = _runs(tx, ident, None)
    if found is None or (found.deleted_at is not None and not runs):
        raise NotFound(f"No Experiment with id={ident} exists")
    _check_own(tx, found)
    if found.deleted_at is None:
        tx.experiments.change(msgspec.structs.replace(found, deleted_at=at, changed_at=at))
        tx.ledger.append(
            EventDraft(kind="experiment.deleted", actor=actor, at=at, subject=node("experiment", ident))
        )
    return _in_part(tx, runs, found.deleted_at or at)


def restore_experiment(tx: Transaction, ident: str, *, actor: ActorId, at: datetime) -> bool:
    """Bring a deleted experiment back, with the runs that were deleted with it; whether that is done.

    A run that was deleted by itself before stays deleted. Call again as long as it is not done.

    Raises:
        NotFound: no such deleted experiment.
    """
    found = tx.experiments.find(ident)
    if found is None or found.deleted_at is None:
        raise NotFound(f"No deleted Experiment with id={ident} exists")
    if not _in_part(tx, _runs(tx, ident, found.deleted_at), None):
        return False
    tx.experiments.change(msgspec.structs.replace(found, deleted_at=None, changed_at=at))
    tx.ledger.append(
        EventDraft(kind="experiment.restored", actor=actor, at=at, subject=node("experiment", ident))
    )
    return True


def _runs(tx: Transaction, experiment: str, deleted_at: datetime | None) -> list[Run]:
    """Runs of an experiment that were deleted at a time, or never: one more than a transaction takes."""
    where = {"experiment": experiment, "deleted_at": deleted_at}
    return tx.runs.select(where, order=("started_at",), limit=RUNS_AT_ONCE + 1)


def _in_part(tx: Transaction, runs: Sequence[Run], deleted_at: datetime | None) -> bool:
    """Hide or bring back as many runs as a transaction takes; whether these were all."""
    for run in runs[:RUNS_AT_ONCE]:
        tx.runs.change(msgspec.structs.replace(run, deleted_at=deleted_at))
    return len(runs) <= RUNS_AT_ONCE


def active_experiment(reader: Reader, ident: str) -> Experiment:
    """An experiment that takes runs and tags.

    Raises:
        NotFound: there is none of that id.
        Invalid: it is deleted.
    """
    found = find_experiment(reader, ident)
    if found.deleted_at is not None:
        raise Invalid(
            f"The experiment {ident} must be in the 'active' state. Current state is deleted",
            hint="restore it first",
        )
    return found


def find_experiment(reader: Reader, ident: str) -> Experiment:
    """An experiment, deleted or not.

    Raises:
        NotFound: there is none of that id.
    """
    found = reader.experiments.find(ident)
    if found is None:
        raise NotFound(f"No Experiment with id={ident} exists")
    return found


def _check_own(reader: Reader, experiment: Experiment) -> None:
    if reader.lines.find(experiment.name) is not None:
        raise Invalid(
            f"experiment {experiment.name!r} holds the runs of the line of that name and stays as long as it does"
        )


_ELSEWHERE = ("s3", "s3a", "r2", "gs", "wasb", "wasbs", "abfs", "abfss", "dbfs", "hdfs", "viewfs")
"""Where clients write artifacts by themselves. This process never opens such an address."""
_PATH = r"[A-Za-z0-9_.=@+: -]+(?:/[A-Za-z0-9_.=@+: -]+)*/?"
_ADDRESS = re.compile(rf"(?:{'|'.join(_ELSEWHERE)})://{_PATH}|(?:dbfs|hdfs|viewfs):/(?://)?{_PATH}")


def check_location(text: str) -> str | None:
    """The place that a client names for the artifacts of an experiment; None for with us.

    Raises:
        Invalid: it is a path or address that would have to be opened here, or one that could be read in two ways.

    >>> check_location("s3://bucket/models/"), check_location("mlflow-artifacts:/")
    ('s3://bucket/models', None)
    >>> check_location("file:///etc")
    Traceback (most recent call last):
    andon.core.errors.Invalid: 'artifact_location' is 'file:///etc', where nothing is kept; leave it away or name a place \
in s3, s3a, r2, gs, wasb, wasbs, abfs, abfss, dbfs, hdfs, viewfs
    """
    if len(text) > 2048:
        raise Invalid(
            f"'artifact_location' has {len(text)} characters, at most 2048", field="artifact_location"
        )
    if text in ("mlflow-artifacts:/", "mlflow-artifacts:"):
        return None
    if not _ADDRESS.fullmatch(text) or any(part in (".", "..") for part in text.split("/")):
        raise Invalid(
            f"'artifact_location' is {text[:200]!r}, where nothing is kept",
            hint=f"leave it away or name a place in {', '.join(_ELSEWHERE)}",
            field="artifact_location",
        )
    return text.rstrip("/")
