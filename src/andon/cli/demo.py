"""`andon demo`: the whole loop on real flights. This module only sets the stage and watches; the loop does the rest by itself.

The stage: a workspace with the `flights` line, its processes, and a client that replays departures and their outcomes. After
the loop has replaced its first model by itself, two bad challengers are sent in through the same door as any other run, each
with a named fault: labels shuffled before training, and a live feature that fails. What happens then is read from the ledger.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import click
import msgspec

from andon.cli import output
from andon.cli.replay import Progress
from andon.cli.scaffold import copy_template
from andon.cli.supervisor import running
from andon.core.clock import from_us, parse_time
from andon.core.entities import Alert, ModelVersion, Release, Run, Verdict
from andon.core.errors import Unavailable
from andon.core.events import Event
from andon.core.ids import ActorId, RunId, TriggerId, split_node
from andon.core.workspace import FOLDER, Layout, Settings, settings_from
from andon.governance.lineage import Why
from andon.pipelines.registration import register_line
from andon.pipelines.workspace import OpenWorkspace
from andon.store.ports import Reader
from andon.web.login import login_address

LINE = "flights"
SINCE = parse_time("2013-04-01T00:00:00Z")
MIN_REQUESTS = 20_000
_LIMIT_S = 420.0
_TRIES = 8
_ENDS = ("refused", "undone", "live", "superseded", "withdrawn", "failed", "blocked", "killed")
_AGAIN = timedelta(days=7)
_SEASON = timedelta(days=18)
_POLL_S = 0.1


@click.command()
@click.option("--exit", "ends", is_flag=True, help="End everything when the story is told.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(".andon-demo"),
    show_default=True,
    help="Where it plays; emptied first.",
)
@output.json_option
@output.speaks
def demo(*, ends: bool, folder: Path, as_json: bool) -> None:
    """Play the whole loop on the real departures from New York in 2013.

    Data becomes a model, the model goes live, real requests and late labels arrive, monitors see it decay, a challenger is
    trained, judged and rolled out; two bad challengers are stopped.

    \b
    andon demo                  play, then leave it running to be looked at
    andon demo --exit --json    play, print one JSON object, end
    """
    story = play(folder)
    output.show(story.summary, story.text(), as_json)
    if not ends:
        output.progress("everything is still running; press Ctrl-C to end it")
        story.wait()
    story.end()
    if not story.summary.ok:
        raise SystemExit(1)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `seconds` is wall time since the demo began, `data_at` the replay's time."""

    seconds: float
    data_at: datetime | None
    kind: str
    text: str


class ModelLine(msgspec.Struct, frozen=True, kw_only=True):
    """A version: its verdict in words, its state, and its AUC on its own holdout."""

    version: int
    verdict: str
    passed: bool
    state: str
    auc: float | None
    fault: str | None


class ReleaseLine(msgspec.Struct, frozen=True, kw_only=True):
    """A release and where it ended."""

    id: str
    version: int
    state: str
    because: str | None


class AlertLine(msgspec.Struct, frozen=True, kw_only=True):
    """An alert, the model version it is about, and the run it led to."""

    id: str
    monitor: str
    version: int | None
    data_at: datetime | None
    summary: str
    run: str | None


class UndoneLine(msgspec.Struct, frozen=True, kw_only=True):
    """An undo: wall seconds from the bad version's first answer to its last, and how many requests it answered."""

    release: str
    version: int
    because: str | None
    seconds: float
    requests: int
    failed: int


