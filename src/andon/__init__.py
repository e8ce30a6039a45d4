"""Andon: the assembly line for machine-learning models.

Public names are loaded when they are first used, so `import andon` costs next to nothing.

>>> import andon
>>> issubclass(andon.NotFound, andon.AndonError)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from andon.core.errors import AndonError as AndonError
    from andon.core.errors import Invalid as Invalid
    from andon.core.errors import NotFound as NotFound
    from andon.core.policy import Policy as Policy
    from andon.core.policy import read_policy as read_policy
    from andon.core.workspace import Layout as Layout
    from andon.core.workspace import Settings as Settings
    from andon.core.workspace import find_workspace as find_workspace
    from andon.pipelines.registration import register_line as register_line
    from andon.pipelines.workspace import FeedbackItem as FeedbackItem
    from andon.pipelines.workspace import OpenWorkspace as OpenWorkspace
    from andon.tracking.native.client import Run as Run
    from andon.tracking.native.client import run as run

_WHERE = {
    "AndonError": "andon.core.errors",
    "FeedbackItem": "andon.pipelines.workspace",
    "Invalid": "andon.core.errors",
    "Layout": "andon.core.workspace",
    "NotFound": "andon.core.errors",
    "OpenWorkspace": "andon.pipelines.workspace",
    "Policy": "andon.core.policy",
    "Run": "andon.tracking.native.client",
    "Settings": "andon.core.workspace",
    "find_workspace": "andon.core.workspace",
    "read_policy": "andon.core.policy",
    "register_line": "andon.pipelines.registration",
    "run": "andon.tracking.native.client",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("andon")
    if name not in _WHERE:
        raise AttributeError(f"module 'andon' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
