"""Two packages answer the same rows; what is judged is kept with every number behind it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from andon.core.canonical import digest_bytes
from andon.core.errors import Invalid
from andon.core.policy import GateCheck
from andon.registry.evaluation import Evidence, evaluate, frame_digest, score, time_predictions
from andon.registry.packaging import LoadedModel, build_package, infer_signature, install, load
from andon.store.blobs import LocalBlobs
from tests.registry.packaging.models import expressions, flight_booster, flights

TRAIN, WINDOW = flights(1500, seed=1), flights(800, seed=2)
POLICY = digest_bytes(b"policy")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedModel, LoadedModel]]:
    """A model that learned, and one that was trained on shuffled labels."""
    folder = tmp_path_factory.mktemp("models")
    shuffled = TRAIN.with_columns(pl.col("late").shuffle(seed=3))
    good, bad = (packaged(folder, rows) for rows in (TRAIN, shuffled))
    yield good, bad
    good.close()
    bad.close()


def packaged(folder: Path, rows: pl.DataFrame) -> LoadedModel:
    blobs = LocalBlobs(folder / "blobs")
    package = build_package(
        blobs, expressions=expressions(), booster_text=flight_booster(rows, rounds=30).model_to_string(),
        raw_schema=infer_signature(rows, expressions()), profile_bytes=b"{}", golden_rows=rows,
    )  # fmt: skip
    return load(install(blobs, package.digest, folder / "models"))


GATE = (
    GateCheck(metric="auc", versus_live=False, operator=">=", bound=0.55),
    GateCheck(metric="auc", versus_live=True, operator=">=", bound=-0.01),
    GateCheck(metric="latency_p99_ms", versus_live=False, operator="<=", bound=60_000.0),
)


@pytest.mark.capability("D14")
def test_a_challenger_that_learned_replaces_one_that_did_not_and_never_the_other_way(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    good, bad = models

    up = evaluate(GATE, candidate=good, live=bad, frame=WINDOW, label="late", policy=POLICY)
    down = evaluate(GATE, candidate=bad, live=good, frame=WINDOW, label="late", policy=POLICY)

    assert up.judgement.passed
    assert not down.judgement.passed
    assert "auc vs live" in down.judgement.summary


def test_the_evidence_holds_every_number_and_what_made_it(models: tuple[LoadedModel, LoadedModel]) -> None:
    good, bad = models
    frame = WINDOW.with_columns(late=pl.when(pl.int_range(pl.len()) < 20).then(None).otherwise("late"))
    data_from, data_until = datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC)

    done = evaluate(
        GATE, candidate=good, live=bad, frame=frame, label="late", policy=POLICY, unlabelled=3,
        data_from=data_from, data_until=data_until,
    )  # fmt: skip

    evidence = msgspec.json.decode(done.evidence, type=Evidence)
    assert evidence.format == "andon.evidence/1"
    assert (evidence.policy, evidence.passed, evidence.checks) == (POLICY, True, done.judgement.checks)
    assert (evidence.window.rows, evidence.window.unlabelled) == (780, 23)
    assert (evidence.window.data_from, evidence.window.data_until) == (data_from, data_until)
    assert evidence.window.digest == frame_digest(frame)
    assert evidence.candidate.digest == good.digest
    assert evidence.live is not None
    assert evidence.live.digest == bad.digest
    assert set(evidence.versions) == {"andon", "numpy", "polars", "python"}
    assert evidence.rules["decision_threshold"] == 0.5
    assert json.loads(done.evidence)["candidate"]["metrics"]["auc"]["n"] == 780


def test_the_candidates_figures_become_metrics_of_its_run(models: tuple[LoadedModel, LoadedModel]) -> None:
    metrics = evaluate((), candidate=models[0], live=None, frame=WINDOW, label="late", policy=POLICY).metrics

    names = {
        "auc",
        "accuracy",
        "precision",
        "recall",
        "false_positive_rate",
        "f1",
        "brier",
        "log_loss",
        "latency_p99_ms",
    }
    assert set(metrics) == {name + end for name in names for end in ("", "_low", "_high")}
    assert all(metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"] for name in names)


def test_a_window_that_is_empty_is_blocked_and_not_an_error(models: tuple[LoadedModel, LoadedModel]) -> None:
    done = evaluate(
        GATE, candidate=models[0], live=models[1], frame=WINDOW.clear(), label="late", policy=POLICY
    )

    assert not done.judgement.passed
    assert done.metrics == {}
    assert "0 labelled rows are too few" in done.judgement.summary


def test_scoring_leaves_rows_without_a_label_out_and_counts_them(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    frame = WINDOW.head(100).with_columns(
        late=pl.when(pl.col("heavy")).then(None).otherwise(pl.col("late") == 1)
    )
    known = frame.filter(~pl.col("heavy"))

    found = score(models[0], frame, "late")

    assert found.unlabelled == 100 - len(known)
    assert found.labels.tolist() == [float(value) for value in known["late"]]
    assert found.scores.tolist() == models[0].predict(models[0].features(known)).tolist()
    assert found.digest == frame_digest(frame)


@pytest.mark.parametrize(("label", "said"), [("nowhere", "is missing"), ("carrier", "is a String")])
def test_a_label_that_is_no_number_is_refused(
    models: tuple[LoadedModel, LoadedModel], label: str, said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        score(models[0], WINDOW, label)


def test_latency_is_measured_by_the_clock_given_on_single_predictions(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    ticks = itertools.count(0.0, 0.002)

    taken = time_predictions(models[0], WINDOW, lambda: next(ticks))

    assert taken == pytest.approx([2.0] * 1000)


SAMPLE = pl.DataFrame(
    {
        "a": [1, None, 3],
        "b": [0.5, float("nan"), None],
        "c": ["x", None, "yz"],
        "d": [True, None, False],
        "e": [datetime(2013, 1, 1, tzinfo=UTC), None, datetime(2013, 1, 2, tzinfo=UTC)],
    }
)


@pytest.mark.parametrize(
    "changed",
    [
        SAMPLE.reverse(),
        SAMPLE.head(2),
        SAMPLE.rename({"a": "A"}),
        SAMPLE.with_columns(a=pl.col("a").fill_null(0)),
        SAMPLE.with_columns(a=pl.col("a").cast(pl.Int32)),
        SAMPLE.with_columns(b=pl.col("b").fill_null(0.0)),
        SAMPLE.with_columns(c=pl.Series(["xy", None, "z"])),
        SAMPLE.with_columns(d=pl.col("d").fill_null(value=False)),
        SAMPLE.with_columns(e=pl.col("e").dt.offset_by("1us")),
        SAMPLE.with_columns(f=1),
    ],
)
def test_the_digest_of_a_window_sees_every_change(changed: pl.DataFrame) -> None:
    assert frame_digest(changed) != frame_digest(SAMPLE)


def test_the_digest_of_a_window_does_not_see_how_it_is_laid_out() -> None:
    chunks = pl.concat([SAMPLE.head(1), SAMPLE.tail(2)], rechunk=False)

    assert frame_digest(chunks.select("e", "d", "c", "b", "a")) == frame_digest(SAMPLE)
    assert frame_digest(SAMPLE.clear()) != frame_digest(SAMPLE.clear().drop("a"))
    assert np.isnan(SAMPLE["b"][1])
