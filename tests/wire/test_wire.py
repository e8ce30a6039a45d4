"""The real, unmodified MLflow client plays every scenario against a live server, on both back ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire.battery import Check, battery

BATTERY = battery()
Play = Callable[[Check], str | None]


def checks(*scenarios: str) -> pytest.MarkDecorator:
    """Each check of these scenarios is a test, on each back end and with each client that plays it."""
    chosen = [check for check in BATTERY if check.scenario.startswith(scenarios)]
    return pytest.mark.parametrize("check", chosen, ids=str)


@pytest.mark.capability("C1", "C4")
@checks("experiments", "runs", "metrics", "search", "background")
def test_runs_are_logged_and_found(check: Check, error_of: Play) -> None:
    assert not (error := error_of(check)), error


@pytest.mark.capability("C3")
@checks("datasets")
def test_data_are_inputs_of_runs(check: Check, error_of: Play) -> None:
    assert not (error := error_of(check)), error


@pytest.mark.capability("C6")
@checks("artifacts")
def test_files_are_kept_with_their_runs(check: Check, error_of: Play) -> None:
    assert not (error := error_of(check)), error


@pytest.mark.capability("C5")
@checks("snippet", "old_calls", "application", "crowd")
def test_scripts_work_as_they_were_written(check: Check, error_of: Play) -> None:
    assert not (error := error_of(check)), error


@pytest.mark.capability("C7", "C8")
@checks("models_")
def test_models_of_every_library_are_logged_and_loaded(check: Check, error_of: Play) -> None:
    assert not (error := error_of(check)), error


@pytest.mark.capability("E1", "E2", "E9")
@checks("registry", "logged_models")
def test_models_and_versions_are_kept_moved_and_found(check: Check, error_of: Play) -> None:
    assert not (error := error_of(check)), error


@pytest.mark.capability("Q1")
@checks("prompts")
def test_prompts_are_kept_and_pinned(check: Check, error_of: Play) -> None:
    assert not (error := error_of(check)), error


@checks("server", "refusals")
def test_the_server_answers_as_mlflows_own(check: Check, error_of: Play) -> None:
    assert not (error := error_of(check)), error


def test_every_scenario_is_played() -> None:
    functions = [
        value
        for name, value in globals().items()
        if name.startswith("test_") and hasattr(value, "pytestmark")
    ]
    played = {
        check
        for function in functions
        for mark in function.pytestmark
        if mark.name == "parametrize"
        for check in mark.args[1]
    }

    assert set(BATTERY) - played == set()
