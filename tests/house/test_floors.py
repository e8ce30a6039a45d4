"""The floors of the house hold, and the contracts that guard them bite."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTED = {
    "a room imports only lower floors": ("stats/planted.py", "import andon.pipelines\n"),
    "a room imports only lower floors, siblings too": ("registry/planted.py", "import andon.tracking\n"),
    "SQL lives in store": ("registry/planted.py", "def late():\n    import sqlite3\n    return sqlite3\n"),
    "the web framework stays in web and serving": ("rollout/planted.py", "import starlette.responses\n"),
    "heavy libraries only where they are declared": ("monitoring/planted.py", "import lightgbm\n"),
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    script = (
        "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as c; c()"
    )
    return subprocess.run(
        [sys.executable, "-c", script, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the house in which something can be planted."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_house_keeps_its_floors() -> None:
    done = lint_imports(ROOT)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("contract", PLANTED)
def test_a_planted_violation_is_refused(copy: Path, contract: str) -> None:
    path, source = PLANTED[contract]
    (copy / "src/andon" / path).write_text(source)

    done = lint_imports(copy)

    assert done.returncode == 1
    assert f"{contract.partition(',')[0]} BROKEN" in done.stdout
    assert "planted" in done.stdout


def test_a_new_room_must_be_given_a_floor(copy: Path) -> None:
    (copy / "src/andon/attic").mkdir()
    (copy / "src/andon/attic/__init__.py").write_text("")

    done = lint_imports(copy)

    assert done.returncode == 1
    assert "attic" in done.stdout


def test_a_circle_between_neighbours_is_refused(copy: Path) -> None:
    room = copy / "src/andon/stats"
    for name, other in (("left", "right"), ("right", "left")):
        (room / name).mkdir()
        (room / name / "__init__.py").write_text(f"import andon.stats.{other}\n")

    done = lint_imports(copy)

    assert done.returncode == 1
    assert "no circles between neighbours BROKEN" in done.stdout
