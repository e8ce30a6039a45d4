"""How commands speak: the answer on standard output, progress and errors on standard error, exit codes that mean something."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click
import msgspec

from andon.core.errors import AndonError

_SHOWN = "andon.shown"
P = ParamSpec("P")
T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def say(text: str) -> None:
    """A line of the answer."""
    click.echo(text)


def progress(text: str) -> None:
    """A line about work that goes on; never part of the answer."""
    click.echo(click.style(f"  {text}", dim=True), err=True)


def show(value: object, text: str, as_json: bool) -> None:
    """The answer of a command, as JSON or as text. A command gives one at most."""
    click.get_current_context().meta[_SHOWN] = True
    say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() if as_json else text)


def speaks(command: Callable[P, T]) -> Callable[P, T]:
    """End a command that meets an AndonError with its message and exit code."""

    @wraps(command)
    def spoken(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except AndonError as error:
            _complain(error, as_json=bool(kwargs.get("as_json")))
            sys.exit(error.exit_code)

    return spoken


def _complain(error: AndonError, *, as_json: bool) -> None:
    """Say what went wrong. Where an answer has been given, standard output has its one JSON object already."""
    if as_json and not click.get_current_context().meta.get(_SHOWN):
        said: dict[str, Any] = {"error_code": error.code, "message": error.message, "hint": error.hint}
        click.echo(msgspec.json.encode(said).decode())
    click.echo(f"andon: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
