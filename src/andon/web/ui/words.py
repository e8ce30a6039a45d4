"""The ledger in words: what each kind of event says to a person, and what its subject is called.

A test holds PHRASES against the kinds of `core.events`, so a new kind cannot be left without words.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from andon.core.events import Event, Fact
from andon.core.ids import Node, split_node
from andon.governance.access import actor_name
from andon.store.ports import Reader

Tone = Literal["good", "watch", "bad", "plain"]

PHRASES: Mapping[str, tuple[Tone, str]] = {
    "workspace.created": ("plain", "made the workspace"),
    "workspace.restored": ("watch", "restored the workspace from a backup"),
    "workspace.migrated": ("plain", "brought the database to a newer schema"),
    "actor.created": ("plain", "was first seen"),
    "line.changed": ("plain", "changed the policy or code of {subject}"),
    "dataset.committed": ("plain", "stored {subject}: it passed its contract"),
    "dataset.blocked": ("bad", "stored {subject}: it broke its contract"),
    "contract.inferred": ("plain", "inferred a contract from the first data"),
    "experiment.created": ("plain", "made {subject}"),
    "experiment.changed": ("plain", "renamed {subject}"),
    "experiment.deleted": ("watch", "deleted {subject}"),
    "experiment.restored": ("plain", "restored {subject}"),
    "run.created": ("plain", "created {subject}"),
    "run.started": ("plain", "started {subject}"),
    "run.requeued": ("watch", "queued {subject} again: its worker was lost"),
    "run.sealed": ("plain", "finished {subject}"),
    "run.deleted": ("plain", "deleted {subject}"),
    "run.restored": ("plain", "restored {subject}"),
    "logged_model.created": ("plain", "began to save {subject}"),
    "logged_model.deleted": ("plain", "deleted {subject}"),
    "artifacts.deleted": ("plain", "deleted artifacts of {subject}"),
    "model.created": ("plain", "made {subject}"),
    "model.changed": ("plain", "changed {subject}"),
    "model.deleted": ("watch", "deleted {subject}"),
    "model_version.registered": ("plain", "registered {subject}"),
    "model_version.eligible": ("good", "found {subject} fit for release: it passed its gates"),
    "model_version.rejected": ("watch", "rejected {subject}: it failed its gates"),
    "model_version.approved": ("good", "approved {subject}"),
    "model_version.retired": ("plain", "retired {subject}"),
    "model_version.deleted": ("watch", "deleted {subject}"),
    "alias.moved": ("plain", "moved the alias {alias} of {subject} to v{number}"),
    "alias.deleted": ("plain", "deleted the alias {alias} of {subject}"),
    "stage.moved": ("plain", "moved v{number} of {subject} to stage {stage}"),
    "verdict.given": ("plain", "judged {subject}"),
    "approval.given": ("good", "approved {subject}"),
    "release.requested": ("plain", "asked for the release of {subject}"),
    "release.judging": ("plain", "began to judge {subject}"),
    "release.waiting": ("watch", "put {subject} on hold until it is approved"),
    "release.rolling": ("plain", "let {subject} take traffic"),
    "release.live": ("good", "made {subject} live"),
    "release.superseded": ("plain", "took {subject} off: a newer release is live"),
    "release.undone": ("bad", "undid {subject}"),
    "release.refused": ("watch", "refused {subject}"),
    "release.withdrawn": ("watch", "withdrew {subject}"),
    "rollout.advanced": ("plain", "gave {subject} {percent} % of requests"),
    "rollout.paused": ("watch", "paused the rollout of {subject}"),
    "rollout.resumed": ("plain", "let the rollout of {subject} go on"),
    "rollout.full": ("good", "gave {subject} all requests"),
    "rollout.undone": ("bad", "sent all traffic back from {subject}"),
    "route.changed": ("plain", "changed the route of {subject}"),
    "route.held": ("watch", "sent {subject} back and holds it there"),
    "override.adopted": ("watch", "took an undo made at a gateway of {subject} into the ledger"),
    "segment.sealed": ("plain", "sealed a stretch of the prediction log"),
    "alert.opened": ("bad", "raised an alert: {subject}"),
    "alert.closed": ("good", "closed the alert {subject}"),
    "trigger.fired": ("plain", "asked for a run of {subject}"),
    "trigger.refused": ("plain", "started no run of {subject}"),
    "access.denied": ("bad", "was refused: the role {role} may not {permission}"),
    "backup.made": ("plain", "made a backup"),
    "retention.applied": ("plain", "removed for good what was deleted long ago"),
}

QUIET = frozenset(
    {"segment.sealed", "route.changed", "release.judging", "release.rolling", "verdict.given", "rollout.undone",
     "rollout.full", "release.superseded", "model_version.registered", "run.started", "contract.inferred", "actor.created",
     "model.created", "logged_model.created"}
)  # fmt: skip
"""Kinds that say again, or in more detail, what another event of the same moment says: the page leaves them to the audit."""


_REASONED = frozenset({"release.undone", "release.refused", "release.withdrawn"})


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One event as a sentence: `who` did `what`, and `why` where a reason was given. `subject` is the lineage node."""

    seq: int
    at: datetime
    kind: str
    tone: Tone
    who: str
    what: str
    why: str
    subject: Node


