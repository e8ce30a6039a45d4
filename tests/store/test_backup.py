"""A backup is one consistent point of a workspace that goes on, and a restore begins a new epoch of it."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from andon.core.canonical import Digest, digest_bytes
from andon.core.clock import SystemClock
from andon.core.entities import Feedback
from andon.core.errors import (
    AndonError,
    Conflict,
    Corrupt,
    Invalid,
    LeaseLost,
    LedgerBroken,
    NotFound,
    SchemaTooNew,
)
from andon.core.ids import OverrideId, PredictionId
from andon.core.routes import Override, decode_override, encode_override
from andon.core.workspace import Layout, Settings
from andon.governance.audit import verify
from andon.store.backup import BackupReport, RestoreReport, backup, restore
from andon.store.backup_format import MANIFEST, read_manifest
from andon.store.blobs import LocalBlobs
from andon.store.files import append_line
from andon.store.keys import route_key
from andon.store.ports import Store
from andon.store.predictions import SegmentLog, SegmentWriter, commit_segment
from andon.store.sql.migrations import MIGRATIONS
from andon.testing.predictions import record
from andon.testing.stores import Place
from andon.testing.worlds import World, seed_world
from tests.small_disk import small_disk

LAST = MIGRATIONS[-1].number
Rows = dict[str, list[dict[str, Any]]]


class Workspace:
    """An open workspace on some database."""

    def __init__(self, place: Place) -> None:
        self.place, self.layout = place, place.layout
        self.store: Store = place.open()
        self.layout.create()
        self.blobs = LocalBlobs(self.layout.blobs)
        self.log = SegmentLog(self.layout.predictions, self.store, self.blobs, SystemClock())

    def fill(self) -> World:
        """Two generations, a sealed segment, one that waits for it, one that is written, keys and an undo at a gateway."""
        self.world = seed_world(self.store, SystemClock(), generations=2, blobs=self.blobs)
        self.predictions = self.predict(5)
        self.seal()
        self.predictions += self.predict(4)
        self.writer = SegmentWriter(self.layout.predictions, SystemClock())
        self.predictions += self.predict(3, self.writer)
        (self.layout.predictions / "000000004d-000000.log.damaged").write_bytes(b"not readable")
        self.layout.token.write_text("secret")
        self.layout.token.chmod(0o600)
        self.undo = Override(
            id=OverrideId("ov_1"), endpoint=self.world.endpoint, epoch=1, generation=200,
            release=self.world.live.release, actor="os:1000", at_us=0,
        )  # fmt: skip
        append_line(self.layout.overrides, encode_override(self.undo, route_key(self.layout)))
        return self.world

    def predict(self, count: int, writer: SegmentWriter | None = None) -> list[PredictionId]:
        mine = writer or SegmentWriter(self.layout.predictions, SystemClock())
        first = mine.next_number()
        records = [record(mine.boot, first + k, release=self.world.live.release) for k in range(count)]
        mine.append(records)
        if writer is None:
            mine.close()
        return [item.prediction_id for item in records]

    def seal(self) -> None:
        for ident in self.log.sealable():
            segment = self.log.seal(ident)
            if segment is not None:
                commit_segment(self.store, segment, actor=self.world.line_actor, at=SystemClock().now())
            self.log.drop(ident)

    def backup(self, target: Path, **settings: Any) -> BackupReport:
        return backup(self.layout, self.store, target, actor=self.world.person, **settings)

    def rows(self) -> Rows:
        return dict(self.store.tables())

    def close(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close()
        self.store.close()


@pytest.fixture
def opened() -> Iterator[Callable[[Place], Workspace]]:
    """Opens workspaces that are closed in the end."""
    made: list[Workspace] = []

    def open_one(place: Place) -> Workspace:
        made.append(Workspace(place))
        return made[-1]

    yield open_one
    for workspace in made:
        workspace.close()


@pytest.fixture
def workspace(sqlite_place: Place, opened: Callable[[Place], Workspace]) -> Workspace:
    workspace = opened(sqlite_place)
    workspace.fill()
    return workspace


@pytest.fixture
def fresh(tmp_path: Path) -> Place:
    """Where nothing is yet."""
    return Place(Layout(tmp_path / "fresh" / ".andon"), Settings())


def restored(source: Path, place: Place, **settings: Any) -> RestoreReport:
    return restore(source, place.layout, place.settings, **settings)


def next_epoch(rows: Rows, *, seq: int) -> Rows:
    """The rows of a backup as they are after a restore."""
    expected = {name: [dict(row) for row in found] for name, found in rows.items()}
    for row in (*expected["workspaces"], *expected["routes"]):
        row["epoch"] += 1
    for row in expected["leases"]:
        row |= {"holder": None, "beat": 0, "fence": row["fence"] + 1000}
    expected["events"] = [row for row in expected["events"] if row["seq"] <= seq]
    del expected["ledger_head"]
    return expected


@pytest.mark.parametrize(
    ("made_on", "restored_on"), [("sqlite", "sqlite"), ("sqlite", "postgres"), ("postgres", "sqlite")]
)
def test_everything_comes_back_in_a_new_epoch(
    made_on: str,
    restored_on: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    opened: Callable[[Place], Workspace],
) -> None:
    old = opened(request.getfixturevalue(f"{made_on}_place"))
    world = old.fill()
    lease = old.store.write(lambda tx: tx.leases.take("reconciler", "worker-1", seen=None))
    before = old.rows()
    made = old.backup(tmp_path / "backup")
    target = (
        request.getfixturevalue("postgres_place")
        if restored_on == "postgres"
        else Place(Layout(tmp_path / "fresh" / ".andon"), Settings())
    )

    report = restored(tmp_path / "backup", target)

    new = opened(target)
    new.world = world
    assert (report.epoch, report.seq, report.head) == (made.epoch + 1, made.seq, made.head)
    assert sorted(new.blobs.digests()) == sorted(old.blobs.digests())
    assert [new.log.find(ident) for ident in old.predictions] == [
        old.log.find(ident) for ident in old.predictions
    ]
    assert [path.stat().st_mode & 0o777 for path in new.layout.token.parent.iterdir()] == [0o600, 0o600]
    assert new.layout.token.read_text() == "secret"
    assert (new.layout.predictions / "000000004d-000000.log.damaged").read_bytes() == b"not readable"
    assert verify(new.store).events == made.seq + 1
    said = new.store.read(lambda reader: reader.ledger.latest(limit=1))[0]
    assert (said.kind, said.epoch, said.facts["head"]) == ("workspace.restored", 2, made.head)
    after = new.rows()
    after["events"] = [row for row in after["events"] if row["seq"] <= made.seq]
    after["edges"] = [row for row in after["edges"] if row["seq"] <= made.seq]
    del after["ledger_head"]
    assert after == next_epoch(before, seq=made.seq)
    with pytest.raises(LeaseLost):
        new.store.write(lambda tx: tx.leases.check(lease))
    new.seal()
    assert [new.log.has(ident) for ident in old.predictions] == [True] * 12
    assert list(new.layout.predictions.glob("*.log")) == []


def test_the_ledger_says_that_a_backup_was_made(workspace: Workspace, tmp_path: Path) -> None:
    made = workspace.backup(tmp_path / "backup")

    said = workspace.store.read(lambda reader: reader.ledger.latest(limit=1))[0]
    assert (said.kind, said.actor, said.seq) == ("backup.made", workspace.world.person, made.seq + 1)
    assert (
        said.facts["manifest"] == made.manifest == digest_bytes((tmp_path / "backup" / MANIFEST).read_bytes())
    )
    assert (made.blobs, made.copied, made.logs, made.damaged) == (
        len(list(workspace.blobs.digests())),
    ) * 2 + (3, ())
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700


def test_an_undo_that_the_ledger_had_not_taken_over_still_holds(
    workspace: Workspace, tmp_path: Path, fresh: Place
) -> None:
    stranger = encode_override(workspace.undo, b"another key")
    append_line(workspace.layout.overrides, stranger)
    workspace.backup(tmp_path / "backup")

    restored(tmp_path / "backup", fresh)

    first, second = fresh.layout.overrides.read_bytes().splitlines()
    key = route_key(fresh.layout)
    assert key == route_key(workspace.layout)
    assert decode_override(first, key) == msgspec.structs.replace(workspace.undo, epoch=2)
    assert second == stranger


# --- one after another ---


def test_the_next_backup_copies_only_what_is_new(
    workspace: Workspace, tmp_path: Path, fresh: Place, opened: Callable[[Place], Workspace]
) -> None:
    first = workspace.backup(tmp_path / "backup")
    fresh_digest, gone = workspace.blobs.put(b"a new blob"), next(iter(workspace.blobs.digests()))
    workspace.blobs.remove(gone)

    second = workspace.backup(tmp_path / "backup")

    assert (second.copied, second.blobs) == (1, first.blobs)
    stored = set(LocalBlobs(tmp_path / "backup" / "blobs").digests())
    assert fresh_digest in stored
    assert gone not in stored
    assert len(list((tmp_path / "backup" / "points").iterdir())) == 1
    restored(tmp_path / "backup", fresh)
    assert verify(opened(fresh).store).events == second.seq + 1


class Stop(Exception):
    """What a test throws in the way."""


def stop_at(word: str) -> Callable[[str], None]:
    def progress(text: str) -> None:
        if word in text:
            raise Stop(text)

    return progress


def test_a_backup_that_is_cut_short_leaves_the_one_before(
    workspace: Workspace,
    tmp_path: Path,
    fresh: Place,
    opened: Callable[[Place], Workspace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("andon.store.backup._TOLD_EACH", 1)
    first = workspace.backup(tmp_path / "backup")
    workspace.predictions += workspace.predict(2)
    for word in ("tables", "1 blobs", "7 blobs"):
        with pytest.raises(Stop):
            workspace.backup(tmp_path / "backup", progress=stop_at(word))

    assert read_manifest(tmp_path / "backup").seq == first.seq
    assert restored(tmp_path / "backup", fresh).head == first.head
    assert workspace.backup(tmp_path / "backup").seq > first.seq


SECOND = """
import sys
from pathlib import Path
from andon.core.errors import StorageFull
from andon.core.ids import ActorId
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.backup import backup
layout = Layout(Path(sys.argv[1]))
store = open_store(layout, Settings())
try:
    backup(layout, store, Path(sys.argv[2]), actor=ActorId(sys.argv[3]))
