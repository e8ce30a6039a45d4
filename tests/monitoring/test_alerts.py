"""Alerts: one open for each line, monitor and subject; opened with evidence, closed with a reason, both in the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from andon.core.canonical import digest_bytes
from andon.core.entities import Alert
from andon.core.errors import InvalidTransition
from andon.core.ids import node
from andon.monitoring.alerts import close_alert, open_alert
from tests.monitoring.world import START, MonitoringWorld

EVIDENCE = digest_bytes(b"evidence")
SUBJECT = node("model_version", "mv_1")


def opened(world: MonitoringWorld, **changes: Any) -> Alert:
    settings: dict[str, Any] = {
        "line": "churn", "monitor": "drift", "subject": SUBJECT, "summary": "x moved", "evidence": EVIDENCE, "data_at": START,
    }  # fmt: skip
    return world.registry.do(open_alert, **{**settings, **changes})


def test_an_alert_is_a_row_and_an_event_that_names_its_evidence(world: MonitoringWorld) -> None:
    alert = opened(world)

    (event,) = world.registry.events(node("alert", alert.id))
    assert (alert.state, alert.summary, alert.data_at) == ("open", "x moved", START)
    assert event.kind == "alert.opened"
    assert event.inputs == (SUBJECT, node("line", "churn"))
    assert event.facts == {"monitor": "drift", "evidence": EVIDENCE}
    assert event.data_at == START


def test_an_alert_that_is_open_is_not_opened_again(world: MonitoringWorld) -> None:
    first = opened(world)

    again = opened(world, summary="x moved further")

    assert again == first
    assert world.registry.kinds(node("alert", first.id)) == ["alert.opened"]


@pytest.mark.parametrize("change", [{"monitor": "auc"}, {"subject": node("model_version", "mv_2")}])
def test_another_monitor_or_subject_has_an_alert_of_its_own(
    world: MonitoringWorld, change: dict[str, Any]
) -> None:
    assert opened(world).id != opened(world, **change).id


def test_a_closed_alert_says_why_and_stays_closed(world: MonitoringWorld) -> None:
    alert = opened(world)

    closed = world.registry.do(close_alert, alert, because="another version went live")

    assert (closed.state, closed.closed_because) == ("closed", "another version went live")
    assert closed.closed_at is not None
    assert world.registry.kinds(node("alert", alert.id)) == ["alert.opened", "alert.closed"]
    with pytest.raises(InvalidTransition, match="is closed and cannot become closed"):
        world.registry.do(close_alert, closed, because="again")


def test_what_comes_back_after_it_was_closed_is_a_new_alert(world: MonitoringWorld) -> None:
    first = opened(world)
    world.registry.do(close_alert, first, because="it is over")

    assert opened(world).id != first.id
