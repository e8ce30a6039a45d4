"""Clients that keep asking, each on a connection of its own, and remember every answer."""

from __future__ import annotations

import http.client
import threading
from types import TracebackType
from typing import Any, Self

from tests.serving.world import Answer, Client, until


class Load:
    """Clients in threads, from entering the `with` block to leaving it.

    Attributes:
        answers: the answers of each client, in the order in which it got them.
        broken: connections that were lost before an answer came.
    """

    def __init__(self, port: int, clients: int = 2, *, endpoint: str = "delay") -> None:
        self._port = port
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(index,)) for index in range(clients)]
        self.answers: list[list[Answer]] = [[] for _ in range(clients)]
        self.broken = 0
        self.faults: list[BaseException] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.faults

    def wait(self, more: int) -> None:
        """Wait until each client has got so many more answers."""
        goals = [len(answers) + more for answers in self.answers]
        until(
            f"{more} more answers",
            lambda: all(len(answers) >= goal for answers, goal in zip(self.answers, goals, strict=True)),
        )

    @property
    def good(self) -> list[dict[str, Any]]:
        """The answers of status 200."""
        return [answer.json for answers in self.answers for answer in answers if answer.status == 200]

    @property
    def bad(self) -> list[Answer]:
        """All other answers."""
        return [answer for answers in self.answers for answer in answers if answer.status != 200]

    def _ask(self, index: int) -> None:
        client = Client(self._port)
        try:
            while not self._stop.is_set():
                try:
                    self.answers[index].append(client.predict(endpoint=self._endpoint))
                except (OSError, http.client.HTTPException):
                    self.broken += 1
                    client.close()
                    client = Client(self._port)
                    if self._stop.wait(0.01):
                        break
        except BaseException as error:  # noqa: BLE001  # shown by the thread that leaves the block
            self.faults.append(error)
        finally:
            client.close()
