"""Checks of `Labels`: of each noun that has params or tags, and of long and strange texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from andon.core.entities import Entity, Owner, owner
from andon.core.errors import Conflict, Invalid, NotFound
from andon.store.ports import Labels, Reader, Store, Transaction
from andon.testing import rows
from andon.testing.stores.place import StoreChecks, put

R1, R9 = rows.tracked_run("r1"), rows.tracked_run("r9")
KINDS: dict[str, tuple[Callable[[Reader], Labels], Callable[[], Owner], tuple[str, str]]] = {
    "params": (lambda view: view.params, lambda: owner(R1), ("runs", "r1")),
    "run tags": (lambda view: view.run_tags, lambda: owner(R1), ("runs", "r1")),
    "experiment tags": (
        lambda view: view.experiment_tags,
        lambda: owner(rows.experiment(7, "x")),
        ("experiments", "7"),
    ),
    "model tags": (lambda view: view.model_tags, lambda: owner(rows.model("fresh")), ("models", "fresh")),
    "version tags": (
        lambda view: view.version_tags,
        lambda: owner(rows.model_version()),
        ("model_versions", "mv_1"),
    ),
    "params of a logged model": (
        lambda view: view.logged_model_params,
        lambda: owner(rows.logged_model()),
        ("logged_models", "m-1"),
    ),
    "tags of a logged model": (
        lambda view: view.logged_model_tags,
        lambda: owner(rows.logged_model()),
        ("logged_models", "m-1"),
    ),
}
OWNERS: tuple[Entity, ...] = (
    rows.actor(), rows.experiment(7, "x"), R1, rows.model(), rows.model("fresh"), rows.logged_model(), rows.model_version(),
)  # fmt: skip
TEXTS = {
    "empty": "",
    "200 characters": "x" * 200,
    "201 characters": "x" * 200 + "y",
    "long": "é😀" * 4000,
    "only spaces at the edge": "a" * 199 + "  ",
    "quotes and wildcards": "100 % _ \\ ' \" ` ; -- \n\t",
}
"""What is indexed of a text is its beginning: at the seam nothing may be lost."""


class LabelChecks(StoreChecks):
    """Texts by key: kept as they are, set once or set anew, gone with their owner."""

    @pytest.fixture
    def owners(self, store: Store) -> None:
        put(store, *OWNERS)

    @pytest.mark.parametrize("kind", KINDS)
    def test_labels_of_every_noun(self, store: Store, owners: None, kind: str) -> None:
        labels, make, (nouns, ident) = KINDS[kind]
        mine = make()
        store.write(lambda tx: labels(tx).put(mine, {"b": "1", "a": "2"}))
        store.write(lambda tx: labels(tx).put(mine, {"b": "3"}))
        store.write(lambda tx: labels(tx).add(mine, {"a": "2", "c": "4"}))

        found = store.read(
            lambda view: labels(view).of([mine.id, "nobody" if isinstance(mine.id, str) else 9])
        )
        store.write(lambda tx: getattr(tx, nouns).remove(ident))

        assert found == {
            mine.id: {"a": "2", "b": "3", "c": "4"},
            "nobody" if isinstance(mine.id, str) else 9: {},
        }
        assert list(found[mine.id]) == ["a", "b", "c"]
        assert store.read(lambda view: labels(view).of([mine.id])) == {mine.id: {}}
        with pytest.raises(NotFound, match="does not exist any more"):
            store.write(lambda tx: labels(tx).put(mine, {"a": "1"}))

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    def test_a_text_comes_back_as_it_was(self, store: Store, owners: None, text: str) -> None:
        tags(store, {"x": text, "y": text[::-1]})

        assert tags_of(store) == {"x": text, "y": text[::-1]}

    def test_a_shorter_text_leaves_nothing_of_the_longer(self, store: Store, owners: None) -> None:
        for text in ("x" * 500, "y" * 200, "z" * 201, "short"):
            tags(store, {"x": text})

            assert tags_of(store) == {"x": text}

    @pytest.mark.parametrize("key", ["k", "K", "a.b/c d", "100 % _ \\ '\"`", "é😀", "x" * 250, " ", ""])
    def test_a_key_is_any_text(self, store: Store, owners: None, key: str) -> None:
        tags(store, {key: "1", f"{key}.": "2"})

        assert tags_of(store) == {key: "1", f"{key}.": "2"}
        assert store.write(lambda tx: tx.run_tags.remove(owner(R1), key))
        assert tags_of(store) == {f"{key}.": "2"}

    def test_keys_come_by_their_bytes(self, store: Store, owners: None) -> None:
        keys = ["a", "B", "_", "é", "Z", "10", "9", "a-b", "a0", "a/b"]

        tags(store, dict.fromkeys(keys, ""))

        assert list(tags_of(store)) == sorted(keys, key=str.encode)

    def test_what_never_changes_is_refused_another_text_as_a_whole(self, store: Store, owners: None) -> None:
        long = "x" * 300
        params(store, {"depth": "6", "long": long})

        params(store, {"depth": "6", "long": long})
        with pytest.raises(Conflict, match=r"'depth' \(it is '6'\)"):
            params(store, {"new": "1", "depth": "7"})
        with pytest.raises(Conflict, match="'long'"):
            params(store, {"long": long + "y"})

        assert store.read(lambda view: view.params.of([R1.number])) == {
            R1.number: {"depth": "6", "long": long}
        }

    def test_removing_says_whether_it_was_there(self, store: Store, owners: None) -> None:
        tags(store, {"a": "1"})

        assert store.write(lambda tx: (tx.run_tags.remove(owner(R1), "a"), tx.run_tags.remove(owner(R1), "a"))) == (
            True,
            False,
        )  # fmt: skip

    def test_a_refusal_that_is_caught_does_not_spoil_the_transaction_of_labels(
        self, store: Store, owners: None
    ) -> None:
        def work(tx: Transaction) -> None:
            with pytest.raises(NotFound):
                tx.run_tags.put(owner(R9), {"a": "1"})
            with pytest.raises(Invalid, match="character"):
                tx.run_tags.put(owner(R1), {"b": "1", "a\0b": "1"})
            with pytest.raises(Invalid, match="character"):
                tx.run_tags.put(owner(R1), {"b": "\ud800"})
            tx.run_tags.put(owner(R1), {"c": "1"})

        store.write(work)

        assert tags_of(store) == {"c": "1"}

    def test_nothing_to_set_is_no_error(self, store: Store) -> None:
        tags(store, {})
        params(store, {})

        assert store.read(lambda view: view.run_tags.of([])) == {}

    def test_labels_of_many_owners_come_at_once(self, store: Store, owners: None) -> None:
        many = [rows.tracked_run(f"run {n}") for n in range(1201)]
        put(store, *many)

        def fill(tx: Transaction) -> None:
            for n, run in enumerate(many):
                tx.run_tags.put(owner(run), {"n": str(n)})

        store.write(fill)

        found = store.read(lambda view: view.run_tags.of([run.number for run in many]))
        assert found == {run.number: {"n": str(n)} for n, run in enumerate(many)}

    @pytest.mark.parametrize(
        "change",
        [
            lambda view: view.run_tags.put(owner(R1), {"a": "1"}),
            lambda view: view.run_tags.add(owner(R1), {"a": "1"}),
            lambda view: view.run_tags.remove(owner(R1), "a"),
            lambda view: view.files.remove_under("a"),
            lambda view: view.counters.next("run"),
            lambda view: view.counters.reach("run", 5),
        ],
        ids=["put", "add", "remove", "files", "next", "reach"],
    )
    def test_a_view_that_only_reads_changes_no_labels(
        self, store: Store, owners: None, change: Callable[[Reader], object]
    ) -> None:
        with pytest.raises(Invalid, match="only reads"):
            store.read(change)


def tags(store: Store, pairs: dict[str, str]) -> None:
    store.write(lambda tx: tx.run_tags.put(owner(R1), pairs))


def params(store: Store, pairs: dict[str, str]) -> None:
    store.write(lambda tx: tx.params.add(owner(R1), pairs))


def tags_of(store: Store) -> dict[str, str]:
    return store.read(lambda view: view.run_tags.of([R1.number]))[R1.number]
