"""What surrounds a run: code without secrets, the environment, the machine, and what was printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import andon
from andon.core.canonical import Digest
from andon.core.errors import Invalid
from andon.core.workspace import Layout
from andon.store.blobs import LocalBlobs
from andon.tracking.native import capture, console
from andon.tracking.native.capture import Gauges, capture_code, capture_environment, packages, redact
from andon.tracking.native.console import GAP, Console, console_text
from tests.tracking.trained import Trained, trained_in

# Not a real key: put together here, so that no scanner takes it for one.
KEY = "AKIA" + "ABCDEFGHIJKLMNOP"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with one commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "train.py").write_text("lr = 0.1\n")
    (folder / ".gitignore").write_text("ignored.py\n.andon\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture
def workspace(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in the repository, which is the current folder."""
    root = Layout(project / ".andon").create().root
    monkeypatch.chdir(project)
    for name in ("ANDON_URL", "ANDON_HOME", "ANDON_SPOOL", "ANDON_CONSOLE", "ANDON_SYSTEM_S"):
        monkeypatch.delenv(name, raising=False)
    return root


def text_of(root: Path, found: Trained, name: str) -> str:
    return LocalBlobs(root / "blobs").get(Digest(found.files[name])).decode()


# --- code ---


def test_a_clean_folder_is_its_commit(project: Path) -> None:
    code = capture_code(project)

    assert (code.commit, code.branch, code.dirty, code.diff) == (
        git(project, "rev-parse", "HEAD"),
        "main",
        False,
        b"",
    )


def test_what_differs_can_be_applied_to_the_commit_again(project: Path, tmp_path: Path) -> None:
    (project / "train.py").write_text("lr = 0.2\n")
    (project / "new module.py").write_text("depth = 3\n")
    (project / "ignored.py").write_text("no = 1\n")
    (project / "data.csv").write_text("1,2\n")
    before = git(project, "status", "--porcelain")

    code = capture_code(project)

    again = tmp_path / "again"
    git(tmp_path, "clone", "-q", str(project), str(again))
    (tmp_path / "code.diff").write_bytes(code.diff)
    git(again, "apply", str(tmp_path / "code.diff"))
    assert code.dirty is True
    assert (again / "train.py").read_text() == "lr = 0.2\n"
    assert (again / "new module.py").read_text() == "depth = 3\n"
    assert not (again / "ignored.py").exists()
    assert not (again / "data.csv").exists()
    assert git(project, "status", "--porcelain") == before  # the repository's own index is as it was


@pytest.mark.parametrize(
    "name",
    [".env", ".env.local", "prod.env", "server.key", "cert.pem", "id_rsa", "my_secrets.py", "credentials.json",
     "aws_credentials.py", ".netrc", "deep/er/.ENV", "secrets/db.py", "Password.txt"],
)  # fmt: skip
def test_files_that_look_like_secrets_are_in_no_diff(project: Path, name: str) -> None:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("first\n")
    git(project, "add", "-f", name)
    git(project, "commit", "-q", "-m", "oops")
    path.write_text("hunter2\n")
    (project / "train.py").write_text("lr = 0.3\n")

    code = capture_code(project)

    assert b"hunter2" not in code.diff
    assert b"lr = 0.3" in code.diff
    assert code.dirty is True


def test_untracked_files_that_look_like_secrets_are_in_no_diff(project: Path) -> None:
    (project / "secret_settings.py").write_text("password = 'hunter2'\n")
    (project / "tokenizer.py").write_text("words = 1\n")

    code = capture_code(project)

    assert b"hunter2" not in code.diff
    assert b"words = 1" in code.diff


def test_keys_of_well_known_shapes_are_blackened(project: Path) -> None:
    (project / "train.py").write_text(f"key = '{KEY}'\n")

    code = capture_code(project)

    assert KEY.encode() not in code.diff
    assert b"[redacted]" in code.diff
    assert redact(b"-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\n") == b"[redacted]\n"


def test_a_remote_is_named_without_credentials(project: Path) -> None:
    git(project, "remote", "add", "origin", "https://ann:hunter2@git.example.com/team/churn.git")

    assert capture_code(project).remote == "https://git.example.com/team/churn.git"


def test_a_diff_that_is_too_long_is_cut_and_said_to_be(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "DIFF_BYTES", 1000)
    (project / "train.py").write_text("x = 1\n" * 1000)

    code = capture_code(project)

    assert (len(code.diff), code.cut) == (1000, True)


