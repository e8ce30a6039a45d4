"""Backup and restore of a whole workspace, while everything runs.

What a backup holds is one consistent point: the tables are read in one view; what they name was stored before them, so
copying blobs afterwards finds all of it; and while it works nothing is dropped from the prediction log's folder, so each
record is in a segment of the tables or in a file. A restore begins a new epoch: leases, routes and gateways of the old one
lose against it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from andon.core.canonical import Digest, digest_bytes
from andon.core.clock import Clock, SystemClock
from andon.core.errors import AndonError, Conflict, Corrupt, Invalid, NotFound, SchemaTooNew
from andon.core.events import EventDraft, Fact
from andon.core.ids import ActorId, node
from andon.core.routes import decode_override, encode_override
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.backup_format import (
    BLOBS,
    FORMAT,
    LIST,
    MANIFEST,
    POINTS,
    CopiedFile,
    Manifest,
    Row,
    TableFile,
    check_parts,
    point_folder,
    read_list,
    read_manifest,
    read_rows,
    write_file,
    write_rows,
)
from andon.store.blobs import LocalBlobs
from andon.store.clearing import keeping
from andon.store.files import read_or_none, refusing_full, sync_folder, write_atomic
from andon.store.keys import route_key
from andon.store.ports import Blobs, Reader, Store
from andon.store.predictions import pinned
from andon.store.predictions_file import SUFFIX, whole_part

Progress = Callable[[str], object]
_SUBJECT = node("workspace", "workspace")
_LOCK = ".lock"
_OURS = {MANIFEST, BLOBS, POINTS, _LOCK, "lost+found"}
_TOLD_EACH = 500
_FENCES = 1000


def _silent(_: str) -> None:
    """Tell nobody."""


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made.

    Attributes:
        folder: where it is.
        epoch, seq, head: the workspace's epoch and where its ledger ended.
        rows: rows of all tables.
        blobs, copied: blobs it holds, and how many of them were not there from the backup before.
        logs: files of the prediction log that were not sealed yet.
        damaged: blobs of the workspace that do not match their digest and could not be backed up.
        manifest: digest of the manifest, which also stands in the ledger.
    """

    folder: str
    epoch: int
    seq: int
    head: Digest
    rows: int
    blobs: int
    copied: int
    logs: int
    damaged: tuple[Digest, ...]
    manifest: Digest


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace that was restored: its new epoch, and where its ledger ended in the backup."""

    folder: str
    epoch: int
    seq: int
    head: Digest
    rows: int
    blobs: int
    logs: int
    damaged: tuple[Digest, ...]


def backup(
    layout: Layout,
    store: Store,
    target: Path,
    *,
    actor: ActorId,
    clock: Clock | None = None,
    progress: Progress = _silent,
) -> BackupReport:
    """Write a backup of a workspace into a folder: an empty one, or one that holds its backup already.

    The backup before stays valid until this one is complete; then only content that both share stays of it. The folder holds
    the workspace's keys, so it is for its owner only.

    Args:
        actor: who is on record for it.
        progress: is told now and then what is being done.

    Raises:
        Invalid: the folder holds other things.
        Conflict: it holds another workspace's backup, or another backup is being written there.
        StorageFull: there is no room; the backup before is as it was.
    """
    clock = clock or SystemClock()
    target = target.absolute()
    with refusing_full(target), _locked(target), keeping(layout):
        before = _before(target, store)
        point = f"{clock.now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        try:
            manifest, copied = _write_point(layout, store, target, point, clock, progress)
            data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
            write_atomic(target / MANIFEST, data)
        except BaseException:
            shutil.rmtree(target / POINTS / point, ignore_errors=True)
            raise
        _forget(target, manifest, before)
    digest = digest_bytes(data)
    facts: dict[str, Fact] = {
        "manifest": digest,
        "seq": manifest.seq,
        "blobs": manifest.blobs,
        "damaged": len(manifest.damaged),
    }
    said = EventDraft(kind="backup.made", actor=actor, subject=_SUBJECT, at=clock.now(), facts=facts)
    store.write(lambda tx: tx.ledger.append(said))
    return BackupReport(
        folder=str(target), epoch=manifest.epoch, seq=manifest.seq, head=manifest.head,
        rows=sum(table.rows for table in manifest.tables), blobs=manifest.blobs, copied=copied, logs=_logs(manifest),
        damaged=tuple(manifest.damaged), manifest=digest,
    )  # fmt: skip


def restore(
    source: Path,
    layout: Layout,
    settings: Settings,
    *,
    clock: Clock | None = None,
    progress: Progress = _silent,
) -> RestoreReport:
    """Bring a backup back into an empty workspace, on SQLite or Postgres, whichever it was made on.

    Nothing may run on the workspace. A restore that was interrupted is finished by running it again.

    Raises:
        NotFound: there is no finished backup in `source`.
        Conflict: the workspace is not empty.
        Corrupt: a part of the backup was changed or is missing; the message names it.
        SchemaTooNew: a newer Andon made the backup.
        StorageFull: there is no room.
    """
    clock = clock or SystemClock()
    source = source.absolute()
    manifest = read_manifest(source)
    progress("checking the backup")
    check_parts(source, manifest)
    point = point_folder(source, manifest)
    _check_logs(layout, manifest)
    store = open_store(layout.create(), settings, clock=clock)
    try:
        loaded = _is_loaded(store, manifest)
        digests = read_list(point / LIST)
        _copy(LocalBlobs(source / BLOBS), LocalBlobs(layout.blobs), digests, progress)
        _put_files(point, layout, manifest)
        if not loaded:
            progress(f"loading {sum(table.rows for table in manifest.tables)} rows")
            store.load(_next_epoch(point, manifest))
        _tell_restored(store, manifest, clock)
    finally:
        store.close()
    return RestoreReport(
        folder=str(layout.root), epoch=manifest.epoch + 1, seq=manifest.seq, head=manifest.head,
        rows=sum(table.rows for table in manifest.tables), blobs=len(digests), logs=_logs(manifest),
        damaged=tuple(manifest.damaged),
    )  # fmt: skip


# --- writing ---


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """The folder, made if it is missing, for this backup alone."""
    if target.exists() and not target.is_dir():
        raise Invalid(f"{target} is not a folder", hint="name an empty folder, or one that holds a backup")
    if target.is_dir() and (foreign := {path.name for path in target.iterdir()} - _OURS):
        raise Invalid(
            f"{target} holds other things than a backup, such as {min(foreign)!r}",
            hint="name an empty folder",
        )
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (target / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"another backup is being written into {target}", hint="wait until it is done"
            ) from None
        yield


def _before(target: Path, store: Store) -> Manifest | None:
    """The manifest of the backup that is there, which must be of the same workspace."""
    try:
        before = read_manifest(target)
    except NotFound:
        return None
    if before.origin != store.read(_origin):
        raise Conflict(f"{target} holds the backup of another workspace", hint="name another folder")
    return before


def _origin(reader: Reader) -> Digest:
    return reader.ledger.after(0, limit=1)[0].hash


def _write_point(
    layout: Layout, store: Store, target: Path, point: str, clock: Clock, progress: Progress
) -> tuple[Manifest, int]:
    """All of a backup but its manifest; how many blobs were copied."""
    folder = target / POINTS / point
    folder.mkdir(mode=0o700, parents=True)
    with pinned(layout.predictions):
        progress("reading the tables")
        seen, tables = _write_tables(store, folder)
        files = _write_logs(layout, folder, seen.segments)
    files += _write_others(layout, folder)
    blobs = LocalBlobs(layout.blobs)
    kept, damaged, copied = _copy_all(blobs, LocalBlobs(target / BLOBS), progress)
    listed = write_file(folder, LIST, "".join(f"{digest}\n" for digest in kept).encode())
    for inner in (folder, folder.parent, target):
        sync_folder(inner)
    manifest = Manifest(
        format=FORMAT, point=point, made_at=clock.now(), origin=store.read(_origin), schema=seen.schema, epoch=seen.epoch,
        seq=seen.seq, head=seen.head, tables=tables, files=files, blobs=len(kept),
        blob_bytes=sum(blobs.size(digest) for digest in kept), listed=listed.digest, damaged=damaged,
    )  # fmt: skip
    return manifest, copied


class _Seen:
    """What a backup must know of the tables while they go by."""

    def __init__(self) -> None:
        self.schema = self.epoch = self.seq = 0
        self.head = Digest("")
        self.segments: set[str] = set()

    def look(self, name: str, rows: Iterable[Row]) -> None:
        for row in rows:
            if name == "schema_version":
                self.schema = max(self.schema, int(str(row["number"])))
            elif name == "workspaces":
                self.epoch = int(str(row["epoch"]))
            elif name == "ledger_head":
                self.seq, self.head = int(str(row["seq"])), Digest(str(row["hash"]))
            elif name == "segments":
                self.segments.add(str(row["id"]))


def _write_tables(store: Store, folder: Path) -> tuple[_Seen, list[TableFile]]:
    seen, tables = _Seen(), list[TableFile]()
    (folder / "tables").mkdir(mode=0o700)
    for name, rows in store.tables():
        path = f"tables/{len(tables):02d}-{name}.ndjson"
        count, digest = write_rows(folder / path, rows)
        seen.look(name, rows)
        tables.append(TableFile(name=name, path=path, rows=count, digest=digest))
    sync_folder(folder / "tables")
    return seen, tables


def _write_logs(layout: Layout, folder: Path, sealed: set[str]) -> list[CopiedFile]:
    """The whole records of prediction logs that no row of the tables has; files that were set aside, as they are."""
    files: list[CopiedFile] = []
    for path in sorted(layout.predictions.glob("[0-9a-f]*.log*")):
        name = path.name.partition(SUFFIX)[0]
        data = (None if name in sealed else read_or_none(path)) or b""
        data = whole_part(data) if path.suffix == SUFFIX else data
        if data:
            files.append(write_file(folder, f"predictions/{path.name}", data))
    return files


def _write_others(layout: Layout, folder: Path) -> list[CopiedFile]:
    """Keys, and the journal of undos that gateways made."""
    paths = [path for path in sorted(layout.route_key.parent.glob("[!.]*")) if path.is_file()]
    paths += [layout.overrides] if layout.overrides.is_file() else []
    return [write_file(folder, path.relative_to(layout.root).as_posix(), path.read_bytes()) for path in paths]


def _copy_all(source: Blobs, target: Blobs, progress: Progress) -> tuple[list[Digest], list[Digest], int]:
    """Copy every blob that is not there yet: all that are there now, those that are damaged, and how many were copied."""
    kept, damaged, copied = list[Digest](), list[Digest](), 0
    for number, digest in enumerate(sorted(source.digests()), start=1):
        try:
            if not target.has(digest) or target.size(digest) != source.size(digest):
                target.put(source.chunks(digest))
                copied += 1
            kept.append(digest)
        except Corrupt:
            damaged.append(digest)
        except NotFound:
            continue  # deleted meanwhile
        if number % _TOLD_EACH == 0:
            progress(f"{number} blobs")
    return kept, damaged, copied


def _forget(target: Path, manifest: Manifest, before: Manifest | None) -> None:
    """Remove what only the backup before, or one that was interrupted, had."""
    for folder in (target / POINTS).iterdir():
        if folder.name != manifest.point:
            shutil.rmtree(folder, ignore_errors=True)
    if before is None or before.listed != manifest.listed:
        blobs, kept = LocalBlobs(target / BLOBS), set(read_list(point_folder(target, manifest) / LIST))
        for digest in list(blobs.digests()):
            if digest not in kept:
                blobs.remove(digest)


def _logs(manifest: Manifest) -> int:
    return sum(part.path.startswith("predictions/") for part in manifest.files)


# --- restoring ---


def _check_logs(layout: Layout, manifest: Manifest) -> None:
    """A folder with predictions that the backup does not have is somebody's workspace."""
    known = {part.path for part in manifest.files}
    for path in layout.predictions.glob("*.log*"):
        if f"predictions/{path.name}" not in known:
            raise _occupied(layout.root, "predictions")


