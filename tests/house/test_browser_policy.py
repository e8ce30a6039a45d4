"""Browser tests are never left out in silence: they run, or the last line says why not, or the run fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = """
import pytest

@pytest.mark.browser
def test_clicks():
    raise AssertionError("there is no browser here")

def test_counts():
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two tests that has our conftest and markers."""
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\nmarkers =\n    browser\n")
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "chromium.py"):
        (tmp_path / "tests" / name).write_text((ROOT / "tests" / name).read_text())
    (tmp_path / "tests/test_sample.py").write_text(SAMPLE)
    return tmp_path


def run(project: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Pytest on a machine that has neither a browser nor apt-get on PATH."""
    env = {name: value for name, value in os.environ.items() if name != "ANDON_BROWSER"}
    env |= {"PATH": str(project), **settings}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)


def test_without_a_browser_the_last_line_names_what_was_not_run(project: Path) -> None:
    done = run(project)

    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 deselected" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "1 browser tests were NOT run: no chromium on PATH and no right to install one"
    )


def test_where_the_browser_is_required_the_run_fails_without_one(project: Path) -> None:
    done = run(project, ANDON_BROWSER="required")

    assert done.returncode != 0
    assert "the browser tests must run here, but no chromium on PATH" in done.stdout + done.stderr


def test_with_a_browser_they_run(project: Path) -> None:
    browser = project / "chromium"
    browser.write_text("#!/bin/sh\n")
    browser.chmod(0o755)

    done = run(project)

    assert "1 failed, 1 passed" in done.stdout
