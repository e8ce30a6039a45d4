"""Write docs/reference/cli.md from the commands themselves: what each does, takes and shows as its help.

Run by `make docs`; `--check` changes nothing and fails when the page is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from andon.cli.main import main as andon

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/cli.md"
HEAD = """\
# Commands

Written by `make docs` from the commands' own help. Which workspace a command means and what the environment changes is in
[Settings](settings.md). The answer goes to standard output, progress and errors to standard error. With `--json` the answer is
one JSON object; when there is none, the object is the error, with `error_code`, `message` and `hint`. Exit codes other than 0
are those of [Errors](errors.md); wrong usage of a command is 2.

| command | does |
|---|---|
"""


def commands(group: click.Group, path: str = "andon") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by the words that call it, in the order of the help."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None, name
            if isinstance(command, click.Group):
                yield from commands(command, f"{path} {name}")
            else:
                yield f"{path} {name}", command


def page() -> str:
    """The whole page."""
    found = list(commands(andon))
    text = HEAD
    for words, command in found:
        anchor = words.replace(" ", "-")
        text += f"| [`{words}`](#{anchor}) | {command.get_short_help_str(200)} |\n"
    for words, command in found:
        text += f"\n## {words}\n\n```text\n{usage(words, command)}\n```\n"
    return text


def usage(words: str, command: click.Command) -> str:
    """What `--help` prints, in a fixed width."""
    settings = {"help_option_names": ["-h", "--help"]}
    context = click.Context(command, info_name=words, max_content_width=100, terminal_width=100, **settings)  # type: ignore[arg-type]
    return re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.MULTILINE).strip()


def main(arguments: list[str]) -> None:
    text = page()
    stale = not PAGE.exists() or PAGE.read_text() != text
    if "--check" in arguments:
        if stale:
            raise SystemExit("docs/reference/cli.md is stale: run `make docs` and commit it")
        return
    PAGE.write_text(text)
    print(f"{PAGE.relative_to(ROOT)}: {'rewritten' if stale else 'unchanged'}")


if __name__ == "__main__":
    main(sys.argv[1:])
