"""Experiments as rows and events: made, renamed, deleted with their runs, and brought back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from andon.core.entities import Experiment, Run
from andon.core.errors import AlreadyExists, Invalid, NotFound
from andon.core.ids import RunId, node
from andon.store.ports import Store
from andon.testing.rows import ANN, AT, later, line
from andon.testing.stores.place import put
from andon.tracking import experiments as verbs
from andon.tracking.runs import create_run, delete_run


def made(store: Store, name: str = "churn") -> Experiment:
    return store.write(lambda tx: verbs.create_experiment(tx, name, ANN, AT))


def run(store: Store, home: Experiment) -> Run:
    return store.write(lambda tx: create_run(tx, home.id, actor=ANN, at=AT, name="r", tags={})[0])


def kinds(store: Store, home: Experiment) -> list[str]:
    events = store.read(lambda reader: reader.ledger.latest(subject=node("experiment", home.id)))
    return [event.kind for event in reversed(events)]


def deleted(store: Store, home: Experiment, minutes: float = 1) -> int:
    return whole(store, partial(verbs.delete_experiment, ident=home.id, actor=ANN, at=later(minutes)))


def restored(store: Store, home: Experiment, minutes: float = 2) -> int:
    return whole(store, partial(verbs.restore_experiment, ident=home.id, actor=ANN, at=later(minutes)))


def whole(store: Store, verb: Callable[..., bool]) -> int:
    """Call a verb until it is done; how often that was."""
    calls = 1
    while not store.write(verb):
        calls += 1
    return calls


def test_a_name_is_taken_once_even_by_a_deleted_experiment(store: Store) -> None:
    home = made(store)
    deleted(store, home)

    with pytest.raises(AlreadyExists):
        made(store)
    other = made(store, "other")
    with pytest.raises(AlreadyExists):
        store.write(lambda tx: verbs.rename_experiment(tx, other.id, "churn", actor=ANN, at=AT))


def test_a_rename_is_on_record_and_frees_the_name(store: Store) -> None:
    home = made(store)

    store.write(lambda tx: verbs.rename_experiment(tx, home.id, "new", actor=ANN, at=later(1)))

    now = store.read(lambda reader: reader.experiments.get(home.id))
    assert (now.name, now.changed_at, now.created_at) == ("new", later(1), AT)
    assert kinds(store, home) == ["experiment.created", "experiment.changed"]
    assert made(store).id != home.id


def test_a_rename_to_the_same_name_changes_nothing(store: Store) -> None:
    home = made(store)

    store.write(lambda tx: verbs.rename_experiment(tx, home.id, "churn", actor=ANN, at=later(1)))

    assert store.read(lambda reader: reader.experiments.get(home.id)) == home


def test_delete_takes_the_runs_along_and_restore_brings_those_back(store: Store) -> None:
    home = made(store)
    kept, gone = run(store, home), run(store, home)
    store.write(lambda tx: delete_run(tx, gone.id, actor=ANN, at=AT))

    deleted(store, home)
    between = store.read(lambda reader: [reader.runs.get(each.id).deleted_at for each in (kept, gone)])
    restored(store, home)

    after = store.read(lambda reader: [reader.runs.get(each.id).deleted_at for each in (kept, gone)])
    assert (between, after) == ([later(1), AT], [None, AT])
    assert kinds(store, home) == ["experiment.created", "experiment.deleted", "experiment.restored"]
    assert store.read(lambda reader: reader.experiments.get(home.id)).deleted_at is None


def test_an_experiment_of_many_runs_is_deleted_in_several_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "RUNS_AT_ONCE", 3)
    home = made(store)
    runs = [run(store, home) for _ in range(7)]

    calls = deleted(store, home)
    gone = store.read(lambda reader: [reader.runs.get(each.id).deleted_at for each in runs])
    again = restored(store, home)

    assert (calls, again) == (3, 3)
    assert gone == [later(1)] * 7
    assert store.read(lambda reader: {reader.runs.get(each.id).deleted_at for each in runs}) == {None}


def test_an_experiment_takes_no_runs_from_the_first_transaction_of_its_deletion_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "RUNS_AT_ONCE", 1)
    home = made(store)
    for _ in range(2):
        run(store, home)

    store.write(lambda tx: verbs.delete_experiment(tx, home.id, actor=ANN, at=later(1)))

    with pytest.raises(Invalid, match="deleted"):
        run(store, home)
    deleted(store, home, minutes=5)
    assert kinds(store, home) == ["experiment.created", "experiment.deleted"]


def test_what_is_deleted_cannot_be_deleted_renamed_or_take_runs(store: Store) -> None:
    home = made(store)
    with pytest.raises(NotFound):
        restored(store, home)
    deleted(store, home)

    with pytest.raises(NotFound):
        deleted(store, home)
    with pytest.raises(Invalid, match="deleted"):
        store.write(lambda tx: verbs.rename_experiment(tx, home.id, "new", actor=ANN, at=AT))
    with pytest.raises(Invalid, match="deleted"):
        run(store, home)


def test_the_experiment_of_a_line_stays(store: Store) -> None:
    put(store, line())
    home = made(store)

    with pytest.raises(Invalid, match="line"):
        deleted(store, home)
    with pytest.raises(Invalid, match="line"):
        store.write(lambda tx: verbs.rename_experiment(tx, home.id, "new", actor=ANN, at=AT))

    assert store.read(lambda reader: reader.experiments.get(home.id)) == home


def test_a_run_brings_its_own_id(store: Store) -> None:
    home = made(store)

    kept = store.write(
        lambda tx: create_run(tx, home.id, actor=ANN, at=AT, name="r", tags={}, ident=RunId("f" * 32))[0]
    )

    assert kept.id == "f" * 32
    with pytest.raises(AlreadyExists):
        store.write(
            lambda tx: create_run(tx, home.id, actor=ANN, at=AT, name="r", tags={}, ident=RunId("f" * 32))
        )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("gs://bucket", "gs://bucket"),
        ("wasbs://box@account.blob.core.windows.net/a", "wasbs://box@account.blob.core.windows.net/a"),
        ("abfss://box@account.dfs.core.windows.net/a/", "abfss://box@account.dfs.core.windows.net/a"),
        ("hdfs://name:8020/models", "hdfs://name:8020/models"),
        ("dbfs:/models/x", "dbfs:/models/x"),
        ("hdfs:///models", "hdfs:///models"),
        ("mlflow-artifacts:/", None),
    ],
)
def test_a_place_that_clients_write_to_themselves_is_taken(text: str, kept: str | None) -> None:
    assert verbs.check_location(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "/etc", "etc", "./a", "../a", "~/a", "C:\\a", "C:/a", "\\\\server\\share", "//server/share", "file:///etc",
        "file://localhost/etc", "FILE:/etc", "file:etc", "http://169.254.169.254/latest", "https://example.org/x",
        "ftp://example.org/x", "sftp://example.org/x", "s3://bucket/../x", "s3://bucket/a/../../x", "s3://bucket/%2e%2e/x",
        "s3://bucket/%252e%252e/x", "s3://bucket/a#b", "s3://bucket/a;b", "s3://bucket/a?b=..", "s3://bucket\\a", "s3://",
        "s3:///a", "s3:bucket", "s3://bucket//a", "s3://bucket/./a", "mlflow-artifacts:/0", "mlflow-artifacts:/../x",
        "mlflow-artifacts://host/x", "runs:/abc", "models:/a/1", "javascript:/alert", "s3://bucket/a\nb", "s3://bucket/a\0b",
        "S3://bucket/a", " s3://bucket/a", "s3://b/" + "a" * 3000, "dbfs:/../x", "data:/x", "sqlite:///x.db",
        "dbfs:/", "dbfs:////a", "hdfs:////a",
    ],
)  # fmt: skip
def test_any_other_place_and_any_trick_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        verbs.check_location(text)

    assert refused.value.field == "artifact_location"
