"""What a training prints, kept as it comes: the beginning and the end, colours and all.

One tee stands before `sys.stdout` and `sys.stderr` while any run listens, and goes when none does. A run keeps files of
half a megabyte, the first and the last two, so the end is there even after kill -9. What libraries write past Python is
heard on request (`fd`), by a small process at the end of a pipe: a thread would have to wait for Python's lock, and who
prints much while holding that would wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Literal, TextIO

from andon.core.errors import Invalid

PART_BYTES = 512 * 1024
GAP = b"\n... what was printed here was too much to keep ...\n"
Level = Literal["python", "fd"]
_WAIT_S = 2.0


class Parts:
    """Files that keep the first and the last of what is written to them. For one thread at a time."""

    def __init__(self, base: str) -> None:
        self._base, self._part, self._size, self._descriptor = base, -1, PART_BYTES, -1

    def write(self, data: bytes) -> None:
        """Append.

        Raises:
            OSError: the disk does not take it.
        """
        if self._size >= PART_BYTES:
            self.close()
            self._part += 1
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(f"{self._base}-{self._part:06d}", flags, 0o600)
            self._size = 0
            if self._part > 2:
                os.unlink(f"{self._base}-{self._part - 2:06d}")  # noqa: PTH108  # the helper process has no pathlib
        os.write(self._descriptor, data)
        self._size += len(data)

    def close(self) -> None:
        """Let go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def console_text(base: Path) -> bytes:
    """What was heard, from its files; where something was dropped a line says so. Empty when nothing was printed."""
    text = b""
    for name in (base.name, f"{base.name}-fd"):
        parts = sorted(base.parent.glob(f"{name}-[0-9]*"))
        numbers = [int(path.name.rpartition("-")[2]) for path in parts]
        for before, number, path in zip([-1, *numbers], numbers, parts, strict=False):
            text += (GAP if number != before + 1 else b"") + path.read_bytes()
    return text


class Console:
    """A run's ear. Safe to share between threads.

    Args:
        base: the beginning of its files' names.
        level: `python` hears what is written to `sys.stdout` and `sys.stderr`, `fd` also what libraries write past them.
            One run at a time has the second; others beside it hear Python only.

    Raises:
        Invalid: there is no such level.
    """

    def __init__(self, base: Path, level: Level = "python") -> None:
        if level not in ("python", "fd"):
            raise Invalid(f"the console cannot be heard at {level!r}", hint="it is 'python' or 'fd'")
        base.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()  # a signal handler may print in the middle of a print
        self._parts: Parts | None = Parts(str(base))
        self._pipe = _Pipe.begin(base) if level == "fd" else None
        if self._pipe is None or not self._pipe.hears_python:
            _TEES.add(self)

    def hear(self, data: bytes) -> None:
        """Keep what was printed. A full disk is no trouble of who prints."""
        with self._lock, contextlib.suppress(OSError):
            if self._parts is not None:
                self._parts.write(data)

    def close(self) -> None:
        """Hear no more. Closing twice changes nothing."""
        _TEES.remove(self)
        if self._pipe is not None:
            self._pipe.end()
            self._pipe = None
        self._let_go()

    def forget(self) -> None:
        """In a forked child: what it prints goes where the parent's does, and is not kept here a second time."""
        self._lock = threading.RLock()
        self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            if self._parts is not None:
                self._parts.close()
                self._parts = None


class _Tee:
    """Stands for a text stream: passes everything on, and lets those who listen hear it."""

    def __init__(self, stream: TextIO, ears: _Tees) -> None:
        self._stream, self._ears = stream, ears

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._ears.hear(text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Tees:
    """The tees of this process and who listens to them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ears: tuple[Console, ...] = ()
        self._placed: dict[str, _Tee] = {}

    def add(self, ear: Console) -> None:
        with self._lock:
            self._ears = (*self._ears, ear)
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if stream is not None and name not in self._placed:
                    self._placed[name] = _Tee(stream, self)
                    setattr(sys, name, self._placed[name])

    def remove(self, ear: Console) -> None:
        with self._lock:
            self._ears = tuple(other for other in self._ears if other is not ear)
            if self._ears:
                return
            for name, tee in self._placed.items():
                if (
                    getattr(sys, name) is tee
                ):  # somebody who has taken its place since then puts it back himself
                    setattr(sys, name, tee._stream)
            self._placed.clear()

    def hear(self, text: str) -> None:
        if self._ears and isinstance(text, str):
            data = text.encode("utf-8", "replace")
            for ear in self._ears:
                ear.hear(data)

    def forked(self) -> None:
        self._lock = threading.RLock()
        self._ears = ()


_TEES = _Tees()
os.register_at_fork(after_in_child=_TEES.forked)

_HELPER = """
import os, select, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
exec(sys.argv[1])
parts, ways = Parts(sys.argv[2]), {int(sys.argv[3]): 1, int(sys.argv[4]): 2}
while ways:
    for source in select.select(list(ways), [], [])[0]:
        data = os.read(source, 65536)
        if not data:
            del ways[source]
            continue
        view = data
        while view:
            try:
                view = view[os.write(ways[source], view):]
            except OSError:
                break
        try:
            parts.write(data)
        except OSError:
            pass
"""


class _Pipe:
    """File descriptors 1 and 2 of this process, led through a small process that keeps what passes."""

    _only = threading.Lock()

    def __init__(self, base: Path) -> None:
        pipes = {number: os.pipe() for number in (1, 2)}
        self._saved = {number: os.dup(number) for number in (1, 2)}
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        code = f"import os\nPART_BYTES = {PART_BYTES}\n" + _source(Parts)
        self._helper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _HELPER, code, f"{base}-fd", *(str(read) for read, _ in pipes.values())],
            stdin=subprocess.DEVNULL, stdout=self._saved[1], stderr=self._saved[2], start_new_session=True,
            pass_fds=[read for read, _ in pipes.values()],
        )  # fmt: skip
        for number, (read, write) in pipes.items():
            os.close(read)
            os.dup2(write, number)
            os.close(write)
        self._pid = os.getpid()
        self.hears_python = all(_number(stream) in (1, 2) for stream in (sys.stdout, sys.stderr))

    @classmethod
    def begin(cls, base: Path) -> _Pipe | None:
        """The pipe, if no other run has it, and if there is something to lead through it."""
        if not cls._only.acquire(blocking=False):
            return None
        try:
            return cls(base)
        except (OSError, ValueError):
            cls._only.release()
            return None

    def end(self) -> None:
        """Put the descriptors back; what passed is kept by then, unless another process still holds the pipe."""
        if os.getpid() != self._pid:
            return
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        for number, saved in self._saved.items():
            os.dup2(saved, number)
            os.close(saved)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._helper.wait(_WAIT_S)
        self._only.release()


def _source(kind: type) -> str:
    import inspect

    return inspect.getsource(kind)


def _number(stream: Any) -> int:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return -1


def _flush(stream: Any) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream.flush()
