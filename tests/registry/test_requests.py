"""What a policy names of a model: pointers that follow what is live, and what is refused of what is live."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from andon.core.entities import Model, ModelVersion, Release
from andon.core.errors import Conflict, Invalid, NotFound
from andon.core.policy import ReleasePolicy
from andon.registry.models import move_stage, set_alias
from andon.registry.releases import go_live, judging, refuse, start_rolling, undo_release
from andon.registry.requests import (
    Changed,
    Ruling,
    by_alias,
    check_alias_may_go,
    check_may_leave_stage,
    check_model_may_change,
    check_ruling,
    check_version_may_go,
    latest_of,
    live_of,
    request,
    shown_aliases,
    shown_stage,
    waits_for,
)
from andon.store.ports import Reader
from tests.registry.world import FAILED, POLICY, RegistryWorld, other

RULING = Ruling(line="churn", policy=POLICY, release=ReleasePolicy(endpoint="churn"))


def ask(world: RegistryWorld, version: ModelVersion, ruling: Ruling = RULING) -> Release:
    def verb(tx: Any, *, actor: Any, at: Any) -> Release:
        return request(tx, ruling, version, actor=actor, at=at)

    return world.do(verb, actor=world.ann)


def lively(world: RegistryWorld, version: ModelVersion) -> Release:
    """A version's release, brought live."""
    verdict = world.verdict(version)
    release = world.do(judging, ask(world, version))
    return world.do(go_live, world.do(start_rolling, release, verdict))


def seen(world: RegistryWorld) -> tuple[dict[str, int], list[str]]:
    """A model's aliases, and the stage of each version."""

    def work(reader: Reader) -> tuple[dict[str, int], list[str]]:
        stored = {row.alias: row.number for row in reader.aliases.select({"model": "churn"})}
        live = live_of(reader, RULING)
        rows = reader.model_versions.select({"model": "churn"}, order=("number",))
        return shown_aliases(reader, stored, RULING), [shown_stage(row, RULING, live) for row in rows]

    return world.read(work)


def test_alias_and_stage_follow_what_is_live_and_an_undo_moves_them_back(world: RegistryWorld) -> None:
    one, two = world.version("one"), world.version("two")
    world.do(set_alias, two, "production")
    world.do(set_alias, two, "challenger")
    world.do(move_stage, two, "Production")

    before = seen(world)
    lively(world, one)
    first = seen(world)
    second = lively(world, world.read(lambda reader: reader.model_versions.get(two.id)))
    both = seen(world)
    world.do(undo_release, second, because="bad")

    assert before == ({"challenger": 2}, ["None", "None"])
    assert first == ({"challenger": 2, "production": 1}, ["Production", "None"])
    assert both == ({"challenger": 2, "production": 2}, ["None", "Production"])
    assert seen(world) == first


def test_the_version_at_an_alias_and_the_newest_of_each_stage_are_those_that_clients_see(
    world: RegistryWorld,
) -> None:
    versions = [world.version(str(number)) for number in range(1, 5)]
    world.do(move_stage, versions[3], "Archived")
    world.do(move_stage, versions[0], "Archived")
    world.do(move_stage, versions[1], "Staging")
    lively(world, world.read(lambda reader: reader.model_versions.get(versions[3].id)))

    def newest(*stages: str, ruling: Ruling | None = RULING) -> dict[str, int]:
        def work(reader: Reader) -> dict[str, int]:
            live = live_of(reader, ruling)
            found = latest_of(reader, "churn", stages, ruling)
            return {shown_stage(version, ruling, live): version.number for version in found}

        return world.read(work)

    assert newest() == {"None": 3, "Staging": 2, "Production": 4, "Archived": 1}
    assert newest("production") == {"Production": 4}
    assert newest(ruling=None) == {"None": 3, "Staging": 2, "Archived": 4}
    assert world.read(lambda reader: by_alias(reader, "churn", "production", RULING)).number == 4
    assert world.read(lambda reader: by_alias(reader, "churn", "latest", RULING)).number == 4
    with pytest.raises(Invalid, match="nobody"):
        world.read(lambda reader: by_alias(reader, "churn", "nobody", RULING))
    with pytest.raises(NotFound):
        world.read(lambda reader: by_alias(reader, "nothing", "production", None))
    with pytest.raises(Invalid, match="stage"):
        newest("Live")


