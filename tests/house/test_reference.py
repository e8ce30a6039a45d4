"""The reference lists what there is: commands, policy keys, settings, errors, permissions, metrics, files of a workspace."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import andon
from andon.core import policy
from andon.core.errors import AndonError, PolicyError
from andon.core.policy import Policy, parse_policy
from andon.core.workspace import FOLDER, Layout
from andon.governance.access import ROLES, Permission
from andon.registry.metrics import LATENCY, METRICS
from andon.serving.metrics import BUCKETS_S, Metrics
from andon.serving.table import Table

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"


def page(name: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", (REFERENCE / name).read_text(), flags=re.MULTILINE | re.DOTALL)


def table(text: str, columns: int) -> list[list[str]]:
    """The rows of a page's Markdown tables that have so many columns, without their heads."""
    rows = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if len(row) == columns]


def words(cell: str) -> list[str]:
    """What a cell names: its texts in code."""
    return re.findall(r"`([^`]+)`", cell)


# --- commands ---


@pytest.fixture(scope="module")
def cli() -> ModuleType:
    spec = importlib.util.spec_from_file_location("andon_docs_cli", ROOT / "docs/cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_commands_page_is_fresh(cli: ModuleType) -> None:
    assert cli.PAGE.read_text() == cli.page(), "run `make docs` and commit docs/reference/cli.md"


def test_every_command_says_what_it_does_and_takes_json(cli: ModuleType) -> None:
    for name, command in cli.commands(cli.andon):
        assert command.get_short_help_str(), name
        assert "--json" in cli.usage(name, command), name


# --- andon.toml ---

LEAST = '[line]\nname = "x"\nentry = "m:f"\n[data.d]\nsource = "s.csv"\nlabel = "y"\n'
STRUCTS = {
    "Policy": Policy,
    **{name: kind for name, kind in vars(policy).items() if name.endswith(("Policy", "Check", "Rule"))},
}
NOT_KEYS = {"text": "the file itself", "source": "a key of [data.NAME], and the table [data.NAME]"}
CALLED = {
    "train": "[train]", "gate": "[gate]", "release": "[release]", "monitor": "[monitor]", "retrain": "[retrain]",
    "metrics": "[monitor.metrics]", "false_alarms_per": "false_alarms", "label_horizon": "delay",
}  # fmt: skip
"""Fields whose key in the file has another name; some are tables."""


def sections() -> dict[str, list[list[str]]]:
    """Table of `andon.toml` to the rows of its keys: key, type, default, meaning."""
    parts = re.split(r"^## `\[([\w.]+)\]`$", page("policy.md"), flags=re.MULTILINE)
    found = {
        name: [row for row in table(text, 4) if row[0] != "key"]
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {name: rows for name, rows in found.items() if rows}


def accepted(name: str) -> set[str]:
    """The keys that the parser takes in a table, as it says itself when it meets another."""
    document: dict[str, Any] = tomllib.loads(LEAST)
    where = "data.d" if name == "data.NAME" else f"{name}.auc" if name == "monitor.metrics" else name
    inner = document
    for part in where.split("."):
        inner = inner.setdefault(part, {})
    inner["nonsense"] = 1
    with pytest.raises(PolicyError) as caught:
        parse_policy(toml(document))
    assert f"{where}.nonsense is not a key" in str(caught.value)
    return set(str(caught.value).rpartition("expected ")[2].split(", "))


def toml(document: dict[str, Any], path: str = "") -> str:
    plain = [
        f"{key} = {msgspec.json.encode(value).decode()}"
        for key, value in document.items()
        if not isinstance(value, dict)
    ]
    tables = [
        toml(value, f"{path}.{key}".strip(".")) for key, value in document.items() if isinstance(value, dict)
    ]
    return "\n".join([f"[{path}]" if path else "", *plain, *tables])


def test_every_table_of_the_policy_has_its_keys_in_the_reference() -> None:
    documented = {name: {words(row[0])[0] for row in rows} for name, rows in sections().items()}

    assert documented == {name: accepted(name) for name in documented}
    with pytest.raises(PolicyError) as caught:
        parse_policy("[nonsense]")
    known = str(caught.value).rpartition("expected ")[2].split(", ")
    titles = re.findall(r"^## `\[(\w+)", page("policy.md"), re.MULTILINE)
    assert set(titles) == set(known)


@pytest.mark.parametrize("kind", STRUCTS.values(), ids=STRUCTS)
def test_every_field_of_the_policy_is_in_the_reference(kind: type[msgspec.Struct]) -> None:
    named = set(words(page("policy.md")))

    missing = [
        name
        for name in kind.__struct_fields__
        if name not in NOT_KEYS and CALLED.get(name, name) not in named
    ]
    assert missing == []


def defaults() -> Iterator[tuple[str, str, str]]:
    for name, rows in sections().items():
        for row in rows:
            if (literal := words(row[2])) and name != "monitor.metrics":
                yield name, words(row[0])[0], literal[0]


@pytest.mark.parametrize(("name", "key", "literal"), [*defaults()])
def test_the_documented_default_changes_nothing(name: str, key: str, literal: str) -> None:
    where = "data.d" if name == "data.NAME" else name
    text = LEAST.replace(f"[{where}]\n", f"[{where}]\n{key} = {literal}\n")
    text = text if text != LEAST else f"{LEAST}[{where}]\n{key} = {literal}\n"

    written, plain = parse_policy(text), parse_policy(LEAST)

    assert msgspec.structs.replace(written, text="") == msgspec.structs.replace(plain, text="")


def test_keys_without_a_default_are_needed() -> None:
    needed = [
        (name.replace("NAME", "d"), words(row[0])[0])
        for name, rows in sections().items()
        for row in rows
        if row[2] == "needed" and name != "monitor.metrics"
    ]

    assert len(needed) == 4
    for name, key in needed:
        text = re.sub(rf"^{key} = .*\n", "", LEAST, count=1, flags=re.MULTILINE)
        with pytest.raises(PolicyError, match=re.escape(f"{name}.{key} is missing")):
            parse_policy(text)


# --- settings ---


def test_every_variable_that_is_read_is_in_the_reference() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), ROOT / "Makefile"]
    read = {name for path in sources for name in re.findall(r"\bANDON_[A-Z][A-Z_]*[A-Z]\b", path.read_text())}

    assert read - {"ANDON_X"} == set(re.findall(r"`(ANDON_[A-Z_]+)`", page("settings.md")))


