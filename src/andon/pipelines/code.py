"""What made a model besides data: its code, the commit it came from, and the environment it ran in, all by content."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath

import msgspec

from andon.core.canonical import Digest, canonical
from andon.core.errors import Invalid, TooLarge
from andon.store.ports import Blobs

CODE_FORMAT = "andon.code/1"
ENVIRONMENT_FORMAT = "andon.environment/1"
_SUFFIXES = {".py", ".toml", ".txt", ".sql", ".json", ".yaml", ".yml", ".cfg", ".lock"}
_SKIPPED = {"__pycache__", "venv", "node_modules", "build", "dist"}
_MAX_FILE = 2**20
_MAX_FILES = 2000


class Commit(msgspec.Struct, frozen=True):
    """The git commit of a folder, and whether the folder differs from it. None where there is no git."""

    commit: str | None
    dirty: bool | None


def snapshot_code(folder: Path, blobs: Blobs, *, but: str | None = None) -> Digest:
    """Store a project's code (Python, TOML and other small text files, no hidden folders); the manifest's digest.

    `but` is left out: the contract, which has a digest of its own and is written by the first run.

    Raises:
        TooLarge: more than 2,000 files; a project folder was expected.
    """
    files: dict[str, Digest] = {}
    for path in sorted(_code_files(folder)):
        name = path.relative_to(folder).as_posix()
        if name != but:
            files[name] = blobs.put(path.read_bytes())
    return blobs.put(canonical({"format": CODE_FORMAT, "files": files}))


def materialise_code(blobs: Blobs, digest: Digest, folder: Path) -> Path:
    """Write a code snapshot into an empty folder.

    Raises:
        Invalid: the snapshot names a path outside its folder.
    """
    manifest = msgspec.json.decode(blobs.get(digest))
    for name, blob in manifest["files"].items():
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
            raise Invalid(f"the code snapshot {digest} names {name!r}, outside its folder")
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(blobs.get(blob))
    return folder


def code_files(blobs: Blobs, digest: Digest) -> dict[str, Digest]:
    """Path and digest of each file of a snapshot."""
    files: dict[str, Digest] = msgspec.json.decode(blobs.get(digest))["files"]
    return files


def git_commit(folder: Path) -> Commit:
    """The commit of a project folder."""
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return Commit(None, None)
    changes = _git(folder, "status", "--porcelain", "--", ".")
    return Commit(head, changes is None or bool(changes))


def capture_environment(blobs: Blobs) -> Digest:
    """Store which interpreter and package versions this process has; the manifest's digest."""
    packages = {dist.name.lower().replace("_", "-"): dist.version for dist in distributions() if dist.name}
    return blobs.put(
        canonical(
            {
                "format": ENVIRONMENT_FORMAT,
                "python": platform.python_version(),
                "implementation": sys.implementation.name,
                "platform": f"{sys.platform}-{platform.machine()}",
                "packages": packages,
            }
        )
    )


def _code_files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if any(part.startswith(".") or part in _SKIPPED for part in inside) or path.is_symlink():
            continue
        if path.suffix in _SUFFIXES and path.is_file() and path.stat().st_size <= _MAX_FILE:
            found.append(path)
        if len(found) > _MAX_FILES:
            raise TooLarge(
                f"{folder} holds more than {_MAX_FILES} code files", hint="a line's folder holds one project"
            )
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
