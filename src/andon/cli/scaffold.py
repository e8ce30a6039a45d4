"""Project templates, as the installed package carries them."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path


def copy_template(name: str, target: Path) -> None:
    """Copy a template of the installed package into a folder."""
    with as_file(files("andon.cli") / "templates" / name) as source:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
