"""Checks of `Files` and `Counters`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from andon.core.entities import Artifact
from andon.core.errors import NotFound
from andon.store.ports import Store, Transaction
from andon.testing import rows
from andon.testing.stores.place import Openable, StoreChecks, put

AROUND_THE_SLASH = (
    "r/a/x", "r/a-b", "r/a.b", "r/a0", "r/a!", "r/aa/x/y", "r/b", "r/é/😀", "r/100 % _ \\", "r/A/x", "r/z/a/b/c", "r0/x",
    "r-/x", "s", "r.txt",
)  # fmt: skip
"""Names whose order among paths is not their order among names: `-` and `.` come before the slash, `0` right after it."""
PAGES = (1, 2, 3, 7, 1000)


class FolderChecks(StoreChecks):
    """Folders are what paths say, page by page, whatever names stand beside each other."""

    @pytest.fixture
    def names(self, store: Store) -> list[Artifact]:
        """Artifacts with names around the slash."""
        made = [rows.artifact(path) for path in AROUND_THE_SLASH]
        put(store, rows.actor(), *made)
        return made

    @pytest.mark.parametrize("size", PAGES)
    @pytest.mark.parametrize("folder", ["", "r", "r/a", "r/aa", "r/z/a", "r/a-b", "nothing", "r/", "R"])
    def test_children_are_what_lies_directly_in_a_folder(
        self, store: Store, names: list[Artifact], folder: str, size: int
    ) -> None:
        found = list(children(store, folder, size))

        assert found == model_children(names, folder)

    @pytest.mark.parametrize("size", PAGES)
    @pytest.mark.parametrize("folder", ["", "r", "r/a", "r/aa", "r/z/a", "r/a-b", "nothing", "R"])
    def test_all_below_a_folder_by_path(
        self, store: Store, names: list[Artifact], folder: str, size: int
    ) -> None:
        found = list(under(store, folder, size))

        assert found == model_under(names, folder)

    @pytest.mark.parametrize("folder", ["r", "r/a", "r/é", "nothing"])
    def test_removing_a_folder_removes_that_folder(
        self, store: Store, names: list[Artifact], folder: str
    ) -> None:
        gone = model_under(names, folder)

        count = store.write(lambda tx: tx.files.remove_under(folder))

        assert count == len(gone)
        left = sorted((each.id for each in names if each not in gone), key=str.encode)
        assert [each.id for each in under(store, "", 1000)] == left

    def test_the_root_may_be_removed_as_a_whole(self, store: Store, names: list[Artifact]) -> None:
        assert store.write(lambda tx: tx.files.remove_under("")) == len(names)
        assert list(under(store, "", 10)) == []

    def test_thousands_of_files_are_read_in_pages(self, store: Store) -> None:
        paths = [f"e/run/artifacts/{n % 40:02}/{n:05}.bin" for n in range(3000)] + ["e/run/artifacts/plain"]
        made = [rows.artifact(path) for path in paths]
        put(store, rows.actor(), *made)

        names = list(children(store, "e/run/artifacts", 7))
        inside = list(children(store, "e/run/artifacts/07", 20))

        assert names == [*((f"{n:02}", None) for n in range(40)), ("plain", made[-1])]
        assert inside == model_children(made, "e/run/artifacts/07")
        assert list(under(store, "e/run/artifacts", 333)) == model_under(made, "e/run/artifacts")

    def test_a_page_of_nothing_is_empty(self, store: Store, names: list[Artifact]) -> None:
        assert store.read(lambda view: (view.files.children("r", limit=0), view.files.under("r", limit=0))) == (
            [],
            [],
        )  # fmt: skip


class CounterChecks(StoreChecks):
    """Numbers are given once each."""

    def test_numbers_rise_from_one(self, store: Store) -> None:
        given = [store.write(lambda tx: tx.counters.next("thing")) for _ in range(3)]

        assert given == [1, 2, 3]
        assert store.write(lambda tx: (tx.counters.next("other"), tx.counters.next("thing"))) == (1, 4)

    def test_a_number_given_elsewhere_is_not_given_again(self, store: Store) -> None:
        for value, following in ((10, 11), (5, 12), (12, 13), (2**40, 2**40 + 1)):
            store.write(lambda tx, value=value: tx.counters.reach("thing", value))  # type: ignore[misc]

            assert store.write(lambda tx: tx.counters.next("thing")) == following

    def test_a_new_workspace_counts_behind_what_it_begins_with(self, store: Store) -> None:
        assert store.write(lambda tx: (tx.counters.next("experiment"), tx.counters.next("run"))) == (1, 1)

    def test_no_number_is_given_twice(self, place: Openable, store: Store) -> None:
        others = [place.open() for _ in range(2)]
        with ThreadPoolExecutor(6) as pool:
            asked = [
                pool.submit(each.write, lambda tx: tx.counters.next("run"))
                for each in (store, *others)
                for _ in range(40)
            ]
            given = sorted(each.result() for each in asked)
        for each in others:
            each.close()

        assert given == list(range(1, 121))

    def test_a_number_of_a_failed_transaction_may_be_lost_and_is_never_doubled(self, store: Store) -> None:
        def fails(tx: Transaction) -> None:
            tx.counters.next("run")
            tx.runs.get("nobody")

        with pytest.raises(NotFound):
            store.write(fails)

        first, second = (store.write(lambda tx: tx.counters.next("run")) for _ in range(2))
        assert 1 <= first < second


def children(store: Store, folder: str, size: int) -> Iterator[tuple[str, Artifact | None]]:
    """All pages of a listing."""
    after = ""
    while page := store.read(
        lambda view, after=after: view.files.children(folder, after=after, limit=size)  # type: ignore[misc]
    ):
        yield from page
        after = page[-1][0]


def under(store: Store, folder: str, size: int) -> Iterator[Artifact]:
    after = ""
    while page := store.read(
        lambda view, after=after: view.files.under(folder, after=after, limit=size)  # type: ignore[misc]
    ):
        yield from page
        after = page[-1].id


def model_under(made: Sequence[Artifact], folder: str) -> list[Artifact]:
    """What lies below a folder, by comparing every path."""
    start = f"{folder}/" if folder else ""
    return sorted((each for each in made if each.id.startswith(start)), key=lambda each: each.id.encode())


def model_children(made: Sequence[Artifact], folder: str) -> list[tuple[str, Artifact | None]]:
    """The names in a folder as `children` says them: by their paths, a folder where its first file stands."""
    start = f"{folder}/" if folder else ""
    found: dict[str, Artifact | None] = {}
    for each in model_under(made, folder):
        name, slash, _ = each.id.removeprefix(start).partition("/")
        found.setdefault(name, None if slash else each)
    return list(found.items())
