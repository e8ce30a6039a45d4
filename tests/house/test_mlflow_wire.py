"""The page of the MLflow wire says what the table of endpoints says."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from andon.governance.access import Permission
from andon.web.mlflow.surface import surface
from andon.web.mlflow.wire import UNSUPPORTED, WireEndpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wire() -> ModuleType:
    spec = importlib.util.spec_from_file_location("andon_docs_mlflow_wire", ROOT / "docs/mlflow_wire.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_fresh(wire: ModuleType) -> None:
    assert wire.PAGE.read_text() == wire.page(), "run `make docs` and commit docs/reference/mlflow-wire.md"


def test_every_endpoint_is_on_the_page_with_its_permission(wire: ModuleType) -> None:
    rows = re.findall(r"^\| ([A-Z, ]+) \| `([^`]+)` \| (\w+) \| .+\. \|$", wire.page(), re.MULTILINE)

    listed = {
        (method, path, permission) for methods, path, permission in rows for method in methods.split(", ")
    }

    assert listed == {
        (each.method, (each.root + each.path).replace(":path}", "}"), each.permission.value)
        for each in surface()
    }


def test_everything_that_is_refused_is_on_the_page(wire: ModuleType) -> None:
    refused = wire.page().partition("## Not supported")[2].partition("## Errors")[0]

    assert [word for word in UNSUPPORTED if f"`{word}`" not in refused] == []


def test_an_endpoint_of_a_new_noun_needs_a_title(wire: ModuleType) -> None:
    new = WireEndpoint(
        method="GET",
        path="/nonsense/get",
        permission=Permission.READ,
        read=lambda _: None,
        summary="Nothing.",
    )

    with pytest.raises(SystemExit, match="no title for /nonsense/get"):
        wire.group(new)
