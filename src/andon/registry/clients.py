"""Versions that clients register: where they say a model lies, and what of it is held.

A source is an address in a client's words. It is read once, into one of a few kinds, and nothing of it ever reaches a file
path: what lies in the workspace is found among the artifacts' rows, below the root of the run or logged model that the client
names. Its files are taken down as a tree at that moment, and the version is that tree: whoever replaces an artifact later
changes no version. What lies elsewhere stays an address, with `held` false, and is never fetched.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import datetime
from threading import Lock
from typing import Literal, NamedTuple, NoReturn
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from andon.core.canonical import Digest, digest_bytes, digest_value
from andon.core.entities import Artifact, LoggedModel, Model, ModelVersion, Run, owner
from andon.core.errors import Corrupt, Invalid, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ActorId, LoggedModelId, ModelVersionId, RunId, new_id, node
from andon.core.tree import MOST_FILES, Leaf, Tree, decode_tree
from andon.registry.models import PROMPT, check_tags, is_prompt, model_of, touch, version_of
from andon.registry.packaging import mlmodel, package
from andon.registry.requests import Ruling, by_alias, latest_of
from andon.store.ports import Blobs, Reader, Store, Transaction

ROOT = "registry"
"""Versions are downloaded from `mlflow-artifacts:/registry/<id of the version>`."""
RUN_LINK = "andon.run_link"
"""The tag in which the address of a run on another server is kept; clients see it as `run_link`."""
PROMPT_SOURCES = ("dummy-source", "prompt-template")
PROMPT_TEXT = "mlflow.prompt.text"
LOGGED_VERSIONS = "mlflow.modelVersions"
"""The tag of a logged model that lists its registered versions, as clients read it."""
ELSEWHERE = frozenset(
    {"s3", "s3a", "s3n", "gs", "abfs", "abfss", "wasb", "wasbs", "adl", "azureml", "dbfs", "hdfs", "viewfs", "r2", "b2",
     "oss", "ftp", "sftp", "http", "https"}
)  # fmt: skip
"""Schemes of what is kept as an address."""
LONGEST_SOURCE = 4096
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)\Z", re.DOTALL)
_TRICKS = re.compile(r"[#;?\\%\x00-\x1f\x7f]")
_OWN_ROUTE = "/api/2.0/mlflow-artifacts/"


# --- what a client says ---


class OfRun(msgspec.Struct, frozen=True):
    """`runs:/<run>/<path>`."""

    run: str
    path: str


class OfLoggedModel(msgspec.Struct, frozen=True):
    """`models:/m-<id>`."""

    model: str


class OfVersion(msgspec.Struct, frozen=True):
    """`models:/<name>/<number>`, `models:/<name>/<stage>`, `models:/<name>/latest` or `models:/<name>@<alias>`."""

    model: str
    way: Literal["number", "stage", "alias"]
    value: str


class InArtifacts(msgspec.Struct, frozen=True):
    """`mlflow-artifacts:/<path>`."""

    path: str


class Elsewhere(msgspec.Struct, frozen=True):
    """An address that this workspace keeps and never opens."""

    address: str


Source = OfRun | OfLoggedModel | OfVersion | InArtifacts | Elsewhere


def read_source(text: str) -> Source:
    """What a client's source means. Decoded once; whatever could mean another place on a second look is refused.

    Raises:
        Invalid: it is a path of somebody's disk, of an unknown scheme, or has `..`, `#`, `;`, `?`, a backslash, a control
            character or a double encoding in it.

    >>> read_source("models:/m-1")
    OfLoggedModel(model='m-1')
    >>> read_source("s3://bucket/churn")
    Elsewhere(address='s3://bucket/churn')
    """
    found = _SCHEME.match(text)
    if found is None or len(text) > LONGEST_SOURCE:
        _refuse(text, "it is no address with a scheme such as 'runs:/' or 'models:/'")
    scheme, rest = found[1].lower(), unquote(found[2], errors="strict") if _decodes(found[2]) else "%"
    if _TRICKS.search(rest):
        _refuse(text, "it has a character in it that an address of a model does not need")
    host, path = _split(rest)
    if any(part in (".", "..") for part in path.split("/")):
        _refuse(text, "it leads out of where it seems to lie")
    path = re.sub(r"/+", "/", path).strip("/")
    if scheme in ELSEWHERE:
        if scheme in ("http", "https") and _OWN_ROUTE in f"/{path}/":
            _refuse(text, "name the artifacts of a run as 'mlflow-artifacts:/'")
        return Elsewhere(text)
    if scheme not in ("runs", "models", "mlflow-artifacts"):
        _refuse(
            text, f"'{scheme}:' is not kept: a model lies in the workspace, or in a store such as s3 or gs"
        )
    if host:
        _refuse(text, "it names a server; leave that out")
    if not path:
        _refuse(text, "it names nothing")
    if scheme == "mlflow-artifacts":
        return InArtifacts(path)
    return _of_run(text, path) if scheme == "runs" else _of_models(text, path)


def _decodes(text: str) -> bool:
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def _split(rest: str) -> tuple[str, str]:
    """Host and path of what follows the scheme."""
    if not rest.startswith("//") or rest.startswith("///"):
        return "", rest
    host, _, path = rest[2:].partition("/")
    return host, path


def _of_run(text: str, path: str) -> OfRun:
    run, _, rest = path.partition("/")
    return OfRun(run, rest) if rest else _refuse(text, "say which folder of the run: 'runs:/<run id>/<path>'")


def _of_models(text: str, path: str) -> OfLoggedModel | OfVersion:
    name, _, rest = path.partition("/")
    if "/" in rest:
        _refuse(text, "a version is 'models:/<name>/<version>'")
    if rest:
        return OfVersion(name, "number" if rest.isdecimal() else "stage", rest)
    if "@" in name:
        model, _, alias = name.rpartition("@")
        return OfVersion(model, "alias", alias)
    return OfLoggedModel(name)


def _refuse(text: str, why: str) -> NoReturn:
    raise Invalid(f"Invalid model version source: '{text[:200]}'", hint=why, field="source")


# --- where that is ---


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A source that was found: the files that lie there now, or the version that it is a copy of."""

    source: str
    run: RunId | None = None
    logged_model: LoggedModelId | None = None
    files: tuple[Artifact, ...] = ()
    root: str = ""
    copied: ModelVersion | None = None

    def tree(self) -> Tree | None:
        """The files as a tree; None when nothing lies there."""
        start = len(self.root) + 1
        leaves = {row.id[start:]: Leaf(digest=row.digest, size_bytes=row.size_bytes) for row in self.files}
        return Tree(files=leaves) if leaves else None


