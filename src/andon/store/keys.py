"""The workspace's own keys, as 0600 files. A key is made once, when it is first asked for."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from andon.core.errors import Corrupt, Forbidden
from andon.core.workspace import Layout

_BYTES = 32


def route_key(layout: Layout) -> bytes:
    """The key that route files and overrides are authenticated with, 32 bytes.

    Raises:
        Forbidden: others can read the file.
        Corrupt: the file is not a key.
    """
    text = read_secret(layout.route_key) or _make(layout.route_key, secrets.token_hex(_BYTES))
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise Corrupt(f"{layout.route_key} is not a key", hint="restore it from a backup")
    return key


def read_secret(path: Path) -> str | None:
    """The text of a secret file, None when there is none.

    Raises:
        Forbidden: others can read the file.
    """
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read().strip()
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise Forbidden(f"{path} can be read by others (mode {mode:o})", hint=f"run: chmod 600 {path}")
    return text


def _make(path: Path, text: str) -> str:
    """Write a new secret, or take the one that another process made in the same moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return read_secret(path) or text
