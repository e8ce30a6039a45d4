"""Why a prediction was made, and what a thing was needed for: asked of a world whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from andon.core.clock import SystemClock
from andon.core.entities import Approval, owner
from andon.core.errors import Invalid, NotFound
from andon.core.events import EventDraft
from andon.core.ids import ApprovalId, PredictionId, ReleaseId, new_id, node
from andon.core.workspace import Layout, Settings
from andon.governance.lineage import Impact, impact, why
from andon.store import open_store
from andon.store.blobs import LocalBlobs
from andon.store.ports import Store, Transaction
from andon.store.predictions import SegmentLog, SegmentWriter, commit_segment
from andon.testing.predictions import record
from andon.testing.rows import tracked_run
from andon.testing.worlds import World, seed_world


class Place:
    """A world of two generations, with predictions of both: some sealed, some not."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder / ".andon").create()
        self.store: Store = open_store(self.layout, Settings())
        self.log = SegmentLog(
            self.layout.predictions, self.store, LocalBlobs(self.layout.blobs), SystemClock()
        )
        self.world: World = seed_world(self.store, SystemClock(), generations=2)
        self.writers: list[SegmentWriter] = []
        old, new = self.world.generations
        self.old = self.predict(old.release, 5)
        self.mixed = self.predict(old.release, 2) + self.predict(new.release, 3, again=True)
        self.writers[-1].close()
        self.seal()
        self.new = self.predict(new.release, 4)

    def predict(self, release: ReleaseId, count: int, *, again: bool = False) -> list[PredictionId]:
        if not again:
            for writer in self.writers:
                writer.close()
            self.writers.append(SegmentWriter(self.layout.predictions, SystemClock()))
        writer = self.writers[-1]
        first = writer.next_number()
        records = [record(writer.boot, first + k, release=release) for k in range(count)]
        writer.append(records)
        return [item.prediction_id for item in records]

    def seal(self, *, drop: bool = True) -> None:
        for ident in self.log.sealable():
            segment = self.log.seal(ident)
            if segment is not None:
                commit_segment(self.store, segment, actor=self.world.line_actor, at=SystemClock().now())
            if drop:
                self.log.drop(ident)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for writer in place.writers:
        writer.close()
    place.store.close()


@pytest.mark.capability("M1")
def test_why_names_everything_that_made_a_prediction(place: Place) -> None:
    world, new = place.world, place.world.live

    said = why(place.store, place.log, place.new[0])

    assert said.prediction.id == place.new[0]
    assert (said.release.id, said.release.state, said.release.requested_by.name) == (
        new.release,
        "live",
        "delays",
    )
    assert (said.model_version.model, said.model_version.number, said.model_version.digest) == (
        "delays",
        2,
        new.digest,
    )
    assert said.verdict is not None
    assert (said.verdict.id, said.verdict.passed, said.verdict.summary) == (
        new.verdict,
        True,
        "auc 0.74 >= 0.6",
    )
    assert (said.run.id, said.run.git_commit, said.run.git_dirty, said.run.seed) == (
        new.run,
        "c" * 40,
        False,
        7,
    )
    assert (said.run.code, said.run.environment, said.run.params) == (
        world.code,
        world.environment,
        {"num_leaves": "31"},
    )
    assert [cause.text for cause in said.run.causes] == ["trigger drift", "alert drift: distance drifted"]
    assert said.dataset is not None
    assert (said.dataset.id, said.dataset.manifest, said.dataset.rows) == ("flights@2", new.dataset, 2000)
    assert said.policy == world.policy
    assert [step.kind for step in said.events] == [
        "dataset.committed", "run.created", "run.started", "run.sealed", "model_version.registered", "verdict.given",
        "model_version.eligible", "release.requested", "release.judging", "release.rolling", "release.live",
    ]  # fmt: skip
    assert [step.at for step in said.events] == sorted(step.at for step in said.events)
    assert {step.actor for step in said.events} == {"delays"}


def test_why_names_the_person_behind_the_first_model(place: Place) -> None:
    said = why(place.store, place.log, place.old[0])

    assert said.release.state == "superseded"
    assert (said.run.started_by.name, said.run.started_by.kind) == ("Ann", "person")
    assert [cause.text for cause in said.run.causes] == ["trigger manual", "Ann"]


