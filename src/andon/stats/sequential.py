"""Sequential tests for a canary: evidence that may be looked at after every request.

All three tests are e-processes: under the null hypothesis evidence is on average at most 1 at any stopping
time, so the chance that it ever reaches 1/alpha is at most alpha, however often somebody looks and whatever
decides when to stop (Ville's inequality). Evidence is reported as `e` or as its decimal logarithm
`log_e`: 1.3 is e = 20, enough for alpha = 0.05. Every logarithm of this module's interface is base 10.

Two ask about failures of both arms and are exact conditional on routing. Given that a request failed, the
chance that the candidate had it depends only on the ratio of the two failure rates and on the probability w
(the *propensity*) with which the router gave that very request to the candidate: with a ratio theta the share
of the candidate is w*theta / (1 - w + w*theta). No base rate has to be known or stay constant, so a failing
upstream that hits both arms alike is no evidence at all. Each failure brings its own w: weights may change at
any time, also in answer to what was seen, as long as w was fixed before the outcome and the router drew at
random with it. A request routed with certainty (w of 0 or 1) says nothing about the comparison: leave it out.

Assignment is the unit of evidence. With sticky routing count each entity once, at its first failure.
The null is composite: the candidate may be any amount better, on any request, and by different amounts on
different requests.

Reference: Ramdas, Gruenwald, Vovk and Shafer (2023), "Game-theoretic statistics and safe anytime-valid
inference"; Robbins (1970), "Statistical methods related to the law of the iterated logarithm" (mixtures);
Przyborowski and Wilenski (1940), "Homogeneity of results in testing samples from Poisson series" (the
conditional share).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from andon.stats._arrays import Bools, Floats, binary, reals, same_length
from andon.stats._fields import count, number, numbers

HARM_ODDS: tuple[float, ...] = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Failure-rate ratios that the harm test bets on, with equal weight."""

_LN10 = math.log(10.0)
_BELOW_CEILING = (0.05, 0.2, 0.5)


def harm_e_value(
    candidate: npt.ArrayLike, propensity: npt.ArrayLike, *, odds: Sequence[float] = HARM_ODDS
) -> float:
    """Evidence that the candidate fails more often than stable, valid at every look.

    Grows without bound when the candidate is worse and stays near or below 1 when it is not; undo at
    1/alpha. One-sided: a better candidate gives no evidence here (see `noninferiority_log_e`). A doubled
    failure rate is found (e = 20) after a median of 100 failures at w = 0.1 and 53 at w = 0.5, a fivefold one
    after 12 and 14; false alarms at 200 looks are 2 to 3 % at alpha = 0.05 (simulated).

    Args:
        candidate: one entry per failed request of either arm, in order: did the candidate have it?
        propensity: for the same requests, the probability in (0, 1) with which the router chose the
            candidate for that very request; one number stands for all.
        odds: the failure-rate ratios > 1 to bet on; the result averages over them.

    Returns:
        The e-value, inf beyond the range of floats (`harm_log_e_value` never overflows).

    Raises:
        ValueError: lengths differ, an entry is no boolean, a propensity lies outside (0, 1), or a ratio is <= 1.

    >>> harm_e_value([True, False] * 100, 0.5) < 1.0
    True
    >>> harm_e_value([True] * 12 + [False] * 4, 0.1) > 1000.0
    True

    Reference: Ramdas et al. (2023), "Game-theoretic statistics and safe anytime-valid inference".
    """
    return HarmEvidence(odds=tuple(odds)).update(candidate, propensity).e


def harm_log_e_value(
    candidate: npt.ArrayLike, propensity: npt.ArrayLike, *, odds: Sequence[float] = HARM_ODDS
) -> float:
    """`harm_e_value` as a decimal logarithm: 0 is no evidence, 1.3 rejects at alpha = 0.05, 3 at 0.001.

    Arguments and errors are those of `harm_e_value`.

    >>> round(harm_log_e_value([True] * 2000, 0.1), 1)
    1441.7
    """
    return HarmEvidence(odds=tuple(odds)).update(candidate, propensity).log_e


