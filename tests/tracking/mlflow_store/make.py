"""Fill an MLflow store with a bit of everything, by the real client. Run by an interpreter that has mlflow and SQLAlchemy:

    python make.py sqlite:///mlflow.db ARTIFACT_ROOT [RUNS [POINTS]]

Prints one JSON object: what stock MLflow says is in the store, in the form that `tell.py` prints too.
"""

import json
import sys
import time
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, RunTag
from mlflow.types import ColSpec, Schema

sys.path.insert(0, str(Path(__file__).parent))
from tell import told  # beside this file, which is a script

uri, root = sys.argv[1], sys.argv[2]
many, points = (int(text) for text in (*sys.argv[3:], "0", "0")[:2])
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
client = MlflowClient()

# --- experiments ---

churn = client.create_experiment(
    "churn", artifact_location=f"{root}/churn", tags={"team": "billing", "note": "größe 7"}
)
away = client.create_experiment("kept elsewhere", artifact_location="s3://bucket/models/away")
gone = client.create_experiment("given up", artifact_location=f"{root}/gone")
client.get_experiment("0")

# --- runs ---

data = MetaDataset(
    HTTPDatasetSource("http://data.example/churn.csv"),
    name="customers",
    digest="5ba9",
    schema=Schema([ColSpec("long", "age")]),
)
mlflow.set_experiment(experiment_id=churn)
with mlflow.start_run(run_name="parent", tags={"stage": "first"}) as parent:
    mlflow.log_params({"learning_rate": 0.1, "num_leaves": 31, "note": "x" * 3000})
    mlflow.log_input(data, context="training")
    mlflow.log_input(data, context="validation")
    for step in range(5):
        mlflow.log_metric("auc", 0.5 + step / 10, step=step)
    mlflow.log_metric("val/loss", float("nan"), step=-3)
    mlflow.log_metric("val/loss", float("inf"), step=1)
    mlflow.log_metric("floor", float("-inf"))
    mlflow.log_text("hello", "notes/read me.txt")
    mlflow.log_text("ünïcode", "notes/größe.txt")
    mlflow.log_dict({"a": 1}, "a.json")
    model = mlflow.initialize_logged_model(
        name="booster", params={"depth": "3"}, tags={"kind": "toy"}, model_type="agent"
    )
    folder = Path(root.removeprefix("file://")) / "scratch"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "data/weights.txt").write_text("1 2 3\n")
    client.log_model_artifacts(model.model_id, str(folder))
    mlflow.finalize_logged_model(model.model_id, "READY")
    mlflow.log_metric("accuracy", 0.75, step=2, model_id=model.model_id, dataset=data)
    client.log_outputs(parent.info.run_id, [mlflow.entities.LoggedModelOutput(model.model_id, step=2)])
    mlflow.log_artifacts(str(folder), "model")
    with mlflow.start_run(run_name="child", nested=True) as child:
        mlflow.log_metric("auc", 0.7)
        client.log_inputs(child.info.run_id, models=[mlflow.entities.LoggedModelInput(model.model_id)])

failed = client.create_run(churn, run_name="failed")
client.set_terminated(failed.info.run_id, "FAILED")
killed = client.create_run(churn, run_name="killed")
client.set_terminated(killed.info.run_id, "KILLED")
running = client.create_run(churn, run_name="running", tags={"mlflow.note.content": "a\nb"})
client.log_metric(running.info.run_id, "auc", 0.1)
dropped = client.create_run(churn, run_name="dropped")
client.log_param(dropped.info.run_id, "p", "")
client.delete_run(dropped.info.run_id)
client.create_run("0", run_name="of the default")
client.create_run(away, run_name="far away")
lost = client.create_run(gone, run_name="lost")
client.delete_experiment(gone)

# --- the registry ---

client.create_registered_model("churn", tags={"owner": "ann"}, description="who leaves")
first = client.create_model_version(
    "churn", f"{parent.info.artifact_uri}/model", parent.info.run_id, tags={"seen": "yes"}
)
client.create_model_version(
    "churn", model.artifact_location, parent.info.run_id, model_id=model.model_id, description="better"
)
client.create_model_version("churn", "s3://bucket/models/other", None, run_link="http://other.example/run")
client.create_model_version("churn", f"{parent.info.artifact_uri}/model", parent.info.run_id)
client.delete_model_version("churn", "4")
client.set_registered_model_alias("churn", "champion", "2")
client.transition_model_version_stage("churn", "1", "Production")
client.create_registered_model("empty")
mlflow.genai.register_prompt("greeting", "Hello {{name}}", commit_message="first", tags={"tone": "warm"})
mlflow.genai.register_prompt("greeting", "Hi {{name}}")
mlflow.genai.set_prompt_alias("greeting", "live", 2)

# --- and as many more as are asked for ---

if many:
    bulk = client.create_experiment("bulk", artifact_location=f"{root}/bulk")
    for number in range(many):
        run = client.create_run(bulk, run_name=f"bulk-{number}")
        at = int(time.time() * 1000)
        client.log_batch(
            run.info.run_id,
            [
                Metric(f"m{key}", number + key / 7, at, step)
                for key in range(5)
                for step in range(points // many // 5)
            ],
            [Param("number", str(number)), Param("half", str(number / 2))],
            [RunTag("even", str(number % 2 == 0))],
        )
        client.set_terminated(run.info.run_id)

print(json.dumps(told(client)))
