"""Steps run in processes of their own, see little, and say how they ended."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from andon.core.errors import Invalid, SourceError
from andon.core.policy import SourcePolicy
from andon.pipelines.executor import StepFailed, run_step
from andon.pipelines.step import StepSpec

SPY = """
import json, os, polars as pl
def rows(until):
    pl.DataFrame({"name": sorted(os.environ)}).write_csv(os.path.join(os.path.dirname(__file__), "seen.csv"))
    return pl.DataFrame({"y": [0, 1]})
"""


def spec(tmp_path: Path, code: str, **changes: object) -> StepSpec:
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code" / "line.py").write_text(code)
    plain = {
        "verb": "train",
        "code": str(tmp_path / "code"),
        "out": str(tmp_path / "out"),
        "entry": "line:pipeline",
    }
    pl.DataFrame({"a": [1.0], "y": [1]}).write_parquet(tmp_path / "rows.parquet")
    return StepSpec(**{**plain, "rows": str(tmp_path / "rows.parquet"), **changes})  # type: ignore[arg-type]


def ingest(tmp_path: Path, code: str) -> StepSpec:
    source = SourcePolicy(name="d", source="python:line:rows", label="y")
    return spec(tmp_path, code, verb="ingest", source=source)


@pytest.mark.capability("N8")
def test_a_step_sees_an_allow_list_of_the_environment(tmp_path: Path) -> None:
    environ = {**os.environ, "ANDON_DATABASE_URL": "postgresql://u:p@h/d", "AWS_SECRET_ACCESS_KEY": "s"}

    run_step(ingest(tmp_path, SPY), log=tmp_path / "log", environ=environ)

    seen = pl.read_csv(tmp_path / "code" / "seen.csv")["name"].to_list()
    assert "PATH" in seen
    assert not [name for name in seen if name.startswith(("ANDON", "AWS"))]


def test_user_code_that_raises_is_named_with_its_line(tmp_path: Path) -> None:
    code = "def pipeline(rows, *, seed):\n    raise KeyError('colour')\n"

    with pytest.raises(StepFailed, match=r"KeyError: 'colour' \(in line.py, line 2\)"):
        run_step(spec(tmp_path, code), log=tmp_path / "log")

    assert "Traceback" in (tmp_path / "log").read_text()


def test_user_code_that_dies_is_said_to_have_died(tmp_path: Path) -> None:
    code = "import os\ndef pipeline(rows, *, seed):\n    os._exit(9)\n"

    with pytest.raises(StepFailed, match="died with exit code 9"):
        run_step(spec(tmp_path, code), log=tmp_path / "log")


def test_user_code_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    code = "import threading\ndef pipeline(rows, *, seed):\n    threading.Event().wait()\n"

    with pytest.raises(StepFailed, match="more than 2 s"):
        run_step(spec(tmp_path, code), log=tmp_path / "log", timeout_s=2)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def other(): ...\n", "no function 'pipeline'"),
        ("import nowhere_to_be_found\n", "nowhere_to_be_found"),
        ("def pipeline(rows, *, seed)\n", "SyntaxError"),
        ("def pipeline(rows, *, seed): return 1\n", r"\(feature expressions, model\)"),
        ("def pipeline(rows, *, seed): return [], 1\n", "LightGBM boosters"),
    ],
)
def test_an_entry_that_is_not_one_is_refused_clearly(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        run_step(spec(tmp_path, code), log=tmp_path / "log")


def test_a_source_that_is_not_there_keeps_its_own_error(tmp_path: Path) -> None:
    source = SourcePolicy(name="d", source="nothing-*.csv", label="y")
    wanted = spec(tmp_path, "", verb="ingest", source=source, project=str(tmp_path))

    with pytest.raises(SourceError, match="nothing-"):
        run_step(wanted, log=tmp_path / "log")
