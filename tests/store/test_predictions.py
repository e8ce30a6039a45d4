"""The prediction log end to end: the contract on a real store, chaos, torn files, races between seal, drop and tail."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.clock import SystemClock, from_us
from andon.core.entities import Actor, Segment
from andon.core.errors import Conflict, Corrupt, Invalid, NotFound
from andon.core.ids import ActorId, PredictionId, prediction_id
from andon.core.predictions import MAGIC, PredictionRecord, SegmentHeader, frame
from andon.core.workspace import Layout, Settings
from andon.store import open_store
from andon.store.blobs import LocalBlobs
from andon.store.ports import PredictionWriter, Reader, Store
from andon.store.predictions import LEDGER, SegmentLog, SegmentWriter, commit_segment, pinned
from andon.testing.predictions import T0_MS, Bench, PredictionLogConformance, in_order, record

AT = datetime(2013, 4, 1, tzinfo=UTC)
ANN = ActorId("act_ann")

ANSWERING = """
import sys
from pathlib import Path
from andon.core.clock import SystemClock
from andon.store.predictions_writer import SegmentWriter
from andon.testing.predictions import record
writer = SegmentWriter(Path(sys.argv[1]), SystemClock(), max_bytes=20_000)
while True:
    first = writer.next_number()
    batch = [record(writer.boot, first + k) for k in range(1 + first % 5)]
    writer.append(batch)
    print(*(item.prediction_id for item in batch), flush=True)
"""


class Workshop:
    """A store, blobs and log in a folder."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder / ".andon").create()
        self.store: Store = open_store(self.layout, Settings())
        self.blobs = LocalBlobs(self.layout.blobs)
        self.folder = self.layout.predictions
        self.log = self.another_log()
        self.store.write(
            lambda tx: tx.actors.add(Actor(id=ANN, kind="person", subject="os:1", created_at=AT))
        )

    def another_log(self) -> SegmentLog:
        return SegmentLog(self.folder, self.store, self.blobs, SystemClock())

    def writer(self, **settings: int) -> SegmentWriter:
        return SegmentWriter(self.folder, SystemClock(), **settings)  # type: ignore[arg-type]

    def commit(self, segment: Segment) -> Segment:
        return commit_segment(self.store, segment, actor=ANN, at=AT)

    def bench(self, **settings: int) -> Bench:
        def writer() -> PredictionWriter:
            return self.writer(**settings)

        return Bench(writer, self.log, self.commit)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path)
    yield made
    made.store.close()


class TestSegmentLog(PredictionLogConformance):
    @pytest.fixture
    def bench(self, workshop: Workshop) -> Bench:
        return workshop.bench()


class TestSegmentLogOfSmallSegments(PredictionLogConformance):
    """The same with a new segment every few records, where a test does not count segments."""

    @pytest.fixture
    def bench(self, workshop: Workshop) -> Bench:
        return workshop.bench(max_bytes=700)

    test_a_sealed_segment_holds_what_was_written = None  # type: ignore[assignment]
    test_an_open_segment_is_not_sealed = None  # type: ignore[assignment]
    test_sealing_again_gives_the_same_row = None  # type: ignore[assignment]


def read_all(
    log: SegmentLog, position: dict[str, int] | None = None, limit: int = 10_000
) -> list[PredictionRecord]:
    """Everything after a position."""
    found, records = [], [None]
    position = position or {}
    while records:
        records, position = log.tail(position, limit=limit)  # type: ignore[assignment]
        found += records
    return found  # type: ignore[return-value]


# --- sealing ---


