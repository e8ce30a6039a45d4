"""What is imported is declared: the core's dependencies at the top of a module, an extra's inside the function."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"andon", "benchmarks", "tests"}
# Scripts that run in virtual environments of clients, with what requirements/wire brings.
CLIENTS = ("tests/wire/scenarios/", "tests/tracking/mlflow_store/", "tests/loop/load_with_mlflow.py")
# Bring their own name with a core dependency: uvicorn and starlette stand on them.
BROUGHT = {"anyio", "h11", "markupsafe", "typing-extensions"}


def names(*lists: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;! ]", line)[0].lower() for lines in lists for line in lines} - {"andon"}


CORE = names(PROJECT["dependencies"]) | BROUGHT
TESTING = names(PROJECT["optional-dependencies"]["testing"])
EXTRAS = names(*PROJECT["optional-dependencies"].values())


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Top-level package, line, and whether it is imported inside a function, for each foreign import of a file."""
    tree = ast.parse(path.read_text())
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        for module in modules:
            package = module.partition(".")[0]
            if package not in sys.stdlib_module_names and package not in OWN:
                yield package, node.lineno, id(node) in late


def undeclared(folder: str, *, tests: bool) -> list[str]:
    known = packages_distributions()
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        if str(path.relative_to(ROOT)).startswith(CLIENTS):
            continue
        for package, line, late in imports(path):
            project = [path.parent, path.parent.parent] if "templates" in path.parts else []
            if any((folder / f"{package}.py").exists() for folder in project):
                continue  # a module of the same project
            allowed = CORE | EXTRAS if tests or late or "templates" in path.parts else CORE
            if path.is_relative_to(ROOT / "src/andon/testing"):
                allowed |= TESTING
            distributions = {name.lower().replace("_", "-") for name in known.get(package, [package])}
            if not distributions & allowed:
                found.append(
                    f"{path.relative_to(ROOT)}:{line}: {package} ({', '.join(sorted(distributions))})"
                )
    return found


def test_what_is_shipped_imports_only_what_it_declares() -> None:
    assert undeclared("src", tests=False) == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "docs"])
def test_tests_and_scripts_import_only_what_the_dev_extra_brings(folder: str) -> None:
    assert undeclared(folder, tests=True) == []
