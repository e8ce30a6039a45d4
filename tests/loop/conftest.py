"""A project on a small table, its workspace, and a reconciler driven by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from andon.cli.scaffold import copy_template
from andon.core.entities import Release, Run
from andon.core.states import ended
from andon.core.workspace import FOLDER, Layout
from andon.pipelines.reconciler import Reconciler
from andon.pipelines.registration import register_line
from andon.pipelines.workspace import OpenWorkspace

STEPS = 2_000


class Project:
    """The churn template in a folder of its own, with verbs that tests speak in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copy_template("churn", folder)
        self.ws = OpenWorkspace(Layout(folder / FOLDER))
        self.reconciler = Reconciler(self.ws)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{old!r} is not in {file}"
        path.write_text(text.replace(old, new))

    def run(self, *faults: str) -> Run:
        """Ask for a run and drive the loop until it has ended and its release has settled."""
        actor = self.ws.actor().id
        line = register_line(self.ws, self.folder, actor)
        trigger = self.ws.run(line.id, actor, faults=faults)
        done = self.drive(lambda: self._ended(trigger.id))
        self.settle()
        assert done is not None
        return done

    def drive(self, until: Callable[[], object]) -> object:
        """Step the reconciler until something is true."""
        for _ in range(STEPS):
            moved = self.reconciler.step()
            if found := until():
                return found
            if not moved:
                for thread in list(self.reconciler._running.values()):
                    thread.join(0.05)
        raise AssertionError("it did not happen")

    def settle(self) -> None:
        """Step until nothing moves."""
        for _ in range(STEPS):
            if not self.reconciler.step():
                return
        raise AssertionError("the loop does not come to rest")

    def live(self, endpoint: str = "churn") -> Release | None:
        found = self.ws.store.read(
            lambda reader: reader.releases.select({"endpoint": endpoint, "state": "live"})
        )
        return found[0] if found else None

    def close(self) -> None:
        self.reconciler.close()
        self.ws.close()

    def _ended(self, trigger: str) -> Run | None:
        ident = self.ws.store.read(lambda reader: reader.triggers.get(trigger)).run
        run = self.ws.store.read(lambda reader: reader.runs.get(ident)) if ident else None
        return run if run is not None and ended("run", run.state) else None


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "churn")
    yield made
    made.close()
