"""From rows to the signed file and from the journal back: newest wins, a foreign line counts for nothing, an undo is kept."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from andon.core.entities import RouteRow
from andon.core.errors import Conflict
from andon.core.events import Event
from andon.core.ids import ActorId, OverrideId, ReleaseId, node
from andon.core.routes import Override, RouteFile, decode_routes, effective, encode_override, encode_routes
from andon.rollout import adopt, journal, publish, route_file, unadopted
from andon.store.files import append_line
from andon.store.keys import route_key
from tests.rollout.world import RolloutWorld


def read(world: RolloutWorld) -> RouteFile:
    return decode_routes(world.layout.routes.read_bytes(), route_key(world.layout))


def test_what_is_published_is_what_the_rows_say(world: RolloutWorld) -> None:
    old, new = world.live(), world.rolling()
    world.start(new)

    assert publish(world.layout, world.store)

    file = read(world)
    route = file.endpoints["churn"]
    row = world.route()
    assert (file.epoch, file.seq) == (1, len(world.events()))
    assert (route.epoch, route.generation, route.weight, route.salt, route.held) == (
        1,
        row.generation,
        0.1,
        row.salt,
        False,
    )
    assert [(arm.role, arm.release, arm.digest) for arm in route.arms] == [
        ("stable", old.id, old.version_digest), ("candidate", new.id, new.version_digest),
    ]  # fmt: skip


def test_a_file_that_is_up_to_date_is_not_written_again(world: RolloutWorld) -> None:
    world.live()
    publish(world.layout, world.store)
    stamp = world.layout.routes.stat().st_ino

    world.version()

    assert not publish(world.layout, world.store)
    assert world.layout.routes.stat().st_ino == stamp


@pytest.mark.parametrize("spoil", [b"", b"{", b"no routes", None])
def test_a_file_that_is_missing_or_spoiled_is_written_anew(world: RolloutWorld, spoil: bytes | None) -> None:
    world.live()
    publish(world.layout, world.store)
    expected = world.layout.routes.read_bytes()
    if spoil is None:
        world.layout.routes.unlink()
    else:
        world.layout.routes.write_bytes(spoil)

    assert publish(world.layout, world.store)
    assert world.layout.routes.read_bytes() == expected


def test_more_endpoints_than_a_page_are_all_published(
    world: RolloutWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("andon.rollout.routes._PAGE", 2)
    release = world.live()
    row = world.route()

    def many(tx: Any) -> None:
        for number in range(6):
            tx.routes.add(msgspec.structs.replace(row, id=f"endpoint-{number}", rev=0))

    world.write(many)

    file = world.read(route_file)
    assert sorted(file.endpoints) == ["churn", *(f"endpoint-{number}" for number in range(6))]
    assert all(route.arms[0].release == release.id for route in file.endpoints.values())


def test_an_empty_workspace_has_a_file_too(world: RolloutWorld) -> None:
    assert publish(world.layout, world.store)
    assert read(world).endpoints == {}


def test_publishing_from_many_threads_never_takes_a_route_back(world: RolloutWorld) -> None:
    """Several processes publish: whoever read the rows first must not write last."""
    world.live()
    publish(world.layout, world.store)
    seen: list[int] = []
    stop = threading.Event()
    faults: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as fault:  # noqa: BLE001  # told to the test, whatever it is
            faults.append(fault)

    def watch() -> None:
        seen.append(read(world).endpoints["churn"].generation)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (
        watch, *[lambda: publish(world.layout, world.store)] * 3,
    )]  # fmt: skip
    for thread in threads:
        thread.start()
    for _ in range(25):
        world.start(world.rolling())
        world.undo(hold=False)
    publish(world.layout, world.store)
    stop.set()
    for thread in threads:
        thread.join(timeout=30)

    assert faults == []
    assert seen == sorted(seen)
    assert read(world).endpoints["churn"].generation == world.route().generation


def test_routes_of_a_new_epoch_win_whatever_their_generation(world: RolloutWorld) -> None:
    """After a restore the rows are old: only the workspace's epoch makes gateways follow them."""
    world.live()
    publish(world.layout, world.store)

    world.new_epoch()

    assert publish(world.layout, world.store)
    assert (read(world).epoch, read(world).endpoints["churn"].epoch) == (2, 2)


