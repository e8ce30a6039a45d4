"""A changed folder that is run: the change and the request are one, so only one run comes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from andon.pipelines.registration import run_folder
from tests.loop.conftest import Project


def test_a_run_of_a_changed_folder_starts_no_second_run_for_the_change(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run()
    project.edit("andon.toml", "num_leaves = 15", "num_leaves = 31")
    actor, write = project.ws.actor().id, project.ws.store.write

    def write_and_be_followed(work: Callable[..., Any]) -> Any:
        """A worker that takes a step after each transaction of ours."""
        done = write(work)
        monkeypatch.setattr(project.ws.store, "write", write)
        project.reconciler.step()
        monkeypatch.setattr(project.ws.store, "write", write_and_be_followed)
        return done

    monkeypatch.setattr(project.ws.store, "write", write_and_be_followed)
    trigger = run_folder(project.ws, project.folder, actor)
    monkeypatch.setattr(project.ws.store, "write", write)
    project.drive(lambda: project._ended(trigger.id))

    kinds = [
        row.kind
        for row in project.ws.store.read(lambda reader: reader.triggers.select(order=("created_at",)))
    ]
    assert kinds.count("code") == 0
    assert kinds.count("manual") == 2
