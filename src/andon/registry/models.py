"""Registered models: the names that versions count under, with their tags, aliases and stages.

The verbs here are those of plain pointers: an alias or stage moves at once. What the policy of a line rules is moved by a
release instead (`andon.registry.requests`), and callers ask there first.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import get_args

from msgspec.structs import replace

from andon.core.entities import Alias, Model, ModelVersion, owner
from andon.core.errors import AlreadyExists, Conflict, Invalid, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, node
from andon.core.states import Stage
from andon.store.ports import Reader, Transaction

LONGEST_NAME = 256
LONGEST_ALIAS = 255
LONGEST_KEY = 250
LONGEST_TEXT = 100_000
STAGES: tuple[Stage, ...] = get_args(Stage)
ACTIVE: tuple[Stage, ...] = ("Staging", "Production")
PROMPT = "mlflow.prompt.is_prompt"
"""The tag that makes a model a prompt: its versions are texts, and it is no model to those who search."""
_ALIAS = re.compile(r"[\w-]+\Z")
_NUMBERED = re.compile(r"[vV]\d+\Z")
_KEY = re.compile(r"[/\w.\- :]+\Z")
_PAGE = 1000


# --- what clients may call things ---


def check_model_name(name: str) -> str:
    """Check the name of a model as MLflow does: any text without `/` and `:` that is not blank, at most 256 characters.

    Raises:
        Invalid: it does not fit.

    >>> check_model_name("churn of März")
    'churn of März'
    """
    if not name.strip():
        raise Invalid(
            "Missing value for required parameter 'name'", hint="a model needs a name", field="name"
        )
    if "/" in name or ":" in name or _is_path(name):
        raise Invalid(
            f"Invalid model name '{name[:80]}'",
            hint="names have no '/' or ':' and are not '.' or '..'",
            field="name",
        )
    if len(name) > LONGEST_NAME:
        raise Invalid(
            f"Invalid model name '{name[:80]}...': it has {len(name):,} characters",
            hint=f"a name has at most {LONGEST_NAME}",
            field="name",
        )
    return name


def check_alias(alias: str) -> str:
    """Check an alias: letters, digits, `_` and `-`, at most 255, and nothing that means a version by itself.

    Raises:
        Invalid: it does not fit.

    >>> check_alias("champion")
    'champion'
    """
    readable_alias(alias)
    if alias.lower() == "latest" or _NUMBERED.match(alias):
        raise Invalid(
            f"the alias '{alias}' is reserved",
            hint="'latest' and 'v1' mean a version by themselves",
            field="alias",
        )
    return alias


def readable_alias(alias: str) -> str:
    """Check an alias that is asked for: `latest` is one too.

    Raises:
        Invalid: it does not fit.
    """
    if not _ALIAS.match(alias) or len(alias) > LONGEST_ALIAS:
        raise Invalid(
            f"Invalid alias name: '{alias[:80]}'",
            hint=f"an alias is letters, digits, '_' and '-', at most {LONGEST_ALIAS}",
            field="alias",
        )
    return alias


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Check tags of models and versions: keys of at most 250 characters, texts of at most 100,000.

    Raises:
        Invalid: one does not fit; the message names its key.
    """
    for key, text in tags.items():
        if not _KEY.match(key) or _is_path(key) or len(key) > LONGEST_KEY:
            raise Invalid(
                f"Invalid value \"{key[:80]}\" for parameter 'key'",
                hint=f"a key is letters, digits, '_', '-', '.', ':', '/' and spaces, at most {LONGEST_KEY}",
                field="key",
            )
        if len(text) > LONGEST_TEXT:
            raise Invalid(
                f"the tag '{key}' has {len(text):,} characters",
                hint=f"a tag has at most {LONGEST_TEXT:,}",
                field="value",
            )
    return tags


def read_stage(text: str) -> Stage:
    """The stage of a word, in any case.

    Raises:
        Invalid: there is no such stage.

    >>> read_stage("production")
    'Production'
    """
    for stage in STAGES:
        if stage.lower() == text.lower():
            return stage
    raise Invalid(
        f"Invalid Model Version stage: {text[:80]}", hint=f"stages are {', '.join(STAGES)}", field="stage"
    )


def _is_path(name: str) -> bool:
    """Whether a name would mean another place when it was read as a path."""
    plain = posixpath.normpath(name)
    return plain != name or plain == "." or plain.startswith(("..", "/"))


# --- models ---


def ensure_model(tx: Transaction, name: str, actor: ActorId, at: datetime) -> Model:
    """The model of a name; registered when there is none."""
    found = tx.models.find(name)
    return found if found is not None else create_model(tx, name, actor, at)


