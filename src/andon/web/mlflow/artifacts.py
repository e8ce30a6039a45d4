"""Artifacts over the MLflow wire: bytes go through this server, so clients need no access to any store.

Multipart upload is answered as MLflow's own server answers where it keeps artifacts on its disk: not supported, in the
words that let a client send the file in one stream. That stream is written as it comes in, so parts would gain nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import NamedTuple, NoReturn
from weakref import WeakKeyDictionary

from anyio.to_thread import run_sync
from msgspec import field
from starlette.responses import Response

from andon.core.entities import Artifact, Run
from andon.core.errors import Invalid, NotFound
from andon.governance.access import Permission
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.clients import ROOT as VERSIONS
from andon.registry.clients import VersionFiles
from andon.store.ports import Reader, Transaction
from andon.tracking import artifacts as verbs
from andon.tracking import limits
from andon.tracking.runs import find_run
from andon.web.mlflow.files import PIECE, receive_blob, serve_blob, serve_bytes
from andon.web.mlflow.wire import Ask, Message, Unsupported, WireEndpoint, Work

ROOT = "/api/2.0/mlflow-artifacts"
PAGE = 10_000
"""Most files of one answer to who can ask for the next page."""
NO_MULTIPART = "Multipart upload is not supported for the current artifact repository"
"""MLflow's clients look for these words, and then send the file whole."""


class FileInfo(Message):
    """A file or folder in a listing."""

    path: str
    is_dir: bool
    file_size: int | None = None


class Files(Message):
    """What a folder holds."""

    files: list[FileInfo] = field(default_factory=list)
    root_uri: str | None = None
    next_page_token: str | None = None


# --- the proxy: paths below one root ---


async def _upload(ask: Ask) -> Response:
    path, store = _writable(verbs.check_path(ask.path["path"])), ask.ws.store
    if int(ask.request.headers.get("content-length", PIECE)) >= PIECE:  # before much comes in, see if it may
        await run_sync(store.read, lambda reader: verbs.check_writable(reader, path))
    digest, size = await receive_blob(ask.request, ask.ws.blobs)
    at, actor = ask.ws.clock.now(), ask.actor.id
    await asyncio.wrap_future(
        store.submit(lambda tx: verbs.put_artifact(tx, path, digest, size, actor=actor, at=at))
    )
    return Response(b"{}", media_type="application/json")


async def _download(ask: Ask) -> Response:
    path = verbs.check_path(ask.path["path"])
    if not _of_version(path):
        return await send_artifact(ask, path)
    found = await run_sync(_versions(ask).at, path)
    if isinstance(found, list):
        raise Invalid(f"{path!r} is a folder, not a file", hint="list it", field="path")
    name = path.rpartition("/")[2]
    if found.digest is None:
        return serve_bytes(ask.request, found.data or b"", name)
    return await serve_blob(ask.request, ask.ws.blobs, found.digest, found.size_bytes, name)


async def send_artifact(ask: Ask, path: str) -> Response:
    """The answer to a request for a file.

    Raises:
        NotFound: there is none.
        Invalid: it is a folder.
        Corrupt: its bytes are damaged; none were sent.
    """
    row: Artifact = await run_sync(ask.ws.store.read, lambda reader: verbs.find_artifact(reader, path))
    name = path.rpartition("/")[2]
    return await serve_blob(ask.request, ask.ws.blobs, row.digest, row.size_bytes, name)


class Folder(Message):
    """Which folder to list."""

    path: str | None = None


def _list(ask: Ask) -> Files:
    folder = verbs.check_folder(ask.form.path)
    if not _of_version(folder):
        return Files(files=told(everything(ask, folder), ""))
    try:
        found = _versions(ask).at(folder)
    except NotFound:
        found = []
    if not isinstance(found, list):
        return Files()
    sizes = [(name, None if file is None else file.size_bytes) for name, file in found]
    return Files(files=[FileInfo(path=name, is_dir=size is None, file_size=size) for name, size in sizes])


def _delete(ask: Ask) -> Work:
    path = _writable(verbs.check_path(ask.path["path"].removesuffix("/")))
    at, actor = ask.ws.clock.now(), ask.actor.id

    def work(tx: Transaction) -> None:
        verbs.delete_artifacts(tx, path, actor=actor, at=at)

    return work


def _of_version(path: str) -> bool:
    """Whether a path is that of a registered version's files, which are looked up in its manifest."""
    return path == VERSIONS or path.startswith(f"{VERSIONS}/")


def _writable(path: str) -> str:
    """A path that is not that of a version's files.

    Raises:
        Invalid: it is.
    """
    if _of_version(path):
        raise Invalid(f"{path[:200]!r} is of a registered version, which never changes", field="path")
    return path


def _versions(ask: Ask) -> VersionFiles:
    known = _VERSIONS.get(ask.ws)
    if known is None:
        known = _VERSIONS[ask.ws] = VersionFiles(ask.ws.store, ask.ws.blobs)
    return known


_VERSIONS: WeakKeyDictionary[OpenWorkspace, VersionFiles] = WeakKeyDictionary()


def _no_multipart(_: Ask) -> NoReturn:
    raise Unsupported(NO_MULTIPART, hint="send the file whole, with PUT")


# --- listings ---


def everything(ask: Ask, folder: str) -> list[tuple[str, Artifact | None]]:
    """All that lies directly in a folder. It is read a page at a time, so that no long reading holds anybody up."""
    found: list[tuple[str, Artifact | None]] = []
    while True:
        page = _page(ask, folder, found[-1][0] if found else "", verbs.PAGE)
        found += page
        if len(page) < verbs.PAGE:
            return found


