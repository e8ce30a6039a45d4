"""PyTorch: a network logged, registered and loaded as itself and as a function."""

from __future__ import annotations

import warnings

import mlflow
import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import torch
from wire import client, experiment, unique

warnings.filterwarnings("ignore")
torch.manual_seed(7)
torch.set_num_threads(1)

X = torch.randn(32, 4)
y = (X.sum(dim=1, keepdim=True) > 0).float()


def trained() -> torch.nn.Module:
    """A small network after a few steps, its loss logged at each."""
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(5):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(X), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        mlflow.log_metric("loss", loss.item(), step=step)
    return network


def check_a_network_is_registered_and_loaded_from_production() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    name = unique("Net")

    with mlflow.start_run() as started:
        network = trained()
        mlflow.pytorch.log_model(
            network, name="model", registered_model_name=name, input_example=X[:2].numpy()
        )
    client.transition_model_version_stage(name, "1", "Production")

    expected = network(X).detach().numpy()
    assert len(client.get_metric_history(started.info.run_id, "loss")) == 5
    assert np.allclose(
        mlflow.pyfunc.load_model(f"models:/{name}/Production").predict(X.numpy()), expected, atol=1e-6
    )
    assert np.allclose(
        mlflow.pytorch.load_model(f"models:/{name}/1")(X).detach().numpy(), expected, atol=1e-6
    )


def check_a_state_is_an_artifact() -> None:
    mlflow.set_experiment(experiment_id=experiment())
    network = torch.nn.Linear(4, 1)

    with mlflow.start_run() as started:
        mlflow.pytorch.log_state_dict(network.state_dict(), "state")

    state = mlflow.pytorch.load_state_dict(f"runs:/{started.info.run_id}/state")
    assert torch.equal(state["weight"], network.weight)
