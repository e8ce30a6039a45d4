"""Datasets as inputs of runs: logged, read back, and found by."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag
from wire import client, experiment, refused, run, unique


def check_a_data_frame_becomes_an_input() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]})
    data = mlflow.data.from_pandas(
        frame, source="https://example.org/flights.csv", name="flights", targets="y"
    )

    with mlflow.start_run() as started:
        mlflow.log_input(data, context="training")

    (found,) = client.get_run(started.info.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.source_type) == (
        "flights",
        data.digest,
        "http",
    )
    assert "https://example.org/flights.csv" in found.dataset.source
    assert '"x"' in found.dataset.schema
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}
    assert mlflow.data.get_source(found).url == "https://example.org/flights.csv"


def check_an_array_becomes_an_input() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    data = mlflow.data.from_numpy(
        np.arange(12.0).reshape(4, 3), targets=np.array([0, 1, 0, 1]), name="numbers"
    )

    with mlflow.start_run() as started:
        mlflow.log_input(data, context="testing", tags={"split": "b"})

    (found,) = client.get_run(started.info.run_id).inputs.dataset_inputs
    assert found.dataset.digest == data.digest
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "testing", "split": "b"}


def given(name: str, digest: str, context: str | None = None) -> DatasetInput:
    dataset = Dataset(
        name=name, digest=digest, source_type="local", source="file.csv", schema="{}", profile="{}"
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)] if context else [])


def check_the_same_input_twice_is_one() -> None:
    run_id = run()

    client.log_inputs(run_id, [given("a", "1", "training"), given("b", "2")])
    client.log_inputs(run_id, [given("a", "1", "training")])

    inputs = client.get_run(run_id).inputs.dataset_inputs
    assert sorted((i.dataset.name, i.dataset.digest) for i in inputs) == [("a", "1"), ("b", "2")]


def check_runs_are_found_by_their_datasets() -> None:
    made = experiment()
    first, second = run(made), run(made)
    one, two, digest = unique("Dataset"), unique("Dataset"), unique("d")[:36]
    client.log_inputs(first, [given(one, digest, "training"), given(two, "2", "evaluation")])
    client.log_inputs(second, [given(two, "2", "training")])

    def found(text: str) -> set[str]:
        return {r.info.run_id for r in client.search_runs([made], text)}

    assert found(f"dataset.name = '{one}'") == {first}
    assert found(f"datasets.name LIKE '{two[:-2]}%'") == {first, second}
    assert found(f"dataset.name ILIKE '{one.lower()}'") == {first}
    assert found(f"dataset.name IN ('{one}', 'other')") == {first}
    assert found(f"dataset.digest = '{digest}'") == {first}
    assert found(f"datasets.digest IN ('{digest}', '2')") == {first, second}
    assert found("dataset.context = 'training'") == {first, second}
    assert found("dataset.context = 'evaluation'") == {first}
    assert found("dataset.context LIKE 'eval%'") == {first}
    assert found(f"dataset.name = '{two}' AND dataset.context = 'evaluation'") == {first}
    for bad in ("dataset.colour = 'x'", "dataset.name > 'x'", "dataset.name = x"):
        with refused("INVALID_PARAMETER_VALUE"):
            found(bad)


def check_names_that_are_too_long_are_refused() -> None:
    with refused("INVALID_PARAMETER_VALUE"):
        client.log_inputs(run(), [given("n" * 501, "1")])
    with refused("INVALID_PARAMETER_VALUE"):
        client.log_inputs(run(), [given("a", "d" * 37)])
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.log_inputs("f" * 32, [given("a", "1")])
