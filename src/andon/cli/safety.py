"""Commands that keep things safe: `undo`, `release`, `approve`, `doctor`, `backup`, `restore`."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import click
import msgspec

from andon.cli import output
from andon.cli.doctor import examine
from andon.cli.open import here, open_here
from andon.cli.supervisor import running
from andon.core.errors import AndonError, Conflict, NotFound
from andon.core.workspace import FOLDER, Layout, settings_from
from andon.pipelines.gateways import undo_at_gateways
from andon.pipelines.workspace import OpenWorkspace
from andon.store.backup import backup as make_backup
from andon.store.backup import restore as restore_backup


class Unwell(AndonError, RuntimeError):
    """`andon doctor` found something that must be put right."""

    code = "UNWELL"


@click.command()
@click.argument("endpoint")
@click.option("--reason", default="", help="Goes on record.")
@click.option("--at-gateways", is_flag=True, help="Ask the gateways themselves, without database or control.")
@output.json_option
@output.speaks
def undo(endpoint: str, *, reason: str, at_gateways: bool, as_json: bool) -> None:
    """Send all traffic of ENDPOINT back to the release before, and hold it there. Needs no second person.

    When the database does not answer, the gateways are asked themselves; the ledger takes it over later.

    \b
    andon undo churn --reason "complaints from support"
    """
    if not at_gateways:
        try:
            with open_here() as ws:
                done = ws.undo(endpoint, ws.actor().id, reason=reason)
        except (NotFound, Conflict):
            raise
        except (AndonError, OSError) as error:
            output.progress(f"the database does not answer ({error}); asking the gateways")
        else:
            text = f"undone on {endpoint}: {done.release} -> {done.back_to}, generation {done.generation}, {done.seconds:.2f} s"
            if done.unreached:
                text += "\nnot confirmed by: " + ", ".join(done.unreached)
            output.show(done, text, as_json)
            return
    answer, reached, unreached = undo_at_gateways(
        here(), endpoint, actor=f"os:{os.getuid()} {getpass.getuser()}", reason=reason
    )
    said = {"endpoint": endpoint, "by": "gateways", "gateways": reached, "unreached": unreached, **answer}
    text = f"undone on {endpoint} at {', '.join(reached)}, generation {answer.get('generation')}"
    output.show(said, text + ("\nnot reached: " + ", ".join(unreached) if unreached else ""), as_json)


@click.command()
@click.argument("endpoint")
@output.json_option
@output.speaks
def release(endpoint: str, *, as_json: bool) -> None:
    """Let an ENDPOINT that an undo holds move forward again."""
    with open_here() as ws:
        row = ws.resume(endpoint, ws.actor().id)
    output.show(row, f"{endpoint} may move forward again (generation {row.generation})", as_json)


@click.command()
@click.argument("release_id")
@output.json_option
@output.speaks
def approve(release_id: str, *, as_json: bool) -> None:
    """Approve a release that waits. An author's own word does not count."""
    with open_here() as ws:
        row = ws.approve(release_id, ws.actor().id)
    output.show(row, f"release {row.id} of {row.model} v{row.number}: {row.state}", as_json)


@click.command()
@output.json_option
@output.speaks
def doctor(*, as_json: bool) -> None:
    """Check this installation and workspace; every finding says what to do."""
    findings = examine(Path.cwd(), os.environ)
    marks = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
    text = "\n".join(
        f"{marks[one.verdict]}  {one.what}" + (f": {one.advice}" if one.advice else "") for one in findings
    )
    output.show({"ok": all(one.verdict != "fail" for one in findings), "findings": findings}, text, as_json)
    if any(one.verdict == "fail" for one in findings):
        raise Unwell("something must be put right", hint="see the lines marked FAIL")


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@output.json_option
@output.speaks
def backup(target: Path, *, as_json: bool) -> None:
    """Write a consistent backup of this workspace into the folder TARGET; works while everything runs.

    \b
    andon backup ../churn-backup
    """
    with open_here() as ws:
        report = make_backup(
            ws.layout, ws.store, target, actor=ws.actor().id, clock=ws.clock, progress=output.progress
        )
    output.show(report, f"backed up to {target}: event {report.seq}, {report.blobs} blobs", as_json)


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=None,
    help="Project folder; the current one by default.",
)
@output.json_option
@output.speaks
def restore(source: Path, *, into: Path | None, as_json: bool) -> None:
    """Bring the backup in the folder SOURCE back into an empty workspace. A new epoch begins: old routes and leases lose."""
    layout = Layout(((into or Path.cwd()) / FOLDER).absolute())
    if (said := running(layout)) is not None:
        raise Conflict(
            f"the workspace {layout.root} runs (pid {said.pid})", hint="stop it before you restore into it"
        )
    settings = settings_from(os.environ)
    report = restore_backup(source, layout, settings, progress=output.progress)
    with OpenWorkspace(layout, settings) as ws:
        epoch = ws.status().epoch
    output.show(
        msgspec.to_builtins(report) | {"epoch": epoch}, f"restored into {layout.root}: epoch {epoch}", as_json
    )