def _is_loaded(store: Store, manifest: Manifest) -> bool:
    """Whether an interrupted restore of this backup has loaded the tables already.

    Raises:
        Conflict: the workspace holds something else.
        SchemaTooNew: the backup's schema is newer than a new workspace's.
    """
    newest = max(int(str(row["number"])) for row in next(iter(store.tables()))[1])
    if manifest.schema > newest:
        raise SchemaTooNew(
            f"the backup has schema {manifest.schema}, and this Andon knows up to {newest}",
            hint="use a newer Andon",
        )

    def look(reader: Reader) -> bool:
        seq = reader.ledger.head()[0]
        if seq <= 2 and not reader.lines.count():
            return False
        ends = reader.ledger.after(manifest.seq - 1, limit=100)
        mine = (
            bool(ends)
            and ends[0].hash == manifest.head
            and reader.workspaces.get("workspace").epoch == manifest.epoch + 1
        )
        if not mine or any(event.kind != "workspace.migrated" for event in ends[1:]):
            raise _occupied("the database", f"{seq} events")
        return True

    return store.read(look)


def _occupied(where: object, what: str) -> Conflict:
    return Conflict(f"the workspace is not empty: {where} holds {what}", hint="restore into an empty one")


def _copy(source: Blobs, target: Blobs, digests: Iterable[Digest], progress: Progress) -> None:
    """Copy blobs, each checked on its way."""
    for number, digest in enumerate(digests, start=1):
        if not target.has(digest):
            try:
                target.put(source.chunks(digest))
            except NotFound as error:
                raise Corrupt(
                    f"the backup is not whole: {error.message}", hint="take another backup"
                ) from None
        if number % _TOLD_EACH == 0:
            progress(f"{number} blobs")


