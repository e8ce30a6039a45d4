"""The locks pin everything by hash, name no host, fit pyproject.toml and leave pandas out."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([0-9][^ ]*)( ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def pins(lock: Path) -> dict[str, set[str]]:
    """Name to versions (more than one where the Python version decides)."""
    found: dict[str, set[str]] = {}
    for line in lock.read_text().splitlines():
        if match := PIN.match(line):
            found.setdefault(match[1], set()).add(match[2])
    return found


def wanted(extra: str) -> set[str]:
    """Names that pyproject.toml asks for, with an extra's own and those of the extras it includes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names, todo = set(), [*project["dependencies"], *project["optional-dependencies"][extra]]
    while todo:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^]]+)\])?", todo.pop())
        assert match is not None
        if match[1] == "andon":
            for inner in match[2].split(","):
                todo += project["optional-dependencies"][inner.strip()]
        else:
            names.add(match[1].lower())
    return names


def test_there_is_a_lock_for_each_way_to_install() -> None:
    assert [lock.name for lock in LOCKS] == ["build.lock", "demo.lock", "dev.lock"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_only_pins_and_hashes(lock: Path) -> None:
    lines = lock.read_text().splitlines()

    assert [line for line in lines if not PIN.match(line) and not HASH.match(line)] == []
    assert [line for line, after in pairwise(lines) if PIN.match(line) and not HASH.match(after)] == []


@pytest.mark.parametrize("extra", ["demo", "dev"])
def test_a_lock_pins_all_that_its_extra_asks_for(extra: str) -> None:
    assert wanted(extra) - set(pins(ROOT / f"requirements/{extra}.lock")) == set()


def test_the_locks_agree_and_the_demo_needs_nothing_that_development_lacks() -> None:
    demo, dev, build = (pins(ROOT / f"requirements/{name}.lock") for name in ("demo", "dev", "build"))

    assert {name: dev.get(name) for name in demo} == demo
    assert {name: dev[name] for name in build if name in dev} == {n: v for n, v in build.items() if n in dev}


def test_pandas_is_in_no_lock() -> None:
    assert [lock.name for lock in LOCKS if "pandas" in pins(lock)] == []
