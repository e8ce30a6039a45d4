"""Runs over the MLflow wire: begun, written to, read, searched, and the histories of their metrics."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import field

from andon.core.clock import to_us
from andon.core.entities import ModelPoint, Point, Run, RunInput, RunModel
from andon.core.errors import Invalid
from andon.core.ids import LoggedModelId, RunId, new_id
from andon.core.states import RunState
from andon.governance.access import Permission
from andon.store.ports import Reader, Transaction
from andon.tracking import experiments, inputs, limits, searching
from andon.tracking import runs as verbs
from andon.web.mlflow import histories
from andon.web.mlflow.experiments import artifact_root
from andon.web.mlflow.forms import (
    KeyValue,
    Metric,
    Pair,
    RunForm,
    experiment_id,
    known_id,
    pairs,
    run_id,
    view,
)
from andon.web.mlflow.wire import Ask, BadRequest, Message, WireEndpoint, Work, number

_STATES: Mapping[str, RunState] = {
    "RUNNING": "running", "SCHEDULED": "queued", "FINISHED": "finished", "FAILED": "failed", "KILLED": "killed",
    "1": "running", "2": "queued", "3": "finished", "4": "failed", "5": "killed",
}  # fmt: skip
_RNG = random.SystemRandom()
INPUTS_LIMIT = 32 * 1024 * 1024
"""A dataset's profile alone may have 16 MB."""


# --- what is answered ---


class RunInfo(Message, gc=False):
    """A run without what it logged. Clients of either age find its id."""

    run_id: str
    run_uuid: str
    run_name: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    artifact_uri: str
    lifecycle_stage: str
    end_time: int | None = None


class RunData(Message):
    """What a run logged; of each metric the latest point."""

    metrics: list[Metric] = field(default_factory=list)
    params: list[KeyValue] = field(default_factory=list)
    tags: list[KeyValue] = field(default_factory=list)


