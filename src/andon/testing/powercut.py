"""Power cuts, played back: record what a program asks of the disk, then make every state a cut could leave behind.

The model is stricter than most file systems. Of a file only what came before its last sync is sure; of later writes each
may be there, be torn or be missing. Of a folder only the names before its last sync are sure; of later changes any prefix
may be there. A program that keeps its promises in all these states keeps them on a real disk.

    disk = RecordingDisk(folder)
    blobs = LocalBlobs(folder / "blobs", disk=disk)
    disk.acknowledge(blobs.put(b"..."))
    for state in disk.power_cuts(rng, count=100):
        found = LocalBlobs(state.materialise(fresh_folder) / "blobs")
        assert all(found.get(digest) for digest in state.acknowledged)
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from andon.store.files import LOCAL


@dataclass
class _File:
    """A file's content as a cut leaves it: what is sure, and writes that are not."""

    sure: bytearray = field(default_factory=bytearray)
    loose: list[tuple[int, bytes | None]] = field(default_factory=list)

    def settle(self, keep: Callable[[bytes], int]) -> None:
        """Make the loose writes part of the content, each as far as `keep` says."""
        for at, data in self.loose:
            if data is None:
                del self.sure[at:]
                continue
            kept = data[: keep(data)]
            if kept:
                self.sure.extend(bytes(max(0, at - len(self.sure))))
                self.sure[at : at + len(kept)] = kept
        self.loose.clear()


@dataclass
class _Folder:
    """A folder's names as a cut leaves them: name to file or folder; loose changes are (name, what) with None for gone."""

    sure: dict[str, _File | _Folder] = field(default_factory=dict)
    loose: list[tuple[tuple[str, _File | _Folder | None], ...]] = field(default_factory=list)

    def settle(self, count: int) -> None:
        """Make the first `count` loose changes sure."""
        for change in self.loose[:count]:
            for name, what in change:
                if what is None:
                    self.sure.pop(name, None)
                else:
                    self.sure[name] = what
        del self.loose[:count]

    def now(self) -> dict[str, _File | _Folder]:
        """The names as a running program sees them."""
        seen = _Folder(dict(self.sure), list(self.loose))
        seen.settle(len(seen.loose))
        return seen.sure


class PowerCut:
    """One state of the disk after a cut, and what had been acknowledged before it."""

    def __init__(self, root: _Folder, acknowledged: list[Any]) -> None:
        self._root = root
        self.acknowledged = acknowledged

    def materialise(self, folder: Path) -> Path:
        """Write the state into an empty folder."""
        _write(self._root, folder)
        return folder


class RecordingDisk:
    """A disk that does what it is asked and remembers it. For one thread, and for files below `root` only."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._steps: list[Callable[[_Model], None]] = []
        self._open: dict[int, Path] = {}
        self.calls: list[str] = []

    def acknowledge(self, value: Any) -> None:
        """Remember that `value` was promised to somebody at this moment."""
        self._do("acknowledge", lambda model: model.acknowledged.append(value))

    def power_cuts(self, rng: random.Random, count: int) -> Iterator[PowerCut]:
        """Cuts at random moments, each with a random part of what was not synced. The same generator, the same cuts."""
        for _ in range(count):
            model = _Model()
            for step in self._steps[: rng.randint(0, len(self._steps))]:
                step(model)
            _crash(model.root, rng)
            yield PowerCut(model.root, model.acknowledged)

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        fresh = bool(flags & os.O_CREAT) and not path.exists()
        descriptor = LOCAL.open(path, flags, mode)
        at = self._open[descriptor] = path.relative_to(self._root)
        if fresh:
            self._do("create", lambda model: model.name(at, _File()))
        return descriptor

    def write(self, descriptor: int, data: bytes, /) -> int:
        count = LOCAL.write(descriptor, data)
        start, kept = os.lseek(descriptor, 0, os.SEEK_CUR) - count, bytes(data[:count])
        path = self._open[descriptor]
        self._do("write", lambda model: model.file(path).loose.append((start, kept)))
        return count

    def truncate(self, descriptor: int, size: int, /) -> None:
        LOCAL.truncate(descriptor, size)
        path = self._open[descriptor]
        self._do("truncate", lambda model: model.file(path).loose.append((size, None)))

    def sync(self, descriptor: int, /) -> None:
        LOCAL.sync(descriptor)
        path = self._open[descriptor]
        self._do("sync folder" if (self._root / path).is_dir() else "sync", lambda model: model.sync(path))

    def close(self, descriptor: int, /) -> None:
        LOCAL.close(descriptor)
        del self._open[descriptor]

    def rename(self, old: Path, new: Path) -> None:
        LOCAL.rename(old, new)
        source, target = old.relative_to(self._root), new.relative_to(self._root)
        self._open = {key: target if path == source else path for key, path in self._open.items()}
        self._do("rename", lambda model: model.rename(source, target))

    def remove(self, path: Path) -> None:
        if path.exists():
            LOCAL.remove(path)
            self._do("remove", lambda model: model.name(path.relative_to(self._root), None))

    def make_folder(self, path: Path) -> None:
        if not path.exists():
            LOCAL.make_folder(path)
            self._do("make folder", lambda model: model.name(path.relative_to(self._root), _Folder()))

    def _do(self, call: str, step: Callable[[_Model], None]) -> None:
        self.calls.append(call)
        self._steps.append(step)


class _Model:
    """The disk as the recorded calls change it."""

    def __init__(self) -> None:
        self.root = _Folder()
        self.acknowledged: list[Any] = []

    def folder(self, path: Path) -> _Folder:
        found = self.root
        for part in path.parts:
            inner = found.now()[part]
            assert isinstance(inner, _Folder)
            found = inner
        return found

    def file(self, path: Path) -> _File:
        found = self.folder(path.parent).now()[path.name]
        assert isinstance(found, _File)
        return found

    def name(self, path: Path, what: _File | _Folder | None) -> None:
        self.folder(path.parent).loose.append(((path.name, what),))

    def rename(self, old: Path, new: Path) -> None:
        what = self.folder(old.parent).now()[old.name]
        if old.parent == new.parent:
            self.folder(old.parent).loose.append(((old.name, None), (new.name, what)))
        else:
            self.name(new, what)
            self.name(old, None)

    def sync(self, path: Path) -> None:
        found = self.root if not path.parts else self.folder(path.parent).now()[path.name]
        if isinstance(found, _Folder):
            found.settle(len(found.loose))
        else:
            found.settle(len)


def _crash(folder: _Folder, rng: random.Random) -> None:
    """Decide what of the loose changes is there."""
    folder.settle(rng.randint(0, len(folder.loose)))
    for what in folder.sure.values():
        if isinstance(what, _Folder):
            _crash(what, rng)
        else:
            what.settle(lambda data: rng.choice((0, rng.randint(0, len(data)), len(data))))


def _write(source: _Folder, target: Path) -> None:
    for name, what in source.sure.items():
        if isinstance(what, _Folder):
            (target / name).mkdir()
            _write(what, target / name)
        else:
            (target / name).write_bytes(what.sure)
