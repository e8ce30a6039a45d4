"""Runs that clients track: begun, written to while they go on, ended, taken up again, deleted and brought back.

A client writes to its own runs only: what a line does is the line's to say, so a line's runs take tags and nothing else.
Params never change once they are set. What is written to a run after its end takes its seal away in the same transaction,
and `andon.tracking.sealing` gives it the next one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from andon.core.entities import Experiment, LoggedModel, ModelPoint, Point, Run, owner
from andon.core.errors import Conflict, Invalid, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, LoggedModelId, RunId, new_id, node
from andon.core.states import RunState, advance
from andon.store.ports import Reader, Transaction
from andon.tracking.experiments import active_experiment

NAME_TAG = "mlflow.runName"
"""The tag that MLflow's clients read a run's name from; it and the name are always set together."""
ENDED: frozenset[str] = frozenset({"finished", "failed", "killed", "blocked"})

_FIRST = (
    "amber brave bright calm careful clever crisp curious daring eager early fair fast firm fresh gentle golden grand "
    "happy honest humble keen kind lively loyal lucky mellow merry neat noble patient polite proud quick quiet rapid "
    "ready royal sharp silent silver simple sincere smart smooth solid steady strong subtle sunny swift tidy tough "
    "true vivid warm wise witty"
)
_SECOND = (
    "anvil arch axle beam bell belt bolt bridge burner cable caliper chisel clamp clock cog coil compass conveyor crane "
    "crank dial drill drum engine file flange forge frame furnace gauge gear gimbal girder hammer handle harbor hinge "
    "hoist jig kiln ladder lamp lathe lens lever loom magnet mill mold motor nut oven piston pliers plough press pulley "
    "pump rail ratchet relay rivet rotor sander saw screw shaft shuttle spindle spring sprocket switch tongs turbine "
    "valve vise wedge wheel winch wrench"
)


def random_name(rng: random.Random) -> str:
    """A name for a run that nobody named.

    >>> random_name(random.Random(7)).count("-")
    2
    """
    return f"{rng.choice(_FIRST.split())}-{rng.choice(_SECOND.split())}-{rng.randrange(1000)}"


def create_run(
    tx: Transaction,
    experiment: str,
    *,
    actor: ActorId,
    at: datetime,
    name: str,
    tags: Mapping[str, str],
    claimed_user: str | None = None,
    started_at: datetime | None = None,
    ident: RunId | None = None,
) -> tuple[Run, Experiment]:
    """Begin a run in an experiment; it and its experiment come back.

    Args:
        actor: who is authenticated.
        tags: as they are kept, the name's own among them.
        claimed_user: who the client says it is; kept as a claim.
        started_at: now if nothing is said.
        ident: the id, for runs that bring theirs along.

    Raises:
        NotFound: no such experiment.
        Invalid: the experiment is deleted.
    """
    home = active_experiment(tx, experiment)
    run = tx.runs.add(
        Run(
            id=ident or RunId(new_id("run")), number=tx.counters.next("run"), experiment=home.id, state="running",
            cause=node("actor", actor), actor=actor, created_at=at, name=name, claimed_user=claimed_user,
            started_at=started_at or at,
        )
    )  # fmt: skip
    if tags:
        tx.run_tags.put(owner(run), tags)
    tx.ledger.append(
        EventDraft(
            kind="run.created", actor=actor, at=at, subject=node("run", run.id), inputs=(node("experiment", home.id),)
        )
    )  # fmt: skip
    return run, home


def find_run(tx: Reader, ident: str) -> Run:
    """A run, deleted or not.

    Raises:
        NotFound: there is none of that id.
    """
    found = tx.runs.find(ident)
    if found is None:
        raise NotFound(f"Run with id={ident[:100]} not found")
    return found


def active_run(tx: Reader, ident: str) -> Run:
    """A run that is not deleted.

    Raises:
        NotFound: there is none of that id.
        Invalid: it is deleted.
    """
    run = find_run(tx, ident)
    if run.deleted_at is not None:
        raise Invalid(
            f"The run {ident} must be in the 'active' state. Current state is deleted",
            hint="restore it first",
        )
    return run


def own_run(tx: Reader, ident: str) -> Run:
    """A run that clients may write to.

    Raises:
        NotFound: there is none of that id.
        Invalid: it is deleted, or a line's.
    """
    run = active_run(tx, ident)
    check_own(run)
    return run


def check_own(run: Run) -> None:
    """Refuse a client's write to a line's run.

    Raises:
        Invalid: it is one.
    """
    if run.line is not None:
        raise Invalid(
            f"run {run.id} belongs to the line {run.line!r} and takes nothing from clients but tags",
            hint="begin a run of your own with runs/create",
        )


def note_late_write(tx: Transaction, run: Run) -> bool:
    """Say in the transaction of a write to a run that it happened; whether that was after the run's end.

    Then its seal holds no more, and whoever seals has to hear of it.

    The row's revision rises as well, so that a seal which is being made just now is not given for what it has not seen.
    """
    if run.state not in ENDED:
        return False
    tx.runs.change(msgspec.structs.replace(run, seal=None))
    return True


def log_points(
    tx: Transaction, ident: str, points: Sequence[Point], of_models: Sequence[ModelPoint] = ()
) -> bool:
    """Append points of metrics to a run, and note what of them was measured of logged models; whether the run had ended.

    Raises:
        NotFound: no such run.
        Invalid: it takes none.
    """
    run = own_run(tx, ident)
    tx.metrics.log(run, points)
    if of_models:
        log_model_points(tx, of_models)
    return note_late_write(tx, run)


def log_model_points(tx: Transaction, points: Sequence[ModelPoint]) -> None:
    """Note what runs measured of logged models.

    Raises:
        NotFound: one of the models does not exist.
    """
    tx.metrics.log_of_models(_models(tx, {point.model for point in points}), points)


def log_params(tx: Transaction, ident: str, pairs: Mapping[str, str]) -> bool:
    """Set params of a run; whether it had ended. The same again changes nothing.

    Raises:
        NotFound: no such run.
        Invalid: it takes none, or a param has another value already; none was set.
    """
    run = own_run(tx, ident)
    set_params(tx, run, pairs)
    return note_late_write(tx, run)


def set_params(tx: Transaction, run: Run, pairs: Mapping[str, str]) -> None:
    """`log_params` of a run that was found already, for a caller that notes the write itself.

    Raises:
        Invalid: a param has another value already; none was set.
    """
    try:
        tx.params.add(owner(run), pairs)
    except Conflict:
        known = tx.params.of([run.number])[run.number]
        others = [key for key, text in sorted(pairs.items()) if known.get(key, text) != text]
        shown = ", ".join(f"{key!r} is {known[key][:100]!r}, not {pairs[key][:100]!r}" for key in others[:5])
        raise Invalid(
            f"Changing param values is not allowed. In run {run.id} {shown}",
            hint="a param keeps its first value; log the other under another key or in another run",
        ) from None


def set_tags(tx: Transaction, run: Run, tags: Mapping[str, str]) -> Run:
    """Set tags of a run, in the place of earlier ones; the name's own tag renames it. Tags are not sealed."""
    tx.run_tags.put(owner(run), tags)
    name = tags.get(NAME_TAG)
    if name and name != run.name:
        return tx.runs.change(msgspec.structs.replace(run, name=name))
    return run


