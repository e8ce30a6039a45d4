"""Searches whose way in is chosen for them: whatever the sizes of the tables say, the answer is the same."""

from __future__ import annotations

import pytest

from andon.store.sql import search
from andon.testing.stores import Place
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
