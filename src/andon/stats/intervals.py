"""Intervals: a figure is shown with what the sample allows it to say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided confidence interval.

    Attributes:
        value: the estimate, within [low, high].
        low: lower end.
        high: upper end.
        n: rows that the estimate rests on.

    >>> Interval(0.5, 0.4, 0.6, 100).half_width
    0.09999999999999998
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the distance between the ends, in the unit of the value."""
        return (self.high - self.low) / 2.0


def normal_quantile(level: float) -> float:
    """How many standard errors a two-sided interval of this level reaches to each side.

    Raises:
        ValueError: level is not strictly between 0 and 1.

    >>> round(normal_quantile(0.95), 4)
    1.96
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be strictly between 0 and 1, got {level}; 0.95 is usual.")
    return NormalDist().inv_cdf(0.5 + level / 2.0)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """The interval of a share: it stays within [0, 1] and is never empty, at 0 or n successes too.

    Args:
        successes: how many of the n had it, 0 <= successes <= n.
        n: trials, > 0.
        level: confidence, in (0, 1).

    Raises:
        ValueError: n is not positive, successes lie outside [0, n], or the level outside (0, 1).

    >>> interval = wilson_interval(0, 100)
    >>> interval.value, interval.low, round(interval.high, 4)
    (0.0, 0.0, 0.037)

    Reference: Wilson (1927), "Probable inference, the law of succession, and statistical inference";
    recommended by Brown, Cai and DasGupta (2001), "Interval estimation for a binomial proportion".
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(
            f"{successes} successes in {n} trials have no share; n must be > 0 and successes in [0, n]."
        )
    z = normal_quantile(level)
    share = successes / n
    shrink = 1.0 + z * z / n
    centre = (share + z * z / (2.0 * n)) / shrink
    reach = z / shrink * math.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n))
    # At the ends the formula gives 0 and 1 exactly, rounding does not.
    low = 0.0 if successes == 0 else min(share, centre - reach)
    high = 1.0 if successes == n else max(share, centre + reach)
    return Interval(share, low, high, n)
