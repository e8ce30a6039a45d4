"""What is deleted for good is really gone: rows, names and bytes; and nothing that anybody needs goes with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from msgspec.structs import replace

from andon.core.canonical import Digest, digest_bytes
from andon.core.entities import Entity, Experiment, ModelVersion, Point, Run
from andon.core.errors import Conflict, Corrupt, Invalid, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ModelVersionId, RunId, new_id, node
from andon.core.tree import Leaf, Tree
from andon.core.workspace import Layout, Settings
from andon.governance.audit import verify
from andon.pipelines.references import NEEDS, NO_BLOBS, needed
from andon.pipelines.retention import Kind, Removed, apply, delete, delete_for_good
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.models import create_model
from andon.store.backup import backup
from andon.store.blobs import storage_key
from andon.store.clearing import clearing, keeping
from andon.testing.rows import world
from andon.testing.worlds import seed_world
from andon.tracking.artifacts import put_artifact, run_root
from andon.tracking.experiments import create_experiment, delete_experiment
from andon.tracking.runs import create_run, delete_run, log_points, restore_run, set_params, update_run

BIG = 3_000_000
AT_ONCE = timedelta(0)
LONG_AGO_S = 3 * 24 * 3600


class Desk:
    """A workspace with things to delete."""

    def __init__(self, ws: OpenWorkspace) -> None:
        self.ws, self.layout, self.store, self.blobs, self.clock = ws, ws.layout, ws.store, ws.blobs, ws.clock
        self.actor = ws.actor().id

    def experiment(self, name: str) -> Experiment:
        return self.store.write(lambda tx: create_experiment(tx, name, self.actor, self.clock.now()))

    def run(self, experiment: str, **files: bytes) -> Run:
        """An ended run with a metric, a param and files."""
        at = self.clock.now()
        stored = {name: self.blobs.put(data) for name, data in files.items()}

        def work(tx: Any) -> Run:
            run, _ = create_run(tx, experiment, actor=self.actor, at=at, name="r", tags={"a": "b"})
            set_params(tx, run, {"p": "1"})
            log_points(tx, run.id, [Point("m", 0.5, 1, 1)])
            for name, digest in stored.items():
                path = f"{run_root(run)}/{name}"
                put_artifact(tx, path, digest, len(files[name]), actor=self.actor, at=at)
            return update_run(tx, run.id, state="finished", at=at)

        return self.store.write(work)

    def version(self, model: str, files: dict[str, bytes], run: RunId | None = None) -> ModelVersion:
        """The next version of a model, held as a tree."""
        at = self.clock.now()
        leaves = {
            name: Leaf(digest=self.blobs.put(data), size_bytes=len(data)) for name, data in files.items()
        }
        digest = self.blobs.put(Tree(files=leaves).encode())

        def work(tx: Any) -> ModelVersion:
            if tx.models.find(model) is None:
                create_model(tx, model, self.actor, at)
            number = max((row.number for row in tx.model_versions.select({"model": model})), default=0) + 1
            row = ModelVersion(
                id=ModelVersionId(new_id("model_version")), model=model, number=number, digest=digest, state="candidate",
                actor=self.actor, created_at=at, changed_at=at, run=run,
            )  # fmt: skip
            return tx.model_versions.add(row)

        return self.store.write(work)

    def hide(self, run: Run) -> None:
        self.store.write(lambda tx: delete_run(tx, run.id, actor=self.actor, at=self.clock.now()))

    def apply(self, **options: Any) -> Removed:
        """Apply retention to whatever is deleted by now; what nothing names goes at once if it is old."""
        said = {"older_than": AT_ONCE, "grace": timedelta(hours=1), **options}
        return apply(self.layout, self.store, self.blobs, actor=self.actor, clock=self.clock, **said)

    def delete(self, kind: Any, ident: str) -> Removed:
        return delete_for_good(
            self.layout, self.store, self.blobs, kind, ident, actor=self.actor, clock=self.clock,
            grace=timedelta(hours=1),
        )  # fmt: skip

    def age(self) -> None:
        """Let all stored contents be three days old."""
        for file in self.layout.blobs.rglob("*"):
            if file.is_file():
                os.utime(file, (file.stat().st_mtime - LONG_AGO_S,) * 2)

    def bytes_on_disk(self) -> int:
        return sum(file.stat().st_size for file in self.layout.blobs.rglob("*") if file.is_file())

    def kinds(self) -> list[str]:
        return [event.kind for event in self.store.read(lambda reader: reader.ledger.after(0, limit=1000))]


@pytest.fixture(params=["sqlite", "postgres"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with OpenWorkspace(Layout(tmp_path / ".andon"), Settings(database_url=url)) as ws:
        yield Desk(ws)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Desk]:
    """A workspace on SQLite."""
    with OpenWorkspace(Layout(tmp_path / ".andon")) as ws:
        yield Desk(ws)


def test_a_deleted_run_is_gone_with_its_rows_and_the_folder_shrinks_by_its_bytes(desk: Desk) -> None:
    home = desk.experiment("a")
    gone = desk.run(home.id, big=os.urandom(BIG), shared=b"in both")
    stays = desk.run(home.id, other=b"mine", shared=b"in both")
    desk.hide(gone)
    desk.age()
    before = desk.bytes_on_disk()

    removed = desk.apply()

    assert removed == Removed(runs=1, files=2, blobs=1, bytes_freed=BIG)
    assert before - desk.bytes_on_disk() == BIG
    assert desk.blobs.get(digest_bytes(b"in both")) == b"in both"
    assert desk.blobs.get(digest_bytes(b"mine")) == b"mine"
    with pytest.raises(NotFound):
        desk.store.read(lambda reader: reader.runs.get(gone.id))
    left = desk.store.read(
        lambda reader: (
            reader.params.of([gone.number, stays.number]), reader.metrics.latest([gone])[gone.number],
            reader.metrics.history(gone, "m"), [row.id for row in reader.files.under("")],
        )
    )  # fmt: skip
    assert left[0] == {gone.number: {}, stays.number: {"p": "1"}}
    assert left[1:3] == ({}, [])
    assert left[3] == [f"{run_root(stays)}/other", f"{run_root(stays)}/shared"]


def test_what_was_deleted_lately_can_still_be_restored(here: Desk) -> None:
    run = here.run("0", file=b"x")
    here.hide(run)
    here.age()

    removed = here.apply(older_than=timedelta(days=1))

    assert removed == Removed()
    here.store.write(lambda tx: restore_run(tx, run.id, actor=here.actor, at=here.clock.now()))
    assert here.blobs.get(digest_bytes(b"x")) == b"x"


def test_the_name_of_a_removed_experiment_is_free_again_and_its_text_is_erased(desk: Desk) -> None:
    home = desk.experiment("secret plan")
    desk.run(home.id, file=b"x")
    desk.store.write(lambda tx: delete_experiment(tx, home.id, actor=desk.actor, at=desk.clock.now()))

    removed = desk.apply()

    assert (removed.experiments, removed.runs, removed.files) == (1, 1, 1)
    texts = desk.store.read(lambda reader: [row.text for row in reader.personal.select()])
    assert "secret plan" not in texts
    verify(desk.store)
    again = desk.experiment("secret plan")
    assert again.id != home.id


def test_removals_are_on_record(desk: Desk) -> None:
    home = desk.experiment("a")
    run = desk.run(home.id, file=b"x")
    desk.version("m", {"w": b"1"})
    desk.version("m", {"w": b"2"})
    delete(desk.store, "version", "m/1", actor=desk.actor, clock=desk.clock)
    desk.store.write(lambda tx: delete_experiment(tx, home.id, actor=desk.actor, at=desk.clock.now()))
    desk.age()
    seen = len(desk.kinds())

    desk.apply()

    assert desk.kinds()[seen:] == [
        "model_version.deleted", "artifacts.deleted", "run.deleted", "experiment.deleted", "retention.applied",
    ]  # fmt: skip
    last = desk.store.read(lambda reader: reader.ledger.latest(limit=1)[0])
    assert last.facts == {
        "experiments": 1, "runs": 1, "logged_models": 0, "versions": 1, "files": 1, "blobs": 3,
        "bytes_freed": 2 + len(Tree(files={"w": Leaf(digest=digest_bytes(b"1"), size_bytes=1)}).encode()),
    }  # fmt: skip
    assert last.actor == desk.actor
    assert run.id not in str(last.facts)
    verify(desk.store)


def test_a_dry_run_says_what_would_go_and_touches_nothing(here: Desk) -> None:
    home = here.experiment("a")
    here.run(home.id, file=b"one")
    kept = here.run(home.id, file=b"two")
    here.version("m", {"w": b"weights"}, run=kept.id)
    here.store.write(lambda tx: delete_experiment(tx, home.id, actor=here.actor, at=here.clock.now()))
    here.hide(here.run("0", file=b"three"))
    here.blobs.put(b"of nobody")
    here.age()
    before = here.kinds(), here.bytes_on_disk()

    would = here.apply(dry_run=True)

    assert (here.kinds(), here.bytes_on_disk()) == before
    assert here.apply() == would
    assert (would.runs, would.files, would.blobs, would.kept_count) == (2, 2, 3, 2)


# --- what stays ---


def test_a_run_that_made_a_version_stays_until_the_version_is_gone(desk: Desk) -> None:
    run = desk.run("0", file=b"x")
    desk.version("m", {"w": b"1"}, run=run.id)
    desk.hide(run)
    desk.age()

    first = desk.apply()
    with pytest.raises(Conflict, match="m/1 was made of it"):
        desk.delete("run", run.id)
    delete(desk.store, "version", "m/1", actor=desk.actor, clock=desk.clock)
    second = desk.apply()

    assert (first.runs, first.kept) == (0, (f"run {run.id}: m/1 was made of it",))
    assert (second.runs, second.versions, second.kept) == (1, 1, ())


def test_the_number_of_a_removed_version_is_never_given_again(here: Desk) -> None:
    here.version("m", {"w": b"1"})
    here.version("m", {"w": b"2"})
    here.age()

    removed = here.delete("version", "m/2")

    assert (removed.versions, removed.blobs) == (1, 2)
    assert here.version("m", {"w": b"3"}).number == 3
    assert here.delete("version", "m/1").versions == 1
    assert [row.number for row in here.store.read(lambda reader: reader.model_versions.select())] == [2, 3]
    with pytest.raises(NotFound):
        here.delete("version", "m/2")


def test_what_goes_on_is_not_removed(here: Desk) -> None:
    home = here.experiment("a")
    running = here.store.write(
        lambda tx: create_run(tx, home.id, actor=here.actor, at=here.clock.now(), name="r", tags={})
    )[0]

    with pytest.raises(Conflict, match="it is running"):
        here.delete("run", running.id)
    with pytest.raises(Conflict, match="it is running"):
        here.delete("experiment", home.id)
    with pytest.raises(Conflict, match="name no experiment"):
        here.delete("experiment", "0")

    assert here.store.read(lambda reader: reader.runs.count()) == 1


def test_nothing_of_a_line_that_is_live_goes(here: Desk) -> None:
    seeded = seed_world(here.store, here.clock, generations=2, blobs=here.blobs)
    before = set(here.blobs.digests())
    loose = here.blobs.put(b"of nobody")
    here.age()
    generation = seeded.generations[-1]

    things: list[tuple[Kind, str]] = [("run", generation.run), ("version", f"{seeded.line}/2")]
    for kind, ident in things:
        with pytest.raises(Conflict, match="it stays"):
            here.delete(kind, ident)
        with pytest.raises((Conflict, Invalid)):
            delete(here.store, kind, ident, actor=here.actor, clock=here.clock)
    with pytest.raises(Conflict):
        here.delete("model", seeded.line)
    removed = here.apply()

    unnamed = {
        "the run 1",
        "the run 2",
        "the alert 1",
    }  # seals are of values; the first generation had no alert
    spare = {digest_bytes(f"{what} of a seeded world\n".encode()) for what in unnamed}
    assert spare <= before
    assert set(here.blobs.digests()) == before - spare
    assert (removed.blobs, here.blobs.has(loose)) == (4, False)


def test_evidence_that_only_an_event_names_stays(here: Desk) -> None:
    evidence, other = here.blobs.put(b"of an earlier step"), here.blobs.put(b"of a run")
    draft = EventDraft(
        kind="rollout.advanced", actor=here.actor, subject=node("rollout", "ro_1"), at=here.clock.now(),
        facts={"evidence": evidence},
    )  # fmt: skip
    run = replace(draft, kind="run.deleted", subject=node("run", "r"), facts={"evidence": other})
    here.store.write(lambda tx: (tx.ledger.append(draft), tx.ledger.append(run)))
    here.age()

    here.apply()

    assert (here.blobs.has(evidence), here.blobs.has(other)) == (True, False)


def test_every_digest_in_a_row_is_needed_or_says_why_not() -> None:
    """A new field of an entity that names a blob must be told to retention, or the blob would be removed."""
    seen: set[tuple[type[Entity], str]] = set()
    for row in world():
        kind = type(row)
        for name in (name for name, hint in get_type_hints(kind).items() if "Digest" in str(hint)):
            if (kind, name) in NO_BLOBS or getattr(row, name) is None:
                continue
            seen.add((kind, name))
            marked = replace(row, **{name: digest_bytes(name.encode())})
            assert kind in NEEDS, (
                f"{kind.__name__}.{name} names a blob, and references.NEEDS does not know {kind.__name__}"
            )
            found = {need.digest for need in NEEDS[kind][1](marked)}
            held = getattr(row, "held", True) or name != "digest"
            assert (digest_bytes(name.encode()) in found) == held, f"{kind.__name__}.{name} is forgotten"

    named = {
        (kind, name)
        for kind in {type(row) for row in world()}
        for name, hint in get_type_hints(kind).items()
        if "Digest" in str(hint)
    }
    assert seen == named - set(NO_BLOBS)


# --- bytes on their way ---


def test_bytes_stored_lately_stay_with_what_their_tree_names(here: Desk) -> None:
    leaf = here.blobs.put(b"a file whose artifact was deleted")
    stale = here.blobs.put(b"of nobody")
    here.age()
    tree = here.blobs.put(Tree(files={"f": Leaf(digest=leaf, size_bytes=1)}).encode())

    removed = here.apply()

    assert (removed.blobs, removed.young) == (1, 1)
    assert (here.blobs.has(leaf), here.blobs.has(tree), here.blobs.has(stale)) == (True, True, False)


def test_storing_again_what_nothing_names_keeps_it(here: Desk) -> None:
    loose = here.blobs.put(b"of nobody")
    here.age()
    here.blobs.put(b"of nobody")

    removed = here.apply()

    assert (removed.blobs, removed.young, here.blobs.has(loose)) == (0, 1, True)


def test_who_stores_while_somebody_clears_keeps_what_he_stored(here: Desk) -> None:
    together, lost = threading.Barrier(2), []
    hour_ago = here.clock.now() - timedelta(hours=1)
    digest = digest_bytes(b"wanted again")

    def store() -> None:
        for _ in range(200):
            together.wait()
            here.blobs.put(b"wanted again")
            together.wait()
            lost.extend([] if here.blobs.has(digest) else [digest])
            here.age()
            together.wait()

    thread = threading.Thread(target=store)
    here.blobs.put(b"wanted again")
    here.age()
    thread.start()
    freed = []
    for _ in range(200):
        together.wait()
        freed.append(here.blobs.remove_unused(digest, before=hour_ago))
        together.wait()
        together.wait()
    thread.join()

    assert lost == []
    assert any(freed), "clearing came first at least once"


def test_a_manifest_that_cannot_be_read_stops_it_before_a_blob_goes(here: Desk) -> None:
    version = here.version("m", {"w": b"1"})
    loose = here.blobs.put(b"of nobody")
    here.age()
    path = here.layout.blobs / storage_key(version.digest)
    path.chmod(0o600)
    path.write_bytes(b"{}")

    with pytest.raises(Corrupt):
        here.apply()
    here.blobs.remove(version.digest)
    with pytest.raises(NotFound, match="nobody knows which files it needs"):
        here.apply()

    assert here.blobs.has(loose)


def test_nothing_is_removed_while_a_backup_is_made(here: Desk, tmp_path: Path) -> None:
    loose = here.blobs.put(b"of nobody")
    here.age()

    with keeping(here.layout), pytest.raises(Conflict, match="a backup is being made"):
        here.apply()
    with clearing(here.layout), pytest.raises(Conflict):
        here.apply()

    assert here.blobs.has(loose)
    backup(here.layout, here.store, tmp_path / "backup", actor=here.actor)
    assert here.apply().blobs == 1


_KILLED = """
import os, signal, sys
from datetime import timedelta
from pathlib import Path
from andon.core.workspace import Layout
from andon.pipelines.retention import apply
from andon.pipelines.workspace import OpenWorkspace

