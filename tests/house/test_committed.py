"""What is committed names no package registry, no path of the machine it was written on, and nothing unfinished."""

from __future__ import annotations

import getpass
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Written so that this file does not match itself.
REGISTRY = re.compile(
    r"py[p]i\.(?:org|python)|python[h]osted\.|/sim[p]le/|(?:extra-|default-)?inde[x]-url\s*[=h]"
)
HOME = re.compile(r"(?<![\w.$}])/(?:root|home|Users|tmp|mnt|opt|work|workspace|builds)/[\w.-]+")
UNFINISHED = re.compile(r"NotImplemente[d]Error|\bTOD[O]\b|\bFIXM[E]\b|coming soo[n]")
SKIPPED = re.compile(r"mark\.(?:ski[p]|xfai[l])|pytest\.ski[p]\(|importorski[p]")
ELSEWHERE = re.compile(
    r"DESIG[N](?:\.md| section)|REQUIREMENT[S]\.md|STYL[E]\.md|\bshared/[Dn]|\bnotes/\w+\.m[d]"
)


def committed() -> list[Path]:
    """Tracked text files that are there; in an export without git, every file."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if ".venv" not in str(path)]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:4096]]


def hits(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in paths
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return committed()


def test_nothing_names_a_package_registry(files: list[Path]) -> None:
    assert hits(REGISTRY, files) == []


def test_nothing_names_a_path_of_a_machine(files: list[Path]) -> None:
    own = [path for path in files if path.name != "LICENSE"]

    assert hits(HOME, own) == []


def test_nothing_names_this_checkout_or_this_user(files: list[Path]) -> None:
    here = re.compile(
        "|".join(re.escape(str(path)) + r"(?![\w-])" for path in {ROOT, Path.home()} if len(path.parts) > 1)
    )
    mail = re.compile(rf"\b{re.escape(getpass.getuser())}@")

    assert hits(here, files) + hits(mail, files) == []


def test_nothing_refers_to_papers_that_are_not_in_the_repository(files: list[Path]) -> None:
    assert hits(ELSEWHERE, files) == []


def test_nothing_shipped_is_unfinished(files: list[Path]) -> None:
    assert hits(UNFINISHED, [path for path in files if path.is_relative_to(ROOT / "src")]) == []


def test_no_test_can_be_skipped(files: list[Path]) -> None:
    assert hits(SKIPPED, [path for path in files if path.is_relative_to(ROOT / "tests")]) == []


def test_there_is_no_lock_that_holds_addresses(files: list[Path]) -> None:
    assert [path.name for path in files if path.name in {"uv.lock", "poetry.lock", "Pipfile.lock"}] == []


@pytest.mark.parametrize(
    ("pattern", "bad"),
    [
        (REGISTRY, "--extra-inde" + "x-url https://example.org"),
        (REGISTRY, "https://files.python" + "hosted.org/packages/x.whl"),
        (HOME, "open('/ho" + "me/ann/x.csv')"),
        (ELSEWHERE, "see DES" + "IGN section 8"),
        (UNFINISHED, "raise NotImplemented" + "Error"),
        (SKIPPED, "@pytest.mark.sk" + "ip(reason='later')"),
    ],
)
def test_the_patterns_bite(pattern: re.Pattern[str], bad: str) -> None:
    assert pattern.search(bad)
