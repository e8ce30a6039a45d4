"""A version is numbered, named by its package and tied to what made it; a verdict says once what gates found."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from andon.core.errors import Invalid
from andon.core.ids import node
from andon.registry import register_version
from tests.registry.world import EVIDENCE, FAILED, POLICY, RegistryWorld, other


def test_versions_count_from_one_and_the_same_package_of_a_run_is_one_version(world: RegistryWorld) -> None:
    run = world.run()
    first = world.version("a", run=run)
    again = world.version("a", run=run)
    second = world.version("b", run=run)
    elsewhere = world.version("a")

    assert again == first
    assert [version.number for version in (first, second, elsewhere)] == [1, 2, 3]
    assert elsewhere.digest == first.digest
    assert first.state == "candidate"


def test_a_version_is_tied_to_its_run_and_data_in_the_ledger(world: RegistryWorld) -> None:
    version = world.version("a")

    (event,) = world.events(node("model_version", version.id))
    assert event.kind == "model_version.registered"
    assert event.inputs == (node("run", version.run), node("dataset_version", version.dataset_version))
    assert event.data_at == version.data_until
    assert event.facts == {
        "model": "churn",
        "number": 1,
        "digest": version.digest,
        "profile": version.profile,
    }


def test_a_model_is_registered_with_its_first_version(world: RegistryWorld) -> None:
    world.version("a")
    world.version("b")

    assert [row.id for row in world.read(lambda reader: reader.models.select())] == ["churn"]
    assert world.kinds(node("model", "churn")) == ["model.created"]


def test_a_version_may_come_without_run_data_and_profile(world: RegistryWorld) -> None:
    first, second = (
        world.do(register_version, model="churn", digest=other("a"), actor=world.ann) for _ in range(2)
    )

    assert (first.number, second.number, first.run, first.dataset_version, first.profile) == (
        1,
        2,
        None,
        None,
        None,
    )
    (event,) = world.events(node("model_version", first.id))
    assert (event.inputs, event.facts["profile"]) == ((), None)


def test_a_deleted_version_is_not_found_again(world: RegistryWorld) -> None:
    run = world.run()
    first = world.version("a", run=run)
    world.write(lambda tx: tx.model_versions.change(replace(first, deleted_at=world.now())))

    assert world.version("a", run=run).number == 2


@pytest.mark.capability("D13")
def test_a_passing_verdict_makes_a_candidate_eligible(world: RegistryWorld) -> None:
    version = world.version()

    verdict = world.verdict(version)

    assert world.read(lambda reader: reader.model_versions.get(version.id)).state == "eligible"
    assert (verdict.version_digest, verdict.endpoint, verdict.policy) == (version.digest, "churn", POLICY)
    (event,) = world.events(node("verdict", verdict.id))
    assert event.inputs == (node("model_version", version.id), node("policy", POLICY))
    assert event.facts == {
        "passed": True, "endpoint": "churn", "digest": version.digest, "evidence": EVIDENCE, "against": None,
        "checks": 1, "not_passed": 0,
    }  # fmt: skip


def test_a_failing_verdict_rejects_a_candidate_with_the_reason(world: RegistryWorld) -> None:
    version = world.version()

    world.verdict(version, FAILED)

    row = world.read(lambda reader: reader.model_versions.get(version.id))
    assert (row.state, row.rejected_because) == ("rejected", "auc is low")
    kinds = ["model_version.registered", "model_version.rejected"]
    assert world.kinds(node("model_version", version.id)) == kinds


def test_later_verdicts_are_on_record_and_leave_the_first_as_it_is(world: RegistryWorld) -> None:
    eligible, rejected = world.version(), world.version()
    world.verdict(eligible)
    world.verdict(rejected, FAILED)

    world.verdict(eligible, FAILED, endpoint="other")
    world.verdict(rejected, policy=other("laxer"))

    states = world.read(lambda reader: [row.state for row in reader.model_versions.select(order=("number",))])
    assert states == ["eligible", "rejected"]
    assert world.read(lambda reader: reader.verdicts.count()) == 4


def test_a_version_is_not_judged_against_itself(world: RegistryWorld) -> None:
    version = world.version()

    with pytest.raises(Invalid, match="churn/1 was compared with itself"):
        world.verdict(version, against=version.id)


def test_what_a_version_was_made_of_can_be_followed_without_a_circle(world: RegistryWorld) -> None:
    version = world.version()
    verdict = world.verdict(version)

    up = world.read(lambda reader: reader.ledger.up(node("verdict", verdict.id)))
    assert {edge.src for edge in up} >= {
        node("model_version", version.id), node("run", version.run), node("dataset_version", version.dataset_version)
    }  # fmt: skip
    assert node("verdict", verdict.id) not in {edge.src for edge in up}
