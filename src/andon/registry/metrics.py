"""The figures that gates bound: each with an interval, and as a paired difference between two models on the same rows.

Decisions are made at a probability of 0.5. Intervals are closed forms, so the same rows always give the same verdict:

| figure | interval | paired difference |
| --- | --- | --- |
| `auc` | DeLong on the logit scale | DeLong, paired |
| `accuracy`, `recall`, `false_positive_rate` | Wilson | Newcombe's paired method |
| `precision` | Wilson | linearised ratio, paired |
| `f1` | linearised ratio | linearised ratio, paired |
| `brier`, `log_loss`, `mae`, `rmse` | normal | normal, paired |
| `latency_p99_ms` | order statistics, no assumption on the distribution | none |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from andon.core.canonical import Digest
from andon.stats import Interval, auc_difference, auc_interval, wilson_interval
from andon.stats.intervals import normal_quantile

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

THRESHOLD = 0.5
LATENCY = "latency_p99_ms"
_FLOOR = 1e-15


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """What a model said of the labelled rows of a window.

    Attributes:
        labels: shape (n,); 0 and 1, or the values to be predicted.
        scores: the model's outputs, shape (n,).
        digest: of the window's rows: two models are compared only when it is the same.
        unlabelled: rows of the window that were left out because their label is not known.
        output: what the scores are.
    """

    labels: Floats
    scores: Floats
    digest: Digest
    unlabelled: int = 0
    output: Literal["probability", "value"] = "probability"

    @property
    def n(self) -> int:
        """Rows scored."""
        return int(self.labels.size)


@dataclass(frozen=True)
class _Metric:
    needs: Literal["classes", "values"]
    interval: Callable[[Scores, float], Interval]
    difference: Callable[[Scores, Scores, float], Interval]


def metric_interval(name: str, scores: Scores, *, level: float = 0.95) -> Interval:
    """A figure with its two-sided interval.

    Raises:
        ValueError: these rows do not define it; the message says why.

    >>> scores = Scores(
    ...     labels=np.array([0.0, 1, 1, 0]), scores=np.array([0.2, 0.9, 0.4, 0.1]), digest=Digest("")
    ... )
    >>> metric_interval("accuracy", scores).value, metric_interval("precision", scores).value
    (0.75, 1.0)
    """
    metric = METRICS[name]
    _check(name, metric, scores)
    return metric.interval(scores, level)


def metric_difference(name: str, one: Scores, other: Scores, *, level: float = 0.90) -> Interval:
    """A figure of the one model minus that of the other on the same rows, with its two-sided interval.

    Each end of a 90 % interval is a one-sided bound at 95 %.

    Raises:
        ValueError: these rows do not define it; the message says why.
    """
    metric = METRICS[name]
    _check(name, metric, one)
    _check(name, metric, other)
    return metric.difference(one, other, level)


def known_metrics(scores: Scores, *, level: float = 0.95) -> dict[str, Interval]:
    """All figures that these rows define."""
    found = {}
    for name in METRICS:
        try:
            found[name] = metric_interval(name, scores, level=level)
        except ValueError:
            continue  # a window with one class has no AUC, a model that never says yes no precision
    return found


def paired_shares(one: Bools, other: Bools, level: float) -> Interval:
    """The difference of two shares over the same rows.

    Decisions that are the same in every row differ by exactly 0, with no width.

    >>> paired_shares(np.array([True] * 80 + [False] * 20), np.array([True] * 70 + [False] * 30), 0.95).value
    0.1

    Reference: Newcombe (1998), "Improved confidence intervals for the difference between binomial proportions based on
    paired data", method 10.
    """
    n = one.size
    if np.array_equal(one, other):
        return Interval(0.0, 0.0, 0.0, n)
    first, second = wilson_interval(int(one.sum()), n, level), wilson_interval(int(other.sum()), n, level)
    both, neither = int((one & other).sum()), int((~one & ~other).sum())
    only, missed = int((one & ~other).sum()), int((~one & other).sum())
    product = float(both * neither - only * missed)
    if product > 0:
        product = max(0.0, product - n / 2)
    margins = (both + only) * (missed + neither) * (both + missed) * (only + neither)
    phi = product / math.sqrt(margins) if margins else 0.0
    value = (only - missed) / n
    down = _joined(first.value - first.low, second.high - second.value, phi)
    up = _joined(first.high - first.value, second.value - second.low, phi)
    return Interval(value, max(-1.0, value - down), min(1.0, value + up), n)


def quantile_interval(samples: Sequence[float], share: float, *, level: float = 0.95) -> Interval:
    """A quantile (nearest rank) with an interval that holds for any distribution; an end the sample cannot bound is infinite.

    Raises:
        ValueError: there are no samples, or one is not finite.

    >>> interval = quantile_interval([float(i) for i in range(1, 1001)], 0.99)
    >>> interval.value, interval.low, interval.high
    (990.0, 983.0, 997.0)

    Reference: David and Nagaraja (2003), "Order statistics", section 7.1.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = ordered.size
    if not n or not np.isfinite(ordered).all():
        raise ValueError("there are no finite samples to take a quantile of")
    tail = (1.0 - level) / 2.0
    below = np.cumsum(_binomial(n, share))  # below[k] = P(at most k samples lie under the quantile)
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1.0 - tail)) + 1
    value = float(ordered[min(n, math.ceil(share * n)) - 1])
    return Interval(
        value,
        float(ordered[low - 1]) if low >= 1 else -math.inf,
        float(ordered[high - 1]) if high <= n else math.inf,
        n,
    )


