"""Logged models: what a client saved in an experiment as a model, before or without being registered.

A logged model has params that never change, tags that do, and metrics that runs measured of it. Its files are artifacts
below a folder of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from andon.core.entities import LoggedModel, ModelPoint, owner
from andon.core.errors import Conflict, Invalid, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, LoggedModelId, RunId, new_id, node
from andon.core.states import LoggedModelState
from andon.store.ports import Reader, Transaction
from andon.tracking.experiments import active_experiment

LONGEST_NAME = 500
_NOT_IN_NAMES = "/:.%\"'"


class LoggedModelView(msgspec.Struct, frozen=True, kw_only=True):
    """A logged model with all that belongs to it.

    `location` is the place of its experiment's artifacts if that is elsewhere.
    """

    model: LoggedModel
    location: str | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[ModelPoint]


def check_model_name(name: str) -> str:
    """A logged model's name, if it can be part of an address.

    Raises:
        Invalid: it is empty, too long, or has a character in it that means something there.

    >>> check_model_name("churn forest")
    'churn forest'
    """
    if not name or len(name) > LONGEST_NAME or any(each in _NOT_IN_NAMES for each in name):
        raise Invalid(
            f"Invalid model name {name[:100]!r}",
            hint=f"it has 1 to {LONGEST_NAME} characters and none of {' '.join(_NOT_IN_NAMES)}",
            field="name",
        )
    return name


def create_logged_model(
    tx: Transaction,
    experiment: str,
    name: str,
    *,
    actor: ActorId,
    at: datetime,
    run: str | None = None,
    model_type: str | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    ident: LoggedModelId | None = None,
) -> LoggedModel:
    """Note that a client begins to save a model. `run` made it, if the client says so; the ledger's line of it is a claim.

    Raises:
        NotFound: no such experiment.
        Invalid: the experiment is deleted.
    """
    home = active_experiment(tx, experiment)
    made = tx.logged_models.add(
        LoggedModel(
            id=ident or LoggedModelId(new_id("logged_model")), experiment=home.id, name=name, state="pending", actor=actor,
            created_at=at, changed_at=at, run=None if run is None else RunId(run), model_type=model_type,
        )
    )  # fmt: skip
    if params:
        tx.logged_model_params.add(owner(made), params)
    if tags:
        tx.logged_model_tags.put(owner(made), tags)
    known = run is not None and tx.runs.find(run) is not None
    tx.ledger.append(
        EventDraft(
            kind="logged_model.created", actor=actor, at=at, subject=node("logged_model", made.id), note=name,
            inputs=(node("run", run),) if run is not None and known else (node("experiment", home.id),),
        )
    )  # fmt: skip
    return made


def find_logged_model(reader: Reader, ident: str, *, deleted: bool = False) -> LoggedModel:
    """A logged model; one that was deleted only if asked for.

    Raises:
        NotFound: there is none of that id.
    """
    found = reader.logged_models.find(ident)
    if found is None or (found.deleted_at is not None and not deleted):
        raise NotFound(f"Logged model with ID '{ident[:100]}' not found")
    return found


def finish_logged_model(tx: Transaction, ident: str, state: LoggedModelState, *, at: datetime) -> LoggedModel:
    """Say how saving a model went; the same again changes nothing.

    Raises:
        NotFound: no such model.
    """
    found = find_logged_model(tx, ident)
    return (
        found if found.state == state else tx.logged_models.change(replace(found, state=state, changed_at=at))
    )


def delete_logged_model(tx: Transaction, ident: str, *, actor: ActorId, at: datetime) -> None:
    """Hide a logged model until it is removed for good; doing it again changes nothing.

    Raises:
        NotFound: no such model.
    """
    found = find_logged_model(tx, ident, deleted=True)
    if found.deleted_at is not None:
        return
    tx.logged_models.change(replace(found, deleted_at=at, changed_at=at))
    tx.ledger.append(
        EventDraft(kind="logged_model.deleted", actor=actor, at=at, subject=node("logged_model", found.id))
    )


def add_model_params(tx: Transaction, ident: str, params: Mapping[str, str]) -> None:
    """Set params of a logged model; the same again changes nothing.

    Raises:
        NotFound: no such model.
        Invalid: one has another value already; none was set.
    """
    found = find_logged_model(tx, ident)
    try:
        tx.logged_model_params.add(owner(found), params)
    except Conflict as error:
        raise Invalid(f"Changing param values is not allowed: {error}", field="params") from None


def set_model_tags(tx: Transaction, ident: str, tags: Mapping[str, str]) -> None:
    """Set tags of a logged model, in the place of earlier ones.

    Raises:
        NotFound: no such model.
    """
    tx.logged_model_tags.put(owner(find_logged_model(tx, ident)), tags)


def delete_model_tag(tx: Transaction, ident: str, key: str) -> None:
    """Remove a tag.

    Raises:
        NotFound: no such model, or it has no such tag.
    """
    if not tx.logged_model_tags.remove(owner(find_logged_model(tx, ident)), key):
        raise NotFound(f"No tag with key {key[:100]!r} found for model with ID {ident!r}")


def views(reader: Reader, idents: Sequence[str]) -> list[LoggedModelView]:
    """Logged models with all that belongs to them, in the order of their ids given; what is gone is left out."""
    found = {row.id: row for row in reader.logged_models.select({"id": list(idents)}, limit=len(idents) or 1)}
    rows = [found[LoggedModelId(ident)] for ident in idents if ident in found]
    ids = [row.id for row in rows]
    homes = {row.experiment for row in rows}
    location = {
        row.id: row.artifact_location
        for row in reader.experiments.select({"id": sorted(homes)}, limit=len(homes) or 1)
    }
    params, tags = reader.logged_model_params.of(ids), reader.logged_model_tags.of(ids)
    metrics = reader.metrics.of_models(ids)
    return [
        LoggedModelView(
            model=row, location=location[row.experiment], params=params[row.id], tags=tags[row.id], metrics=metrics[row.id]
        )
        for row in rows
    ]  # fmt: skip