except StorageFull as error:
    print(error)
store.close()
"""


def test_a_full_disk_leaves_the_backup_before(workspace: Workspace, tmp_path: Path, fresh: Place) -> None:
    with small_disk(tmp_path / "disk", disk_bytes=2 * 2**20, file_bytes=2 * 2**20) as python:
        first = workspace.backup(tmp_path / "disk")
        workspace.blobs.put(random.Random(1).randbytes(3 * 2**20))
        command = [
            *python,
            "-c",
            SECOND,
            str(workspace.layout.root),
            str(tmp_path / "disk"),
            workspace.world.person,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)

        assert "was not written: " in done.stdout
        assert len(list((tmp_path / "disk" / "points").iterdir())) == 1
        assert restored(tmp_path / "disk", fresh).head == first.head


def test_two_backups_into_one_folder_do_not_mix(workspace: Workspace, tmp_path: Path) -> None:
    inner: list[type[BaseException]] = []

    def progress(text: str) -> None:
        if "tables" in text:
            with pytest.raises(Conflict, match="another backup is being written") as caught:
                workspace.backup(tmp_path / "backup")
            inner.append(caught.type)

    workspace.backup(tmp_path / "backup", progress=progress)

    assert inner == [Conflict]


def test_a_backup_never_goes_where_other_things_are(
    workspace: Workspace, tmp_path: Path, opened: Callable[[Place], Workspace], fresh: Place
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    for target in (tmp_path / "home", workspace.layout.root, workspace.layout.project):
        with pytest.raises(Invalid, match="holds other things"):
            workspace.backup(target)
    with pytest.raises(Invalid, match="is not a folder"):
        workspace.backup(tmp_path / "home" / "thesis.tex")
    other = opened(fresh)
    other.fill()
    workspace.backup(tmp_path / "backup")

    with pytest.raises(Conflict, match="another workspace"):
        other.backup(tmp_path / "backup")


def test_a_damaged_blob_is_left_out_and_said(workspace: Workspace, tmp_path: Path, fresh: Place) -> None:
    bad = workspace.world.live.digest
    path = Path(workspace.blobs.path(bad))
    path.chmod(0o600)
    path.write_bytes(b"x" * path.stat().st_size)

    made = workspace.backup(tmp_path / "backup")

    assert made.damaged == (bad,)
    assert restored(tmp_path / "backup", fresh).damaged == (bad,)
    assert not LocalBlobs(fresh.layout.blobs).has(bad)


# --- what is refused ---


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.chmod(0o600)
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    "pattern",
    ["tables/*-events.ndjson", "tables/*-releases.ndjson", "predictions/*.log", "keys/token", "blobs.txt"],
)
def test_a_part_that_was_changed_is_named(
    workspace: Workspace, tmp_path: Path, fresh: Place, pattern: str
) -> None:
    workspace.backup(tmp_path / "backup")
    (path, *_) = (tmp_path / "backup" / "points").glob(f"*/{pattern}")
    data = path.read_bytes()
    for wrong in (data + b"\n", data[:-2], None):
        path.unlink()
        if wrong is not None:
            path.write_bytes(wrong)

        with pytest.raises(Corrupt, match=rf"{path.name} is missing or was changed"):
            restored(tmp_path / "backup", fresh)
        assert not fresh.layout.database.exists()
        path.write_bytes(data)
    restored(tmp_path / "backup", fresh)


def test_a_changed_event_is_found_even_with_new_digests(
    workspace: Workspace, tmp_path: Path, fresh: Place
) -> None:
    workspace.backup(tmp_path / "backup")
    manifest = read_manifest(tmp_path / "backup")
    (path,) = (tmp_path / "backup" / "points").glob("*/tables/*-events.ndjson")
    old = digest_bytes(path.read_bytes())
    edit(
        path,
        lambda text: text.replace('"passed":true', '"passed":false').replace(
            '\\"passed\\":true', '\\"passed\\":false'
        ),
    )
    edit(tmp_path / "backup" / MANIFEST, lambda text: text.replace(old, digest_bytes(path.read_bytes())))

    with pytest.raises(LedgerBroken, match="its bytes were changed"):
        restored(tmp_path / "backup", fresh)
    edit(tmp_path / "backup" / MANIFEST, lambda text: text.replace(manifest.head, digest_bytes(b"")))
    with pytest.raises(Corrupt):
        restored(tmp_path / "backup", fresh)


def test_a_blob_that_is_missing_or_damaged_is_named(
    workspace: Workspace, tmp_path: Path, fresh: Place
) -> None:
    workspace.backup(tmp_path / "backup")
    digest = sorted(workspace.blobs.digests())[3]
    path = Path(LocalBlobs(tmp_path / "backup" / "blobs").path(digest))
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1])
    with pytest.raises(Corrupt, match=path.name):
        restored(tmp_path / "backup", fresh)
    path.unlink()
    with pytest.raises(Corrupt, match=digest):
        restored(tmp_path / "backup", fresh)

    path.write_bytes(data)
    assert restored(tmp_path / "backup", fresh).blobs == len(list(workspace.blobs.digests()))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda text: text[:-5], Invalid),
        (lambda text: text.replace("andon.backup/1", "andon.backup/2"), Invalid),
        (lambda text: text.replace('"path": "keys/token"', '"path": "keys/../../token"'), Invalid),
        (lambda text: text.replace('"path": "keys/token"', '"path": "/etc/token"'), Invalid),
        (lambda text: text.replace('"point": "', '"point": "../'), Invalid),
        (lambda text: text.replace(f'"schema": {LAST}', '"schema": 99'), SchemaTooNew),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    workspace: Workspace, tmp_path: Path, fresh: Place, change: Callable[[str], str], error: type[AndonError]
) -> None:
    workspace.backup(tmp_path / "backup")
    before = (tmp_path / "backup" / MANIFEST).read_text()
    edit(tmp_path / "backup" / MANIFEST, change)
    assert (tmp_path / "backup" / MANIFEST).read_text() != before

    with pytest.raises(error):
        restored(tmp_path / "backup", fresh)


def test_a_folder_without_a_finished_backup_is_refused(
    workspace: Workspace, tmp_path: Path, fresh: Place
) -> None:
    workspace.backup(tmp_path / "backup")
    (tmp_path / "backup" / MANIFEST).unlink()

    for source in (tmp_path / "backup", tmp_path / "nowhere"):
        with pytest.raises(NotFound, match="no finished backup"):
            restored(source, fresh)


def test_only_an_empty_workspace_is_restored_into(
    workspace: Workspace, tmp_path: Path, fresh: Place, opened: Callable[[Place], Workspace]
) -> None:
    workspace.backup(tmp_path / "backup")
    other = opened(Place(Layout(tmp_path / "other" / ".andon"), Settings()))
    other.world = seed_world(other.store, SystemClock())
    before = other.rows()
    with pytest.raises(Conflict, match="not empty"):
        restored(tmp_path / "backup", other.place)
    assert other.rows() == before
    assert list(other.blobs.digests()) == []
    fresh.layout.create()
    (fresh.layout.predictions / "000000004d-000000.log").write_bytes(b"somebody's")
    with pytest.raises(Conflict, match="predictions"):
        restored(tmp_path / "backup", fresh)
    (fresh.layout.predictions / "000000004d-000000.log").unlink()

    restored(tmp_path / "backup", fresh)

    with pytest.raises(Conflict, match="not empty"):
        restored(tmp_path / "backup", fresh)


class FailingClock(SystemClock):
    """A clock that stops everything at its n-th question."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def now(self) -> datetime:
        self.left -= 1
        if self.left == 0:
            raise Stop("the clock was asked")
        return datetime.now(UTC)


