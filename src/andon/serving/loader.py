"""Loading models beside the requests: one thread, one model at a time, growing pauses after a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from andon.core.canonical import Digest
from andon.core.clock import Clock
from andon.serving.table import Runtime

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Failure:
    message: str
    pause_s: float
    again_at: float


class Loader:
    """Keeps the wanted models loaded. Safe to share between threads.

    `load` gives the runtime of a digest or raises; `changed` is called, from the loading thread, after each attempt, when
    `version` has been raised.
    """

    def __init__(self, load: Callable[[Digest], Runtime], clock: Clock, changed: Callable[[], None]) -> None:
        self._load = load
        self._clock = clock
        self._changed = changed
        self._state = threading.Condition()
        self._wanted: dict[Digest, None] = {}
        self._loaded: dict[Digest, Runtime] = {}
        self._failed: dict[Digest, _Failure] = {}
        self._stopped = False
        self.version = 0
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
        self._thread.start()

    def want(self, digests: Iterable[Digest]) -> None:
        """Say which models are needed, most urgent first; all others are let go."""
        with self._state:
            wanted = dict.fromkeys(digests)
            if wanted != self._wanted:
                self._wanted = wanted
                self._loaded = {
                    digest: runtime for digest, runtime in self._loaded.items() if digest in wanted
                }
                self._failed = {
                    digest: failure for digest, failure in self._failed.items() if digest in wanted
                }
                self._state.notify_all()

    def loaded(self) -> dict[Digest, Runtime]:
        """The models that are ready."""
        with self._state:
            return dict(self._loaded)

    def failures(self) -> dict[Digest, str]:
        """Why wanted models could not be loaded at the last attempt."""
        with self._state:
            return {digest: failure.message for digest, failure in self._failed.items()}

    def settle(self) -> None:
        """Wait until each wanted model was loaded or has failed once."""
        with self._state:
            self._state.wait_for(
                lambda: (
                    self._stopped or all(one in self._loaded or one in self._failed for one in self._wanted)
                )
            )

    def stop(self) -> None:
        """Load nothing more; whoever waits in `settle` goes on."""
        with self._state:
            self._stopped = True
            self._state.notify_all()

    def join(self, timeout_s: float) -> None:
        """Wait for a load that was under way at `stop`."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (digest := self._next()) is not None:
            runtime, failure = None, None
            try:
                runtime = self._load(digest)
            except Exception as error:  # noqa: BLE001  # whatever a package does, the old route goes on
                failure = self._failure(digest, f"{error}" or type(error).__name__)
            with self._state:
                if digest in self._wanted:
                    if runtime is not None:
                        self._loaded[digest] = runtime
                        self._failed.pop(digest, None)
                    elif failure is not None:
                        self._failed[digest] = failure
                self.version += 1
                self._state.notify_all()
            self._changed()

    def _next(self) -> Digest | None:
        """The next digest to try, when its time has come; None at the end."""
        with self._state:
            while not self._stopped:
                now = self._clock.monotonic_s()
                waits = [
                    0.0 if one not in self._failed else self._failed[one].again_at - now
                    for one in self._wanted
                ]
                open_ = [
                    (wait, one)
                    for wait, one in zip(waits, self._wanted, strict=True)
                    if one not in self._loaded
                ]
                due = next((one for wait, one in open_ if wait <= 0), None)
                if due is not None:
                    return due
                self._state.wait(min((wait for wait, _ in open_), default=None))
        return None

    def _failure(self, digest: Digest, message: str) -> _Failure:
        before = self._failed.get(digest)
        pause_s = _FIRST_PAUSE_S if before is None else min(before.pause_s * 2, _LONGEST_PAUSE_S)
        return _Failure(message, pause_s, self._clock.monotonic_s() + pause_s)
