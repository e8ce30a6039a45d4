"""Write docs/reference/capabilities.md: what Andon is to do, and the tests that show which of it is real.

Run by `make docs`; `--check` changes nothing and fails when the page is stale. Tests are read, not imported.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "docs/reference/capabilities.toml"
PAGE = ROOT / "docs/reference/capabilities.md"
HEAD = """\
# Capabilities

What Andon is to do, and how far it is. Written by `make docs` from [capabilities.toml](capabilities.toml) and from the
tests that carry `@pytest.mark.capability("<id>")`: a row with tests is real as far as they go, a row without reads
"not yet".

Priorities: **must** is the product, **should** makes it good, **frontier** is where the field is going.
"""


@dataclass(frozen=True)
class Row:
    """One capability: its id, priority, room in src/andon, and what a user can do."""

    id: str
    priority: str
    room: str
    what: str


@dataclass(frozen=True)
class Proof:
    """A test and the ids it carries; `line` is where the marker stands."""

    path: Path
    name: str
    line: int
    ids: tuple[str, ...]


def rows(path: Path = LIST) -> dict[str, list[Row]]:
    """Part title ("A. Data ...") to its rows."""
    parts = tomllib.loads(path.read_text())
    return {
        f"{letter}. {part['title']}": [Row(key, *rest) for key, rest in part.items() if key != "title"]
        for letter, part in parts.items()
    }


def proofs(root: Path = ROOT) -> list[Proof]:
    """Every marked test of the repository, shipped conformance suites included, in the order of path and line."""
    paths = [
        *sorted((root / "src/andon/testing").rglob("*.py")),
        *sorted((root / "tests").rglob("test_*.py")),
    ]
    return [proof for path in paths for proof in proofs_in(path, path.read_text())]


def proofs_in(path: Path, source: str) -> list[Proof]:
    """The marked tests of one module. A marked class stands for its tests, `pytestmark` for all of the module.

    >>> proofs_in(Path("t.py"), "@pytest.mark.capability('A5', 'A6')\\ndef test_x(): ...")[0].ids
    ('A5', 'A6')
    """
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found += [Proof(path, node.name, line, ids) for line, ids in markers(*node.decorator_list)]
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            getattr(name, "id", "") == "pytestmark" for name in node.targets
        ):
            found += [Proof(path, path.stem, line, ids) for line, ids in markers(node.value)]
    return sorted(found, key=lambda proof: proof.line)


def markers(*expressions: ast.expr) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and ids of each `pytest.mark.capability(...)` in the expressions.

    Raises:
        SystemExit: an id is not written as a plain string, so it cannot be read without running it.
    """
    for expression in expressions:
        for node in ast.walk(expression):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.capability"):
                if not node.args or not all(
                    isinstance(arg, ast.Constant) and isinstance(arg.value, str) for arg in node.args
                ):
                    raise SystemExit(f"line {node.lineno}: write the ids of a capability as plain strings")
                yield node.lineno, tuple(str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))


def unknown(parts: dict[str, list[Row]], found: list[Proof]) -> list[str]:
    """Markers that name an id which is not in the list."""
    known = {row.id for part in parts.values() for row in part}
    return [
        f"{proof.path}:{proof.line}: {key} is not in capabilities.toml"
        for proof in found
        for key in proof.ids
        if key not in known
    ]


def page(parts: dict[str, list[Row]], found: list[Proof], root: Path = ROOT) -> str:
    """The whole page."""
    by_id: dict[str, list[Proof]] = {}
    for proof in found:
        for key in proof.ids:
            by_id.setdefault(key, []).append(proof)
    every = [row for part in parts.values() for row in part]
    counts = " · ".join(
        f"{priority} {sum(row.id in by_id for row in every if row.priority == priority)} of "
        f"{sum(row.priority == priority for row in every)}"
        for priority in ("must", "should", "frontier")
    )
    text = f"{HEAD}\nRows with a test: {counts}.\n"
    for title, part in parts.items():
        text += f"\n## {title}\n\n| id | a user can | priority | room | tests |\n| --- | --- | --- | --- | --- |\n"
        for row in part:
            links = [
                f"[{p.name}](../../{p.path.relative_to(root).as_posix()})" for p in by_id.get(row.id, [])
            ]
            shown = ", ".join(dict.fromkeys(links)) or "not yet"
            text += f"| {row.id} | {row.what} | {row.priority} | {row.room} | {shown} |\n"
    return text


def main(arguments: list[str]) -> None:
    parts, found = rows(), proofs()
    if wrong := unknown(parts, found):
        raise SystemExit("\n".join(wrong))
    text = page(parts, found)
    stale = not PAGE.exists() or PAGE.read_text() != text
    if "--check" in arguments:
        if stale:
            raise SystemExit("docs/reference/capabilities.md is stale: run `make docs` and commit it")
        return
    PAGE.write_text(text)
    print(f"{PAGE.relative_to(ROOT)}: {'rewritten' if stale else 'unchanged'}")


if __name__ == "__main__":
    main(sys.argv[1:])
