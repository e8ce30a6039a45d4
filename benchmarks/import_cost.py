"""`import andon` costs a command line nothing that a person would notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Figure, median, peer_python

MLFLOW = "mlflow==3.17.2"
PROBE = """
import resource
def cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
start = cpu_s()
import {module}
print(cpu_s() - start)
"""


def import_cpu_s(python: Path, module: str) -> float:
    """User and system CPU seconds of importing a module in a fresh process, the start of Python not counted."""
    done = subprocess.run(
        [python, "-c", PROBE.format(module=module)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def measure(*, peers: bool) -> list[Figure]:
    ours = median(lambda: import_cpu_s(Path(sys.executable), "andon"), 9)
    if not peers:
        return [Figure("import andon, CPU", ours, "s", "<= 0.15", reason="left out with --no-peer")]
    python = peer_python("mlflow", MLFLOW)
    theirs = median(lambda: import_cpu_s(python, "mlflow"), 5)
    return [Figure("import andon, CPU", ours, "s", "<= 0.15", peer=f"import {MLFLOW}", peer_value=theirs)]
