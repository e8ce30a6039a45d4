"""Delivery: each entry exactly once, whatever happens to the server, the answers, the training or the sender."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from andon.core.canonical import digest_bytes
from andon.core.clock import to_us
from andon.core.entities import Actor
from andon.core.errors import Invalid, NotFound, Unavailable
from andon.core.ids import RunId, node
from andon.core.workspace import Layout
from andon.governance.access import ensure_actor
from andon.store.ports import Store
from andon.testing.stores import Place
from andon.tracking.native import sender, spool, targets
from andon.tracking.native.delivery import deliver
from andon.tracking.native.entries import (
    Delivered,
    Delivery,
    Ended,
    Entry,
    Kept,
    Made,
    Opening,
    Params,
    Points,
    Tags,
    Used,
    decode_delivery,
    encode,
)
from andon.tracking.native.sender import Backoff, Pump, sync
from andon.tracking.native.spool import Session, SpoolWriter, session_folder
from andon.tracking.native.targets import HttpTarget, WorkspaceTarget, check_url, token_for
from tests.tracking.flaky import Fault, flaky
from tests.tracking.trained import Trained, trained, trained_in
from tests.web.conftest import Control, serving
from tests.web.world import fill, opened

AT = datetime(2026, 3, 4, 12, 30, 15, tzinfo=UTC)
AT_MS = to_us(AT) // 1000
RUN = RunId("0" * 31 + "7")
OPENING = Opening(
    run=RUN, writer="a" * 16, opened_ms=AT_MS, experiment="spools", name="first", claimed_user="ann"
)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    from andon.core.workspace import Settings

    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return Place(Layout(tmp_path / "there" / ".andon"), Settings(database_url=url))


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    opened_store = place.open()
    yield opened_store
    opened_store.close()


@pytest.fixture
def actor(store: Store) -> Actor:
    return store.write(lambda tx: ensure_actor(tx, "os:1000", "person", "ann", AT))


def take(
    store: Store, actor: Actor, *entries: Entry, opening: Opening = OPENING, **other: object
) -> Delivered:
    delivery = Delivery(opening=opening, entries=list(entries), skipping=bool(other.pop("skipping", False)))
    return store.write(lambda tx: deliver(tx, delivery, actor=actor.id, at=AT, **other))  # type: ignore[arg-type]


def later(seconds: int, **changes: object) -> Opening:
    """Another process that took the run up."""
    return msgspec.structs.replace(OPENING, writer="b" * 16, opened_ms=AT_MS + 1000 * seconds, **changes)


# --- the verb that receives ---


@pytest.mark.capability("C2")
def test_a_run_is_begun_by_its_first_entries_and_ended_by_its_last(store: Store, actor: Actor) -> None:
    said = take(
        store, actor,
        Params(1, AT_MS, {"lr": "0.1"}), Tags(2, AT_MS, {"team": "churn"}), Points(3, AT_MS, 0, {"loss": 0.5}),
        Points(4, AT_MS + 1, 1, {"loss": 0.25, "bad": math.inf}), Made(5, AT_MS, "c0ffee", True, digest_bytes(b"env")),
        Ended(6, AT_MS + 9000, "finished"),
    )  # fmt: skip

    found = trained(store, RUN)
    experiment = store.read(lambda reader: reader.experiments.get(found.run.experiment))
    events = store.read(lambda reader: reader.ledger.latest(subject=node("run", RUN)))
    assert said == Delivered(run=RUN, experiment=experiment.id, seq=6)
    assert (found.run.name, found.run.state, found.run.actor, found.run.claimed_user) == (
        "first", "finished", actor.id, "ann",
    )  # fmt: skip
    assert (found.run.git_commit, found.run.git_dirty, found.run.environment) == (
        "c0ffee", True, digest_bytes(b"env"),
    )  # fmt: skip
    assert found.run.finished_at is not None
    assert to_us(found.run.finished_at) == (AT_MS + 9000) * 1000
    assert experiment.name == "spools"
    assert found.params == {"lr": "0.1"}
    assert found.tags == {"team": "churn", "mlflow.runName": "first"}
    assert found.metrics == {"loss": [(0, 0.5), (1, 0.25)], "bad": [(1, math.inf)]}
    assert "run.created" in [event.kind for event in events]


def test_what_is_delivered_again_changes_nothing(store: Store, actor: Actor) -> None:
    entries = (Points(1, AT_MS, 0, {"loss": 0.5}), Tags(2, AT_MS, {"a": "1"}), Ended(3, AT_MS, "finished"))
    first = take(store, actor, *entries)
    before, head = trained(store, RUN), store.read(lambda reader: reader.ledger.head())

    again = [take(store, actor, *entries[:count]) for count in (1, 2, 3)]

    assert [said.seq for said in again] == [first.seq] * 3
    assert trained(store, RUN) == before
    assert store.read(lambda reader: reader.ledger.head()) == head


def test_a_delivery_that_overlaps_adds_only_what_is_new(store: Store, actor: Actor) -> None:
    take(store, actor, Tags(1, AT_MS, {"n": "1"}), Tags(2, AT_MS, {"n": "2"}))

    said = take(store, actor, Tags(2, AT_MS, {"n": "never"}), Tags(3, AT_MS, {"m": "3"}))

    assert said.seq == 3
    assert {key: trained(store, RUN).tags[key] for key in "nm"} == {"n": "2", "m": "3"}


def test_entries_that_come_too_early_are_left_alone(store: Store, actor: Actor) -> None:
    take(store, actor, Tags(1, AT_MS, {"n": "1"}))

    early = take(store, actor, Tags(4, AT_MS, {"n": "4"}))
    lost = take(store, actor, Tags(4, AT_MS, {"n": "4"}), skipping=True)

    assert (early.seq, lost.seq) == (1, 4)
    assert trained(store, RUN).tags["n"] == "4"


def test_a_delivery_with_a_gap_inside_is_refused(store: Store, actor: Actor) -> None:
    with pytest.raises(Invalid, match="entry 3 follows entry 1"):
        take(store, actor, Tags(1, AT_MS, {}), Tags(3, AT_MS, {}))


def test_one_bad_entry_keeps_no_other_back(store: Store, actor: Actor) -> None:
    said = take(
        store, actor,
        Params(1, AT_MS, {"lr": "0.1", "depth": "3"}), Params(2, AT_MS, {"lr": "0.2", "seed": "7"}),
        Points(3, AT_MS, 0, {"../up": 1.0, "loss": 0.5}), Points(4, 2**62, 0, {"loss": 0.1}),
        Tags(5, AT_MS, {"k" * 300: "x", "fine": "y"}), Kept(6, AT_MS, "../passwd", digest_bytes(b""), 0),
        Used(7, AT_MS, "", "", "local", ""), Ended(8, AT_MS, "finished"),
    )  # fmt: skip

    found = trained(store, RUN)
    assert said.seq == 8
    assert [refused.seq for refused in said.refused] == [3, 4, 2, 5, 6, 7]
    assert found.params == {"lr": "0.1", "depth": "3", "seed": "7"}
    assert found.metrics == {"loss": [(0, 0.5)]}
    assert (found.tags["fine"], found.run.state) == ("y", "finished")
    assert found.tags["andon.refused"].startswith("entry 7: an input needs a name")


def test_a_file_whose_bytes_are_lost_is_refused_and_the_rest_goes_on(store: Store, actor: Actor) -> None:
    here, gone = digest_bytes(b"here"), digest_bytes(b"gone")

    said = take(
        store, actor, Kept(1, AT_MS, "a.txt", here, 4), Kept(2, AT_MS, "b.txt", gone, 4), Tags(3, AT_MS, {}),
        lacking={gone},
    )  # fmt: skip

    assert [(refused.seq, "were lost" in refused.why) for refused in said.refused] == [(2, True)]
    assert trained(store, RUN).files == {"a.txt": here}


@pytest.mark.capability("C3")
def test_a_dataset_that_was_used_is_an_input_of_the_run(store: Store, actor: Actor) -> None:
    take(store, actor, Used(1, AT_MS, "customers", "sha256:1", "local", "s3://bucket/customers", "training"))
    take(store, actor, Used(2, AT_MS, "customers", "sha256:1", "local", "s3://bucket/customers", "training"))

    rows = store.read(lambda reader: reader.run_inputs.select({"run": RUN}))
    assert [(row.name, row.digest, row.source, row.context) for row in rows] == [
        ("customers", "sha256:1", "s3://bucket/customers", "training")
    ]


def test_a_run_that_is_resumed_goes_on_and_ends_again(store: Store, actor: Actor) -> None:
    take(store, actor, Points(1, AT_MS, 0, {"loss": 1.0}), Ended(2, AT_MS, "failed"))
    second = later(60, resumed=True)

    take(store, actor, Points(1, AT_MS, 1, {"loss": 0.5}), opening=second)
    running = trained(store, RUN).run.state
    take(store, actor, Ended(2, AT_MS + 70_000, "finished"), opening=second)

    found = trained(store, RUN)
    assert (running, found.run.state) == ("running", "finished")
    assert found.metrics == {"loss": [(0, 1.0), (1, 0.5)]}


def test_the_late_end_of_an_older_process_does_not_end_a_run_that_goes_on(store: Store, actor: Actor) -> None:
    take(store, actor, Tags(1, AT_MS, {}), opening=later(60, resumed=True))

    take(store, actor, Points(1, AT_MS, 0, {"loss": 1.0}), Ended(2, AT_MS, "killed"))

    assert trained(store, RUN).run.state == "running"
    assert trained(store, RUN).metrics == {"loss": [(0, 1.0)]}


def test_a_helper_neither_begins_again_nor_ends_a_run(store: Store, actor: Actor) -> None:
    take(store, actor, Ended(1, AT_MS, "finished"))

    take(
        store,
        actor,
        Points(1, AT_MS, 0, {"x": 1.0}),
        Ended(2, AT_MS, "killed"),
        opening=later(1, helper=True),
    )

    assert trained(store, RUN).run.state == "finished"


def test_an_end_before_the_beginning_is_the_beginning(store: Store, actor: Actor) -> None:
    """The clock was set back a year while it trained."""
    take(store, actor, Points(1, AT_MS - 10**10, 0, {"a": 1.0}), Ended(2, AT_MS - 10**10, "finished"))

    run = trained(store, RUN).run
    assert run.finished_at == run.started_at


def test_a_run_that_was_removed_for_good_stays_removed(store: Store, actor: Actor) -> None:
    take(store, actor, Tags(1, AT_MS, {}))
    store.write(lambda tx: tx.runs.remove(RUN))

    with pytest.raises(NotFound, match="removed for good"):
        take(store, actor, Tags(2, AT_MS, {}))


def test_nobody_writes_into_the_run_of_a_line(tmp_path: Path) -> None:
    with opened(tmp_path) as world:
        fill(world)
        opening = msgspec.structs.replace(OPENING, run=RunId(f"{1:032x}"))

        with pytest.raises(Invalid, match="is the line 'flights''s own"):
            take(world.ws.store, world.person, Tags(1, AT_MS, {"a": "b"}), opening=opening)


def test_a_delivery_in_json_says_the_same_as_one_that_is_packed() -> None:
    entries: list[Entry] = [Points(1, AT_MS, 0, {"a": 1.5, "n": 2.0}), Params(2, AT_MS, {"b": "c"})]
    delivery = Delivery(opening=OPENING, entries=entries)

    assert decode_delivery(encode(delivery), packed=True) == delivery
    assert decode_delivery(msgspec.json.encode(delivery), packed=False) == delivery


@pytest.mark.parametrize("data", [b"", b"\xc1", b"[]", b"{}", b"\x80", encode({"opening": {"run": "x"}})])
def test_what_is_no_delivery_is_refused(data: bytes) -> None:
    for packed in (True, False):
        with pytest.raises(Invalid, match="the delivery cannot be"):
            decode_delivery(data, packed=packed)


# --- on the way ---


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with opened(tmp_path / "server") as world, serving(world) as found:
        yield found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def written(root: Path, steps: int, *, end: bool = True, to: str = "", run: str = RUN) -> Session:
    """A spool that a training left."""
    opening = msgspec.structs.replace(OPENING, run=RunId(run))
    session = Session(session_folder(root, opening))
    writer = SpoolWriter(session.folder, opening, to)
    writer.append(Params, {"steps": str(steps)}, at_ms=AT_MS)
    for step in range(steps):
        writer.append(Points, step, {"loss": 1.0 / (step + 1), "acc": float(step)}, at_ms=AT_MS + step)
    writer.append(Kept, "model.txt", *writer.keep(b"weights"), at_ms=AT_MS + steps)
    if end:
        writer.append(Ended, "finished", at_ms=AT_MS + steps)
    writer.close()
    return session


def expected(steps: int) -> dict[str, list[tuple[int, float]]]:
    return {
        "loss": [(step, 1.0 / (step + 1)) for step in range(steps)],
        "acc": [(step, float(step)) for step in range(steps)],
    }


def whole(found: Trained, steps: int, state: str = "finished") -> bool:
    return (
        found.run.state == state
        and found.metrics == expected(steps)
        and found.params == {"steps": str(steps)}
        and found.files.get("model.txt") == digest_bytes(b"weights")
    )


def drain(session: Session, target: targets.Target) -> list[str]:
    """Deliver until nothing is left; what went wrong on the way."""
    assert session.take()
    pump, failures = Pump(session, target), []
    for _ in range(200):
        try:
            if not pump.step():
                break
        except (Unavailable, OSError, Invalid) as error:
            failures.append(type(error).__name__)
    session.drop()
    assert pump.ended()
    return failures


ALL_FAULTS: tuple[Fault, ...] = ("lose the answer", "500", "rubbish", "cut")


@pytest.mark.parametrize("fault", ALL_FAULTS)
def test_half_of_all_requests_go_wrong_and_nothing_is_lost_or_twice(
    control: Control, root: Path, fault: Fault
) -> None:
    session = written(root, 1700)
    with flaky(control.address) as way:
        draw = random.Random(3)
        way.faults = iter(lambda: draw.choice([fault, "none"]), "never")
        target = HttpTarget(way.address, control.state.token)

        failures = drain(session, target)

        target.close()
    assert failures
    assert sum(asked.startswith(fault) for asked in way.asked) >= 5
    assert whole(trained(control.world.ws.store, RUN), 1700)


def test_a_server_that_stalls_is_let_go_in_time(
    control: Control, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_TIMEOUT_S", 0.2)
    session = written(root, 20)
    with flaky(control.address) as way:
        way.faults = iter(["stall"])
        target = HttpTarget(way.address, control.state.token)

        failures = drain(session, target)

        target.close()
    assert failures == ["TimeoutError"]
    assert whole(trained(control.world.ws.store, RUN), 20)


def test_a_file_goes_in_parts_and_goes_on_where_it_stopped(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "PART_BYTES", 10_000)
    data = os.urandom(95_000)
    source = tmp_path / "file"
    source.write_bytes(data)
    with flaky(control.address) as way:
        way.faults = iter(["none", "none", "none", "cut", "none", "lose the answer"])
        target = HttpTarget(way.address, control.state.token)
        for _ in range(3):
            try:
                target.upload(RUN, digest_bytes(data), source)
                break
            except OSError:
                continue
        target.close()
        parts = [asked for asked in way.asked if "start=" in asked and asked.startswith("none")]

    assert control.world.ws.blobs.get(digest_bytes(data)) == data
    assert len(parts) == 10  # nine, and the one whose answer was lost is asked about again


def test_a_server_that_lost_what_it_had_gets_it_again_as_far_as_it_is_here(
    tmp_path: Path, root: Path
) -> None:
    """It was restored from an older backup: rewound to what the spool still has, then the rest."""
    session = written(root, 1200)
    old, new = (WorkspaceTarget(Layout(tmp_path / name / ".andon"), {}) for name in ("old", "new"))

    class Restored:
        """The one server until it is restored, the other afterwards."""

        now = old

        def deliver(self, delivery: Delivery) -> Delivered:
            return self.now.deliver(delivery)

        def upload(self, *what: object) -> None:
            self.now.upload(*what)  # type: ignore[arg-type]

        def seal(self, run: RunId) -> None: ...
        def close(self) -> None: ...

    target = Restored()
    assert session.take()
    pump = Pump(session, target)
    for _ in range(2):
        pump.step()
    target.now = new
    while pump.step():
        pass
    session.drop()
    old.close()
    new.close()

    assert pump.lost == 0
    assert whole(trained_in(tmp_path / "new/.andon", RUN), 1200)


@pytest.mark.capability("C1")
def test_a_server_that_is_killed_in_the_middle_of_a_batch_has_everything_once(
    tmp_path: Path, root: Path
) -> None:
    workspace = Layout(tmp_path / "server/.andon").create()
    session = written(root, 6000)
    command = [sys.executable, "-m", "andon.web", "--workspace", str(workspace.root), "--port"]
    kills = 4

    with started(command, "0") as first, flaky(first.address) as way:
        running = [first]

        def kill(count: int) -> None:
            if count % 3 == 2 and len(running) <= kills:
                running[-1].kill()
                running.append(Started(command, "0"))
                way.to = running[-1].address.removeprefix("http://")

        way.after = kill
        way.faults = itertools.cycle(["none", "none", "lose the answer"])
        target = HttpTarget(way.address, first.token(workspace))
        drain(session, target)
        target.close()
        for one in running:
            one.kill()

    assert len(running) == kills + 1
    assert whole(trained_in(workspace.root, RUN), 6000)


class Started:
    """A control process of its own."""

    def __init__(self, command: list[str], port: str) -> None:
        self._process = subprocess.Popen([*command, port], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        self.address = ""
        for line in self._process.stderr:
            if "control answers on " in line:
                self.address = line.rpartition(" ")[2].strip()
                break

    def token(self, workspace: Layout) -> str:
        return workspace.token.read_text().strip()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


def started(command: list[str], port: str) -> Started:
    return Started(command, port)


# --- andon sync ---


def test_two_senders_of_one_spool_deliver_it_once(tmp_path: Path, root: Path) -> None:
    workspace = Layout(tmp_path / ".andon").create()
    written(root, 900, to=str(workspace.root))
    results: list[list[sender.Synced]] = []
    threads = [threading.Thread(target=lambda: results.append(sync(root, {}, tmp_path))) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    states = sorted(one.state for result in results for one in result)
    assert states.count("delivered") == 1
    assert set(states) <= {"delivered", "in use"}
    assert whole(trained_in(workspace.root, RUN), 900)
    assert list(root.iterdir()) == []


def test_a_training_that_was_killed_is_delivered_and_ended_as_killed(tmp_path: Path, root: Path) -> None:
    workspace = Layout(tmp_path / ".andon").create()
    session = written(root, 30, end=False, to=str(workspace.root))
    session.console.with_name("console-000000").write_text("\x1b[31mlast words\x1b[0m\n")

    (done,) = sync(root, {}, tmp_path)

    found = trained_in(workspace.root, RUN)
    assert (done.state, done.killed, done.refused, done.lost) == ("delivered", True, 0, 0)
    assert whole(found, 30, "killed")
    assert found.files["andon/console.txt"] == digest_bytes(b"\x1b[31mlast words\x1b[0m\n")
    assert sync(root, {}, tmp_path) == []


def test_a_spool_goes_where_its_run_began_and_not_where_one_happens_to_be(tmp_path: Path, root: Path) -> None:
    mine, other = (Layout(tmp_path / name / ".andon").create() for name in ("mine", "other"))
    written(root, 5, to=str(mine.root))

    (done,) = sync(root, {"ANDON_HOME": str(other.root)}, tmp_path, default=str(other.root))

    assert done.to == str(mine.root)
    assert whole(trained_in(mine.root, RUN), 5)
    with pytest.raises(NotFound):
        trained_in(other.root, RUN)


def test_a_spool_of_a_workspace_that_is_gone_stays_until_another_is_named(tmp_path: Path, root: Path) -> None:
    other = Layout(tmp_path / "other/.andon").create()
    written(root, 5, to=str(tmp_path / "gone/.andon"))

    (left,) = sync(root, {}, tmp_path, default=str(other.root))
    (done,) = sync(root, {}, tmp_path, to=str(other.root))

    assert (left.state, done.state) == ("left", "delivered")
    assert "is gone" in left.why
    assert whole(trained_in(other.root, RUN), 5)


def test_a_damaged_spool_keeps_no_other_back(tmp_path: Path, root: Path) -> None:
    workspace = Layout(tmp_path / ".andon").create()
    damaged = written(root, 5, to=str(workspace.root), run="0" * 31 + "1")
    for log in damaged.folder.glob("*.log"):
        log.write_bytes(b"\xff" * 50)
    written(root, 5, to=str(workspace.root))

    done = sync(root, {}, tmp_path)

    assert [one.state for one in done] == ["left", "delivered"]
    assert damaged.folder.is_dir()
    assert whole(trained_in(workspace.root, RUN), 5)


def test_the_middle_of_a_damaged_spool_is_lost_and_said_to_be(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 4000)
    workspace = Layout(tmp_path / ".andon").create()
    session = written(root, 400, to=str(workspace.root))
    victim = sorted(session.folder.glob("*.log"))[1]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)

    (done,) = sync(root, {}, tmp_path)

    found = trained_in(workspace.root, RUN)
    assert done.state == "delivered"
    assert done.lost > 0
    assert len(found.metrics["loss"]) == 400 - done.lost
    assert found.run.state == "finished"


ANDON = [sys.executable, "-m", "andon"]


def test_the_command_says_what_it_did_and_ends_with_a_code(tmp_path: Path) -> None:
    workspace = Layout(tmp_path / ".andon").create()
    written(workspace.root / "spool", 12, to=str(workspace.root))

    done = subprocess.run(
        [*ANDON, "sync", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    again = subprocess.run([*ANDON, "sync"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, again.returncode) == (0, 0)
    (said,) = json.loads(done.stdout)["runs"]
    assert (said["run"], said["state"], said["entries"]) == (RUN, "delivered", 15)
    assert "1 of 1: run" in done.stderr
    assert again.stdout.startswith("nothing is left in ")


def test_the_command_fails_with_14_when_the_server_is_away_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Layout(tmp_path / ".andon").create()
    for number in (1, 2):
        written(workspace.root / "spool", 3, to="http://127.0.0.1:9", run="0" * 31 + str(number))

    done = subprocess.run(
        [*ANDON, "sync", "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    moved = subprocess.run(
        [*ANDON, "sync", "--to", str(workspace.root)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 14
    assert [one["state"] for one in json.loads(done.stdout)["runs"]] == ["left", "left"]
    assert "2 of 2 runs are not delivered" in done.stderr
    assert moved.returncode == 0, moved.stderr
    assert whole_without_name(trained_in(workspace.root, "0" * 31 + "1"), 3)


def whole_without_name(found: Trained, steps: int) -> bool:
    return found.metrics == expected(steps) and found.run.state == "finished"


# --- small decisions ---


def test_waits_double_up_to_a_minute_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = Backoff()

    waits = [backoff.failed() for _ in range(12)]
    backoff.worked()

    assert all(low <= wait <= 2 * low for wait, low in zip(waits, [1, 2, 4, 8, 16, *[30] * 7], strict=True))
    assert len(set(waits)) == 12
    assert backoff.failed() <= 2


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "http://",
        "http://user:pw@host",
        "http://host/?q=1",
        "http://host:99999",
        "file:///etc/passwd",
        "http://host#a",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        check_url(url)


def test_the_workspaces_own_token_is_shown_to_this_machine_only(tmp_path: Path) -> None:
    from andon.governance.access import ensure_token

    layout = Layout(tmp_path / ".andon").create()
    token = ensure_token(layout.token)

    assert token_for("http://127.0.0.1:5000", {}, tmp_path) == token
    assert token_for("http://localhost:5000", {}, tmp_path) == token
    assert token_for("https://andon.example.com", {}, tmp_path) is None
    assert token_for("https://andon.example.com", {"ANDON_TOKEN": "mine\n"}, tmp_path) == "mine"


def test_a_redirect_is_not_followed_with_the_token(root: Path) -> None:
    import http.server

    seen: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.path)
            self.send_response(307)
            self.send_header("Location", "http://127.0.0.1:9/steal")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    target = HttpTarget(f"http://127.0.0.1:{server.server_address[1]}", "secret")

    with pytest.raises(Unavailable, match="answers 307"):
        target.deliver(Delivery(opening=OPENING))

    target.close()
    thread.join()
    server.server_close()
    assert seen == [f"/api/runs/{RUN}/entries"]
