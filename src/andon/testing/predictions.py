"""What every prediction log must do, and records to try it with.

Subclass `PredictionLogConformance` in a test module and give the fixture `bench`, a `Bench` of the back end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest

from andon.core.entities import Segment
from andon.core.errors import Invalid, NotFound
from andon.core.ids import ReleaseId, prediction_id
from andon.core.predictions import VERSION, PredictionRecord
from andon.store.ports import PredictionLog, PredictionWriter

T0_MS = 1_700_000_000_000


def record(boot: int, number: int, *, release: str = "rel_a", seed: int = 0) -> PredictionRecord:
    """A record with all kinds of values, the same for the same arguments.

    >>> record(7, 3).prediction_id
    '018bcfe5-6803-7000-8000-001c00000003'
    """
    rng = random.Random(f"{boot} {number} {seed}")
    failed = rng.random() < 0.1
    return PredictionRecord(
        v=VERSION, id=UUID(prediction_id(T0_MS + number, boot, number)).bytes, at_us=(T0_MS + number) * 1000,
        data_at_us=rng.choice((None, 1_357_000_000_000_000 + number)), endpoint="delays", release=ReleaseId(release),
        model="delays", version=2, epoch=1, generation=100, arm=rng.choice(("stable", "candidate")),
        propensity=rng.random(), entity=rng.choice((None, "N14228", "zürich")), status=500 if failed else 200,
        inputs={"origin": rng.choice(("EWR", None, "é\u0000\"")), "distance": rng.choice((1400, 1400.0, -0.0, 2**63)),
                "late": rng.random() < 0.5, "nested": {"a": [1, 2.5, None]}},
        features=[] if failed else [rng.gauss(0, 1), float(number), 1e-308],
        output=None if failed else rng.random(), error="it failed" if failed else None, micros=rng.randint(20, 900),
    )  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A back end to be tried: makes writers, reads, and commits a sealed segment's row."""

    writer: Callable[[], PredictionWriter]
    log: PredictionLog
    commit: Callable[[Segment], object]

    def write(
        self, writer: PredictionWriter, count: int, *, each: int = 1, release: str = "rel_a"
    ) -> list[PredictionRecord]:
        """Append `count` times `each` records; all of them."""
        written: list[PredictionRecord] = []
        for _ in range(count):
            first = writer.next_number()
            batch = [record(writer.boot, first + k, release=release) for k in range(each)]
            writer.append(batch)
            written += batch
        return written

    def seal_all(self) -> list[Segment]:
        """Seal, commit and drop everything that is finished."""
        sealed: list[Segment] = []
        for ident in self.log.sealable():
            segment = self.log.seal(ident)
            if segment is not None:
                self.commit(segment)
                sealed.append(segment)
            self.log.drop(ident)
        return sealed


def in_order(records: Sequence[PredictionRecord]) -> list[PredictionRecord]:
    """Records by id's boot and number."""
    return sorted(records, key=lambda item: (item.id[6:], item.id))