def test_why_answers_the_same_before_and_after_the_seal(place: Place) -> None:
    before = why(place.store, place.log, place.new[1])
    place.writers[-1].close()
    place.seal()

    assert why(place.store, place.log, place.new[1]) == before


def test_why_names_who_approved(place: Place) -> None:
    world, at = place.world, SystemClock().now()
    row = Approval(
        id=ApprovalId(new_id("approval")), release=world.live.release, version_digest=world.live.digest, policy=world.policy,
        actor=world.person, created_at=at,
    )  # fmt: skip
    place.store.write(lambda tx: tx.approvals.add(row))
    given = EventDraft(kind="approval.given", actor=world.person, subject=node("approval", row.id), at=at)
    place.store.write(lambda tx: tx.ledger.append(given))

    said = why(place.store, place.log, place.new[0])

    assert [(one.id, one.by.name) for one in said.approvals] == [(row.id, "Ann")]
    assert said.events[-1].kind == "approval.given"
    assert "approved by  Ann at " in said.text()


def test_an_erased_name_is_an_id_again(place: Place) -> None:
    person = place.world.person
    place.store.write(lambda tx: tx.personal.remove(node("actor", person)))

    assert why(place.store, place.log, place.old[0]).run.started_by.name == person


def test_why_says_unrecorded_of_a_version_that_came_without_run_and_data(place: Place) -> None:
    change(place, run=None, dataset_version=None, profile=None)

    said = why(place.store, place.log, place.new[0])

    assert (said.run, said.dataset, said.model_version.run) == (None, None, None)
    assert [line.split() for line in said.text().splitlines() if "unrecorded" in line] == [
        ["run", "unrecorded"],
        ["data", "unrecorded"],
    ]
    assert "dataset_version" not in {step.subject.partition(":")[0] for step in said.events}
    assert msgspec.json.decode(msgspec.json.encode(said))["run"] is None


def test_why_names_a_run_whose_rows_were_removed(place: Place) -> None:
    change(place, run="0" * 32)

    said = why(place.store, place.log, place.new[0])

    assert (said.run, said.model_version.run) == (None, "0" * 32)
    assert f"run  {'0' * 32}, which was deleted" in said.text()


def test_why_says_unrecorded_of_the_code_of_a_clients_run(place: Place) -> None:
    mine = tracked_run("a" * 32, number=77)
    place.store.write(lambda tx: tx.runs.add(msgspec.structs.replace(mine, actor=place.world.person)))
    place.store.write(lambda tx: tx.params.add(owner(mine), {f"p{n:03}": str(n) for n in range(300)}))
    change(place, run=mine.id)

    said = why(place.store, place.log, place.new[0])

    assert said.run is not None
    assert (said.run.id, said.run.code, said.run.started_by.name) == (mine.id, None, "Ann")
    assert (len(said.run.params), said.run.params["p000"]) == (200, "0")
    assert "code  unrecorded, no git commit" in said.text()


def change(place: Place, **fields: object) -> None:
    """Let the live version have been registered with other facts."""
    ident = place.world.live.model_version

    def work(tx: Transaction) -> None:
        tx.model_versions.change(msgspec.structs.replace(tx.model_versions.get(ident), **fields))

    place.store.write(work)


def test_why_is_json_and_readable(place: Place) -> None:
    said = why(place.store, place.log, place.new[0])

    told = msgspec.json.decode(msgspec.json.encode(said))
    assert told["run"]["params"] == {"num_leaves": "31"}
    text = said.text()
    for part in (
        place.new[0],
        "delays/2",
        "flights@2, 2000 rows",
        "git cccccccccccc",
        "num_leaves=31",
        "passed: auc",
    ):
        assert part in text


def test_why_of_what_is_not_there_is_refused(place: Place) -> None:
    with pytest.raises(NotFound, match="no prediction"):
        why(place.store, place.log, PredictionId("018bcfe5-6803-7000-8000-001c00000003"))
    with pytest.raises(Invalid, match="not a prediction id"):
        why(place.store, place.log, PredictionId("nonsense"))


