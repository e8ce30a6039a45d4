"""The runner of the benchmarks prints what it promises, and hides no missed bar."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.figures import Figure
from benchmarks.run import names, table

ROOT = Path(__file__).parents[2]
KEYS = ["what", "value", "unit", "bar", "met", "peer", "peer_value", "ratio", "reason"]


def test_one_benchmark_prints_a_single_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks.run", "import_cost", "--json", "--no-peer"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    result = json.loads(done.stdout)
    (figure,) = result["figures"]
    assert list(result) == ["name", "machine", "figures"]
    assert list(figure) == KEYS
    assert (figure["bar"], figure["met"], figure["peer"]) == ("<= 0.15", True, None)
    assert figure["reason"]


def test_an_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "nothing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert all(name in done.stderr for name in names())


def test_a_missed_bar_is_printed_as_missed() -> None:
    figure = Figure("wall", 120.0, "s", "<= 90", reason="nobody else has one")

    printed = table({"name": "demo", "figures": [figure.as_dict()]})

    assert figure.met is False
    assert "bar <= 90: MISSED" in printed


def test_a_figure_beside_a_peer_has_their_ratio() -> None:
    figure = Figure("import", 0.1, "s", "< 0.15", peer="mlflow", peer_value=2.5)

    assert (figure.met, figure.ratio) == (True, 25.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "why there is no peer"),
        ({"peer": "mlflow"}, "come together"),
        ({"reason": "none", "bar": "about 3"}, "a bar reads like"),
    ],
)
def test_a_figure_that_hides_something_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Figure("x", 1.0, "s", **options)


@pytest.mark.parametrize("name", names())
def test_a_benchmark_says_its_claim_first(name: str) -> None:
    source = (ROOT / f"benchmarks/{name}.py").read_text()

    assert source.startswith('"""')
    assert "def measure(*, peers: bool) -> list[Figure]:" in source
