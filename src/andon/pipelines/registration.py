"""A project folder becomes a line: its policy and code are stored by content, and the next run uses them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from andon.core.entities import Line, Trigger
from andon.core.errors import PolicyError
from andon.core.events import EventDraft
from andon.core.ids import ActorId, node
from andon.core.policy import FILE, Policy, SourcePolicy, read_policy
from andon.data.sources import find_files
from andon.pipelines.code import snapshot_code
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.gates import check_gate
from andon.store.ports import Reader, Transaction


def register_line(ws: OpenWorkspace, folder: Path, actor: ActorId) -> Line:
    """Make the line of a project folder what its files say now. The same files again change nothing.

    Raises:
        PolicyError: `andon.toml` is missing or malformed, or asks for what is not there.
    """
    return ws.store.write(_change(ws, folder, actor))


def run_folder(ws: OpenWorkspace, folder: Path, actor: ActorId, *, faults: Sequence[str] = ()) -> Trigger:
    """Register a project folder and ask for a run of its line, at once: so its change does not start a run of its own too.

    Raises:
        PolicyError: as `register_line`.
    """
    change = _change(ws, folder, actor)
    return ws.store.write(lambda tx: ws.request(tx, change(tx).id, actor, tuple(faults)))


def _change(ws: OpenWorkspace, folder: Path, actor: ActorId) -> Callable[[Transaction], Line]:
    """What a transaction has to write of a folder; its files are read, checked and stored before."""
    policy = read_policy(folder)
    _check_entry(policy, folder)
    check_gate(policy.gate)
    code = snapshot_code(folder, ws.blobs, but=policy.source.contract)
    digest = ws.blobs.put(policy.text.encode())

    def work(tx: Transaction) -> Line:
        _check_people(tx, policy, folder)
        at = ws.clock.now()
        row = tx.lines.find(policy.name)
        fresh = Line(
            id=policy.name,
            folder=str(folder.absolute()),
            policy=digest,
            code=code,
            actor=actor,
            changed_at=at,
        )
        if row is not None:
            if (row.policy, row.code, row.folder) == (digest, code, fresh.folder):
                return row
            fresh = msgspec.structs.replace(fresh, rev=row.rev, watermark=row.watermark)
        tx.ledger.append(
            EventDraft(
                kind="line.changed", actor=actor, at=at, subject=node("line", policy.name),
                inputs=(node("policy", digest), node("code", code)), facts={"policy": digest, "code": code},
            )
        )  # fmt: skip
        return tx.lines.add(fresh) if row is None else tx.lines.change(fresh)

    return work


def _check_people(reader: Reader, policy: Policy, folder: Path) -> None:
    """Refuse a policy that asks for more approvals than there are people who could give them: an author's never counts."""
    people = reader.actors.count({"kind": "person"})
    if policy.release.approvals >= max(people, 1):
        raise PolicyError(
            f"{folder / FILE}: release.approvals is {policy.release.approvals}, which a workspace of"
            f" {'one person' if people <= 1 else f'{people} people'} cannot satisfy: an author's own word never counts",
            hint="set it to 0, or let more people into the workspace first",
        )


def source_fingerprint(folder: Path, source: SourcePolicy) -> str | None:
    """What a file source holds just now, as one hash; None when it is not there or not made of files."""
    if source.source.startswith("python:"):
        return None
    state = hashlib.sha256()
    try:
        for path in find_files(source.source, folder):
            state.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    except OSError:
        return None
    return state.hexdigest()


def _check_entry(policy: Policy, folder: Path) -> None:
    module = policy.entry.partition(":")[0].replace(".", "/")
    if not (folder / f"{module}.py").is_file() and not (folder / module / "__init__.py").is_file():
        raise PolicyError(
            f"{folder / FILE}: the entry {policy.entry!r} cannot be imported: there is no {module}.py in {folder}",
            hint="[line] entry is 'module:function' of a file in the project folder",
        )
    if "data" in policy.retrain.when and policy.source.source.startswith("python:"):
        raise PolicyError(
            f"{folder / FILE}: retrain.when has 'data', and a python source cannot say whether it has new rows",
            hint="use 'performance' or 'drift', or a file source",
        )
