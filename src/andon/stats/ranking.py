"""How well scores rank and decisions hit: AUC with DeLong's interval, confusion counts, proper scores.

Everything here is for two classes: labels are True or 1 for the positive class. The AUC is the chance that a
positive scores higher than a negative, ties counting half; it is a Mann-Whitney statistic, so its variance
has a closed form that needs no resampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from andon.stats._arrays import Bools, Floats, binary, reals, same_length
from andon.stats.intervals import Interval, normal_quantile, wilson_interval


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The chance in [0, 1] that a positive scores higher than a negative; ties count half.

    Time O(n log n).

    Args:
        labels: booleans or 0 and 1, shape (n,), with both classes present.
        scores: any real scores, shape (n,); infinities rank as such, nan is refused.

    Raises:
        ValueError: lengths differ, a label is no boolean, a score is nan, or a class is missing.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75

    Reference: Hanley and McNeil (1982), "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve".
    """
    y = _both_classes(labels)
    return _Placements.of(y, _scores("scores", scores, y)).auc


def auc_interval(labels: npt.ArrayLike, scores: npt.ArrayLike, level: float = 0.95) -> Interval:
    """The AUC with its confidence interval by DeLong's variance on the logit scale.

    The logit keeps the interval within [0, 1] and its coverage near the level for high AUCs and small
    samples. A sample that is ranked perfectly (AUC 0 or 1) has no variance to speak of; its bound is the exact
    one for min(positives, negatives) disjoint pairs, all in order. With fewer than two rows in a class nothing
    can be said: the interval is [0, 1].

    Args:
        labels: as for `auc`.
        scores: as for `auc`.
        level: confidence, in (0, 1).

    Raises:
        ValueError: as for `auc`, or the level lies outside (0, 1).

    >>> interval = auc_interval([0, 1] * 50, [0.4, 0.6, 0.5, 0.3] * 25)
    >>> interval.value, round(interval.low, 3), round(interval.high, 3), interval.n
    (0.5, 0.364, 0.636, 100)

    Reference: DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under two or more correlated
    receiver operating characteristic curves"; Sun and Xu (2014), "Fast implementation of DeLong's algorithm";
    Obuchowski and Lieber (2002), "Confidence bounds when the estimated ROC area is 1.0".
    """
    z = normal_quantile(level)
    y = _both_classes(labels)
    placed = _Placements.of(y, _scores("scores", scores, y))
    low, high = placed.bounds(z, level)
    return Interval(placed.auc, low, high, y.size)


def auc_difference(
    labels: npt.ArrayLike, scores_a: npt.ArrayLike, scores_b: npt.ArrayLike, level: float = 0.95
) -> Interval:
    """AUC of A minus AUC of B on the same rows, with a paired interval.

    Pairing counts: two models that err on the same rows differ by much less than their own intervals suggest.
    Scores that rank alike differ by exactly 0, with no width. Where the paired variance vanishes otherwise
    (both rank perfectly), and with fewer than two rows in a class, the single intervals bound the difference.

    Args:
        labels: as for `auc`.
        scores_a: scores of the one model, usually the candidate.
        scores_b: scores of the other on the same rows, usually the live model; need not be on A's scale.
        level: confidence, in (0, 1).

    Raises:
        ValueError: as for `auc`, or the level lies outside (0, 1).

    >>> labels = [0, 1, 1, 0, 1, 0, 1, 0]
    >>> interval = auc_difference(labels, labels, [3, 4, 1, 2, 5, 6, 7, 8])
    >>> interval.value, interval.low < 0.56 < interval.high
    (0.5625, True)

    Reference: DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under two or more correlated
    receiver operating characteristic curves".
    """
    z = normal_quantile(level)
    y = _both_classes(labels)
    a = _Placements.of(y, _scores("scores_a", scores_a, y))
    b = _Placements.of(y, _scores("scores_b", scores_b, y))
    value = a.auc - b.auc
    if np.array_equal(a.ranks, b.ranks):
        return Interval(0.0, 0.0, 0.0, y.size)
    variance = _variance(a.positives - b.positives, a.negatives - b.negatives)
    if variance > 0.0:
        reach = z * math.sqrt(variance)
        return Interval(value, max(-1.0, value - reach), min(1.0, value + reach), y.size)
    split = (1.0 + level) / 2.0
    (low_a, high_a), (low_b, high_b) = (side.bounds(normal_quantile(split), split) for side in (a, b))
    return Interval(value, low_a - high_b, high_a - low_b, y.size)


@dataclass(frozen=True, slots=True)
class Rates:
    """Confusion counts and the shares that follow from them; a share of nothing is None.

    Attributes:
        true_positives: positive rows that were decided positive.
        false_positives: negative rows that were decided positive.
        false_negatives: positive rows that were decided negative.
        true_negatives: negative rows that were decided negative.
        accuracy: share of rows decided right.
        precision: share of positive decisions that were right.
        true_positive_rate: share of positives found (recall).
        false_positive_rate: share of negatives decided positive.
        selection_rate: share of rows decided positive.
        base_rate: share of rows that are positive.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    accuracy: Interval | None
    precision: Interval | None
    true_positive_rate: Interval | None
    false_positive_rate: Interval | None
    selection_rate: Interval | None
    base_rate: Interval | None

    @property
    def n(self) -> int:
        """Rows counted."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives


