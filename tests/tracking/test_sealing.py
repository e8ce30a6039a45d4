"""Seals: what they are over, that they are given once, again after a late write, and never for what changed meanwhile."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from andon.core.clock import SystemClock
from andon.core.entities import Artifact, ModelPoint, Point, Run, owner
from andon.core.events import Event
from andon.core.ids import LoggedModelId, node
from andon.store.ports import Store, Transaction
from andon.testing.clock import FakeClock
from andon.testing.rows import ANN, AT, artifact, later, line, logged_model
from andon.testing.rows import run as line_run
from andon.testing.stores.place import put
from andon.tracking import sealing
from andon.tracking.inputs import Dataset, log_datasets, log_models
from andon.tracking.runs import create_run, delete_run, log_params, log_points, set_tags, update_run
from andon.tracking.sealing import Sealer, read_seal, seal_ended, unsealed, write_seal

DATA = Dataset(name="flights", digest="d1", source_type="http", source="https://example.org/x.csv")


def ended(store: Store, *, points: int = 3) -> Run:
    """A run with some of everything that has ended."""

    def work(tx: Transaction) -> Run:
        run, _ = create_run(tx, "0", actor=ANN, at=AT, name="r", tags={"a": "b"})
        log_points(tx, run.id, [Point("loss", step / 2, step, step) for step in range(points)])
        log_points(tx, run.id, [Point("auc", math.nan, 1)])
        log_params(tx, run.id, {"alpha": "1"})
        log_datasets(tx, run, [DATA], at=AT)
        return update_run(tx, run.id, state="finished", finished_at=later(1), at=later(1))

    return store.write(work)


def now(store: Store, run: Run) -> Run:
    return store.read(lambda reader: reader.runs.get(run.id))


def seals(store: Store, run: Run) -> list[Event]:
    events = store.read(lambda reader: reader.ledger.latest(subject=node("run", run.id)))
    return [event for event in reversed(events) if event.kind == "run.sealed"]


def late(store: Store, run: Run, work: Callable[[Transaction, Run], object]) -> None:
    store.write(lambda tx: work(tx, tx.runs.get(run.id)))


def test_an_ended_run_is_sealed_once(store: Store) -> None:
    run = ended(store)

    counts = [seal_ended(store, FakeClock()) for _ in range(2)]

    (event,) = seals(store, run)
    after = now(store, run)
    assert counts == [1, 0]
    assert (after.seal, after.seals) == (event.facts["seal"], 1)
    assert event.facts == {
        "state": "finished", "seal": after.seal, "number": 1, "points": 4, "params": 1, "files": 0,
    }  # fmt: skip
    assert event.actor == ANN


def test_a_running_run_and_a_lines_run_are_left_alone(store: Store) -> None:
    put(store, line(), msgspec.structs.replace(line_run("a" * 32), state="failed"))
    store.write(lambda tx: create_run(tx, "0", actor=ANN, at=AT, name="r", tags={}))

    assert seal_ended(store, FakeClock()) == 0


CHANGES: dict[str, Callable[[Transaction, Run], object]] = {
    "a point": lambda tx, run: log_points(tx, run.id, [Point("loss", 9.0, 9, 9)]),
    "an old point": lambda tx, run: log_points(tx, run.id, [Point("loss", 0.25, 0, 0)]),
    "a param": lambda tx, run: log_params(tx, run.id, {"beta": "2"}),
    "a dataset": lambda tx, run: log_datasets(tx, run, [msgspec.structs.replace(DATA, digest="d2")], at=AT),
    "the end": lambda tx, run: update_run(tx, run.id, finished_at=later(7), at=AT),
    "the state": lambda tx, run: update_run(tx, run.id, state="killed", finished_at=run.finished_at, at=AT),
    "a file": lambda tx, run: tx.artifacts.add(artifact(f"0/{run.id}/artifacts/model/a.txt")),
    "a model": lambda tx, run: log_models(tx, run, {LoggedModelId("m-1"): 0}, "output", at=AT),
    "a step of a model": lambda tx, run: log_models(tx, run, {LoggedModelId("m-1"): 5}, "output", at=AT),
    "a model as input": lambda tx, run: log_models(tx, run, {LoggedModelId("m-1"): 0}, "input", at=AT),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_a_run_holds_is_in_its_seal(store: Store, what: str) -> None:
    put(store, logged_model("m-1"))
    run = ended(store)
    before = read_seal(store, run)

    late(store, run, CHANGES[what])

    assert read_seal(store, now(store, run)).digest != before.digest


def test_tags_the_name_and_other_runs_are_not_in_it(store: Store) -> None:
    run = ended(store)
    before = read_seal(store, run)
    put(store, artifact("0/other/artifacts/a.txt"))
    ended(store)

    late(store, run, lambda tx, row: set_tags(tx, row, {"x": "y", "mlflow.runName": "renamed"}))

    after = read_seal(store, now(store, run))
    assert (after.digest, now(store, run).name) == (before.digest, "renamed")


def test_equal_content_gives_equal_seals_whatever_way_it_was_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ended(store, points=25)
    whole = read_seal(store, run)

    monkeypatch.setattr(sealing, "_PAGE", 7)

    assert read_seal(store, run) == whole
    assert whole.points == 26


def test_a_seal_names_the_models_and_files_of_the_run(store: Store) -> None:
    put(store, logged_model("m-1"), logged_model("m-2"))
    run = ended(store)
    late(store, run, lambda tx, row: log_models(tx, row, {LoggedModelId("m-1"): 0}, "input", at=AT))
    late(store, run, lambda tx, row: log_models(tx, row, {LoggedModelId("m-2"): 0}, "output", at=AT))
    files: list[Artifact] = [artifact(f"0/{run.id}/artifacts/{name}") for name in ("a.txt", "b/c.txt")]
    put(store, *files)

    seal_ended(store, FakeClock())

    (event,) = seals(store, run)
    assert (event.inputs, event.outputs, event.facts["files"]) == (
        ("logged_model:m-1",),
        ("logged_model:m-2",),
        2,
    )


def test_a_late_write_leads_to_the_next_seal_and_the_earlier_one_stays(store: Store) -> None:
    run = ended(store)
    seal_ended(store, FakeClock())
    first = now(store, run).seal

    late(store, run, CHANGES["a point"])
    between = now(store, run)
    seal_ended(store, FakeClock())

    after = now(store, run)
    assert (between.seal, between.seals, after.seals) == (None, 1, 2)
    assert [event.facts["seal"] for event in seals(store, run)] == [first, after.seal]
    assert first != after.seal


def test_a_seal_is_not_given_for_what_changed_while_it_was_made(store: Store) -> None:
    run = ended(store)
    stale = read_seal(store, run)
    late(store, run, CHANGES["a point"])

    given = store.write(lambda tx: write_seal(tx, stale, FakeClock()))

    assert (given, seals(store, run), now(store, run).seal) == (False, [], None)


def test_a_run_that_goes_on_again_or_is_sealed_already_gets_none(store: Store) -> None:
    run = ended(store)
    seal = read_seal(store, run)
    store.write(lambda tx: update_run(tx, run.id, state="running", at=AT))
    again = store.write(lambda tx: write_seal(tx, seal, FakeClock()))
    other = ended(store)
    seal = read_seal(store, other)

    twice = [store.write(lambda tx: write_seal(tx, seal, FakeClock())) for _ in range(2)]

    assert (again, twice) == (False, [True, False])
    assert (
        store.write(lambda tx: write_seal(tx, msgspec.structs.replace(seal, run="f" * 32), FakeClock()))
        is False
    )


def test_a_deleted_run_is_sealed_too(store: Store) -> None:
    run = ended(store)
    store.write(lambda tx: delete_run(tx, run.id, actor=ANN, at=AT))

    assert seal_ended(store, FakeClock()) == 1


def test_times_beyond_what_json_counts_exactly_are_sealed(store: Store) -> None:
    run = ended(store)
    far = AT.replace(year=9999)
    store.write(lambda tx: update_run(tx, run.id, finished_at=far, at=AT))

    assert seal_ended(store, FakeClock()) == 1
    assert now(store, run).seal is not None


def test_more_runs_than_a_page_are_all_sealed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_AT_ONCE", 3)
    runs = [ended(store) for _ in range(8)]

    assert seal_ended(store, FakeClock()) == 8
    assert all(now(store, run).seal for run in runs)
    assert store.read(unsealed) == []


def test_points_of_models_are_no_part_of_it_twice(store: Store) -> None:
    put(store, logged_model("m-1"))
    run = ended(store)
    point = ModelPoint(model=LoggedModelId("m-1"), run=run.id, key="f1", value=1.0, at_ms=1)

    late(store, run, lambda tx, row: log_points(tx, row.id, [Point("f1", 1.0, 1)], [point]))

    assert read_seal(store, now(store, run)).points == 5


# --- the thread ---


class Watched:
    """A store that says when a seal was committed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sealed = threading.Semaphore(0)

    def read(self, work: Callable[..., object]) -> object:
        return self.store.read(work)

    def write(self, work: Callable[..., list[bool]]) -> list[bool]:
        done = self.store.write(work)
        for ok in done:
            if ok:
                self.sealed.release()
        return done


