"""What surrounded a run: its code, its environment, its machine, and how busy that was.

Nothing here is guessed: what could not be found out reads `unrecorded`. Nothing here imports what the training has not
imported, and no program is waited for longer than a few seconds; all of it runs beside the training.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

UNRECORDED = "unrecorded"
FORMAT = "andon.run-environment/1"
DIFF_BYTES = 4 * 2**20
SOURCE_BYTES = 2**20
_MOST_UNTRACKED = 500
_GIT_S = 10.0
_TOOL_S = 3.0
_THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
SECRET_FILES = (
    ".env", ".env.*", "*.env", ".envrc", ".netrc", ".pgpass", ".npmrc", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks",
    "*.keystore", "*.kdbx", "*.gpg", "*.asc", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*secret*",
    "*credential*", "*password*", ".htpasswd", "kubeconfig*", "service-account*.json",
)  # fmt: skip
"""Names of files that look like secrets: they are in no diff."""
_EXCLUDED = [f":(exclude,icase,glob)**/{name}" for name in SECRET_FILES] + [
    f":(exclude,icase,glob)**/{folder}/**" for folder in ("secrets", ".secrets", ".ssh", ".aws", ".gnupg")
]
_SECRET = re.compile(
    rb"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,}|hf_[A-Za-z0-9]{30,}"
    rb"|andon_[A-Za-z0-9_-]{43}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
)
_REDACTED = b"[redacted]"


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """Where the code stands. None is unrecorded; `diff` is what differs from the commit, untracked Python files included.

    `cut` says that the diff was longer than is kept.
    """

    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    dirty: bool | None = None
    diff: bytes = b""
    cut: bool = False


def capture_code(folder: Path) -> Code:
    """The git state of a folder; nothing where there is no git, or where git does not trust the folder."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        return Code()
    root = Path(os.fsdecode(top.strip()))
    commit = _text(_git(root, "rev-parse", "--verify", "HEAD"))
    remote = _text(_git(root, "config", "--get", "remote.origin.url"))
    diff, cut = _diff(root, commit)
    changes = _git(root, "status", "--porcelain", "--untracked-files=normal")
    return Code(
        commit=commit, branch=_text(_git(root, "symbolic-ref", "--short", "-q", "HEAD")),
        remote=without_credentials(remote) if remote else None,
        dirty=None if changes is None else bool(changes.strip()), diff=diff, cut=cut,
    )  # fmt: skip


def without_credentials(remote: str) -> str:
    """A remote's address without user, password and query.

    >>> without_credentials("https://ann:secret@git.example.com/team/churn.git?token=x")
    'https://git.example.com/team/churn.git'
    >>> without_credentials("git@git.example.com:team/churn.git")
    'git@git.example.com:team/churn.git'
    """
    if "://" not in remote:
        return remote
    try:
        parts = urlsplit(remote)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return UNRECORDED
    return urlunsplit((parts.scheme, (parts.hostname or "") + port, parts.path, "", ""))


def redact(text: bytes) -> bytes:
    """Text without what is shaped like a well-known secret.

    >>> redact(b"key = 'AKIAABCDEFGHIJKLMNOP'")
    b"key = '[redacted]'"
    """
    return _SECRET.sub(_REDACTED, text)


def _diff(root: Path, commit: str | None) -> tuple[bytes, bool]:
    """What differs from the commit. Untracked files are shown to git in an index of our own, so the repository's stays."""
    base = commit or _text(_git(root, "hash-object", "-t", "tree", os.devnull))
    if base is None:
        return b"", False
    with tempfile.TemporaryDirectory(prefix="andon-") as folder:
        index = Path(folder) / "index"
        real = _text(_git(root, "rev-parse", "--git-path", "index"))
        with contextlib.suppress(OSError):
            if real is not None:
                shutil.copy2(root / real, index)  # with its time: by it git knows what it must compare again
        environ = {"GIT_INDEX_FILE": str(index)}
        listed = _git(
            root, "ls-files", "--others", "--exclude-standard", "-z", "--", "*.py", "*.ipynb", *_EXCLUDED
        )
        names = [name for name in (listed or b"").split(b"\0") if name][:_MOST_UNTRACKED]
        small = [name for name in names if _size(root / os.fsdecode(name)) <= SOURCE_BYTES]
        if small:
            _git(
                root, "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul",
                environ=environ, given=b"\0".join(small),
            )  # fmt: skip
        found = _git(
            root, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short", base, "--", ".", *_EXCLUDED,
            environ=environ, most=DIFF_BYTES,
        )  # fmt: skip
    found = found or b""
    return redact(found[:DIFF_BYTES]), len(found) > DIFF_BYTES