def test_a_restore_that_was_interrupted_anywhere_is_finished_by_the_next(
    workspace: Workspace,
    tmp_path: Path,
    fresh: Place,
    opened: Callable[[Place], Workspace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("andon.store.backup._TOLD_EACH", 1)
    made = workspace.backup(tmp_path / "backup")
    interruptions: list[dict[str, Any]] = [
        {"progress": stop_at(word)} for word in ("checking", "3 blobs", "9 blobs", "loading")
    ]
    interruptions += [{"clock": FailingClock(calls)} for calls in range(1, 30)]
    stopped = 0
    for interruption in interruptions:
        try:
            restored(tmp_path / "backup", fresh, **interruption)
        except Stop:
            stopped += 1
        else:
            break
    else:
        pytest.fail("it never came to its end")

    new = opened(fresh)
    assert stopped > 4
    assert verify(new.store).events == made.seq + 1
    assert new.store.read(lambda reader: reader.workspaces.get("workspace").epoch) == 2
    assert all(new.log.has(ident) for ident in workspace.predictions)


# --- while everything runs ---


def test_a_backup_under_load_is_one_consistent_point(
    workspace: Workspace, tmp_path: Path, opened: Callable[[Place], Workspace]
) -> None:
    """Rows name blobs, labels name predictions, segments are sealed and dropped: in each backup all of them fit."""
    stop, faults = threading.Event(), list[BaseException]()
    acknowledged: list[PredictionId] = []
    person = workspace.world.person
    at = SystemClock().now()

    def guarded(work: Callable[[int], None]) -> threading.Thread:
        def run() -> None:
            number = 0
            try:
                while not stop.is_set():
                    number += 1
                    work(number)
            except BaseException as error:  # noqa: BLE001  # shown at the end of the test
                faults.append(error)

        return threading.Thread(target=run)

    def predict_and_label(number: int) -> None:
        (ident,) = workspace.predict(1, workspace.writer)
        acknowledged.append(ident)
        row = Feedback(
            id=f"fb_{number}", prediction=ident, label=1.0, source=workspace.blobs.put(b"%d" % number), actor=person,
            received_at=at + timedelta(seconds=number),
        )  # fmt: skip
        workspace.store.write(lambda tx: tx.feedback.add(row))
        if number % 7 == 0:
            workspace.writer.close()
            workspace.writer = SegmentWriter(workspace.layout.predictions, SystemClock())

    threads = [guarded(predict_and_label), guarded(lambda _: workspace.seal())]
    for thread in threads:
        thread.start()
    certain: list[list[PredictionId]] = []
    for number in range(4):
        while len(acknowledged) < 15 * (number + 1) and not faults:
            threading.Event().wait(0.001)
        certain.append(list(acknowledged))
        workspace.backup(tmp_path / f"backup-{number % 2}")
        if number < 2:
            shutil.copytree(tmp_path / f"backup-{number % 2}", tmp_path / f"kept-{number}")
    stop.set()
    for thread in threads:
        thread.join(60)

    assert faults == []
    for number, source in enumerate(["kept-0", "kept-1", "backup-0", "backup-1"]):
        place = Place(Layout(tmp_path / f"again-{number}" / ".andon"), Settings())
        restored(tmp_path / source, place)
        new = opened(place)
        verify(new.store)
        labels = new.store.read(lambda reader: reader.feedback.select(limit=10_000))
        assert len(labels) >= 10
        assert all(new.log.has(row.prediction) and new.blobs.get(Digest(row.source)) for row in labels)
        assert all(new.log.has(ident) for ident in certain[number])
        records = new.log.tail({}, limit=100_000)[0]
        assert len({item.id for item in records}) == len(records)