def place(
    reader: Reader, text: str, *, run: str | None, logged_model: str | None, rulings: Mapping[str, Ruling]
) -> Placed:
    """Find a source among what the workspace keeps.

    Args:
        reader: one view.
        text: the client's source.
        run, logged_model: what the client says it belongs to.
        rulings: what rules the alias or stage that the source may name.

    Raises:
        Invalid: the source cannot be one, or does not lie in the run or logged model that the client names.
        NotFound: it names a version, run or logged model that is not there.
    """
    source = read_source(text)
    made = RunId(run) if run else None
    match source:
        case Elsewhere():
            found = _logged(reader, text, logged_model) if logged_model else None
            return Placed(
                source=text,
                run=made or (found.run if found else None),
                logged_model=found.id if found else None,
            )
        case OfLoggedModel(ident):
            if logged_model and logged_model != ident:
                _refuse(text, f"the model_id parameter says {logged_model[:80]!r}")
            model = _logged(reader, text, ident)
            return _folder(reader, text, logged_root(model), made or model.run, model.id)
        case OfVersion():
            return _copied(reader, text, source, run, logged_model, rulings.get(source.model))
        case OfRun(ident, path):
            if ident != run:
                _refuse(text, "the run_id parameter must name the run that the source is of")
            return _folder(reader, text, f"{run_root(_run(reader, text, ident))}/{path}", RunId(ident), None)
        case InArtifacts(path):
            if logged_model:
                model = _logged(reader, text, logged_model)
                _within(text, path, logged_root(model), "model_id")
                return _folder(reader, text, path, made or model.run, model.id)
            if not run:
                _refuse(text, "the run_id parameter must name the run that the source is of")
            _within(text, path, run_root(_run(reader, text, run)), "run_id")
            return _folder(reader, text, path, made, None)


