"""Experiments: runs that belong together, found by name."""

from __future__ import annotations

from datetime import datetime

import msgspec

from andon.core.entities import Experiment
from andon.core.events import EventDraft
from andon.core.ids import ActorId, ExperimentId, node
from andon.store.ports import Transaction


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
