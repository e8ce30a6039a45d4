"""Artifacts: files that clients keep beside their runs and models, found by names that are paths and nothing more.

A path is the key of a row, and the row names bytes by their digest. No text of a client is ever part of a path on disk, so
the rules here are not what keeps a file of this machine safe: they keep a name from meaning two places, here or where it is
downloaded to.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from itertools import takewhile
from urllib.parse import unquote

from msgspec.structs import replace

from andon.core.canonical import Digest
from andon.core.entities import Artifact, Run
from andon.core.errors import Invalid, NotFound, TooLarge
from andon.core.events import EventDraft
from andon.core.ids import ActorId, Node, node
from andon.core.tree import MOST_FILES, Leaf, Tree
from andon.store.ports import Blobs, Reader, Transaction
from andon.tracking.runs import check_own, note_late_write

LONGEST = 1000
"""Bytes of a path, and `LONGEST_PART` of what stands between two slashes."""
LONGEST_PART = 255
PAGE = 1000
_STRETCH = 16
_DRIVE = re.compile(r"[A-Za-z]:\Z")
_OF_RUN = re.compile(r"[^/]+/([0-9a-f]{32})(?:/|\Z)")
_OF_MODEL = re.compile(r"[^/]+/models/(m-[0-9a-f]{32})(?:/|\Z)")


def run_root(run: Run) -> str:
    """The folder of a run's artifacts."""
    return f"{run.experiment}/{run.id}/artifacts"


def model_root(experiment: str, model: str) -> str:
    """The folder of a logged model's artifacts."""
    return f"{experiment}/models/{model}/artifacts"


def check_path(path: str) -> str:
    """A file's path, if it names one place only.

    Args:
        path: decoded once, as it came; capitals, accents and their composition are kept as they are.

    Raises:
        Invalid: it is empty, absolute or too long, ends in a slash, has `.`, `..`, nothing or a drive letter between two
            slashes, a backslash, a `#` or a control character in it, or would have one of these if it were decoded again.

    >>> check_path("0/ab/artifacts/plots/a+b 100%.png")
    '0/ab/artifacts/plots/a+b 100%.png'
    >>> check_path("0/../../etc/passwd")
    Traceback (most recent call last):
    andon.core.errors.Invalid: Invalid path '0/../../etc/passwd': it leads out of its folder
    """
    if len(path) > LONGEST or len(path.encode(errors="replace")) > LONGEST:
        raise Invalid(f"Invalid path {path[:60]!r}...: it has more than {LONGEST} bytes", field="path")
    seen = path
    while True:
        fault = _fault(seen) or ("it has more folders" if seen.count("/") > path.count("/") else "")
        if fault:
            again = "" if seen == path else ", decoded once more"
            raise Invalid(f"Invalid path {path[:200]!r}: {fault}{again}", field="path")
        decoded = unquote(seen)
        if decoded == seen:
            return path
        seen = decoded


def check_folder(path: str | None) -> str:
    """A folder's path, empty for the top; a slash at its end and parts that are `.` mean nothing.

    Raises:
        Invalid: see `check_path`.

    >>> check_folder("plots/./"), check_folder("."), check_folder(None)
    ('plots', '', '')
    """
    given = (path or "").removesuffix("/")
    if path and path.startswith("/"):
        raise Invalid(f"Invalid path {path[:200]!r}: it is absolute", field="path")
    plain = "/".join(part for part in given.split("/") if part != ".")
    return check_path(plain) if plain else ""


def _fault(path: str) -> str:
    if not path or path.endswith("/"):
        return "it names no file"
    if path.startswith("/"):
        return "it is absolute"
    if "\\" in path or "#" in path:
        return r"'\' and '#' are not kept in names, since clients read them as something else"
    if "\ufffd" in path or any(unicodedata.category(each) in ("Cc", "Cs") for each in path):
        return "it has a control character in it, or is not UTF-8"
    return next(filter(None, map(_part_fault, path.split("/"))), "")


def _part_fault(part: str) -> str:
    if not part:
        return "it has two slashes in a row"
    if len(part.encode()) > LONGEST_PART:
        return f"a part of it has more than {LONGEST_PART} bytes"
    if _DRIVE.match(part):
        return "it names a drive"
    if not part.partition(";")[0].strip(" ."):  # '..', '..;x' and '.. ' are '..' to somebody
        return "it leads out of its folder" if part.startswith("..") else "a part of it is no name"
    return ""


def put_artifact(
    tx: Transaction, path: str, digest: Digest, size_bytes: int, *, actor: ActorId, at: datetime
) -> Artifact:
    """Let a path name bytes that are stored, in the place of those it named. The same bytes again change nothing.

    As with MLflow, nobody asks whether there is a run of that id, or whether it is deleted.

    Raises:
        Invalid: a file would be a folder as well, or the run is a line's.
    """
    found = tx.artifacts.find(path)
    if found is not None and found.digest == digest:
        return found
    run = _run_of(tx, path)
    if found is None:
        _check_place(tx, path)
        row = tx.artifacts.add(
            Artifact(id=path, digest=digest, size_bytes=size_bytes, actor=actor, changed_at=at)
        )
    else:
        row = tx.artifacts.change(
            replace(found, digest=digest, size_bytes=size_bytes, actor=actor, changed_at=at)
        )
    if run is not None:
        note_late_write(tx, run)
    return row


