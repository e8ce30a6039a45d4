"""A line's run has a line, a policy and code; a client's run has none, and nobody carries it on by mistake."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from andon.core.entities import Run
from andon.core.errors import Invalid
from andon.core.lines import LineWork, line_work
from andon.testing import rows


def test_a_lines_run_says_what_it_does() -> None:
    run = rows.run("r1")

    assert line_work(run) == LineWork("churn", rows.digest("policy"), rows.digest("code"))


@pytest.mark.parametrize(
    "run",
    [rows.tracked_run("r1"), replace(rows.run("r1"), policy=None), replace(rows.run("r1"), code=None)],
    ids=["a client's", "no policy", "no code"],
)
def test_another_run_is_refused(run: Run) -> None:
    with pytest.raises(Invalid, match="run r1 is no pass of a line"):
        line_work(run)