MODELS_TAG = "mlflow.log-model.history"
"""The tag in which MLflow 2 keeps what it knows of the models among a run's artifacts: a JSON list."""
_MOST_NOTED = 1_000_000


def note_model(tx: Transaction, run: Run, model: Mapping[str, Any]) -> None:
    """Add a model to those that MLflow 2's clients find in a run's tag; what configures its flavours is left out.

    Raises:
        Invalid: the tag would grow beyond a million characters.
    """
    kept = {
        key: model[key]
        for key in ("run_id", "artifact_path", "utc_time_created", "model_uuid")
        if key in model
    }
    flavors = model.get("flavors")
    if isinstance(flavors, dict):
        kept["flavors"] = {
            name: {key: value for key, value in flavor.items() if key != "config"}
            if isinstance(flavor, dict)
            else flavor
            for name, flavor in flavors.items()
        }
    told = tx.run_tags.of([run.number])[run.number].get(MODELS_TAG, "[]")
    try:
        known = msgspec.json.decode(told, type=list[Any])
    except msgspec.DecodeError:
        known = []  # a client wrote something else there
    text = msgspec.json.encode([*known, kept]).decode()
    if len(text) > _MOST_NOTED:
        raise Invalid(f"run {run.id} has too many models in its tag {MODELS_TAG}")
    tx.run_tags.put(owner(run), {MODELS_TAG: text})


