"""`andon.run`: a training is on record whatever happens, waits for nothing, and is never stopped by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import andon
from andon.core.canonical import digest_bytes
from andon.core.entities import DatasetVersion
from andon.core.errors import Invalid
from andon.core.ids import ActorId
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.tracking.native import client, sender
from andon.tracking.native.client import Warned
from andon.tracking.native.sender import sync
from andon.tracking.native.spool import sessions
from tests.small_disk import small_disk
from tests.tracking.flaky import flaky
from tests.tracking.trained import trained, trained_in
from tests.web.conftest import Control, serving
from tests.web.world import opened

QUIET = {"capture": False, "console": "off", "system_s": 0}
DEADLINE_S = 30.0


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a workspace, which is the current one."""
    root = Layout(tmp_path / "project/.andon").create().root
    monkeypatch.chdir(root.parent)
    for name in (
        "ANDON_URL",
        "ANDON_TOKEN",
        "ANDON_HOME",
        "ANDON_SPOOL",
        "ANDON_EXPERIMENT",
        "ANDON_CONSOLE",
    ):
        monkeypatch.delenv(name, raising=False)
    return root


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with opened(tmp_path / "server") as world, serving(world) as found:
        yield found


@pytest.fixture
def server(workspace: Path, control: Control, monkeypatch: pytest.MonkeyPatch) -> Control:
    """A server that runs are sent to."""
    monkeypatch.setenv("ANDON_URL", control.address)
    monkeypatch.setenv("ANDON_TOKEN", control.state.token)
    return control


