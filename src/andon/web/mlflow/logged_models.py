"""Logged models over the MLflow wire: MLflow 3's own kind of thing, with the files that it is made of."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from anyio.to_thread import run_sync
from msgspec import field
from starlette.responses import Response

from andon.core.clock import to_us
from andon.core.entities import ModelPoint
from andon.core.errors import Invalid
from andon.core.ids import LoggedModelId, new_id
from andon.core.search import DatasetScope, Query
from andon.core.states import LoggedModelState
from andon.governance.access import Permission
from andon.store.ports import Reader, Transaction
from andon.tracking import limits
from andon.tracking import logged_models as verbs
from andon.tracking.artifacts import check_path, model_root
from andon.tracking.grammar import logged_model_order
from andon.tracking.runs import random_name
from andon.tracking.searching import check_page, query
from andon.web.mlflow.artifacts import Files, Place, list_below, local, place, send_artifact
from andon.web.mlflow.wire import Ask, Message, WireEndpoint, Work, number

MOST_FOUND = 1000
STATUS: Mapping[LoggedModelState, str] = {
    "pending": "LOGGED_MODEL_PENDING",
    "ready": "LOGGED_MODEL_READY",
    "failed": "LOGGED_MODEL_UPLOAD_FAILED",
}
_STATES: Mapping[str, LoggedModelState] = {
    **{said: state for state, said in STATUS.items()},
    **{str(index): state for index, state in enumerate(STATUS, start=1)},
}
_RNG = random.SystemRandom()


# --- what is answered ---


class KeyValue(Message):
    """A param or tag, as it is sent and answered."""

    key: str | None = None
    value: str | None = None


class Metric(Message):
    """What a run measured of a model, maybe on a dataset."""

    key: str
    value: float | str
    timestamp: int
    step: int
    model_id: str
    run_id: str
    dataset_name: str | None = None
    dataset_digest: str | None = None


class Info(Message):
    """A logged model without what was logged of it."""

    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    model_type: str | None = None
    source_run_id: str | None = None
    status_message: str | None = None
    tags: list[KeyValue] = field(default_factory=list)


class Data(Message):
    """What was logged of a model."""

    params: list[KeyValue] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)


class Told(Message):
    """A logged model."""

    info: Info
    data: Data


class Answer(Message):
    """One logged model."""

    model: Told


class Page(Message):
    """Logged models, and where the next page begins."""

    models: list[Told] = field(default_factory=list)
    next_page_token: str | None = None


def tell(view: verbs.LoggedModelView) -> Told:
    """A logged model as clients read it."""
    model = view.model
    return Told(
        info=Info(
            model_id=model.id, experiment_id=model.experiment, name=model.name, status=STATUS[model.state],
            creation_timestamp_ms=to_us(model.created_at) // 1000,
            last_updated_timestamp_ms=to_us(model.changed_at) // 1000, artifact_uri=_place(view).address,
            model_type=model.model_type, source_run_id=model.run, status_message=model.state_message,
            tags=_pairs(view.tags),
        ),
        data=Data(params=_pairs(view.params), metrics=[_metric(point) for point in view.metrics]),
    )  # fmt: skip


def _metric(point: ModelPoint) -> Metric:
    return Metric(
        key=point.key, value=number(point.value), timestamp=point.at_ms, step=point.step, model_id=point.model,
        run_id=point.run, dataset_name=point.dataset_name, dataset_digest=point.dataset_digest,
    )  # fmt: skip


def _pairs(texts: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value) for key, value in texts.items()]


def _place(view: verbs.LoggedModelView) -> Place:
    return place(view.location, model_root(view.model.experiment, view.model.id))


def _view(reader: Reader, ident: str, *, deleted: bool = False) -> verbs.LoggedModelView:
    verbs.find_logged_model(reader, ident, deleted=deleted)
    return verbs.views(reader, [ident])[0]


# --- made, finished, deleted ---


class Create(Message):
    """A model that a client begins to save."""

    experiment_id: str | None = None
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[KeyValue] | None = None
    tags: list[KeyValue] | None = None


def _create(ask: Ask) -> Work:
    form: Create = ask.form
    if not form.experiment_id:
        raise limits.missing("experiment_id")
    name = verbs.check_model_name(form.name) if form.name else random_name(_RNG)
    more: dict[str, Any] = {
        "run": form.source_run_id or None,
        "model_type": limits.check_text(form.model_type or "", verbs.LONGEST_NAME, "model_type") or None,
        "params": _params(form.params),
        "tags": _tags(form.tags),
        "ident": LoggedModelId(new_id("logged_model")),
    }
    experiment, at, actor = form.experiment_id, ask.ws.clock.now(), ask.actor.id

    def work(tx: Transaction) -> Answer:
        made = verbs.create_logged_model(tx, experiment, name, actor=actor, at=at, **more)
        return Answer(model=tell(_view(tx, made.id)))

    return work


def _params(given: Sequence[KeyValue] | None) -> dict[str, str]:
    pairs = [
        (_key(each.key, f"params[{index}].key"), each.value or "") for index, each in enumerate(given or ())
    ]
    limits.once(key for key, _ in pairs)
    return {key: limits.cut(value, limits.PARAM_VALUE) for key, value in pairs}


def _tags(given: Sequence[KeyValue] | None) -> dict[str, str]:
    return {
        _tag(each.key, f"tags[{index}].key"): limits.cut(each.value or "", limits.TAG_VALUE)
        for index, each in enumerate(given or ())
    }


def _key(key: str | None, path: str) -> str:
    """A key; of logged models MLflow asks only that there is one, and that it is short."""
    if not key:
        raise limits.missing(path)
    return limits.check_text(key, limits.KEY, path)


def _tag(key: str | None, path: str) -> str:
    found = _key(key, path)
    if found.startswith("andon."):
        raise Invalid(f"the tag {found!r} is Andon's own to set", hint="use another prefix", field=path)
    return found


class Get(Message):
    """Whether a deleted model may be answered."""

    allow_deleted: bool = False


def _get(ask: Ask) -> Answer:
    view = ask.ws.store.read(
        lambda reader: _view(reader, ask.path["model_id"], deleted=ask.form.allow_deleted)
    )
    return Answer(model=tell(view))


class Finish(Message):
    """How saving a model went, by MLflow's name or number of it."""

    status: str | int | None = None


