"""A disk that is soon full: a tmpfs where this user may mount one, else a limit on the size of a file."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LIMIT = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); os.execv(sys.argv[1], sys.argv[1:])"


@contextlib.contextmanager
def small_disk(folder: Path, *, disk_bytes: int = 2**20, file_bytes: int) -> Iterator[list[str]]:
    """Make `folder` small; what comes is how to start a Python that feels it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield [sys.executable, "-c", LIMIT.format(file_bytes), sys.executable]
        return
    try:
        yield [sys.executable]
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
