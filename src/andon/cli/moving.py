"""Commands that move between Andon and MLflow: `import mlflow`, `export mlflow`."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import click

from andon.cli import output
from andon.cli.open import here_or_new, open_here
from andon.core.errors import AndonError
from andon.core.workspace import settings_from
from andon.pipelines.exporting import export_store
from andon.pipelines.workspace import OpenWorkspace
from andon.tracking.moving import open_foreign
from andon.tracking.moving.comparing import Compared
from andon.tracking.moving.importing import ImportReport, import_mlflow

_BAR = 30


class NotAll(AndonError, RuntimeError):
    """An import or export ended, and something of the source is not there."""

    code = "NOT_ALL"


@click.command("mlflow")
@click.argument("source")
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="A folder in which the old server kept artifacts, or to which they were moved. May be given more than once.",
)
@click.option("--no-artifacts", is_flag=True, help="Take over no files.")
@click.option("--dry-run", is_flag=True, help="Only look whether it can be done, and count.")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the workspace, made when it is not there.  [default: the one above this folder, or a new one here]",
)
@output.json_option
@output.speaks
def import_(
    source: str,
    *,
    artifacts: tuple[Path, ...],
    no_artifacts: bool,
    dry_run: bool,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Take over the MLflow store SOURCE: experiments, runs, models and artifacts, with their ids.

    SOURCE is sqlite:///mlflow.db, postgresql://user@host/name or the folder mlruns. An import that was interrupted goes on
    when it is run again.

    \b
    andon import mlflow sqlite:///mlflow.db --artifacts ./mlartifacts
    andon import mlflow ./mlruns --workspace ./fresh && andon serve control --workspace ./fresh
    """
    with (
        closing(open_foreign(source)) as store,
        OpenWorkspace(here_or_new(workspace), settings_from(os.environ)) as ws,
    ):
        report = import_mlflow(
            ws.store, ws.blobs, store, actor=ws.actor().id, clock=ws.clock, artifacts=artifacts,
            with_artifacts=not no_artifacts, dry_run=dry_run, progress=_Bar().show,
        )  # fmt: skip
    output.show(report, _text(report, dry_run=dry_run), as_json)
    if not dry_run and not report.same:
        raise NotAll(f"not all of {report.source} is here", hint="compare the counts; run it again to go on")


@click.command("mlflow")
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--artifact-root",
    default=None,
    help="Where MLflow will find the files; TARGET/artifacts itself by default, 'mlflow-artifacts:/' behind a server of it.",
)
@output.json_option
@output.speaks
def export(target: Path, *, artifact_root: str | None, as_json: bool) -> None:
    """Write all experiments, runs, models and artifacts into the folder TARGET, as a store that MLflow 3.0 and newer opens.

    TARGET gets mlflow.db and artifacts/. What MLflow has no place for, such as seals, verdicts and releases, stays here.

    \b
    andon export mlflow ../leaving
    mlflow ui --backend-store-uri sqlite:///../leaving/mlflow.db
    """
    with open_here() as ws:
        report = export_store(ws.store, ws.blobs, target, artifact_root=artifact_root, progress=_Bar().show)
    said = (
        "experiments",
        "runs",
        "metrics",
        "params",
        "tags",
        "logged_models",
        "registered_models",
        "model_versions",
    )
    lines = [f"exported to {report.tracking_uri}"]
    lines += [f"  {table.replace('_', ' ')}: {report.rows.get(table, 0):,}" for table in said]
    lines.append(f"  {report.files:,} files, {report.bytes_written:,} bytes")
    output.show(report, "\n".join(lines), as_json)


def _text(report: ImportReport, *, dry_run: bool) -> str:
    lines = [f"{'would import' if dry_run else 'imported'} {report.source}", *map(_line, report.compared)]
    if not dry_run:
        lines.append(f"  {report.artifacts:,} files copied, {report.artifact_bytes:,} bytes")
    if report.elsewhere:
        lines.append(f"  {report.elsewhere:,} addresses stay where they are, such as in S3")
    lines += [f"  left out: {text}" for text in report.left_out]
    if report.left_out_count > len(report.left_out):
        lines.append(f"  and {report.left_out_count - len(report.left_out):,} more left out")
    return "\n".join(lines)


def _line(one: Compared) -> str:
    noun = one.noun.replace("_", " ")
    if one.here is None:
        return f"  {noun}: {one.source:,}"
    same = "all here" if one.here >= one.source else f"only {one.here:,} of them here"
    return f"  {noun}: {one.source:,}, {same}"


class _Bar:
    """A bar on a terminal; elsewhere a line for each kind of work."""

    def __init__(self) -> None:
        self._what = ""
        self._share = -1.0

    def show(self, what: str, done: int, total: int) -> None:
        """Draw what has changed enough to be seen."""
        share = min(1.0, done / total) if total else 1.0
        if not sys.stderr.isatty():
            if share >= 1.0 and what != self._what:
                self._what = what
                output.progress(f"{what}: {total:,}")
            return
        if what == self._what and share - self._share < 0.005 and share < 1.0:
            return
        ended = share >= 1.0 and not (what == self._what and self._share >= 1.0)
        self._what, self._share = what, share
        filled = round(share * _BAR)
        click.echo(
            f"\r  {'#' * filled}{'.' * (_BAR - filled)} {what} {done:,} of {total:,}\x1b[K",
            nl=ended,
            err=True,
        )
