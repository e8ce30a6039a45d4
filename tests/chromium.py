"""Which browser the browser tests drive, and what is said when there is none.

A chromium on PATH is used; else, as root on Debian or Ubuntu, it is installed, announced, with apt-get; else the
browser tests are left out and named in the last line of the run. With ANDON_BROWSER=required (CI) that is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def on_path() -> Path | None:
    """The first browser of NAMES on PATH."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return Path(found) if found else None


def can_install() -> bool:
    """True as root on a system with apt-get, where the package is called chromium."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install() -> str | None:
    """Install chromium with apt-get. Returns why it did not work, or None when it did."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium"],
    ):
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"'{' '.join(command)}' failed: {done.stderr.strip()[-200:]}"
    return None


def required() -> bool:
    return os.environ.get("ANDON_BROWSER") == "required"
