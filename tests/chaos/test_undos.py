"""Undos at gateways, more of them than anybody makes in a year."""

from __future__ import annotations

import pytest

from andon.core.ids import OverrideId, ReleaseId, new_id
from andon.core.routes import Override, effective, encode_override
from andon.rollout import journal, route_file
from andon.store.files import append_line
from andon.store.keys import route_key
from tests.chaos.desk import Desk
from tests.chaos.line import NAME

pytestmark = pytest.mark.chaos

MANY = 150


@pytest.mark.capability("E6")
def test_every_undo_at_a_gateway_is_adopted_once_however_many_there_were(desk: Desk) -> None:
    key = route_key(desk.ws.layout)
    for _ in range(MANY):
        override = Override(
            id=OverrideId(new_id("override")), endpoint=NAME, epoch=1, generation=100, release=ReleaseId("rel_gone"),
            actor="os:0", at_us=1,
        )  # fmt: skip
        append_line(desk.ws.layout.overrides, encode_override(override, key))

    for _ in range(3):
        desk.reconciler.step()

    adopted = desk.ws.store.read(lambda reader: reader.ledger.after(0, kinds=("override.adopted",)))
    route = desk.ws.store.read(route_file).endpoints[NAME]
    assert [event.facts["override"] for event in adopted] == [one.id for one in journal(desk.ws.layout)]
    assert effective(route, journal(desk.ws.layout)) == route
