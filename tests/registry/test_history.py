"""What was live when, by whom and why."""

from __future__ import annotations

from typing import Any

import pytest

from andon.core.entities import ModelVersion, Release
from andon.core.errors import NotFound
from andon.core.ids import ActorId
from andon.registry.history import History, Stay, history
from andon.registry.models import (
    delete_alias,
    delete_version,
    ensure_model,
    move_stage,
    rename_model,
    set_alias,
)
from andon.registry.releases import approve, go_live, judging, refuse, start_rolling, undo_release
from tests.registry.world import RegistryWorld


def told(world: RegistryWorld, model: str = "churn", **more: Any) -> History:
    return world.read(lambda reader: history(reader, model, **more))


def lively(
    world: RegistryWorld, version: ModelVersion, *, by: ActorId, approver: ActorId | None = None
) -> Release:
    """A version's release, brought live."""
    verdict = world.verdict(version)
    release = world.request(version, actor=by, approvals_needed=1 if approver else 0)
    if approver:
        world.do(approve, release, actor=approver)
    return world.do(go_live, world.do(start_rolling, world.do(judging, release), verdict))


def row(stay: Stay) -> tuple[object, ...]:
    return stay.version, stay.place, stay.asked_by, stay.approved_by, stay.ended_because


@pytest.mark.capability("E4", "E5")
def test_every_stretch_says_who_asked_who_approved_and_why_it_ended(world: RegistryWorld) -> None:
    one, two, three = (world.version(name) for name in ("one", "two", "three"))
    first = lively(world, one, by=world.ann, approver=world.bob)
    second = lively(world, two, by=world.bob)
    world.do(undo_release, second, because="too slow", actor=world.cat)
    refused = world.request(three, actor=world.ann)
    world.do(refuse, world.do(judging, refused), because="auc is low")

    found = told(world)

    again, undone, begun = found.live
    assert [row(stay) for stay in found.live] == [
        (1, "churn", world.ann, (world.bob,), None),
        (2, "churn", world.bob, (), "undone: too slow"),
        (1, "churn", world.ann, (world.bob,), "churn/2 went live"),
    ]
    assert begun.ended == undone.began
    assert undone.ended == again.began
    assert (undone.ended_by, undone.verdict, undone.release) == (world.cat, "all passed", second.id)
    assert (again.ended, begun.release, found.next, found.pointers) == (None, first.id, None, [])


def test_older_releases_come_page_by_page(world: RegistryWorld) -> None:
    releases = [lively(world, world.version(str(number)), by=world.ann) for number in range(5)]

    first = told(world, limit=2)
    second = told(world, limit=2, after=first.next)
    third = told(world, limit=2, after=second.next)

    assert [[stay.version for stay in page.live] for page in (first, second, third)] == [[5, 4], [3, 2], [1]]
    assert (first.next, third.next) == (releases[3].id, None)
    with pytest.raises(NotFound):
        told(world, after="rel_nothing")


def test_aliases_and_stages_of_a_model_that_no_line_rules_are_told_from_their_moves(
    world: RegistryWorld,
) -> None:
    one, two = world.version("one"), world.version("two")
    world.do(set_alias, one, "champion", actor=world.ann)
    world.do(set_alias, two, "champion", actor=world.bob)
    staged = world.do(move_stage, two, "Staging", actor=world.ann)
    world.do(delete_alias, "churn", "champion", actor=world.cat)
    moved = world.do(move_stage, staged, "Production", actor=world.bob)
    world.do(delete_version, moved, actor=world.ann)
    world.do(move_stage, one, "Archived", actor=world.cat)

    found = told(world)

    assert [(stay.kind, *row(stay)[:3], stay.ended_because) for stay in found.pointers] == [
        ("stage", 1, "Archived", world.cat, None),
        ("stage", 2, "Production", world.bob, "the version was deleted"),
        ("stage", 2, "Staging", world.ann, "the version was moved to Production"),
        ("alias", 2, "champion", world.bob, "the alias was deleted"),
        ("alias", 1, "champion", world.ann, "the alias was moved to version 2"),
    ]
    assert all(stay.ended is None or stay.ended > stay.began for stay in found.pointers)
    assert told(world, after=None).live == []


def test_a_renamed_model_keeps_its_past_and_the_next_of_its_old_name_has_none(world: RegistryWorld) -> None:
    version = world.version("one")
    world.do(set_alias, version, "champion")
    model = world.read(lambda reader: reader.models.get("churn"))
    world.do(rename_model, model, "leavers")
    renamed = world.read(lambda reader: reader.model_versions.get(version.id))
    world.write(lambda tx: ensure_model(tx, "churn", world.ann, world.now()))
    world.do(set_alias, world.version("two"), "other")
    world.do(set_alias, renamed, "champ")

    assert [stay.place for stay in told(world, "leavers").pointers] == ["champ", "champion"]
    assert [stay.place for stay in told(world).pointers] == ["other"]


def test_a_model_that_is_not_there_has_no_past(world: RegistryWorld) -> None:
    with pytest.raises(NotFound, match="nobody"):
        told(world, "nobody")
