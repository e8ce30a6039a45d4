"""Commands that delete: `delete run`, `delete experiment`, `delete model`, `delete version`, `retention apply`."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from andon.cli import output
from andon.cli.open import open_here
from andon.core.errors import Invalid, NotFound
from andon.pipelines.retention import Kind, Removed, apply, delete, delete_for_good
from andon.pipelines.workspace import OpenWorkspace

_DURATION = re.compile(r"(\d{1,6})([smhd])\Z")
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def duration(text: str) -> timedelta:
    """A length of time such as `30d`, `12h`, `5m` or `0s`.

    Raises:
        Invalid: it is not one.

    >>> duration("30d").days
    30
    """
    found = _DURATION.match(text)
    if found is None:
        raise Invalid(
            f"{text[:80]!r} is not a length of time", hint="it is a number with s, m, h or d, such as 30d"
        )
    return int(found[1]) * _UNITS[found[2]]


_for_good = click.option(
    "--for-good",
    is_flag=True,
    help="Remove its rows and the bytes that nothing else needs; it cannot be restored.",
)
_grace = click.option(
    "--grace",
    default="1d",
    show_default=True,
    help="Contents stored later than this stay for now: they may be on their way. A number with s, m, h or d.",
)


def _delete(kind: Kind, ident: str, *, for_good: bool, grace: str, as_json: bool) -> None:
    with open_here() as ws:
        if kind == "experiment":
            _check_experiment(ws, ident)
        if not for_good:
            delete(ws.store, kind, ident, actor=ws.actor().id, clock=ws.clock)
            back = "gone" if kind == "model" else "hidden until it is removed for good"
            output.show({kind: ident, "for_good": False}, f"deleted {kind} {ident}: it is {back}", as_json)
            return
        removed = delete_for_good(
            ws.layout, ws.store, ws.blobs, kind, ident, actor=ws.actor().id, clock=ws.clock, grace=duration(grace),
            progress=output.progress,
        )  # fmt: skip
    output.show(removed, f"deleted {kind} {ident} for good\n{_text(removed)}", as_json)


def _check_experiment(ws: OpenWorkspace, ident: str) -> None:
    """Who gives a name is told the id, since a name may be another experiment's tomorrow."""
    named = ws.store.read(lambda reader: reader.experiments.select({"name": ident}, limit=1))
    if named and not ident.isdigit():
        raise NotFound(
            f"no experiment has the id {ident[:100]!r}", hint=f"the one of that name has the id {named[0].id}"
        )


@click.command("run")
@click.argument("run_id")
@_for_good
@_grace
@output.json_option
@output.speaks
def run(run_id: str, *, for_good: bool, grace: str, as_json: bool) -> None:
    """Delete a run; with --for-good, its metrics, params, tags and files too.

    \b
    andon delete run 0199a1b2c3d4 --for-good
    """
    _delete("run", run_id, for_good=for_good, grace=grace, as_json=as_json)


@click.command("experiment")
@click.argument("experiment_id")
@_for_good
@_grace
@output.json_option
@output.speaks
def experiment(experiment_id: str, *, for_good: bool, grace: str, as_json: bool) -> None:
    """Delete an experiment with its runs; with --for-good its name is free again.

    \b
    andon delete experiment 7 --for-good
    """
    _delete("experiment", experiment_id, for_good=for_good, grace=grace, as_json=as_json)


@click.command("model")
@click.argument("name")
@_for_good
@_grace
@output.json_option
@output.speaks
def model(name: str, *, for_good: bool, grace: str, as_json: bool) -> None:
    """Delete a registered model with its versions and aliases, if none of them was judged or released.

    \b
    andon delete model churn-trial --for-good
    """
    _delete("model", name, for_good=for_good, grace=grace, as_json=as_json)


@click.command("version")
@click.argument("version")
@_for_good
@_grace
@output.json_option
@output.speaks
def version(version: str, *, for_good: bool, grace: str, as_json: bool) -> None:
    """Delete a version of a model. VERSION is MODEL/NUMBER; its number is not given again.

    \b
    andon delete version churn-trial/3 --for-good
    """
    _delete("version", version, for_good=for_good, grace=grace, as_json=as_json)


@click.command("apply")
@click.option(
    "--older-than",
    default="30d",
    show_default=True,
    help="What was deleted longer ago than this goes. A number with s, m, h or d.",
)
@_grace
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@output.json_option
@output.speaks
def apply_(older_than: str, *, grace: str, dry_run: bool, as_json: bool) -> None:
    """Remove for good what was deleted long enough ago, and all stored bytes that nothing needs.

    \b
    andon retention apply --older-than 30d --dry-run
    """
    with open_here() as ws:
        removed = apply(
            ws.layout, ws.store, ws.blobs, actor=ws.actor().id, clock=ws.clock, older_than=duration(older_than),
            grace=duration(grace), dry_run=dry_run, progress=output.progress,
        )  # fmt: skip
    output.show(removed, ("would go:\n" if dry_run else "gone:\n") + _text(removed), as_json)


def _text(removed: Removed) -> str:
    nouns = ("experiments", "runs", "logged_models", "versions", "files")
    counts = [f"{getattr(removed, noun):,} {noun.replace('_', ' ')}" for noun in nouns]
    lines = [f"  {', '.join(counts)}", f"  {removed.bytes_freed:,} bytes in {removed.blobs:,} contents"]
    if removed.young:
        lines.append(f"  {removed.young:,} contents were stored too lately, and stay for now")
    lines += [f"  kept: {text}" for text in removed.kept]
    if removed.kept_count > len(removed.kept):
        lines.append(f"  and {removed.kept_count - len(removed.kept):,} more kept")
    return "\n".join(lines)
