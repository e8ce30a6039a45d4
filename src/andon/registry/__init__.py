"""Models: versions, gates and verdicts, approvals, releases and packaging.

Packages and their loaders are in `andon.registry.packaging`, which a gateway imports; the names here are loaded when they
are first used, so that it does not pay for gates and statistics.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from andon.registry.evaluation import Evaluation, Evidence, evaluate, frame_digest, score
    from andon.registry.gates import CheckResult, Judgement, Sanity, check_gate, judge
    from andon.registry.metrics import METRICS, Scores
    from andon.registry.releases import (
        approve,
        authors,
        counting_approvals,
        go_live,
        in_progress,
        judging,
        live_release,
        refuse,
        request_release,
        standby,
        start_rolling,
        undo_release,
        withdraw,
    )
    from andon.registry.versions import give_verdict, register_version

__all__ = [
    # versions and verdicts
    "give_verdict",
    "register_version",
    # evaluation and gates
    "METRICS",
    "CheckResult",
    "Evaluation",
    "Evidence",
    "Judgement",
    "Sanity",
    "Scores",
    "check_gate",
    "evaluate",
    "frame_digest",
    "judge",
    "score",
    # releases
    "approve",
    "authors",
    "counting_approvals",
    "go_live",
    "in_progress",
    "judging",
    "live_release",
    "refuse",
    "request_release",
    "standby",
    "start_rolling",
    "undo_release",
    "withdraw",
]

_MODULES = ("versions", "releases", "metrics", "gates", "evaluation")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            loaded = import_module(f"andon.registry.{module}")
            if name in loaded.__dict__:
                return loaded.__dict__[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
