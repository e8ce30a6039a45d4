"""Where the artifacts of a foreign store lie on this machine, if they do.

An address in a foreign store is somebody else's word. Files are read only below folders that the person who imports has
named, by naming the store or with `--artifacts`; a link that leads out of them is not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from andon.core.errors import Invalid
from andon.tracking.artifacts import check_path

Kind = Literal["local", "served", "elsewhere"]


def kind_of(address: str) -> Kind:
    """Whether an address is a path of this machine, a place behind an MLflow server, or in a store such as S3.

    >>> kind_of("/srv/mlruns/0"), kind_of("mlflow-artifacts:/0"), kind_of("s3://bucket/0")
    ('local', 'served', 'elsewhere')
    """
    scheme = urlsplit(address).scheme
    return {"": "local", "file": "local", "mlflow-artifacts": "served"}.get(scheme, "elsewhere")  # type: ignore[return-value]


class Outside(Exception):
    """Files are there, and lie outside of every folder that was named."""


class Roots:
    """The folders that may be read.

    Args:
        own: folders that belong to the store.
        named: folders that a server keeps artifacts in, or that they were moved to.
    """

    def __init__(self, own: Iterable[str], named: Iterable[Path]) -> None:
        self._named = [path.resolve() for path in named]
        self._own = [Path(path).resolve() for path in own]

    @property
    def has_named(self) -> bool:
        """Whether a folder was named besides the store's own."""
        return bool(self._named)

    def find(self, address: str, *tails: str) -> Path | None:
        """The folder that an address means; None when nothing is there, or it is not of this machine.

        Args:
            address: a path, a `file:` address, or `mlflow-artifacts:/...`, which is looked for in the named folders.
            tails: where it may lie below a named folder when it is not where the store says, such as `0/<run>/artifacts`.

        Raises:
            Outside: it is there, and outside of what may be read.
        """
        path = self._path(address)
        inside = self._first(
            [path] if path is not None and path.is_absolute() else self._below(str(path or ""))
        )
        if inside is not None:
            return inside
        moved = self._first([folder / tail for tail in tails for folder in self._named])
        if moved is None and path is not None and path.is_absolute() and path.is_dir():
            raise Outside(str(path))
        return moved

    def _path(self, address: str) -> Path | None:
        kind, parts = kind_of(address), urlsplit(address)
        if kind == "local":
            text = unquote(parts.path) if parts.scheme else address
            return None if parts.netloc not in ("", "localhost") or "\x00" in text or not text else Path(text)
        if kind == "served":
            return Path(unquote(parts.path).lstrip("/"))
        return None

    def _below(self, tail: str) -> list[Path]:
        """Where a relative path may be: as it is below a named folder, or beside a folder of the store."""
        if not tail:
            return []
        return [folder / tail for folder in self._named] + [folder.parent / tail for folder in self._own]

    def _first(self, places: list[Path]) -> Path | None:
        for place in places:
            real = place.resolve()
            if real.is_dir() and any(real.is_relative_to(folder) for folder in (*self._named, *self._own)):
                return real
        return None


def files_below(folder: Path) -> Iterator[tuple[str, Path | None]]:
    """All files below a folder by their path in it; None for one that cannot be taken: a link, or a name that no client
    could ask for."""
    for home, folders, names in os.walk(folder):
        for linked in [name for name in folders if Path(home, name).is_symlink()]:
            folders.remove(linked)
            names.append(linked)
        folders.sort()
        for name in sorted(names):
            file = Path(home, name)
            path = file.relative_to(folder).as_posix()
            yield path, None if file.is_symlink() or not file.is_file() or not _plain(path) else file


def _plain(path: str) -> bool:
    try:
        check_path(path)
    except Invalid:
        return False
    return True
