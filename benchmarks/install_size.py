"""An installation is small: a fresh virtual environment by du, with pip and the compiled bytecode in it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import ROOT, Figure, pip

NO_PEER = "no other package covers the same ground; import_cost names the nearest"


def size_mb(folder: Path) -> float:
    """What the folder takes on disk, in units of 2**20 bytes as `du -m` counts; a hard link counts once."""
    blocks = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            status = os.lstat(os.path.join(parent, name))  # noqa: PTH118  # 30,000 files
            blocks[status.st_ino] = status.st_blocks
    return sum(blocks.values()) * 512 / 2**20


def pins(lock: Path) -> str:
    """A lock's pins as constraints, without their hashes."""
    return "\n".join(
        line.removesuffix("\\") for line in lock.read_text().splitlines() if "--hash" not in line
    )


def core(python: Path, folder: Path) -> None:
    """What `pip install andon` brings."""
    constraints = folder / "constraints.txt"
    constraints.write_text(pins(ROOT / "requirements/demo.lock"))
    pip(python, "install", "--constraint", constraints, ROOT)


def demo(python: Path, _folder: Path) -> None:
    """What `make demo` installs, build tools included."""
    for lock in ("build", "demo"):
        path = ROOT / f"requirements/{lock}.lock"
        pip(python, "install", "--no-deps", "--no-build-isolation", "--require-hashes", "-r", path)
    pip(python, "install", "--no-deps", "--no-build-isolation", ROOT)


def measure(*, peers: bool) -> list[Figure]:  # noqa: ARG001  # there is none
    figures = []
    for what, install, bar in (("core", core, "<= 360"), ("with the demo's extras", demo, "<= 530")):
        with tempfile.TemporaryDirectory(prefix="andon-size-") as temp:
            venv = Path(temp) / "venv"
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            install(venv / "bin/python", Path(temp))
            figures.append(Figure(f"installed size, {what}", size_mb(venv), "MB", bar, reason=NO_PEER))
    return figures