def _git(
    folder: Path,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    given: bytes = b"",
    most: int = 2**20,
) -> bytes | None:
    """What git says, a byte more than `most` at most; None when it fails, is not there or takes too long."""
    command = [
        "git",
        "-c",
        "core.fsmonitor=",
        "-c",
        "core.quotePath=true",
        "-c",
        "diff.external=",
        *arguments,
    ]
    with contextlib.suppress(OSError, subprocess.SubprocessError), tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command, cwd=folder, input=given, stdout=output, stderr=subprocess.DEVNULL, timeout=_GIT_S, check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **(environ or {})},
        )  # fmt: skip
        if done.returncode == 0:
            output.seek(0)
            return output.read(most + 1)
    return None


def _text(said: bytes | None) -> str | None:
    return None if said is None or not said.strip() else said.decode(errors="replace").strip()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() and not path.is_symlink() else SOURCE_BYTES + 1
    except OSError:
        return SOURCE_BYTES + 1


# --- sources without git ---


def entry_script() -> Path | None:
    """The file that this process runs; None in a notebook or at a prompt."""
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    path = Path(name) if isinstance(name, str) else None
    return path if path is not None and path.is_file() and path.suffix in (".py", "") else None


def script_source() -> tuple[str, bytes] | None:
    """Name and bytes of the entry script, if it is not over a megabyte."""
    path = entry_script()
    if path is None or _size(path.resolve()) > SOURCE_BYTES:
        return None
    return path.name, redact(path.read_bytes())


def notebook_source() -> bytes | None:
    """The cells that were run so far in this notebook, as a script; None when this is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    if shell is None:
        return None
    cells = [str(cell) for cell in shell.user_ns.get("In", []) if cell]
    text = "\n\n".join(f"# In [{number}]\n{cell}" for number, cell in enumerate(cells, 1))
    return redact(text.encode("utf-8", "replace"))[-SOURCE_BYTES:]


# --- environment ---


def capture_environment() -> bytes:
    """Interpreter, packages, threads and machine as JSON: the same in the same environment, so its digest is its name."""
    said = {
        "format": FORMAT,
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "executable": Path(sys.executable).name if sys.executable else UNRECORDED,
        "platform": f"{sys.platform}-{platform.machine()}",
        "system": platform.platform(),
        "packages": dict(sorted(packages())),
        "threads": threads(),
        "cpu": {
            "model": cpu_model(),
            "count": os.cpu_count() or UNRECORDED,
            "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else UNRECORDED,
        },
        "memory_bytes": memory_bytes(),
        "gpus": gpus(),
    }
    return msgspec.json.format(msgspec.json.encode(said), indent=1)


def packages() -> Iterator[tuple[str, str]]:
    """Name and version of what is installed, by the folders that say so; the one that an import finds first counts."""
    seen: set[str] = set()
    for place in sys.path:
        try:
            names = sorted(os.listdir(place or "."))  # noqa: PTH208  # hundreds of names, and only names
        except OSError:
            continue
        for name in names:
            stem, _, kind = name.rpartition(".")
            if kind not in ("dist-info", "egg-info"):
                continue
            parts = stem.split("-")
            key = re.sub(r"[-_.]+", "-", parts[0]).lower()
            if key not in seen:
                seen.add(key)
                yield key, parts[1] if len(parts) > 1 else UNRECORDED


def threads() -> dict[str, Any]:
    """How many threads libraries may use: what the environment says, and what loaded libraries say themselves."""
    said: dict[str, Any] = {name: os.environ.get(name, UNRECORDED) for name in _THREADS}
    for module, name in (
        ("torch", "get_num_threads"),
        ("torch", "get_num_interop_threads"),
        ("polars", "thread_pool_size"),
    ):
        ask = getattr(sys.modules.get(module), name, None)
        if callable(ask):
            with contextlib.suppress(Exception):
                said[f"{module}.{name.removeprefix('get_')}"] = int(ask())
    pools = getattr(sys.modules.get("threadpoolctl"), "threadpool_info", None)
    if callable(pools):
        with contextlib.suppress(Exception):
            for pool in pools():
                said[f"{pool['prefix']}.num_threads"] = int(pool["num_threads"])
    return said


def cpu_model() -> str:
    """What the processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or UNRECORDED