def check_writable(reader: Reader, path: str) -> None:
    """Whether `put_artifact` would take a path just now; asked before bytes come in.

    Raises:
        Invalid: it would not.
    """
    _run_of(reader, path)
    if reader.artifacts.find(path) is None:
        _check_place(reader, path)


def find_artifact(reader: Reader, path: str) -> Artifact:
    """The file of a path.

    Raises:
        NotFound: there is none.
        Invalid: it is a folder.
    """
    found = reader.artifacts.find(path)
    if found is not None:
        return found
    if reader.files.under(path, limit=1):
        raise Invalid(f"{path!r} is a folder, not a file", hint="list it", field="path")
    raise NotFound(f"No such artifact: {path!r}")


def delete_artifacts(tx: Transaction, path: str, *, actor: ActorId, at: datetime) -> int:
    """Delete a file, or a folder with all in it; how many files there were. Their bytes stay until retention takes them.

    Raises:
        Invalid: the path holds the artifacts of more than one run or model, or those of a line's run.
    """
    subject, run = _subject(tx, path)
    count = tx.files.remove_under(path)
    if tx.artifacts.find(path) is not None:
        tx.artifacts.remove(path)
        count += 1
    if count:
        tx.ledger.append(
            EventDraft(
                kind="artifacts.deleted", actor=actor, at=at, subject=subject, note=path, facts={"files": count}
            )
        )  # fmt: skip
        if run is not None:
            note_late_write(tx, run)
    return count


def list_folder(
    reader: Reader, folder: str, *, after: str = "", limit: int = PAGE
) -> list[tuple[str, Artifact | None]]:
    """Names of what lies directly in a folder, in order, each with its artifact if it is a file. Absent: nothing."""
    start, found = f"{folder}/" if folder else "", list[tuple[str, Artifact | None]]()
    while len(found) < limit:
        step = reader.files.children(folder, after=found[-1][0] if found else after, limit=1)
        found += step
        if not step:
            break
        file, stretch = step[0][1], _STRETCH
        while file is not None and len(found) < limit:  # files in a row are one query, a folder is a seek
            count = min(stretch, limit - len(found))
            rows = reader.files.under(folder, after=file.id, limit=count)
            files = list(takewhile(lambda row: "/" not in row.id.removeprefix(start), rows))
            found += [(row.id.removeprefix(start), row) for row in files]
            file, stretch = (files[-1] if len(files) == count else None), stretch * 2
    return found


def artifact_tree(reader: Reader, folder: str) -> Tree:
    """All files in a folder and below, as one value; empty when there are none.

    Raises:
        TooLarge: there are more than 100,000.
    """
    start, leaves, after = f"{folder}/", dict[str, Leaf](), ""
    while page := reader.files.under(folder, after=after, limit=PAGE):
        for row in page:
            leaves[row.id.removeprefix(start)] = Leaf(digest=row.digest, size_bytes=row.size_bytes)
        after = page[-1].id
        if len(leaves) > MOST_FILES:
            raise TooLarge(
                f"there are more than {MOST_FILES:,} files in {folder!r}", hint="pack them into an archive"
            )
    return Tree(files=leaves)


def seal_tree(blobs: Blobs, tree: Tree) -> Digest:
    """Keep a tree's manifest as a blob, whose digest names the folder's content from now on.

    Raises:
        StorageFull: it was not kept.
    """
    return blobs.put(tree.encode())


def _check_place(reader: Reader, path: str) -> None:
    """Refuse a file where a folder is, or below a file."""
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts))]
    if above and (taken := reader.artifacts.select({"id": above}, limit=1)):
        raise Invalid(f"{taken[0].id!r} is a file, so {path!r} cannot be in it", field="path")
    if reader.files.under(path, limit=1):
        raise Invalid(f"{path!r} is a folder, so no file can have that name", field="path")


def _run_of(reader: Reader, path: str) -> Run | None:
    """The run that a path belongs to, if there is one, and clients may write to it."""
    found = _OF_RUN.match(path)
    run = None if found is None else reader.runs.find(found[1])
    if run is not None:
        check_own(run)
    return run


def _subject(reader: Reader, path: str) -> tuple[Node, Run | None]:
    """What loses its artifacts."""
    if model := _OF_MODEL.match(path):
        return node("logged_model", model[1]), None
    if found := _OF_RUN.match(path):
        return node("run", found[1]), _run_of(reader, path)
    first, _, rest = path.partition("/")
    if first.isdigit() and rest in ("", "models"):
        raise Invalid(
            f"{path!r} holds the artifacts of many runs or models",
            hint="delete those of one: <experiment>/<run>/artifacts",
            field="path",
        )
    return node("workspace", "workspace"), None
