"""What a run of a line has and a run that a client tracks has not: its line, its policy and its code."""

from __future__ import annotations

from typing import NamedTuple

from andon.core.canonical import Digest
from andon.core.entities import Run
from andon.core.errors import Invalid


class LineWork(NamedTuple):
    """What a run does: the line, by name, with the policy and the code that this pass of it uses."""

    line: str
    policy: Digest
    code: Digest


def line_work(run: Run) -> LineWork:
    """What a line's run does.

    Raises:
        Invalid: no line made this run.
    """
    if run.line is None or run.policy is None or run.code is None:
        raise Invalid(
            f"run {run.id} is no pass of a line", hint="a client tracks it; only its client can carry it on"
        )
    return LineWork(run.line, run.policy, run.code)
