"""A server that answers 200 with a fitting body to everything at once: what it reaches is the client's own ceiling.

`python -m benchmarks.wire.null PORT`. It keeps nothing, checks nothing, and its body for each path is made once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import httptools
import uvloop

RUN = {
    "info": {
        "run_id": "0" * 32, "run_uuid": "0" * 32, "run_name": "null", "experiment_id": "1", "user_id": "",
        "status": "RUNNING", "start_time": 1, "artifact_uri": "mlflow-artifacts:/1/0/artifacts",
        "lifecycle_stage": "active",
    },
    "data": {
        "metrics": [{"key": f"m{i}", "value": 0.123456789, "timestamp": 1, "step": 1} for i in range(4)],
        "params": [{"key": f"p{i}", "value": "0.123456789"} for i in range(4)],
        "tags": [{"key": f"t{i}", "value": "value"} for i in range(2)],
    },
    "inputs": {},
}  # fmt: skip
EXPERIMENT = {
    "experiment": {
        "experiment_id": "1", "name": "null", "artifact_location": "mlflow-artifacts:/1",
        "lifecycle_stage": "active", "last_update_time": 1, "creation_time": 1,
    }
}  # fmt: skip
ANSWERS: dict[bytes, object] = {
    b"/runs/create": {"run": RUN},
    b"/runs/get": {"run": RUN},
    b"/runs/update": {"run_info": RUN["info"]},
    b"/runs/search": {"runs": [RUN] * 100, "next_page_token": "next"},
    b"/experiments/create": {"experiment_id": "1"},
    b"/experiments/get": EXPERIMENT,
    b"/experiments/get-by-name": EXPERIMENT,
}


def answer(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )


BYTES = {path: answer(json.dumps(value).encode()) for path, value in ANSWERS.items()}
EMPTY = answer(b"{}")


class Answering(asyncio.Protocol):
    """One connection: each request read to its end, then answered from memory."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_message_complete(self) -> None:
        path = self.url.partition(b"?")[0]
        self.url = b""
        self.transport.write(BYTES.get(path[path.find(b"/mlflow/") + 7 :], EMPTY))


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