@pytest.mark.parametrize("ahead", [{"epoch": 2}, {"generation": 900}])
def test_a_database_that_is_an_old_copy_replaces_nothing(world: RolloutWorld, ahead: dict[str, int]) -> None:
    world.live()
    route = msgspec.structs.replace(world.published(), **ahead)
    data = encode_routes(
        RouteFile(epoch=route.epoch, seq=99, endpoints={"churn": route}), route_key(world.layout)
    )
    world.layout.routes.write_bytes(data)

    with pytest.raises(Conflict, match=r"published routes are newer than the database .*andon restore"):
        publish(world.layout, world.store)

    assert world.layout.routes.read_bytes() == data


# --- the journal ---


def test_the_journal_is_read_in_order_and_foreign_lines_count_for_nothing(world: RolloutWorld) -> None:
    release = world.live()
    first, second = (
        world.override(release.id, id=OverrideId("a")),
        world.override(release.id, id=OverrideId("b")),
    )
    world.journal(first)
    for line in (
        b"",
        b"{}",
        b"\xff\xfe",
        encode_override(first, b"another key"),
        encode_override(first, route_key(world.layout))[:-9],
    ):
        append_line(world.layout.overrides, line)
    world.journal(second)

    assert journal(world.layout) == [first, second]


def test_without_a_journal_there_are_no_overrides(world: RolloutWorld) -> None:
    assert journal(world.layout) == []


# --- adoption ---


@dataclass
class Before:
    """What must not change when there is nothing to take in."""

    route: RouteRow
    events: list[Event]

    @classmethod
    def of(cls, world: RolloutWorld) -> Before:
        return cls(world.route(), world.events())


def adopted(world: RolloutWorld, override: Override) -> bool:
    pending = world.read(lambda reader: unadopted(reader, [override])) == [override]
    done: bool = world.do(adopt, override)
    assert done == pending
    return done


@pytest.mark.capability("E6")
def test_an_undo_made_at_a_gateway_becomes_an_event_and_a_held_route(world: RolloutWorld) -> None:
    old, new = world.live(), world.rolling()
    world.start(new)
    override = world.override(new.id)
    at_the_gateway = effective(world.published(), [override])

    assert adopted(world, override)

    route = world.published()
    assert [(arm.role, arm.release) for arm in route.arms] == [
        (arm.role, arm.release) for arm in at_the_gateway.arms
    ]
    assert (route.weight, route.held, route.adopted) == (0.0, True, (override.id,))
    assert route.generation > at_the_gateway.generation
    assert effective(route, [override]) == route
    assert (world.release(new.id).state, world.release(old.id).state) == ("undone", "live")
    (event,) = [event for event in world.events() if event.kind == "override.adopted"]
    assert event.facts == {
        "override": override.id, "by": "os:1000", "generation": override.generation, "made_at_us": override.at_us,
    }  # fmt: skip
    assert event.inputs == (node("release", new.id),)
    assert world.rollout(new).because == "it is wrong"


def test_an_undo_of_the_live_release_at_a_gateway_brings_the_one_before_back(world: RolloutWorld) -> None:
    old, new = world.live(), world.live()
    override = world.override(new.id)

    adopted(world, override)

    assert world.route().stable == old.id
    assert [world.release(one.id).state for one in (old, new)] == ["live", "undone"]


def test_an_override_is_taken_in_once(world: RolloutWorld) -> None:
    world.live()
    world.start(world.rolling())
    override = world.override(world.route().candidate or ReleaseId(""))
    adopted(world, override)
    before = Before.of(world)

    assert not adopted(world, override)
    assert Before.of(world) == before


