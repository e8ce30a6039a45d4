"""What a foreign store has, beside what is read back of it here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from andon.core.entities import Point, Run
from andon.store.ports import Reader, Store
from andon.tracking.moving.values import Counts, ForeignStore

T = TypeVar("T")

Progress = Callable[[str, int, int], object]
"""Is told what is being done, how much of it is done, and of how much."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a noun the source has, and how many of those are here; None when nothing was imported yet."""

    noun: str
    source: int
    here: int | None


def nothing_yet(counts: Counts) -> tuple[Compared, ...]:
    """The counts of a source of which nothing was looked for here."""
    return tuple(Compared(noun=noun, source=number, here=None) for noun, number in _nouns(counts))


def compare(store: Store, source: ForeignStore, counts: Counts, progress: Progress) -> tuple[Compared, ...]:
    """Read back what is here of a source: whatever belongs to its ids and names, down to the single point."""
    here = dict.fromkeys((noun for noun, _ in _nouns(counts)), 0)
    for ids in _pages((str(each.id) for each in source.experiments()), 500):
        _look(store, _count_experiments, ids, here)
    done = 0
    for ids in _pages(source.run_ids(), 100):
        _look(store, _count_runs, ids, here)
        done += len(ids)
        progress("runs compared", done, counts.runs)
    for ids in _pages((each.id for each in source.logged_models()), 500):
        _look(store, _count_logged, ids, here)
    for names in _pages((each.name for each in source.models()), 100):
        _look(store, _count_models, names, here)
    return tuple(Compared(noun=noun, source=number, here=here[noun]) for noun, number in _nouns(counts))


def _look(
    store: Store,
    count: Callable[[Reader, Sequence[str], dict[str, int]], None],
    ids: Sequence[str],
    here: dict[str, int],
) -> None:
    store.read(lambda reader: count(reader, ids, here))


def _pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while page := list(islice(stream, size)):
        yield page


def _nouns(counts: Counts) -> list[tuple[str, int]]:
    said: dict[str, Any] = msgspec.structs.asdict(counts)
    return list(said.items())


def _count_experiments(reader: Reader, ids: Sequence[str], here: dict[str, int]) -> None:
    found = reader.experiments.select({"id": ids}, limit=len(ids))
    here["experiments"] += len(found)
    here["experiment_tags"] += sum(
        len(tags) for tags in reader.experiment_tags.of([row.id for row in found]).values()
    )


def _count_runs(reader: Reader, ids: Sequence[str], here: dict[str, int]) -> None:
    runs = reader.runs.select({"id": ids}, limit=len(ids))
    numbers = [run.number for run in runs]
    here["runs"] += len(runs)
    here["params"] += sum(len(texts) for texts in reader.params.of(numbers).values())
    here["tags"] += sum(len(texts) for texts in reader.run_tags.of(numbers).values())
    here["inputs"] += reader.run_inputs.count({"run": ids})
    here["model_uses"] += reader.run_models.count({"run": ids})
    latest = reader.metrics.latest(runs)
    here["latest_metrics"] += sum(len(points) for points in latest.values())
    for run in runs:
        for key in latest[run.number]:
            here["points"] += _count_points(reader, run, key)


def _count_points(reader: Reader, run: Run, key: str) -> int:
    last: Point | None = None
    count = 0
    while page := reader.metrics.history(run, key, after=last):
        count, last = count + len(page), page[-1]
        if len(page) < 25_000:
            break
    return count


def _count_logged(reader: Reader, ids: Sequence[str], here: dict[str, int]) -> None:
    here["logged_models"] += reader.logged_models.count({"id": ids})


def _count_models(reader: Reader, names: Sequence[str], here: dict[str, int]) -> None:
    here["models"] += reader.models.count({"id": names})
    here["versions"] += reader.model_versions.count({"model": names})
    here["aliases"] += reader.aliases.count({"model": names})
