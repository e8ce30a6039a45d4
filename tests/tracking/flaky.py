"""A way to a server that goes wrong: it refuses, answers late or rubbish, and loses answers after the server has acted."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["none", "lose the answer", "500", "rubbish", "cut", "stall"]


class Flaky(ThreadingHTTPServer):
    """Passes requests on to `address`, each with the fault that `faults` says next; `none` when it says no more."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__(("127.0.0.1", 0), _Way)
        self.to = urlsplit(address).netloc
        self.faults: Iterator[Fault] = iter(())
        self.asked: list[str] = []
        self.after: Callable[[int], None] = lambda _: None
        self.gone_on = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what these tests are about."""


class _Way(BaseHTTPRequestHandler):
    server: Flaky
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # http.server calls it so
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = next(self.server.faults, "none")
        self.server.asked.append(f"{fault} {self.path.rpartition('/')[2]}")
        if fault == "500":
            self._answer(500, b'{"error_code": "INTERNAL_ERROR", "message": "out of luck"}')
        elif fault == "rubbish":
            self._answer(200, b"<html>welcome to the hotel's network</html>")
        elif fault == "cut":
            self.close_connection = True
        elif fault == "stall":
            self.server.gone_on.wait(60)
            self.close_connection = True
        else:
            status, data = self._pass_on(body)
            if fault == "lose the answer":
                self.close_connection = True
            else:
                self._answer(status, data)
        self.server.after(len(self.server.asked))

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _pass_on(self, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.server.to, timeout=30)
        headers = {"Host": self.server.to} | {
            name: value for name, value in self.headers.items() if name in ("Content-Type", "Authorization")
        }
        try:
            connection.request("POST", self.path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 502, b"the server is away"
        finally:
            connection.close()

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(data)


@contextmanager
def flaky(address: str) -> Iterator[Flaky]:
    """A way to a server that works until the test says otherwise."""
    server = Flaky(address)
    thread = threading.Thread(target=lambda: server.serve_forever(0.01))
    thread.start()
    try:
        yield server
    finally:
        server.gone_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