def _put_files(point: Path, layout: Layout, manifest: Manifest) -> None:
    for part in manifest.files:
        write_atomic(layout.root / part.path, (point / part.path).read_bytes())
    journal = read_or_none(layout.overrides)
    if journal is not None and layout.route_key.is_file():
        key = route_key(layout)
        lines = [_carried(line, key, manifest.epoch) for line in journal.splitlines()]
        write_atomic(layout.overrides, b"".join(line + b"\n" for line in lines))


def _carried(line: bytes, key: bytes, epoch: int) -> bytes:
    """An undo that the ledger had not taken over yet holds in the new epoch too; others are void or known to the route."""
    try:
        override = decode_override(line, key)
    except AndonError:
        return line
    if override.epoch != epoch:
        return line
    return encode_override(msgspec.structs.replace(override, epoch=epoch + 1), key)


def _next_epoch(point: Path, manifest: Manifest) -> Iterator[tuple[str, list[Row]]]:
    """The tables as they begin the next epoch: routes belong to it, and nobody holds a lease from before."""
    epoch = manifest.epoch + 1
    for table in manifest.tables:
        rows = list(read_rows(point / table.path))
        for row in rows:
            if table.name in ("workspaces", "routes"):
                row["epoch"] = epoch
            elif table.name == "leases":
                row.update(holder=None, beat=0, fence=int(str(row["fence"])) + _FENCES)
        yield table.name, rows


def _tell_restored(store: Store, manifest: Manifest, clock: Clock) -> None:
    """Say who restored it, or the workspace's own actor when the person is not known in the backup."""

    def actor(reader: Reader) -> ActorId:
        known = reader.actors.select({"subject": f"os:{os.geteuid()}"}, limit=1)
        return known[0].id if known else reader.ledger.after(0, limit=1)[0].actor

    facts: dict[str, Fact] = {
        "epoch": manifest.epoch + 1,
        "seq": manifest.seq,
        "head": manifest.head,
        "point": manifest.point,
    }
    at = clock.now()
    store.write(
        lambda tx: tx.ledger.append(
            EventDraft(kind="workspace.restored", actor=actor(tx), subject=_SUBJECT, at=at, facts=facts)
        )
    )
