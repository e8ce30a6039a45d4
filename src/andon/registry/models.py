"""Registered models: the names that versions count under."""

from __future__ import annotations

from datetime import datetime

from andon.core.entities import Model
from andon.core.events import EventDraft
from andon.core.ids import ActorId, node
from andon.store.ports import Transaction


def ensure_model(tx: Transaction, name: str, actor: ActorId, at: datetime) -> Model:
    """The model of a name; registered when there is none."""
    found = tx.models.find(name)
    return found if found is not None else create_model(tx, name, actor, at)


def create_model(
    tx: Transaction, name: str, actor: ActorId, at: datetime, *, description: str | None = None
) -> Model:
    """Register a model that has no version yet.

    Raises:
        AlreadyExists: the name is taken.
    """
    made = tx.models.add(Model(id=name, actor=actor, created_at=at, changed_at=at, description=description))
    tx.ledger.append(EventDraft(kind="model.created", actor=actor, at=at, subject=node("model", name)))
    return made
