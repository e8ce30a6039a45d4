"""Experiments over the MLflow wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from msgspec import field

from andon.core.clock import to_us
from andon.core.entities import Experiment, RunInput, owner
from andon.core.errors import AlreadyExists, Invalid, NotFound
from andon.governance.access import Permission
from andon.store.ports import Reader, Transaction
from andon.tracking import experiments as verbs
from andon.tracking import inputs, limits, searching
from andon.web.mlflow.forms import KeyValue, Pair, experiment_id, known_id, pairs, view
from andon.web.mlflow.wire import Ask, Message, WireEndpoint, Work

MOST_AT_ONCE = 50_000


def artifact_root(experiment: str, location: str | None) -> str:
    """Where the artifacts of an experiment's runs are: with us unless the client named a place of its own."""
    return location or f"mlflow-artifacts:/{experiment}"


class ExperimentTold(Message):
    """An experiment."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    last_update_time: int
    creation_time: int
    tags: list[KeyValue] = field(default_factory=list)


def told(reader: Reader, found: Sequence[Experiment]) -> list[ExperimentTold]:
    """Experiments with their tags, in the order given."""
    tags = reader.experiment_tags.of([each.id for each in found])
    return [
        ExperimentTold(
            experiment_id=each.id, name=each.name, artifact_location=artifact_root(each.id, each.artifact_location),
            lifecycle_stage="active" if each.deleted_at is None else "deleted",
            last_update_time=to_us(each.changed_at) // 1000, creation_time=to_us(each.created_at) // 1000,
            tags=pairs(tags[each.id]),
        )
        for each in found
    ]  # fmt: skip


# --- made, renamed, deleted ---


class CreateExperiment(Message):
    name: str | None = None
    artifact_location: str | None = None
    tags: list[Pair] | None = None


class IdAnswer(Message):
    experiment_id: str


def _create(ask: Ask) -> Work:
    form: CreateExperiment = ask.form
    name = _name(form.name, "name")
    place = verbs.check_location(form.artifact_location) if form.artifact_location else None
    tags = dict(_tag(tag.key, tag.value, f"tags[{index}].") for index, tag in enumerate(form.tags or ()))
    actor, at = ask.actor.id, ask.ws.clock.now()

    def work(tx: Transaction) -> IdAnswer:
        if tx.experiments.select({"name": name}, limit=1):
            raise AlreadyExists(
                f"Experiment(name={name}) already exists", hint="if it is deleted, restore it"
            )
        made = verbs.create_experiment(tx, name, actor, at, artifact_location=place)
        if tags:
            tx.experiment_tags.put(owner(made), tags)
        return IdAnswer(experiment_id=made.id)

    return work


def _name(given: str | None, path: str) -> str:
    if not given:
        raise limits.missing(path)
    if not given.strip():
        raise Invalid(f"Invalid experiment name: {given[:50]!r} has nothing in it", field=path)
    return limits.check_text(given, limits.EXPERIMENT_NAME, path)


def _tag(key: str | None, value: str | None, path: str = "") -> tuple[str, str]:
    text = limits.check_text(value or "", limits.EXPERIMENT_TAG_VALUE, f"{path}value")
    return limits.check_key(key, f"{path}key"), text


class ExperimentForm(Message):
    experiment_id: str | None = None


class Rename(ExperimentForm):
    new_name: str | None = None


def _update(ask: Ask) -> Work:
    form: Rename = ask.form
    ident, name = experiment_id(form.experiment_id), _name(form.new_name, "new_name")
    actor, at = ask.actor.id, ask.ws.clock.now()
    return lambda tx: verbs.rename_experiment(tx, ident, name, actor=actor, at=at)


def _delete(ask: Ask) -> None:
    _in_parts(ask, verbs.delete_experiment)


def _restore(ask: Ask) -> None:
    _in_parts(ask, verbs.restore_experiment)


def _in_parts(ask: Ask, verb: Callable[..., bool]) -> None:
    """Hide or bring back an experiment and its runs, in as many transactions as it takes."""
    part = partial(
        verb, ident=experiment_id(ask.form.experiment_id), actor=ask.actor.id, at=ask.ws.clock.now()
    )
    while not ask.ws.store.write(part):
        pass


# --- tags ---


class ExperimentTag(ExperimentForm):
    key: str | None = None
    value: str | None = None


def _set_tag(ask: Ask) -> Work:
    form: ExperimentTag = ask.form
    ident, (key, value) = experiment_id(form.experiment_id), _tag(form.key, form.value)

    def work(tx: Transaction) -> None:
        tx.experiment_tags.put(owner(verbs.active_experiment(tx, ident)), {key: value})

    return work


def _delete_tag(ask: Ask) -> Work:
    form: ExperimentTag = ask.form
    ident, key = experiment_id(form.experiment_id), form.key
    if not key:
        raise limits.missing("key")

    def work(tx: Transaction) -> None:
        if not tx.experiment_tags.remove(owner(verbs.active_experiment(tx, ident)), key):
            raise NotFound(f"No tag with name: {key[:300]} in experiment with id {ident}")

    return work


# --- found ---


class ExperimentAnswer(Message):
    experiment: ExperimentTold


def _get(ask: Ask) -> ExperimentAnswer:
    ident = experiment_id(ask.form.experiment_id)
    return ask.ws.store.read(
        lambda reader: ExperimentAnswer(experiment=told(reader, [verbs.find_experiment(reader, ident)])[0])
    )


class NameForm(Message):
    experiment_name: str | None = None


def _get_by_name(ask: Ask) -> ExperimentAnswer:
    name = ask.form.experiment_name
    if not name:
        raise limits.missing("experiment_name")

    def look(reader: Reader) -> ExperimentAnswer:
        found = reader.experiments.select({"name": name}, limit=1)
        if not found:
            raise NotFound(f"Could not find experiment with name {name[:500]!r}")
        return ExperimentAnswer(experiment=told(reader, found)[0])

    return ask.ws.store.read(look)


class SearchExperiments(Message):
    max_results: int | None = None
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] | None = None
    view_type: str | int | None = None


class ExperimentsAnswer(Message):
    experiments: list[ExperimentTold] = field(default_factory=list)
    next_page_token: str | None = None


def _search(ask: Ask) -> ExperimentsAnswer:
    form: SearchExperiments = ask.form
    return _page(ask, searching.check_page(form.max_results or 0, default=0, most=MOST_AT_ONCE))


def _list(ask: Ask) -> ExperimentsAnswer:
    form: SearchExperiments = ask.form
    return _page(ask, searching.check_page(form.max_results, default=MOST_AT_ONCE, most=MOST_AT_ONCE))


def _page(ask: Ask, limit: int) -> ExperimentsAnswer:
    form: SearchExperiments = ask.form
    query = searching.query(
        "experiment", form.filter, form.order_by or (), deleted=view(form.view_type), limit=limit, page_token=form.page_token,
    )  # fmt: skip

    def look(reader: Reader) -> ExperimentsAnswer:
        page = reader.search(query)
        rows: dict[str, Experiment] = {
            row.id: row
            for start in range(0, len(page.ids), 5000)
            for row in reader.experiments.select({"id": page.ids[start : start + 5000]}, limit=5000)
        }
        return ExperimentsAnswer(
            experiments=told(reader, [rows[ident] for ident in page.ids]), next_page_token=page.next
        )

    return ask.ws.store.read(look)


# --- the datasets of its runs ---


class SearchDatasets(Message):
    experiment_ids: list[str] | None = None


class DatasetSummary(Message):
    experiment_id: str
    name: str
    digest: str
    context: str | None = None


class DatasetsAnswer(Message):
    dataset_summaries: list[DatasetSummary] = field(default_factory=list)


def _search_datasets(ask: Ask) -> DatasetsAnswer:
    given = ask.form.experiment_ids or []
    if not 1 <= len(given) <= inputs.MOST_EXPERIMENTS:
        raise Invalid(
            f"SearchDatasets request must specify at least one and at most {inputs.MOST_EXPERIMENTS} experiment_ids, "
            f"not {len(given)}",
            field="experiment_ids",
        )
    asked = [known_id(each) for each in given]
    found: list[RunInput] = ask.ws.store.read(lambda reader: inputs.datasets_of(reader, asked))
    return DatasetsAnswer(
        dataset_summaries=[
            DatasetSummary(
                experiment_id=each.experiment, name=each.name, digest=each.digest, context=each.context
            )
            for each in found
        ]
    )


_SEARCH_DATASETS = "2.0mlflow/experiments/search-datasets"
"""Without a slash before `mlflow`: that is where MLflow's clients look."""

