"""A client that replays departures as real requests, one by one, and tells their outcome when the plane has arrived.

`python -m andon.cli.replay --workspace PATH --since DATE --every N` sends every N-th departure of the year to the endpoint at
its scheduled time, posts labels when they would be known, and moves the line's watermark on. It ends with the data, or at
SIGTERM. It speaks plain HTTP as any other client and knows nothing of what happens inside.
"""

from __future__ import annotations

import argparse
import heapq
import http.client
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import polars as pl

from andon.cli.supervisor import running
from andon.core.clock import parse_time
from andon.core.errors import Unavailable
from andon.core.workspace import Layout
from andon.governance.access import read_token

_STEP = timedelta(hours=6)
_AHEAD = timedelta(days=1)
_POLL_S = 0.01
_TRIES = 200


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One line of standard output for each day of data."""

    at: datetime
    sent: int
    failed: int
    labels: int


class Client:
    """One keep-alive connection; sends again after a lost one, waiting a little longer each time."""

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        self._address = urlsplit(address).netloc
        self._headers = {"Content-Type": "application/json", **headers}
        self._connection = http.client.HTTPConnection(self._address, timeout=30)

    def send(self, method: str, path: str, body: bytes | None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        for attempt in range(_TRIES):
            try:
                self._connection.request(method, path, body, {**self._headers, **headers})
                answer = self._connection.getresponse()
                return answer.status, msgspec.json.decode(answer.read() or b"null")
            except (http.client.HTTPException, OSError):
                self._connection.close()
                time.sleep(min(0.02 * (attempt + 1), 0.5))
        raise Unavailable(f"{self._address} does not answer", hint="is the workspace running?")


class Replay:
    """The story's traffic: requests at their scheduled time, labels at arrival, watermarks as time goes on."""

    def __init__(self, gateway: Client, control: Client, line: str, rows: pl.DataFrame) -> None:
        self._gateway, self._control, self._line, self._rows = gateway, control, line, rows
        self._waiting: list[tuple[datetime, str, float]] = []
        self.sent = self.failed = self.labels = 0

    def play(self, since: datetime) -> Iterator[Progress]:
        """Replay, hour by hour of data time; one progress for each day."""
        told = since
        for (at,), part in self._rows.with_columns(slot=pl.col("scheduled").dt.truncate("6h")).group_by(
            "slot", maintain_order=True
        ):
            end = at + _STEP
            for row in part.drop("slot").iter_rows(named=True):
                self._request(row)
            self._tell(end)
            self._move_on(end)
            if end - told >= timedelta(days=1):
                told = end
                yield Progress(at=end, sent=self.sent, failed=self.failed, labels=self.labels)

    def _request(self, row: dict[str, Any]) -> None:
        scheduled, arrived, late = row.pop("scheduled"), row.pop("arrived"), row.pop("late")
        status, answer = self._gateway.send(
            "POST",
            f"/predict/{self._line}",
            msgspec.json.encode(row),
            **{"Andon-Time": scheduled.isoformat()},
        )
        self.sent += 1
        if status != 200:
            self.failed += 1
        elif arrived is not None:
            heapq.heappush(self._waiting, (arrived, answer["prediction_id"], float(late)))

    def _tell(self, until: datetime) -> None:
        items = []
        while self._waiting and self._waiting[0][0] <= until:
            at, ident, label = heapq.heappop(self._waiting)
            items.append({"prediction_id": ident, "label": label, "at": at.isoformat()})
        if items:
            status, answer = self._control.send(
                "POST", "/api/feedback", msgspec.json.encode({"items": items})
            )
            if status != 200:
                raise Unavailable(f"feedback was refused: {answer}")
            self.labels += len(items)

    def _move_on(self, at: datetime) -> None:
        """Move the watermark on, and stay near the loop: a day of data ahead of it, and two while it trains.

        The replay is some 50,000 times faster than life; without this a run of seconds would cost months of data.
        """
        body = msgspec.json.encode({"at": at.isoformat()})
        while True:
            _, line = self._control.send("POST", f"/api/lines/{self._line}/watermark", body)
            seen, running = (parse_time(line[name]) if line[name] else None for name in ("seen", "running"))
            if seen is not None and seen >= at - _AHEAD and (running is None or running >= at - 2 * _AHEAD):
                return
            time.sleep(_POLL_S)


def requests_of(folder: Path, since: datetime, every: int) -> pl.DataFrame:
    """The departures to replay: what is known at scheduled departure, and the outcome with its time."""
    spec = importlib.util.spec_from_file_location("departures", folder / "departures.py")
    if spec is None or spec.loader is None:
        raise Unavailable(f"{folder} holds no departures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows: pl.DataFrame = module.departures(None)
    return rows.filter(pl.col("scheduled") >= since).gather_every(every).drop("flight_key")


def main(argv: Sequence[str] | None = None) -> int:
    """Replay until the data or the patience of whoever started it ends."""
    parser = argparse.ArgumentParser(prog="python -m andon.cli.replay")
    parser.add_argument("--workspace", required=True, type=Path)
    parser.add_argument("--line", default="flights")
    parser.add_argument("--since", default="2013-04-01T00:00:00Z")
    parser.add_argument("--every", type=int, default=3)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    layout = Layout(options.workspace)
    said = running(layout)
    if said is None:
        raise Unavailable(f"nothing runs in {layout.root}")
    since = parse_time(options.since).astimezone(UTC)
    rows = requests_of(layout.project, since, options.every)
    control = Client(said.control, {"Authorization": f"Bearer {read_token(layout.token)}"})
    for progress in Replay(Client(said.gateway, {}), control, options.line, rows).play(since):
        sys.stdout.write(msgspec.json.encode(progress).decode() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
