"""Searches in MLflow's words, on both databases: names of fields, statuses, places of artifacts, orders and pages."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from andon.core.entities import Run, owner
from andon.core.errors import Invalid
from andon.core.search import Field, Order
from andon.core.states import RunState
from andon.store.ports import Store, Transaction
from andon.testing.rows import experiment, later, logged_model, tracked_run
from andon.testing.stores.place import put
from andon.tracking.searching import MOST_SCOPES, check_page, query

STATES: tuple[RunState, ...] = ("queued", "running", "finished", "failed", "killed", "blocked")


@pytest.fixture
def runs(store: Store) -> Store:
    """A run in each state, a minute apart, the first oldest."""
    rows = [
        replace(
            tracked_run(f"{number:032x}", number=number, minutes=number), state=state, name=f"Run {number}",
            claimed_user="ann" if number % 2 else "bob", finished_at=later(60 + number) if number > 2 else None,
        )
        for number, state in enumerate(STATES, 1)
    ]  # fmt: skip

    def tags(tx: Transaction) -> None:
        for row in rows:
            tx.run_tags.put(owner(row), {"team": "fraud" if row.number < 4 else "growth"})

    put(store, *rows)
    store.write(tags)
    return store


def found(store: Store, text: str = "", order: tuple[str, ...] = ("start_time",)) -> list[int]:
    page = store.read(lambda reader: reader.search(query("run", text, order, scope=["0"])))
    return [int(ident, 16) for ident in page.ids]


MS = 1_364_819_400_123
"""`later(0)` in milliseconds."""


@pytest.mark.capability("C4")
@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", [1, 2, 3, 4, 5, 6]),
        ("status = 'RUNNING'", [2]),
        ("status = 'SCHEDULED'", [1]),
        ("attributes.status = 'FAILED'", [4, 6]),
        ("status != 'FAILED'", [1, 2, 3, 5]),
        ("status = 'running'", []),
        ("status LIKE 'F%'", [3, 4, 6]),
        ("status LIKE '_INISHED'", [3]),
        ("status ILIKE '%il%'", [4, 5, 6]),
        ("status LIKE '%'", [1, 2, 3, 4, 5, 6]),
        (f"status LIKE '{'%' * 200}'", []),
        ("run_name = 'Run 3'", [3]),
        ("attribute.`Run name` ILIKE 'run _'", [1, 2, 3, 4, 5, 6]),
        ("user_id = 'ann'", [1, 3, 5]),
        ("user_id != 'ann'", [2, 4, 6]),
        (f"run_id = '{2:032x}'", [2]),
        (f"run_id IN ('{2:032x}', '{5:032x}')", [2, 5]),
        (f"start_time > {MS + 4 * 60_000}", [5, 6]),
        (f"created <= {MS + 60_000}", [1]),
        (f"end_time >= {MS + 65 * 60_000}", [5, 6]),
        (f"artifact_uri = 'mlflow-artifacts:/0/{4:032x}/artifacts'", [4]),
        (f"artifact_uri != 'mlflow-artifacts:/0/{4:032x}/artifacts'", [1, 2, 3, 5, 6]),
        (f"artifact_uri LIKE '%{5:032x}/artifacts'", [5]),
        ("artifact_uri LIKE '%5/artifacts'", [5]),
        (f"artifact_uri LIKE '%{6:08x}%'", [6]),
        ("artifact_uri LIKE 'mlflow-artifacts:/0/%'", [1, 2, 3, 4, 5, 6]),
        ("artifact_uri LIKE 'mlflow-artifacts:/7/%'", []),
        ("artifact_uri LIKE '%/0/%'", [1, 2, 3, 4, 5, 6]),
        ("artifact_uri = 's3://elsewhere'", []),
        ("tags.team = 'fraud' AND status = 'FINISHED'", [3]),
    ],
)  # fmt: skip
def test_runs_are_found_by_mlflows_names_of_their_attributes(
    runs: Store, text: str, numbers: list[int]
) -> None:
    assert found(runs, text) == numbers


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        ((), [6, 5, 4, 3, 2, 1]),
        (("attributes.start_time ASC",), [1, 2, 3, 4, 5, 6]),
        (("run_name DESC",), [6, 5, 4, 3, 2, 1]),
        (("end_time",), [3, 4, 5, 6, 2, 1]),
        (("end_time DESC",), [6, 5, 4, 3, 2, 1]),
        (("tags.team", "start_time ASC"), [1, 2, 3, 4, 5, 6]),
        (("user_id DESC", "start_time"), [2, 4, 6, 1, 3, 5]),
        (("artifact_uri DESC",), [6, 5, 4, 3, 2, 1]),
        (("run_id",), [1, 2, 3, 4, 5, 6]),
    ],
)  # fmt: skip
def test_runs_are_ordered_by_them(runs: Store, order: tuple[str, ...], numbers: list[int]) -> None:
    assert found(runs, order=order) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "status > 'A'",
        "colour = 'x'",
        "metrics.a = 'x'",
        "artifact_uri LIKE 's3://b/%'",
        "status = 'A' OR status = 'B'",
    ],
)
def test_what_cannot_be_asked_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        query("run", text, scope=["0"])


def test_pages_hold_together(runs: Store) -> None:
    pages: list[list[int]] = []
    token: str | None = None
    while token or not pages:
        asked = query("run", "", ["user_id"], scope=["0"], limit=2, page_token=token)
        page = runs.read(lambda reader, asked=asked: reader.search(asked))  # type: ignore[misc]
        pages.append([int(ident, 16) for ident in page.ids])
        token = page.next

    assert pages == [[5, 3], [1, 6], [4, 2]]


def test_deleted_runs_are_seen_by_who_asks_for_them(runs: Store) -> None:
    gone = runs.read(lambda reader: reader.runs.get(f"{3:032x}"))
    runs.write(lambda tx: tx.runs.change(replace(gone, deleted_at=later(1))))

    def seen(deleted: str) -> list[int]:
        asked = query("run", order_by=["start_time"], scope=["0"], deleted=deleted)  # type: ignore[arg-type]
        return [int(ident, 16) for ident in runs.read(lambda reader: reader.search(asked)).ids]

    assert (seen("active"), seen("deleted"), seen("all")) == ([1, 2, 4, 5, 6], [3], [1, 2, 3, 4, 5, 6])


def test_runs_of_several_experiments_are_found_together_and_of_none_not_at_all(store: Store) -> None:
    put(store, experiment(1, "one"), experiment(2, "two"))
    rows: list[Run] = [tracked_run(f"{n:032x}", number=n, within=str(n % 3), minutes=n) for n in range(1, 7)]
    put(store, *rows)

    def seen(*scope: str) -> list[int]:
        asked = query("run", order_by=["start_time"], scope=scope)
        return [int(ident, 16) for ident in store.read(lambda reader: reader.search(asked)).ids]

    assert seen("1", "2", "1") == [1, 2, 4, 5]
    assert (seen(), seen("9")) == ([], [])
    with pytest.raises(Invalid, match="too many for one search"):
        query("run", scope=[str(n) for n in range(MOST_SCOPES + 1)])


def test_experiments_are_found_and_come_newest_first_as_mlflow_gives_them(store: Store) -> None:
    rows = [
        replace(experiment(n, f"E {n}"), created_at=later(n // 2), changed_at=later(10 - n))
        for n in (1, 2, 3, 12)
    ]
    put(store, *rows)

    def seen(text: str = "", *order: str) -> list[str]:
        both = f"name LIKE 'E %' {text}"
        return list(store.read(lambda reader: reader.search(query("experiment", both, order))).ids)

    assert seen() == ["12", "2", "3", "1"]
    assert seen("", "experiment_id") == ["1", "2", "3", "12"]
    assert seen("", "experiment_id DESC") == ["12", "3", "2", "1"]
    assert seen("", "creation_time") == ["1", "3", "2", "12"]
    assert seen("", "last_update_time") == ["12", "3", "2", "1"]
    assert seen("AND experiment_id = '2'") == ["2"]
    assert seen("AND experiment_id IN ('1', '12')", "name") == ["1", "12"]
    assert seen("AND creation_time > 1364819460124") == ["12"]


def test_logged_models_are_found_by_mlflows_names(store: Store) -> None:
    rows = [
        replace(logged_model(f"m-{n}"), state=state, name=f"model {n}", created_at=later(n))
        for n, state in enumerate(("pending", "ready", "failed"), 1)
    ]
    put(store, *rows)

    def seen(text: str, order: list[Order] | None = None) -> list[str]:
        asked = query("logged_model", text, order or [], scope=["0"])
        return list(store.read(lambda reader: reader.search(asked)).ids)

    assert seen("status = 'READY'") == ["m-2"]
    assert seen("status != 'READY'") == ["m-3", "m-1"]
    assert seen("status IN ('READY', 'FAILED')") == ["m-3", "m-2"]
    assert seen("status NOT IN ('READY', 'FAILED')") == ["m-1"]
    assert seen("model_id = 'm-1'") == ["m-1"]
    assert seen("name = 'model 3'") == ["m-3"]
    assert seen("", [Order(Field("attribute", "creation_timestamp"))]) == ["m-1", "m-2", "m-3"]


def test_a_page_has_as_many_rows_as_may_be() -> None:
    assert check_page(None, default=1000, most=50_000) == 1000
    assert [check_page(n, default=1, most=50_000) for n in (1, 50_000)] == [1, 50_000]
    for wrong in (0, -1, 50_001, 2**70):
        with pytest.raises(Invalid, match="max_results"):
            check_page(wrong, default=1000, most=50_000)
