"""The MLflow clients that the scenarios are played with: each in a virtual environment of its own, made on first use.

Their pins clash with ours and with each other's. An environment stands in `.venv-wire/<name>` at the top of the
repository, holds exactly what its hashed lock in requirements/wire names, and is made anew when the lock changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements/wire"
HOME = ROOT / ".venv-wire"
# Not in the lock: torch's builds for one and the same version differ from index to index.
AFTERWARDS = {"full": ["torch==2.13.0"]}


def python(name: str) -> Path:
    """The interpreter of a client's environment; of several processes that ask at once, one makes it.

    Raises:
        subprocess.CalledProcessError: pip could not install the lock.
    """
    lock, folder = LOCKS / f"{name}.lock", HOME / name
    made_of = hashlib.sha256(
        lock.read_bytes() + repr((AFTERWARDS.get(name), sys.version_info)).encode()
    ).hexdigest()
    stamp = folder / ".made-of"
    HOME.mkdir(exist_ok=True)
    with (HOME / f"{name}.busy").open("w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != made_of:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            _install(folder, "--no-deps", "--require-hashes", "-r", lock)
            if name in AFTERWARDS:
                _install(folder, *AFTERWARDS[name])
            stamp.write_text(made_of)
    return folder / "bin/python"


def _install(folder: Path, *what: str | Path) -> None:
    quiet = ("-qq", "--disable-pip-version-check", "--no-input")
    subprocess.run([folder / "bin/python", "-m", "pip", *quiet, "install", *what], check=True)