def _check(name: str, metric: _Metric, scores: Scores) -> None:
    if not scores.n:
        raise ValueError("there are no labelled rows")
    if not np.isfinite(scores.scores).all():
        raise ValueError("the model gave outputs that are not finite")
    if metric.needs == "values":
        if scores.output != "value":
            raise ValueError(f"{name} is for models that predict a value, and this one gives a probability")
        return
    if not np.isin(scores.labels, (0.0, 1.0)).all():
        raise ValueError(f"{name} needs labels 0 and 1")
    if scores.output != "probability":
        raise ValueError(f"{name} is for models that give a probability, and this one predicts a value")


# --- shares of rows: a yes or no for each row that counts ---


def _share(rows: Callable[[Bools, Bools], Bools], what: str) -> _Metric:
    """`rows` says for (labels, decisions) which rows that count were hits."""

    def hits(scores: Scores) -> Bools:
        found = rows(scores.labels > 0.5, scores.scores >= THRESHOLD)
        if not found.size:
            raise ValueError(f"no row is {what}")
        return found

    def interval(scores: Scores, level: float) -> Interval:
        found = hits(scores)
        return wilson_interval(int(found.sum()), found.size, level)

    def difference(one: Scores, other: Scores, level: float) -> Interval:
        return paired_shares(hits(one), hits(other), level)

    return _Metric("classes", interval, difference)


# --- smooth figures: a value and how much each row moves it ---

Linear = tuple[float, Floats]
"""A figure and its influence per row: its variance is that of the influences over n."""


def _linear(
    needs: Literal["classes", "values"],
    of: Callable[[Floats, Floats], Linear],
    highest: float = math.inf,
    interval: Callable[[Scores, float], Interval] | None = None,
) -> _Metric:
    def plain(scores: Scores, level: float) -> Interval:
        value, influence = of(scores.labels, scores.scores)
        reach = normal_quantile(level) * _standard_error(influence)
        return Interval(value, max(0.0, value - reach), min(highest, value + reach), scores.n)

    def difference(one: Scores, other: Scores, level: float) -> Interval:
        (first, moves), (second, counters) = of(one.labels, one.scores), of(other.labels, other.scores)
        reach = normal_quantile(level) * _standard_error(moves - counters)
        return Interval(first - second, first - second - reach, first - second + reach, one.n)

    return _Metric(needs, interval or plain, difference)


def _standard_error(influence: Floats) -> float:
    if influence.size < 2:
        return math.inf
    return float(influence.std(ddof=1)) / math.sqrt(influence.size)


def _ratio(above: Floats, below: Floats, nothing: str) -> Linear:
    """A ratio of two means, linearised (Cochran (1977), "Sampling techniques", section 2.11)."""
    if not below.any():
        raise ValueError(nothing)
    value = float(above.sum() / below.sum())
    return value, (above - value * below) / below.mean()


def _precision(labels: Floats, scores: Floats) -> Linear:
    said = (scores >= THRESHOLD).astype(np.float64)
    return _ratio(labels * said, said, "no row was decided positive")


def _f1(labels: Floats, scores: Floats) -> Linear:
    said = (scores >= THRESHOLD).astype(np.float64)
    return _ratio(2 * labels * said, labels + said, "no row is positive or was decided so")


def _mean(values: Floats) -> Linear:
    value = float(values.mean())
    return value, values - value


def _log_loss(labels: Floats, scores: Floats) -> Linear:
    return _mean(-np.log(np.maximum(np.where(labels > 0.5, scores, 1.0 - scores), _FLOOR)))


def _rmse(labels: Floats, scores: Floats) -> Linear:
    squared, influence = _mean((scores - labels) ** 2)
    root = math.sqrt(squared)
    return root, influence / (2 * root) if root else influence


def _precision_interval(scores: Scores, level: float) -> Interval:
    said = scores.scores >= THRESHOLD
    if not said.any():
        raise ValueError("no row was decided positive")
    return wilson_interval(int((said & (scores.labels > 0.5)).sum()), int(said.sum()), level)


METRICS: Mapping[str, _Metric] = {
    "auc": _Metric(
        "classes",
        lambda scores, level: auc_interval(scores.labels, scores.scores, level),
        lambda one, other, level: auc_difference(one.labels, one.scores, other.scores, level),
    ),
    "accuracy": _share(lambda labels, said: labels == said, "labelled"),
    "recall": _share(lambda labels, said: said[labels], "positive"),
    "false_positive_rate": _share(lambda labels, said: said[~labels], "negative"),
    "precision": _linear("classes", _precision, 1.0, _precision_interval),
    "f1": _linear("classes", _f1, 1.0),
    "brier": _linear("classes", lambda labels, scores: _mean((scores - labels) ** 2), 1.0),
    "log_loss": _linear("classes", _log_loss),
    "mae": _linear("values", lambda labels, scores: _mean(np.abs(scores - labels))),
    "rmse": _linear("values", _rmse),
}
"""The figures of a model on labelled rows, by the name a policy calls them."""


def _joined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _binomial(n: int, share: float) -> Floats:
    """Chances of 0 .. n successes."""
    log_share, log_rest = math.log(share), math.log1p(-share)
    whole = math.lgamma(n + 1)
    logs = [
        whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_share + (n - k) * log_rest
        for k in range(n + 1)
    ]
    return np.asarray(np.exp(logs), dtype=np.float64)
