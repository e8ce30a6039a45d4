"""Checks of `Collection.select` and `count`: conditions, orders and pages, against plain Python over the same rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from andon.core.entities import Run
from andon.core.errors import Invalid
from andon.store.ports import Store, Where
from andon.testing import rows
from andon.testing.stores.place import StoreChecks, put

ORDERS = (
    ("id",), ("-id",), ("created_at",), ("-created_at",), ("finished_at",), ("-finished_at",),
    ("state", "-finished_at"), ("-finished_at", "seed", "created_at"), ("-seed", "-id"), ("git_dirty", "-id"),
)  # fmt: skip
CONDITIONS: Sequence[tuple[Mapping[str, Where], Callable[[Run], bool]]] = (
    ({"state": "queued"}, lambda run: run.state == "queued"),
    (
        {"state": ["queued", "running"], "seed": 1},
        lambda run: run.state in ("queued", "running") and run.seed == 1,
    ),
    ({"state": []}, lambda _: False),
    ({"finished_at": None}, lambda run: run.finished_at is None),
    ({"finished_at": [None, rows.later(1)]}, lambda run: run.finished_at in (None, rows.later(1))),
    ({"finished_at": ("!=", None)}, lambda run: run.finished_at is not None),
    ({"finished_at": ("!=", rows.later(1))}, lambda run: run.finished_at != rows.later(1)),
    (
        {"finished_at": (">", rows.later(0))},
        lambda run: run.finished_at is not None and run.finished_at > rows.later(0),
    ),
    ({"created_at": ("<=", rows.later(1))}, lambda run: run.created_at <= rows.later(1)),
    ({"created_at": rows.later(2)}, lambda run: run.created_at == rows.later(2)),
    ({"git_dirty": True}, lambda run: run.git_dirty is True),
    ({"git_dirty": False}, lambda run: run.git_dirty is False),
    ({"git_dirty": ("!=", True)}, lambda run: run.git_dirty is not True),
    ({"seed": (">=", 1)}, lambda run: run.seed >= 1),
    ({"seed": ("<", 1)}, lambda run: run.seed < 1),
    ({"id": (">", "a")}, lambda run: run.id > "a"),
    ({}, lambda _: True),
)


class SelectChecks(StoreChecks):
    """What is asked for comes, all of it, in its order, page by page."""

    @pytest.fixture
    def many(self, store: Store) -> list[Run]:
        """Runs with ties and NULLs in most columns, in the store."""
        found = many_runs()
        put(store, rows.actor(), rows.line(), *found)
        return found

    def test_conditions_choose_rows(self, store: Store, many: list[Run]) -> None:
        for where, meets in CONDITIONS:
            found, number = chosen(store, where)

            assert (where, found) == (where, sorted(filter(meets, many), key=lambda run: run.id))
            assert number == len(found)

    def test_rows_come_in_order_with_null_last(self, store: Store, many: list[Run]) -> None:
        found = store.read(lambda view: {order: view.runs.select(order=order) for order in ORDERS})

        assert found == {order: in_order(many, order) for order in ORDERS}

    def test_pages_together_are_the_whole(self, store: Store, many: list[Run]) -> None:
        def page(order: Sequence[str], after: Run | None) -> list[Run]:
            few: dict[str, Where] = {"seed": ("<", 2)}
            return store.read(lambda view: view.runs.select(few, order=order, after=after, limit=7))

        for order in ORDERS:
            pages = [page(order, None)]
            while more := page(order, pages[-1][-1]):
                pages.append(more)

            assert max(map(len, pages)) == 7
            assert [run for each in pages for run in each] == in_order(
                [run for run in many if run.seed < 2], order
            )

    def test_a_limit_is_kept(self, store: Store, many: list[Run]) -> None:
        assert len(store.read(lambda view: view.runs.select(limit=5))) == 5
        assert store.read(lambda view: view.runs.select(limit=0)) == []
        with pytest.raises(Invalid, match="a page of -1 runs"):
            store.read(lambda view: view.runs.select(limit=-1))

    @pytest.mark.parametrize(
        ("where", "order", "named"),
        [
            ({"speed": 1}, ("id",), "runs have no column 'speed'"),
            ({}, ("-speed",), "runs have no column 'speed'"),
            ({"faults": "a"}, ("id",), "'faults', which holds several values"),
            ({"seed": ("<", None)}, ("id",), "compared by < with nothing"),
            ({"id": [str(n) for n in range(10_001)]}, ("id",), "10001 values"),
            ({"seed": 2**63}, ("id",), "is beyond 64 bits"),
            ({"id": "a\0"}, ("id",), "a character that cannot be stored"),
        ],
        ids=["column", "order", "several", "nothing", "too many", "too large", "NUL"],
    )
    def test_what_cannot_be_asked_is_refused(
        self, store: Store, where: Mapping[str, Where], order: tuple[str, ...], named: str
    ) -> None:
        with pytest.raises(Invalid) as error:
            store.read(lambda view: view.runs.select(where, order=order))

        assert named in str(error.value)


def chosen(store: Store, where: Mapping[str, Where]) -> tuple[list[Run], int]:
    """The runs that meet conditions, and how many they are said to be."""
    return store.read(lambda view: (view.runs.select(where), view.runs.count(where)))


def many_runs(seed: int = 5, number: int = 60) -> list[Run]:
    """Runs with ties and NULLs in most columns, and ids that only sort right by their bytes."""
    draw = random.Random(seed)
    return [
        msgspec.structs.replace(
            rows.run(f"{draw.choice('aAzZé_')}{n:02}", minutes=draw.randrange(4)),
            state=draw.choice(("queued", "running", "finished")),
            seed=draw.randrange(3),
            finished_at=draw.choice([None, *map(rows.later, range(3))]),
            git_dirty=draw.choice([None, True, False]),
        )
        for n in range(number)
    ]


def in_order(found: Sequence[Run], order: Sequence[str]) -> list[Run]:
    """The same in Python: NULL last either way, `id` in the direction of the key before it."""
    keys = [*order, "-id" if order[-1].startswith("-") else "id"]
    result = list(found)
    for key in reversed(keys):
        name, down = key.removeprefix("-"), key.startswith("-")

        def value(run: Run, name: str = name) -> Any:
            return getattr(run, name)

        some = [run for run in result if value(run) is not None]
        result = sorted(some, key=value, reverse=down) + [run for run in result if value(run) is None]
    return result