def noninferiority_log_e(
    candidate: npt.ArrayLike, propensity: npt.ArrayLike, *, margin_odds: float = 1.5
) -> float:
    """Decimal log evidence that the candidate fails less than margin_odds times as often as stable.

    This is what promotes: the absence of harm evidence is only the absence of evidence. With equal rates and
    a margin of 1.5 the median run reaches 1.3 after 113 failures at w = 0.5 and 286 at w = 0.1 (simulated).

    Args:
        candidate: as for `harm_e_value`.
        propensity: as for `harm_e_value`.
        margin_odds: the smallest ratio of failure rates that would be unacceptable, > 1.

    Raises:
        ValueError: as for `harm_e_value`, or the margin is not > 1.

    >>> noninferiority_log_e([True, False] * 200, 0.5) > 1.3
    True
    >>> noninferiority_log_e([True, True, False] * 200, 0.5) < 0.0
    True

    Reference: Ramdas et al. (2023), "Game-theoretic statistics and safe anytime-valid inference".
    """
    return NoninferiorityEvidence(margin_odds=margin_odds).update(candidate, propensity).log_e


def ceiling_log_e(failures: npt.ArrayLike, *, ceiling: float = 0.02) -> float:
    """Decimal log evidence that the candidate's failure rate lies below the ceiling.

    For endpoints where nothing fails: then the conditional tests have nothing to bite on and this one lets
    the rollout go on. With no failure and a ceiling of 2 % it takes 184 requests to reach 1.3.

    Args:
        failures: one entry per request of the candidate, in order: did it fail?
        ceiling: the smallest failure rate that would be unacceptable, in (0, 1).

    Raises:
        ValueError: an entry is no boolean, or the ceiling lies outside (0, 1).

    >>> ceiling_log_e([False] * 200) > 1.3
    True
    >>> ceiling_log_e([True, False] * 50) < -10.0
    True

    Reference: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting".
    """
    return CeilingEvidence(ceiling=ceiling).update(failures).log_e