class LeadTime(msgspec.Struct, frozen=True, kw_only=True):
    """From the newest row that the second live model could have seen to its going live."""

    data_days: float
    wall_seconds: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `andon demo --json` prints. `ok` is whether the loop did all of it by itself."""

    ok: bool
    missing: list[str]
    timeline: list[Moment]
    models: list[ModelLine]
    releases: list[ReleaseLine]
    alerts: list[AlertLine]
    undone: list[UndoneLine]
    predictions: int
    failed_requests: int
    labels: int
    sample_prediction_id: str | None
    why: Why | None
    lead_time: LeadTime | None
    seconds: float
    workspace: str
    now_page: str


class Story:
    """A played demo: its summary, and the processes that still run."""

    def __init__(self, summary: Summary, stage: Stage) -> None:
        self.summary = summary
        self._stage = stage

    def text(self) -> str:
        """The story for people."""
        said = self.summary
        lines = [""]
        lines += [
            f"{moment.seconds:6.1f} s  {_day(moment.data_at)}  {moment.text}" for moment in said.timeline
        ]
        lines.append("")
        for undone in said.undone:
            lines.append(
                f"undo of v{undone.version}: {undone.seconds:.2f} s from its first answer to its last, "
                f"{undone.requests} requests, {undone.failed} of them failed ({undone.because})"
            )
        if said.lead_time:
            lines.append(
                f"lead time, newest row to live model: {said.lead_time.data_days:.1f} days of data, "
                f"{said.lead_time.wall_seconds:.1f} s here"
            )
        if said.why is not None:
            lines += ["", f"andon why {said.sample_prediction_id}", said.why.text()]
        verdict = (
            "the loop closed by itself" if said.ok else "the loop did NOT do: " + "; ".join(said.missing)
        )
        lines += ["", f"{said.predictions} requests, {said.labels} labels, {said.seconds:.1f} s: {verdict}"]
        return "\n".join([*lines, f"Now page: {said.now_page}", f"workspace: {said.workspace}"])

    def wait(self) -> None:
        """Until Ctrl-C."""
        try:
            signal.pause()
        except KeyboardInterrupt:
            output.progress("ending")

    def end(self) -> None:
        """End every process."""
        self._stage.close()


class Stage:
    """The workspace, its processes and the replaying client."""

    def __init__(self, folder: Path) -> None:
        self.began_s = time.monotonic()
        self.began = datetime.now().astimezone()
        self._log: IO[bytes] | None = None
        self.processes: list[subprocess.Popen[Any]] = []
        self.layout = Layout((folder / FOLDER).absolute())
        _empty(folder, self.layout)
        copy_template(LINE, folder)
        settings = _free_ports(settings_from(os.environ))
        self.ws = OpenWorkspace(self.layout, settings)
        self.actor: ActorId = self.ws.actor().id
        register_line(self.ws, folder.absolute(), self.actor)
        self.ws.watermark(LINE, SINCE)
        self._start(settings)

    def since(self) -> float:
        return time.monotonic() - self.began_s

    def start_replay(self) -> subprocess.Popen[bytes]:
        """The client: a process of its own that only speaks HTTP."""
        command = [
            sys.executable,
            "-m",
            "andon.cli.replay",
            "--workspace",
            str(self.layout.root),
            "--line",
            LINE,
        ]
        log = (self.layout.logs / "replay.log").open("ab")
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        log.close()
        self.processes.append(client)
        return client

    def close(self) -> None:
        """End the client first, then everything else."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.processes.clear()
        self.ws.close()

    def _start(self, settings: Settings) -> None:
        environ = dict(os.environ) | {
            "ANDON_PORT": str(settings.control_port), "ANDON_GATEWAY_PORT": str(settings.gateway_port), "ANDON_FAULTS": "1",
        }  # fmt: skip
        command = [sys.executable, "-m", "andon.cli.supervisor", "--workspace", str(self.layout.root)]
        with (self.layout.logs / "supervisor.log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
        deadline = time.monotonic() + 30
        while running(self.layout) is None:
            if self.processes[0].poll() is not None or time.monotonic() > deadline:
                raise Unavailable(
                    "the supervisor did not start", hint=f"see {self.layout.logs}/supervisor.log"
                )
            time.sleep(_POLL_S)


class Director:
    """Waits for what the loop does, and sends the two bad challengers in when their turn has come."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ws = stage.ws
        self.progress: Progress | None = None
        self.client: subprocess.Popen[bytes] | None = None
        self._told = 0

    def play(self) -> None:
        """The acts, in order. An act that does not happen in time ends the play; the summary says what is missing."""
        if not self._until("the first model is live", lambda reader: len(_lived(reader)) >= 1):
            return
        self.client = self.stage.start_replay()
        if self.client.stdout is not None:
            os.set_blocking(self.client.stdout.fileno(), False)
        done = (
            self._until("the loop replaces its model", lambda reader: len(_lived(reader)) >= 2)
            and self._send("shuffled-labels", "refused")
            and self._wait_for_data(_SEASON)
            and self._send("broken-feature", "undone")
            and self._until(
                "enough requests", lambda _: self.progress is not None and self.progress.sent >= MIN_REQUESTS
            )
        )
        if not done:
            output.progress("the play ended before its last act")

    def _send(self, fault: str, end: str) -> bool:
        """A bad challenger through the same door as any run, until it ended as it should.

        One that is refused for another reason (no better than the live model just now) is sent again with newer data.
        """
        for _ in range(_TRIES):
            output.progress(f"a bad challenger is sent in: {fault}")
            trigger = self.ws.run(LINE, self.stage.actor, faults=(fault,)).id
            if not self._until(f"the end of {fault}", lambda reader: _state(reader, trigger) in _ENDS):  # noqa: B023
                return False
            if self.ws.store.read(lambda reader: _state(reader, trigger)) == end:  # noqa: B023
                return True
            if not self._wait_for_data(_AGAIN):
                return False
        return False

    def _wait_for_data(self, time: timedelta) -> bool:
        """So much more data: with none a challenger is the live model over again, and the gate says so."""
        wanted = self._data_time() + time
        return self._until("newer data", lambda _: self._data_time() >= wanted)

    def _data_time(self) -> datetime:
        return self.progress.at if self.progress else SINCE

    def _until(self, what: str, happened: Any) -> bool:
        while self.stage.since() < _LIMIT_S:
            self._listen()
            if self.ws.store.read(happened):
                return True
            if self.client is not None and self.client.poll() is not None:
                output.progress(f"the data ended before: {what}")
                return False
            time.sleep(_POLL_S)
        output.progress(f"gave up waiting: {what}")
        return False

    def _listen(self) -> None:
        """Tell what the ledger and the client say."""
        events = self.ws.store.read(lambda reader: reader.ledger.after(self._told, limit=1000))
        for event in events:
            self._told = event.seq
            if text := self.ws.store.read(lambda reader, event=event: in_words(reader, event)):  # type: ignore[misc]
                output.progress(f"{self.stage.since():5.1f} s  {_day(event.data_at)}  {text}")
        if self.client is not None and self.client.stdout is not None:
            for line in self.client.stdout.readlines():
                self.progress = msgspec.json.decode(line, type=Progress)
                if self.progress.at.day in (1, 15):
                    output.progress(
                        f"{self.stage.since():5.1f} s  {_day(self.progress.at)}  {self.progress.sent} requests so far"
                    )


def play(folder: Path) -> Story:
    """Set the stage, play, and read from the ledger what happened."""
    stage = Stage(folder)
    director = Director(stage)
    try:
        director.play()
        _end_client(director.client)
        director._listen()
        summary = _summary(stage, director.progress)
    except BaseException:
        stage.close()
        raise
    return Story(summary, stage)


def in_words(reader: Reader, event: Event) -> str | None:
    """An event as the story tells it; None for those it leaves out."""
    kind, ident = split_node(event.subject)
    if event.kind in ("dataset.committed", "dataset.blocked"):
        row = reader.dataset_versions.select({"manifest": ident}, limit=1)
        return (
            f"data version {row[0].number}: {row[0].rows} rows, {'valid' if row[0].state == 'valid' else 'blocked'}"
            if row
            else None
        )
    if event.kind == "alert.opened":
        alert = reader.alerts.get(ident)
        return f"alert ({alert.monitor}): {alert.summary}"
    if event.kind == "trigger.fired":
        return f"a run is asked for: {event.facts.get('kind')}" + (
            f", fault {event.facts['faults']}" if event.facts.get("faults") else ""
        )
    if event.kind == "verdict.given":
        verdict = reader.verdicts.get(ident)
        version = reader.model_versions.get(verdict.model_version)
        return f"v{version.number} {'passed' if verdict.passed else 'was refused by'} the gate: {verdict.summary}"
    if event.kind == "rollout.advanced" and kind == "rollout":
        release = reader.releases.get(reader.rollouts.get(ident).release)
        return f"v{release.number} gets {event.facts['percent']} % of requests"
    if event.kind in ("release.live", "release.undone"):
        release = reader.releases.get(ident)
        return (
            f"v{release.number} is live"
            if event.kind == "release.live"
            else f"v{release.number} is undone: {release.because}"
        )
    return None


def _summary(stage: Stage, progress: Progress | None) -> Summary:
    ws = stage.ws
    events = ws.store.read(lambda reader: reader.ledger.after(0, limit=100_000))
    timeline = [
        Moment(
            seconds=(event.at - stage.began).total_seconds(),
            data_at=event.data_at,
            kind=event.kind,
            text=text,
        )
        for event in events
        if (text := ws.store.read(lambda reader, event=event: in_words(reader, event)))  # type: ignore[misc]
    ]
    facts = ws.store.read(_Facts)
    records = _records(ws)
    undone = [_undone(release, records) for release in facts.releases if release.state == "undone"]
    second = facts.second_model()
    sample = next(
        (record.prediction_id for record in records if second and record.release == second.id), None
    )
    missing = facts.missing(undone, progress)
    return Summary(
        ok=not missing, missing=missing, timeline=timeline, models=facts.model_lines(), releases=facts.release_lines(),
        alerts=facts.alert_lines(), undone=undone, predictions=len(records),
        failed_requests=sum(record.status >= 500 for record in records), labels=progress.labels if progress else 0,
        sample_prediction_id=sample, why=ws.why(sample) if sample else None, lead_time=facts.lead_time(),
        seconds=stage.since(), workspace=str(stage.layout.project), now_page=_now_page(stage),
    )  # fmt: skip


class _Facts:
    """What the rows say at the end."""

    def __init__(self, reader: Reader) -> None:
        self.versions: list[ModelVersion] = reader.model_versions.select(order=("number",))
        self.releases: list[Release] = reader.releases.select(order=("created_at",))
        self.alerts: list[Alert] = reader.alerts.select(order=("created_at",))
        self.runs: dict[str, Run] = {run.id: run for run in reader.runs.select()}
        self.verdicts: dict[str, Verdict] = {
            verdict.model_version: verdict for verdict in reader.verdicts.select()
        }
        self.metrics = reader.metrics.latest(list(self.runs.values()))
        self.triggers = {trigger.id: trigger for trigger in reader.triggers.select()}
        self.rollouts = {rollout.release: rollout for rollout in reader.rollouts.select()}

    def second_model(self) -> Release | None:
        """The release by which the loop replaced its first model."""
        lived = [release for release in self.releases if release.state in ("live", "superseded")]
        return lived[1] if len(lived) > 1 else None

    def missing(self, undone: Iterable[UndoneLine], progress: Progress | None) -> list[str]:
        """What the loop should have done by itself and did not."""
        second = self.second_model()
        checks = {
            "a drift alert": any(alert.monitor == "drift" for alert in self.alerts),
            "an alert about realised performance": any(alert.monitor == "auc" for alert in self.alerts),
            "a challenger that an alert asked for took over": second is not None
            and self._cause(second) in ("drift", "performance"),
            "shuffled labels were refused by the gate": any(
                release.state == "refused" and "shuffled-labels" in self._run(release.run).faults
                for release in self.releases
            ),
            "the broken feature was undone by the canary's guard": any(
                "broken-feature" in self._run(self._release(one.release).run).faults for one in undone
            ),
            f"{MIN_REQUESTS} requests": progress is not None and progress.sent >= MIN_REQUESTS,
        }
        return [name for name, done in checks.items() if not done]

    def lead_time(self) -> LeadTime | None:
        second = self.second_model()
        if second is None:
            return None
        run, rollout = self._run(second.run), self.rollouts[second.id]
        trigger = self.triggers[split_trigger(run.cause)]
        live_data = rollout.step_from
        days = (live_data - run.data_at).total_seconds() / 86_400 if live_data and run.data_at else 0.0
        return LeadTime(
            data_days=days, wall_seconds=(rollout.changed_at - trigger.created_at).total_seconds()
        )

    def model_lines(self) -> list[ModelLine]:
        return [
            ModelLine(
                version=version.number, passed=self.verdicts[version.id].passed, verdict=self.verdicts[version.id].summary,
                state=version.state, auc=self._auc(version), fault=",".join(self._run(version.run).faults) or None,
            )
            for version in self.versions
        ]  # fmt: skip

    def release_lines(self) -> list[ReleaseLine]:
        return [
            ReleaseLine(id=one.id, version=one.number, state=one.state, because=one.because)
            for one in self.releases
        ]

    def alert_lines(self) -> list[AlertLine]:
        led = {self.triggers[split_trigger(run.cause)].cause: run.id for run in self.runs.values()}
        numbers = {f"model_version:{version.id}": version.number for version in self.versions}
        return [
            AlertLine(
                id=one.id, monitor=one.monitor, version=numbers.get(one.subject), data_at=one.data_at, summary=one.summary,
                run=led.get(f"alert:{one.id}"),
            )
            for one in self.alerts
        ]  # fmt: skip

    def _cause(self, release: Release) -> str:
        return self.triggers[split_trigger(self._run(release.run).cause)].kind

    def _run(self, ident: RunId | None) -> Run:
        return self.runs[ident or ""]

    def _auc(self, version: ModelVersion) -> float | None:
        point = self.metrics[self._run(version.run).number].get("auc")
        return point.value if point else None

    def _release(self, ident: str) -> Release:
        return next(release for release in self.releases if release.id == ident)


def split_trigger(cause: str) -> TriggerId:
    """The trigger that a run's cause names."""
    return TriggerId(cause.partition(":")[2])


def _undone(release: Release, records: Iterable[Any]) -> UndoneLine:
    answered = sorted(
        (record for record in records if record.release == release.id), key=lambda record: record.at_us
    )
    took = (from_us(answered[-1].at_us) - from_us(answered[0].at_us)).total_seconds() if answered else 0.0
    return UndoneLine(
        release=release.id, version=release.number, because=release.because, seconds=took, requests=len(answered),
        failed=sum(record.status >= 500 for record in answered),
    )  # fmt: skip


def _records(ws: OpenWorkspace) -> list[Any]:
    """All that the prediction log holds."""
    records: list[Any] = []
    position: Mapping[str, int] = {}
    while True:
        part, position = ws.log.tail(position, limit=10_000)
        if not part:
            return records
        records += part


def _lived(reader: Reader) -> list[Release]:
    return reader.releases.select({"state": ["live", "superseded"]})


def _state(reader: Reader, trigger: TriggerId) -> str:
    """Where the release that a trigger led to stands; the run's own state while there is none."""
    run = reader.triggers.get(trigger).run
    if run is None:
        return "queued"
    releases = reader.releases.select({"run": run}, limit=1)
    return releases[0].state if releases else reader.runs.get(run).state


def _end_client(client: subprocess.Popen[bytes] | None) -> None:
    if client is not None and client.poll() is None:
        client.terminate()
        client.wait(15)


def _now_page(stage: Stage) -> str:
    said = running(stage.layout)
    return login_address(said.control, stage.layout) if said else ""


def _free_ports(settings: Settings) -> Settings:
    """The usual ports, or free ones where something else listens: the demo must not fail for that."""
    ports = []
    for port in (settings.control_port, settings.gateway_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError:
                probe.bind((settings.host, 0))
                output.progress(f"port {port} is in use; taking {probe.getsockname()[1]}")
            ports.append(probe.getsockname()[1])
    return msgspec.structs.replace(settings, control_port=ports[0], gateway_port=ports[1])


def _empty(folder: Path, layout: Layout) -> None:
    """Begin anew; a folder that is not an earlier demo's is left alone."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "departures.py").is_file():
            raise Unavailable(
                f"{folder} holds something else than an earlier demo", hint="give another --folder"
            )
        if (said := running(layout)) is not None:
            raise Unavailable(f"a demo runs in {folder} already (pid {said.pid})", hint="end it first")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _day(at: datetime | None) -> str:
    return at.strftime("%d %b") if at else "      "