def test_a_sealed_segment_is_an_ordinary_parquet_file(workshop: Workshop) -> None:
    bench = workshop.bench()
    writer = bench.writer()
    written = bench.write(writer, 5)
    writer.close()

    (segment,) = bench.seal_all()

    frame = pl.read_parquet(workshop.blobs.path(segment.digest), glob=False, hive_partitioning=False)
    assert frame.columns == list(PredictionRecord.__struct_fields__)
    assert frame["release"].to_list() == ["rel_a"] * 5
    assert [msgspec.json.decode(text) for text in frame["inputs"]] == [item.inputs for item in written]
    assert segment.created_at == from_us(max(item.at_us for item in written))
    told = [item.data_at_us for item in written if item.data_at_us is not None]
    assert segment.data_from == (from_us(min(told)) if told else None)
    assert segment.data_until == (from_us(max(told)) if told else None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé", max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop(tmp_path_factory.mktemp("shared"))
    yield made
    made.store.close()


@given(
    inputs=st.dictionaries(st.text("abcé_", max_size=4), VALUES, max_size=4),
    features=st.lists(st.floats(), max_size=5),
    output=st.none() | st.floats(allow_nan=False),
    entity=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    data_at_us=st.none() | st.integers(0, 4_000_000_000_000_000),
)
def test_every_record_comes_back_from_its_blob_as_it_was(shared: Workshop, **fields: object) -> None:
    bench = shared.bench()
    writer = bench.writer()
    written = [msgspec.structs.replace(record(writer.boot, 0), **fields), record(writer.boot, 1)]
    writer.append(written)
    before = [shared.log.find(item.prediction_id) for item in written]
    writer.close()

    (segment,) = bench.seal_all()

    after = [shared.log.find(item.prediction_id) for item in written]
    assert repr(after) == repr(before) == repr(written)
    assert list(shared.folder.glob("*.log")) == []
    assert segment.rows == 2


def test_sealing_the_same_records_gives_the_same_blob(workshop: Workshop, tmp_path: Path) -> None:
    writer = workshop.writer()
    workshop.bench().write(writer, 300, each=3)
    writer.close()
    (ident,) = workshop.log.sealable()

    first = workshop.log.seal(ident)
    second = workshop.another_log().seal(ident)

    assert first == second
    assert len(list(workshop.blobs.digests())) == 1


def test_a_crash_between_any_two_steps_of_sealing_changes_nothing(workshop: Workshop) -> None:
    for stop in ("after seal", "after commit", "after drop"):
        writer = workshop.writer()
        written = workshop.bench().write(writer, 20)
        writer.close()
        (ident,) = workshop.log.sealable()
        segment = workshop.log.seal(ident)
        assert segment is not None
        if stop != "after seal":
            workshop.commit(segment)
        if stop == "after drop":
            workshop.log.drop(ident)

        workshop.log = workshop.another_log()
        again = workshop.bench().seal_all()

        assert again == ([] if stop == "after drop" else [segment])
        assert workshop.store.read(lambda reader, ident=ident: reader.segments.get(ident)) == segment  # type: ignore[misc]
        assert [workshop.log.find(item.prediction_id) for item in written] == written
    events = workshop.store.read(lambda reader: reader.ledger.after(0, kinds=("segment.sealed",)))
    assert len(events) == 3
    assert {event.inputs for event in events} == {("release:rel_a",)}
    assert len(read_all(workshop.another_log())) == 60


def test_a_file_whose_records_are_not_sealed_is_not_dropped(workshop: Workshop) -> None:
    writer = workshop.writer()
    workshop.bench().write(writer, 2)
    (path,) = workshop.folder.glob("*.log")
    for _ in range(2):
        with pytest.raises(Conflict):
            workshop.log.drop(path.stem)
        writer.close()
    with pytest.raises(NotFound, match="no segment"):
        workshop.log.seal("000000004d-000003")
    for name in ("../../etc/passwd", "", "000000004d-3"):
        for verb in (workshop.log.seal, workshop.log.drop):
            with pytest.raises(Invalid):
                verb(name)

    assert path.exists()


def test_nothing_is_sealed_while_it_is_written(workshop: Workshop) -> None:
    writer = workshop.writer()
    workshop.bench().write(writer, 2)
    (path,) = workshop.folder.glob("*.log")

    with pytest.raises(Conflict, match="still being written"):
        workshop.log.seal(path.stem)
    writer.close()


def test_while_a_backup_reads_nothing_is_dropped(workshop: Workshop) -> None:
    writer = workshop.writer()
    workshop.bench().write(writer, 2)
    writer.close()

    with pinned(workshop.folder):
        workshop.bench().seal_all()
        assert len(workshop.log.sealable()) == 1
    workshop.bench().seal_all()

    assert workshop.log.sealable() == []
    assert len(read_all(workshop.log)) == 2


def test_a_damaged_blob_is_named(workshop: Workshop) -> None:
    bench = workshop.bench()
    writer = bench.writer()
    written = bench.write(writer, 2)
    writer.close()
    (segment,) = bench.seal_all()
    path = Path(workshop.blobs.path(segment.digest))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])

    for verb in (workshop.log.find, workshop.log.has, lambda _: read_all(workshop.log)):
        with pytest.raises(Corrupt, match=path.name):
            verb(written[0].prediction_id)


