"""The whole demo, as a stranger runs it: one command, real processes, real requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from andon.cli.demo import MIN_REQUESTS, Summary

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "demo.schema.json"


@pytest.mark.capability("L1", "L3", "L6", "G11")
def test_the_loop_closes_by_itself_on_real_flights(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "andon"), "demo", "--exit", "--json", "--folder", str(tmp_path / "demo")],
        capture_output=True, text=True, timeout=400, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip

    assert done.stdout, done.stderr[-4000:]
    said = msgspec.json.decode(done.stdout, type=Summary)
    assert (said.ok, said.missing, done.returncode) == (True, [], 0), done.stderr[-4000:]
    assert said.predictions >= MIN_REQUESTS
    assert {line.fault for line in said.models if not line.passed} >= {"shuffled-labels"}
    broken = {line.version for line in said.models if line.fault == "broken-feature"}
    assert {line.version for line in said.undone} <= broken
    assert said.undone
    assert all(line.requests < 100 for line in said.undone)
    assert said.why is not None
    assert said.sample_prediction_id is not None
    assert all(alert.summary for alert in said.alerts)


def test_the_summary_has_the_shape_that_the_docs_give() -> None:
    assert json.loads(SCHEMA.read_text()) == msgspec.json.schema(Summary)
