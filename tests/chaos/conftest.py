"""Houses to torment: a project in a folder of its own, and what the batteries measured, said once at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from andon.core.workspace import FOLDER, Layout
from andon.pipelines.registration import register_line
from andon.pipelines.workspace import OpenWorkspace
from tests.chaos.client import BEGIN
from tests.chaos.desk import Desk
from tests.chaos.house import House
from tests.chaos.line import NAME, make

SAID = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(SAID, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """One line for each battery."""
    for line in config.stash.get(SAID, []):
        terminalreporter.write_line(line)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A workspace with the line registered and its time begun, in which nothing runs."""
    make(tmp_path / "project", Random(1))
    found = Layout(tmp_path / "project" / FOLDER)
    with OpenWorkspace(found) as ws:
        register_line(ws, found.project, ws.actor().id)
        ws.watermark(NAME, BEGIN)
    return found


@pytest.fixture
def house(layout: Layout) -> Iterator[House]:
    """A supervisor over that workspace, not started yet; nothing of it is left afterwards."""
    made = House(layout, os.environ)
    yield made
    made.destroy()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A line whose first model is live, and a reconciler to step."""
    made = Desk(tmp_path / "project")
    made.step_until("the first model is live", lambda: made.count("releases", state="live"))
    yield made
    made.close()
