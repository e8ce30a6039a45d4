"""`andon`: the command line. Parses, calls one verb of the workspace, prints."""

from __future__ import annotations

import click

from andon.cli import answers, project, safety

_HELP = """The assembly line for machine-learning models.

\b
Start here:
  andon demo                  the whole loop on real flights, in about a minute
  andon init churn            a new project from a template
  cd churn && andon up        run it: train, serve, watch
\b
Every command takes --json and --help. Exit codes: 0 done, 1 failed, 2 wrong input, 4 not found,
8 in conflict, 10 corrupt, 13 port in use.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="andon")
def main() -> None:
    """The group; its help is above."""


@main.group()
def audit() -> None:
    """Check the ledger."""


for command in (project.demo, project.init, project.up, project.run):
    main.add_command(command)
for command in (answers.status, answers.why, answers.impact):
    main.add_command(command)
for command in (safety.undo, safety.release, safety.approve, safety.doctor, safety.backup, safety.restore):
    main.add_command(command)
audit.add_command(answers.verify)