def test_a_repository_without_a_commit_has_its_files_and_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("lr = 1\n")

    code = capture_code(tmp_path)

    assert (code.commit, code.branch, code.dirty) == (None, "main", True)
    assert b"+lr = 1" in code.diff


def test_a_diff_driver_of_the_repository_is_not_run(project: Path, tmp_path: Path) -> None:
    git(project, "config", "diff.external", f"touch {tmp_path}/ran; true")
    git(project, "config", "core.fsmonitor", f"touch {tmp_path}/ran; true")
    (project / "train.py").write_text("lr = 0.4\n")

    code = capture_code(project)

    assert b"lr = 0.4" in code.diff
    assert not (tmp_path / "ran").exists()


def test_where_there_is_no_git_nothing_is_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    without_repository = capture_code(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert without_repository == capture_code(tmp_path) == capture.Code()


@pytest.mark.capability("C1")
def test_a_run_has_its_commit_its_diff_and_its_environment(workspace: Path, project: Path) -> None:
    (project / "train.py").write_text("lr = 0.5\n")

    with andon.run(system_s=0) as run:
        pass

    found = trained_in(workspace, run.id)
    environment = json.loads(text_of(workspace, found, "andon/environment.json"))
    assert (found.run.git_commit, found.run.git_dirty) == (git(project, "rev-parse", "HEAD"), True)
    assert "+lr = 0.5" in text_of(workspace, found, "andon/code.diff")
    assert found.run.environment == found.files["andon/environment.json"]
    assert environment["packages"]["msgspec"]
    assert found.tags["mlflow.source.git.commit"] == found.run.git_commit
    assert found.tags["andon.git.remote"] == "unrecorded"


def test_without_git_a_run_has_its_script(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ".andon").create()
    text = "import andon\nwith andon.run(system_s=0) as run:\n    pass\nprint(run.id)\n"
    (tmp_path / "train.py").write_text(text)

    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
    )  # fmt: skip

    found = trained_in(layout.root, done.stdout.strip())
    assert text_of(layout.root, found, "andon/train.py") == text
    assert (found.run.git_commit, found.tags["andon.git.commit"]) == (None, "unrecorded")


# --- environment ---


def test_the_environment_names_every_package_by_its_exact_version() -> None:
    from importlib.metadata import distributions

    listed = dict(packages())

    installed = {
        dist.name.lower().replace("_", "-").replace(".", "-"): dist.version for dist in distributions()
    }
    assert listed == {name: listed[name] for name in installed}
    assert {name: version for name, version in listed.items() if version != installed[name]} == {}


def test_the_same_environment_has_the_same_digest() -> None:
    assert capture_environment() == capture_environment()


def test_threads_are_what_the_environment_and_the_loaded_libraries_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)

    said = capture.threads()

    assert (said["OMP_NUM_THREADS"], said["MKL_NUM_THREADS"]) == ("3", "unrecorded")
    assert ("polars.thread_pool_size" in said) == ("polars" in sys.modules)


def test_a_gpu_tool_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(capture, "_TOOL_S", 0.2)

    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    silent = capture.gpus()
    tool.write_text("#!/bin/sh\necho 'NVIDIA X, 141 GiB, 550.1'\n")

    assert (silent, capture.gpus()) == ("unrecorded", ["NVIDIA X, 141 GiB, 550.1"])


def test_gauges_read_levels_at_once_and_rates_from_the_second_reading_on() -> None:
    gauges = Gauges()

    first, second = gauges.read(100.0), gauges.read(110.0)

    assert first["system/process_memory_megabytes"] > 5
    assert 0 < first["system/system_memory_usage_percentage"] < 100
    assert "system/process_cpu_percentage" not in first
    assert second["system/process_cpu_percentage"] >= 0
    assert set(first) < set(second)


def test_system_metrics_come_with_a_run_and_can_be_left_out(workspace: Path) -> None:
    from tests.tracking.test_native import wait_until

    with andon.run(capture=False, console="off", system_s=0.01) as run:
        wait_until(lambda: run._writer.seq > 4)
    with andon.run(capture=False, console="off", system_s=0) as without:
        pass

    from andon.core.workspace import Settings
    from andon.store import open_store

    store = open_store(Layout(workspace), Settings())
    keys = [
        store.read(
            lambda reader, ident=ident: sorted(
                reader.metrics.latest([row := reader.runs.get(ident)])[row.number]
            )
        )  # type: ignore[misc]
        for ident in (run.id, without.id)
    ]
    store.close()
    assert "system/process_cpu_percentage" in keys[0]
    assert keys[1] == []


