"""What stock MLflow says is in a store, as one JSON object. Run by an interpreter that has mlflow:

python tell.py TRACKING_URI
"""

import json
import math
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException


def told(client: MlflowClient) -> dict:
    """Experiments, runs, logged models and registered models by their ids and names."""
    experiments = client.search_experiments(view_type=ViewType.ALL, max_results=1000)
    ids = [each.experiment_id for each in experiments]
    found = [
        run.info.run_id
        for ident in ids
        for run in client.search_runs([ident], run_view_type=ViewType.ALL, max_results=50_000)
    ]
    runs = [client.get_run(ident) for ident in found]  # a search does not tell the models that a run used
    try:
        logged = client.search_logged_models(experiment_ids=ids, max_results=100)
    except MlflowException:
        logged = []
    return {
        "experiments": {each.experiment_id: _experiment(each) for each in experiments},
        "runs": {run.info.run_id: _run(client, run) for run in runs},
        "logged_models": {model.model_id: _logged(model) for model in logged},
        "models": {each.name: _model(client, each) for each in client.search_registered_models()},
        "prompts": {each.name: _prompt(client, each) for each in _prompts(client)},
    }


def _prompts(client):
    return client.search_registered_models("tags.`mlflow.prompt.is_prompt` = 'true'")


def _experiment(experiment):
    return {
        "name": experiment.name,
        "stage": experiment.lifecycle_stage,
        "tags": dict(experiment.tags),
        "created": experiment.creation_time,
        "changed": experiment.last_update_time,
    }


def _run(client, run):
    info = run.info
    return {
        "experiment": info.experiment_id,
        "name": info.run_name,
        "user": info.user_id,
        "status": info.status,
        "start": info.start_time,
        "end": info.end_time,
        "stage": info.lifecycle_stage,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {key: _number(value) for key, value in run.data.metrics.items()},
        "history": {
            key: sorted(
                [
                    [p.step, p.timestamp, _number(p.value)]
                    for p in client.get_metric_history(info.run_id, key)
                ],
                key=str,
            )
            for key in run.data.metrics
        },
        "inputs": sorted(
            [
                each.dataset.name,
                each.dataset.digest,
                each.dataset.source_type,
                each.dataset.source,
                each.dataset.schema,
                each.dataset.profile,
                sorted([tag.key, tag.value] for tag in each.tags),
            ]
            for each in run.inputs.dataset_inputs
        ),
        "models in": sorted(each.model_id for each in run.inputs.model_inputs or []),
        "models out": sorted(
            [each.model_id, each.step] for each in (run.outputs.model_outputs if run.outputs else [])
        ),
    }


def _number(value):
    return value if math.isfinite(value) else repr(value)


def _logged(model):
    return {
        "experiment": model.experiment_id,
        "name": model.name,
        "status": str(model.status),
        "type": model.model_type,
        "run": model.source_run_id,
        "created": model.creation_timestamp,
        "params": model.params,
        "tags": dict(model.tags.items()),
        "metrics": sorted(
            [m.key, _number(m.value), m.step, m.run_id, m.dataset_name or "", m.dataset_digest or ""]
            for m in model.metrics or []
        ),
    }


def _prompt(client, prompt):
    found = [
        client.get_prompt_version(prompt.name, str(each.version))
        for each in client.search_prompt_versions(prompt.name)
    ]
    return {
        "tags": dict(prompt.tags),
        "versions": {
            str(each.version): {
                "text": each.template,
                "tags": each.tags,
                "message": each.commit_message,
                "aliases": sorted(each.aliases),
            }
            for each in found
        },
    }


def _model(client, model):
    versions = client.search_model_versions(f"name = '{model.name}'")
    return {
        "description": model.description or "",
        "tags": dict(model.tags),
        "aliases": dict(model.aliases),
        "created": model.creation_timestamp,
        "versions": {
            str(each.version): {
                "stage": each.current_stage,
                "description": each.description or "",
                "tags": dict(each.tags),
                "run": each.run_id or "",
                "source": each.source,
                "user": each.user_id or "",
                "created": each.creation_timestamp,
                "link": each.run_link or "",
            }
            for each in versions
        },
    }


if __name__ == "__main__":
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_registry_uri(sys.argv[1])
    print(json.dumps(told(MlflowClient())))