def _page(ask: Ask, folder: str, after: str, limit: int) -> list[tuple[str, Artifact | None]]:
    return ask.ws.store.read(lambda reader: verbs.list_folder(reader, folder, after=after, limit=limit))


def told(rows: list[tuple[str, Artifact | None]], folder: str) -> list[FileInfo]:
    """Rows as clients read them, below a folder."""
    start = f"{folder}/" if folder else ""
    return [
        FileInfo(path=start + name, is_dir=row is None, file_size=None if row is None else row.size_bytes)
        for name, row in rows
    ]


def list_below(ask: Ask, place: Place, given: str | None, page_token: str | None) -> Files:
    """A page of what lies in a folder of a run or logged model.

    Raises:
        Invalid: the path or token is none.
        Unsupported: the artifacts are not here.
    """
    folder = verbs.check_folder(given)
    root = local(place)
    after = _after(page_token)
    found: list[tuple[str, Artifact | None]] = []
    while len(found) <= PAGE:
        page = _page(ask, f"{root}/{folder}" if folder else root, after, verbs.PAGE)
        found += page
        if len(page) < verbs.PAGE:
            break
        after = page[-1][0]
    token = None
    if len(found) > PAGE:
        token = base64.urlsafe_b64encode(found[PAGE - 1][0].encode()).decode()
    return Files(files=told(found[:PAGE], folder), root_uri=place.address, next_page_token=token)


def _after(token: str | None) -> str:
    """The name that a page ended with.

    Raises:
        Invalid: it is not what a page gave.
    """
    try:
        name = base64.b64decode(token or "", altchars=b"-_", validate=True).decode()
        return verbs.check_path(name) if name else ""
    except (binascii.Error, ValueError):
        raise Invalid("this is no page_token of such a listing", field="page_token") from None


# --- by run ---


class Place(NamedTuple):
    """Where the artifacts of something are: their address, and the folder if that is ours."""

    address: str
    folder: str | None


def place(location: str | None, folder: str) -> Place:
    """The place of what would lie in a folder here, in an experiment whose artifacts may be elsewhere.

    >>> place(None, "0/ab/artifacts").address
    'mlflow-artifacts:/0/ab/artifacts'
    >>> place("s3://bucket/x", "0/ab/artifacts")
    Place(address='s3://bucket/x/ab/artifacts', folder=None)
    """
    if location is None:
        return Place(f"mlflow-artifacts:/{folder}", folder)
    return Place(f"{location}/{folder.partition('/')[2]}", None)


def local(where: Place) -> str:
    """The folder of a place that is ours.

    Raises:
        Unsupported: it is elsewhere, where this server has no access and asks for none.
    """
    if where.folder is None:
        raise Unsupported(
            f"these artifacts are at {where.address}, which this server does not open",
            hint="read them with a client that may",
        )
    return where.folder


class RunArtifacts(Message):
    """Which of a run's folders to list."""

    run_id: str | None = None
    run_uuid: str | None = None
    path: str | None = None
    page_token: str | None = None


def _list_of_run(ask: Ask) -> Files:
    form: RunArtifacts = ask.form
    where = _place_of_run(ask, form.run_id or form.run_uuid)
    return list_below(ask, where, form.path, form.page_token)


async def _get_of_run(ask: Ask) -> Response:
    query = ask.request.query_params
    if not query.get("path"):
        raise limits.missing("path")
    below = verbs.check_path(query["path"])
    where = await run_sync(_place_of_run, ask, query.get("run_id") or query.get("run_uuid"))
    return await send_artifact(ask, f"{local(where)}/{below}")


def _place_of_run(ask: Ask, ident: str | None) -> Place:
    if not ident:
        raise limits.missing("run_id")

    def look(reader: Reader) -> tuple[Run, str | None]:
        run = find_run(reader, ident)
        return run, reader.experiments.get(run.experiment).artifact_location

    run, location = ask.ws.store.read(look)
    return place(location, verbs.run_root(run))


ENDPOINTS = (
    WireEndpoint(
        method="GET", path="/artifacts", root=ROOT, permission=Permission.READ, form=Folder, read=_list,
        summary="What a folder of artifacts holds.",
    ),
    WireEndpoint(
        method="GET", path="/artifacts/{path:path}", root=ROOT, permission=Permission.READ, raw=_download,
        summary="A file, whole or a range of it, checked against its digest first.",
    ),
    WireEndpoint(
        method="PUT", path="/artifacts/{path:path}", root=ROOT, permission=Permission.RUN, raw=_upload,
        summary="Write a file.",
    ),
    WireEndpoint(
        method="DELETE", path="/artifacts/{path:path}", root=ROOT, permission=Permission.RUN, write=_delete,
        summary="Delete a file or a folder.",
    ),
    *(
        WireEndpoint(
            method="POST", path=f"/mpu/{verb}{rest}", root=ROOT, permission=Permission.RUN, read=_no_multipart,
            summary="Answers that clients are to send the file whole.",
        )
        for verb in ("create", "complete", "abort")
        for rest in ("", "/{path:path}")
    ),
    WireEndpoint(
        method="GET", path="/artifacts/list", permission=Permission.READ, form=RunArtifacts, read=_list_of_run,
        summary="What a folder of a run's artifacts holds.",
    ),
    WireEndpoint(
        method="GET", path="/get-artifact", permission=Permission.READ, raw=_get_of_run,
        summary="A file of a run.",
    ),
    WireEndpoint(
        method="GET", path="/get-artifact", root="", permission=Permission.READ, raw=_get_of_run,
        summary="A file of a run, as MLflow's pages ask for it.",
    ),
)  # fmt: skip