def run_root(run: Run) -> str:
    """The path that a run's artifacts are below."""
    return f"{run.experiment}/{run.id}/artifacts"


def logged_root(model: LoggedModel) -> str:
    """The path that a logged model's artifacts are below."""
    return f"{model.experiment}/models/{model.id}/artifacts"


def _run(reader: Reader, text: str, ident: str) -> Run:
    found = reader.runs.find(ident)
    return found if found is not None else _refuse(text, f"there is no run {ident[:80]!r}")


def _logged(reader: Reader, text: str, ident: str) -> LoggedModel:
    found = reader.logged_models.find(ident)
    if found is None or found.deleted_at is not None:
        _refuse(text, f"there is no logged model {ident[:80]!r}")
    return found


def _within(text: str, path: str, root: str, parameter: str) -> None:
    if path != root and not path.startswith(f"{root}/"):
        _refuse(
            text, f"the {parameter} parameter must name what the source is of; its artifacts are below {root}"
        )


def _folder(reader: Reader, text: str, root: str, run: RunId | None, model: LoggedModelId | None) -> Placed:
    files: list[Artifact] = []
    while len(files) <= MOST_FILES:
        page = reader.files.under(root, after=files[-1].id if files else "", limit=1000)
        files += page
        if len(page) < 1000:
            break
    return Placed(source=text, run=run, logged_model=model, files=tuple(files), root=root)


def _copied(
    reader: Reader,
    text: str,
    source: OfVersion,
    run: str | None,
    logged_model: str | None,
    ruling: Ruling | None,
) -> Placed:
    model = model_of(reader, source.model)
    if is_prompt(reader, model.id):
        _refuse(text, "a prompt is no model")
    version = _version(reader, source, ruling)
    if (run and run != version.run) or (logged_model and logged_model != version.logged_model):
        _refuse(text, "the run_id and model_id parameters must be those of the version that is copied")
    return Placed(
        source=f"models:/{version.model}/{version.number}",
        run=version.run,
        logged_model=version.logged_model,
        copied=version,
    )


def _version(reader: Reader, source: OfVersion, ruling: Ruling | None) -> ModelVersion:
    if source.way == "number":
        return version_of(reader, source.model, source.value)
    if source.way == "alias":
        return by_alias(reader, source.model, source.value, ruling)
    found = latest_of(
        reader, source.model, () if source.value.lower() == "latest" else (source.value,), ruling
    )
    if not found:
        raise NotFound(f"model {source.model!r} has no version in stage {source.value[:80]!r}")
    return max(found, key=lambda version: version.number)


# --- registering ---