def test_what_a_killed_writer_was_just_making_is_swept_after_a_day(workshop: Workshop) -> None:
    fresh, old = (
        workshop.folder / ".000000004d-000000.log.new",
        workshop.folder / ".000000004d-000001.log.new",
    )
    fresh.touch()
    old.touch()
    yesterday = time.time() - timedelta(hours=25).total_seconds()
    os.utime(old, (yesterday, yesterday))

    assert workshop.log.sealable() == []

    assert sorted(workshop.folder.glob(".*.new")) == [fresh]


# --- torn and damaged files ---


def put_file(workshop: Workshop, name: str, data: bytes) -> Path:
    path = workshop.folder / f"{name}.log"
    path.write_bytes(data)
    return path


HEAD = MAGIC + frame(SegmentHeader(1, 77, 0, 0, 0))
RECORDS = [record(77, number) for number in range(4)]
ENDS = [len(HEAD) + len(b"".join(map(frame, RECORDS[:count]))) for count in range(5)]
NAME = "000000004d-000000"


@pytest.mark.parametrize("tail", [b"", bytes(5000), b"\xff" * 300])
def test_a_torn_tail_is_cut(workshop: Workshop, tail: bytes) -> None:
    whole = HEAD + b"".join(map(frame, RECORDS))
    for size in random.Random(1).sample(range(len(whole)), 40):
        path = put_file(workshop, NAME, whole[:size] + tail)
        log = workshop.another_log()
        count = sum((whole[:size] + tail)[:end] == whole[:end] for end in ENDS[1:])

        assert read_all(log) == RECORDS[:count]
        assert [log.has(item.prediction_id) for item in RECORDS] == [number < count for number in range(4)]
        if size >= len(HEAD) or not tail.strip(b"\0"):
            segment = log.seal(NAME)
            assert (segment.rows if segment else 0) == count
        path.unlink(missing_ok=True)


def test_a_file_with_a_damaged_head_is_set_aside_and_said_once(workshop: Workshop) -> None:
    data = HEAD + b"".join(map(frame, RECORDS))
    put_file(workshop, NAME, b"X" + data[1:])
    put_file(workshop, "000000004e-000000", data)
    put_file(
        workshop, "000000004f-000000", MAGIC + frame(SegmentHeader(1, 79, 0, 5, 0)) + frame(record(79, 6))
    )
    assert len(workshop.log.sealable()) == 3

    for name in workshop.log.sealable():
        with pytest.raises(Corrupt, match=rf"set aside as {name}.log.damaged"):
            workshop.log.seal(name)

    assert workshop.log.sealable() == []
    assert len(list(workshop.folder.glob("*.damaged"))) == 3


def test_a_write_that_was_taken_back_is_not_held_against_the_next(workshop: Workshop) -> None:
    path = put_file(workshop, NAME, HEAD + frame(RECORDS[0]) + frame(record(77, 1, seed=9)))
    assert len(read_all(workshop.log)) == 2
    path.write_bytes(HEAD + frame(RECORDS[0]) + frame(RECORDS[1]) + frame(RECORDS[2]))

    assert [workshop.log.find(item.prediction_id) for item in RECORDS[:3]] == RECORDS[:3]
    path.write_bytes(HEAD + frame(RECORDS[0]))
    assert not workshop.log.has(RECORDS[1].prediction_id)


def test_a_segment_that_is_lost_is_passed_over(workshop: Workshop) -> None:
    bench = workshop.bench(max_bytes=600)
    writer = bench.writer()
    written = bench.write(writer, 30)
    files = sorted(workshop.folder.glob("*.log"))
    header_of_lost = workshop.log.tail({}, limit=4)
    files[1].unlink()
    files[2].unlink()

    found = read_all(workshop.another_log(), limit=4)

    assert header_of_lost[0] == written[:4]
    assert found == [item for item in written if item in found]
    assert 0 < len(written) - len(found) < 15
    assert found[0] == written[0]
    assert found[-1] == written[-1]
    writer.close()


# --- following ---


def test_a_position_stays_small(workshop: Workshop) -> None:
    position: dict[str, int] = {}
    bench = workshop.bench()
    for _ in range(20):
        writer = bench.writer()
        bench.write(writer, 1)
        writer.close()
        bench.seal_all()
        _, position = workshop.log.tail(position)
    _, position = workshop.log.tail(position)

    assert set(position) == {LEDGER}
    assert workshop.log.tail(position) == ([], position)


def test_a_position_that_is_none_is_refused(workshop: Workshop) -> None:
    for wrong in ({"x": 1}, {"000000004d": -1}, {"000000004d-000000": 5}):
        with pytest.raises(Invalid, match="not part of a position"):
            workshop.log.tail(wrong)


