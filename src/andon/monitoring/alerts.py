"""Alerts: opened with their evidence, closed with a reason. At most one is open for each (line, monitor, subject)."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from andon.core.canonical import Digest
from andon.core.entities import Alert
from andon.core.events import EventDraft
from andon.core.ids import ActorId, AlertId, Node, new_id, node
from andon.core.states import advance
from andon.store.ports import Transaction


def open_alert(
    tx: Transaction, *, line: str, monitor: str, subject: Node, summary: str, evidence: Digest, actor: ActorId, at: datetime,
    data_at: datetime | None,
) -> Alert:  # fmt: skip
    """Raise an alert, or give the one that is open already."""
    known = tx.alerts.select({"line": line, "monitor": monitor, "subject": subject, "state": "open"}, limit=1)
    if known:
        return known[0]
    ident = AlertId(new_id("alert"))
    tx.ledger.append(
        EventDraft(
            kind="alert.opened", actor=actor, at=at, subject=node("alert", ident), inputs=(subject, node("line", line)),
            facts={"monitor": monitor, "evidence": evidence}, data_at=data_at, note=summary,
        )
    )  # fmt: skip
    return tx.alerts.add(
        Alert(
            id=ident, line=line, monitor=monitor, subject=subject, state="open", summary=summary, evidence=evidence,
            created_at=at, data_at=data_at,
        )
    )  # fmt: skip


def close_alert(tx: Transaction, alert: Alert, *, because: str, actor: ActorId, at: datetime) -> Alert:
    """Close an alert."""
    advance("alert", f"alert {alert.id}", alert.state, "closed")
    tx.ledger.append(
        EventDraft(
            kind="alert.closed",
            actor=actor,
            at=at,
            subject=node("alert", alert.id),
            facts={"monitor": alert.monitor},
            note=because,
        )
    )
    return tx.alerts.change(replace(alert, state="closed", closed_at=at, closed_because=because))