def register_placed(
    tx: Transaction,
    model: Model,
    placed: Placed,
    tree: Digest | None,
    *,
    actor: ActorId,
    at: datetime,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    run_link: str | None = None,
) -> ModelVersion:
    """Make what a client named the next version of a model. Every call makes one.

    Args:
        tx: a transaction.
        model: the registered model.
        placed: where the source was found.
        tree: digest of its tree, whose bytes are a blob; None when nothing of it is held.
        actor: who is on record for it.
        at: wall time.
        description, tags, run_link: the client's words.

    Raises:
        Invalid: a tag cannot be one.
    """
    copied = placed.copied
    if copied is not None:
        plain = replace(
            copied, stage="None", description=None, changed_at=at, deleted_at=None, rejected_because=None
        )
        fresh = replace(plain, source=placed.source, rev=0, state="candidate", actor=actor, created_at=at)
    else:
        digest = tree or digest_value("andon.address/1", placed.source)
        fresh = ModelVersion(
            id=ModelVersionId(""), model=model.id, number=0, digest=digest, state="candidate", actor=actor, created_at=at,
            changed_at=at, run=placed.run, logged_model=placed.logged_model, source=placed.source, held=tree is not None,
        )  # fmt: skip
    return _register(tx, model, fresh, description=description, tags=tags, run_link=run_link)


def register_prompt(
    tx: Transaction,
    model: Model,
    source: str,
    *,
    actor: ActorId,
    at: datetime,
    description: str | None = None,
    tags: Mapping[str, str],
) -> ModelVersion:
    """Make a text the next version of a prompt. It has no files: its text is a tag, and the digest is the text's.

    Raises:
        Invalid: a prompt has no such source, or a tag cannot be one.
    """
    if source not in PROMPT_SOURCES:
        _refuse(source, "a prompt has no files")
    version = ModelVersion(
        id=ModelVersionId(""), model=model.id, number=0, digest=digest_bytes(tags.get(PROMPT_TEXT, "").encode()),
        state="candidate", actor=actor, created_at=at, changed_at=at, source=source, held=False,
    )  # fmt: skip
    return _register(tx, model, version, description=description, tags=tags, run_link=None)


def says_prompt(tags: Mapping[str, str]) -> bool:
    """Whether tags make something a prompt."""
    return tags.get(PROMPT, "").lower() == "true"


def _register(
    tx: Transaction,
    model: Model,
    fresh: ModelVersion,
    *,
    description: str | None,
    tags: Mapping[str, str] | None,
    run_link: str | None,
) -> ModelVersion:
    check_tags(tags or {})
    newest = tx.model_versions.select({"model": model.id}, order=("-number",), limit=1)
    version = tx.model_versions.add(
        replace(
            fresh, id=ModelVersionId(new_id("model_version")), model=model.id, number=newest[0].number + 1 if newest else 1,
            description=description or None,
        )
    )  # fmt: skip
    said = {**(tags or {}), **({RUN_LINK: run_link} if run_link else {})}
    tx.version_tags.put(owner(version), said)
    touch(tx, model.id, fresh.created_at)
    if version.logged_model is not None:
        _tell_logged(tx, version)
    tx.ledger.append(
        EventDraft(
            kind="model_version.registered", actor=version.actor, at=version.created_at,
            subject=node("model_version", version.id),
            inputs=(
                *([node("run", version.run)] if version.run else []),
                *([node("logged_model", version.logged_model)] if version.logged_model else []),
                *([node("dataset_version", version.dataset_version)] if version.dataset_version else []),
            ),
            data_at=version.data_until,
            facts={"model": version.model, "number": version.number, "digest": version.digest, "held": version.held},
        )
    )  # fmt: skip
    return version


def _tell_logged(tx: Transaction, version: ModelVersion) -> None:
    """Add the version to the list that its logged model carries for clients."""
    found = tx.logged_models.find(version.logged_model or "")
    if found is None:
        return
    text = tx.logged_model_tags.of([found.id])[found.id].get(LOGGED_VERSIONS, "[]")
    try:
        known = msgspec.json.decode(text, type=list[dict[str, str | int]])
    except msgspec.DecodeError:
        known = []
    this: dict[str, str | int] = {"name": version.model, "version": version.number}
    listed = msgspec.json.encode([*(each for each in known if each != this), this]).decode()
    tx.logged_model_tags.put(owner(found), {LOGGED_VERSIONS: listed})


# --- reading a version's files ---


class VersionFile(NamedTuple):
    """A file of a version: bytes of a blob, or bytes that are made of the version when somebody asks."""

    size_bytes: int
    digest: Digest | None
    data: bytes | None = None


