"""Gates: a policy's bounds applied to what a candidate did on a window. Pure: figures in, a judgement with reasons out.

Three rules keep a verdict honest.

1. *Better than live* must be more than luck. A `vs live` bound is compared with the one-sided 95 % confidence bound of
   the paired difference (candidate minus live) on the same rows: its lower end for `>=` and `>`, its upper end for `<=`
   and `<`. A `relative` bound is the difference as a share of the live model's value. Without a live model the check
   passes and says so.
2. *A plain bound* is compared with the figure itself, on at least 200 rows; the 95 % interval is stored beside it.
3. *What cannot be judged does not pass.* Too few rows, rows of one class, two models scored on different data or a
   metric that does not fit the model block the check, with the reason.

A sanity gate always runs, with or without a policy's checks: the model loads and answers its golden rows, there are rows,
outputs are finite, probabilities lie in [0, 1], and the outputs are not all the same.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from andon.core.errors import PolicyError
from andon.core.policy import GateCheck
from andon.registry.metrics import (
    LATENCY,
    METRICS,
    Scores,
    metric_difference,
    metric_interval,
    quantile_interval,
)
from andon.stats import Interval

MIN_ROWS = 200
MIN_CLASS = 10
LEVEL = 0.95
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
_MOST_WORDS = 4


class Sanity(msgspec.Struct, frozen=True, kw_only=True):
    """What loading found: why the model cannot be used, or None when it is whole and its golden rows match."""

    failure: str | None = None


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check: the figure, its interval, the bound it was held against and why it ended as it did.

    Attributes:
        name: `auc`, `auc vs live`, `sanity: finite`, ...
        value, low, high: the figure and the ends of its interval; of a `vs live` check, of the difference.
        bound: as in the policy, such as `>= -0.005 absolute`.
        n: rows (or timings) the figure rests on.
    """

    name: str
    verdict: Literal["pass", "fail", "blocked"]
    because: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    bound: str | None = None
    n: int = 0


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """All checks in order. `passed` needs every one of them."""

    passed: bool
    checks: tuple[CheckResult, ...]
    summary: str


def check_gate(checks: Iterable[GateCheck]) -> None:
    """Refuse bounds that no model could ever be judged by, before a run is spent on them.

    Raises:
        PolicyError: a metric is unknown, or cannot be compared with the live model's.

    >>> check_gate([GateCheck(metric="acu", versus_live=False, operator=">=", bound=0.8)])
    Traceback (most recent call last):
    andon.core.errors.PolicyError: gate.acu is not a metric Andon knows; expected accuracy, auc, brier, ...
    """
    known = sorted([*METRICS, LATENCY])
    for check in checks:
        if check.metric not in known:
            raise PolicyError(f"gate.{check.metric} is not a metric Andon knows; expected {', '.join(known)}")
        if check.metric == LATENCY and check.versus_live:
            raise PolicyError(
                f"gate.{LATENCY} vs live cannot be judged; expected a bound in milliseconds such as '<= 20'"
            )


def judge(
    checks: tuple[GateCheck, ...],
    *,
    candidate: Scores | None,
    live: Scores | None,
    sanity: Sanity,
    timing: Sequence[float] = (),
) -> Judgement:
    """Apply the sanity gate and a policy's checks.

    Args:
        checks: the policy's bounds, in its order; may be empty.
        candidate: what the candidate said of the window; None when it could not be loaded.
        live: what the live model said of the same window; None when there is none.
        sanity: what loading found.
        timing: milliseconds of single predictions, for `latency_p99_ms`.

    >>> rng = np.random.default_rng(1)
    >>> labels = (rng.random(1000) < 0.5).astype(float)
    >>> scores = Scores(labels=labels, scores=rng.random(1000) * 0.5 + labels * 0.4, digest="sha256:w")
    >>> floor = GateCheck(metric="accuracy", versus_live=False, operator=">=", bound=0.7)
    >>> judgement = judge((floor,), candidate=scores, live=None, sanity=Sanity())
    >>> judgement.passed, judgement.checks[-1].name, judgement.checks[-1].verdict
    (True, 'accuracy', 'pass')
    """
    results = [*_sane(candidate, sanity)]
    results += [_judged(check, candidate, live, timing) for check in checks]
    return Judgement(
        passed=all(result.verdict == "pass" for result in results),
        checks=tuple(results),
        summary=_summary(results),
    )


def _sane(candidate: Scores | None, sanity: Sanity) -> Iterable[CheckResult]:
    if sanity.failure is not None or candidate is None:
        yield _fail("sanity: loads", sanity.failure or "the model was not scored")
        return
    yield _pass("sanity: loads", "the package is whole and its golden rows match bit for bit")
    n, outputs = candidate.n, candidate.scores
    if n < 2:
        yield _blocked("sanity: rows", f"{n} labelled rows are too few to judge by")
        return
    yield _pass("sanity: rows", f"{n} labelled rows, {candidate.unlabelled} without a label left out", n=n)
    strange = int((~np.isfinite(outputs)).sum())
    yield _sane_if(
        strange == 0,
        "sanity: finite",
        "every output is finite",
        f"{strange} of {n} outputs are not finite",
        n,
    )
    if candidate.output == "probability":
        outside = int((~((outputs >= 0.0) & (outputs <= 1.0))).sum())
        wrong = f"{outside} of {n} outputs are no probabilities"
        yield _sane_if(outside == 0, "sanity: in [0, 1]", "every output is a probability", wrong, n)
    varied = bool((outputs != outputs[0]).any())
    yield _sane_if(
        varied, "sanity: not constant", "outputs differ", f"all {n} outputs are {outputs[0]:.6g}", n
    )