# --- errors ---


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(andon.__path__, "andon."):
        if not found.name.endswith("__main__") and ".templates" not in found.name:
            yield importlib.import_module(found.name)


def errors(kind: type[AndonError] = AndonError) -> Iterator[type[AndonError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from errors(child)


def test_every_error_is_in_the_reference() -> None:
    known = {module.__name__ for module in modules()}

    raised = {
        (kind.code, str(kind.status), str(kind.exit_code), kind.__name__)
        for kind in errors()
        if kind.__module__ in known
    }

    documented = {
        (words(code)[0], status, number, name)
        for code, status, numbers, names, _ in table(page("errors.md"), 5)
        if words(code)[0] != "error_code"
        for number in numbers.split(", ")
        for name in words(names)
    }
    assert documented == raised


def test_every_exit_code_is_in_the_help(cli: ModuleType) -> None:
    said = {int(number) for number in re.findall(r"(\d+) [a-z]", cli.andon.help.partition("Exit codes")[2])}

    assert {kind.exit_code for kind in errors()} <= said


# --- permissions and metrics ---


def test_every_permission_and_role_is_in_the_reference() -> None:
    rows = {words(row[0])[0]: row[1] for row in table(page("permissions.md"), 2) if words(row[0])}

    assert set(rows) == {permission.value for permission in Permission} | set(ROLES)
    for role, held in ROLES.items():
        assert words(rows[role]) == [permission.value for permission in Permission if permission in held]


def test_every_metric_of_a_gateway_is_in_the_reference() -> None:
    metrics = Metrics(1)
    metrics.count("churn", "churn", "1", "stable", 200)
    metrics.observe("churn", 0.002)
    text = metrics.text(Table()).decode()
    families = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    rows = {words(row[0])[0]: row for row in table(page("metrics.md"), 5) if words(row[0])}

    assert [(name, row[1]) for name, row in rows.items()] == families
    for name, labels in re.findall(r"^(\w+)\{(.*)\} ", text, re.MULTILINE):
        row = next(row for family, row in rows.items() if name.startswith(family))
        assert any(name.endswith(sample) for sample in words(row[2])), name
        assert set(re.findall(r"(\w+)=", labels)) - {"worker", "le"} == set(words(row[3])), name
    assert " ".join(map(str, BUCKETS_S)) in (REFERENCE / "metrics.md").read_text()


def test_every_metric_of_a_run_is_in_the_reference() -> None:
    rows = [words(row[0])[0] for row in table(page("metrics.md"), 3) if words(row[0])]

    assert sorted(rows) == sorted([*METRICS, LATENCY])


# --- files ---


def test_every_place_of_a_workspace_is_in_the_reference(tmp_path: Path) -> None:
    layout = Layout(tmp_path / FOLDER).create()
    places = [
        getattr(layout, name).relative_to(layout.root).as_posix()
        for name, member in vars(Layout).items()
        if isinstance(member, property) and name != "project"
    ]
    listed = [name for row in table(page("workspace-folder.md"), 3) for name in words(row[0])]

    missing = [place for place in places if not any(name.startswith(place) for name in listed)]
    assert missing == []
    assert {child.name for child in layout.root.iterdir()} <= {name.split("/")[0] for name in listed}


# --- the index ---


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = sorted(path for path in (ROOT / "docs").rglob("*.md") if path != ROOT / "docs/README.md")

    missing = [
        name for path in pages if f"({(name := path.relative_to(ROOT / 'docs').as_posix())})" not in index
    ]
    assert missing == []