def download_uri(version: ModelVersion) -> str:
    """Where clients load a version from: a place that never changes, or its own address when it is not held."""
    return f"mlflow-artifacts:/{ROOT}/{version.id}" if version.held else version.source or ""


class VersionFiles:
    """The files of versions, by path. Safe to share between threads; keeps the manifests of those asked for last."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs
        self._kept: OrderedDict[str, Mapping[str, VersionFile]] = OrderedDict()
        self._lock = Lock()

    def at(self, path: str) -> VersionFile | list[tuple[str, VersionFile | None]]:
        """What lies at `registry/<version>/<path>`: a file, or the names in a folder, each with its file if it is one.

        Args:
            path: decoded once; it is looked up among the version's own paths and is nothing but a name.

        Raises:
            NotFound: nothing lies there, or the version was deleted or is not held.
            Corrupt: the version's manifest does not match its digest.
        """
        root, _, rest = path.partition("/")
        ident, _, below = rest.partition("/")
        if root != ROOT or not ident:
            raise NotFound(f"there is nothing at {path[:200]!r}")
        files, below = self.of(ident), below.strip("/")
        if below in files:
            return files[below]
        found = list(_children(files, below))
        if not found and below:
            raise NotFound(f"version {ident} has no file or folder {below[:200]!r}")
        return found

    def of(self, ident: str) -> Mapping[str, VersionFile]:
        """All files of a version by path.

        Raises:
            NotFound: there is no such version, it was deleted, or its files are not held.
            Corrupt: the version's manifest does not match its digest.
        """
        version = self._store.read(lambda reader: reader.model_versions.find(ident))
        if version is None or version.deleted_at is not None:
            raise NotFound(f"there is no version {ident[:80]!r}")
        if not version.held:
            raise NotFound(
                f"{version.model}/{version.number} is kept as an address only: its files are not held"
            )
        with self._lock:
            if ident in self._kept:
                self._kept.move_to_end(ident)
                return self._kept[ident]
        files = files_of(self._blobs, version)
        with self._lock:
            self._kept[ident] = files
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return files


_MOST_KEPT = 64


class _Manifest(msgspec.Struct, frozen=True):
    """What the manifests of trees and packages have in common."""

    format: str


def files_of(blobs: Blobs, version: ModelVersion) -> Mapping[str, VersionFile]:
    """The files of a held version by path: those of its tree, or of its package with what other tools need to load it.

    Raises:
        NotFound: its manifest is not stored.
        Corrupt: its manifest does not match its digest, or is none.
    """
    data = blobs.get(version.digest)
    try:
        said = msgspec.json.decode(data, type=_Manifest)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the manifest of {version.model}/{version.number} cannot be read: {error}") from None
    if said.format == package.FORMAT:
        return _package_files(blobs, version, data)
    tree = decode_tree(data)
    return {path: VersionFile(leaf.size_bytes, leaf.digest) for path, leaf in tree.files.items()}


def _package_files(blobs: Blobs, version: ModelVersion, data: bytes) -> Mapping[str, VersionFile]:
    manifest = package.read_manifest(data)
    made = mlmodel.files(blobs, version, manifest)
    return {
        **{name: VersionFile(len(text), None, text) for name, text in made.items()},
        **{name: VersionFile(blobs.size(digest), digest) for name, digest in manifest.files.items()},
        package.MANIFEST: VersionFile(len(data), version.digest),
    }


def _children(files: Mapping[str, VersionFile], folder: str) -> Iterator[tuple[str, VersionFile | None]]:
    """Names directly in a folder, in order."""
    start = f"{folder}/" if folder else ""
    names: dict[str, VersionFile | None] = {}
    for path, file in files.items():
        if path.startswith(start):
            name, deeper, _ = path[len(start) :].partition("/")
            names[name] = None if deeper else file
    yield from sorted(names.items())