def test_asking_again_gives_the_same_release_until_it_has_ended(world: RegistryWorld) -> None:
    one, two = world.version("one"), world.version("two")

    first, again = ask(world, one), ask(world, one)

    assert first == again
    assert (first.cause, first.actor) == (f"actor:{world.ann}", world.ann)
    with pytest.raises(Conflict, match=first.id):
        ask(world, two)
    world.do(go_live, world.do(start_rolling, world.do(judging, first), world.verdict(one)))
    assert ask(world, one).id == first.id


def test_a_version_that_was_refused_is_refused_until_another_one_is_live(world: RegistryWorld) -> None:
    one, two = world.version("one"), world.version("two")
    world.verdict(two, FAILED)
    world.do(refuse, world.do(judging, ask(world, two)), because="auc is low")

    refused = ask(world, two)
    lively(world, one)
    fresh = ask(world, two)

    assert refused.state == "refused"
    assert (fresh.state, fresh.id != refused.id) == ("requested", True)


def test_what_a_release_waits_for_is_said(world: RegistryWorld) -> None:
    version = world.version("one")
    verdict = world.verdict(version)
    ruling = replace(RULING, release=ReleasePolicy(endpoint="churn", approvals=2))

    def words(release: Release) -> str:
        return world.read(lambda reader: waits_for(reader, release))

    asked = ask(world, version, ruling)
    waiting = world.do(start_rolling, world.do(judging, asked), verdict)
    refused = world.do(refuse, waiting, because="nobody wants it")

    assert "is requested" in words(asked)
    assert "approval of 2 people" in words(waiting)
    assert f"andon approve {asked.id}" in words(waiting)
    assert words(refused).endswith("was refused: nobody wants it")
    assert all(asked.id in words(each) for each in (asked, waiting, refused))


def test_what_is_live_on_its_way_or_kept_for_an_undo_is_not_deleted(world: RegistryWorld) -> None:
    one, two, three = (world.version(name) for name in ("one", "two", "three"))
    first = lively(world, one)

    def may_go(version: ModelVersion) -> None:
        world.read(lambda reader: check_version_may_go(reader, version))

    with pytest.raises(Conflict, match="is live"):
        may_go(one)
    with pytest.raises(Conflict, match="says that version 1 is live"):
        world.read(lambda reader: check_alias_may_go(reader, RULING))
    with pytest.raises(Conflict, match="stays in Production"):
        world.read(lambda reader: check_may_leave_stage(reader, RULING, one))
    world.read(lambda reader: check_may_leave_stage(reader, RULING, two))
    ask(world, two)
    with pytest.raises(Conflict, match="on its way"):
        may_go(two)
    may_go(three)
    model = world.read(lambda reader: reader.models.get("churn"))
    for what in ("renamed", "deleted"):
        with pytest.raises(Invalid, match=f"cannot be {what}"):
            check_model_may_change(model, RULING, what)
    assert isinstance(model, Model)
    assert first.state == "live"


def test_a_ruling_that_changed_meanwhile_is_noticed(world: RegistryWorld) -> None:
    def check(ruling: Ruling | None, model: str = "churn") -> Ruling | None:
        return world.read(lambda reader: check_ruling(reader, model, ruling))

    assert check(RULING) == RULING
    assert check(None, "another") is None
    for ruling, model in (
        (None, "churn"),
        (replace(RULING, policy=other("new")), "churn"),
        (RULING, "another"),
    ):
        with pytest.raises(Changed):
            check(ruling, model)


def test_a_model_of_another_line_on_the_same_endpoint_is_not_shown_as_live(world: RegistryWorld) -> None:
    lively(world, world.version("one"))
    stranger = replace(RULING, line="stranger")

    assert world.read(lambda reader: live_of(reader, stranger)) is None
    assert world.read(lambda reader: shown_aliases(reader, {"production": 7, "x": 1}, stranger)) == {"x": 1}
    assert world.read(lambda reader: shown_aliases(reader, {"production": 7}, None)) == {"production": 7}