def _finish(ask: Ask) -> Work:
    state = _STATES.get(str(ask.form.status))
    if state is None:
        raise Invalid(
            f"Invalid value {str(ask.form.status)[:40]!r} for parameter 'status'",
            hint=f"it is one of {', '.join(STATUS.values())}",
            field="status",
        )
    ident, at = ask.path["model_id"], ask.ws.clock.now()

    def work(tx: Transaction) -> Answer:
        verbs.finish_logged_model(tx, ident, state, at=at)
        return Answer(model=tell(_view(tx, ident)))

    return work


def _delete(ask: Ask) -> Work:
    ident, at, actor = ask.path["model_id"], ask.ws.clock.now(), ask.actor.id
    return lambda tx: verbs.delete_logged_model(tx, ident, actor=actor, at=at)


class Params(Message):
    """Params to be added."""

    params: list[KeyValue] | None = None


def _add_params(ask: Ask) -> Work:
    ident, params = ask.path["model_id"], _params(ask.form.params)
    return lambda tx: verbs.add_model_params(tx, ident, params)


class Tags(Message):
    """Tags to be set."""

    tags: list[KeyValue] | None = None


def _set_tags(ask: Ask) -> Work:
    ident, tags = ask.path["model_id"], _tags(ask.form.tags)
    return lambda tx: verbs.set_model_tags(tx, ident, tags)


def _delete_tag(ask: Ask) -> Work:
    ident, key = ask.path["model_id"], ask.path["key"]
    return lambda tx: verbs.delete_model_tag(tx, ident, key)


# --- searched ---


class Dataset(Message):
    """A dataset that metrics were measured on."""

    dataset_name: str | None = None
    dataset_digest: str | None = None


