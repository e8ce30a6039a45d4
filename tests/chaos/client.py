"""The load: requests, labels and watermarks over plain HTTP, and a record of every answer kept where no kill reaches it.

A lost connection is what a kill looks like from outside: it is counted, and what may be sent again is sent again. An answer
that no client should ever get (a 4xx to a good request, a 5xx but 503) is kept as an offence.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from tests.chaos.line import NAME, draw

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
TICK = timedelta(milliseconds=600)
LABELLED = 0.85
_TIMEOUT_S = 20.0
_BATCH = 400


@dataclass(frozen=True)
class Answer:
    """A prediction that was answered with 200. Times are monotonic seconds of the client."""

    sent_s: float
    got_s: float
    prediction_id: str
    endpoint: str
    release: str
    version: int
    epoch: int
    generation: int
    prediction: float


@dataclass(frozen=True)
class Label:
    """A label whose post was answered with 200."""

    prediction_id: str
    label: float
    at: datetime


@dataclass(frozen=True)
class Undo:
    """An undo that was answered. `override` is set when gateways did it; `unreached` names those that did not confirm."""

    at_s: float
    release: str
    override: str | None
    unreached: tuple[str, ...]


@dataclass
class History:
    """What the outside was told. Only ever added to."""

    answers: list[Answer] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)
    undos: list[Undo] = field(default_factory=list)
    watermark: datetime = BEGIN
    offences: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Lost(Exception):
    """No answer came, or 503: nobody knows what happened, and trying again is all there is."""


class Caller:
    """One keep-alive connection to an address. For one thread."""

    def __init__(self, port: int, history: History, token: str | None = None) -> None:
        self._port = port
        self._history = history
        self._headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)

    def post(
        self, path: str, body: Any, headers: dict[str, str] | None = None, *, fine: tuple[int, ...] = (200,)
    ) -> Any:
        """The JSON of an answer.

        Raises:
            Lost: see there. Any other status than `fine` is an offence.
        """
        try:
            data = None if body is None else json.dumps(body)
            self._connection.request("POST", path, data, self._headers | (headers or {}))
            answer = self._connection.getresponse()
            said = json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            self._history.counts[f"lost: {type(error).__name__}"] += 1
            raise Lost from error
        if answer.status in fine:
            return said
        self._history.counts[f"status {answer.status}"] += 1
        if answer.status != 503:
            self._history.offences.append(f"{path} was answered with {answer.status}: {said}")
        raise Lost

    def close(self) -> None:
        self._connection.close()


class Traffic:
    """Askers send predictions; one teller sends their labels, then the watermark, and so moves the line's time on.

    Request n happens at domain time BEGIN + n ticks, so the order of everything told is known without a clock.
    """

    def __init__(
        self,
        gateway: int,
        control: int,
        token: str,
        history: History,
        seed: int,
        *,
        askers: int = 2,
        rate: float = 60.0,
    ) -> None:
        self.history = history
        self._gateway, self._control, self._token, self._seed = gateway, control, token, seed
        self._pause_s = 1.0 / rate
        self._lock = threading.Lock()
        self._next = 0
        self._in_flight: set[int] = set()
        self._untold: list[tuple[int, str, int]] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), name=f"asker-{number}")
            for number in range(askers)
        ]
        self._threads.append(threading.Thread(target=self._tell, name="teller"))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S * 3)
            assert not thread.is_alive(), f"{thread.name} hangs"

    def _ask(self, number: int) -> None:
        rng = Random(f"{self._seed}/asker/{number}")
        caller = Caller(self._gateway, self.history)
        while not self._stop.wait(self._pause_s * rng.uniform(0.5, 1.5)):
            self._one(caller, rng)
        caller.close()

    def _one(self, caller: Caller, rng: Random) -> None:
        record, left = draw(rng)
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._in_flight.add(number)
        sent_s = time.monotonic()
        try:
            said = caller.post(f"/predict/{NAME}", record, {"Andon-Time": at(number).isoformat()})
        except Lost:
            with self._lock:
                self._in_flight.discard(number)
            self._stop.wait(0.05)
            return
        answer = Answer(
            sent_s, time.monotonic(), said["prediction_id"], said["endpoint"], said["release"], said["version"],
            said["epoch"], said["generation"], said["prediction"],
        )  # fmt: skip
        with self._lock:
            self.history.answers.append(answer)
            if rng.random() < LABELLED:
                self._untold.append((number, answer.prediction_id, left))
            self._in_flight.discard(number)

    def _tell(self) -> None:
        rng = Random(f"{self._seed}/teller")
        caller = Caller(self._control, self.history, self._token)
        while not self._stop.wait(0.25):
            with self._lock:
                before = min(self._in_flight, default=self._next)
                ready = [item for item in self._untold if item[0] < before]
                self._untold = [item for item in self._untold if item[0] >= before]
            if self._post_labels(caller, ready, rng) and before:
                self._move_on(caller, at(before - 1))
        caller.close()

    def _post_labels(self, caller: Caller, ready: list[tuple[int, str, int]], rng: Random) -> bool:
        """Post labels until each is acknowledged; some of them twice, as a queue that delivers at least once does."""
        for start in range(0, len(ready), _BATCH):
            part = ready[start : start + _BATCH]
            items = [
                {"prediction_id": ident, "label": float(left), "at": at(number).isoformat()}
                for number, ident, left in part
            ]
            for _ in range(2 if rng.random() < 0.1 else 1):
                if self._until_acknowledged(caller, "/api/feedback", {"items": items}) is None:
                    return False
            self.history.labels += [Label(ident, float(left), at(number)) for number, ident, left in part]
        return True

    def _move_on(self, caller: Caller, to: datetime) -> None:
        if self._until_acknowledged(caller, f"/api/lines/{NAME}/watermark", {"at": to.isoformat()}):
            self.history.watermark = to

    def _until_acknowledged(self, caller: Caller, path: str, body: Any) -> Any:
        while not self._stop.is_set():
            try:
                return caller.post(path, body)
            except Lost:
                self._stop.wait(0.05)
        return None


def at(number: int) -> datetime:
    """The domain time of request `number`."""
    return BEGIN + number * TICK
