"""Registered models as rows: their names, tags, aliases and stages, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from andon.core.entities import Model, ModelVersion, owner
from andon.core.errors import AlreadyExists, Conflict, Invalid, NotFound
from andon.core.workspace import Settings
from andon.registry.clients import Placed, register_placed
from andon.registry.models import (
    aliases_of,
    archive_others,
    check_alias,
    check_model_name,
    check_tags,
    create_model,
    delete_alias,
    delete_model,
    delete_version,
    describe_model,
    ensure_model,
    is_prompt,
    model_of,
    move_stage,
    read_stage,
    rename_model,
    set_alias,
    version_of,
)
from tests.registry.world import RegistryWorld


@pytest.fixture(params=["sqlite", "postgres"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryWorld]:
    """A workspace in each kind of database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    world = RegistryWorld(tmp_path / ".andon", Settings(database_url=url) if url else None)
    yield world
    world.close()


def create(world: RegistryWorld, name: str, **more: Any) -> Model:
    return world.write(lambda tx: create_model(tx, name, world.ann, world.now(), **more))


def registered(world: RegistryWorld, name: str, **more: Any) -> ModelVersion:
    """A client's version of a model whose files are elsewhere."""

    def verb(tx: Any, *, actor: Any, at: Any) -> ModelVersion:
        placed = Placed(source="s3://bucket/x")
        return register_placed(tx, model_of(tx, name), placed, None, actor=actor, at=at, **more)

    return world.do(verb)


def test_a_rename_takes_all_along_and_frees_the_name(both: RegistryWorld) -> None:
    model = create(both, "old", tags={"team": "x"}, description="first")
    one = registered(both, "old", tags={"a": "1"})
    both.do(set_alias, one, "champion")
    both.do(delete_version, registered(both, "old"))

    current = both.read(lambda reader: model_of(reader, model.id))
    both.do(rename_model, current, "new")

    def look(reader: Any) -> tuple[object, ...]:
        version = version_of(reader, "new", 1)
        tags = reader.model_tags.of(["new"])["new"], reader.version_tags.of([version.id])[version.id]
        return version.id, tags, aliases_of(reader, ["new"]), model_of(reader, "new").description

    assert both.read(look) == (one.id, ({"team": "x"}, {"a": "1"}), {"new": {"champion": 1}}, "first")
    with pytest.raises(NotFound):
        both.read(lambda reader: model_of(reader, "old"))
    assert create(both, "old").id == "old"
    assert registered(both, "new").number == 3
    with pytest.raises(AlreadyExists):
        both.do(rename_model, both.read(lambda reader: model_of(reader, "new")), "old")


def test_a_deleted_model_leaves_no_row_behind(both: RegistryWorld) -> None:
    create(both, "gone", tags={"a": "b"})
    for _ in range(3):
        both.do(set_alias, registered(both, "gone", tags={"c": "d"}), "champion")

    both.do(delete_model, both.read(lambda reader: model_of(reader, "gone")))

    def left(reader: Any) -> tuple[int, ...]:
        return reader.models.count(), reader.model_versions.count(), reader.aliases.count()

    assert both.read(left) == (0, 0, 0)
    assert both.read(lambda reader: reader.model_tags.of(["gone"])) == {"gone": {}}
    create(both, "gone")
    assert registered(both, "gone").number == 1
    assert [event.facts for event in both.events() if event.kind == "model.deleted"] == [{"versions": 3}]


def test_what_the_ledger_rests_on_is_neither_deleted_nor_renamed(both: RegistryWorld) -> None:
    both.verdict(both.version("one"))
    model = both.read(lambda reader: model_of(reader, "churn"))

    for verb, more in ((delete_model, ()), (rename_model, ("leavers",))):
        with pytest.raises(Conflict, match="on record under its name"):
            both.do(verb, model, *more)


def test_a_number_is_not_given_twice_and_its_aliases_go_with_a_version(both: RegistryWorld) -> None:
    create(both, "m")
    one, two = registered(both, "m"), registered(both, "m")
    both.do(set_alias, two, "champion")
    both.do(set_alias, one, "old")

    both.do(delete_version, two)

    assert both.read(lambda reader: aliases_of(reader, ["m", "other"])) == {"m": {"old": 1}, "other": {}}
    assert registered(both, "m").number == 3
    with pytest.raises(NotFound):
        both.read(lambda reader: version_of(reader, "m", 2))
    assert both.kinds(f"model_version:{two.id}")[-1] == "model_version.deleted"  # type: ignore[arg-type]


def test_each_move_is_one_event_and_no_move_is_none(both: RegistryWorld) -> None:
    create(both, "m")
    one, two = registered(both, "m"), registered(both, "m")

    for version in (one, one, two):
        both.do(set_alias, version, "champion")
    staged = both.do(move_stage, one, "Staging")
    both.do(move_stage, staged, "Staging")
    both.do(archive_others, two, "Staging")
    both.do(delete_alias, "m", "champion")
    both.do(delete_alias, "m", "champion")

    moves = [event for event in both.events() if event.kind.startswith(("alias.", "stage."))]
    assert [(event.kind, event.facts.get("from"), event.facts["number"]) for event in moves] == [
        ("alias.moved", None, 1), ("alias.moved", 1, 2), ("stage.moved", "None", 1), ("stage.moved", "Staging", 1),
        ("alias.deleted", None, 2),
    ]  # fmt: skip
    with pytest.raises(Invalid, match="Active stage"):
        both.do(archive_others, two, "Archived")


def test_a_model_is_made_once_and_described(world: RegistryWorld) -> None:
    made = create(world, "m")
    again = world.write(lambda tx: ensure_model(tx, "m", world.bob, world.now()))
    changed = world.do(describe_model, made, "words")

    assert (again, changed.description) == (made, "words")
    with pytest.raises(AlreadyExists, match="Registered Model"):
        create(world, "m")
    create(world, "p", tags={"mlflow.prompt.is_prompt": "True"})
    with pytest.raises(AlreadyExists, match="Prompt"):
        create(world, "p")
    assert [world.read(lambda reader, name=name: is_prompt(reader, name)) for name in ("m", "p")] == [
        False,
        True,
    ]  # type: ignore[misc]
    assert world.read(lambda reader: reader.model_tags.of([owner(made).id])) == {"m": {}}


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_model_name, ["a", "März 1 #%;?", "a.b", "x" * 256], ["", " ", "/", "a:b", ".", "..", "...", "x" * 257]),
        (check_alias, ["a", "A-b_1", "1", "vv1", "ü", "x" * 255], ["", "latest", "LATEST", "v1", "V2", "a b", "x" * 256]),
        (lambda key: check_tags({key: ""}), ["a", "a/b", "a.b-c_d: e", "ü"], ["", "a,b", "../a", "/a", "a\n", "x" * 251]),
        (read_stage, ["None", "STAGING", "production", "Archived"], ["", "Live", "Production "]),
    ],
)  # fmt: skip
def test_what_clients_may_call_things(
    check: Callable[[str], object], good: list[str], bad: list[str]
) -> None:
    for text in good:
        check(text)
    for text in bad:
        with pytest.raises(Invalid):
            check(text)
