"""What a client gets: predictions that the log holds, and for bad input an error that names the field."""

from __future__ import annotations

import json

import pytest

from tests.serving.world import RECORD, Client, World


@pytest.fixture(scope="module")
def gateway(module_world: World) -> Client:
    module_world.publish(
        module_world.route(100, stable=1, candidate=2, weight=0.5, previous=3),
        module_world.route(100, stable=None, endpoint="empty"),
    )
    process = module_world.start(arguments=["--read-timeout-s", "0.5"])
    process.ready()
    return process.client()


def test_an_answer_says_which_release_gave_it_and_is_in_the_log(gateway: Client, module_world: World) -> None:
    answer = gateway.predict(Andon_Time="2013-04-01T12:00:00Z", Andon_Entity="plane-7")

    assert answer.status == 200
    said = answer.json
    record = module_world.records()[said["prediction_id"]]
    assert said == {
        "prediction_id": record.prediction_id, "prediction": record.output, "endpoint": "delay", "model": "delay",
        "version": record.version, "release": record.release, "epoch": 1, "generation": 100,
    }  # fmt: skip
    assert 0 < said["prediction"] < 1
    assert record.inputs == RECORD
    assert len(record.features) == 4
    assert (record.data_at_us, record.entity, record.status, record.propensity) == (
        1364817600000000,
        "plane-7",
        200,
        0.5,
    )
