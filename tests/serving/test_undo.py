"""Undo at the gateway: with control plane and database absent, on disk before it is answered, and for all gateways."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from andon.core.canonical import Digest
from andon.core.routes import decode_override
from tests.serving import world as worlds
from tests.serving.load import Load
from tests.serving.world import FILE_LIMIT, LIMITED, Process, World, until


def versions(process: Process, number: int = 40) -> set[int]:
    """The versions that answer now."""
    client = process.client()
    return {client.predict().json["version"] for _ in range(number)}


def journal(world: World) -> list[Any]:
    return [decode_override(line, world.key) for line in world.layout.overrides.read_bytes().splitlines()]


@pytest.fixture
def gateway(world: World) -> Process:
    """A gateway with a candidate that takes half of the requests and a warm standby."""
    world.publish(world.route(100, stable=1, candidate=2, weight=0.5, previous=3))
    process = world.start()
    process.ready()
    return process


def test_undo_takes_the_candidate_off_at_once_and_says_so(world: World, gateway: Process) -> None:
    assert versions(gateway) == {1, 2}

    with Load(gateway.port) as load:
        load.wait(20)
        done = gateway.undo()
        after = versions(gateway)
        load.wait(20)

    assert {key: done[key] for key in ("ok", "endpoint", "release", "back_to", "epoch", "generation")} == {
        "ok": True, "endpoint": "delay", "release": "rel_2", "back_to": "rel_1", "epoch": 1, "generation": 101,
    }  # fmt: skip
    assert after == {1}
    assert load.bad == []
    assert {one["version"] for one in load.good if one["generation"] == 101} == {1}
    assert {one["version"] for one in load.good if one["generation"] == 100} <= {1, 2}
    route = gateway.routes()["routes"]["delay"]
    assert (route["held"], route["weight"], [arm["release"] for arm in route["arms"]]) == (
        True,
        0.0,
        ["rel_1", "rel_3"],
    )
    (line,) = journal(world)
    assert (line.id, line.actor, line.reason, line.generation) == (done["override"], "act_test", "test", 100)
    assert stat.S_IMODE(world.layout.overrides.stat().st_mode) == 0o600


def test_undo_survives_kill_9_and_needs_no_control_plane(world: World, gateway: Process) -> None:
    done = gateway.undo()
    gateway.kill()
    world.layout.route_key.with_name("nobody").write_bytes(b"")

    again = world.start()
    again.ready()

    assert versions(again) == {1}
    assert again.routes()["routes"]["delay"]["generation"] == done["generation"]


def test_undo_reaches_the_other_gateways(world: World, gateway: Process) -> None:
    other = world.start(2, socket_of=gateway)
    other.ready()

    assert versions(gateway) == {1, 2}
    done = gateway.undo()

    until("the other gateway", lambda: other.routes()["routes"]["delay"]["generation"] == done["generation"])
    assert versions(gateway) == {1}


def test_undo_of_the_same_release_is_one_undo_wherever_it_is_asked(world: World, gateway: Process) -> None:
    others = [world.start(number) for number in (2, 3)]
    for other in others:
        other.ready()

    with ThreadPoolExecutor(6) as pool:
        named = list(
            pool.map(lambda one: one.undo(release="rel_2", actor=f"act_{id(one)}"), [gateway, *others] * 2)
        )
        unnamed = list(pool.map(Process.undo, [gateway, *others] * 2))

    assert {one["override"] for one in named + unnamed} == {named[0]["override"]}
    assert len(journal(world)) == 1


def test_an_unnamed_undo_that_comes_again_takes_no_second_release(world: World, gateway: Process) -> None:
    first = gateway.undo()
    world.publish(world.route(200, stable=1, previous=3, adopted=[first["override"]]))
    until("the adopted route", lambda: gateway.routes()["routes"]["delay"]["generation"] == 200)

    assert gateway.undo()["override"] == first["override"]
    assert versions(gateway) == {1}
    second = gateway.undo(reason="another one")
    assert (second["release"], second["back_to"]) == ("rel_1", "rel_3")
    assert versions(gateway) == {3}


def test_an_override_wins_over_routes_that_do_not_know_it_and_yields_to_the_one_that_adopts_it(
    world: World, gateway: Process
) -> None:
    override = gateway.undo()["override"]

    world.publish(world.route(200, stable=1, candidate=2, weight=0.9, previous=3))
    until("generation 201", lambda: gateway.routes()["routes"]["delay"]["generation"] == 201)
    assert versions(gateway) == {1}

    world.publish(world.route(300, stable=2, previous=1, adopted=[override]))
    until("generation 300", lambda: gateway.routes()["routes"]["delay"]["generation"] == 300)
    assert versions(gateway) == {2}


def test_an_override_is_void_in_a_new_epoch(world: World, gateway: Process) -> None:
    gateway.undo()

    world.publish(world.route(100, stable=2, previous=1, epoch=2))

    until("epoch 2", lambda: gateway.routes()["routes"]["delay"]["epoch"] == 2)
    assert versions(gateway) == {2}


def test_undo_of_stable_brings_the_warm_standby(world: World, gateway: Process) -> None:
    done = gateway.undo(release="rel_1")

    assert done["back_to"] == "rel_3"
    assert versions(gateway) == {2, 3}
    assert gateway.undo(release="rel_2")["generation"] == 102
    assert versions(gateway) == {3}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"verb": "undo", "endpoint": "nope", "actor": "a"}, "RESOURCE_DOES_NOT_EXIST"),
        ({"verb": "undo", "endpoint": "delay", "actor": "a", "release": "rel_9"}, "RESOURCE_DOES_NOT_EXIST"),
        ({"verb": "undo", "endpoint": "lone", "actor": "a"}, "RESOURCE_CONFLICT"),
        ({"verb": "undo", "endpoint": "lone", "actor": "a", "release": "rel_1"}, "RESOURCE_CONFLICT"),
        ({"verb": "undo", "endpoint": "delay"}, "INVALID_PARAMETER_VALUE"),
        ({"verb": "undo", "endpoint": "delay", "actor": ""}, "INVALID_PARAMETER_VALUE"),
        ({"verb": "undo", "endpoint": "delay", "actor": "a", "relaese": "rel_2"}, "INVALID_PARAMETER_VALUE"),
        ({"verb": "stop"}, "INVALID_PARAMETER_VALUE"),
        ([], "INVALID_PARAMETER_VALUE"),
    ],
    ids=str,
)
def test_an_undo_that_cannot_be_done_says_why_and_changes_nothing(
    module_world: World, message: Any, code: str
) -> None:
    world = module_world
    if not world.processes:
        world.publish(world.route(100, candidate=2, weight=0.5), world.route(100, endpoint="lone"))
        world.start().ready()
    (process,) = world.processes

    said = process.tell(message)

    assert (said["ok"], said["error_code"]) == (False, code)
    assert said["message"]
    assert not world.layout.overrides.exists()
    assert process.tell({"verb": "routes"})["ok"] is True


def test_a_torn_and_a_foreign_line_of_the_journal_count_for_nothing_and_are_named(
    world: World, gateway: Process
) -> None:
    gateway.undo()
    gateway.kill()
    whole = world.layout.overrides.read_bytes()
    foreign = whole.replace(b"rel_2", b"rel_1")
    world.layout.overrides.write_bytes(foreign + b"rubbish\n" + whole + whole[:50])

    again = world.start()
    again.ready()

    assert versions(again) == {1}
    (problem,) = again.routes()["problems"]
    assert "line 1, 2, 4" in problem["message"]
    again.undo(release="rel_1")
    assert versions(again) == {3}
    assert journal_ids(world) == {"rel_1", "rel_2"}


def journal_ids(world: World) -> set[str]:
    """Releases in the lines of the journal that are whole."""
    found = set()
    for line in world.layout.overrides.read_bytes().splitlines():
        if line.count(b"rel_2") + line.count(b"rel_1") and line.startswith(b"{") and line.endswith(b"}"):
            try:
                found.add(decode_override(line, world.key).release)
            except RuntimeError:
                continue
    return found


def test_an_undo_that_cannot_be_written_is_refused_and_changes_nothing(world: World) -> None:
    world.publish(world.route(100, stable=1, candidate=2, weight=0.5))
    process = world.start(launcher=LIMITED)
    process.ready()
    world.layout.overrides.write_bytes(b"rubbish\n" * (FILE_LIMIT // 8 + 1))
    before = world.layout.overrides.read_bytes()

    said = process.undo()

    assert (said["ok"], said["error_code"]) == (False, "STORAGE_FULL")
    assert world.layout.overrides.read_bytes() == before
    assert versions(process) == {1, 2}


def test_the_private_socket_works_in_a_folder_of_any_depth(
    tmp_path_factory: pytest.TempPathFactory, packages: tuple[Path, list[Digest]]
) -> None:
    deep = tmp_path_factory.mktemp("deep") / ("d" * 60) / ("e" * 60) / ("f" * 60)
    deep.mkdir(parents=True)
    with worlds.world(deep, *packages) as world:
        world.publish(world.route(100, candidate=2, weight=0.5))
        process = world.start()
        process.ready()

        assert process.undo()["ok"] is True