ENDPOINTS: tuple[WireEndpoint, ...] = (
    WireEndpoint(
        method="POST", path="/experiments/create", permission=Permission.RUN, form=CreateExperiment, write=_create,
        summary="Make an experiment.",
    ),
    WireEndpoint(
        method="GET", path="/experiments/get", permission=Permission.READ, form=ExperimentForm, read=_get,
        summary="An experiment.",
    ),
    WireEndpoint(
        method="GET", path="/experiments/get-by-name", permission=Permission.READ, form=NameForm, read=_get_by_name,
        summary="An experiment, by its name.",
    ),
    WireEndpoint(
        method="POST", path="/experiments/search", permission=Permission.READ, form=SearchExperiments, read=_search,
        summary="Experiments that meet a filter.",
    ),
    WireEndpoint(
        method="GET", path="/experiments/search", permission=Permission.READ, form=SearchExperiments, read=_search,
        summary="Experiments that meet a filter.",
    ),
    WireEndpoint(
        method="GET", path="/experiments/list", permission=Permission.READ, form=SearchExperiments, read=_list,
        summary="All experiments, for MLflow 1.",
    ),
    WireEndpoint(
        method="POST", path="/experiments/update", permission=Permission.RUN, form=Rename, write=_update,
        summary="Rename an experiment.",
    ),
    WireEndpoint(
        method="POST", path="/experiments/delete", permission=Permission.RUN, form=ExperimentForm, read=_delete,
        summary="Delete an experiment with its runs.",
    ),
    WireEndpoint(
        method="POST", path="/experiments/restore", permission=Permission.RUN, form=ExperimentForm, read=_restore,
        summary="Bring a deleted experiment back, with the runs that were deleted with it.",
    ),
    WireEndpoint(
        method="POST", path="/experiments/set-experiment-tag", permission=Permission.RUN, form=ExperimentTag, write=_set_tag,
        summary="Set a tag of an experiment.",
    ),
    WireEndpoint(
        method="POST", path="/experiments/delete-experiment-tag", permission=Permission.RUN, form=ExperimentTag,
        write=_delete_tag, summary="Remove a tag of an experiment.",
    ),
    *(
        WireEndpoint(
            method="POST", path=f"{prefix}/{_SEARCH_DATASETS}", root="", permission=Permission.READ, form=SearchDatasets,
            read=_search_datasets, summary="Datasets that runs of some experiments used.",
        )
        for prefix in ("/api", "/ajax-api")
    ),
)  # fmt: skip
