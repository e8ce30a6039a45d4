"""The conformance suite of `Store` on SQLite and on a real Postgres."""

from __future__ import annotations

import pytest

from andon.testing.stores import Place, StoreConformance


class TestSqlite(StoreConformance):
    @pytest.fixture
    def place(self, sqlite_place: Place) -> Place:
        return sqlite_place

    @pytest.fixture
    def elsewhere(self, postgres_place: Place) -> Place:
        return postgres_place


class TestPostgres(StoreConformance):
    @pytest.fixture
    def place(self, postgres_place: Place) -> Place:
        return postgres_place


def test_no_check_hides_another_of_the_same_name() -> None:
    names = [name for base in StoreConformance.__bases__ for name in vars(base) if not name.startswith("__")]

    assert sorted(set(names)) == sorted(names)
