"""A client with credentials that are wrong: it is told so, whatever it asks, and makes nothing."""

from __future__ import annotations

from collections.abc import Callable

from mlflow.exceptions import MlflowException
from wire import URI, client, unique


def turned_away(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except MlflowException as error:
        return "401" in str(error) or error.error_code == "UNAUTHENTICATED"
    return False


def check_nothing_is_open_to_it() -> None:
    asked: list[Callable[[], object]] = [
        lambda: client.get_experiment("0"),
        lambda: client.search_experiments(),
        lambda: client.create_experiment(unique("stranger")),
        lambda: client.create_run("0"),
        lambda: client.search_registered_models(),
        lambda: client.create_registered_model(unique("stranger")),
    ]

    assert [turned_away(ask) for ask in asked] == [True] * len(asked), URI
