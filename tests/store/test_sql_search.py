"""Searches whose way in is chosen for them: whatever the sizes of the tables say, the answer is the same."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, event

from andon.core.entities import Point, owner
from andon.core.search import Condition, Field, Order, Query
from andon.store.sql import search
from andon.testing import rows
from andon.testing.stores import Place
from andon.testing.stores.place import put
from andon.testing.stores.searching import SearchChecks


class _Walking(SearchChecks):
    """No condition leads: an index is walked, from experiment to experiment."""

    @pytest.fixture(autouse=True)
    def _walk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(search, "FEW", 0)


class TestWalkingSqlite(_Walking):
    @pytest.fixture
    def place(self, sqlite_place: Place) -> Place:
        return sqlite_place


class TestWalkingPostgres(_Walking):
    @pytest.fixture
    def place(self, postgres_place: Place) -> Place:
        return postgres_place


class TestSortingSqlite(SearchChecks):
    """All experiments at once: nothing is walked."""

    @pytest.fixture(autouse=True)
    def _sort(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(search, "FEW", 0)
        monkeypatch.setattr(search, "MOST_SCOPES", 0)

    @pytest.fixture
    def place(self, sqlite_place: Place) -> Place:
        return sqlite_place


METRIC, PARAM = Field("metric", "m"), Field("param", "p")
PLANS: dict[str, tuple[Query, str]] = {
    "newest runs": (Query(noun="run", scope=("0",)), "ix_runs_experiment"),
    "by a metric": (
        Query(noun="run", scope=("0",), order=(Order(METRIC, down=True),)),
        "ix_latest_metrics_value",
    ),
    "by a metric with a bound": (
        Query(noun="run", scope=("0",), order=(Order(METRIC),), where=(Condition(METRIC, ">", 0.5),)),
        "ix_latest_metrics_value",
    ),
    "by a param": (Query(noun="run", scope=("0",), order=(Order(PARAM),)), "ix_params_value"),
    "by a metric, of some": (
        Query(noun="run", scope=("0",), order=(Order(METRIC),), where=(Condition(PARAM, "=", "x"),)),
        "ix_latest_metrics_value",
    ),
}


@pytest.mark.parametrize("what", PLANS)
def test_a_page_is_found_by_an_index(sqlite_place: Place, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """As in a large workspace, where no condition leads: the walk enters by that index, and sorts ties only."""
    monkeypatch.setattr(search, "FEW", 0)
    query, index = PLANS[what]
    store = sqlite_place.open()
    plans: list[str] = []

    def explain(_: object, cursor: Any, statement: str, parameters: Any, *__: object) -> None:
        if "JOIN runs" in statement or statement.lstrip().startswith("SELECT runs.id"):
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append("\n".join(row[3] for row in cursor.fetchall()))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        put(store, rows.actor(), rows.tracked_run("r1"))
        store.write(lambda tx: tx.metrics.log(rows.tracked_run("r1"), [Point("m", 0.75, 0)]))
        store.write(lambda tx: tx.params.add(owner(rows.tracked_run("r1")), {"p": "x"}))
        found = store.read(lambda view: view.search(query))
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
        store.close()

    assert found.ids == ("r1",)
    assert index in plans[0]
    assert "SCAN runs" not in plans[0]
    assert "TEMP B-TREE FOR ORDER BY" not in plans[0]
