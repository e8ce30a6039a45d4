"""The worker process: `python -m andon.pipelines.worker --workspace PATH`. It drives the loop until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from andon.core.errors import AndonError
from andon.core.workspace import Layout, settings_from
from andon.pipelines.reconciler import Reconciler
from andon.pipelines.workspace import OpenWorkspace

_BUSY_S = 0.02
_FAULT_S = 1.0
log = logging.getLogger("andon.worker")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM, SIGINT or the end of the supervisor; 0 when it ended in order."""
    parser = argparse.ArgumentParser(prog="python -m andon.pipelines.worker")
    parser.add_argument("--workspace", required=True, type=Path)
    parser.add_argument("--parent-fd", type=int)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    if options.parent_fd is not None:
        threading.Thread(target=_watch_parent, args=(options.parent_fd, stop), daemon=True).start()
    with OpenWorkspace(Layout(options.workspace), settings_from(os.environ)) as ws:
        _drive(ws, stop)
    return 0


def _drive(ws: OpenWorkspace, stop: threading.Event) -> None:
    reconciler = Reconciler(ws)
    fault = ""
    while not stop.is_set():
        try:
            pause = _BUSY_S if reconciler.step() else ws.settings.window_s
            fault = ""
        except AndonError as error:
            # Said once, tried again: a full disk or a corrupt blob must not end the loop, nor fill the log.
            if str(error) != fault:
                fault = str(error)
                log.error("%s: %s", error.code, error)
            pause = _FAULT_S
        stop.wait(pause)
    reconciler.close()


def _watch_parent(descriptor: int, stop: threading.Event) -> None:
    """The supervisor holds the other end; when it is gone, so are we."""
    # Not a plain read: the pipe is shared with processes whose event loops have made it non-blocking.
    select.select([descriptor], [], [])
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