class Names:
    """What things are called, looked up once each within one view of the store."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[str, str] = {}

    def actor(self, ident: str) -> str:
        """What people call an actor."""
        key = f"actor:{ident}"
        if key not in self._known:
            self._known[key] = actor_name(self._reader, ident)
        return self._known[key]

    def node(self, node: Node) -> str:
        """A node of the lineage graph as people say it; its id when it is not there any more."""
        if node not in self._known:
            kind, ident = split_node(node)
            lookup = getattr(self, f"_{kind}", None)
            self._known[node] = (lookup(ident) if lookup is not None else None) or ident
        return self._known[node]

    def reason(self, event: Event) -> str:
        """Why a release was undone, refused or withdrawn, or an alert closed; nothing for other events."""
        kind, ident = split_node(event.subject)
        if event.kind in _REASONED and (release := self._reader.releases.find(ident)) is not None:
            return release.because or ""
        if (
            kind == "alert"
            and event.kind == "alert.closed"
            and (alert := self._reader.alerts.find(ident)) is not None
        ):
            return alert.closed_because or ""
        return ""

    def _actor(self, ident: str) -> str | None:
        return self.actor(ident)

    def _line(self, ident: str) -> str | None:
        return f"line {ident}"

    def _endpoint(self, ident: str) -> str | None:
        return ident

    def _release(self, ident: str) -> str | None:
        row = self._reader.releases.find(ident)
        return None if row is None else f"{row.model} v{row.number}"

    def _rollout(self, ident: str) -> str | None:
        row = self._reader.rollouts.find(ident)
        return None if row is None else self._release(row.release)

    def _model_version(self, ident: str) -> str | None:
        row = self._reader.model_versions.find(ident)
        return None if row is None else f"{row.model} v{row.number}"

    def _verdict(self, ident: str) -> str | None:
        row = self._reader.verdicts.find(ident)
        return None if row is None else self._model_version(row.model_version)

    def _approval(self, ident: str) -> str | None:
        row = self._reader.approvals.find(ident)
        return None if row is None else self._release(row.release)

    def _run(self, ident: str) -> str | None:
        row = self._reader.runs.find(ident)
        return (
            None if row is None else f"run {short(ident)} of {row.line or self._experiment(row.experiment)}"
        )

    def _experiment(self, ident: str) -> str | None:
        row = self._reader.experiments.find(ident)
        return None if row is None else f"experiment {row.name}"

    def _logged_model(self, ident: str) -> str | None:
        row = self._reader.logged_models.find(ident)
        return None if row is None else f"the saved model {row.name}"

    def _model(self, ident: str) -> str | None:
        return f"model {ident}"

    def _dataset_version(self, ident: str) -> str | None:
        found = self._reader.dataset_versions.select({"manifest": ident}, order=("number",), limit=1)
        return f"{found[0].dataset}@{found[0].number}" if found else None

    def _alert(self, ident: str) -> str | None:
        row = self._reader.alerts.find(ident)
        return None if row is None else f"{row.monitor} of {row.line}"

    def _trigger(self, ident: str) -> str | None:
        row = self._reader.triggers.find(ident)
        return None if row is None else f"{row.line}, {REASONS[row.kind]}"


REASONS: Mapping[str, str] = {
    "manual": "by hand",
    "data": "because of new data",
    "drift": "because of input drift",
    "performance": "because of falling performance",
    "code": "because of changed code",
    "cron": "on schedule",
}
"""Why a run was started, by its trigger's kind."""


class _Facts(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return "?"


def describe(event: Event, names: Names) -> Change:
    """An event in words."""
    tone, phrase = PHRASES[event.kind]
    facts: Mapping[str, Fact] = event.facts
    what = phrase.format_map(_Facts({**facts, "subject": names.node(event.subject)}))
    return Change(
        seq=event.seq, at=event.at, kind=event.kind, tone=tone, who=names.actor(event.actor), what=what,
        why=names.reason(event), subject=event.subject,
    )  # fmt: skip


def short(ident: str) -> str:
    """The end of an id: its random part, which tells ids of the same second apart.

    >>> short("0192f0c1d2e3747f8a9b0c1d2e3f4a5b")
    '2e3f4a5b'
    """
    return ident[-8:]
