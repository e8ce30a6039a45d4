"""The server's wall clock jumps while runs are logged: what clients say of time counts, and order comes from elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from andon.core.workspace import FOLDER, Layout
from andon.governance.audit import verify
from andon.pipelines.workspace import OpenWorkspace
from andon.tracking.sealing import read_seal
from andon.web.__main__ import Server, configure, listen
from andon.web.app import create_app
from tests.chaos.desk import JumpingClock
from tests.chaos.evidence import everything
from tests.chaos.house import until
from tests.chaos.tracking_client import RawClient

pytestmark = pytest.mark.chaos

YEAR = timedelta(days=365)
JUMPS = (timedelta(0), YEAR, -YEAR, timedelta(hours=1), -timedelta(hours=1), timedelta(0))


class Office:
    """A control process in this process, on a clock that jumps, and a client of it."""

    def __init__(self, ws: OpenWorkspace, clock: JumpingClock, client: RawClient) -> None:
        self.ws, self.clock, self.client = ws, clock, client

    def begin(self, **form: object) -> str:
        told = self.client.post("runs/create", {"experiment_id": "0", **form})
        assert told.status == 200, told.body
        return str(told.json["run"]["info"]["run_id"])

    def log(self, run: str, value: float, *, at_ms: int, step: int) -> None:
        form = {"run_id": run, "key": "loss", "value": value, "timestamp": at_ms, "step": step}
        assert self.client.post("runs/log-metric", form).status == 200

    def end(self, run: str, **form: object) -> dict[str, object]:
        told = self.client.post("runs/update", {"run_id": run, "status": "FINISHED", **form})
        info: dict[str, object] = told.json["run_info"]
        return info

    def found(self, **form: object) -> list[str]:
        told = self.client.post("runs/search", {"experiment_ids": ["0"], **form})
        return [run["info"]["run_id"] for run in told.json["runs"]]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    clock = JumpingClock()
    with OpenWorkspace(Layout(tmp_path / FOLDER), clock=clock) as ws, _serving(ws) as (port, token):
        client = RawClient(port, token)
        yield Office(ws, clock, client)
        client.close()


@contextmanager
def _serving(ws: OpenWorkspace) -> Iterator[tuple[int, str]]:
    sock = listen("127.0.0.1", 0)
    app = create_app(ws)
    server = Server(configure(app), app.state.andon)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
    thread.start()
    try:
        yield sock.getsockname()[1], app.state.andon.token
    finally:
        server.handle_exit(15, None)
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop"


@pytest.mark.capability("C1")
def test_the_latest_point_is_by_step_and_the_clients_own_time_whatever_the_servers_clock_says(
    office: Office,
) -> None:
    run = office.begin()
    for number, jump in enumerate(JUMPS):
        office.clock.ahead = jump
        office.log(run, number, at_ms=1000 + number, step=number // 2)

    office.clock.ahead = -YEAR
    office.log(run, 99.0, at_ms=5, step=0)  # an old point that comes late

    told = office.client.get("runs/get", run_id=run).json["run"]["data"]["metrics"]
    points = office.client.get("metrics/get-history", run_id=run, metric_key="loss").json["metrics"]
    assert told == [{"key": "loss", "value": 5.0, "timestamp": 1005, "step": 2}]
    assert [(point["timestamp"], point["step"]) for point in points] == [
        (5, 0), (1000, 0), (1001, 0), (1002, 1), (1003, 1), (1004, 2), (1005, 2),
    ]  # fmt: skip


def test_runs_are_counted_and_ordered_by_what_clients_say(office: Office) -> None:
    runs = []
    for number, jump in enumerate(JUMPS):
        office.clock.ahead = jump
        runs.append(office.begin(start_time=1_700_000_000_000 + number))

    rows = sorted(everything(office.ws, lambda reader: reader.runs), key=lambda row: row.number)

    assert [row.id for row in rows] == runs
    assert office.found() == runs[::-1]
    assert office.found(order_by=["attributes.start_time ASC"]) == runs
    assert office.found(max_results=3) == runs[:2:-1]


def test_ids_stay_unique_and_a_run_without_a_time_gets_the_clocks(office: Office) -> None:
    runs = []
    for jump in JUMPS:
        office.clock.ahead = jump
        runs += [office.begin() for _ in range(5)]

    rows = {row.id: row for row in everything(office.ws, lambda reader: reader.runs)}

    assert len(set(runs)) == len(runs) == len(rows)
    years = [rows[run].created_at.year for run in runs]  # type: ignore[index]
    assert max(years) - min(years) == 2


@pytest.mark.parametrize("jump", [-YEAR, YEAR])
def test_a_run_ends_and_is_sealed_soon_however_the_clock_jumps(office: Office, jump: timedelta) -> None:
    run = office.begin(start_time=1_700_000_000_000)
    office.log(run, 0.5, at_ms=1, step=1)

    office.clock.ahead = jump
    info = office.end(run, end_time=1_700_000_001_000)
    sealed = _sealed(office, run, 1)
    office.clock.ahead = -jump
    office.log(run, 0.4, at_ms=2, step=2)
    again = _sealed(office, run, 2)

    assert (info["start_time"], info["end_time"]) == (1_700_000_000_000, 1_700_000_001_000)
    assert sealed != again
    row = office.ws.store.read(lambda reader: reader.runs.get(run))
    assert read_seal(office.ws.store, row).digest == again
    assert verify(office.ws.store).ok


def test_an_end_before_the_start_is_kept_as_it_was_said(office: Office) -> None:
    """Of a run that says nothing of its times, and of a clock that was set back in between."""
    run = office.begin()
    office.clock.ahead = -YEAR

    info = office.end(run)

    assert int(str(info["end_time"])) < int(str(info["start_time"]))
    assert office.found() == [run]
    _sealed(office, run, 1)


def test_a_clock_that_was_set_back_hides_no_file_and_no_version(office: Office) -> None:
    run = office.begin()
    client, root = office.client, f"0/{run}/artifacts"
    assert client.post("registered-models/create", {"name": "m"}).status == 200
    for number, jump in enumerate(JUMPS):
        office.clock.ahead = jump
        assert client.upload(f"{root}/model/MLmodel", b"%d" % number).status == 200
        form = {"name": "m", "source": f"runs:/{run}/model", "run_id": run}
        assert client.post("model-versions/create", form).json["model_version"]["version"] == str(number + 1)
        form = {"name": "m", "alias": "champion", "version": str(number + 1)}
        assert client.post("registered-models/alias", form).status == 200

    assert client.download(f"{root}/model/MLmodel").body == b"5"
    told = client.get("registered-models/alias", name="m", alias="champion").json["model_version"]
    assert told["version"] == "6"
    latest = client.post("registered-models/get-latest-versions", {"name": "m"}).json["model_versions"]
    assert [each["version"] for each in latest] == ["6"]
    for number in range(len(JUMPS)):
        found = client.get("model-versions/get-download-uri", name="m", version=number + 1).json
        path = found["artifact_uri"].removeprefix("mlflow-artifacts:/")
        assert client.download(f"{path}/MLmodel").body == b"%d" % number


def _sealed(office: Office, run: str, number: int) -> str:
    def seal() -> str | None:
        row = office.ws.store.read(lambda reader: reader.runs.get(run))
        return row.seal if row.seals == number else None

    return until(f"seal {number}", seal, within_s=30)