def test_since_leaves_history_out_and_nothing_else(workshop: Workshop) -> None:
    bench = workshop.bench(max_bytes=600)
    old, long = bench.writer(), bench.writer()
    bench.write(old, 30)
    old.close()
    written = bench.write(long, 40)
    bench.seal_all()
    moment = from_us(written[20].at_us)
    later = bench.writer()
    written += bench.write(later, 5)

    found = read_all(workshop.log, workshop.log.since(moment), limit=3)

    wanted = [item for item in written if item.at_us >= written[20].at_us]
    assert [
        item for item in in_order(found) if item.at_us >= written[20].at_us and item.id[6:11] != old_boot(old)
    ] == in_order(wanted)
    assert len(found) < len(written) + 30
    nothing = workshop.log.since(from_us((T0_MS + 10**6) * 1000))
    later.close()
    long.close()
    bench.seal_all()
    fresh = bench.writer()
    written = bench.write(fresh, 2)
    assert [item for item in read_all(workshop.log, nothing) if item in written] == written
    fresh.close()


def old_boot(writer: PredictionWriter) -> bytes:
    return record(writer.boot, 0).id[6:11]


def test_counts_of_unsealed_records_follow_the_files(workshop: Workshop) -> None:
    bench = workshop.bench()
    writer = bench.writer()
    bench.write(writer, 3, each=2)
    assert list(workshop.log.unsealed().values()) == [{"rel_a": 6}]
    bench.write(writer, 1, release="rel_b")

    assert list(workshop.log.unsealed().values()) == [{"rel_a": 6, "rel_b": 1}]
    writer.close()
    bench.seal_all()
    assert workshop.log.unsealed() == {}


def test_an_id_is_found_in_letters_of_either_case(workshop: Workshop) -> None:
    bench = workshop.bench()
    writer = bench.writer()
    (written,) = bench.write(writer, 1)
    ident = written.prediction_id
    spellings = [PredictionId(text) for text in (ident, ident.upper())]

    assert [workshop.log.find(text) for text in spellings] == [written] * 2
    writer.close()
    bench.seal_all()
    assert [workshop.log.find(text) for text in spellings] == [written] * 2
    assert all(workshop.log.has(text) for text in spellings)
    for wrong in ("", "nonsense", ident.replace("-", ""), "01890a5d-ac96-474b-bcce-b302099a8057"):
        with pytest.raises(Invalid):
            workshop.log.find(PredictionId(wrong))