@pytest.fixture
def watched(store: Store) -> Iterator[tuple[Watched, Sealer]]:
    seen = Watched(store)
    sealer = Sealer(seen, SystemClock())  # type: ignore[arg-type]
    yield seen, sealer
    sealer.close()


def test_the_thread_takes_up_what_an_earlier_process_left(watched: tuple[Watched, Sealer]) -> None:
    seen, sealer = watched
    run = ended(seen.store)

    sealer.start()

    assert seen.sealed.acquire(timeout=30)
    assert now(seen.store, run).seals == 1


def test_the_thread_seals_at_a_word_and_again_after_a_late_write(watched: tuple[Watched, Sealer]) -> None:
    seen, sealer = watched
    sealer.start()
    run = ended(seen.store)
    sealer.wake()
    assert seen.sealed.acquire(timeout=30)

    late(seen.store, run, CHANGES["a point"])
    sealer.wake()

    assert seen.sealed.acquire(timeout=30)
    assert [event.facts["number"] for event in seals(seen.store, run)] == [1, 2]


def test_a_run_that_cannot_be_sealed_keeps_no_other_from_it(
    watched: tuple[Watched, Sealer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen, sealer = watched
    bad, good = ended(seen.store), ended(seen.store)
    seen.store.write(lambda tx: tx.params.put(owner(bad), {"big": "x"}))
    real = sealing.digest_value

    def digest(domain: str, value: object) -> str:
        if isinstance(value, dict) and value["run"] == bad.id:
            raise sealing.Invalid("no canonical form")
        return real(domain, value)

    monkeypatch.setattr(sealing, "digest_value", digest)
    sealer.start()

    assert seen.sealed.acquire(timeout=30)
    assert (now(seen.store, good).seals, now(seen.store, bad).seals) == (1, 0)
    assert "cannot be sealed" in caplog.text


def test_closing_ends_the_thread_and_may_be_done_twice(store: Store) -> None:
    before = set(threading.enumerate())
    sealer = Sealer(store, SystemClock())
    sealer.start()

    sealer.close()
    sealer.close()

    assert set(threading.enumerate()) == before


def test_closing_one_that_was_never_started_does_nothing(store: Store) -> None:
    Sealer(store, SystemClock()).close()