def memory_bytes() -> int | str:
    """How much memory the machine has."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return UNRECORDED


def gpus() -> list[str] | str:
    """Names of the GPUs, when a tool is there that answers within three seconds."""
    tools: Sequence[Sequence[str]] = (
        ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
        ("rocm-smi", "--showproductname", "--csv"),
    )
    for tool in tools:
        if shutil.which(tool[0]) is None:
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                tool, capture_output=True, text=True, timeout=_TOOL_S, check=True, stdin=subprocess.DEVNULL
            )
            return [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return UNRECORDED


def user_name() -> str:
    """What the operating system calls the user; a claim, once it has left this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def host_name() -> str:
    """The machine's name."""
    return socket.gethostname() or UNRECORDED


# --- how busy ---


class Gauges:
    """Reads how busy process and machine are; the first reading has no rates yet. For one thread."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._last_s = 0.0

    def read(self, now_s: float) -> dict[str, float]:
        """Metrics by name, as far as this machine tells. `now_s` is monotonic."""
        now, passed = self._counters(), now_s - self._last_s
        found = self._levels()
        if self._last and passed > 0:
            gone = {name: value - self._last[name] for name, value in now.items() if name in self._last}
            busy, total = gone.get("busy", 0.0), gone.get("total", 0.0)
            if total > 0:
                found["system/cpu_utilization_percentage"] = 100.0 * busy / total
            if "process" in gone:
                found["system/process_cpu_percentage"] = 100.0 * gone["process"] / passed
            for name in ("network_receive", "network_transmit", "process_disk_read", "process_disk_write"):
                if name in gone:
                    found[f"system/{name}_megabytes"] = gone[name] / 1e6
        self._last, self._last_s = now, now_s
        return found

    def _counters(self) -> dict[str, float]:
        found: dict[str, float] = {}
        times = os.times()
        found["process"] = times.user + times.system + times.children_user + times.children_system
        with contextlib.suppress(OSError, ValueError, IndexError):
            ticks = [float(part) for part in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
            found["total"], found["busy"] = sum(ticks), sum(ticks) - ticks[3] - ticks[4]
        with contextlib.suppress(OSError, ValueError, IndexError):
            received = sent = 0.0
            for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]:
                name, _, numbers = line.partition(":")
                if name.strip() != "lo":
                    received, sent = received + float(numbers.split()[0]), sent + float(numbers.split()[8])
            found["network_receive"], found["network_transmit"] = received, sent
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
            found["process_disk_read"], found["process_disk_write"] = (
                float(lines["read_bytes"]),
                float(lines["write_bytes"]),
            )
        return found

    def _levels(self) -> dict[str, float]:
        found: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = float(Path("/proc/self/statm").read_text().split()[1])
            found["system/process_memory_megabytes"] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        with contextlib.suppress(OSError, ValueError, KeyError):
            lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
            total, free = (float(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
            found["system/system_memory_usage_megabytes"] = (total - free) / 1e6
            found["system/system_memory_usage_percentage"] = 100.0 * (total - free) / total
        with contextlib.suppress(OSError):
            disk = shutil.disk_usage(".")
            found["system/disk_usage_megabytes"] = disk.used / 1e6
            found["system/disk_available_megabytes"] = disk.free / 1e6
            found["system/disk_usage_percentage"] = 100.0 * disk.used / disk.total
        if not found.get("system/process_memory_megabytes"):
            found |= _by_psutil()
        return found


def _by_psutil() -> dict[str, float]:
    """What psutil tells where there is no /proc; it is used when the training has it installed."""
    import importlib

    try:
        psutil = importlib.import_module("psutil")
        memory = psutil.virtual_memory()
        return {
            "system/process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": float(memory.percent),
        }
    except Exception:  # noqa: BLE001  # a gauge that is not there is no reading
        return {}