ws = OpenWorkspace(Layout(Path(sys.argv[1])))
left = int(sys.argv[2])

def killing(inner):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*args, **kwargs)
    return call

ws.store.write = killing(ws.store.write)
ws.blobs.remove_unused = killing(ws.blobs.remove_unused)
apply(ws.layout, ws.store, ws.blobs, actor=ws.actor().id, clock=ws.clock, older_than=timedelta(0), grace=timedelta(hours=1))
"""


def test_a_removal_that_is_killed_anywhere_loses_nothing_that_is_needed(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ".andon")
    with OpenWorkspace(layout) as ws:
        desk = Desk(ws)
        for number in range(6):
            home = desk.experiment(f"e{number}")
            desk.run(home.id, own=f"{number}".encode() * 10, shared=b"shared")
            desk.store.write(lambda tx: delete_experiment(tx, home.id, actor=desk.actor, at=desk.clock.now()))  # noqa: B023
        stays = desk.run("0", shared=b"shared", mine=b"mine")
        desk.version("m", {"w": b"weights", "s": b"shared"}, run=stays.id)
        desk.age()

    kills = 0
    for after in (1, 2, 3, 4, 5, 6, 100):
        command = [sys.executable, "-c", _KILLED, str(layout.root), str(after)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
        kills += done.returncode != 0
        with OpenWorkspace(layout) as ws:
            rows = ws.store.read(lambda reader: reader.files.under(""))
            for digest in {row.digest for row in rows} | {digest_bytes(b"weights")}:
                ws.blobs.get(digest)
            for key in needed(ws.store, ws.blobs):
                assert ws.blobs.has(Digest(f"sha256:{key.hex()}"))

    with OpenWorkspace(layout) as ws:
        assert kills >= 4
        assert ws.store.read(lambda reader: (reader.runs.count(), reader.experiments.count())) == (1, 1)
        kept = {digest_bytes(data) for data in (b"shared", b"mine", b"weights")}
        assert kept <= set(ws.blobs.digests())
        assert len(list(ws.blobs.digests())) == len(kept) + 1
        verify(ws.store)


# --- the commands ---


def andon(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "andon", *words], env={**os.environ, "ANDON_HOME": str(home)}, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_commands_delete_and_say_what_is_gone(here: Desk) -> None:
    home, file = here.layout.root, os.urandom(1000)
    first, second = here.run("0", file=file), here.run("0", file=b"x")
    here.version("m", {"w": b"1"}, run=second.id)
    here.age()

    soft = andon(home, "delete", "run", first.id)
    hard = andon(home, "delete", "run", first.id, "--for-good", "--grace", "1h", "--json")
    refused = andon(home, "delete", "run", second.id, "--for-good", "--json")
    model = andon(home, "delete", "model", "m", "--for-good", "--grace", "1h")
    dry = andon(home, "retention", "apply", "--older-than", "0d", "--dry-run", "--json")
    wrong = andon(home, "retention", "apply", "--older-than", "soon")
    named = andon(home, "delete", "experiment", "Default", "--for-good", "--grace", "0s")

    assert (soft.returncode, "hidden until" in soft.stdout) == (0, True), soft.stderr
    assert hard.returncode == 0, hard.stderr
    assert msgspec.json.decode(hard.stdout, type=Removed) == Removed(
        runs=1, files=1, blobs=1, bytes_freed=1000
    )
    assert not here.blobs.has(digest_bytes(file))
    assert (refused.returncode, json.loads(refused.stdout)["error_code"]) == (8, "RESOURCE_CONFLICT")
    assert (model.returncode, "in 2 contents" in model.stdout) == (0, True), model.stderr
    assert json.loads(dry.stdout)["runs"] == 0
    assert (wrong.returncode, "such as 30d" in wrong.stderr) == (2, True)
    assert (named.returncode, "the one of that name has the id 0" in named.stderr) == (4, True)


def test_a_word_that_names_no_version_is_refused(here: Desk) -> None:
    with pytest.raises(Invalid, match="model/number"):
        here.delete("version", "m")
    with pytest.raises(NotFound):
        here.delete("version", "m/1")
    with pytest.raises(NotFound):
        here.delete("run", "none")
    with pytest.raises(NotFound):
        here.delete("experiment", "77")
