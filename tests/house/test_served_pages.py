"""Pages that need a running workspace are played as a reader with two terminals would, on free ports.

Blocks are run in the order of the page; those that say SERVED are run too. A console block with `$ andon up` starts everything
and leaves it running until the page ends; the page goes on when what stands below it has come.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.house.documentation import Block, blocks, check, commands, compare, current, environment, says

DOCS = Path(__file__).parents[2] / "docs"
SERVED = "needs a running workspace; played by tests/house/test_served_pages.py"
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if any(block.reason == SERVED for block in blocks(path.read_text()))
]
DEADLINE_S = 90.0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_with_a_running_workspace_does_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {"5000": free_port(), "8080": free_port()}
    monkeypatch.setenv("ANDON_PORT", ports["5000"])
    monkeypatch.setenv("ANDON_GATEWAY_PORT", ports["8080"])

    with ExitStack() as running:
        for block in (with_ports(block, ports) for block in blocks(page.read_text())):
            if block.reason != SERVED:
                check(block, tmp_path)
            elif (asked := first_command(block)) is not None and asked[0].endswith("andon up"):
                running.enter_context(started(*asked, block, tmp_path))
            else:
                check(dataclasses.replace(block, run=True), tmp_path)


def test_the_pages_that_need_it_are_found() -> None:
    assert DOCS / "tutorial/first-line.md" in PAGES


def first_command(block: Block) -> tuple[str, str] | None:
    return next(commands(block.code), None) if block.language == "console" else None


def with_ports(block: Block, ports: dict[str, str]) -> Block:
    """The block with free ports in place of the usual ones."""
    code = re.sub(r"(localhost|127\.0\.0\.1):(5000|8080)", lambda at: f"{at[1]}:{ports[at[2]]}", block.code)
    return dataclasses.replace(block, code=code)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextmanager
def started(command: str, expected: str, block: Block, folder: Path) -> Iterator[None]:
    """Everything that a command starts, from when it has said what the page says; ended in order with the page."""
    said = folder / "up.txt"
    with said.open("w") as output:
        up = subprocess.Popen(
            ["bash", "-c", f"exec env {command}"], cwd=current(folder), env=environment(folder),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not says(said.read_text(), expected) and up.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        compare(said.read_text(), expected, command, block)
        yield
    finally:
        up.terminate()
        assert up.wait(30) == 0, said.read_text()