@dataclass(frozen=True, slots=True)
class HarmEvidence:
    """`harm_e_value` as a value that grows with the stream, so that the failures need not be kept.

    States of disjoint parts of one stream merge in any order; the sum is the state of the whole stream up to
    rounding. Look only at sums that all parts reached (a watermark), not at whichever part came first.

    Attributes:
        odds: ratios > 1 that the test bets on.
        log_sums: natural log of each bet's capital.
        stable_failures: failures of stable so far.
        candidate_failures: failures of the candidate so far.

    >>> first = HarmEvidence().update([True, True], 0.1)
    >>> second = first.update(True, 0.2)
    >>> second.candidate_failures, second.log_e > first.log_e > 0.0
    (3, True)
    """

    odds: tuple[float, ...] = HARM_ODDS
    log_sums: tuple[float, ...] = ()
    stable_failures: int = 0
    candidate_failures: int = 0

    def __post_init__(self) -> None:
        if not self.odds or not all(1.0 < theta < math.inf for theta in self.odds):
            raise ValueError(
                f"odds must be finite ratios above 1, got {self.odds}; the test bets on harm only."
            )
        if not self.log_sums:
            object.__setattr__(self, "log_sums", (0.0,) * len(self.odds))
        if len(self.log_sums) != len(self.odds):
            raise ValueError(f"{len(self.log_sums)} log sums do not fit {len(self.odds)} odds.")
        _check_counts(self.stable_failures, self.candidate_failures)

    def update(self, candidate: npt.ArrayLike, propensity: npt.ArrayLike) -> Self:
        """The state after one more failure, or after an array of them in order.

        Raises:
            ValueError: lengths differ, an entry is no boolean, or a propensity lies outside (0, 1).
        """
        had, w = _failures(candidate, propensity)
        bets = np.asarray(self.odds)
        gains = had.sum() * np.log(bets) - np.log1p(np.multiply.outer(w, bets - 1.0)).sum(axis=0)
        return type(self)(
            odds=self.odds,
            log_sums=tuple(float(total + gain) for total, gain in zip(self.log_sums, gains, strict=True)),
            stable_failures=self.stable_failures + int((~had).sum()),
            candidate_failures=self.candidate_failures + int(had.sum()),
        )

    def merge(self, other: Self) -> Self:
        """The state of two disjoint parts of one stream together.

        Raises:
            ValueError: the two bet on different odds.
        """
        if self.odds != other.odds:
            raise ValueError(
                f"evidence on odds {self.odds} and {other.odds} cannot be merged; use one plan for both."
            )
        return type(self)(
            odds=self.odds,
            log_sums=tuple(a + b for a, b in zip(self.log_sums, other.log_sums, strict=True)),
            stable_failures=self.stable_failures + other.stable_failures,
            candidate_failures=self.candidate_failures + other.candidate_failures,
        )

    @property
    def log_e(self) -> float:
        """Decimal logarithm of the evidence."""
        return _log_mean_exp(self.log_sums) / _LN10

    @property
    def e(self) -> float:
        """The evidence, inf beyond the range of floats."""
        return _power_of_ten(self.log_e)

    def rejects(self, alpha: float) -> bool:
        """Whether the evidence reaches 1/alpha, alpha in (0, 1) being the chance of a false alarm ever."""
        return _rejects(self.log_e, alpha)

    def to_dict(self) -> dict[str, object]:
        """The state as plain JSON values."""
        return {
            "odds": list(self.odds),
            "log_sums": list(self.log_sums),
            "stable_failures": self.stable_failures,
            "candidate_failures": self.candidate_failures,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """The state that `to_dict` wrote, exactly.

        Raises:
            ValueError: a field is missing or malformed.
        """
        return cls(
            odds=numbers(data, "odds"),
            log_sums=numbers(data, "log_sums"),
            stable_failures=count(data, "stable_failures"),
            candidate_failures=count(data, "candidate_failures"),
        )


@dataclass(frozen=True, slots=True)
class NoninferiorityEvidence:
    """`noninferiority_log_e` as a value that grows with the stream; merges like `HarmEvidence`.

    The bet is that both arms fail equally often; it is exactly the reverse of the harm test's bet on
    theta = margin_odds.

    Attributes:
        margin_odds: the smallest unacceptable ratio of failure rates, > 1.
        log_sum: natural log of the capital.
        stable_failures: failures of stable so far.
        candidate_failures: failures of the candidate so far.

    >>> NoninferiorityEvidence().update([False] * 100, 0.1).rejects(0.05)
    True
    """

    margin_odds: float = 1.5
    log_sum: float = 0.0
    stable_failures: int = 0
    candidate_failures: int = 0

    def __post_init__(self) -> None:
        if not 1.0 < self.margin_odds < math.inf:
            raise ValueError(f"margin_odds must be a finite ratio above 1, got {self.margin_odds}.")
        _check_counts(self.stable_failures, self.candidate_failures)

    def update(self, candidate: npt.ArrayLike, propensity: npt.ArrayLike) -> Self:
        """The state after one more failure, or after an array of them in order.

        Raises:
            ValueError: lengths differ, an entry is no boolean, or a propensity lies outside (0, 1).
        """
        had, w = _failures(candidate, propensity)
        # With q = w*m / (1 - w + w*m): w/q = (1 - w + w*m) / m and (1 - w)/(1 - q) = 1 - w + w*m.
        gain = float(np.log1p(w * (self.margin_odds - 1.0)).sum()) - int(had.sum()) * math.log(
            self.margin_odds
        )
        return type(self)(
            margin_odds=self.margin_odds,
            log_sum=self.log_sum + gain,
            stable_failures=self.stable_failures + int((~had).sum()),
            candidate_failures=self.candidate_failures + int(had.sum()),
        )

    def merge(self, other: Self) -> Self:
        """The state of two disjoint parts of one stream together.

        Raises:
            ValueError: the two have different margins.
        """
        if self.margin_odds != other.margin_odds:
            raise ValueError(
                f"evidence on margins {self.margin_odds} and {other.margin_odds} cannot be merged; use one plan for both."
            )
        return type(self)(
            margin_odds=self.margin_odds,
            log_sum=self.log_sum + other.log_sum,
            stable_failures=self.stable_failures + other.stable_failures,
            candidate_failures=self.candidate_failures + other.candidate_failures,
        )

    @property
    def log_e(self) -> float:
        """Decimal logarithm of the evidence."""
        return self.log_sum / _LN10

    @property
    def e(self) -> float:
        """The evidence, inf beyond the range of floats."""
        return _power_of_ten(self.log_e)

    def rejects(self, alpha: float) -> bool:
        """Whether the evidence reaches 1/alpha, alpha in (0, 1) being the chance of a wrong promotion ever."""
        return _rejects(self.log_e, alpha)

    def to_dict(self) -> dict[str, object]:
        """The state as plain JSON values."""
        return {
            "margin_odds": self.margin_odds,
            "log_sum": self.log_sum,
            "stable_failures": self.stable_failures,
            "candidate_failures": self.candidate_failures,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """The state that `to_dict` wrote, exactly.

        Raises:
            ValueError: a field is missing or malformed.
        """
        return cls(
            margin_odds=number(data, "margin_odds"),
            log_sum=number(data, "log_sum"),
            stable_failures=count(data, "stable_failures"),
            candidate_failures=count(data, "candidate_failures"),
        )


@dataclass(frozen=True, slots=True)
class CeilingEvidence:
    """`ceiling_log_e` as two counts; states merge exactly, in any order.

    Attributes:
        ceiling: the smallest unacceptable failure rate, in (0, 1).
        passes: requests of the candidate that did not fail.
        failures: requests of the candidate that failed.

    >>> CeilingEvidence().update([False] * 150).merge(CeilingEvidence().update([False] * 50)).rejects(0.05)
    True
    """

    ceiling: float = 0.02
    passes: int = 0
    failures: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.ceiling < 1.0:
            raise ValueError(f"ceiling must be a failure rate strictly between 0 and 1, got {self.ceiling}.")
        _check_counts(self.passes, self.failures)

    def update(self, failures: npt.ArrayLike) -> Self:
        """The state after one more request of the candidate, or after an array of them.

        Raises:
            ValueError: an entry is no boolean.
        """
        failed = binary("failures", np.atleast_1d(failures))
        return type(self)(
            ceiling=self.ceiling,
            passes=self.passes + int((~failed).sum()),
            failures=self.failures + int(failed.sum()),
        )

    def merge(self, other: Self) -> Self:
        """The state of two disjoint parts of one stream together.

        Raises:
            ValueError: the two have different ceilings.
        """
        if self.ceiling != other.ceiling:
            raise ValueError(
                f"evidence on ceilings {self.ceiling} and {other.ceiling} cannot be merged; use one plan for both."
            )
        return type(self)(
            ceiling=self.ceiling, passes=self.passes + other.passes, failures=self.failures + other.failures
        )

    @property
    def log_e(self) -> float:
        """Decimal logarithm of the evidence: equal bets on 5, 20 and 50 % of the ceiling."""
        c = self.ceiling
        logs = [
            self.failures * math.log(part) + self.passes * (math.log1p(-part * c) - math.log1p(-c))
            for part in _BELOW_CEILING
        ]
        return _log_mean_exp(logs) / _LN10

    @property
    def e(self) -> float:
        """The evidence, inf beyond the range of floats."""
        return _power_of_ten(self.log_e)

    def rejects(self, alpha: float) -> bool:
        """Whether the evidence reaches 1/alpha, alpha in (0, 1) being the chance of a wrong promotion ever."""
        return _rejects(self.log_e, alpha)

    def to_dict(self) -> dict[str, object]:
        """The state as plain JSON values."""
        return {"ceiling": self.ceiling, "passes": self.passes, "failures": self.failures}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """The state that `to_dict` wrote, exactly.

        Raises:
            ValueError: a field is missing or malformed.
        """
        return cls(
            ceiling=number(data, "ceiling"), passes=count(data, "passes"), failures=count(data, "failures")
        )


def _failures(candidate: npt.ArrayLike, propensity: npt.ArrayLike) -> tuple[Bools, Floats]:
    had = binary("candidate", np.atleast_1d(candidate))
    w = reals("propensity", np.atleast_1d(propensity))
    if np.ndim(propensity) == 0:
        w = np.full(had.size, w[0])
    same_length("candidate", had.size, "propensity", w.size)
    if not ((w > 0.0) & (w < 1.0)).all():
        raise ValueError(
            "propensity must lie strictly between 0 and 1; a request routed with certainty compares nothing, leave it out."
        )
    return had, w


def _check_counts(first: int, second: int) -> None:
    if first < 0 or second < 0:
        raise ValueError(f"counts must be >= 0, got {first} and {second}.")


def _log_mean_exp(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(x - top) for x in logs) / len(logs))


def _power_of_ten(exponent: float) -> float:
    # Through the natural exponential, so that no evidence at all is exactly 1.
    return math.exp(exponent * _LN10) if exponent < 308.25 else math.inf


def _rejects(log_e: float, alpha: float) -> bool:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must be strictly between 0 and 1, got {alpha}; 0.05 is usual.")
    return log_e >= -math.log10(alpha)
