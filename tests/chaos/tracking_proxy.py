"""A way to the server on which answers get lost: the request arrives, is done, and nobody hears of it."""

from __future__ import annotations

import re
import socket
import threading

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class DeafProxy:
    """Passes requests with a length on, one at a time for each connection, and every answer but the next `lose` ones."""

    def __init__(self, port: int) -> None:
        self.lose = 0
        self.lost: list[bytes] = []
        """The answers that nobody got, from their first line on."""
        self._to = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> DeafProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return  # it is closed
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            while request := _message(client):
                server.sendall(request)
                answer = _message(server)
                if self.lose:
                    self.lose -= 1
                    self.lost.append(answer)
                    return
                client.sendall(answer)


def _message(sock: socket.socket) -> bytes:
    """One whole request or answer; nothing when the other side closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    found = _LENGTH.search(head)
    size = int(found[1]) if found else 0
    while len(body) < size:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body
