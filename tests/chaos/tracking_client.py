"""An MLflow client as far as the wire knows: raw requests on one connection that is kept, and each sent again as MLflow's does.

MLflow's client repeats a request whose connection broke or that was answered with 408, 429, 500, 502, 503 or 504, after a
while that doubles. So does this one, with the same bytes, only that it does not wait longer than the server is away.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_TIMEOUT_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.2


class Unanswered(Exception):
    """The request has no answer and never will have: its client has given up. Whether it was done nobody knows."""


@dataclass(frozen=True)
class Told:
    """An answer, and how many times the request was sent for it."""

    status: int
    body: bytes
    sent: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error_code"]


@dataclass
class Slow:
    """A body that is told how far it is: half of it, word to `halfway`, the other half. It ends there when that raises."""

    data: bytes
    halfway: Callable[[], None]

    def __iter__(self) -> Iterator[bytes]:
        middle = len(self.data) // 2
        yield self.data[:middle]
        self.halfway()
        yield self.data[middle:]


@dataclass
class Toll:
    """What a client met on its way: lost connections and refusals by kind, and answers that nobody should ever get."""

    counts: Counter[str] = field(default_factory=Counter)
    offences: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


class RawClient:
    """One connection at a time. Not safe to share between threads."""

    def __init__(
        self, port: int, token: str, *, toll: Toll | None = None, stop: threading.Event | None = None
    ) -> None:
        self.toll = toll or Toll()
        self._headers = {"Authorization": f"Bearer {token}"}
        self._stop = stop or threading.Event()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)

    def close(self) -> None:
        self._connection.close()

    # --- MLflow's words ---

    def post(self, path: str, form: object, **how: Any) -> Told:
        return self.ask("POST", f"{API}/{path}", json.dumps(form).encode(), **how)

    def get(self, path: str, **query: object) -> Told:
        return self.ask("GET", f"{API}/{path}?{urlencode(query, doseq=True)}")

    def patch(self, path: str, form: object, **how: Any) -> Told:
        return self.ask("PATCH", f"{API}/{path}", json.dumps(form).encode(), **how)

    def delete(self, path: str, form: object, **how: Any) -> Told:
        return self.ask("DELETE", f"{API}/{path}", json.dumps(form).encode(), **how)

    def upload(self, path: str, data: bytes | Slow, **how: Any) -> Told:
        return self.ask("PUT", f"{FILES}/{quote(path)}", data, **how)

    def download(self, path: str) -> Told:
        return self.ask("GET", f"{FILES}/{quote(path)}")

    def remove(self, path: str, **how: Any) -> Told:
        return self.ask("DELETE", f"{FILES}/{quote(path)}", **how)

    # --- one request ---

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Slow | None = None,
        *,
        sent: Callable[[], None] = lambda: None,
        patience: Callable[[], bool] = lambda: True,
    ) -> Told:
        """The answer, after as many tries as it takes.

        Args:
            sent: called when a try's request is out and its answer is not in.
            patience: asked after a lost answer whether to send it again.

        Raises:
            Unanswered: the client had no patience left.
        """
        tries, pause_s = 0, _FIRST_PAUSE_S
        while True:
            tries += 1
            told = self._try(method, path, body, sent, tries)
            if told is not None and told.status not in AGAIN:
                return told
            if told is None and not patience():
                raise Unanswered
            if self._stop.wait(pause_s):
                raise Unanswered
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _try(
        self, method: str, path: str, body: bytes | Slow | None, sent: Callable[[], None], tries: int
    ) -> Told | None:
        began_s = time.monotonic()
        headers: Mapping[str, str] = self._headers
        if isinstance(body, Slow):
            headers = {**headers, "Content-Length": str(len(body.data))}
        try:
            self._connection.request(method, path, body, headers)  # type: ignore[arg-type]
            sent()
            answer = self._connection.getresponse()
            told = Told(answer.status, answer.read(), tries)
        except Unanswered:
            self._connection.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self.toll.counts[f"lost: {type(error).__name__}"] += 1
            return None
        self.toll.slowest_s = max(self.toll.slowest_s, time.monotonic() - began_s)
        if told.status >= 500:
            self.toll.counts[f"status {told.status}"] += 1
            if told.status not in (503, 507):
                self.toll.offences.append(
                    f"{method} {path[:150]} was answered with {told.status}: {told.body[:300]!r}"
                )
        return told