class DatasetTold(Message):
    """A dataset as a client described it."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


class DatasetInput(Message):
    """A dataset that a run used, and what for."""

    dataset: DatasetTold
    tags: list[KeyValue] = field(default_factory=list)


class ModelInput(Message, gc=False):
    """A logged model that a run used."""

    model_id: str


class ModelOutput(Message, gc=False):
    """A logged model that a run made."""

    model_id: str
    step: int


class RunInputs(Message):
    """What a run used."""

    dataset_inputs: list[DatasetInput] = field(default_factory=list)
    model_inputs: list[ModelInput] = field(default_factory=list)


class RunOutputs(Message):
    """What a run made."""

    model_outputs: list[ModelOutput] = field(default_factory=list)


class RunTold(Message):
    """A whole run."""

    info: RunInfo
    data: RunData
    inputs: RunInputs
    outputs: RunOutputs | None = None


def info(run: Run, location: str | None) -> RunInfo:
    """What a run is."""
    name = run.name or (run.line if run.line is not None else "") or ""
    return RunInfo(
        run_id=run.id, run_uuid=run.id, run_name=name, experiment_id=run.experiment, user_id=run.claimed_user or "",
        status=searching.RUN_STATUS[run.state], start_time=to_us(run.started_at or run.created_at) // 1000,
        end_time=None if run.finished_at is None else to_us(run.finished_at) // 1000,
        artifact_uri=f"{artifact_root(run.experiment, location)}/{run.id}/artifacts",
        lifecycle_stage="active" if run.deleted_at is None else "deleted",
    )  # fmt: skip


def _latest(points: Mapping[str, Point]) -> list[Metric]:
    return [
        Metric(key=each.key, value=number(each.value), timestamp=each.at_ms, step=each.step)
        for each in points.values()
    ]


def _inputs(used: Sequence[RunInput], models: Sequence[RunModel]) -> RunInputs:
    return RunInputs(
        dataset_inputs=[
            DatasetInput(
                dataset=DatasetTold(
                    name=each.name, digest=each.digest, source_type=each.source_type, source=each.source, schema=each.schema,
                    profile=each.profile,
                ),
                tags=pairs(each.tags),
            )
            for each in used
        ],
        model_inputs=[ModelInput(model_id=each.model) for each in models if each.direction == "input"],
    )  # fmt: skip


def _outputs(models: Sequence[RunModel]) -> RunOutputs:
    return RunOutputs(
        model_outputs=[
            ModelOutput(model_id=each.model, step=each.step) for each in models if each.direction == "output"
        ]
    )


# --- begun, changed, deleted ---


def tags_of(given: Sequence[Pair] | None) -> dict[str, str]:
    """Tags of a request, by key; the last of a key counts, and long values are cut.

    Raises:
        Invalid: a key is none, or is kept for Andon's own notes.
    """
    return {
        check_tag(tag.key, f"tags[{index}].key"): limits.cut(tag.value or "", limits.TAG_VALUE)
        for index, tag in enumerate(given or ())
    }


def check_tag(key: str | None, path: str = "key") -> str:
    """A tag's key, if clients may set it.

    Raises:
        Invalid: it is no key, or begins with `andon.`: what Andon says of a run nobody else can say.
    """
    found = limits.check_key(key, path)
    if found.startswith("andon."):
        raise Invalid(f"the tag {found!r} is Andon's own to set", hint="use another prefix", field=path)
    return found


class CreateRun(Message):
    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: int | None = None
    tags: list[Pair] | None = None


class RunAnswer(Message):
    run: RunTold


def _create(ask: Ask) -> Work:
    form: CreateRun = ask.form
    if not form.experiment_id:
        raise BadRequest("a run is begun in an experiment: experiment_id is missing", field="experiment_id")
    tags = tags_of(form.tags)
    named = tags.get(verbs.NAME_TAG)
    if form.run_name and named and form.run_name != named:
        raise Invalid(
            f"Both 'run_name' and the tag '{verbs.NAME_TAG}' are given, and they differ: {form.run_name[:100]!r} and "
            f"{named[:100]!r}",
            field="run_name",
        )
    name = limits.cut(form.run_name or named or verbs.random_name(_RNG), limits.TAG_VALUE)
    tags[verbs.NAME_TAG] = name
    started_at = limits.time_of(form.start_time, "start_time") if form.start_time is not None else None
    experiment, at, actor = experiment_id(form.experiment_id), ask.ws.clock.now(), ask.actor.id
    ident = RunId(new_id("run"))

    def work(tx: Transaction) -> RunAnswer:
        run, home = verbs.create_run(
            tx, experiment, actor=actor, at=at, name=name, tags=tags, claimed_user=form.user_id, started_at=started_at,
            ident=ident,
        )  # fmt: skip
        told = RunTold(
            info=info(run, home.artifact_location), data=RunData(tags=pairs(tags)), inputs=RunInputs()
        )
        return RunAnswer(run=told)

    return work


class UpdateRun(RunForm):
    status: str | int | None = None
    end_time: int | None = None
    run_name: str | None = None


class InfoAnswer(Message):
    run_info: RunInfo


def _update(ask: Ask) -> Work:
    form: UpdateRun = ask.form
    ident, at = run_id(form), ask.ws.clock.now()
    state = None if form.status is None else _STATES.get(str(form.status))
    if form.status is not None and state is None:
        raise Invalid(
            f"Invalid value {str(form.status)[:40]!r} for parameter 'status'",
            hint="it is one of RUNNING, SCHEDULED, FINISHED, FAILED and KILLED",
            field="status",
        )
    finished_at = limits.time_of(form.end_time, "end_time") if form.end_time is not None else None
    name = limits.cut(form.run_name, limits.TAG_VALUE) if form.run_name else None

    def work(tx: Transaction) -> InfoAnswer:
        run = verbs.update_run(tx, ident, state=state, finished_at=finished_at, name=name, at=at)
        return InfoAnswer(run_info=info(run, _location(tx, run)))

    return work


def _ended(ask: Ask, answer: InfoAnswer) -> InfoAnswer:
    if answer.run_info.status in ("FINISHED", "FAILED", "KILLED"):
        ask.state.sealer.wake()
    return answer


def _location(reader: Reader, run: Run) -> str | None:
    return experiments.find_experiment(reader, run.experiment).artifact_location


def _delete(ask: Ask) -> Work:
    ident, at, actor = run_id(ask.form), ask.ws.clock.now(), ask.actor.id
    return lambda tx: verbs.delete_run(tx, ident, actor=actor, at=at)


def _restore(ask: Ask) -> Work:
    ident, at, actor = run_id(ask.form), ask.ws.clock.now(), ask.actor.id
    return lambda tx: verbs.restore_run(tx, ident, actor=actor, at=at)


def _get(ask: Ask) -> RunAnswer:
    ident = run_id(ask.form)

    def look(reader: Reader) -> RunAnswer:
        run = verbs.find_run(reader, ident)
        return RunAnswer(run=told(reader, [run], {run.experiment: _location(reader, run)})[0])

    return ask.ws.store.read(look)


def told(reader: Reader, runs: Sequence[Run], locations: Mapping[str, str | None]) -> list[RunTold]:
    """Whole runs, in the order given, from as many reads for a thousand of them as for one.

    Args:
        locations: for each experiment where the client keeps artifacts, None for with us.
    """
    numbers = [run.number for run in runs]
    idents = [run.id for run in runs]
    latest = reader.metrics.latest(runs)
    params, tags = reader.params.of(numbers), reader.run_tags.of(numbers)
    used: dict[str, list[RunInput]] = {}
    for dataset in _all(reader.run_inputs, idents):
        used.setdefault(dataset.run, []).append(dataset)
    models: dict[str, list[RunModel]] = {}
    for model in _all(reader.run_models, idents):
        models.setdefault(model.run, []).append(model)
    return [
        RunTold(
            info=info(run, locations[run.experiment]),
            data=RunData(
                metrics=_latest(latest[run.number]), params=pairs(params[run.number]), tags=pairs(tags[run.number])
            ),
            inputs=_inputs(used.get(run.id, ()), models.get(run.id, ())),
            outputs=_outputs(models.get(run.id, ())),
        )
        for run in runs
    ]  # fmt: skip


def _all(rows: Any, idents: Sequence[str]) -> list[Any]:
    """All rows that belong to some runs."""
    return [
        row
        for start in range(0, len(idents), 5000)
        for row in rows.select(
            {"run": list(idents[start : start + 5000])}, order=("run", "id"), limit=1_000_000
        )
    ]


# --- metrics, params, tags ---


class MetricForm(Message):
    """A point of a metric; maybe it was measured of a logged model, maybe on a dataset."""

    key: str | None = None
    value: float | None = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogMetric(MetricForm):
    run_id: str | None = None
    run_uuid: str | None = None


def _point(form: MetricForm, path: str = "") -> Point:
    key, value, at_ms = form.key, form.value, form.timestamp
    if not key:
        raise limits.missing(f"{path}key")
    if value is None:
        raise limits.missing(f"{path}value")
    if at_ms is None:
        raise limits.missing(f"{path}timestamp")
    limits.check_key(key, f"{path}name")
    if at_ms < 0:
        raise Invalid(
            f"Invalid value {at_ms} for parameter '{path}timestamp': metric {key!r} (value={value}) has a time before 1970",
            field="timestamp",
        )
    if value - value != 0 and value == value:  # noqa: PLR0124  # an infinity
        value = limits.LARGEST if value > 0 else -limits.LARGEST
    return Point(key, value, at_ms, form.step or 0)


def _of_models(forms: Sequence[MetricForm], points: Sequence[Point], run: str) -> list[ModelPoint]:
    return [
        ModelPoint(
            model=LoggedModelId(form.model_id), run=RunId(run), key=point.key, value=point.value, at_ms=point.at_ms,
            step=point.step, dataset_name=form.dataset_name or None, dataset_digest=form.dataset_digest or None,
        )
        for form, point in zip(forms, points, strict=True)
        if form.model_id
    ]  # fmt: skip


def _log_metric(ask: Ask) -> Work:
    form: LogMetric = ask.form
    ident = form.run_id or form.run_uuid
    if not ident:
        raise limits.missing("run_id")
    points = (_point(form),)
    of_models = _of_models((form,), points, ident)
    return lambda tx: verbs.log_points(tx, ident, points, of_models)


class PairForm(RunForm):
    key: str | None = None
    value: str | None = None


def _log_param(ask: Ask) -> Work:
    form: PairForm = ask.form
    ident, key = run_id(form), limits.check_key(form.key)
    value = limits.cut(form.value or "", limits.PARAM_VALUE)
    return lambda tx: verbs.log_params(tx, ident, {key: value})


def _set_tag(ask: Ask) -> Work:
    form: PairForm = ask.form
    ident, tags = run_id(form), tags_of([Pair(key=form.key, value=form.value)])

    def work(tx: Transaction) -> None:
        verbs.set_tags(tx, verbs.active_run(tx, ident), tags)

    return work


def _delete_tag(ask: Ask) -> Work:
    form: PairForm = ask.form
    ident = run_id(form)
    if not form.key:
        raise limits.missing("key")
    key = form.key
    if key.startswith("andon."):
        raise Invalid(f"the tag {key!r} is Andon's own", field="key")
    return lambda tx: verbs.delete_tag(tx, ident, key)


class LogBatch(RunForm):
    metrics: list[MetricForm] | None = None
    params: list[Pair] | None = None
    tags: list[Pair] | None = None


def _log_batch(ask: Ask) -> Work:
    form: LogBatch = ask.form
    ident = run_id(form)
    metrics, given = form.metrics or [], form.params or []
    limits.check_batch(len(metrics), len(given), len(form.tags or ()))
    points = [_point(each, f"metrics[{index}].") for index, each in enumerate(metrics)]
    limits.once(each.key or "" for each in given)
    params = {
        limits.check_key(each.key, f"params[{index}].key"): limits.cut(each.value or "", limits.PARAM_VALUE)
        for index, each in enumerate(given)
    }
    tags = tags_of(form.tags)
    of_models = _of_models(metrics, points, ident)

    def work(tx: Transaction) -> bool:
        run = verbs.active_run(tx, ident)
        if points or params:
            verbs.check_own(run)
        if params:
            verbs.set_params(tx, run, params)
        if points:
            tx.metrics.log(run, points)
        if of_models:
            verbs.log_model_points(tx, of_models)
        if tags:
            run = verbs.set_tags(tx, run, tags)
        return bool(points or params) and verbs.note_late_write(tx, run)

    return work


def _sealed(ask: Ask, late: bool) -> None:
    """After a write: have a run sealed that had ended before it."""
    if late:
        ask.state.sealer.wake()


# --- inputs and outputs ---


class DatasetForm(Message):
    name: str | None = None
    digest: str | None = None
    source_type: str | None = None
    source: str | None = None
    schema: str | None = None
    profile: str | None = None


class DatasetUse(Message):
    """A dataset of a request, and what it was used for."""

    dataset: DatasetForm | None = None
    tags: list[Pair] | None = None


class ModelUse(Message):
    """A logged model of a request."""

    model_id: str | None = None
    step: int | None = None


class LogInputs(RunForm):
    datasets: list[DatasetUse] | None = None
    models: list[ModelUse] | None = None


def _dataset(form: DatasetUse, path: str) -> inputs.Dataset:
    given = form.dataset
    if given is None:
        raise limits.missing(f"{path}.dataset")
    for name in ("name", "digest", "source_type", "source"):
        if not getattr(given, name):
            raise limits.missing(f"{path}.dataset.{name}")
    tags = {each.key or "": each.value or "" for each in form.tags or ()}
    if "" in tags:
        raise limits.missing(f"{path}.tags.key")
    return inputs.check_dataset(
        inputs.Dataset(
            name=given.name or "", digest=given.digest or "", source_type=given.source_type or "", source=given.source or "",
            schema=given.schema, profile=given.profile, tags=tags,
        ),
        f"{path}.dataset",
    )  # fmt: skip


def _steps(models: Sequence[ModelUse]) -> dict[LoggedModelId, int]:
    for index, each in enumerate(models):
        if not each.model_id:
            raise limits.missing(f"models[{index}].model_id")
    return {LoggedModelId(each.model_id or ""): each.step or 0 for each in models}


def _log_inputs(ask: Ask) -> Work:
    form: LogInputs = ask.form
    ident, at = run_id(form), ask.ws.clock.now()
    datasets = [_dataset(each, f"datasets[{index}]") for index, each in enumerate(form.datasets or ())]
    models = _steps(form.models or ())

    def work(tx: Transaction) -> bool:
        run = verbs.own_run(tx, ident)
        if datasets:
            inputs.log_datasets(tx, run, datasets, at=at)
        if models:
            inputs.log_models(tx, run, models, "input", at=at)
        return verbs.note_late_write(tx, run)

    return work


class LogOutputs(RunForm):
    models: list[ModelUse] | None = None


def _log_outputs(ask: Ask) -> Work:
    form: LogOutputs = ask.form
    ident, at = run_id(form), ask.ws.clock.now()
    if form.models is None:
        raise limits.missing("models")
    models = _steps(form.models)

    def work(tx: Transaction) -> bool:
        run = verbs.own_run(tx, ident)
        if models:
            inputs.log_models(tx, run, models, "output", at=at)
        return verbs.note_late_write(tx, run)

    return work


class LogModel(RunForm):
    model_json: str | None = None


def _log_model(ask: Ask) -> Work:
    form: LogModel = ask.form
    ident = run_id(form)
    if not form.model_json:
        raise limits.missing("model_json")
    try:
        model = msgspec.json.decode(form.model_json, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"Malformed model info: it is no JSON object: {error}", field="model_json") from None
    if lost := sorted({"artifact_path", "flavors", "utc_time_created", "run_id"} - set(model)):
        raise Invalid(f"Model json is missing mandatory fields: {', '.join(lost)}", field="model_json")

    def work(tx: Transaction) -> None:
        verbs.note_model(tx, verbs.own_run(tx, ident), model)

    return work


# --- found ---


class SearchRuns(Message):
    experiment_ids: list[str] | None = None
    filter: str | None = None
    run_view_type: str | int | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class RunsAnswer(Message):
    runs: list[RunTold] = field(default_factory=list)
    next_page_token: str | None = None


def _search(ask: Ask) -> RunsAnswer:
    form: SearchRuns = ask.form
    query = searching.query(
        "run", form.filter, form.order_by or (), scope=[known_id(each) for each in form.experiment_ids or ()],
        deleted=view(form.run_view_type), page_token=form.page_token,
        limit=searching.check_page(form.max_results, default=1000, most=50_000),
    )  # fmt: skip

    def look(reader: Reader) -> RunsAnswer:
        page = reader.search(query)
        rows: dict[str, Run] = {}
        for start in range(0, len(page.ids), 5000):
            some = page.ids[start : start + 5000]
            rows.update((row.id, row) for row in reader.runs.select({"id": some}, limit=5000))
        homes = sorted({row.experiment for row in rows.values()})
        locations: dict[str, str | None] = {
            each.id: each.artifact_location
            for each in reader.experiments.select({"id": homes}, limit=len(homes) or 1)
        }
        runs = told(reader, [rows[ident] for ident in page.ids], locations)
        return RunsAnswer(runs=runs, next_page_token=page.next)

    return ask.ws.store.read(look)


ENDPOINTS: tuple[WireEndpoint, ...] = (
    WireEndpoint(
        method="POST", path="/runs/create", permission=Permission.RUN, form=CreateRun, write=_create, summary="Begin a run.",
    ),
    WireEndpoint(
        method="GET", path="/runs/get", permission=Permission.READ, form=RunForm, read=_get, summary="A run with all of it.",
    ),
    WireEndpoint(
        method="POST", path="/runs/update", permission=Permission.RUN, form=UpdateRun, write=_update, after=_ended,
        summary="Change a run's status, end or name.",
    ),
    WireEndpoint(
        method="POST", path="/runs/delete", permission=Permission.RUN, form=RunForm, write=_delete, summary="Delete a run.",
    ),
    WireEndpoint(
        method="POST", path="/runs/restore", permission=Permission.RUN, form=RunForm, write=_restore,
        summary="Bring a deleted run back.",
    ),
    WireEndpoint(
        method="POST", path="/runs/log-metric", permission=Permission.RUN, form=LogMetric, write=_log_metric, after=_sealed,
        summary="Append a point of a metric.",
    ),
    WireEndpoint(
        method="POST", path="/runs/log-parameter", permission=Permission.RUN, form=PairForm, write=_log_param, after=_sealed,
        summary="Set a param.",
    ),
    WireEndpoint(
        method="POST", path="/runs/log-batch", permission=Permission.RUN, form=LogBatch, write=_log_batch, after=_sealed,
        summary="Append points of metrics and set params and tags, all or nothing.",
    ),
    WireEndpoint(
        method="POST", path="/runs/set-tag", permission=Permission.RUN, form=PairForm, write=_set_tag, summary="Set a tag.",
    ),
    WireEndpoint(
        method="POST", path="/runs/delete-tag", permission=Permission.RUN, form=PairForm, write=_delete_tag,
        summary="Remove a tag.",
    ),
    WireEndpoint(
        method="POST", path="/runs/log-inputs", permission=Permission.RUN, form=LogInputs, write=_log_inputs, after=_sealed,
        limit=INPUTS_LIMIT, summary="Note datasets and logged models that a run used.",
    ),
    WireEndpoint(
        method="POST", path="/runs/outputs", permission=Permission.RUN, form=LogOutputs, write=_log_outputs, after=_sealed,
        summary="Note logged models that a run made.",
    ),
    WireEndpoint(
        method="POST", path="/runs/log-model", permission=Permission.RUN, form=LogModel, write=_log_model,
        summary="Note a model among a run's artifacts, for MLflow 2.",
    ),
    WireEndpoint(
        method="POST", path="/runs/search", permission=Permission.READ, form=SearchRuns, read=_search,
        summary="Runs that meet a filter.",
    ),
    *histories.ENDPOINTS,
)  # fmt: skip