# --- what was printed ---


def test_what_is_printed_is_kept_with_its_colours(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (sys.stdout, sys.stderr)
    with andon.run(capture=False, system_s=0) as run:
        print("\x1b[32mepoch 1\x1b[0m")  # noqa: T201
        print("careful", file=sys.stderr)  # noqa: T201
    print("after")  # noqa: T201

    found = trained_in(workspace, run.id)
    assert text_of(workspace, found, "andon/console.txt") == "\x1b[32mepoch 1\x1b[0m\ncareful\n"
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "\x1b[32mepoch 1\x1b[0m\nafter\n"


def test_a_run_inside_a_run_hears_its_own_time_and_the_outer_one_all(workspace: Path) -> None:
    with andon.run("outer", capture=False, system_s=0) as outer:
        print("one")  # noqa: T201
        inner = andon.run("inner", capture=False, system_s=0)
        print("two")  # noqa: T201
        outer.finish()
        print("three")  # noqa: T201
        inner.finish()

    texts = [text_of(workspace, trained_in(workspace, run.id), "andon/console.txt") for run in (outer, inner)]
    assert texts == ["one\ntwo\n", "two\nthree\n"]


def test_somebody_elses_stream_is_not_taken_away(tmp_path: Path) -> None:
    import contextlib
    import io

    mine, ear = io.StringIO(), Console(tmp_path / "console")
    with contextlib.redirect_stdout(mine):
        print("to me")  # noqa: T201
        ear.close()
        print("to me again")  # noqa: T201

    assert mine.getvalue() == "to me\nto me again\n"
    assert not isinstance(sys.stdout, console._Tee) or not console._TEES._ears


def test_only_the_beginning_and_the_end_of_much_output_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PART_BYTES", 1000)
    ear = Console(tmp_path / "console")
    for number in range(1000):
        ear.hear(f"line {number}\n".encode())
    kept = sum(path.stat().st_size for path in tmp_path.iterdir())
    ear.close()

    text = console_text(tmp_path / "console")
    assert text.startswith(b"line 0\nline 1\n")
    assert text.endswith(b"line 998\nline 999\n")
    assert GAP in text
    assert kept < 3100


def test_many_threads_print_and_no_line_is_torn(tmp_path: Path) -> None:
    ear = Console(tmp_path / "console")
    threads = [
        threading.Thread(target=lambda n=n: [ear.hear(f"{n} {k}\n".encode()) for k in range(200)])
        for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ear.close()

    lines = console_text(tmp_path / "console").decode().split("\n")[:-1]
    assert sorted(lines) == sorted(f"{n} {k}" for n in range(5) for k in range(200))


FD = """
import os, subprocess, sys
import andon
with andon.run(capture=False, system_s=0, console="fd") as run:
    print("python", flush=True)
    os.write(1, b"library\\n")
    subprocess.run([sys.executable, "-c", "print('program')"])
    os.write(2, b"trouble\\n")
os.write(1, b"after\\n")
print(run.id)
"""


def test_what_libraries_and_programs_print_is_kept_on_request(workspace: Path, project: Path) -> None:
    (project / "job.py").write_text(FD)

    done = subprocess.run([sys.executable, "job.py"], cwd=project, capture_output=True, text=True, check=True)

    *printed, ident = done.stdout.split()
    text = text_of(workspace, trained_in(workspace, ident), "andon/console.txt")
    assert printed == ["python", "library", "program", "after"]
    assert done.stderr == "trouble\n"
    assert sorted(text.split()) == ["library", "program", "python", "trouble"]


NOISY = """
import ctypes, os, andon
with andon.run(capture=False, system_s=0, console="fd") as run:
    puts = ctypes.PyDLL(None).puts  # holds Python's lock while it prints
    for number in range(20000):
        puts(b"x" * 50)
    ctypes.PyDLL(None).fflush(None)
"""


def test_a_library_that_prints_much_while_it_holds_pythons_lock_does_not_hang(
    project: Path, workspace: Path
) -> None:
    (project / "job.py").write_text(NOISY)

    done = subprocess.run(
        [sys.executable, "job.py"], cwd=project, capture_output=True, check=True, timeout=60
    )

    assert done.stdout.count(b"\n") == 20_000


def test_a_level_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="'python' or 'fd'"):
        Console(tmp_path / "console", "loud")  # type: ignore[arg-type]