class OrderBy(Message):
    """One key of an order."""

    field_name: str | None = None
    ascending: bool | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class Search(Message):
    """What to look for."""

    experiment_ids: list[str] | None = None
    filter: str | None = None
    datasets: list[Dataset] | None = None
    order_by: list[OrderBy] | None = None
    max_results: int | None = None
    page_token: str | None = None


def _search(ask: Ask) -> Page:
    asked = _query(ask.form)

    def look(reader: Reader) -> Page:
        found = reader.search(asked)
        return Page(
            models=[tell(view) for view in verbs.views(reader, found.ids)], next_page_token=found.next
        )

    return ask.ws.store.read(look)


def _query(form: Search) -> Query:
    if not form.experiment_ids:
        raise limits.missing("experiment_ids")
    order = []
    for each in form.order_by or ():
        if not each.field_name:
            raise limits.missing("order_by.field_name")
        order.append(
            logged_model_order(
                each.field_name, each.ascending is not False, each.dataset_name, each.dataset_digest
            )
        )
    return query(
        "logged_model", form.filter, order, scope=form.experiment_ids,
        limit=check_page(form.max_results or None, default=100, most=MOST_FOUND), page_token=form.page_token,
        datasets=[_dataset(each) for each in form.datasets or ()],
    )  # fmt: skip


def _dataset(given: Dataset) -> DatasetScope:
    if not given.dataset_name:
        raise Invalid("`dataset_name` in the `datasets` clause must be specified", field="datasets")
    return DatasetScope(given.dataset_name, given.dataset_digest or None)


# --- files ---


class Folder(Message):
    """Which folder of a model to list."""

    artifact_directory_path: str | None = None
    page_token: str | None = None


def _list(ask: Ask) -> Files:
    return list_below(ask, _place_of(ask), ask.form.artifact_directory_path, ask.form.page_token)


async def _file(ask: Ask) -> Response:
    given = ask.request.query_params.get("artifact_file_path")
    if not given:
        raise limits.missing("artifact_file_path")
    below = check_path(given)
    where = await run_sync(_place_of, ask)
    return await send_artifact(ask, f"{local(where)}/{below}")


def _place_of(ask: Ask) -> Place:
    return _place(ask.ws.store.read(lambda reader: _view(reader, ask.path["model_id"])))


_ONE = "/logged-models/{model_id}"

ENDPOINTS = (
    WireEndpoint(
        method="POST", path="/logged-models", permission=Permission.RUN, form=Create, write=_create,
        summary="Begin to save a model.",
    ),
    WireEndpoint(
        method="POST", path="/logged-models/search", permission=Permission.READ, form=Search, read=_search,
        summary="Models by filter, in order, in pages.",
    ),
    WireEndpoint(
        method="GET", path=_ONE, permission=Permission.READ, form=Get, read=_get, summary="A model.",
    ),
    WireEndpoint(
        method="PATCH", path=_ONE, permission=Permission.RUN, form=Finish, write=_finish,
        summary="Say how saving a model went.",
    ),
    WireEndpoint(
        method="DELETE", path=_ONE, permission=Permission.RUN, write=_delete, summary="Delete a model.",
    ),
    WireEndpoint(
        method="POST", path=f"{_ONE}/params", permission=Permission.RUN, form=Params, write=_add_params,
        summary="Add params to a model.",
    ),
    WireEndpoint(
        method="PATCH", path=f"{_ONE}/tags", permission=Permission.RUN, form=Tags, write=_set_tags,
        summary="Set tags of a model.",
    ),
    WireEndpoint(
        method="DELETE", path=f"{_ONE}/tags/{{key:path}}", permission=Permission.RUN, write=_delete_tag,
        summary="Remove a tag of a model.",
    ),
    WireEndpoint(
        method="GET", path=f"{_ONE}/artifacts/directories", permission=Permission.READ, form=Folder, read=_list,
        summary="What a folder of a model's files holds.",
    ),
    WireEndpoint(
        method="GET", path=f"{_ONE}/artifacts/files", permission=Permission.READ, raw=_file,
        summary="A file of a model.",
    ),
)  # fmt: skip
