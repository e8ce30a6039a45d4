"""Fragments of the changelog are well named and said in one sentence, and a release gathers them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FRAGMENTS = sorted(path for path in (ROOT / "changelog.d").glob("*.md"))
NAME = re.compile(r"[a-z0-9][a-z0-9-]*\.(added|changed|fixed)\.md")


@pytest.fixture
def collect() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect", ROOT / "changelog.d/collect.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_one_sentence_under_a_telling_name(fragment: Path) -> None:
    text = fragment.read_text().strip()

    assert NAME.fullmatch(fragment.name)
    assert text.endswith(".")
    assert "\n\n" not in text


def test_a_release_gathers_the_fragments_into_the_changelog(collect: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "changelog.d"
    folder.mkdir()
    (folder / "b-undo.fixed.md").write_text("Undo works twice.\n")
    (folder / "a-drift.added.md").write_text("Drift is\nwatched.\n")
    log = tmp_path / "CHANGELOG.md"
    log.write_text("# Changelog\n\n<!-- releases -->\n\n## 0.1.0 - 2026-01-01\n")

    collect.release("0.2.0", "2026-02-03", log, folder)

    assert log.read_text() == (
        "# Changelog\n\n<!-- releases -->\n\n## 0.2.0 - 2026-02-03\n\n### Added\n\n- Drift is watched.\n\n"
        "### Fixed\n\n- Undo works twice.\n\n## 0.1.0 - 2026-01-01\n"
    )
    assert list(folder.iterdir()) == []


def test_a_release_without_fragments_is_refused(collect: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "changelog.d").mkdir()
    log = tmp_path / "CHANGELOG.md"
    log.write_text("# Changelog\n\n<!-- releases -->\n")

    with pytest.raises(SystemExit, match="no fragments"):
        collect.release("0.2.0", "2026-02-03", log, tmp_path / "changelog.d")
