"""What a benchmark says, and what every benchmark needs: figures with bars, the machine, environments of peers."""

from __future__ import annotations

import operator
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-bench"
BAR = re.compile(r"(<=|>=|<|>) (\d+(?:\.\d+)?)")
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One measured figure. `bar` is what it must keep ("<= 0.15"); without a peer, `reason` says why there is none.

    >>> Figure("wall", 12.5, "s", "<= 90", reason="nobody else has one").met
    True
    """

    what: str
    value: float
    unit: str
    bar: str | None = None
    peer: str | None = None
    peer_value: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.peer is None) != (self.peer_value is None):
            raise ValueError(f"{self.what}: a peer and its value come together")
        if self.peer is None and not self.reason:
            raise ValueError(f"{self.what}: say why there is no peer")
        if self.bar is not None and not BAR.fullmatch(self.bar):
            raise ValueError(f"{self.what}: a bar reads like '<= 0.15', not {self.bar!r}")

    @property
    def met(self) -> bool | None:
        """Whether the bar is kept; None when there is no bar."""
        match = BAR.fullmatch(self.bar or "")
        return COMPARE[match[1]](self.value, float(match[2])) if match else None

    @property
    def ratio(self) -> float | None:
        """The peer's value over ours."""
        return self.peer_value / self.value if self.peer_value is not None and self.value else None

    def as_dict(self) -> dict[str, object]:
        return {
            "what": self.what,
            "value": rounded(self.value),
            "unit": self.unit,
            "bar": self.bar,
            "met": self.met,
            "peer": self.peer,
            "peer_value": rounded(self.peer_value),
            "ratio": rounded(self.ratio),
            "reason": self.reason,
        }


def rounded(value: float | None) -> float | None:
    """Four significant digits."""
    return None if value is None else float(f"{value:.4g}")


def machine() -> dict[str, object]:
    """The machine the figures were measured on: what matters for speed, and no name."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(pages * size / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    match = re.search(r"model name\s*: (.+)", text)
    return match[1].strip() if match else "unknown"


def peer_python(name: str, *requirements: str) -> Path:
    """The Python of a peer's own virtual environment, made on first use and kept in .venv-bench/."""
    folder = PEERS / name
    python, stamp = folder / "bin/python", folder / ".installed"
    wanted = "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(requirements)} into its own environment ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip(python, "install", *requirements)
        stamp.write_text(wanted)
    return python


def pip(python: Path, *arguments: str | Path) -> None:
    """Run pip in an environment, quietly."""
    subprocess.run([python, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments], check=True)


def median(take: Callable[[], float], times: int) -> float:
    """The median of several takes, after one that warms the caches."""
    take()
    return statistics.median(take() for _ in range(times))
