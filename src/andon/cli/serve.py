"""`andon serve ...`: one process of a workspace by itself, in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from andon.cli import output
from andon.cli.open import here_or_new
from andon.web.__main__ import main as answer


@click.command()
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the workspace, made when it is not there.  [default: the one above this folder, or a new one here]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.  [default: ANDON_PORT]",
)
@output.json_option
@output.speaks
def control(*, workspace: Path | None, port: int | None, as_json: bool) -> None:
    """Answer the API, the pages and MLflow clients of a workspace, until Ctrl-C; no gateway and no worker.

    \b
    andon serve control
    andon serve control --workspace /var/lib/andon --port 5000
    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python train.py
    """
    layout = here_or_new(workspace)
    given = ["--workspace", str(layout.root), *([] if port is None else ["--port", str(port)])]

    def tell(url: str, login: str) -> None:
        said = f"control {url}\npages   {login}  (opens a browser session, once, within ten minutes)"
        output.show({"control": url, "login": login}, said, as_json)

    sys.exit(answer(given, tell))