def _judged(
    check: GateCheck, candidate: Scores | None, live: Scores | None, timing: Sequence[float]
) -> CheckResult:
    name = f"{check.metric} vs live" if check.versus_live else check.metric
    bound = f"{check.operator} {check.bound:g}" + (f" {check.scale}" if check.versus_live else "")
    try:
        if candidate is None:
            raise ValueError("the model could not be scored")
        if check.metric != LATENCY and check.metric not in METRICS:
            raise ValueError(f"no metric is called {check.metric!r}")
        versus = check.versus_live
        result = (
            _against_live(check, name, candidate, live) if versus else _plain(check, name, candidate, timing)
        )
    except ValueError as error:
        result = _blocked(name, str(error))
    return msgspec.structs.replace(result, bound=bound)


def _plain(check: GateCheck, name: str, candidate: Scores, timing: Sequence[float]) -> CheckResult:
    if check.metric == LATENCY:
        interval, rows, what = quantile_interval(timing, 0.99, level=LEVEL), len(timing), "predictions timed"
    else:
        interval, rows, what = (
            metric_interval(check.metric, candidate, level=LEVEL),
            candidate.n,
            "labelled rows",
        )
    if rows < MIN_ROWS:
        return _figured(
            name, "blocked", interval, f"{rows} {what} are too few to judge by, {MIN_ROWS} are needed"
        )
    met = _COMPARE[check.operator](interval.value, check.bound)
    held = f"{interval.value:.4g} is {'' if met else 'not '}{check.operator} {check.bound:g}"
    said = f"{held} (95 % interval {interval.low:.4g} to {interval.high:.4g}, {rows} {what})"
    return _figured(name, "pass" if met else "fail", interval, said)


def _against_live(check: GateCheck, name: str, candidate: Scores, live: Scores | None) -> CheckResult:
    if live is None:
        return _pass(name, "there is no live model to compare with")
    if check.metric == LATENCY:
        raise ValueError("the latency of the live model is not measured beside it: bound it in milliseconds")
    if live.digest != candidate.digest or live.n != candidate.n:
        raise ValueError("the two models were scored on different data")
    if candidate.output == "probability":
        fewest = int(min((candidate.labels > 0.5).sum(), (candidate.labels <= 0.5).sum()))
        if fewest < MIN_CLASS:
            raise ValueError(
                f"a class has {fewest} rows, {MIN_CLASS} of each are needed to compare two models"
            )
    interval = metric_difference(check.metric, candidate, live, level=2 * LEVEL - 1)
    if check.scale == "relative":
        interval = _relative(interval, metric_interval(check.metric, live).value)
    upward = check.operator in (">=", ">")
    end = interval.low if upward else interval.high
    met = _COMPARE[check.operator](end, check.bound)
    said = (
        f"the difference is {interval.value:+.4g}, with 95 % confidence {'at least' if upward else 'at most'} {end:+.4g}:"
        f" {'' if met else 'not '}{check.operator} {check.bound:g} {check.scale} ({interval.n} rows)"
    )
    return _figured(name, "pass" if met else "fail", interval, said)


def _relative(difference: Interval, live: float) -> Interval:
    """The difference as a share of the live model's value."""
    if live <= 0.0:
        raise ValueError("the live model's value is 0, so nothing is relative to it: compare absolutely")
    return Interval(difference.value / live, difference.low / live, difference.high / live, difference.n)


def _summary(results: Sequence[CheckResult]) -> str:
    bad = [result for result in results if result.verdict != "pass"]
    if bad:
        words = [
            f"{result.name} ({'blocked: ' if result.verdict == 'blocked' else ''}{result.because})"
            for result in bad
        ]
        more = f" and {len(words) - _MOST_WORDS} more" if len(words) > _MOST_WORDS else ""
        return f"{len(bad)} of {len(results)} checks did not pass: " + "; ".join(words[:_MOST_WORDS]) + more
    figures = [result for result in results if not result.name.startswith("sanity: ")]
    words = [
        f"{result.name} {result.value:{'+' if 'vs live' in result.name else ''}.4g}" if result.value is not None
        else f"{result.name}: {result.because}"
        for result in figures[:_MOST_WORDS]
    ]  # fmt: skip
    return f"all {len(results)} checks passed" + (
        ": " + "; ".join(words) if words else "; the policy sets no bounds"
    )


def _pass(name: str, because: str, n: int = 0) -> CheckResult:
    return CheckResult(name=name, verdict="pass", because=because, n=n)


def _fail(name: str, because: str) -> CheckResult:
    return CheckResult(name=name, verdict="fail", because=because)


def _blocked(name: str, because: str) -> CheckResult:
    return CheckResult(name=name, verdict="blocked", because=because)


def _sane_if(good: bool, name: str, well: str, wrong: str, n: int) -> CheckResult:
    return CheckResult(name=name, verdict="pass" if good else "fail", because=well if good else wrong, n=n)


def _figured(
    name: str, verdict: Literal["pass", "fail", "blocked"], interval: Interval, because: str
) -> CheckResult:
    low = interval.low if math.isfinite(interval.low) else None
    high = interval.high if math.isfinite(interval.high) else None
    return CheckResult(
        name=name, verdict=verdict, because=because, value=interval.value, low=low, high=high, n=interval.n
    )