def rates(labels: npt.ArrayLike, decisions: npt.ArrayLike, level: float = 0.95) -> Rates:
    """The confusion matrix of yes/no decisions, each rate with its Wilson interval.

    Args:
        labels: booleans or 0 and 1, shape (n,); empty and one-sided samples are fine.
        decisions: booleans or 0 and 1, shape (n,).
        level: confidence of every interval, in (0, 1).

    Raises:
        ValueError: lengths differ, an entry is no boolean, or the level lies outside (0, 1).

    >>> found = rates([1, 1, 0, 0], [1, 0, 0, 0])
    >>> found.true_positives, found.accuracy.value, found.false_positive_rate.value
    (1, 0.75, 0.0)
    >>> rates([0, 0], [0, 0]).precision is None
    True

    Reference: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    normal_quantile(level)  # an empty sample checks its level too
    y, yes = binary("labels", labels), binary("decisions", decisions)
    same_length("labels", y.size, "decisions", yes.size)
    tp, fp = int((y & yes).sum()), int((~y & yes).sum())
    fn, tn = int((y & ~yes).sum()), int((~y & ~yes).sum())

    def share(successes: int, n: int) -> Interval | None:
        return wilson_interval(successes, n, level) if n else None

    return Rates(
        true_positives=tp,
        false_positives=fp,
        false_negatives=fn,
        true_negatives=tn,
        accuracy=share(tp + tn, y.size),
        precision=share(tp, tp + fp),
        true_positive_rate=share(tp, tp + fn),
        false_positive_rate=share(fp, fp + tn),
        selection_rate=share(tp + fp, y.size),
        base_rate=share(tp + fn, y.size),
    )


def brier(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean squared error of predicted probabilities, in [0, 1]; 0 is perfect, 0.25 is always saying 0.5.

    Args:
        labels: booleans or 0 and 1, shape (n,), n > 0; one class alone is fine.
        probabilities: predicted chances of the positive class, in [0, 1].

    Raises:
        ValueError: lengths differ, the sample is empty, or a probability lies outside [0, 1].

    >>> brier([1, 0], [0.5, 0.5])
    0.25

    Reference: Brier (1950), "Verification of forecasts expressed in terms of probability".
    """
    y, p = _probabilities(labels, probabilities)
    return float(np.mean((p - y) ** 2))


def log_loss(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, floor: float = 1e-15) -> float:
    """Mean negative log-likelihood of the labels in nats, >= 0.

    Args:
        labels: as for `brier`.
        probabilities: as for `brier`.
        floor: the least probability that any label is given, in [0, 0.5): a wrong prediction made with full
            certainty costs -log(floor), and inf at floor = 0.

    Raises:
        ValueError: as for `brier`, or the floor lies outside [0, 0.5).

    >>> round(log_loss([1, 0], [0.5, 0.5]), 4)
    0.6931

    Reference: Good (1952), "Rational decisions".
    """
    if not 0.0 <= floor < 0.5:
        raise ValueError(f"floor must lie in [0, 0.5), got {floor}; 1e-15 is usual.")
    y, p = _probabilities(labels, probabilities)
    given = np.maximum(np.where(y, p, 1.0 - p), floor)
    with np.errstate(divide="ignore"):
        return float(-np.mean(np.log(given))) + 0.0


@dataclass(frozen=True, slots=True)
class _Placements:
    """Where each row stands in the other class: the structural components of DeLong's variance."""

    ranks: Floats
    positives: Floats
    negatives: Floats
    auc: float

    @classmethod
    def of(cls, y: Bools, scores: Floats) -> _Placements:
        ranks = _midranks(scores)
        m, n = int(y.sum()), int((~y).sum())
        positives = (ranks[y] - _midranks(scores[y])) / n
        negatives = 1.0 - (ranks[~y] - _midranks(scores[~y])) / m
        # Sums of half-integers are exact, so the value does not depend on the order of rows.
        value = (float(ranks[y].sum()) - m * (m + 1) / 2.0) / (m * n)
        return cls(ranks, positives, negatives, value)

    def bounds(self, z: float, level: float) -> tuple[float, float]:
        pairs = min(self.positives.size, self.negatives.size)
        if pairs < 2:
            return 0.0, 1.0
        if self.auc in (0.0, 1.0):
            sure = ((1.0 - level) / 2.0) ** (1.0 / pairs)
            return (sure, 1.0) if self.auc == 1.0 else (0.0, 1.0 - sure)
        centre = math.log(self.auc / (1.0 - self.auc))
        error = math.sqrt(_variance(self.positives, self.negatives)) / (self.auc * (1.0 - self.auc))
        low, high = _expit(centre - z * error), _expit(centre + z * error)
        return min(low, self.auc), max(high, self.auc)


def _variance(positives: Floats, negatives: Floats) -> float:
    if min(positives.size, negatives.size) < 2:
        return 0.0
    return float(positives.var(ddof=1) / positives.size + negatives.var(ddof=1) / negatives.size)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1, ties sharing the mean of theirs."""
    _, where, times = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(times) - (times - 1) / 2.0)[where], dtype=np.float64)


def _expit(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0


def _both_classes(labels: npt.ArrayLike) -> Bools:
    y = binary("labels", labels)
    positives = int(y.sum())
    if positives in (0, y.size):
        raise ValueError(
            f"labels hold {positives} positives among {y.size} rows: ranking needs both classes; take a longer window."
        )
    return y


def _scores(name: str, scores: npt.ArrayLike, y: Bools) -> Floats:
    values = reals(name, scores)
    same_length("labels", y.size, name, values.size)
    return values


def _probabilities(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[Bools, Floats]:
    y, p = binary("labels", labels), reals("probabilities", probabilities)
    same_length("labels", y.size, "probabilities", p.size)
    if y.size == 0:
        raise ValueError("labels are empty: there is no mean over no rows; take a longer window.")
    if not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError("probabilities must lie in [0, 1]; turn raw scores into probabilities first.")
    return y, p