def test_an_adopted_override_stays_adopted_however_many_follow(world: RolloutWorld) -> None:
    """The journal keeps its lines: one that was forgotten would be in force again."""
    world.live()
    overrides = [world.override(ReleaseId("gone"), id=OverrideId(f"ov_{number}")) for number in range(70)]
    for override in overrides:
        assert adopted(world, override)

    assert world.read(lambda reader: unadopted(reader, overrides)) == []
    assert effective(world.published(), overrides) == world.published()


@pytest.mark.parametrize("change", [{"epoch": 0}, {"epoch": 2}, {"endpoint": "other"}])
def test_an_override_of_another_epoch_or_endpoint_is_void(
    world: RolloutWorld, change: dict[str, Any]
) -> None:
    world.live()
    override = world.override(world.live().id, **change)
    before = Before.of(world)

    assert not adopted(world, override)
    assert Before.of(world) == before


def test_after_a_restore_overrides_of_before_are_void_and_those_of_after_count(world: RolloutWorld) -> None:
    old, new = world.live(), world.live()
    before, adopted_before = world.override(new.id), world.override(ReleaseId("gone"), id=OverrideId("x"))
    adopted(world, adopted_before)
    world.new_epoch()
    kept = Before.of(world)

    assert world.published().adopted == ()
    assert not adopted(world, before)
    assert Before.of(world) == kept
    assert adopted(world, world.override(new.id))
    assert world.route().stable == old.id
    assert len(world.route().adopted) == 1


def test_when_the_release_has_left_meanwhile_the_endpoint_is_held_all_the_same(world: RolloutWorld) -> None:
    old, new = world.live(), world.rolling()
    world.start(new)
    override = world.override(new.id)
    world.undo(hold=False)

    assert adopted(world, override)

    row = world.route()
    assert (row.stable, row.candidate, row.held, row.adopted) == (old.id, None, True, (override.id,))
    assert world.release(old.id).state == "live"


def test_a_candidate_that_went_live_meanwhile_is_undone_as_the_live_release(world: RolloutWorld) -> None:
    old, new = world.live(), world.rolling()
    rollout = world.switch(world.start(new))
    override = world.override(new.id)
    world.finish(rollout)

    adopted(world, override)

    assert world.route().stable == old.id
    assert [world.release(one.id).state for one in (old, new)] == ["live", "undone"]


def test_a_standby_that_was_undone_at_a_gateway_is_no_standby_any_more(world: RolloutWorld) -> None:
    """The gateway knew it as stable: when the undo arrives here it is the standby, and nobody wants it back."""
    old, new = world.live(), world.rolling()
    rollout = world.switch(world.start(new))
    override = world.override(old.id)
    world.finish(rollout)

    adopted(world, override)

    row = world.route()
    assert (row.stable, row.previous, row.held) == (new.id, None, True)
    assert effective(world.published(), [override]) == world.published()
    with pytest.raises(Conflict, match="no release to go back to"):
        world.undo()


def test_an_override_of_the_only_release_holds_the_endpoint_and_leaves_it_answering(
    world: RolloutWorld,
) -> None:
    release = world.live()
    override = world.override(release.id)

    adopted(world, override)

    assert (world.route().stable, world.route().held) == (release.id, True)
    assert world.release(release.id).state == "live"


def test_no_name_of_a_person_gets_into_the_ledger_with_an_override(world: RolloutWorld) -> None:
    world.live()
    override = world.override(world.live().id, reason="Ann saw it fail")

    world.do(adopt, override, actor=ActorId(world.ann))

    assert not any("Ann saw" in str(msgspec.to_builtins(event)) for event in world.events())


def test_the_key_of_the_routes_is_private(world: RolloutWorld) -> None:
    publish(world.layout, world.store)

    assert [path.stat().st_mode & 0o077 for path in (world.layout.route_key, world.layout.routes)] == [0, 0]