def create_model(
    tx: Transaction,
    name: str,
    actor: ActorId,
    at: datetime,
    *,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Model:
    """Register a model that has no version yet.

    Raises:
        AlreadyExists: the name is taken, by a model or a prompt.
        Invalid: the name or a tag cannot be one.
    """
    check_model_name(name)
    check_tags(tags or {})
    if tx.models.find(name) is not None:
        kind = "Prompt" if is_prompt(tx, name) else "Registered Model"
        raise AlreadyExists(f"{kind} (name={name}) already exists")
    made = tx.models.add(
        Model(id=name, actor=actor, created_at=at, changed_at=at, description=description or None)
    )
    tx.model_tags.put(owner(made), tags or {})
    tx.ledger.append(EventDraft(kind="model.created", actor=actor, at=at, subject=node("model", name)))
    return made


def model_of(reader: Reader, name: str) -> Model:
    """The model of a name.

    Raises:
        NotFound: there is none.
        Invalid: the name cannot be one.
    """
    found = reader.models.find(check_model_name(name))
    if found is None:
        raise NotFound(f"Registered Model with name={name} not found")
    return found


def is_prompt(reader: Reader, name: str) -> bool:
    """Whether a model is a prompt."""
    return reader.model_tags.of([name])[name].get(PROMPT, "").lower() == "true"


def describe_model(
    tx: Transaction, model: Model, description: str | None, *, actor: ActorId, at: datetime
) -> Model:
    """Give a model another description."""
    changed = tx.models.change(replace(model, description=description or None, changed_at=at))
    tx.ledger.append(
        EventDraft(
            kind="model.changed",
            actor=actor,
            at=at,
            subject=node("model", model.id),
            note=description or None,
        )
    )
    return changed


def rename_model(tx: Transaction, model: Model, name: str, *, actor: ActorId, at: datetime) -> Model:
    """Call a model something else; its versions, tags and aliases come along.

    Raises:
        AlreadyExists: the name is taken.
        Conflict: a release of it is on record under the name it has.
        Invalid: the name cannot be one.
    """
    check_model_name(name)
    if tx.models.find(name) is not None:
        raise AlreadyExists(f"Registered Model (name={name}) already exists")
    _check_unreleased(tx, model, "renamed")
    fresh = tx.models.add(replace(model, id=name, rev=0, changed_at=at))
    tx.model_tags.put(owner(fresh), tx.model_tags.of([model.id])[model.id])
    for version in _versions(tx, model.id):
        tx.model_versions.change(replace(version, model=name, changed_at=at))
    for alias in _aliases(tx, model.id):
        tx.aliases.remove(alias.id)
        tx.aliases.add(replace(alias, id=f"{name}/{alias.alias}", model=name, rev=0))
    tx.models.remove(model.id)
    tx.ledger.append(
        EventDraft(
            kind="model.changed", actor=actor, at=at, subject=node("model", name), inputs=(node("model", model.id),),
            facts={"renamed_from": model.id},
        )
    )  # fmt: skip
    return fresh


def delete_model(tx: Transaction, model: Model, *, actor: ActorId, at: datetime) -> None:
    """Remove a model with its versions, tags and aliases; its name is free again.

    Raises:
        Conflict: one of its versions was judged or released: what the ledger rests on is not removed.
    """
    _check_unreleased(tx, model, "deleted")
    versions = _versions(tx, model.id)
    for alias in _aliases(tx, model.id):
        tx.aliases.remove(alias.id)
    for version in versions:
        tx.model_versions.remove(version.id)
    tx.models.remove(model.id)
    tx.ledger.append(
        EventDraft(
            kind="model.deleted", actor=actor, at=at, subject=node("model", model.id), facts={"versions": len(versions)}
        )
    )  # fmt: skip


def _check_unreleased(reader: Reader, model: Model, what: str) -> None:
    ids = [version.id for version in _versions(reader, model.id)]
    for start in range(0, len(ids), _PAGE):
        some = ids[start : start + _PAGE]
        if reader.releases.count({"model_version": some}) or reader.verdicts.count({"model_version": some}):
            raise Conflict(
                f"model {model.id!r} cannot be {what}: its verdicts and releases are on record under its name",
                hint="delete single versions instead, or register a model of another name",
            )


def _versions(reader: Reader, model: str) -> list[ModelVersion]:
    """All versions, deleted ones too."""
    found: list[ModelVersion] = []
    while True:
        page = reader.model_versions.select(
            {"model": model}, order=("number",), after=found[-1] if found else None, limit=_PAGE
        )
        found += page
        if len(page) < _PAGE:
            return found


def _aliases(reader: Reader, model: str) -> list[Alias]:
    return reader.aliases.select({"model": model}, order=("alias",), limit=100_000)


# --- versions ---


def version_of(reader: Reader, name: str, number: int | str) -> ModelVersion:
    """A version of a model by its number.

    Raises:
        NotFound: there is none, or it was deleted.
        Invalid: the name or the number cannot be one.
    """
    check_model_name(name)
    try:
        wanted = int(number)
    except ValueError:
        raise Invalid(
            f"Parameter 'version' must be an integer, got '{str(number)[:80]}'", field="version"
        ) from None
    found = reader.model_versions.select({"model": name, "number": wanted, "deleted_at": None}, limit=1) if (
        0 < wanted < 2**53
    ) else []  # fmt: skip
    if not found:
        raise NotFound(f"Model Version (name={name}, version={number}) not found")
    return found[0]


def describe_version(
    tx: Transaction, version: ModelVersion, description: str | None, *, at: datetime
) -> ModelVersion:
    """Give a version another description."""
    return tx.model_versions.change(replace(version, description=description or None, changed_at=at))


def delete_version(tx: Transaction, version: ModelVersion, *, actor: ActorId, at: datetime) -> None:
    """Delete a version and the aliases that point at it. Its number is not given again while the model lives."""
    for alias in tx.aliases.select({"model": version.model, "number": version.number}, limit=100_000):
        delete_alias(tx, version.model, alias.alias, actor=actor, at=at, because="its version was deleted")
    tx.model_versions.change(replace(version, deleted_at=at, changed_at=at))
    touch(tx, version.model, at)
    tx.ledger.append(
        EventDraft(
            kind="model_version.deleted", actor=actor, at=at, subject=node("model_version", version.id),
            facts={"model": version.model, "number": version.number, "digest": version.digest},
        )
    )  # fmt: skip


def touch(tx: Transaction, name: str, at: datetime) -> Model:
    """Note that something of a model changed."""
    return tx.models.change(replace(tx.models.get(name), changed_at=at))


# --- aliases ---


def set_alias(
    tx: Transaction,
    version: ModelVersion,
    alias: str,
    *,
    actor: ActorId,
    at: datetime,
    because: str | None = None,
) -> Alias:
    """Let an alias point at a version. Pointing it where it points already changes nothing.

    Raises:
        Invalid: the alias cannot be one.
    """
    ident = f"{version.model}/{check_alias(alias)}"
    known = tx.aliases.find(ident)
    if known is not None and known.number == version.number:
        return known
    fresh = Alias(
        id=ident, model=version.model, alias=alias, number=version.number, actor=actor, changed_at=at,
        rev=known.rev if known else 0,
    )  # fmt: skip
    moved = tx.aliases.change(fresh) if known else tx.aliases.add(fresh)
    tx.ledger.append(
        EventDraft(
            kind="alias.moved", actor=actor, at=at, subject=node("model", version.model),
            inputs=(node("model_version", version.id),), note=because,
            facts={"alias": alias, "number": version.number, "from": known.number if known else None},
        )
    )  # fmt: skip
    return moved


def delete_alias(
    tx: Transaction, name: str, alias: str, *, actor: ActorId, at: datetime, because: str | None = None
) -> None:
    """Delete an alias; deleting it again changes nothing.

    Raises:
        Invalid: the alias cannot be one.
    """
    known = tx.aliases.find(f"{name}/{readable_alias(alias)}")
    if known is None:
        return
    tx.aliases.remove(known.id)
    tx.ledger.append(
        EventDraft(
            kind="alias.deleted", actor=actor, at=at, subject=node("model", name), note=because,
            facts={"alias": alias, "number": known.number},
        )
    )  # fmt: skip


def aliases_of(reader: Reader, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each model its aliases and the numbers of the versions they point at."""
    found: dict[str, dict[str, int]] = {name: {} for name in names}
    for start in range(0, len(names), _PAGE):
        some = list(names[start : start + _PAGE])
        for row in reader.aliases.select({"model": some}, order=("model", "alias"), limit=100_000):
            found[row.model][row.alias] = row.number
    return found


# --- stages ---


def move_stage(
    tx: Transaction,
    version: ModelVersion,
    stage: Stage,
    *,
    actor: ActorId,
    at: datetime,
    because: str | None = None,
) -> ModelVersion:
    """Put a version into a stage, which is a label for clients."""
    if version.stage == stage:
        return tx.model_versions.change(replace(version, changed_at=at))
    moved = tx.model_versions.change(replace(version, stage=stage, changed_at=at))
    tx.ledger.append(
        EventDraft(
            kind="stage.moved", actor=actor, at=at, subject=node("model", version.model),
            inputs=(node("model_version", version.id),), note=because,
            facts={"stage": stage, "number": version.number, "from": version.stage},
        )
    )  # fmt: skip
    return moved


def archive_others(
    tx: Transaction, version: ModelVersion, stage: Stage, *, actor: ActorId, at: datetime
) -> None:
    """Put all other versions that are in a stage into `Archived`.

    Raises:
        Invalid: nothing is archived from that stage.
    """
    if stage not in ACTIVE:
        raise Invalid(
            f"Model version transition cannot archive existing model versions because '{stage}' is not an Active stage",
            hint=f"active stages are {' and '.join(ACTIVE)}",
            field="archive_existing_versions",
        )
    others = {"model": version.model, "stage": stage, "deleted_at": None}
    for other in tx.model_versions.select(others, order=("number",), limit=100_000):
        if other.id != version.id:
            because = f"version {version.number} took its stage"
            move_stage(tx, other, "Archived", actor=actor, at=at, because=because)
