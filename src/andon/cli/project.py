"""Commands that start things: `init`, `up`, `run`."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from andon.cli import output
from andon.cli.open import here
from andon.cli.scaffold import copy_template
from andon.cli.supervisor import Supervisor, running
from andon.core.canonical import Digest
from andon.core.entities import Run
from andon.core.errors import AlreadyExists, AndonError, Conflict, ContractBroken
from andon.core.ids import check_name
from andon.core.policy import FILE, Policy, read_policy
from andon.core.states import ended
from andon.core.workspace import FOLDER, Layout, settings_from
from andon.governance.access import ensure_token
from andon.pipelines import gateways
from andon.pipelines.reconciler import Reconciler
from andon.pipelines.registration import register_line, run_folder
from andon.pipelines.workspace import FAULTS, OpenWorkspace
from andon.registry.packaging import read_manifest
from andon.registry.releases import live_release
from andon.store.ports import Reader
from andon.web.login import login_address

_POLL_S = 0.1


class RunFailed(AndonError, RuntimeError):
    """The run that was waited for did not end with a model."""

    code = "RUN_FAILED"


@click.command()
@click.argument("name")
@output.json_option
@output.speaks
def init(name: str, *, as_json: bool) -> None:
    """Start a project in a new folder NAME from the churn template.

    \b
    andon init churn && cd churn && andon up
    """
    target = Path(check_name("project", name))
    if target.exists() and any(target.iterdir()):
        raise AlreadyExists(
            f"{target} is there already and not empty", hint="choose another name, or an empty folder"
        )
    copy_template("churn", target)
    policy = target / FILE
    policy.write_text(
        policy.read_text()
        .replace('name = "churn"', f'name = "{name}"')
        .replace('endpoint = "churn"', f'endpoint = "{name}"')
    )
    made = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    Layout((target / FOLDER).absolute()).create()
    text = f"made {target}: " + ", ".join(made) + f"\nnext: cd {target} && andon up"
    output.show({"folder": str(target), "files": made}, text, as_json)


@click.command()
@click.option("--exit-when-live", is_flag=True, help="End when the line's model answers (for checks).")
@output.json_option
@output.speaks
def up(*, exit_when_live: bool, as_json: bool) -> None:
    """Start everything of this workspace: control (5000), gateways (8080) and the worker; stay until Ctrl-C.

    The line of this folder's andon.toml is registered, run if it never was, and served.
    """
    layout = _project_layout()
    with OpenWorkspace(layout, settings_from(os.environ)) as ws:
        line = register_line(ws, layout.project, ws.actor().id) if (layout.project / FILE).is_file() else None
        supervisor = Supervisor(layout, ws.settings)
        ensure_token(layout.token)  # control makes it too, but perhaps later than we ask it for a login code
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        thread = threading.Thread(target=supervisor.run, args=(stop,))
        thread.start()
        try:
            output.progress(
                f"control {supervisor.control}   gateway {supervisor.gateway}   logs {layout.logs}"
            )
            if line is not None:
                _announce(ws, line.id, supervisor, stop, as_json=as_json)
            while not exit_when_live and thread.is_alive() and not stop.wait(_POLL_S):
                pass
        finally:
            stop.set()
            thread.join()


@click.command()
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice(FAULTS),
    help="A named defect, to rehearse a refusal or an undo.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for the run's end.")
@output.json_option
@output.speaks
def run(*, faults: tuple[str, ...], no_wait: bool, as_json: bool) -> None:
    """Run this folder's line once: new data to verdict. Works with `andon up` running, or by itself.

    \b
    andon run
    andon run --json
    """
    layout = _project_layout()
    with OpenWorkspace(layout, settings_from(os.environ)) as ws:
        actor = ws.actor().id
        if not no_wait:
            _check_time(ws, read_policy(layout.project))
        trigger = run_folder(ws, layout.project, actor, faults=faults)
        if no_wait:
            output.show(trigger, f"asked for a run: {trigger.id}", as_json)
            return
        done = _wait_for_run(ws, trigger.id, alone=running(layout) is None)
        report = _run_report(ws, done)
        output.show(report, _run_text(report), as_json)
        if done.state == "blocked":
            raise ContractBroken(f"run {done.id} is blocked: {done.error}")
        if done.state != "finished":
            raise RunFailed(f"run {done.id} {done.state}: {done.error}")


def _project_layout() -> Layout:
    """The workspace of the project folder; made when the folder has an andon.toml and no workspace yet."""
    if "ANDON_HOME" not in os.environ and (Path.cwd() / FILE).is_file():
        read_policy(Path.cwd())
        return Layout((Path.cwd() / FOLDER).absolute()).create()
    return here()


def _announce(
    ws: OpenWorkspace, line: str, supervisor: Supervisor, stop: threading.Event, *, as_json: bool
) -> None:
    """Wait until the line's endpoint answers, then say how to call it."""
    endpoint = read_policy(ws.layout.project).release.endpoint
    told: set[str] = set()
    while not stop.is_set():
        live = ws.store.read(lambda reader: live_release(reader, endpoint))
        runs = ws.store.read(
            lambda reader: reader.runs.select({"line": line}, order=("-created_at",), limit=1)
        )
        for one in runs:
            if (
                said := f"run {one.id[:13]}: {one.state}" + (f": {one.error}" if one.error else "")
            ) not in told:
                told.add(said)
                output.progress(said)
        if live and any(endpoint in gateway.routes for gateway in gateways.states(ws.layout)):
            example = example_record(ws, live.version_digest)
            curl = f"curl -s {supervisor.gateway}/predict/{endpoint} -d '{msgspec.json.encode(example).decode()}'"
            page = login_address(supervisor.control, ws.layout)
            text = (
                f"{live.model} v{live.number} is live on {endpoint!r}. Call it:\n\n{curl}\n\nNow page: {page}"
            )
            said_json = {
                "endpoint": endpoint,
                "model": live.model,
                "version": live.number,
                "curl": curl,
                "page": page,
            }
            output.show(said_json, text, as_json)
            return
        if not live and runs and runs[0].state in ("failed", "blocked", "killed"):
            output.progress(
                f"nothing is live yet; fix it and run 'andon run'. Now page: {login_address(supervisor.control, ws.layout)}"
            )
            return
        stop.wait(_POLL_S)


