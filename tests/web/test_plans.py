"""No page or list reads a table that grows from its beginning to its end."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from andon.web.traffic import Traffic
from andon.web.ui.now import now_view
from tests.web.conftest import Control
from tests.web.world import fill, opened

GROWING = {
    "events", "edges", "runs", "params", "metrics", "model_versions", "verdicts", "releases", "rollouts", "alerts", "triggers",
    "feedback", "segments", "monitor_windows", "personal", "approvals", "dataset_versions",
}  # fmt: skip


@contextlib.contextmanager
def heard() -> Iterator[list[tuple[str, Any]]]:
    """The statements that are executed meanwhile."""
    statements: list[tuple[str, Any]] = []

    def hear(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


def whole_tables(control: Control, statements: list[tuple[str, Any]]) -> set[str]:
    """Statements that read all of a growing table: without an index and without a limit, or to sort it."""
    found: set[str] = set()
    with contextlib.closing(sqlite3.connect(control.world.ws.layout.database)) as database:
        for statement, parameters in statements:
            if not statement.lstrip().upper().startswith("SELECT"):
                continue
            steps = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            scans = [step for step in steps if step.startswith("SCAN") and step.split()[1] in GROWING]
            sorts = any("TEMP B-TREE" in step for step in steps)
            if scans and (sorts or "LIMIT" not in statement):
                found.add(f"{scans}: {statement}")
    return found


def test_the_now_page_reads_no_table_whole(tmp_path) -> None:
    with opened(tmp_path) as world:
        fill(world, candidate=True)
        world.alert()
        traffic = Traffic(world.ws.log, world.ws.clock)
        traffic.refresh()  # where the log is taken up is looked for once, at start

        with heard() as statements:
            now_view(world.ws, traffic)

        assert len(statements) > 20
        assert whole_tables(Control("", world, None), statements) == set()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs", "/api/runs?line=flights", "/api/runs?state=finished", "/api/models/flights/versions", "/api/releases",
        "/api/releases?endpoint=flights&state=live", "/api/alerts", "/api/alerts?line=flights", "/api/events?after=3",
        "/api/status",
    ],
)  # fmt: skip
def test_a_list_reads_no_table_whole(shared: Control, path: str) -> None:
    with heard() as statements:
        reply = shared.client.get(path)

    assert reply.status == 200
    assert statements
    assert whole_tables(shared, statements) == set()
