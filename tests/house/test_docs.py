"""Every block of code in README and docs is run, or says why not; links between pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.documentation import Block, Unmarked, blocks, check

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\((?!\w+:)(?P<path>[^)#\s]+)?(?:#(?P<anchor>[^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors a reader of rendered Markdown can jump to."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        for title in HEADING.findall(page.read_text())
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text()):
        check(block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    broken = []
    for match in LINK.finditer(CODE.sub("", page.read_text())):
        target = (page.parent / match["path"]).resolve() if match["path"] else page
        if not target.exists() or (
            match["anchor"] and target.suffix == ".md" and match["anchor"] not in anchors(target)
        ):
            broken.append(match[0])

    assert broken == []


@pytest.mark.parametrize(
    "text",
    [
        "```bash\nls\n```\n",
        "<!-- not run: no -->\n```python\n1\n```\n",
        "<!-- run: now -->\n```sh\nls\n```\n",
    ],
)
def test_a_block_that_does_not_say_whether_it_is_run_is_refused(text: str) -> None:
    with pytest.raises(Unmarked, match="line"):
        list(blocks(text))


@pytest.mark.parametrize(
    "block",
    [
        Block("python", "raise SystemExit(3)\n", 1, run=True, reason=""),
        Block("bash", "false\ntrue\n", 1, run=True, reason=""),
        Block("bash", "true\n", 1, run=True, reason="exit 1", exit_code=1),
        Block("console", "$ echo one\ntwo\n", 1, run=True, reason=""),
    ],
    ids=lambda block: f"{block.language}: {block.code.strip()}",
)
def test_a_page_that_promises_something_else_fails(block: Block, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="line 1"):
        check(block, tmp_path)


def test_the_blocks_of_a_page_share_a_folder_in_their_order(tmp_path: Path) -> None:
    page = "<!-- run -->\n```bash\necho 41 > n\n```\n<!-- run -->\n```console\n$ cat n\n4...\n$ ls\n```\n"

    for block in blocks(page):
        check(block, tmp_path)

    assert (tmp_path / "n").read_text() == "41\n"


def test_the_next_block_begins_where_the_last_one_went(tmp_path: Path) -> None:
    page = "<!-- run -->\n```bash\nmkdir in\ncd in\n```\n<!-- run -->\n```console\n$ touch here\n$ cd ..\n$ ls in\nhere\n```\n"

    for block in blocks(page):
        check(block, tmp_path)

    assert (tmp_path / "in/here").exists()
