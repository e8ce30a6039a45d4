"""Which workspace a command means."""

from __future__ import annotations

import os
from pathlib import Path

from andon.core.errors import NotFound
from andon.core.workspace import FOLDER, Layout, find_workspace, settings_from
from andon.pipelines.workspace import OpenWorkspace


def here() -> Layout:
    """The workspace of `ANDON_HOME`, or the one above the current folder."""
    return find_workspace(Path.cwd(), os.environ)


def here_or_new(workspace: Path | None) -> Layout:
    """The workspace in a folder; without one the one above the current folder, or a new one in it."""
    if workspace is None:
        try:
            return here()
        except NotFound:
            if "ANDON_HOME" in os.environ:  # it names a folder that is not there: another one is not meant
                raise
            workspace = Path.cwd()
    return Layout((workspace if workspace.name == FOLDER else workspace / FOLDER).absolute())


def open_here() -> OpenWorkspace:
    """That workspace, opened."""
    return OpenWorkspace(here(), settings_from(os.environ))
