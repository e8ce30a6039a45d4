"""`andon`: the command line. Parses, calls one verb of the workspace, prints. A command's module is loaded when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

_HELP = """The assembly line for machine-learning models.

\b
Start here:
  andon demo                  the whole loop on real flights, in about a minute
  andon init churn            a new project from a template
  cd churn && andon up        run it: train, serve, watch
\b
Every command takes --json and --help. Exit codes: 0 done, 1 failed, 2 wrong input, 4 not found,
5 there already, 6 source not there, 7 contract broken, 8 in conflict, 9 not allowed, 10 corrupt,
11 disk full, 12 database too new, 13 port in use, 14 does not answer just now, 15 extra missing.
"""

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("andon.cli.demo:demo", "Play the whole loop on real flights."),
    "init": ("andon.cli.project:init", "Start a project from a template."),
    "up": ("andon.cli.project:up", "Start everything of this workspace."),
    "run": ("andon.cli.project:run", "Run this folder's line once, from data to verdict."),
    "sync": ("andon.cli.sync:sync", "Deliver what runs of `andon.run` left in the spool."),
    "status": ("andon.cli.answers:status", "What is live, what runs, what is wrong."),
    "why": ("andon.cli.answers:why", "Which data, code, model and person made a prediction."),
    "impact": ("andon.cli.answers:impact", "Everything that a thing was needed for."),
    "undo": ("andon.cli.safety:undo", "Send an endpoint's traffic back."),
    "release": ("andon.cli.safety:release", "Let a held endpoint move forward again."),
    "approve": ("andon.cli.safety:approve", "Approve a release that waits."),
    "doctor": ("andon.cli.safety:doctor", "Check the installation and the workspace."),
    "backup": ("andon.cli.safety:backup", "Write a consistent backup."),
    "restore": ("andon.cli.safety:restore", "Bring a backup back into an empty workspace."),
}
_SERVE: Mapping[str, tuple[str, str]] = {
    "control": ("andon.cli.serve:control", "API, pages and the MLflow wire, without gateway and worker.")
}
_IMPORT: Mapping[str, tuple[str, str]] = {
    "mlflow": ("andon.cli.moving:import_", "Take over an MLflow store: SQLite, Postgres or a folder mlruns.")
}
_EXPORT: Mapping[str, tuple[str, str]] = {
    "mlflow": ("andon.cli.moving:export", "Write an MLflow store with all runs and models.")
}
_DELETE: Mapping[str, tuple[str, str]] = {
    "run": ("andon.cli.retention:run", "Delete a run."),
    "experiment": ("andon.cli.retention:experiment", "Delete an experiment with its runs."),
    "model": ("andon.cli.retention:model", "Delete a registered model that was never judged or released."),
    "version": ("andon.cli.retention:version", "Delete a version of a model."),
}
_RETENTION: Mapping[str, tuple[str, str]] = {
    "apply": (
        "andon.cli.retention:apply_",
        "Remove for good what was deleted long enough ago, and bytes that nothing needs.",
    )
}
_AUDIT: Mapping[str, tuple[str, str]] = {
    "verify": ("andon.cli.answers:verify", "Check every event of the ledger.")
}


class Lazy(click.Group):
    """A group whose commands are imported when they are called; its help needs none of them."""

    def __init__(self, commands: Mapping[str, tuple[str, str]], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._lazy = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the group's help."""
        rows = [(name, text) for name, (_, text) in self._lazy.items()]
        rows += [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
main = Lazy(_COMMANDS, name="andon", help=_HELP, context_settings=_CONTEXT)
main.add_command(Lazy(_AUDIT, name="audit", help="Check the ledger.", context_settings=_CONTEXT))
main.add_command(
    Lazy(_SERVE, name="serve", help="Start one process of a workspace by itself.", context_settings=_CONTEXT)
)
main.add_command(
    Lazy(_IMPORT, name="import", help="Take over what another system kept.", context_settings=_CONTEXT)
)
main.add_command(Lazy(_EXPORT, name="export", help="Take everything elsewhere.", context_settings=_CONTEXT))
main.add_command(
    Lazy(
        _DELETE,
        name="delete",
        help="Delete what is not needed, for good if asked.",
        context_settings=_CONTEXT,
    )
)
main.add_command(
    Lazy(
        _RETENTION,
        name="retention",
        help="Free what was deleted: names, rows and bytes.",
        context_settings=_CONTEXT,
    )
)
click.version_option(package_name="andon")(main)