def counts(said: Impact) -> dict[str, int]:
    return {group.kind: group.count for group in said.made}


def test_impact_of_data_counts_what_was_made_of_it_and_apart_what_it_led_to(place: Place) -> None:
    old, new = place.world.generations

    said = impact(place.store, place.log, "flights@1")

    assert said.node == node("dataset_version", old.dataset)
    assert said.name == "flights@1"
    assert counts(said) == {
        "run": 1, "model_version": 1, "verdict": 1, "release": 1, "rollout": 1, "endpoint": 1, "segment": 2,
    }  # fmt: skip
    assert said.predictions == 7
    assert said.by_release == {old.release: 7}
    led = {group.kind: group.names for group in said.led_to}
    assert led["model_version"] == ("delays/2",)
    assert led["dataset_version"] == ("flights@2",)
    assert said.led_to_predictions == 7
    assert impact(place.store, place.log, "flights@2").by_release == {new.release: 7}
    assert not said.truncated


def test_impact_takes_every_name_of_a_thing(place: Place) -> None:
    world, (old, new) = place.world, place.world.generations
    names = {
        "flights@2": node("dataset_version", new.dataset), new.dataset: node("dataset_version", new.dataset),
        f"dataset_version:{old.dataset}": node("dataset_version", old.dataset),
        "delays/2": node("model_version", new.model_version), new.model_version: node("model_version", new.model_version),
        new.digest: node("model_version", new.model_version), new.run: node("run", new.run),
        new.release: node("release", new.release), new.verdict: node("verdict", new.verdict),
        f"run:{old.run}": node("run", old.run), world.code: node("code", world.code), "delays": node("line", "delays"),
        world.person: node("actor", world.person), f" {world.policy} ": node("policy", world.policy),
    }  # fmt: skip

    assert {name: impact(place.store, place.log, name).node for name in names} == names


@pytest.mark.parametrize(
    "what",
    ["", "flights@9", "flights@x", "delays/0", "run:unknown", "sha256:" + "0" * 64, "sha256:x", "mv_none", "x@" + "9" * 50],
)  # fmt: skip
def test_impact_of_what_is_not_there_says_how_to_ask(place: Place, what: str) -> None:
    with pytest.raises(NotFound, match="DATASET@NUMBER, MODEL/NUMBER"):
        impact(place.store, place.log, what)


def test_shared_code_touches_all(place: Place) -> None:
    said = impact(place.store, place.log, place.world.code)

    assert counts(said)["model_version"] == 2
    assert said.predictions == 14


def test_a_release_counts_its_own_predictions(place: Place) -> None:
    new = place.world.live

    assert impact(place.store, place.log, new.release).by_release == {new.release: 7}


def test_a_segment_that_is_sealed_and_still_a_file_counts_once(place: Place) -> None:
    place.writers[-1].close()
    place.seal(drop=False)

    assert impact(place.store, place.log, "flights@2").predictions == 7
    assert len(place.log.unsealed()) == 1


def test_impact_is_json_and_readable(place: Place) -> None:
    said = impact(place.store, place.log, "flights@1")

    assert msgspec.json.decode(msgspec.json.encode(said))["predictions"] == 7
    text = said.text()
    assert text.startswith("dataset version flights@1 was needed for:")
    for part in (
        "1 model version: delays/1",
        "2 segments: ",
        "7 predictions",
        "and only led to:",
        "superseded",
    ):
        assert part in text
    assert "nothing" in impact(place.store, place.log, f"rollout:{place.world.live.rollout}").text()


def test_circles_end(place: Place) -> None:
    world = place.world
    back = EventDraft(
        kind="contract.inferred", actor=world.line_actor, subject=node("contract", world.contract), at=SystemClock().now(),
        inputs=(node("endpoint", world.endpoint),),
    )  # fmt: skip
    place.store.write(lambda tx: tx.ledger.append(back))

    said = impact(place.store, place.log, "flights@1")

    assert counts(said)["contract"] == 1
    assert said.predictions == 14, "the contract, and with it all data, is made of the first dataset now"
