"""`andon sync`: deliver what runs left in the spool, because their server was away or they were killed."""

from __future__ import annotations

import os
from pathlib import Path

import click

from andon.cli import output
from andon.core.errors import Unavailable
from andon.tracking.native.sender import Synced
from andon.tracking.native.sender import sync as sync_spool
from andon.tracking.native.spool import spool_folder
from andon.tracking.native.targets import address, check_url


@click.command()
@click.option(
    "--from",
    "spool",
    type=click.Path(path_type=Path),
    default=None,
    help="The spool, if it is not the usual one.",
)
@click.option("--to", default="", help="Another server or workspace folder than the runs began with.")
@output.json_option
@output.speaks
def sync(*, spool: Path | None, to: str, as_json: bool) -> None:
    """Deliver what runs of `andon.run` left in the spool. A run whose process is gone without a word ends as killed.

    The spool is the workspace's `spool/`; outside of a workspace it is the user's own. What a running process delivers
    itself is left to it. Ends with 14 when something could not be delivered; it stays, and nothing is delivered twice.

    \b
    andon sync
    andon sync --to http://127.0.0.1:5000
    """
    here = Path.cwd()
    if "://" in to:
        check_url(to)
    elif to:
        to = str(Path(to).absolute())
    root = spool or spool_folder(os.environ, here)
    done = sync_spool(
        root.absolute(), os.environ, here, to=to, default=address(os.environ, here), progress=output.progress
    )
    output.show({"spool": str(root), "runs": done}, _text(root, done), as_json)
    if left := [one for one in done if one.state == "left"]:
        raise Unavailable(
            f"{len(left)} of {len(done)} runs are not delivered: {left[0].why}",
            hint="run 'andon sync' again later",
        )


def _text(root: Path, done: list[Synced]) -> str:
    if not done:
        return f"nothing is left in {root}"
    return "\n".join(_line(one) for one in done)


def _line(one: Synced) -> str:
    words = f"run {one.run} {one.state}: {one.entries} entries"
    words += ", ended as killed" if one.killed else ""
    words += f", {one.refused} refused" if one.refused else ""
    words += f", {one.lost} lost" if one.lost else ""
    return words + (f" ({one.why})" if one.why else "")
