"""Which workspace a command means."""

from __future__ import annotations

import os
from pathlib import Path

from andon.core.workspace import Layout, find_workspace, settings_from
from andon.pipelines.workspace import OpenWorkspace


def here() -> Layout:
    """The workspace of `ANDON_HOME`, or the one above the current folder."""
    return find_workspace(Path.cwd(), os.environ)


def open_here() -> OpenWorkspace:
    """That workspace, opened."""
    return OpenWorkspace(here(), settings_from(os.environ))