def delete_tag(tx: Transaction, ident: str, key: str) -> None:
    """Remove a tag.

    Raises:
        NotFound: no such run, or it has no such tag.
        Invalid: the run is deleted.
    """
    run = active_run(tx, ident)
    if not tx.run_tags.remove(owner(run), key):
        raise NotFound(f"No tag with name: {key} in run with id {ident}")


def update_run(
    tx: Transaction,
    ident: str,
    *,
    state: RunState | None = None,
    finished_at: datetime | None = None,
    name: str | None = None,
    at: datetime,
) -> Run:
    """Change a run's state, end or name, where something is said of them.

    A run that ends keeps the end that is said, or ends now. One that goes on again keeps the end it had, as MLflow's does,
    until it ends again; its seal holds no more.

    Raises:
        NotFound: no such run.
        Invalid: it is deleted, or a line's.
    """
    run = own_run(tx, ident)
    changed = run
    if state is not None and state != run.state:
        changed = msgspec.structs.replace(
            changed, state=advance("tracked_run", f"run {ident}", run.state, state), seal=None
        )
        if state in ENDED and finished_at is None:
            finished_at = at
    if finished_at is not None and finished_at != run.finished_at:
        changed = msgspec.structs.replace(changed, finished_at=finished_at, seal=None)
    if name and name != run.name:
        changed = msgspec.structs.replace(changed, name=name)
    if name:
        tx.run_tags.put(owner(run), {NAME_TAG: name})
    return run if changed is run else tx.runs.change(changed)


def delete_run(tx: Transaction, ident: str, *, actor: ActorId, at: datetime) -> None:
    """Hide a run until it is restored or removed for good; doing it again changes nothing.

    Raises:
        NotFound: no such run.
        Invalid: it is a line's.
    """
    run = find_run(tx, ident)
    check_own(run)
    if run.deleted_at is None:
        tx.runs.change(msgspec.structs.replace(run, deleted_at=at))
        tx.ledger.append(EventDraft(kind="run.deleted", actor=actor, at=at, subject=node("run", run.id)))


def restore_run(tx: Transaction, ident: str, *, actor: ActorId, at: datetime) -> None:
    """Bring a deleted run back; doing it again changes nothing.

    Raises:
        NotFound: no such run.
    """
    run = find_run(tx, ident)
    if run.deleted_at is None:
        return
    tx.runs.change(msgspec.structs.replace(run, deleted_at=None))
    tx.ledger.append(EventDraft(kind="run.restored", actor=actor, at=at, subject=node("run", run.id)))


def _models(tx: Reader, idents: set[LoggedModelId]) -> list[LoggedModel]:
    found = tx.logged_models.select({"id": sorted(idents)}, limit=len(idents))
    if lost := sorted(idents - {model.id for model in found}):
        raise NotFound(f"Logged model with ID '{lost[0]}' not found")
    return found
