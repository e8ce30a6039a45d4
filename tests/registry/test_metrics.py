"""Figures and their intervals: known values, published examples, and error rates by simulation."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.canonical import Digest
from andon.registry.metrics import (
    METRICS,
    Floats,
    Scores,
    known_metrics,
    metric_difference,
    metric_interval,
    paired_shares,
    quantile_interval,
)

WINDOW = Digest("sha256:window")


def scores(
    labels: Floats | list[float],
    outputs: Floats | list[float],
    output: Literal["probability", "value"] = "probability",
) -> Scores:
    return Scores(
        labels=np.asarray(labels, dtype=float),
        scores=np.asarray(outputs, dtype=float),
        digest=WINDOW,
        output=output,
    )


def world(rng: np.random.Generator, n: int, *, noise: float = 1.0) -> tuple[Floats, Floats, Floats]:
    """Labels and the probabilities of two models that are equally good: the same signal, noise of their own."""
    signal = rng.normal(size=n)
    labels = (signal + rng.normal(size=n) > 0.5).astype(float)
    one, two = (1 / (1 + np.exp(-(signal + noise * rng.normal(size=n) - 0.4))) for _ in range(2))
    return labels, one, two


def test_figures_agree_with_their_definitions() -> None:
    labels, outputs, _ = world(np.random.default_rng(1), 500)
    found = {name: interval.value for name, interval in known_metrics(scores(labels, outputs)).items()}

    said, true = outputs >= 0.5, labels == 1
    tp, fp, fn = (said & true).sum(), (said & ~true).sum(), (~said & true).sum()
    given = np.where(true, outputs, 1 - outputs)
    assert found == pytest.approx(
        {
            "auc": np.mean([(a > b) + 0.5 * (a == b) for a in outputs[true] for b in outputs[~true]]),
            "accuracy": np.mean(said == true),
            "recall": tp / (tp + fn),
            "precision": tp / (tp + fp),
            "false_positive_rate": fp / (~true).sum(),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "brier": np.mean((outputs - labels) ** 2),
            "log_loss": -np.mean(np.log(given)),
        },
        rel=1e-12,
    )


def test_a_model_of_values_has_errors_and_no_rates() -> None:
    found = known_metrics(scores([1.0, 2.0, 4.0], [1.0, 3.0, 2.0], "value"))

    assert {name: interval.value for name, interval in found.items()} == {
        "mae": pytest.approx(1.0), "rmse": pytest.approx(math.sqrt(5 / 3))
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "labels", "outputs", "said"),
    [
        ("auc", [1, 1], [0.5, 0.6], "both classes"),
        ("precision", [1, 0], [0.1, 0.2], "no row was decided positive"),
        ("recall", [0, 0], [0.1, 0.2], "no row is positive"),
        ("false_positive_rate", [1, 1], [0.1, 0.2], "no row is negative"),
        ("f1", [0, 0], [0.1, 0.2], "no row is positive or was decided so"),
        ("accuracy", [], [], "no labelled rows"),
        ("accuracy", [0, 2], [0.1, 0.2], "needs labels 0 and 1"),
        ("brier", [0, 1], [0.1, math.nan], "not finite"),
        ("mae", [0, 1], [0.1, 0.2], "models that predict a value"),
    ],
)
def test_a_figure_that_rows_do_not_define_says_why(
    name: str, labels: list[float], outputs: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        metric_interval(name, scores(labels, outputs))


def test_a_probability_metric_refuses_a_model_of_values() -> None:
    with pytest.raises(ValueError, match="models that give a probability"):
        metric_interval("auc", scores([0, 1], [0.1, 0.2], "value"))


@pytest.mark.parametrize("name", METRICS)
def test_order_of_rows_and_pairing_do_not_matter(name: str) -> None:
    rng = np.random.default_rng(2)
    labels, one, two = world(rng, 400)
    kind: Literal["probability", "value"] = "value" if METRICS[name].needs == "values" else "probability"
    order = rng.permutation(400)
    a, b = scores(labels, one, kind), scores(labels, two, kind)

    shuffled = metric_difference(
        name, scores(labels[order], one[order], kind), scores(labels[order], two[order], kind)
    )
    there, back, same = (
        metric_difference(name, a, b),
        metric_difference(name, b, a),
        metric_difference(name, a, a),
    )

    assert (shuffled.value, shuffled.low, shuffled.high) == pytest.approx(
        (there.value, there.low, there.high)
    )
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert there.value == pytest.approx(metric_interval(name, a).value - metric_interval(name, b).value)
    assert there.low < there.value < there.high


def test_paired_shares_give_newcombes_published_interval() -> None:
    one = np.array([1] * 36 + [1] * 12 + [0] * 2, dtype=bool)
    other = np.array([1] * 36 + [0] * 12 + [1] * 2, dtype=bool)

    interval = paired_shares(one, other, 0.95)

    assert (interval.value, round(interval.low, 4), round(interval.high, 4)) == (0.2, 0.0569, 0.3404)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_paired_shares_hold_their_value_and_mirror(pairs: list[tuple[bool, bool]], level: float) -> None:
    one, other = np.array(pairs, dtype=bool).T

    found, mirror = paired_shares(one, other, level), paired_shares(other, one, level)

    assert -1 <= found.low <= found.value <= found.high <= 1
    assert (mirror.low, mirror.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"mae", "rmse"}))
def test_equally_good_models_look_better_by_luck_in_one_case_of_twenty(name: str) -> None:
    """The one-sided 95 % bound: P(low > 0) and P(high < 0) are each at most 5 % when there is no difference."""
    rng = np.random.default_rng(7)
    trials, above, below = 400, 0, 0
    for _ in range(trials):
        labels, one, two = world(rng, 300, noise=0.7)
        interval = metric_difference(name, scores(labels, one), scores(labels, two))
        above += interval.low > 0
        below += interval.high < 0

    assert max(above, below) <= 0.05 * trials + 3 * math.sqrt(0.05 * 0.95 * trials)
    assert above + below >= 0.02 * trials


@pytest.mark.parametrize("name", ["f1", "brier", "log_loss", "precision"])
def test_single_intervals_cover_the_truth(name: str) -> None:
    rng = np.random.default_rng(8)
    labels, one, _ = world(rng, 200_000)
    truth = metric_interval(name, scores(labels, one)).value
    trials, covered = 400, 0
    for _ in range(trials):
        sample = rng.integers(0, labels.size, 400)
        interval = metric_interval(name, scores(labels[sample], one[sample]))
        covered += interval.low <= truth <= interval.high

    assert covered / trials == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / trials) + 0.01)


@pytest.mark.parametrize("n", [300, 1000])
def test_the_interval_of_a_quantile_covers_it_whatever_the_distribution(n: int) -> None:
    rng = np.random.default_rng(9)
    truth = math.exp(2.3263478740408408)  # p99 of a log-normal
    trials, covered = 1000, 0
    for _ in range(trials):
        interval = quantile_interval(list(rng.lognormal(size=n)), 0.99)
        covered += interval.low <= truth <= interval.high

    assert covered / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def test_a_quantile_that_few_samples_cannot_bound_has_an_infinite_end() -> None:
    interval = quantile_interval([1.0, 2.0, 3.0], 0.99)

    assert (interval.value, interval.high) == (3.0, math.inf)
    with pytest.raises(ValueError, match="no finite samples"):
        quantile_interval([], 0.99)
    with pytest.raises(ValueError, match="no finite samples"):
        quantile_interval([1.0, math.nan], 0.99)


def test_quantiles_agree_with_scipy() -> None:
    from scipy.stats import quantile_test

    rng = np.random.default_rng(10)
    samples = rng.gamma(2.0, size=777)

    ours = quantile_interval(list(samples), 0.9)
    theirs = quantile_test(samples, q=0, p=0.9).confidence_interval(0.95)

    assert (ours.low, ours.high) == (theirs.low, theirs.high)
