"""What each core dependency adds to the disk, with what only it brings; docs/decisions/core-dependencies.md rests on it."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
import venv
from importlib.metadata import Distribution, distributions
from pathlib import Path

from benchmarks.figures import ROOT, Figure, pip

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NO_PEER = "the parts of our own installation"


def core() -> list[str]:
    """The names that pyproject.toml lists as dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [match[0] for line in project["dependencies"] if (match := NAME.match(line))]


def installed(folder: Path) -> dict[str, Distribution]:
    """What a fresh virtual environment holds after `make demo` installed its lock with pip, bytecode compiled."""
    venv.create(folder, with_pip=True)
    for lock in ("build", "demo"):
        path = ROOT / f"requirements/{lock}.lock"
        pip(
            folder / "bin/python",
            "install",
            "--no-deps",
            "--no-build-isolation",
            "--require-hashes",
            "-r",
            path,
        )
    (site,) = folder.glob("lib/python*/site-packages")
    return {normal(dist.metadata["Name"]): dist for dist in distributions(path=[str(site)])}


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def closure(name: str, present: dict[str, Distribution]) -> set[str]:
    """A distribution and all that it needs; what an extra, another system or another Python needs is not present."""
    found, todo = set(), [name]
    while todo:
        one = normal(todo.pop())
        if one in present and one not in found:
            found.add(one)
            wanted = [line for line in present[one].requires or [] if "extra ==" not in line]
            todo += [match[0] for line in wanted if (match := NAME.match(line))]
    return found


def size_mb(dist: Distribution) -> float:
    """What a distribution's files take on disk, in units of 2**20 bytes."""
    status = [
        os.lstat(path) for file in dist.files or [] if (path := Path(str(dist.locate_file(file)))).exists()
    ]
    return sum({one.st_ino: one.st_blocks for one in status}.values()) * 512 / 2**20


def measure(*, peers: bool) -> list[Figure]:  # noqa: ARG001  # there is none
    with tempfile.TemporaryDirectory(prefix="andon-sizes-") as temp:
        present = installed(Path(temp))
        names = core()
        needs = {name: closure(name, present) for name in names}
        every = set().union(*needs.values())
        groups = {
            name: needs[name] - set().union(*(needs[o] for o in names if o != name)) | {name}
            for name in names
        }
        groups["shared"] = every - set().union(*groups.values())
        return [
            Figure(
                " + ".join(f"{one} {present[one].version}" for one in sorted(group)),
                sum(size_mb(present[one]) for one in group),
                "MB",
                reason=NO_PEER,
            )
            for group in [*groups.values(), every]
            if group
        ]
