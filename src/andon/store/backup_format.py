"""What a backup looks like on disk, and how its parts are written and checked.

    manifest.json                      written last; without it there is no backup
    blobs/sha256/ab/cdef...            shared by one backup and the next, so that only new content is copied
    points/<point>/tables/<name>.ndjson
    points/<point>/predictions/*.log   records that no sealed segment of these tables has
    points/<point>/keys/*, routes/overrides.jsonl, blobs.txt

Tables are rows of plain JSON values, so a backup made on SQLite is restored on Postgres and the other way round.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from andon.core.canonical import ALGORITHM, Digest, digest_bytes, digest_chunks, parse_digest
from andon.core.clock import from_us
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.core.events import Event, verify_chain
from andon.store.files import refusing_full, sync_folder
from andon.store.ports import Value

FORMAT = "andon.backup/1"
MANIFEST = "manifest.json"
BLOBS = "blobs"
POINTS = "points"
LIST = "blobs.txt"
Row = dict[str, Value]
_PATH = re.compile(r"(predictions|keys|routes|tables)/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z")
_POINT = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
_LINES = 1000


class TableFile(msgspec.Struct, frozen=True, kw_only=True):
    """A table's rows, one JSON object a line."""

    name: str
    path: str
    rows: int
    digest: Digest


class CopiedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the workspace; `path` is the same in the point and in `.andon`."""

    path: str
    size: int
    digest: Digest


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds.

    Attributes:
        point: the folder of the parts that are not shared.
        origin: the hash of the workspace's first event, which tells one workspace from another.
        schema: number of the database schema.
        epoch, seq, head: epoch of the workspace, and where its ledger ended.
        tables: in the order in which they are loaded.
        files: prediction logs, keys and the override journal.
        blobs, blob_bytes, listed: how many blobs, their size, and the digest of the list of them.
        damaged: blobs that did not match their digest when they were copied; they are not in the backup.
    """

    format: str
    point: str
    made_at: datetime
    origin: Digest
    schema: int
    epoch: int
    seq: int
    head: Digest
    tables: list[TableFile]
    files: list[CopiedFile]
    blobs: int
    blob_bytes: int
    listed: Digest
    damaged: list[Digest]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup.

    Raises:
        NotFound: there is no finished backup in the folder.
        Invalid: it is of a format that this Andon does not read, or malformed.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"there is no finished backup in {folder}", hint="make one with 'andon backup FOLDER'"
        ) from None
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise Invalid(f"{folder / MANIFEST} cannot be read: {error}", hint="take an older backup") from None
    parts: list[TableFile | CopiedFile] = [*manifest.tables, *manifest.files]
    if (
        manifest.format != FORMAT
        or not _POINT.match(manifest.point)
        or not all(_PATH.match(part.path) for part in parts)
    ):
        raise Invalid(
            f"{folder / MANIFEST} is not of the format {FORMAT}",
            hint="restore it with the Andon that made it",
        )
    return manifest


def point_folder(folder: Path, manifest: Manifest) -> Path:
    """Where the parts are that are not shared."""
    return folder / POINTS / manifest.point


def check_parts(folder: Path, manifest: Manifest) -> None:
    """Check that every file is as it was written, and the ledger in it whole.

    Raises:
        Corrupt: one is missing or was changed; the message names it.
        LedgerBroken: the events do not form the chain that the manifest names.
    """
    point = point_folder(folder, manifest)
    wanted = {LIST: manifest.listed}
    wanted |= {part.path: part.digest for part in manifest.tables}
    wanted |= {part.path: part.digest for part in manifest.files}
    for path, digest in wanted.items():
        if not (point / path).is_file() or digest_chunks(_chunks(point / path)) != digest:
            raise Corrupt(f"{point / path} is missing or was changed", hint="take another backup")
    events = next((part for part in manifest.tables if part.name == "events"), None)
    if events is None or verify_chain(map(_event, read_rows(point / events.path))) != (
        manifest.seq,
        manifest.head,
    ):
        raise Corrupt(
            f"the events in {point} end elsewhere than the manifest says", hint="take another backup"
        )


def write_rows(path: Path, rows: Iterable[Row]) -> tuple[int, Digest]:
    """Write rows; how many, and the digest of the file.

    Raises:
        StorageFull: there is no room.
    """
    state, count, rows = hashlib.sha256(), 0, iter(rows)
    with refusing_full(path), _new(path) as file:
        while some := list(islice(rows, _LINES)):
            data = "".join(
                json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in some
            ).encode()
            file.write(data)
            state.update(data)
            count += len(some)
        file.flush()
        os.fsync(file.fileno())
    return count, Digest(f"{ALGORITHM}:{state.hexdigest()}")


def read_rows(path: Path) -> Iterator[Row]:
    """Rows that `write_rows` wrote."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def write_file(folder: Path, path: str, data: bytes) -> CopiedFile:
    """Write a file of the workspace, for this user only."""
    target = folder / path
    with refusing_full(target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _new(target) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(target.parent)
    return CopiedFile(path=path, size=len(data), digest=digest_bytes(data))


def read_list(path: Path) -> list[Digest]:
    """The blobs of a backup."""
    return [parse_digest(line) for line in path.read_text().splitlines()]


def _event(row: Mapping[str, Any]) -> Event:
    """An event as the table of events has it."""
    data_at = row["data_at"]
    return Event(
        seq=row["seq"], epoch=row["epoch"], prev=row["prev"], hash=row["hash"], kind=row["kind"], actor=row["actor"],
        subject=row["subject"], at=from_us(row["at"]), inputs=tuple(json.loads(row["inputs"])),
        outputs=tuple(json.loads(row["outputs"])), facts=cast("dict[str, Any]", json.loads(row["facts"])),
        data_at=None if data_at is None else from_us(data_at), note=row["note"], v=row["v"],
    )  # fmt: skip


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            yield chunk


def _new(path: Path) -> BinaryIO:
    """A new file for this user only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
