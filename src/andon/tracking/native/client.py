"""`andon.run`: a training that is written down as it goes, whatever happens to the server, the disk or the training.

>>> import os, tempfile
>>> folder = tempfile.TemporaryDirectory()
>>> os.environ["ANDON_HOME"] = folder.name
>>> with run("first", experiment="docs", capture=False) as training:
...     training.param("lr", 0.1)
...     for step in range(3):
...         training.log({"loss": 1.0 / (step + 1)}, step=step)
>>> training.state, training.delivered
('finished', True)
>>> os.environ.pop("ANDON_HOME") == folder.name
True
>>> folder.cleanup()
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

from andon.core.errors import AndonError, Invalid
from andon.core.ids import RunId, new_id
from andon.tracking.native import capture as surroundings
from andon.tracking.native.console import Console, Level, console_text
from andon.tracking.native.entries import (
    Ended,
    Entry,
    Kept,
    Made,
    Opening,
    Params,
    Points,
    Tags,
    Used,
    check_opening,
)
from andon.tracking.native.sender import CONSOLE, Sender
from andon.tracking.native.spool import (
    MOST_POINTS,
    Session,
    SpoolWriter,
    new_writer,
    session_folder,
    spool_folder,
)
from andon.tracking.native.targets import address, check_url, find_target

log = logging.getLogger("andon.run")

End = Literal["finished", "failed", "killed"]
DEFAULT_EXPERIMENT = "Default"
FLUSH_S = 10.0
SYSTEM_S = 10.0
DIFF = "andon/code.diff"
ENVIRONMENT = "andon/environment.json"
_current: ContextVar[Run | None] = ContextVar("andon_run", default=None)
_open: weakref.WeakSet[Run] = weakref.WeakSet()


class Warned(UserWarning):
    """Something about a run went wrong that the training does not need to stop for."""


def run(
    name: str | None = None,
    *,
    experiment: str | None = None,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    resume: str | None = None,
    parent: Run | str | None = None,
    capture: bool = True,
    console: Level | Literal["off"] | None = None,
    system_s: float | None = None,
    url: str | None = None,
) -> Run:
    """Begin a run, or take one up again. Use it in a `with`, or end it with `finish`.

    Everything is written to a local spool at once and brought away by a thread: to the server of `ANDON_URL`, else into the
    workspace above the current folder. Once it has begun, a run raises nothing into the training: what goes wrong is a
    warning, once for each cause, and counted.

    Args:
        name: what to call it; a name is made up when none is given.
        experiment: runs of one experiment are compared; `ANDON_EXPERIMENT`, else `Default`.
        params: parameters to begin with.
        tags: tags to begin with.
        resume: the id of a run to go on with.
        parent: the run that this one is part of; the one of the surrounding `with` if nothing is said.
        capture: note code, diff, environment and machine, in a thread.
        console: keep what is printed: `python`, `fd` (also what libraries write past Python) or `off`; `ANDON_CONSOLE`.
        system_s: seconds between readings of CPU, memory, disk and network, 0 for none; `ANDON_SYSTEM_S`, else 10.
        url: the server, instead of `ANDON_URL`.

    Raises:
        Invalid: an argument cannot be used, such as an id that is none. Nothing of the training has run by then.
    """
    environ = dict(os.environ) | ({"ANDON_URL": url} if url else {})
    if url:
        check_url(url)
    around = _current.get()
    above = parent.id if isinstance(parent, Run) else parent or (around.id if around is not None else None)
    opening = check_opening(
        Opening(
            run=RunId(resume or new_id("run")), writer=new_writer(), opened_ms=time.time_ns() // 1_000_000,
            experiment=experiment or environ.get("ANDON_EXPERIMENT") or DEFAULT_EXPERIMENT, name=name,
            claimed_user=surroundings.user_name(), resumed=resume is not None,
        )
    )  # fmt: skip
    heard = console or environ.get("ANDON_CONSOLE") or "python"
    if heard not in ("python", "fd", "off"):
        raise Invalid(f"the console cannot be {heard!r}", hint="it is 'python', 'fd' or 'off'")
    every_s = _seconds(environ, "ANDON_SYSTEM_S", SYSTEM_S) if system_s is None else system_s
    made = Run(opening, environ, flush_s=_seconds(environ, "ANDON_FLUSH_S", FLUSH_S))
    made._begin(
        params or {}, _first_tags(above) | dict(tags or {}), capture=capture, console=cast("Level | Literal['off']", heard),
        system_s=every_s,
    )  # fmt: skip
    return made


class Run:
    """A training that is tracked. Safe to share between threads, and with processes that are forked off.

    Made by `andon.run`. `id` is known at once, whether a server answers or not.
    """

    def __init__(self, opening: Opening, environ: Mapping[str, str], *, flush_s: float) -> None:
        self._opening, self._environ, self._flush_s = opening, environ, flush_s
        self._here = Path.cwd()
        self._to = address(environ, self._here)
        self._pid = os.getpid()
        self._session = Session(session_folder(spool_folder(environ, self._here), opening))
        self._writer = SpoolWriter(self._session.folder, opening, self._to)
        self._sender: Sender | None = None
        self._watch: _Watch | None = None
        self._console: Console | None = None
        self._lock = threading.RLock()
        self._said: set[str] = set()
        self._since = 0
        self._step = 0
        self._outer: list[Any] = []
        self.dropped = 0
        self.state: Literal["running", "finished", "failed", "killed"] = "running"
        self.delivered = False

    @property
    def id(self) -> RunId:
        """The run's id, 32 hex characters."""
        return self._opening.run

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return self._opening.experiment

    @property
    def spool(self) -> Path:
        """Where entries are until they are delivered."""
        return self._session.folder

    def __repr__(self) -> str:
        return f"<andon run {self.id} {self.state}>"

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write values of metrics down. Takes some microseconds; what it wrote survives the end of this process.

        Args:
            metrics: numbers by name, or whatever has one (`float()` is asked): NaN and infinities are kept.
            step: of the training; one more than the last if nothing is said.
        """
        try:
            step = self._step if step is None else int(step)
            self._step = step + 1
            self._writer.append(Points, step, {key: float(value) for key, value in metrics.items()})
        except Exception as error:  # noqa: BLE001  # nothing may come between a training and its next step
            self._log_what_can_be(metrics, step, error)
            return
        self._since += len(metrics)
        if self._since >= MOST_POINTS:
            self._since = 0
            if self._sender is not None:
                self._sender.notify()

    def param(self, key: str, value: object) -> None:
        """Write a parameter down. It never changes: another value later is refused, and warned of."""
        self.params({key: value})

    def params(self, values: Mapping[str, object]) -> None:
        """Write parameters down."""
        self._append(Params, lambda: (_texts(values),))

    def tag(self, key: str, value: object) -> None:
        """Set a tag, in the place of an earlier one."""
        self._append(Tags, lambda: (_texts({key: value}),))

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags."""
        self._append(Tags, lambda: (_texts(values),))

    def input(
        self, data: object, digest: str | None = None, *, source: str = "", context: str = "training"
    ) -> None:
        """Note a dataset that the run uses.

        Args:
            data: its name; or what has `name` and `digest` (an Andon dataset version, an MLflow dataset).
            digest: its content's digest; of a name alone, it is that of the name and the source, which identify it then.
            source: where it comes from; credentials in an address are left out.
            context: what it is used for, such as `training` or `validation`.
        """
        self._append(Used, lambda: _used(data, digest, source, context))

    def artifact(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        """Keep a file, or a folder with all that is in it, as it is now. Takes as long as a copy on this disk does.

        Args:
            path: what to keep.
            name: what to call it, such as `plots/roc.png`; its own name if nothing is said.
        """
        source = Path(path)
        called = source.name if name is None else name
        if source.is_dir():
            for inner in sorted(each for each in source.rglob("*") if each.is_file()):
                self._keep(f"{called}/{inner.relative_to(source).as_posix()}", inner)
        else:
            self._keep(called, source)

    def finish(self, state: End = "finished") -> None:
        """End the run. Waits for the delivery of what is left, for at most `ANDON_FLUSH_S` (10 s); the rest stays in the
        spool for `andon sync`. Ending it again changes nothing."""
        with self._lock:
            if self.state != "running" or os.getpid() != self._pid:
                return
            self.state = state
        _open.discard(self)
        if self._watch is not None:
            self._watch.close()
        self._end_console()
        try:
            self._writer.append(Ended, state, self.dropped)
        except Exception:  # noqa: BLE001  # there is room set aside for this
            self._writer.release()
            self._guarded(lambda: self._writer.append(Ended, state, self.dropped))
        if self.dropped:
            self._warn(f"{self.dropped} entries were dropped, because they could not be written down")
        self._guarded(self._writer.sync)
        self._writer.close()
        if self._sender is not None:
            self.delivered = self._sender.close(self._flush_s)
            if not self.delivered:
                why = f" ({self._sender.failing})" if self._sender.failing else ""
                self._warn(f"not all of it is delivered{why}; run 'andon sync' later. It is in {self.spool}")

    def __enter__(self) -> Self:
        self._outer.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outer:
            with contextlib.suppress(ValueError):  # it is left in another thread than it was entered in
                _current.reset(self._outer.pop())
        self.finish(_state_after(error))

    # --- within ---

    def _begin(
        self,
        params: Mapping[str, object],
        tags: Mapping[str, object],
        *,
        capture: bool,
        console: Level | Literal["off"],
        system_s: float,
    ) -> None:
        self.tags(tags)
        if params:
            self.params(params)
        self._writer.reserve()
        self._guarded(self._start_sender)
        _open.add(self)
        if console != "off":
            self._guarded(lambda: self._hear(console))
        if capture or system_s > 0:
            self._guarded(lambda: self._start_watch(capture=capture, system_s=system_s))

    def _start_sender(self) -> None:
        if self._session.take():
            self._sender = Sender(
                self._session,
                self._writer,
                lambda: find_target(self._to, self._environ, self._here),
                self._warn,
            )

    def _start_watch(self, *, capture: bool, system_s: float) -> None:
        self._watch = _Watch(self, capture=capture, system_s=system_s)

    def _hear(self, level: Level) -> None:
        self._console = Console(self._session.console, level)

    def _end_console(self) -> None:
        if self._console is not None:
            self._guarded(self._console.close)
            text = console_text(self._session.console)
            if text:
                self._keep(CONSOLE, text)
            self._console = None

    def _keep(self, name: str, source: Path | bytes) -> None:
        self._append(Kept, lambda: (name, *self._writer.keep(source)))

    def _append(self, kind: type[Entry], fields: Callable[[], tuple[Any, ...]]) -> None:
        try:
            self._writer.append(kind, *fields())
        except Exception as error:  # noqa: BLE001  # nothing may come between a training and its next step
            self._drop(error)

    def _log_what_can_be(self, metrics: object, step: object, error: Exception) -> None:
        """Of values of which one is no number, the others are kept."""
        if isinstance(error, AndonError) or not isinstance(metrics, Mapping):
            self._drop(error)
            return
        found: dict[str, float] = {}
        for key, value in metrics.items():
            try:
                found[str(key)] = float(value)
            except (TypeError, ValueError, OverflowError):
                self._drop(Invalid(f"the metric {key!r} is {type(value).__name__}, and no number"))
        if found:
            self._append(Points, lambda: (int(cast("int", step)), found))

    def _drop(self, error: Exception) -> None:
        self.dropped += 1
        self._warn(f"an entry was dropped: {error}")

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  # nothing may come between a training and its next step
            self._warn(str(error) or type(error).__name__)

    def _warn(self, text: str) -> None:
        """Say something once; where warnings are made errors, to the log."""
        if text in self._said:
            return
        self._said.add(text)
        try:
            warnings.warn(f"run {self.id}: {text}", Warned, stacklevel=4)
        except Warning:
            log.warning("run %s: %s", self.id, text)

    def _forked(self) -> None:
        """In a forked child: the spool, the lock and the threads are the parent's; what is logged here is written to a log
        of the child's own beside the parent's, and whoever delivers that delivers this too."""
        self._writer.forget()
        self._session.drop()
        if self._console is not None:
            self._console.forget()
            self._console = None
        self._sender = self._watch = None
        self._lock = threading.RLock()
        self._said = set(self._said)
        self.dropped = 0
        opening = Opening(
            run=self.id, writer=new_writer(), opened_ms=self._opening.opened_ms, experiment=self._opening.experiment,
            name=self._opening.name, claimed_user=self._opening.claimed_user, helper=True,
        )  # fmt: skip
        self._writer = SpoolWriter(self._session.folder, opening, self._to)


class _Watch:
    """The thread that notes what surrounds a run: once at the beginning, and how busy the machine is now and then."""

    def __init__(self, run: Run, *, capture: bool, system_s: float) -> None:
        self._run, self._capture, self._system_s = run, capture, system_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, name="andon-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; what surrounds the run is noted by then, if git and the tools answer in time."""
        self._stop.set()
        self._thread.join(surroundings._GIT_S)
        if self._capture:
            self._run._guarded(self._notebook)

    def _go(self) -> None:
        if self._capture:
            self._run._guarded(self._surroundings)
        gauges, step = surroundings.Gauges(), 0
        if self._system_s <= 0:
            return
        gauges.read(time.monotonic())
        while not self._stop.wait(self._system_s):
            self._run._append(Points, lambda at=step: (at, gauges.read(time.monotonic())))  # type: ignore[misc]
            step += 1

    def _surroundings(self) -> None:
        run = self._run
        code = surroundings.capture_code(run._here)
        environment, size = None, 0
        with contextlib.suppress(OSError):
            environment, size = run._writer.keep(surroundings.capture_environment())
            run._append(Kept, lambda: (ENVIRONMENT, environment, size))
        if code.diff:
            run._keep(DIFF, code.diff)
        elif code.commit is None and (script := surroundings.script_source()) is not None:
            run._keep(f"andon/{script[0]}", script[1])
        run._append(Made, lambda: (code.commit, code.dirty, environment))
        run.tags(_code_tags(code))

    def _notebook(self) -> None:
        source = surroundings.notebook_source()
        if source is not None:
            self._run._keep("andon/notebook.py", source)


def _code_tags(code: surroundings.Code) -> dict[str, object]:
    unrecorded = surroundings.UNRECORDED
    tags: dict[str, object] = {
        "andon.git.commit": code.commit or unrecorded,
        "andon.git.branch": code.branch or unrecorded,
        "andon.git.remote": code.remote or unrecorded,
        "andon.git.dirty": unrecorded if code.dirty is None else str(code.dirty).lower(),
    }
    if code.commit:
        tags["mlflow.source.git.commit"] = code.commit
    if code.cut:
        tags["andon.git.diff"] = f"longer than {surroundings.DIFF_BYTES:,} bytes: its beginning was kept"
    return tags


def _first_tags(parent: str | None) -> dict[str, object]:
    script = surroundings.entry_script()
    tags: dict[str, object] = {
        "mlflow.user": surroundings.user_name(),
        "mlflow.source.name": script.name if script is not None else surroundings.UNRECORDED,
        "mlflow.source.type": "NOTEBOOK" if "IPython" in sys.modules and script is None else "LOCAL",
        "andon.host": surroundings.host_name(),
    }
    return tags | ({"mlflow.parentRunId": parent} if parent else {})


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {str(key): str(value) for key, value in values.items()}


def _used(data: object, digest: str | None, source: str, context: str) -> tuple[Any, ...]:
    source = surroundings.without_credentials(source)
    if isinstance(data, str):
        return (
            data,
            digest or hashlib.sha256(f"{data}\0{source}".encode()).hexdigest()[:32],
            "local",
            source,
            context,
        )
    name = getattr(data, "name", None) or getattr(data, "dataset", None)
    found = digest or getattr(data, "digest", None) or getattr(data, "id", None)
    if not isinstance(name, str) or not found:
        raise Invalid(
            f"a {type(data).__name__} is no dataset", hint="give a name, or what has a name and a digest"
        )
    origin = source or str(getattr(data, "source", "") or "")
    return name, str(found), "local", surroundings.without_credentials(origin), context


def _state_after(error: BaseException | None) -> End:
    match error:
        case None | GeneratorExit():
            return "finished"
        case SystemExit():
            return "finished" if error.code in (None, 0) else "failed"
        case KeyboardInterrupt():
            return "killed"
        case _:
            return "failed"


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    try:
        found = default if not text else float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 86_400:
        raise Invalid(f"{name} is {text!r}", hint="it is a number of seconds from 0 to 86400")
    return found


def _at_exit() -> None:
    """End what a program left open: as it ended itself, or as killed where a session was simply closed."""
    interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)
    error = getattr(sys, "last_value", None)
    state: End = "killed" if interactive else _state_after(error) if error is not None else "finished"
    for left in list(_open):
        left.finish(state)


def _in_child() -> None:
    """What a forked child does with the runs that were open."""
    for left in list(_open):
        left._forked()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
