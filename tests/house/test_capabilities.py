"""The page of capabilities says what the tests say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def capabilities() -> ModuleType:
    spec = importlib.util.spec_from_file_location("andon_docs_capabilities", ROOT / "docs/capabilities.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_fresh(capabilities: ModuleType) -> None:
    written = capabilities.page(capabilities.rows(), capabilities.proofs())

    assert capabilities.PAGE.read_text() == written, (
        "run `make docs` and commit docs/reference/capabilities.md"
    )


def test_no_marker_names_an_unknown_id(capabilities: ModuleType) -> None:
    assert capabilities.unknown(capabilities.rows(), capabilities.proofs()) == []


def test_every_row_has_a_priority_a_room_that_exists_and_an_id_of_its_part(capabilities: ModuleType) -> None:
    parts = capabilities.rows()
    every = [row for part in parts.values() for row in part]

    assert {row.priority for row in every} == {"must", "should", "frontier"}
    assert {row.room for row in every} <= {
        path.parent.name for path in (ROOT / "src/andon").glob("*/__init__.py")
    }
    assert [row.id for title, part in parts.items() for row in part if row.id[0] != title[0]] == []
    for part in parts.values():
        assert [int(row.id[1:]) for row in part] == list(range(1, len(part) + 1))


def test_a_row_shows_its_tests_or_says_not_yet(capabilities: ModuleType) -> None:
    parts = {
        "A. Data": [
            capabilities.Row("A1", "must", "data", "Take."),
            capabilities.Row("A2", "should", "data", "Keep."),
        ]
    }
    source = "class TestX:\n    @pytest.mark.capability('A1')\n    async def test_take(self): ...\n"
    found = capabilities.proofs_in(ROOT / "tests/data/test_x.py", source)

    page = capabilities.page(parts, found)

    assert "| A1 | Take. | must | data | [test_take](../../tests/data/test_x.py) |" in page
    assert "| A2 | Keep. | should | data | not yet |" in page
    assert "must 1 of 1 · should 0 of 1" in page


@pytest.mark.parametrize(
    ("source", "name", "ids"),
    [
        ("@pytest.mark.capability('A1', 'B2')\nclass TestX: ...\n", "TestX", ("A1", "B2")),
        ("pytestmark = [pytest.mark.chaos, pytest.mark.capability('L7')]\n", "test_x", ("L7",)),
        ("from pytest import mark\n@mark.capability('A1')\ndef test_y(): ...\n", "test_y", ("A1",)),
    ],
)
def test_markers_are_found_wherever_pytest_takes_them(
    capabilities: ModuleType, source: str, name: str, ids: tuple[str, ...]
) -> None:
    (proof,) = capabilities.proofs_in(Path("test_x.py"), source)

    assert (proof.name, proof.ids) == (name, ids)


def test_an_unknown_id_is_named_with_its_place(capabilities: ModuleType) -> None:
    found = capabilities.proofs_in(Path("test_x.py"), "\n@pytest.mark.capability('Z9')\ndef test_y(): ...\n")

    assert capabilities.unknown(capabilities.rows(), found) == ["test_x.py:2: Z9 is not in capabilities.toml"]


def test_an_id_that_is_computed_is_refused(capabilities: ModuleType) -> None:
    with pytest.raises(SystemExit, match="plain strings"):
        capabilities.proofs_in(Path("test_x.py"), "@pytest.mark.capability(NAME)\ndef test_y(): ...\n")
