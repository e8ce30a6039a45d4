"""Registered models and versions over the MLflow wire.

Setting what a policy names is a request to release: `andon.registry.requests` says what that means, and here the client
that asked is given the release's end when it comes within a moment, and told what it waits for when it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from anyio.to_thread import run_sync
from starlette.responses import Response

from andon.core.clock import to_us
from andon.core.entities import Model, ModelVersion, Release, owner
from andon.core.errors import Conflict, Invalid
from andon.core.ids import ActorId
from andon.core.search import Condition, Field, Found, Order, Query
from andon.core.states import IN_PROGRESS
from andon.governance.access import Permission
from andon.registry import models
from andon.registry.clients import (
    RUN_LINK,
    Placed,
    download_uri,
    place,
    register_placed,
    register_prompt,
    says_prompt,
)
from andon.registry.requests import (
    Changed,
    Ruling,
    by_alias,
    check_alias_may_go,
    check_may_leave_stage,
    check_model_may_change,
    check_ruling,
    check_version_may_go,
    latest_of,
    live_of,
    request,
    shown_aliases,
    shown_stage,
    waits_for,
)
from andon.store.ports import Reader, Transaction
from andon.tracking.grammar import parse_filter, parse_order
from andon.web.mlflow.wire import BODY_LIMIT, JSON, Ask, Message, WireEndpoint, read_form

T = TypeVar("T")
Rules = Mapping[str, Ruling]
Task = Callable[[Transaction, Ask, Rules], T]
"""What a transaction does: it gets the form and what rules which model."""

MOMENT_S = 1.0
"""How long a client that asks for a release waits for its end before it is told that it has to."""
_TRIES = 5
_PAGE = 1000
_OWN_TAGS = frozenset({RUN_LINK})
_MODEL_COLUMNS = {"name": "id", "creation_timestamp": "created_at", "last_updated_timestamp": "changed_at"}
_VERSION_COLUMNS = {
    "name": "model", "version_number": "number", "run_id": "run", "source_path": "source",
    "creation_timestamp": "created_at", "last_updated_timestamp": "changed_at",
}  # fmt: skip


# --- forms ---


class Tag(Message):
    key: str = ""
    value: str | None = None


class CreateModel(Message):
    name: str | None = None
    tags: list[Tag] | None = None
    description: str | None = None


class NamedModel(Message):
    name: str | None = None


class UpdateModel(Message):
    name: str | None = None
    description: str | None = None


class RenameModel(Message):
    name: str | None = None
    new_name: str | None = None


class ModelTag(Message):
    name: str | None = None
    key: str | None = None
    value: str | None = None


class Search(Message):
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class Latest(Message):
    name: str | None = None
    stages: list[str] | None = None


class AliasForm(Message):
    name: str | None = None
    alias: str | None = None
    version: str | int | None = None


class CreateVersion(Message):
    name: str | None = None
    source: str | None = None
    run_id: str | None = None
    tags: list[Tag] | None = None
    run_link: str | None = None
    description: str | None = None
    model_id: str | None = None


class NamedVersion(Message):
    name: str | None = None
    version: str | int | None = None


class UpdateVersion(Message):
    name: str | None = None
    version: str | int | None = None
    description: str | None = None


class VersionTag(Message):
    name: str | None = None
    version: str | int | None = None
    key: str | None = None
    value: str | None = None


class Transition(Message):
    name: str | None = None
    version: str | int | None = None
    stage: str | None = None
    archive_existing_versions: bool | None = None


# --- answers ---


class TagAnswer(Message):
    key: str
    value: str


class AliasAnswer(Message):
    alias: str
    version: str


class VersionAnswer(Message):
    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    current_stage: str
    status: str
    description: str | None = None
    user_id: str | None = None
    source: str | None = None
    run_id: str | None = None
    run_link: str | None = None
    model_id: str | None = None
    tags: tuple[TagAnswer, ...] = ()
    aliases: tuple[str, ...] = ()


class ModelAnswer(Message):
    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None
    latest_versions: tuple[VersionAnswer, ...] = ()
    tags: tuple[TagAnswer, ...] = ()
    aliases: tuple[AliasAnswer, ...] = ()


class OneModel(Message):
    registered_model: ModelAnswer


class SomeModels(Message):
    registered_models: tuple[ModelAnswer, ...] = ()
    next_page_token: str | None = None


class OneVersion(Message):
    model_version: VersionAnswer


class SomeVersions(Message):
    model_versions: tuple[VersionAnswer, ...] = ()
    next_page_token: str | None = None


class DownloadUri(Message):
    artifact_uri: str


def tell_versions(reader: Reader, versions: Sequence[ModelVersion], rules: Rules) -> list[VersionAnswer]:
    """Versions as clients see them: the ruled stage and alias are those of what is live."""
    names = sorted({version.model for version in versions})
    aliases = {
        name: _aliases(reader, name, stored, rules)
        for name, stored in models.aliases_of(reader, names).items()
    }
    live = {name: live_of(reader, rules.get(name)) for name in names}
    tags = reader.version_tags.of([version.id for version in versions])
    return [
        _version_answer(version, shown_stage(version, rules.get(version.model), live[version.model]),
                        tags[version.id], aliases[version.model])
        for version in versions
    ]  # fmt: skip


def tell_models(reader: Reader, found: Sequence[Model], rules: Rules) -> list[ModelAnswer]:
    """Models with their tags, aliases and the newest version in each stage."""
    names = [model.id for model in found]
    tags, stored = reader.model_tags.of(names), models.aliases_of(reader, names)
    newest = {name: latest_of(reader, name, (), rules.get(name)) for name in names}
    told = iter(tell_versions(reader, [version for name in names for version in newest[name]], rules))
    return [
        ModelAnswer(
            name=model.id, creation_timestamp=_ms(model.created_at), last_updated_timestamp=_ms(model.changed_at),
            description=model.description, latest_versions=tuple(next(told) for _ in newest[model.id]),
            tags=tuple(TagAnswer(key=key, value=value) for key, value in tags[model.id].items()),
            aliases=tuple(
                AliasAnswer(alias=alias, version=str(number))
                for alias, number in _aliases(reader, model.id, stored[model.id], rules).items()
            ),
        )
        for model in found
    ]  # fmt: skip


def _aliases(reader: Reader, name: str, stored: Mapping[str, int], rules: Rules) -> dict[str, int]:
    return shown_aliases(reader, stored, rules.get(name))


def _version_answer(
    version: ModelVersion, stage: str, tags: Mapping[str, str], aliases: Mapping[str, int]
) -> VersionAnswer:
    return VersionAnswer(
        name=version.model, version=str(version.number), creation_timestamp=_ms(version.created_at),
        last_updated_timestamp=_ms(version.changed_at or version.created_at), current_stage=stage, status="READY",
        description=version.description, user_id=version.claimed_user, source=version.source or download_uri(version),
        run_id=version.run, run_link=tags.get(RUN_LINK), model_id=version.logged_model,
        tags=tuple(TagAnswer(key=key, value=value) for key, value in tags.items() if key not in _OWN_TAGS),
        aliases=tuple(alias for alias, number in aliases.items() if number == version.number),
    )  # fmt: skip


def _ms(at: datetime) -> int:
    return to_us(at) // 1000


# --- how an endpoint works ---


def _ruled(form: type[Message], task: Task[Any]) -> Callable[[Ask], Awaitable[Response]]:
    """An endpoint whose transaction has to know what rules its model. Should that change meanwhile, it is tried again."""
    endpoint = _Form(form)

    async def answer(ask: Ask) -> Response:
        asked = await endpoint.read(ask)
        return respond(await write(asked, task))

    return answer


async def write(ask: Ask, task: Task[T]) -> T:
    """Do a task in a transaction under the rules of now."""
    for left in reversed(range(_TRIES)):
        rules = await run_sync(ask.state.rulings.now)
        try:
            return await asyncio.wrap_future(ask.ws.store.submit(lambda tx: task(tx, ask, rules)))  # noqa: B023
        except Changed:
            if not left:
                raise
    raise AssertionError("it was tried at least once")


def respond(value: object) -> Response:
    """A success."""
    body = b"{}" if value is None else msgspec.json.encode(value)
    return Response(body, headers={"content-type": JSON[0][1].decode()})


class _Form:
    """Reads one form; what `read_form` needs to know of an endpoint."""

    def __init__(self, form: type[Message]) -> None:
        self.form = form
        self.limit = BODY_LIMIT
        self.decoder = msgspec.json.Decoder(form, strict=False)

    async def read(self, ask: Ask) -> Ask:
        """The request with its form read."""
        form = await read_form(self, ask.request)  # type: ignore[arg-type]  # it needs form, limit and decoder only
        return Ask(ask.state, ask.actor, form, ask.path, ask.request)


def _looked(look: Callable[[Reader, Ask, Rules], T]) -> Callable[[Ask], T]:
    """An endpoint that reads, under the rules of now."""

    def read(ask: Ask) -> T:
        rules = ask.state.rulings.now()
        return ask.ws.store.read(lambda reader: look(reader, ask, rules))

    return read


def _who(ask: Ask) -> tuple[ActorId, datetime]:
    return ask.actor.id, ask.ws.clock.now()


def _need(value: str | int | None, name: str) -> str:
    """A parameter that must be there."""
    if value is None or value == "":
        raise Invalid(f"Missing value for required parameter '{name}'", field=name)
    return str(value)


def _texts(tags: Sequence[Tag] | None) -> dict[str, str]:
    return {tag.key: tag.value or "" for tag in tags or ()}


# --- models ---


def create_model(tx: Transaction, ask: Ask, rules: Rules) -> OneModel:
    form: CreateModel = ask.form
    actor, at = _who(ask)
    made = models.create_model(
        tx, _need(form.name, "name"), actor, at, description=form.description, tags=_texts(form.tags)
    )
    return OneModel(registered_model=tell_models(tx, [made], rules)[0])


def get_model(reader: Reader, ask: Ask, rules: Rules) -> OneModel:
    found = models.model_of(reader, _need(ask.form.name, "name"))
    return OneModel(registered_model=tell_models(reader, [found], rules)[0])


def update_model(tx: Transaction, ask: Ask, rules: Rules) -> OneModel:
    form: UpdateModel = ask.form
    actor, at = _who(ask)
    model = models.model_of(tx, _need(form.name, "name"))
    changed = models.describe_model(tx, model, form.description, actor=actor, at=at)
    return OneModel(registered_model=tell_models(tx, [changed], rules)[0])


def rename_model(tx: Transaction, ask: Ask, rules: Rules) -> OneModel:
    form: RenameModel = ask.form
    actor, at = _who(ask)
    model = models.model_of(tx, _need(form.name, "name"))
    check_model_may_change(model, check_ruling(tx, model.id, rules.get(model.id)), "renamed")
    renamed = models.rename_model(tx, model, _need(form.new_name, "new_name"), actor=actor, at=at)
    return OneModel(registered_model=tell_models(tx, [renamed], rules)[0])


def delete_model(tx: Transaction, ask: Ask, rules: Rules) -> None:
    actor, at = _who(ask)
    model = models.model_of(tx, _need(ask.form.name, "name"))
    check_model_may_change(model, check_ruling(tx, model.id, rules.get(model.id)), "deleted")
    models.delete_model(tx, model, actor=actor, at=at)


def set_model_tag(ask: Ask) -> Callable[[Transaction], None]:
    form: ModelTag = ask.form
    pair = models.check_tags({_need(form.key, "key"): form.value or ""})

    def work(tx: Transaction) -> None:
        model = models.model_of(tx, _need(form.name, "name"))
        tx.model_tags.put(owner(model), pair)

    return work


def delete_model_tag(ask: Ask) -> Callable[[Transaction], None]:
    form: ModelTag = ask.form
    key = _need(form.key, "key")
    models.check_tags({key: ""})

    def work(tx: Transaction) -> None:
        tx.model_tags.remove(owner(models.model_of(tx, _need(form.name, "name"))), key)

    return work


def search_models(reader: Reader, ask: Ask, rules: Rules) -> SomeModels:
    form: Search = ask.form
    found = _search(reader, "model", form, _MODEL_COLUMNS, default=100, most=1000, ties=(("id", False),))
    rows = {str(row.id): row for start in range(0, len(found.ids), _PAGE)
            for row in reader.models.select({"id": list(found.ids[start : start + _PAGE])})}  # fmt: skip
    told = tell_models(reader, [rows[ident] for ident in found.ids if ident in rows], rules)
    return SomeModels(registered_models=tuple(told), next_page_token=found.next)


def latest(reader: Reader, ask: Ask, rules: Rules) -> SomeVersions:
    form: Latest = ask.form
    model = models.model_of(reader, _need(form.name, "name"))
    found = latest_of(reader, model.id, form.stages or (), rules.get(model.id))
    return SomeVersions(model_versions=tuple(tell_versions(reader, found, rules)))


# --- versions ---


async def create_version(ask: Ask) -> Response:
    asked = await _CREATE_VERSION.read(ask)
    form: CreateVersion = asked.form
    name, source, tags = _need(form.name, "name"), _need(form.source, "source"), _texts(form.tags)
    models.check_model_name(name)
    placed, tree = None, None
    if not says_prompt(tags):
        placed = await run_sync(_place, asked, source)
        files = placed.tree()
        if files is not None:
            tree = await run_sync(asked.ws.blobs.put, files.encode())

    def task(tx: Transaction, ask: Ask, rules: Rules) -> OneVersion:
        actor, at = _who(ask)
        model = models.model_of(tx, name)
        if placed is None:
            made = register_prompt(
                tx, model, source, actor=actor, at=at, description=form.description, tags=tags
            )
        else:
            made = register_placed(
                tx, model, placed, tree, actor=actor, at=at, description=form.description, tags=tags,
                run_link=form.run_link,
            )  # fmt: skip
        return OneVersion(model_version=tell_versions(tx, [made], rules)[0])

    return respond(await write(asked, task))


def _place(ask: Ask, source: str) -> Placed:
    rules, form = ask.state.rulings.now(), ask.form
    return ask.ws.store.read(
        lambda reader: place(reader, source, run=form.run_id, logged_model=form.model_id, rulings=rules)
    )


def get_version(reader: Reader, ask: Ask, rules: Rules) -> OneVersion:
    return OneVersion(model_version=tell_versions(reader, [_version(reader, ask)], rules)[0])


def update_version(tx: Transaction, ask: Ask, rules: Rules) -> OneVersion:
    _, at = _who(ask)
    changed = models.describe_version(tx, _version(tx, ask), ask.form.description, at=at)
    return OneVersion(model_version=tell_versions(tx, [changed], rules)[0])


def delete_version(tx: Transaction, ask: Ask, _: Rules) -> None:
    actor, at = _who(ask)
    version = _version(tx, ask)
    check_version_may_go(tx, version)
    models.delete_version(tx, version, actor=actor, at=at)


def set_version_tag(ask: Ask) -> Callable[[Transaction], None]:
    form: VersionTag = ask.form
    pair = models.check_tags({_tag_key(form.key): form.value or ""})
    return lambda tx: tx.version_tags.put(owner(_version(tx, ask)), pair)


def delete_version_tag(ask: Ask) -> Callable[[Transaction], None]:
    key = _tag_key(ask.form.key)
    models.check_tags({key: ""})

    def work(tx: Transaction) -> None:
        tx.version_tags.remove(owner(_version(tx, ask)), key)

    return work


def download(reader: Reader, ask: Ask, _: Rules) -> DownloadUri:
    return DownloadUri(artifact_uri=download_uri(_version(reader, ask)))


def search_versions(reader: Reader, ask: Ask, rules: Rules) -> SomeVersions:
    form: Search = ask.form
    ties = (("changed_at", True), ("model", False), ("number", True)) if not form.order_by else (
        ("model", False), ("number", True))  # fmt: skip
    found = _search(reader, "model_version", form, _VERSION_COLUMNS, default=10_000, most=200_000, ties=ties)
    rows = {str(row.id): row for start in range(0, len(found.ids), _PAGE)
            for row in reader.model_versions.select({"id": list(found.ids[start : start + _PAGE])})}  # fmt: skip
    told = tell_versions(reader, [rows[ident] for ident in found.ids if ident in rows], rules)
    return SomeVersions(model_versions=tuple(told), next_page_token=found.next)


def _version(reader: Reader, ask: Ask) -> ModelVersion:
    return models.version_of(reader, _need(ask.form.name, "name"), _need(ask.form.version, "version"))


def _tag_key(key: str | None) -> str:
    if key in _OWN_TAGS:
        raise Invalid(f"the tag {key!r} is set by the server alone", field="key")
    return _need(key, "key")


def _search(
    reader: Reader,
    noun: Literal["model", "model_version"],
    form: Search,
    columns: Mapping[str, str],
    *,
    default: int,
    most: int,
    ties: Sequence[tuple[str, bool]],
) -> Found:
    """A page of ids. Prompts are left out unless the filter asks for them."""
    limit = default if form.max_results is None else form.max_results
    if not 0 < limit <= most:
        raise Invalid(
            f"Invalid value {limit} for parameter 'max_results'",
            hint=f"ask for 1 to {most:,}",
            field="max_results",
        )
    where = [_on_column(each, columns) for each in parse_filter(noun, form.filter or "")]
    order = [
        msgspec.structs.replace(each, field=_column(each.field, columns))
        for each in parse_order(noun, form.order_by or ())
    ]
    named = {each.field.key for each in order}
    order += [Order(Field("attribute", key), down) for key, down in ties if key not in named]
    query = Query(
        noun=noun,
        where=tuple(_about_prompts(where)),
        order=tuple(order),
        limit=limit,
        after=form.page_token or None,
    )
    return reader.search(query)


def _on_column(condition: Condition, columns: Mapping[str, str]) -> Condition:
    return msgspec.structs.replace(condition, field=_column(condition.field, columns))


def _column(field: Field, columns: Mapping[str, str]) -> Field:
    return Field("attribute", columns[field.key]) if field.kind == "attribute" else field


def _about_prompts(where: Sequence[Condition]) -> list[Condition]:
    """The conditions with what MLflow means by those on the tag of prompts: all prompts, or everything but them."""
    asked = [each for each in where if each.field == _PROMPT]
    others = [each for each in where if each.field != _PROMPT]
    if asked:
        first, text = asked[0], str(asked[0].value).lower()
        if (first.op, text) in (("=", "true"), ("!=", "false")):
            return list(where)
    return [*others, Condition(_PROMPT, "IS NULL")]


_PROMPT = Field("tag", models.PROMPT)


# --- aliases and stages ---


async def set_alias(ask: Ask) -> Response:
    asked = await _ALIAS.read(ask)
    form: AliasForm = asked.form
    name, alias = _need(form.name, "name"), models.check_alias(_need(form.alias, "alias"))
    await _check_release(asked, lambda rules: name in rules and rules[name].release.alias == alias)

    def task(tx: Transaction, ask: Ask, rules: Rules) -> Release | None:
        actor, at = _who(ask)
        version = _version(tx, ask)
        ruling = check_ruling(tx, name, rules.get(name))
        if ruling is not None and ruling.release.alias == alias:
            return request(tx, ruling, version, actor=actor, at=at)
        models.set_alias(tx, version, alias, actor=actor, at=at)
        return None

    release = await write(asked, task)
    if release is not None:
        await _settle(asked, release)
    return respond(None)


def delete_alias(tx: Transaction, ask: Ask, rules: Rules) -> None:
    actor, at = _who(ask)
    alias = models.readable_alias(_need(ask.form.alias, "alias"))
    model = models.model_of(tx, _need(ask.form.name, "name"))
    ruling = check_ruling(tx, model.id, rules.get(model.id))
    if ruling is not None and ruling.release.alias == alias:
        check_alias_may_go(tx, ruling)
    models.delete_alias(tx, model.id, alias, actor=actor, at=at)


def get_alias(reader: Reader, ask: Ask, rules: Rules) -> OneVersion:
    name, alias = _need(ask.form.name, "name"), _need(ask.form.alias, "alias")
    found = by_alias(reader, name, alias, rules.get(name))
    return OneVersion(model_version=tell_versions(reader, [found], rules)[0])


async def transition(ask: Ask) -> Response:
    asked = await _TRANSITION.read(ask)
    form: Transition = asked.form
    name, stage = _need(form.name, "name"), models.read_stage(_need(form.stage, "stage"))
    await _check_release(asked, lambda rules: name in rules and rules[name].stage == stage)

    def task(tx: Transaction, ask: Ask, rules: Rules) -> Release | None:
        actor, at = _who(ask)
        version = _version(tx, ask)
        ruling = check_ruling(tx, name, rules.get(name))
        if ruling is not None and ruling.stage == stage:
            release = request(tx, ruling, version, actor=actor, at=at)
            if form.archive_existing_versions and release.state in IN_PROGRESS:
                _archive_live(tx, ruling, version, actor, at)
            return release
        if form.archive_existing_versions:
            models.archive_others(tx, version, stage, actor=actor, at=at)
        if ruling is not None:
            check_may_leave_stage(tx, ruling, version)
        models.move_stage(tx, version, stage, actor=actor, at=at)
        models.touch(tx, name, at)
        return None

    release = await write(asked, task)
    if release is not None:
        await _settle(asked, release)
    return respond(await run_sync(_looked(get_version), asked))


def _archive_live(
    tx: Transaction, ruling: Ruling, successor: ModelVersion, actor: ActorId, at: datetime
) -> None:
    """Let the live version be archived as soon as its successor is live: until then it is shown in the ruled stage."""
    live = live_of(tx, ruling)
    if live is not None and live.model_version != successor.id:
        because = f"version {successor.number} was asked to take its stage"
        models.move_stage(
            tx, tx.model_versions.get(live.model_version), "Archived", actor=actor, at=at, because=because
        )


async def _check_release(ask: Ask, asks: Callable[[Rules], bool]) -> None:
    """Refuse who may not release, when that is what the request means.

    Raises:
        Forbidden: the role does not hold the permission.
    """
    if asks(await run_sync(ask.state.rulings.now)):
        principal = ask.request.scope["andon"].principal
        await run_sync(ask.state.permit, principal, Permission.RELEASE, ask.request.url.path)


async def _settle(ask: Ask, release: Release) -> None:
    """Wait a moment for the release to be live, and say what it waits for when it is not.

    Raises:
        Conflict: it was refused; or it has to wait, and the policy does not let the client go on meanwhile.
    """
    until = asyncio.get_running_loop().time() + MOMENT_S
    with ask.state.feed.listener():
        while True:
            seq, now, words, accepts = await run_sync(_stand, ask, release)
            left = until - asyncio.get_running_loop().time()
            if now.state not in ("requested", "judging", "rolling") or left <= 0:
                break
            await ask.state.feed.after(seq, limit_s=left)
    if now.state == "live":
        return
    if accepts and now.state in ("requested", "judging", "waiting", "rolling"):
        return
    raise Conflict(words)


def _stand(ask: Ask, release: Release) -> tuple[int, Release, str, bool]:
    rules = ask.state.rulings.now()

    def look(reader: Reader) -> tuple[int, Release, str, bool]:
        now = reader.releases.get(release.id)
        ruling = rules.get(now.line)
        accepts = ruling is not None and ruling.release.waiting == "accept"
        return reader.ledger.head()[0], now, waits_for(reader, now), accepts

    return ask.ws.store.read(look)


_ALIAS, _TRANSITION, _CREATE_VERSION = _Form(AliasForm), _Form(Transition), _Form(CreateVersion)

READ, RUN, RELEASE = Permission.READ, Permission.RUN, Permission.RELEASE
ENDPOINTS: tuple[WireEndpoint, ...] = (
    WireEndpoint(method="POST", path="/registered-models/create", permission=RUN, summary="Register a model.",
                 form=CreateModel, raw=_ruled(CreateModel, create_model)),
    WireEndpoint(method="GET", path="/registered-models/get", permission=READ, form=NamedModel, read=_looked(get_model),
                 summary="A model with its tags, aliases and newest versions."),
    WireEndpoint(method="PATCH", path="/registered-models/update", permission=RUN, form=UpdateModel,
                 raw=_ruled(UpdateModel, update_model), summary="Describe a model."),
    WireEndpoint(method="POST", path="/registered-models/rename", permission=RUN, form=RenameModel,
                 raw=_ruled(RenameModel, rename_model), summary="Rename a model that no line rules."),
    WireEndpoint(method="DELETE", path="/registered-models/delete", permission=RELEASE, form=NamedModel,
                 raw=_ruled(NamedModel, delete_model), summary="Delete a model that no line rules, with its versions."),
    WireEndpoint(method="GET", path="/registered-models/search", permission=READ, form=Search,
                 read=_looked(search_models), summary="Search models."),
    WireEndpoint(method="GET", path="/registered-models/list", permission=READ, form=Search,
                 read=_looked(search_models), summary="Models by name, for clients before 2.0."),
    WireEndpoint(method="POST", path="/registered-models/set-tag", permission=RUN, form=ModelTag, write=set_model_tag,
                 summary="Tag a model."),
    WireEndpoint(method="DELETE", path="/registered-models/delete-tag", permission=RUN, form=ModelTag,
                 write=delete_model_tag, summary="Delete a model's tag."),
    WireEndpoint(method="POST", path="/registered-models/get-latest-versions", permission=READ, form=Latest,
                 read=_looked(latest), summary="The newest version in each stage."),
    WireEndpoint(method="GET", path="/registered-models/get-latest-versions", permission=READ, form=Latest,
                 read=_looked(latest), summary="The newest version in each stage."),
    WireEndpoint(method="POST", path="/registered-models/alias", permission=RUN, form=AliasForm, raw=set_alias,
                 summary="Point an alias at a version, or ask for its release."),
    WireEndpoint(method="DELETE", path="/registered-models/alias", permission=RUN, form=AliasForm,
                 raw=_ruled(AliasForm, delete_alias), summary="Delete an alias that does not say what is live."),
    WireEndpoint(method="GET", path="/registered-models/alias", permission=READ, form=AliasForm,
                 read=_looked(get_alias), summary="The version that an alias means."),
    WireEndpoint(method="POST", path="/model-versions/create", permission=RUN, form=CreateVersion, raw=create_version,
                 summary="Make the next version of a model."),
    WireEndpoint(method="GET", path="/model-versions/get", permission=READ, form=NamedVersion,
                 read=_looked(get_version), summary="A version."),
    WireEndpoint(method="PATCH", path="/model-versions/update", permission=RUN, form=UpdateVersion,
                 raw=_ruled(UpdateVersion, update_version), summary="Describe a version."),
    WireEndpoint(method="DELETE", path="/model-versions/delete", permission=RELEASE, form=NamedVersion,
                 raw=_ruled(NamedVersion, delete_version), summary="Delete a version that is not live."),
    WireEndpoint(method="GET", path="/model-versions/search", permission=READ, form=Search,
                 read=_looked(search_versions), summary="Search versions."),
    WireEndpoint(method="GET", path="/model-versions/get-download-uri", permission=READ, form=NamedVersion,
                 read=_looked(download), summary="Where a version's files are, for good."),
    WireEndpoint(method="POST", path="/model-versions/set-tag", permission=RUN, form=VersionTag, write=set_version_tag,
                 summary="Tag a version."),
    WireEndpoint(method="DELETE", path="/model-versions/delete-tag", permission=RUN, form=VersionTag,
                 write=delete_version_tag, summary="Delete a version's tag."),
    WireEndpoint(method="POST", path="/model-versions/transition-stage", permission=RUN, form=Transition, raw=transition,
                 summary="Put a version into a stage, or ask for its release."),
)  # fmt: skip
