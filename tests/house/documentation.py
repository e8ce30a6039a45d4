"""Read a page of docs into its blocks of code, and run the ones that say they can be run.

Every fenced block of Python or shell has a comment right above its fence:

    <!-- run -->                      run in the page's own empty folder, in the order of the page, `cd` carries over
    <!-- run: exit 1 -->              the same, and it ends with exit code 1
    <!-- not run: the reason -->      it is not, and the page says why

A `python` block is a program of its own. A `bash` block stops at its first failing command. A `console` block holds
commands after `$ ` and, below each, what it prints (`...` stands for any text); a command without lines below it
may print what it likes. Blocks of toml and json must parse; other languages are pictures or output.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"<!-- (?P<run>run|not run)(?:: (?P<words>[^\n]+?))? -->\s*\Z")
EXIT = re.compile(r"exit (\d+)")
RUNNABLE = {"python", "py", "bash", "sh", "shell", "console"}
TIMEOUT_S = 120


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its code, the line it starts at, and what its comment says."""

    language: str
    code: str
    line: int
    run: bool
    reason: str
    exit_code: int = 0


class Unmarked(ValueError):
    """A block of code that says neither that it is run nor why it is not."""


def blocks(text: str) -> Iterator[Block]:
    """The page's fenced blocks.

    Raises:
        Unmarked: a runnable block has no comment, or one that gives no reason.
    """
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        language, code = (
            match["language"],
            re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE),
        )
        mark = MARK.search(text, 0, match.start())
        if language not in RUNNABLE:
            yield Block(language, code, line, run=False, reason="no program")
            continue
        if mark is None:
            raise Unmarked(
                f"line {line}: put <!-- run --> or <!-- not run: why --> above this {language} block"
            )
        words = (mark["words"] or "").strip()
        expected = EXIT.fullmatch(words)
        if mark["run"] == "run" and words and not expected:
            raise Unmarked(f"line {line}: after 'run:' only 'exit N' is understood, not {words!r}")
        if mark["run"] == "not run" and len(words) < 10:
            raise Unmarked(f"line {line}: say why this {language} block is not run")
        yield Block(language, code, line, mark["run"] == "run", words, int(expected[1]) if expected else 0)


def check(block: Block, folder: Path) -> None:
    """Run the block in the folder, or parse it.

    Raises:
        AssertionError: it ended or printed otherwise than the page says.
    """
    match block.language:
        case "toml":
            tomllib.loads(block.code)
        case "json":
            json.loads(block.code)
        case "python" | "py" if block.run:
            execute([sys.executable, "-W", "error", "-c", block.code], folder, block)
        case "console" if block.run:
            for command, expected in commands(block.code):
                printed = execute(shell(command, folder), folder, block)
                compare(printed, expected, command, block)
        case "bash" | "sh" | "shell" if block.run:
            execute(shell(block.code, folder), folder, block)


def compare(printed: str, expected: str, command: str, block: Block) -> None:
    """Hold what a command printed against the page."""
    same = not expected or says(printed, expected)
    assert same, f"line {block.line}: '{command}' printed\n{printed}\nand the page says\n{expected}"


def says(printed: str, expected: str) -> bool:
    """Whether that is what was expected, in which `...` stands for any text."""
    return doctest.OutputChecker().check_output(
        expected, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )


def commands(code: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the lines it should print."""
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        more = 1
        while lines[more - 1].rstrip().endswith("\\"):
            more += 1
        yield "".join(lines[:more]).strip(), "".join(lines[more:])


def shell(code: str, folder: Path) -> list[str]:
    """A shell command that remembers in which folder it ends, for the next block."""
    return ["bash", "-euo", "pipefail", "-c", f"trap 'pwd > {shlex.quote(str(_note(folder)))}' EXIT\n{code}"]


def current(folder: Path) -> Path:
    """Where the next block of a page that is run in this folder begins."""
    return Path(_note(folder).read_text().strip()) if _note(folder).exists() else folder


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.cwd")


def environment(folder: Path) -> dict[str, str]:
    """What a block sees: this Python's programs first on PATH, and the page's folder as its home."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
    }


def execute(command: list[str], folder: Path, block: Block) -> str:
    """Run a command where the page has got to; what it leaves running is ended."""
    with subprocess.Popen(
        command,
        cwd=current(folder),
        env=environment(folder),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            end_group(process.pid)
    assert process.returncode == block.exit_code, (
        f"line {block.line}: exit code {process.returncode}\n{printed}"
    )
    return printed


def end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
