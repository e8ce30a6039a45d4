"""The credentials that the client sends by itself are believed when they are right, and only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wire.battery import Check
from tests.wire.conftest import Server, play


def played(server: Server, scenario: str, folder: Path, **credentials: str) -> dict[str, str | None]:
    """The errors of a scenario that a client with these credentials played."""
    errors = play(server, Check("sqlite", "short", scenario, ""), folder, **credentials)
    assert len(errors) > 1, errors["the client"]
    return {name: error for name, error in errors.items() if name != "the client" and error}


@pytest.fixture
def server(servers: Callable[[str], Server]) -> Server:
    return servers("sqlite")


@pytest.fixture
def token(server: Server) -> str:
    assert server.token is not None
    return server.token.read_text().strip()


def test_on_this_machine_the_workspaces_own_user_needs_none(server: Server, tmp_path: Path) -> None:
    assert played(server, "guest", tmp_path) == {}


def test_the_token_is_believed(server: Server, token: str, tmp_path: Path) -> None:
    assert played(server, "guest", tmp_path, MLFLOW_TRACKING_TOKEN=token) == {}


def test_the_token_is_believed_as_a_password(server: Server, token: str, tmp_path: Path) -> None:
    credentials = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": token}

    assert played(server, "guest", tmp_path, **credentials) == {}


def test_a_wrong_token_is_turned_away(server: Server, tmp_path: Path) -> None:
    assert played(server, "stranger", tmp_path, MLFLOW_TRACKING_TOKEN="andon_" + "x" * 43) == {}


def test_a_wrong_password_is_turned_away(server: Server, tmp_path: Path) -> None:
    credentials = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "password1234"}

    assert played(server, "stranger", tmp_path, **credentials) == {}
