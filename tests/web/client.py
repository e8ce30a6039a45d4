"""A plain HTTP client and a reader of event streams, made of the standard library."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Message:
    id: str
    data: str


class Client:
    """Requests to one address, each on a connection of its own. `headers` go with all of them."""

    def __init__(self, address: str, **headers: str) -> None:
        self.host = urlsplit(address).netloc
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        given = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=given)
        answer = connection.getresponse()
        found = Reply(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        )
        connection.close()
        return found

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def post(self, path: str, value: object = None, **headers: str) -> Reply:
        if value is None:
            return self.ask("POST", path, **headers)
        return self.ask("POST", path, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def form(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> Reply:
        data = urlencode(fields or {}).encode()
        return self.ask("POST", path, data, Content_Type="application/x-www-form-urlencoded", **headers)

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; what comes back until the server closes."""
        host, port = self.host.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(data)
            found = b""
            with contextlib.suppress(ConnectionResetError):  # it closed before all was sent
                while chunk := connection.recv(65536):
                    found += chunk
        return found

    def stream(self, path: str, **headers: str) -> EventStream:
        return EventStream(
            self.host, path, self.headers | {k.replace("_", "-"): v for k, v in headers.items()}
        )


class EventStream:
    """An open stream of server-sent events."""

    def __init__(self, host: str, path: str, headers: Mapping[str, str]) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=30)
        self._connection.request("GET", path, headers={"Accept": "text/event-stream", **headers})
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.headers = {name.lower(): value for name, value in self._answer.getheaders()}

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, as a browser does: without a word."""
        self._answer.close()
        self._connection.close()

    def messages(self) -> Iterator[Message]:
        """Messages as they come; ends when the server ends the stream."""
        ident, data = "", []
        for line in self.lines():
            if line.startswith("id: "):
                ident = line[4:]
            elif line.startswith("data: "):
                data.append(line[6:])
            elif not line and data:
                yield Message(ident, "\n".join(data))
                data = []

    def lines(self) -> Iterator[str]:
        """Lines as they come, comments included."""
        while line := self._answer.readline():
            yield line.decode().rstrip("\n")


def cookie_of(reply: Reply) -> str:
    """The cookie that a reply sets, as a request sends it back."""
    found = re.match(r"[^;]+", reply.headers["set-cookie"])
    assert found is not None
    return found[0]