class PredictionLogConformance:
    """The contract of `andon.store.ports.PredictionWriter` and `PredictionLog`, together."""

    def test_numbers_have_no_gaps_and_boots_are_their_own(self, bench: Bench) -> None:
        one, two = bench.writer(), bench.writer()

        bench.write(one, 3, each=2)

        assert one.next_number() == 6
        assert two.next_number() == 0
        assert one.boot != two.boot
        one.close()
        two.close()

    def test_a_record_must_carry_its_own_number(self, bench: Bench) -> None:
        writer = bench.writer()
        for wrong in ([record(writer.boot, 1)], [record(writer.boot ^ 1, 0)], [record(writer.boot ^ 2**39, 0)],
                      [record(writer.boot, 0), record(writer.boot, 0)]):  # fmt: skip
            with pytest.raises(Invalid):
                writer.append(wrong)

        assert writer.next_number() == 0
        assert bench.log.tail({})[0] == []
        writer.close()

    def test_what_is_appended_is_found_at_once(self, bench: Bench) -> None:
        writer = bench.writer()
        written = bench.write(writer, 5, each=3)

        assert [bench.log.find(item.prediction_id) for item in written] == written
        assert all(bench.log.has(item.prediction_id) for item in written)
        writer.close()

    def test_what_is_not_there_is_not_found(self, bench: Bench) -> None:
        writer = bench.writer()
        bench.write(writer, 3)
        for ident in (
            prediction_id(T0_MS, writer.boot, 3),
            prediction_id(T0_MS, writer.boot ^ 1, 0),
            prediction_id(T0_MS + 99, writer.boot, 0),
        ):
            assert not bench.log.has(ident)
            with pytest.raises(NotFound, match=ident):
                bench.log.find(ident)
        writer.close()
        bench.seal_all()

        assert not bench.log.has(prediction_id(T0_MS + 99, writer.boot, 0)), "right place, wrong id"

    def test_a_tail_gives_each_record_once_and_in_its_boots_order(self, bench: Bench) -> None:
        writers = [bench.writer() for _ in range(3)]
        position: dict[str, int] = {}
        read: list[PredictionRecord] = []
        written: list[PredictionRecord] = []
        for turn in range(12):
            for writer in writers[: 1 + turn % 3]:
                written += bench.write(writer, turn % 4, each=2)
            records, position = bench.log.tail(position, limit=7)
            assert len(records) <= 7
            read += records
            if turn % 5 == 4:
                writers.append(bench.writer())
                writers.pop(0).close()
                bench.seal_all()
        while True:
            records, position = bench.log.tail(position, limit=7)
            read += records
            if not records:
                break

        assert in_order(read) == in_order(written)
        by_boot = [
            [item for item in read if item.id[6:11] == boot] for boot in {item.id[6:11] for item in read}
        ]
        assert all(items == in_order(items) for items in by_boot)
        for writer in writers:
            writer.close()

    def test_an_open_segment_is_not_sealed(self, bench: Bench) -> None:
        writer = bench.writer()
        bench.write(writer, 3)

        assert bench.log.sealable() == []
        writer.close()
        assert len(bench.log.sealable()) == 1

    def test_a_sealed_segment_holds_what_was_written(self, bench: Bench) -> None:
        writer = bench.writer()
        written = bench.write(writer, 40, each=2) + bench.write(writer, 5, release="rel_b")
        before = {item.prediction_id: bench.log.find(item.prediction_id) for item in written}
        writer.close()

        sealed = bench.seal_all()

        assert [(item.boot, item.first, item.last, item.rows) for item in sealed] == [
            (writer.boot, 0, 84, 85)
        ]
        assert sealed[0].releases == {"rel_a": 80, "rel_b": 5}
        assert bench.log.sealable() == []
        assert {ident: bench.log.find(ident) for ident in before} == before
        assert bench.log.tail({})[0] == written

    def test_sealing_again_gives_the_same_row(self, bench: Bench) -> None:
        writer = bench.writer()
        bench.write(writer, 10)
        writer.close()
        (ident,) = bench.log.sealable()
        first = bench.log.seal(ident)
        assert first is not None

        assert bench.log.seal(ident) == first
        bench.commit(first)
        bench.commit(first)
        again = bench.log.seal(ident)
        assert again == first
        assert bench.log.sealable() == [ident], "still there: it was not dropped"
        bench.log.drop(ident)
        bench.log.drop(ident)
        assert bench.log.seal(ident) == first
        assert len(bench.log.tail({})[0]) == 10

    def test_a_segment_without_records_is_dropped(self, bench: Bench) -> None:
        bench.writer().close()

        assert bench.seal_all() == []
        assert bench.log.sealable() == []

    def test_a_position_outlives_the_seal(self, bench: Bench) -> None:
        writer = bench.writer()
        written = bench.write(writer, 10)
        read, position = bench.log.tail({}, limit=4)
        written += bench.write(writer, 10)
        writer.close()
        bench.seal_all()
        later = bench.writer()
        written += bench.write(later, 5)

        rest, position = bench.log.tail(position)

        assert in_order(read + rest) == in_order(written)
        assert bench.log.tail(position)[0] == []
        later.close()