class Meanwhile:
    """The store, with something that happens elsewhere just before the next look at it: after the folder was listed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.happens: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def read(self, work: Callable[[Reader], object]) -> object:
        happens, self.happens = self.happens, lambda: None
        happens()
        return self._store.read(work)


@pytest.fixture
def meanwhile(workshop: Workshop) -> Meanwhile:
    return Meanwhile(workshop.store)


@pytest.fixture
def follower(workshop: Workshop, meanwhile: Meanwhile) -> SegmentLog:
    return SegmentLog(workshop.folder, meanwhile, workshop.blobs, SystemClock())  # type: ignore[arg-type]


def test_a_boot_that_began_and_was_sealed_in_part_during_a_look_comes_once(
    workshop: Workshop, meanwhile: Meanwhile, follower: SegmentLog
) -> None:
    bench, writers = workshop.bench(max_bytes=500), []

    def happens() -> None:
        writers.append(bench.writer())
        bench.write(writers[0], 6)
        bench.seal_all()

    meanwhile.happens = happens
    first, position = follower.tail({})
    second, position = follower.tail(position)
    bench.write(writers[0], 1)
    third, position = follower.tail(position)

    assert first
    assert [item.prediction_id for item in first + second + third] == [
        record(writers[0].boot, number).prediction_id for number in range(7)
    ]
    writers[0].close()


def test_a_file_that_is_sealed_and_dropped_during_a_look_is_read_all_the_same(
    workshop: Workshop, meanwhile: Meanwhile, follower: SegmentLog
) -> None:
    bench = workshop.bench(max_bytes=500)
    writer = bench.writer()
    written = bench.write(writer, 20)
    _, position = follower.tail({}, limit=2)
    meanwhile.happens = bench.seal_all

    assert follower.tail(position)[0] == written[2:]
    assert follower.since(from_us(0)).keys() >= {f"{writer.boot:010x}"}
    writer.close()


def test_a_record_whose_file_is_dropped_during_a_look_is_found_in_its_blob(
    workshop: Workshop, meanwhile: Meanwhile, follower: SegmentLog
) -> None:
    bench = workshop.bench()
    writer = bench.writer()
    written = bench.write(writer, 3)
    writer.close()
    assert follower.find(written[0].prediction_id) == written[0]
    bench.seal_all()

    assert follower.find(written[1].prediction_id) == written[1]


def test_a_segment_that_is_sealed_before_an_older_one_is_not_passed_over(workshop: Workshop) -> None:
    bench = workshop.bench(max_bytes=500)
    writer = bench.writer()
    written = bench.write(writer, 12)
    writer.close()
    for ident in workshop.log.sealable()[1:]:
        segment = workshop.log.seal(ident)
        assert segment is not None
        workshop.commit(segment)
        workshop.log.drop(ident)

    assert len(list(workshop.folder.glob("*.log"))) == 1
    assert read_all(workshop.another_log(), limit=5) == written


def test_a_tail_gives_each_record_once_while_others_write_seal_and_drop(workshop: Workshop) -> None:
    """Three writers, a sealer and two readers at once, each with a log of its own as in a process of its own."""
    done = threading.Event()
    written: list[list[PredictionRecord]] = [[], [], []]
    faults: list[BaseException] = []

    def guarded(work):  # type: ignore[no-untyped-def]
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # shown at the end of the test
                faults.append(error)

        return threading.Thread(target=run)

    def write(place: int) -> None:
        rng = random.Random(place)
        bench = workshop.bench(max_bytes=3000)
        for _ in range(6):
            writer = bench.writer()
            for _ in range(rng.randint(1, 40)):
                written[place] += bench.write(writer, 1, each=rng.randint(1, 4))
            writer.close()

    def seal() -> None:
        bench = Bench(workshop.writer, workshop.another_log(), workshop.commit)
        while not done.is_set():
            bench.seal_all()

    read: list[list[PredictionRecord]] = [[], []]

    def follow(place: int) -> None:
        log, position, ending = workshop.another_log(), dict[str, int](), False
        while True:
            records, position = log.tail(position, limit=23)
            read[place] += records
            if ending and not records:
                return
            ending = ending or (done.is_set() and not records)

    writers = [guarded(lambda place=place: write(place)) for place in range(3)]
    others = [guarded(seal), *(guarded(lambda place=place: follow(place)) for place in range(2))]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join(120)
    done.set()
    for thread in others:
        thread.join(120)

    assert faults == []
    everything = in_order([item for items in written for item in items])
    assert in_order(read[0]) == everything
    assert in_order(read[1]) == everything


# --- chaos ---


@pytest.mark.chaos
def test_writers_that_are_killed_lose_no_acknowledged_prediction(workshop: Workshop) -> None:
    rng = random.Random(11)
    position: dict[str, int] = {}
    followed: list[PredictionRecord] = []
    acknowledged: list[str] = []
    for _ in range(int(os.environ.get("ANDON_CHAOS_CYCLES", "10"))):
        process = subprocess.Popen(
            [sys.executable, "-c", ANSWERING, str(workshop.folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(rng.randint(1, 200)):
            acknowledged += process.stdout.readline().split()
        records, position = workshop.log.tail(position)
        followed += records
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0]
        acknowledged += [
            ident for line in rest.splitlines(keepends=True) if line[-1] == "\n" for ident in line.split()
        ]
        if rng.random() < 0.5:
            workshop.bench().seal_all()
        if rng.random() < 0.3:
            workshop.log = workshop.another_log()
    followed += read_all(workshop.log, position)
    workshop.bench().seal_all()

    assert len(acknowledged) > 1000
    assert all(workshop.log.has(PredictionId(ident)) for ident in acknowledged)
    found = {item.prediction_id: item for item in followed}
    assert len(found) == len(followed)
    assert found.keys() >= set(acknowledged)
    assert all(item == record(*_place(item)) for item in followed), "none is damaged"
    assert list(workshop.folder.glob("*.log")) == []


def _place(item: PredictionRecord) -> tuple[int, int]:
    low = int.from_bytes(item.id) & (2**62 - 1) | (int.from_bytes(item.id[6:8]) & 0xFFF) << 62
    return low >> 34, low & (2**34 - 1)


def test_a_place_that_never_was_is_not_found(workshop: Workshop) -> None:
    assert not workshop.log.has(prediction_id(T0_MS, 5, 5))
