"""The page of events says what there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from andon.core.events import KINDS
from andon.testing.events import page

PAGE = Path(__file__).parents[2] / "docs/reference/events.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run: python -m andon.testing.events docs/reference/events.md"


def test_the_page_names_every_kind_once() -> None:
    assert [kind for kind in KINDS if page().count(f"| `{kind}` |") != 1] == []


def test_the_page_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "andon.testing.events", str(tmp_path / "events.md")], check=True)

    assert (tmp_path / "events.md").read_text() == page()