def script(
    folder: Path, text: str, *, python: list[str] | None = None, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a training of its own process in a folder."""
    (folder / "train.py").write_text(text)
    return subprocess.run(
        [*(python or [sys.executable]), "train.py"], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **environ}, timeout=120,
    )  # fmt: skip


# --- a run as a person uses it ---


@pytest.mark.parametrize("name", [5, len, "x" * 251])
def test_what_cannot_be_a_name_is_refused_before_anything_runs(workspace: Path, name: object) -> None:
    with pytest.raises(andon.Invalid):
        andon.run(cast("str", name), **QUIET)


@pytest.mark.capability("C1")
def test_a_run_is_in_the_workspace_with_all_that_was_said(workspace: Path) -> None:
    (workspace.parent / "model.txt").write_text("weights")

    with andon.run("first", experiment="churn", params={"lr": 0.1}, tags={"team": "crm"}, **QUIET) as run:
        run.param("depth", 3)
        run.tag("team", "churn")
        for step in range(2500):
            run.log({"loss": 1.0 / (step + 1)}, step=step)
        run.artifact("model.txt")
        run.artifact("model.txt", "models/final.txt")
        run.input("customers", digest="sha256:1", source="customers.csv")

    found = trained_in(workspace, run.id)
    assert (run.state, run.delivered, run.dropped) == ("finished", True, 0)
    assert (found.run.name, found.run.state) == ("first", "finished")
    assert found.params == {"lr": "0.1", "depth": "3"}
    assert found.tags["team"] == "churn"
    assert found.metrics == {"loss": [(step, 1.0 / (step + 1)) for step in range(2500)]}
    assert found.files == {
        "model.txt": digest_bytes(b"weights"),
        "models/final.txt": digest_bytes(b"weights"),
    }
    assert sessions(workspace / "spool") == []


@pytest.mark.capability("C2")
def test_a_run_is_sent_to_the_server_that_is_named_and_belongs_to_who_is_authenticated(
    server: Control,
) -> None:
    with andon.run("sent", **QUIET) as run:
        run.log({"auc": 0.9})

    found = trained(server.world.ws.store, run.id)
    assert run.delivered
    assert found.metrics == {"auc": [(0, 0.9)]}
    assert found.run.actor == server.world.person.id
    assert found.run.claimed_user == found.tags["mlflow.user"]


def test_a_run_is_sealed_when_it_has_ended(
    workspace: Path, server: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    with andon.run(params={"lr": 0.1}, **QUIET) as sent:
        sent.log({"loss": 0.5})
    monkeypatch.delenv("ANDON_URL")
    with andon.run(params={"lr": 0.1}, **QUIET) as kept:
        kept.log({"loss": 0.5})

    assert trained_in(workspace, kept.id).run.seal is not None
    wait_until(lambda: trained(server.world.ws.store, sent.id).run.seal is not None)


def test_steps_count_on_by_themselves(workspace: Path) -> None:
    with andon.run(**QUIET) as run:
        run.log({"a": 1})
        run.log({"a": 2})
        run.log({"a": 3}, step=10)
        run.log({"a": 4})

    assert trained_in(workspace, run.id).metrics == {"a": [(0, 1.0), (1, 2.0), (10, 3.0), (11, 4.0)]}


def test_a_run_without_a_name_gets_one(workspace: Path) -> None:
    with andon.run(**QUIET) as run:
        pass

    assert trained_in(workspace, run.id).run.name


@pytest.mark.capability("C3")
def test_datasets_of_andon_and_of_others_are_inputs_by_their_digests(workspace: Path) -> None:
    digest = digest_bytes(b"rows")
    own = DatasetVersion(
        id=digest, dataset="customers", number=3, manifest=digest, state="valid", rows=1, columns=1, size_bytes=1,
        stored_bytes=1, source="https://ann:pw@host/customers.csv?token=x", contract=None, report=None,
        actor=ActorId("act"), created_at=datetime(2026, 3, 4, tzinfo=UTC),
    )  # fmt: skip
    with andon.run(**QUIET) as run:
        run.input(own)
        run.input(SimpleNamespace(name="iris", digest="1a2b"), context="validation")
        run.input("by name", source="a.csv")
        run.input("by name", source="b.csv")

    store = open_store(Layout(workspace), Settings())
    rows = store.read(lambda reader: reader.run_inputs.select({"run": run.id}, order=("name",)))
    store.close()
    assert [(row.name, row.context) for row in rows] == [
        ("by name", "training"), ("by name", "training"), ("customers", "training"), ("iris", "validation"),
    ]  # fmt: skip
    assert rows[0].digest != rows[1].digest
    assert (rows[2].digest, rows[2].source) == (digest, "https://host/customers.csv")
    assert rows[3].digest == "1a2b"


def test_a_folder_is_kept_with_all_that_is_in_it(workspace: Path) -> None:
    folder = workspace.parent / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "MLmodel").write_text("a")
    (folder / "deep/weights").write_text("b")

    with andon.run(**QUIET) as run:
        run.artifact(folder)

    assert sorted(trained_in(workspace, run.id).files) == ["model/MLmodel", "model/deep/weights"]


def test_a_file_is_kept_as_it_was_when_it_was_logged(workspace: Path) -> None:
    path = workspace.parent / "checkpoint"
    with andon.run(**QUIET) as run:
        for epoch in range(3):
            path.write_text(f"epoch {epoch}")
            run.artifact(path, f"epochs/{epoch}")

    assert trained_in(workspace, run.id).files == {
        f"epochs/{epoch}": digest_bytes(f"epoch {epoch}".encode()) for epoch in range(3)
    }


def test_a_run_is_ended_by_hand_as_often_as_one_likes(workspace: Path) -> None:
    run = andon.run(**QUIET)
    run.finish("failed")
    run.finish("finished")

    assert trained_in(workspace, run.id).run.state == "failed"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("nan in the loss"), "failed"),
        (KeyboardInterrupt(), "killed"),
        (SystemExit(0), "finished"),
        (SystemExit(3), "failed"),
    ],
)
def test_a_run_ends_as_its_block_does(workspace: Path, error: BaseException, state: str) -> None:
    with pytest.raises(type(error)), andon.run(**QUIET) as run:
        raise error

    assert trained_in(workspace, run.id).run.state == state


def test_runs_inside_a_run_are_its_children(workspace: Path) -> None:
    with andon.run("search", **QUIET) as outer:
        with andon.run("trial 1", **QUIET) as first:
            first.log({"auc": 0.7})
        with andon.run("trial 2", **QUIET) as second:
            second.log({"auc": 0.8})
    with andon.run("after", **QUIET) as after:
        pass
    with andon.run("by hand", parent=outer.id, **QUIET) as by_hand:
        pass

    parents = [
        trained_in(workspace, run.id).tags.get("mlflow.parentRunId")
        for run in (outer, first, second, after, by_hand)
    ]
    assert parents == [None, outer.id, outer.id, None, outer.id]


def test_a_run_goes_on_where_another_process_left_it(workspace: Path) -> None:
    with andon.run("long", params={"lr": 1}, **QUIET) as first:
        first.log({"loss": 1.0}, step=0)

    with andon.run(resume=first.id, **QUIET) as second:
        second.log({"loss": 0.5}, step=1)

    found = trained_in(workspace, first.id)
    assert second.id == first.id
    assert (found.run.state, found.run.name, found.params) == ("finished", "long", {"lr": "1"})
    assert found.metrics == {"loss": [(0, 1.0), (1, 0.5)]}


def test_threads_have_runs_of_their_own_and_share_one(workspace: Path) -> None:
    done: dict[int, str] = {}
    with andon.run("shared", **QUIET) as shared:

        def train(number: int) -> None:
            with andon.run(f"thread {number}", **QUIET) as own:
                for step in range(100):
                    own.log({"x": number * 1000 + step}, step=step)
                    shared.log({f"x{number}": step}, step=step)
            done[number] = own.id

        threads = [threading.Thread(target=train, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for number, ident in done.items():
        assert trained_in(workspace, ident).metrics == {
            "x": [(step, number * 1000 + step) for step in range(100)]
        }
    assert trained_in(workspace, shared.id).metrics == {
        f"x{number}": [(step, float(step)) for step in range(100)] for number in range(6)
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"resume": "x"},
        {"experiment": "x" * 501},
        {"name": "half a \ud800"},
        {"name": "nul \0"},
        {"console": "loud"},
        {"url": "ftp://host"},
        {"url": "http://user:pw@host"},
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_runs(
    workspace: Path, arguments: dict[str, str]
) -> None:
    with pytest.raises(Invalid):
        andon.run(**arguments)  # type: ignore[arg-type]

    assert not (workspace / "spool").exists()


# --- nothing comes between a training and its next step ---


@contextmanager
def warned() -> Iterator[list[str]]:
    """What is said of runs meanwhile, from whatever thread."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(one.message) for one in caught if issubclass(one.category, Warned)]


def test_nonsense_is_counted_and_said_once_and_stops_nothing(workspace: Path) -> None:
    with warned() as said, andon.run(**QUIET) as run:
        run.log({"loss": "high", "acc": 0.5}, step=0)  # type: ignore[dict-item]
        run.log({"loss": None}, step=1)  # type: ignore[dict-item]
        run.log(None)  # type: ignore[arg-type]
        run.log({"loss": 1.0}, step="two")  # type: ignore[arg-type]
        run.log({"loss": 1.0}, step=2**80)
        run.artifact("no/such/file")
        run.input(object())
        run.tag("fine", "yes")

    found = trained_in(workspace, run.id)
    assert run.dropped == 7
    assert found.metrics == {"acc": [(0, 0.5)]}
    assert (found.tags["fine"], found.tags["andon.dropped"]) == ("yes", "7")
    assert len(said) == 8  # seven kinds of nonsense, and how many there were


def test_a_parameter_that_changes_is_refused_and_said(workspace: Path) -> None:
    with warned() as said, andon.run(**QUIET) as run:
        run.param("lr", 0.1)
        run.param("lr", 0.2)

    assert trained_in(workspace, run.id).params == {"lr": "0.1"}
    assert any("Changing param values is not allowed" in text for text in said)


def test_warnings_that_are_made_errors_stop_nothing_either(workspace: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with andon.run(**QUIET) as run:
            run.artifact("no/such/file")
            run.log({"a": 1})

    assert trained_in(workspace, run.id).metrics == {"a": [(0, 1.0)]}


def test_without_workspace_and_server_a_run_waits_in_the_users_own_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    with warned() as said, andon.run(**QUIET) as run:
        run.log({"a": 1})

    target = Layout(tmp_path / "later/.andon").create().root
    (done,) = sync(tmp_path / "state/andon/spool", {}, tmp_path, default=str(target))
    assert not run.delivered
    assert any("set ANDON_URL" in text for text in said)
    assert done.state == "delivered"
    assert trained_in(target, run.id).metrics == {"a": [(0, 1.0)]}


def test_a_spool_that_cannot_be_written_stops_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace.parent / "file").write_text("in the way")
    monkeypatch.setenv("ANDON_SPOOL", str(workspace.parent / "file/spool"))

    with warned() as said, andon.run(params={"a": 1}) as run:
        for _ in range(100):
            run.log({"a": 1})

    assert run.dropped >= 100
    assert any("set ANDON_SPOOL" in text for text in said)


def test_a_server_that_is_away_when_it_begins_gets_all_of_it_when_it_comes(
    server: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TICK_S", 0.02)
    with flaky(server.address) as way:
        way.faults = iter(lambda: "none" if len(way.asked) >= 6 else "cut", "never")
        monkeypatch.setenv("ANDON_URL", way.address)

        with warned() as said, andon.run(**QUIET) as run:
            began = time.monotonic()
            for step in range(500):
                run.log({"loss": float(step)}, step=step)
            trained_s = time.monotonic() - began
            wait_until(lambda: len(way.asked) >= 8)

    assert trained_s < 1.0
    assert len([text for text in said if "is kept in" in text]) == 1
    assert trained(server.world.ws.store, run.id).metrics == {
        "loss": [(step, float(step)) for step in range(500)]
    }


def test_the_end_of_a_run_does_not_wait_for_a_server_that_is_away(
    server: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDON_URL", "http://127.0.0.1:9")
    run = andon.run(**QUIET)
    sent = run._sender
    assert sent is not None
    wait_until(lambda: bool(sent.failing))

    began = time.monotonic()
    with warned() as said:
        run.finish()

    assert time.monotonic() - began < 3.0
    assert any("run 'andon sync' later" in text for text in said)
    (done,) = sync(run.spool.parent, dict(os.environ), Path.cwd(), to=server.address)
    assert done.state == "delivered"
    assert trained(server.world.ws.store, run.id).run.state == "finished"


def test_the_end_of_a_run_waits_for_a_slow_server_as_long_as_is_set(
    server: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDON_FLUSH_S", "0.2")
    with flaky(server.address) as way:
        way.faults = iter(["stall"])
        monkeypatch.setenv("ANDON_URL", way.address)
        began = time.monotonic()
        with warned(), andon.run(**QUIET) as run:
            run.log({"a": 1})
        took_s = time.monotonic() - began

    assert not run.delivered
    assert 0.2 <= took_s < 3.0


def test_a_clock_that_jumps_disturbs_nothing(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns
    with andon.run(**QUIET) as run:
        run.log({"loss": 3.0}, step=0)
        monkeypatch.setattr(time, "time_ns", lambda: real() - 10**18)
        run.log({"loss": 2.0}, step=1)
        monkeypatch.setattr(time, "time_ns", lambda: real() + 10**18)
        run.log({"loss": 1.0}, step=2)
        monkeypatch.setattr(time, "time_ns", lambda: real() - 10**18)

    found = trained_in(workspace, run.id)
    assert found.metrics == {"loss": [(0, 3.0), (1, 2.0), (2, 1.0)]}
    assert found.run.finished_at == found.run.started_at


def wait_until(what: object) -> None:
    """Until it is true, with a deadline."""
    assert callable(what)
    deadline = time.monotonic() + DEADLINE_S
    tick = threading.Event()
    while not what():
        assert time.monotonic() < deadline, "it did not come true"
        tick.wait(0.01)


# --- processes ---

KILLED = """
import sys
import andon
run = andon.run("killed", capture=False, system_s=0)
print("RUN", run.id, flush=True)
step = 0
while True:
    run.log({"loss": 1.0 / (step + 1)}, step=step)
    sys.stderr.write(f"{step}\\n")
    sys.stderr.flush()
    step += 1
"""


@pytest.mark.parametrize("steps", [1, 40, 3000])
def test_a_training_that_is_killed_loses_nothing_it_had_logged(workspace: Path, steps: int) -> None:
    (workspace.parent / "train.py").write_text(KILLED)
    victim = subprocess.Popen(
        [sys.executable, "train.py"],
        cwd=workspace.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    assert victim.stderr is not None
    ident = victim.stdout.readline().split()[1]
    for line in victim.stderr:
        if line.strip().isdigit() and int(line) >= steps:
            break
    victim.send_signal(signal.SIGKILL)
    said = [int(line) for line in victim.stderr.read().split("\n")[:-1] if line.strip().isdigit()]
    victim.wait()
    victim.stdout.close()
    victim.stderr.close()

    (done,) = sync(workspace / "spool", {}, workspace.parent)

    found = trained_in(workspace, ident)
    points = found.metrics["loss"]
    assert (done.state, done.killed) == ("delivered", True)
    assert points == [(step, 1.0 / (step + 1)) for step in range(len(points))]
    assert len(points) > max([steps, *said])
    assert found.run.state == "killed"
    assert "andon/console.txt" in found.files
    assert sync(workspace / "spool", {}, workspace.parent) == []


ENDINGS = {
    "finished": "import andon\nrun = andon.run()\nrun.log({'a': 1})\nprint(run.id)\n",
    "failed": "import andon\nrun = andon.run()\nrun.log({'a': 1})\nprint(run.id)\n1 / 0\n",
    "killed": "import andon\nrun = andon.run()\nrun.log({'a': 1})\nprint(run.id)\nraise KeyboardInterrupt\n",
}


@pytest.mark.parametrize("state", ENDINGS)
def test_a_run_that_is_left_open_ends_as_its_program_does(workspace: Path, state: str) -> None:
    done = script(workspace.parent, ENDINGS[state])

    found = trained_in(workspace, done.stdout.strip())
    assert found.run.state == state, done.stderr
    assert found.metrics["a"] == [(0, 1.0)]
    assert sessions(workspace / "spool") == []


FORKED = """
import json, os, sys, warnings
import andon
warnings.simplefilter("ignore", DeprecationWarning)
with andon.run("parent", capture=False, system_s=0) as run:
    run.log({"parent": 0}, step=0)
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            for step in range(50):
                run.log({f"child{number}": step}, step=step)
            run.finish()
            os._exit(0)
        children.append(child)
    for step in range(1, 50):
        run.log({"parent": step}, step=step)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
print(run.id, run.delivered, file=sys.__stdout__)
"""


def test_a_forked_child_sends_nothing_of_its_parent_and_what_it_logs_arrives(workspace: Path) -> None:
    done = script(workspace.parent, FORKED)

    ident, delivered = done.stdout.split()
    found = trained_in(workspace, ident)
    assert (done.returncode, delivered) == (0, "True"), done.stderr
    assert found.metrics == {
        name: [(step, float(step)) for step in range(50)] for name in ("child0", "child1", "child2", "parent")
    }
    assert sessions(workspace / "spool") == []


POOLED = """
import multiprocessing, sys
import andon

run = None

def work(number):
    if run is not None:
        run.log({"from the pool": number}, step=number)
    return number

if __name__ == "__main__":
    run = andon.run("pool", capture=False, system_s=0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert sorted(pool.map(work, range(20))) == list(range(20))
        pool.close()
        pool.join()
    run.finish()
    print(run.id)
"""


def test_a_pool_of_forked_workers_logs_into_the_run(workspace: Path) -> None:
    done = script(workspace.parent, POOLED, PYTHONWARNINGS="ignore")

    found = trained_in(workspace, done.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert found.metrics == {"from the pool": [(step, float(step)) for step in range(20)]}


FULL = """
import sys
import andon
with andon.run("full", capture=False, system_s=0, console="off") as run:
    for step in range(20000):
        run.log({f"metric {number} with a long name": 0.5 for number in range(20)}, step=step)
sys.stdout.write(f"{run.id} {run.dropped}")
"""


def test_a_full_disk_stops_no_training_and_what_was_dropped_is_said(workspace: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", disk_bytes=2**19, file_bytes=2**17) as python:
        done = script(
            workspace.parent,
            FULL,
            python=python,
            ANDON_SPOOL=str(tmp_path / "disk"),
            ANDON_URL="http://127.0.0.1:9",
        )
        assert done.returncode == 0, done.stderr
        ident, dropped = done.stdout.split()
        synced = sync(tmp_path / "disk", {}, tmp_path, to=str(workspace))

    found = trained_in(workspace, ident)
    assert int(dropped) > 0
    assert f"{dropped} entries were dropped" in done.stderr
    assert [one.state for one in synced] == ["delivered"]
    assert (found.run.state, found.tags["andon.dropped"]) == ("finished", dropped)
    assert sum(len(points) for points in found.metrics.values()) == 20 * (20_000 - int(dropped))


def test_a_run_loads_nothing_heavy_before_it_delivers(workspace: Path) -> None:
    heavy = ["sqlalchemy", "numpy", "polars", "ssl", "asyncio", "starlette"]
    probe = f"import sys, json, andon; andon.run; print(json.dumps([name for name in {heavy} if name in sys.modules]))"

    done = script(workspace.parent, probe)

    assert json.loads(done.stdout) == [], done.stderr


def test_the_generator_that_a_training_seeded_is_left_alone(workspace: Path) -> None:
    import random

    random.seed(7)
    plain = [random.random() for _ in range(3)]
    random.seed(7)
    with andon.run(**QUIET) as run:
        run.log({"a": 1})
        tracked = [random.random() for _ in range(3)]

    assert tracked == plain


def test_runs_open_and_close_without_leaving_descriptors_or_threads(workspace: Path) -> None:
    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

    def once() -> None:
        with andon.run(system_s=0) as run:
            run.log({"a": 1})

    others = set(threading.enumerate())
    once()
    wait_until(lambda: len(set(threading.enumerate()) - others) <= 1)
    before = count()
    for _ in range(10):
        once()
    wait_until(lambda: all(now <= then for now, then in zip(count(), before, strict=True)))


def test_what_a_run_says_of_itself(workspace: Path) -> None:
    run = andon.run(experiment="e", **QUIET)
    run.finish()

    assert (len(run.id), run.experiment, repr(run)) == (32, "e", f"<andon run {run.id} finished>")
    assert andon.Run is client.Run