def example_record(ws: OpenWorkspace, digest: Digest) -> dict[str, Any]:
    """A real row that a model package carries, as a request."""
    manifest = read_manifest(ws.blobs.get(digest))
    golden: dict[str, Any] = msgspec.json.decode(ws.blobs.get(manifest.files["golden.json"]))
    return dict(golden["rows"][0])


def _wait_for_run(ws: OpenWorkspace, trigger: str, *, alone: bool) -> Run:
    """Wait for a trigger's run to end; with nothing else running, drive the loop here."""
    reconciler = Reconciler(ws) if alone else None
    told = ""
    try:
        while (done := ws.store.read(lambda reader: _run_of(reader, trigger))) is None or not ended(
            "run", done.state
        ):
            if done is None:
                ws.store.read(lambda reader: _check_free(reader, trigger))
            elif done.state != told:
                told = done.state
                output.progress(f"run {done.id[:13]}: {told}")
            if reconciler is None or not reconciler.step():
                time.sleep(_POLL_S)
        while reconciler is not None and reconciler.step():
            pass  # the run's release goes as far as it can without traffic
        return done
    finally:
        if reconciler is not None:
            reconciler.close()


def _check_time(ws: OpenWorkspace, policy: Policy) -> None:
    """A line that replays the past does nothing before it is told how far the past goes."""
    line = ws.store.read(lambda reader: reader.lines.find(policy.name))
    if policy.clock == "data" and (line is None or line.watermark is None):
        raise Conflict(
            f"line {policy.name!r} has the clock 'data' and was not told a time yet: a run would wait for it",
            hint=f"start 'andon up' and POST its time to /api/lines/{policy.name}/watermark",
        )


def _check_free(reader: Reader, trigger: str) -> None:
    """A run waits while an earlier release is on its way; who asked for it should not wait without a word."""
    line = reader.triggers.get(trigger).line
    moving = reader.releases.select({"line": line, "state": ["waiting", "rolling"]}, limit=1)
    if moving:
        raise Conflict(
            f"{moving[0].model} v{moving[0].number} is on its way to {moving[0].endpoint!r}; the run is queued until then",
            hint=f"a canary needs traffic to be judged; to give it up run: andon undo {moving[0].endpoint}",
        )


def _run_of(reader: Reader, trigger: str) -> Run | None:
    run = reader.triggers.get(trigger).run
    return None if run is None else reader.runs.get(run)


def _run_report(ws: OpenWorkspace, run: Run) -> dict[str, Any]:
    def work(reader: Reader) -> dict[str, Any]:
        releases = reader.releases.select({"run": run.id}, limit=1)
        verdicts = (
            reader.verdicts.select({"model_version": run.model_version}, limit=1) if run.model_version else []
        )
        return {
            "run": run,
            "metrics": {key: point.value for key, point in reader.metrics.latest([run])[run.number].items()},
            "verdict": verdicts[0] if verdicts else None, "release": releases[0] if releases else None,
        }  # fmt: skip

    return ws.store.read(work)


def _run_text(report: dict[str, Any]) -> str:
    run = report["run"]
    lines = [f"run {run.id} {run.state}"]
    lines += [f"  {key} = {value:.4f}" for key, value in sorted(report["metrics"].items())]
    if verdict := report["verdict"]:
        lines.append(f"  verdict: {'passed' if verdict.passed else 'refused'}: {verdict.summary}")
    if release := report["release"]:
        lines.append(
            f"  release {release.id}: {release.state}" + (f": {release.because}" if release.because else "")
        )
    return "\n".join(lines)
