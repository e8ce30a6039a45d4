"""The gateway follows what is published, refuses what is spoiled, and serves on meanwhile."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from msgspec.structs import replace

from andon.core.canonical import hex_part
from andon.core.routes import RouteFile, encode_routes
from tests.serving.load import Load
from tests.serving.world import RECORD, Client, Process, World, until


def serves(process: Process, generation: int, endpoint: str = "delay") -> Any:
    """Wait until the gateway has a generation in force; its whole state then."""

    def look() -> Any:
        state = process.routes()
        return state if state["routes"].get(endpoint, {}).get("generation") == generation else None

    return until(f"generation {generation}", look)


def problem(process: Process, text: str) -> Any:
    """Wait until the gateway names a problem; its whole state then."""

    def look() -> Any:
        state = process.routes()
        return state if any(text in one["message"] for one in state["problems"]) else None

    return until(f"a problem that says {text!r}", look)


def healthy(process: Process) -> None:
    until("no problems", lambda: process.routes()["problems"] == [])


@pytest.mark.capability("H17", "H3")
def test_fifty_swaps_under_load_fail_no_request_and_mix_no_generations(world: World) -> None:
    published = {100: 1}
    world.publish(world.route(100, stable=1))
    process = world.start()
    process.ready()

    with Load(process.port, clients=3) as load:
        for swap in range(1, 51):
            generation, version = 100 + 100 * swap, 1 + swap % 3
            published[generation] = version
            world.publish(world.route(generation, stable=version, previous=1 + (swap - 1) % 3))
            serves(process, generation)
            load.wait(3)

    assert load.bad == []
    assert load.broken == 0
    assert {(one["generation"], one["version"]) for one in load.good} == set(published.items())
    for answers in load.answers:
        generations = [answer.json["generation"] for answer in answers]
        assert generations == sorted(generations)
        assert generations[-1] == 5100
    logged = world.records()
    for one in load.good:
        record = logged[one["prediction_id"]]
        assert (record.generation, record.version, record.output) == (
            one["generation"], one["version"], one["prediction"],
        )  # fmt: skip


def test_a_gateway_without_a_route_file_lives_and_is_not_ready(world: World) -> None:
    process = world.start()
    client = process.client()

    answer = until("an answer", lambda: _not_ready(client))
    assert answer["ready"] is False
    assert "not yet read a route file" in answer["message"]
    assert client.ask("GET", "/health/live").json["live"] is True
    assert client.predict().status == 503

    world.publish(world.route(100))
    process.ready()
    assert client.predict().status == 200


def _not_ready(client: Client) -> Any:
    with contextlib.suppress(OSError):
        answer = client.ask("GET", "/health/ready")
        return answer.json if answer.status == 503 else None


def _file(world: World, generation: int, *, version: int) -> RouteFile:
    return RouteFile(epoch=1, seq=99, endpoints={"delay": world.route(generation, stable=version)})


def test_a_spoiled_route_file_is_named_and_the_last_good_one_stays(world: World) -> None:
    world.publish(world.route(100, stable=1))
    process = world.start()
    process.ready()
    client = process.client()
    file = _file(world, 200, version=2)
    whole = encode_routes(file, world.key)
    spoiled = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "changed": whole.replace(b"rel_2", b"rel_3"),
        "not UTF-8": b'{"alg":"\xff"}',
        "of another key": encode_routes(file, b"x" * 32),
        "of another format": encode_routes(replace(file, format="andon.routes/9"), world.key),
    }

    for data in spoiled.values():
        world.layout.routes.write_bytes(data)
        state = problem(process, "routes.json")
        assert state["routes"]["delay"]["generation"] == 100
        assert (client.predict().json["version"], client.ask("GET", "/health/ready").status) == (1, 200)
        world.layout.routes.write_bytes(encode_routes(_file(world, 100, version=1), world.key))
        healthy(process)

    world.layout.routes.unlink()
    problem(process, "is not there")
    assert client.predict().json["version"] == 1

    world.publish(world.route(300, stable=2))
    assert serves(process, 300)["problems"] == []


def test_older_routes_do_not_win(world: World) -> None:
    world.publish(world.route(300, stable=1, epoch=2), world.route(100, endpoint="other", epoch=2))
    process = world.start()
    process.ready()

    world.publish(world.route(200, stable=2, epoch=2), world.route(200, endpoint="other", epoch=2, stable=2))
    state = serves(process, 200, "other")
    assert (state["routes"]["delay"]["generation"], state["problems"]) == (300, [])

    world.publish(world.route(900, stable=3, epoch=1))
    state = problem(process, "epoch 1")
    assert {name: route["generation"] for name, route in state["routes"].items()} == {
        "delay": 300,
        "other": 200,
    }

    world.publish(world.route(100, stable=3, epoch=3))
    state = serves(process, 100)
    assert (list(state["routes"]), state["epoch"], state["problems"]) == (["delay"], 3, [])


def test_a_model_that_cannot_be_loaded_leaves_the_old_route_in_force(world: World) -> None:
    world.publish(world.route(100, stable=1), world.route(100, stable=1, endpoint="other"))
    process = world.start()
    process.ready()
    client = process.client()
    hidden = _hide(world, 2)

    world.publish(
        world.route(200, stable=1, candidate=2, weight=1.0), world.route(200, stable=3, endpoint="other")
    )

    state = problem(process, "delay v2")
    assert serves(process, 200, "other")
    assert state["routes"]["delay"]["generation"] == 100
    ready = client.ask("GET", "/health/ready")
    assert ready.status == 200
    assert any("generation 100 stays in force" in one["message"] for one in ready.json["problems"])
    assert client.predict().json["generation"] == 100

    _show(world, hidden)
    serves(process, 200)
    healthy(process)
    assert client.predict().json["version"] == 2


def _blob(world: World, version: int) -> Any:
    name = hex_part(world.digests[version - 1])
    return world.layout.blobs / "sha256" / name[:2] / name[2:]


def _hide(world: World, version: int) -> Any:
    path = _blob(world, version)
    hidden = path.with_suffix(".hidden")
    path.rename(hidden)
    return hidden


def _show(world: World, hidden: Any) -> None:
    hidden.rename(hidden.with_suffix(""))


def test_a_corrupt_blob_is_refused_by_name(world: World) -> None:
    world.publish(world.route(100, stable=1))
    process = world.start()
    process.ready()
    path = _blob(world, 2)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"lightgbm", b"lightgbM"))

    world.publish(world.route(200, stable=2))

    state = problem(process, path.name)
    assert state["routes"]["delay"]["generation"] == 100
    assert process.client().predict().json["version"] == 1


def test_a_damaged_local_copy_is_made_again(world: World) -> None:
    world.publish(world.route(100, stable=1))
    first = world.start()
    first.ready()
    assert first.terminate() == 0
    copy = world.layout.models / hex_part(world.digests[0]) / "model.txt"
    copy.chmod(0o600)
    copy.write_bytes(b"tree\nrubbish")

    second = world.start()
    second.ready()

    assert second.client().predict().status == 200
    assert copy.read_bytes() != b"tree\nrubbish"


def test_a_local_copy_is_enough_when_the_blobs_are_gone(world: World) -> None:
    world.publish(world.route(100, stable=1))
    first = world.start()
    first.ready()
    first.kill()
    world.layout.blobs.rename(world.layout.root / "elsewhere")

    second = world.start()
    second.ready()

    assert second.client().predict().status == 200


def test_an_endpoint_without_any_model_is_not_ready_and_the_others_answer(world: World) -> None:
    hidden = _hide(world, 2)
    world.publish(world.route(100, stable=2), world.route(100, stable=1, endpoint="other"))
    process = world.start()
    client = process.client()

    said = until("an answer", lambda: _not_ready(client))

    assert said["waiting"] == ["delay"]
    assert "no model could be loaded for delay" in said["message"]
    assert client.predict(endpoint="other").status == 200
    assert client.predict().status == 503
    _show(world, hidden)
    process.ready()
    assert client.predict().status == 200


def test_a_missing_warm_standby_holds_nobody_back(world: World) -> None:
    hidden = _hide(world, 3)
    world.publish(world.route(100, stable=1, previous=3))
    process = world.start()
    process.ready()

    state = problem(process, "warm standby")
    assert [(arm["version"], arm["loaded"]) for arm in state["routes"]["delay"]["arms"]] == [
        (1, True),
        (3, False),
    ]
    refused = process.undo()
    assert (refused["ok"], refused["error_code"]) == (False, "RESOURCE_CONFLICT")
    assert process.client().predict().json["version"] == 1

    _show(world, hidden)
    healthy(process)
    assert process.undo()["back_to"] == "rel_3"


def test_a_start_with_a_spoiled_route_file_serves_what_was_served_last(world: World) -> None:
    world.publish(world.route(100, stable=1), world.route(300, stable=2, endpoint="other"))
    first = world.start()
    first.ready()
    first.kill()
    world.layout.routes.write_bytes(b"spoiled")

    second = world.start()
    second.ready()

    client = second.client()
    assert (client.predict().json["version"], client.predict(endpoint="other").json["generation"]) == (1, 300)
    problem(second, "routes.json")


def test_a_start_whose_new_model_is_missing_serves_what_was_served_last(world: World) -> None:
    world.publish(world.route(100, stable=1))
    first = world.start()
    first.ready()
    first.kill()
    _hide(world, 2)
    world.publish(world.route(200, stable=2))

    second = world.start()
    second.ready()

    problem(second, "generation 100 stays in force")
    assert second.client().predict().json["version"] == 1


def test_an_endpoint_that_is_published_no_more_is_not_served(world: World) -> None:
    world.publish(world.route(100), world.route(100, endpoint="other"))
    process = world.start()
    process.ready()
    client = process.client()
    assert client.predict(endpoint="other").status == 200

    world.publish(world.route(200))

    serves(process, 200)
    assert client.predict(endpoint="other").status == 404


def test_a_rehearsed_fault_makes_one_version_wrong_and_only_where_faults_are_allowed(world: World) -> None:
    world.publish(world.route(100, stable=1, candidate=2, weight=0.5))
    brave, plain = world.start(1, environ={"ANDON_FAULTS": "1"}), world.start(2)
    brave.ready(), plain.ready()
    text = b'{"stuck_feature":{"model_version":"mv_2","feature":"day_part","value":99.0}}'
    (world.layout.run / "faults.json").write_bytes(text)

    def wrong(client: Client) -> set[int]:
        """The versions that see the feature stuck, alone or in a batch."""
        answers = [client.predict().json for _ in range(40)]
        answers += client.predict({"records": [RECORD] * 40}).json["predictions"]
        logged = world.records()
        return {said["version"] for said in answers if logged[said["prediction_id"]].features[1] == 99.0}

    until("a stuck feature", lambda: wrong(brave.client()) == {2})
    assert wrong(plain.client()) == set()
    (world.layout.run / "faults.json").unlink()
    until("no stuck feature", lambda: wrong(brave.client()) == set())


def test_only_its_owner_can_open_the_private_socket(world: World) -> None:
    world.publish(world.route(100))
    process = world.start()
    process.ready()

    mode = (world.layout.run / "gateway-1.sock").stat().st_mode & 0o777

    assert mode == 0o600
