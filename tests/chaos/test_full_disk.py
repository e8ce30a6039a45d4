"""The workspace's disk is full: nothing acknowledged is lost, everybody is told, and when there is room again all goes on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Protocol

import psutil
import pytest

from andon.core.workspace import FOLDER, Layout
from andon.governance.audit import verify
from andon.pipelines.registration import register_line
from andon.pipelines.workspace import OpenWorkspace
from tests.chaos.client import BEGIN
from tests.chaos.evidence import everything
from tests.chaos.house import House, until
from tests.chaos.line import NAME, draw, make

pytestmark = pytest.mark.chaos

SIZE_MB = 48


class Disk(Protocol):
    """A disk that can be filled to its last byte, and given room again."""

    def fill(self) -> None: ...
    def free(self) -> None: ...


class Tmpfs:
    """A disk of its own, filled by a file."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"\0" * size)

    def free(self) -> None:
        self._ballast.unlink()


class Limit:
    """No file of the running processes can grow, as where a quota is used up; for who may not mount anything."""

    def __init__(self, house: House) -> None:
        self._house = house

    def fill(self) -> None:
        self._set(1)

    def free(self) -> None:
        self._set(resource.RLIM_INFINITY)

    def _set(self, size: int) -> None:
        for process in self._house.processes():
            _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
            process.rlimit(psutil.RLIMIT_FSIZE, (size, hard))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk on a folder, if this user may; whether it is one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Outside:
    """A client that keeps what it was told: predictions and labels that were answered with 200."""

    def __init__(self, house: House, rng: Random) -> None:
        self._house, self._rng = house, rng
        self.answered: list[str] = []
        self.labelled: list[str] = []

    def predict(self) -> str:
        """ "200", or status and error code of a refusal."""
        status, said = self._post(self._house.gateway_port, f"/predict/{NAME}", draw(self._rng)[0])
        if status == 200:
            self.answered.append(said["prediction_id"])
        return _told(status, said)

    def label(self, prediction: str) -> str:
        item = {"prediction_id": prediction, "label": 1.0, "at": BEGIN.isoformat()}
        status, said = self._post(self._house.control_port, "/api/feedback", {"items": [item]})
        if status == 200:
            self.labelled.append(prediction)
        return _told(status, said)

    def ask_for_run(self) -> str:
        status, said = self._post(self._house.control_port, f"/api/lines/{NAME}/runs", {})
        assert status == 202, said
        return str(said["id"])

    def _post(self, port: int, path: str, body: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._house.token()}"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


def _told(status: int, said: Any) -> str:
    return "200" if status == 200 else f"{status} {said['error_code']}"


@pytest.mark.capability("L7", "J2")
def test_a_full_disk_loses_nothing_that_was_acknowledged_and_all_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    rng = Random(3)
    with small_disk(tmp_path / "disk") as own_disk:
        project = tmp_path / "disk" / "project"
        source = make(project, rng)
        layout = Layout(project / FOLDER)
        with OpenWorkspace(layout) as ws, contextlib.ExitStack() as stack:
            register_line(ws, project, ws.actor().id)
            ws.watermark(NAME, BEGIN)
            house = House(layout, os.environ)
            stack.callback(house.destroy)
            disk: Disk = Tmpfs(tmp_path / "disk") if own_disk else Limit(house)
            outside = Outside(house, rng)
            house.start()
            until("a model is live", lambda: _count(ws, "releases", state="live"))
            until("control answers", house.control_answers)
            until(
                "both gateways serve it",
                lambda: [NAME in state.routes for state in house.gateway_states()] == [True, True],
            )
            assert {outside.predict() for _ in range(50)} == {"200"}
            assert {outside.label(ident) for ident in outside.answered[:10]} == {"200"}

            disk.fill()

            until("a prediction is refused", lambda: outside.predict() == "503 STORAGE_FULL")
            until(
                "a label is refused",
                lambda: outside.label(rng.choice(outside.answered)) == "507 STORAGE_FULL",
            )
            assert house.get("/api/status")[0] == 200

            disk.free()

            until("predictions are answered again", lambda: {outside.predict() for _ in range(10)} == {"200"})
            until("labels are taken again", lambda: outside.label(outside.answered[-1]) == "200")
            source.grow(20)
            cause = f"trigger:{outside.ask_for_run()}"
            until("a run ends well again", lambda: _count(ws, "runs", cause=cause, state="finished"))
            house.notice_deaths()
            assert house.died == []
            assert house.end() == 0
            assert verify(ws.store).ok
            kept = {row.prediction for row in everything(ws, lambda reader: reader.feedback)}
            assert set(outside.labelled) <= kept
            assert [ident for ident in outside.answered if not ws.log.has(ident)] == []  # type: ignore[arg-type]


def _count(ws: OpenWorkspace, noun: str, **where: str) -> int:
    return ws.store.read(lambda reader: int(getattr(reader, noun).count(where)))
