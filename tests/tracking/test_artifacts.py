"""Artifacts as rows: which names are kept, what a folder holds, what a late write does, and trees."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from andon.core.canonical import digest_bytes
from andon.core.entities import Artifact, Run
from andon.core.errors import Corrupt, Invalid, NotFound, TooLarge
from andon.core.tree import FORMAT, MOST_FILES, Leaf, Tree, decode_tree
from andon.core.workspace import Layout, Settings
from andon.store.blobs import LocalBlobs
from andon.store.ports import Reader, Store, Transaction
from andon.testing.rows import ANN, AT, actor, experiment, later, line, run, tracked_run
from andon.testing.stores import Place
from andon.testing.stores.place import put
from andon.tracking.artifacts import (
    artifact_tree,
    check_folder,
    check_path,
    delete_artifacts,
    find_artifact,
    list_folder,
    put_artifact,
    seal_tree,
)

T = TypeVar("T")

RUN = "a" * 32
LINES = "b" * 32
ROOT = f"1/{RUN}/artifacts"

LEGAL = [
    "a", "a/b/c.txt", "with space.txt", "ünïcode-名前.txt", "e\u0301 as two, é as one", "100%.txt", "50%25.txt",
    "a+b&c=d,e.txt", "(round) [square] {curly}.txt", "quote'double\".txt", ".hidden", "~tilde", "a:b@c!d$e.txt", "two..dots",
    "...a", "semi;colon.txt", "what?.txt", "-rf", "CON", "a" * 255, "/".join(["p" * 99] * 10),
]  # fmt: skip
REFUSED = {
    "parent": ["..", "../x", "a/../b", "a/..", "a/b/../../../c"],
    "here": [".", "a/./b", "./a"],
    "parent in disguise": ["..;/x", "..;v=1/x", ".. /x", "a/.. ./b", "..../x", " ", "a/ /b"],
    "decoded once more": ["%2e%2e/x", "%2E%2E%2Fx", "%252e%252e/x", "a%2fb", "a%5cb", "%2fetc", "a%00", "a%23b"],
    "absolute": ["/", "/etc/passwd", "//host/share"],
    "backslash": ["a\\b", "..\\..\\x", "\\\\host\\share"],
    "drive": ["C:", "C:/x", "c:\\x", "a/D:/x", "%43:/x"],
    "address": ["file:///etc/passwd", "http://x/y", "s3://bucket/x"],
    "fragment": ["a#b", "#", "a/#/../b"],
    "control": ["a\0b", "a\nb", "a\rb", "\x1b[31m", "a\x7f", "a\x85b", "\udcff", "\ufffd"],
    "empty": ["", "a//b", "a/", "/a", "a/b/"],
    "long": ["a" * 256, "ü" * 128, "/".join(["p" * 99] * 11), "x/" * 600 + "x"],
}  # fmt: skip


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A run of a client's and one of a line's."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    settings = Settings() if url is None else Settings(database_url=url)
    store = Place(Layout(tmp_path / ".andon"), settings).open()
    put(store, actor(), line(), experiment())
    put(store, tracked_run(RUN, within="1"), replace(run(LINES), experiment=experiment().id))
    yield store
    store.close()


def write(store: Store, path: str, data: bytes = b"x", *, minutes: float = 0) -> Artifact:
    return store.write(
        lambda tx: put_artifact(tx, path, digest_bytes(data), len(data), actor=ANN, at=later(minutes))
    )


def look(store: Store, work: Callable[[Reader], T]) -> T:
    return store.read(work)


@pytest.mark.parametrize("path", LEGAL)
def test_a_name_that_names_one_place_is_kept_as_it_is(path: str) -> None:
    assert check_path(path) == path
    assert check_path(f"{ROOT}/{path}" if len(path) < 900 else path)


@pytest.mark.parametrize(
    ("kind", "path"), [(kind, path) for kind, paths in REFUSED.items() for path in paths]
)
def test_a_name_that_may_mean_another_place_is_refused(kind: str, path: str) -> None:
    with pytest.raises(Invalid, match="Invalid path") as caught:
        check_path(path)
    assert caught.value.field == "path"
    assert len(str(caught.value)) < 1100
    if kind not in ("here", "empty"):
        with pytest.raises(Invalid):
            check_folder(path)


def test_a_folder_may_be_the_top_and_end_in_a_slash() -> None:
    given = [None, "", ".", "./", "a/", "a/.", "./a/./b/"]

    assert [check_folder(path) for path in given] == ["", "", "", "", "a", "a", "a/b"]
    for path in ("/", "/a", "//", "a//", "../", "a/.."):
        with pytest.raises(Invalid):
            check_folder(path)


def test_a_file_is_found_replaced_and_put_again_without_effect(store: Store) -> None:
    first = write(store, f"{ROOT}/a", b"first")
    again = write(store, f"{ROOT}/a", b"first", minutes=5)
    second = write(store, f"{ROOT}/a", b"second!", minutes=6)

    assert (first.digest, first.size_bytes, first.actor, first.changed_at) == (
        digest_bytes(b"first"),
        5,
        ANN,
        AT,
    )
    assert again == first
    assert (second.digest, second.size_bytes, second.changed_at) == (digest_bytes(b"second!"), 7, later(6))
    assert look(store, lambda reader: find_artifact(reader, f"{ROOT}/a")) == second


def test_what_is_not_there_is_said_and_a_folder_is_no_file(store: Store) -> None:
    write(store, f"{ROOT}/f/a")

    with pytest.raises(NotFound, match="No such artifact"):
        look(store, lambda reader: find_artifact(reader, f"{ROOT}/g"))
    with pytest.raises(Invalid, match="is a folder"):
        look(store, lambda reader: find_artifact(reader, f"{ROOT}/f"))


def test_nothing_is_both_a_file_and_a_folder(store: Store) -> None:
    write(store, f"{ROOT}/a/b")

    with pytest.raises(Invalid, match="is a folder, so no file"):
        write(store, f"{ROOT}/a")
    with pytest.raises(Invalid, match=r"a/b' is a file, so .*cannot be in it"):
        write(store, f"{ROOT}/a/b/c/d")
    assert write(store, f"{ROOT}/a.b").size_bytes == 1
    assert write(store, f"{ROOT}/a0").size_bytes == 1


def test_runs_that_nobody_knows_may_have_artifacts_as_with_mlflow(store: Store) -> None:
    store.write(lambda tx: tx.runs.change(replace(tx.runs.get(RUN), deleted_at=AT)))

    for path in (f"{ROOT}/of a deleted run", f"1/{'c' * 32}/artifacts/of none", "somewhere/else"):
        assert write(store, path).id == path


def test_a_lines_run_takes_and_loses_nothing(store: Store) -> None:
    path = f"1/{LINES}/artifacts/a"
    store.write(
        lambda tx: tx.artifacts.add(
            Artifact(id=path, digest=digest_bytes(b"x"), size_bytes=1, actor=ANN, changed_at=AT)
        )
    )

    for work in (
        lambda: write(store, path, b"other"),
        lambda: write(store, path + "b"),
        lambda: remove(store, path),
    ):
        with pytest.raises(Invalid, match="takes nothing from clients"):
            work()
    assert look(store, lambda reader: find_artifact(reader, path)).digest == digest_bytes(b"x")


def remove(store: Store, path: str) -> int:
    return store.write(lambda tx: delete_artifacts(tx, path, actor=ANN, at=AT))


def test_a_write_after_the_end_takes_the_runs_seal_away(store: Store) -> None:
    def sealed() -> Run:
        row = store.write(lambda tx: tx.runs.get(RUN))
        end = replace(row, state="finished", finished_at=AT, seal=digest_bytes(b"seal"))
        return store.write(lambda tx: tx.runs.change(end))

    changes: list[Callable[[], object]] = [
        lambda: write(store, f"{ROOT}/a"),
        lambda: write(store, f"{ROOT}/a", b"other"),
        lambda: remove(store, f"{ROOT}/a"),
    ]
    for change in changes:
        before = sealed()
        change()
        after = look(store, lambda reader: reader.runs.get(RUN))
        assert (before.seal is not None, after.seal) == (True, None)

    write(store, f"{ROOT}/b")
    before = sealed()
    write(store, f"{ROOT}/b")
    remove(store, f"{ROOT}/never there")
    assert look(store, lambda reader: reader.runs.get(RUN)) == before, "nothing changed, so the seal holds"


def test_deleting_is_on_record_and_takes_a_file_or_all_in_a_folder(store: Store) -> None:
    for name in ("a", "f/b", "f/g/c", "f0", "f.d"):
        write(store, f"{ROOT}/{name}")
    before = look(store, lambda reader: reader.ledger.head()[0])

    counts = [remove(store, f"{ROOT}/{name}") for name in ("a", "a", "f")]

    left = look(store, lambda reader: [row.id for row in reader.files.under(ROOT)])
    events = look(store, lambda reader: reader.ledger.after(before))
    assert counts == [1, 0, 2]
    assert left == [f"{ROOT}/f.d", f"{ROOT}/f0"]
    assert [(e.kind, e.subject, e.facts, e.note is not None) for e in events] == [
        ("artifacts.deleted", f"run:{RUN}", {"files": count}, True) for count in (1, 2)
    ]


def test_what_many_runs_keep_is_not_deleted_at_once(store: Store) -> None:
    model = "m-" + "d" * 32
    for path in (f"{ROOT}/a", f"1/models/{model}/artifacts/MLmodel", "mine/a"):
        write(store, path)

    for path in ("1", "1/models"):
        with pytest.raises(Invalid, match="of many runs or models"):
            remove(store, path)
    assert [remove(store, path) for path in (f"1/models/{model}", "mine", f"1/{RUN}")] == [1, 1, 1]
    subjects = look(store, lambda reader: [event.subject for event in reader.ledger.latest(limit=3)])
    assert subjects == [f"run:{RUN}", "workspace:workspace", f"logged_model:{model}"]


def test_a_folder_lists_what_is_directly_in_it_page_by_page(store: Store) -> None:
    rng = random.Random(11)
    names = ["a", "a.b", "a0", "a-", "b", "é", "名"]
    paths: set[str] = set()
    for _ in range(400):
        path = "/".join(
            rng.choice(names) + str(rng.randrange(12)) for _ in range(rng.choice((1, 1, 1, 2, 3)))
        )
        if not any(other.startswith(f"{path}/") or path.startswith(f"{other}/") for other in paths):
            paths.add(path)
    store.write(lambda tx: [_put(tx, f"top/{path}") for path in paths])
    _ = [write(store, path) for path in ("top.x", "top0/y")]

    def expected(folder: str) -> list[tuple[str, bool]]:
        below = [path.removeprefix(folder) for path in paths if path.startswith(folder)]
        return sorted(
            {(path.partition("/")[0], "/" not in path) for path in below}, key=lambda e: e[0].encode()
        )

    folders = {"", *(path.rpartition("/")[0] + "/" for path in paths if "/" in path)}
    assert len(paths) > 140
    assert len(folders) > 15
    for folder in folders:
        place = f"top/{folder}".rstrip("/")
        for limit in (1, 2, 17, 1000):
            found, after = [], ""
            while page := listed(store, place, after, limit):
                assert len(page) <= limit
                found += [(name, row is not None) for name, row in page]
                assert all(row is None or row.id == f"{place}/{name}" for name, row in page)
                after = page[-1][0]
                if limit == 1000:
                    break
            assert found == expected(folder), (place, limit)


def listed(store: Store, folder: str, after: str, limit: int) -> list[tuple[str, Artifact | None]]:
    return store.read(lambda reader: list_folder(reader, folder, after=after, limit=limit))


def _put(tx: Transaction, path: str) -> None:
    tx.artifacts.add(Artifact(id=path, digest=digest_bytes(b"x"), size_bytes=1, actor=ANN, changed_at=AT))


def test_a_tree_names_all_files_below_and_is_an_address(store: Store, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    for number in range(2500):
        store.submit(
            lambda tx, n=number: put_artifact(  # type: ignore[misc]
                tx, f"{ROOT}/model/{n % 7}/{n}", digest_bytes(b"%d" % n), n, actor=ANN, at=AT
            )
        )
    write(store, f"{ROOT}/model.txt")

    tree = look(store, lambda reader: artifact_tree(reader, f"{ROOT}/model"))
    digest = seal_tree(blobs, tree)

    assert len(tree.files) == 2500
    assert tree.size_bytes == sum(range(2500))
    assert tree.files["3/10"] == Leaf(digest=digest_bytes(b"10"), size_bytes=10)
    assert digest == tree.digest
    assert decode_tree(blobs.get(digest)) == tree
    assert look(store, lambda reader: artifact_tree(reader, "nothing")) == Tree(files={})


def test_a_trees_digest_is_that_of_its_files_only() -> None:
    one, other = Leaf(digest=digest_bytes(b"1"), size_bytes=1), Leaf(digest=digest_bytes(b"2"), size_bytes=1)

    assert Tree(files={"a": one, "b": other}).digest == Tree(files={"b": other, "a": one}).digest
    assert len({Tree(files=files).digest for files in ({}, {"a": one}, {"b": one}, {"a": other})}) == 4


def test_a_tree_of_too_many_files_is_refused() -> None:
    leaf = Leaf(digest=digest_bytes(b"1"), size_bytes=1)

    with pytest.raises(TooLarge, match="more than 100,000 files"):
        Tree(files={str(number): leaf for number in range(MOST_FILES + 1)}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b'{"files":{},"format":"andon.tree/2"}', b'{"files":{"a":{"digest":"x","size_bytes":1}}}',
        b'{"files":{},"more":1}', b"\xff",
    ],
)  # fmt: skip
def test_what_is_no_tree_is_not_read_as_one(data: bytes) -> None:
    with pytest.raises(Corrupt, match="manifest"):
        decode_tree(data)
    assert decode_tree(b'{"files":{},"format":"%s"}' % FORMAT.encode()) == Tree(files={})
