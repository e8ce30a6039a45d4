"""What made a model is kept by content: code, commit and environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from andon.core.canonical import canonical
from andon.core.errors import Invalid, TooLarge
from andon.pipelines.code import (
    capture_environment,
    code_files,
    git_commit,
    materialise_code,
    snapshot_code,
)
from andon.store.blobs import LocalBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def project(folder: Path) -> Path:
    (folder / "pkg").mkdir(parents=True)
    (folder / "line.py").write_text("x = 1\n")
    (folder / "pkg" / "part.py").write_text("y = 2\n")
    (folder / "andon.toml").write_text("[line]\n")
    for hidden in (".git", ".andon", ".venv", "__pycache__"):
        (folder / hidden).mkdir()
        (folder / hidden / "secret.py").write_text("no\n")
    (folder / "data.csv").write_text("a\n1\n")
    (folder / "big.json").write_bytes(b"0" * (2**20 + 1))
    return folder


@pytest.mark.capability("B1")
def test_a_snapshot_holds_the_code_and_nothing_else(tmp_path: Path, blobs: LocalBlobs) -> None:
    digest = snapshot_code(project(tmp_path / "p"), blobs)

    assert sorted(code_files(blobs, digest)) == ["andon.toml", "line.py", "pkg/part.py"]


def test_the_same_code_is_the_same_snapshot_and_any_edit_another(tmp_path: Path, blobs: LocalBlobs) -> None:
    first, second = project(tmp_path / "a"), project(tmp_path / "b")

    before = snapshot_code(first, blobs)

    assert snapshot_code(second, blobs) == before
    (second / "pkg" / "part.py").write_text("y = 3\n")
    assert snapshot_code(second, blobs) != before


def test_a_snapshot_comes_back_as_it_was(tmp_path: Path, blobs: LocalBlobs) -> None:
    digest = snapshot_code(project(tmp_path / "p"), blobs)

    back = materialise_code(blobs, digest, tmp_path / "back")

    assert snapshot_code(back, blobs) == digest


@pytest.mark.parametrize("name", ["../out.py", "/etc/out.py", "a/../../out.py", ""])
def test_a_snapshot_that_names_a_path_outside_is_refused(
    tmp_path: Path, blobs: LocalBlobs, name: str
) -> None:
    evil = blobs.put(canonical({"format": "andon.code/1", "files": {name: blobs.put(b"x")}}))

    with pytest.raises(Invalid, match="outside"):
        materialise_code(blobs, evil, tmp_path / "back")

    assert not list(tmp_path.rglob("out.py"))


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path, blobs: LocalBlobs) -> None:
    for number in range(2_001):
        (tmp_path / f"m{number}.py").touch()

    with pytest.raises(TooLarge):
        snapshot_code(tmp_path, blobs)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=ana", "-c", "user.email=ana@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_recorded_and_whether_the_folder_differs_from_it(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "line.py").write_text("x = 1\n")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")

    clean = git_commit(folder)
    (folder / "line.py").write_text("x = 2\n")
    dirty = git_commit(folder)

    assert clean.commit is not None
    assert len(clean.commit) == 40
    assert (clean.dirty, dirty.dirty, dirty.commit) == (False, True, clean.commit)


def test_the_environment_names_interpreter_and_packages(blobs: LocalBlobs) -> None:
    first, second = capture_environment(blobs), capture_environment(blobs)

    said = msgspec.json.decode(blobs.get(first))
    assert first == second
    assert said["packages"]["polars"]
    assert said["python"].startswith("3.")
