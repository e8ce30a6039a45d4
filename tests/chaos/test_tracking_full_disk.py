"""The disk is full while a training logs: it is told so at once, nothing is half, and it goes on when there is room."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from andon.governance.audit import verify
from andon.pipelines.workspace import OpenWorkspace
from tests.chaos.house import until
from tests.chaos.test_full_disk import Disk, Limit, Tmpfs, small_disk
from tests.chaos.tracking_client import RawClient, Told
from tests.chaos.tracking_server import ControlProcess

pytestmark = pytest.mark.chaos

FULL = (507, "RESOURCE_EXHAUSTED")
AT_ONCE_S = 10.0
MIB = 2**20
NOW = 1_700_000_000_000


class Training:
    """A run that logs batches, and knows which were acknowledged."""

    def __init__(self, server: ControlProcess) -> None:
        self.client = RawClient(server.port, server.token)
        self.server = server
        told = self.client.post("runs/create", {"experiment_id": "0"})
        self.run = told.json["run"]["info"]["run_id"]
        self.root = f"0/{self.run}/artifacts"
        self.kept: list[int] = []
        self._next = 0

    def batch(self) -> Told:
        """900 points, a param and a tag, all or nothing."""
        number, self._next = self._next, self._next + 1
        point = {"timestamp": NOW, "value": 0.5}
        form = {
            "run_id": self.run,
            "metrics": [{**point, "key": f"m{n % 9}", "step": number * 100 + n // 9} for n in range(900)],
            "params": [{"key": f"p{number}", "value": "v"}],
            "tags": [{"key": f"t{number}", "value": "v"}],
        }
        told = self.client.post("runs/log-batch", form)
        if told.status == 200:
            self.kept.append(number)
        return told

    def until_full(self) -> None:
        """Log until there is no room."""
        until("a batch is refused", lambda: self.batch().status != 200)

    def writes(self) -> dict[str, Callable[[], Told]]:
        """One request of each kind that needs room, too large to fit into what is there already."""
        run, long = {"run_id": self.run}, "x" * 5000
        many = [{"key": f"k{n}", "value": long} for n in range(90)]
        point = {**run, "value": 1, "timestamp": NOW}
        version = {"name": "m", "source": f"runs:/{self.run}/model", "run_id": self.run}
        return {
            "log-batch": self.batch,
            "log-metric": lambda: self._often("runs/log-metric", lambda n: {**point, "key": f"one{n}"}),
            "log-parameter": lambda: self._often("runs/log-parameter", lambda n: {**run, "key": f"x{n}", "value": long}),
            "set-tag": lambda: self._often("runs/set-tag", lambda n: {**run, "key": f"x{n}", "value": long}),
            "runs/create": lambda: self._often("runs/create", lambda _: {"experiment_id": "0", "tags": many}),
            "experiments/create": lambda: self._often("experiments/create", lambda n: {"name": f"{n}", "tags": many}),
            "models/create": lambda: self._often("registered-models/create", lambda n: {"name": f"{n}", "tags": many}),
            "versions/create": lambda: self._often("model-versions/create", lambda _: {**version, "tags": many}),
            "a small file": lambda: self.client.upload(f"{self.root}/small.bin", b"small" * 5000),
            "a large file": lambda: self.client.upload(f"{self.root}/large.bin", os.urandom(6 * MIB)),
            "a file in the place of another": lambda: self.client.upload(f"{self.root}/kept.bin", os.urandom(3 * MIB)),
        }  # fmt: skip

    def _often(self, path: str, form: Callable[[int], Any]) -> Told:
        """The same kind of request until the pages that the database has are used up."""
        deadline = time.monotonic() + AT_ONCE_S
        number = 0
        while True:
            told = self.client.post(path, form(number))
            number += 1
            if told.status != 200 or time.monotonic() > deadline:
                return told


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[ControlProcess, Disk]]:
    with ExitStack() as stack:
        own_disk = stack.enter_context(small_disk(tmp_path / "disk"))
        process = stack.enter_context(ControlProcess(tmp_path / "disk", os.environ, python=[sys.executable]))
        yield process, Tmpfs(tmp_path / "disk") if own_disk else Limit(process)  # type: ignore[arg-type]


@pytest.mark.capability("C1", "C6", "L7")
def test_a_full_disk_is_said_at_once_and_everything_goes_on_when_there_is_room(
    server: tuple[ControlProcess, Disk],
) -> None:
    process, disk = server
    training = Training(process)
    assert [training.batch().status for _ in range(3)] == [200] * 3
    kept = bytes(range(256)) * 4096
    assert training.client.upload(f"{training.root}/kept.bin", kept).status == 200
    assert training.client.upload(f"{training.root}/model/MLmodel", b"flavors: {}").status == 200
    assert training.client.post("registered-models/create", {"name": "m"}).status == 200

    disk.fill()
    training.until_full()

    for what, write in training.writes().items():
        began_s = time.monotonic()
        told = write()
        assert (what, told.error) == (what, FULL)
        assert told.sent == 1
        assert time.monotonic() - began_s < 2 * AT_ONCE_S
        assert re.search("no room|no space|file too large", told.json["message"])
    assert training.client.get("runs/get", run_id=training.run).status == 200
    assert training.client.download(f"{training.root}/kept.bin").body == kept
    assert training.client.toll.offences == []
    assert list((process.layout.blobs / "tmp").iterdir()) == []
    acknowledged = list(training.kept)

    disk.free()

    until("a batch is taken again", lambda: training.batch().status == 200)
    other = os.urandom(3 * MIB)
    assert training.client.upload(f"{training.root}/kept.bin", other).status == 200
    assert training.client.upload(f"{training.root}/new.bin", b"new").status == 200
    assert training.client.download(f"{training.root}/kept.bin").body == other
    form = {"name": "m", "source": f"runs:/{training.run}/model", "run_id": training.run}
    assert training.client.post("model-versions/create", form).status == 200
    training.client.close()
    assert process.end() == 0
    _nothing_is_half(process, training, acknowledged)


def _nothing_is_half(process: ControlProcess, training: Training, acknowledged: list[int]) -> None:
    with OpenWorkspace(process.layout) as ws:
        assert verify(ws.store).ok
        run = ws.store.read(lambda reader: reader.runs.get(training.run))
        params = ws.store.read(lambda reader: reader.params.of([run.number]))[run.number]
        tags = ws.store.read(lambda reader: reader.run_tags.of([run.number]))[run.number]
        assert acknowledged == training.kept[: len(acknowledged)]
        numbers = set(training.kept)
        assert {key for key in params if key.startswith("p")} == {f"p{number}" for number in numbers}
        assert {key for key in tags if key.startswith("t")} == {f"t{number}" for number in numbers}
        for metric in range(9):
            key = f"m{metric}"
            points = ws.store.read(lambda reader, key=key: reader.metrics.history(run, key, limit=10**6))  # type: ignore[misc]
            assert {point.step // 100 for point in points} == numbers
            assert len(points) == 100 * len(numbers)
        paths = [row.id for row in ws.store.read(lambda reader: reader.files.under(training.root))]
        assert paths == [f"{training.root}/{name}" for name in ("kept.bin", "model/MLmodel", "new.bin")]
