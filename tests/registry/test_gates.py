"""A gate lets through what is good enough beyond luck, and blocks what cannot be judged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.canonical import Digest
from andon.core.errors import PolicyError
from andon.core.policy import GateCheck, parse_policy
from andon.registry.gates import CheckResult, Judgement, Sanity, check_gate, judge
from andon.registry.metrics import Floats, Scores, metric_difference, metric_interval

WINDOW = Digest("sha256:window")
POLICY = """
[line]
name = "x"
entry = "x:f"
[data.rows]
source = "rows.csv"
label = "y"
[gate]
"""


def gate(text: str) -> tuple[GateCheck, ...]:
    """The checks of a [gate] table, as the policy file's reader makes them."""
    return parse_policy(POLICY + text).gate


def scored(labels: Floats, outputs: Floats, **changes: Any) -> Scores:
    return Scores(**{"labels": labels, "scores": outputs, "digest": WINDOW, **changes})


def model(skill: float, *, n: int = 1000, seed: int = 1, window: int = 0) -> Scores:
    """Scores of a model with some skill on the rows of a window."""
    labels = (np.random.default_rng(100 + window).random(n) < 0.4).astype(float)
    noise = np.random.default_rng(seed).normal(size=n)
    return scored(labels, 1 / (1 + np.exp(-(skill * (2 * labels - 1) + noise))))


def judged(text: str, candidate: Scores | None, live: Scores | None = None, **named: Any) -> Judgement:
    return judge(gate(text), candidate=candidate, live=live, sanity=named.pop("sanity", Sanity()), **named)


def result(judgement: Judgement, name: str) -> CheckResult:
    return next(check for check in judgement.checks if check.name == name)


@pytest.mark.capability("D2")
def test_a_floor_and_a_largest_loss_against_live_are_held_as_written() -> None:
    text = 'auc = ">= 0.8"\n"f1 vs live" = ">= -0.02 absolute"\n"accuracy vs live" = ">= -0.05 relative"'

    good = judged(text, model(1.5), model(1.2, seed=2))
    bad = judged(text, model(0.3), model(1.5, seed=2))

    assert good.passed
    assert [check.verdict for check in good.checks if check.bound] == ["pass"] * 3
    assert not bad.passed
    assert [check.verdict for check in bad.checks if check.bound] == ["fail"] * 3
    assert result(bad, "f1 vs live").bound == ">= -0.02 absolute"
    assert "3 of 8 checks did not pass: auc (" in bad.summary


def test_each_bound_of_a_list_is_a_check_and_one_is_enough_to_stop() -> None:
    judgement = judged('auc = [">= 0.7", "<= 0.8"]', model(1.5))

    assert [check.verdict for check in judgement.checks if check.name == "auc"] == ["pass", "fail"]
    assert not judgement.passed


@pytest.mark.capability("D3")
def test_a_gain_that_may_be_luck_is_no_gain() -> None:
    text = '"auc vs live" = "> 0.0 absolute"'
    better, live = model(0.88, n=300, seed=3), model(0.8, n=300, seed=4)

    small = judged(text, better, live)
    large = judged(text, model(2.0, n=300, seed=3), live)

    found = result(small, "auc vs live")
    assert found.value is not None
    assert found.value > 0, "the sample does look better"
    assert (found.verdict, small.passed) == ("fail", False)
    assert large.passed


@pytest.mark.capability("D3")
def test_no_more_false_alarms_than_live_means_surely_no_more() -> None:
    text = '"auc vs live" = "> 0.0 absolute"\n"false_positive_rate vs live" = "<= 0.0 absolute"'
    live = model(0.6, seed=4)
    eager = scored(live.labels, np.clip(model(2.0, seed=5).scores + 0.45, 0, 1))

    assert judged(text, model(2.0, seed=5), live).passed
    trigger_happy = judged(text, eager, live)
    assert result(trigger_happy, "auc vs live").verdict == "pass"
    assert result(trigger_happy, "false_positive_rate vs live").verdict == "fail"


def test_the_bound_meets_the_confidence_bound_on_the_side_that_hurts() -> None:
    candidate, live = model(1.0, seed=6), model(0.9, seed=7)
    interval = metric_difference("accuracy", candidate, live, level=0.90)
    low, high = interval.low, interval.high

    def verdict(operator: str, bound: float) -> str:
        return result(
            judged(f'"accuracy vs live" = "{operator} {bound:.9f} absolute"', candidate, live),
            "accuracy vs live",
        ).verdict

    assert [verdict(">=", low - 1e-6), verdict(">=", low + 1e-6)] == ["pass", "fail"]
    assert [verdict("<=", high + 1e-6), verdict("<=", high - 1e-6)] == ["pass", "fail"]


def test_a_relative_bound_is_a_share_of_the_live_models_value() -> None:
    candidate, live = model(1.0, seed=6), model(0.9, seed=7)
    base = metric_interval("f1", live).value
    difference = metric_difference("f1", candidate, live, level=0.90)

    found = result(judged('"f1 vs live" = ">= -0.1 relative"', candidate, live), "f1 vs live")

    assert (found.value, found.low, found.high) == pytest.approx(
        (difference.value / base, difference.low / base, difference.high / base)
    )


def test_nothing_is_relative_to_nothing() -> None:
    labels = model(1.0).labels
    silent = scored(labels, np.full(labels.size, 0.1))

    found = result(judged('"recall vs live" = ">= 0.0 relative"', model(1.0), silent), "recall vs live")

    assert (found.verdict, "compare absolutely" in found.because) == ("blocked", True)


def test_the_same_model_is_no_worse_than_itself() -> None:
    text = "\n".join(
        f'"{name} vs live" = "{operator} 0.0 absolute"'
        for name, operator in (
            ("auc", ">="), ("accuracy", ">="), ("f1", ">="), ("precision", ">="), ("recall", ">="),
            ("false_positive_rate", "<="), ("brier", "<="), ("log_loss", "<="),
        )
    )  # fmt: skip

    assert judged(text, model(1.0), model(1.0)).passed


def test_without_a_live_model_there_is_nothing_to_compare_with() -> None:
    judgement = judged('"auc vs live" = ">= 0.1 absolute"', model(1.0))

    assert judgement.passed
    assert result(judgement, "auc vs live").because == "there is no live model to compare with"


def test_two_models_are_compared_on_the_same_rows_or_not_at_all() -> None:
    live = model(1.0, seed=2)
    elsewhere = scored(live.labels, live.scores, digest=Digest("sha256:another"))

    found = result(judged('"auc vs live" = ">= -1.0 absolute"', model(1.0), elsewhere), "auc vs live")

    assert (found.verdict, found.because) == ("blocked", "the two models were scored on different data")


@pytest.mark.parametrize(("n", "verdict"), [(199, "blocked"), (200, "pass")])
def test_a_floor_is_judged_on_enough_rows_only(n: int, verdict: str) -> None:
    judgement = judged('auc = ">= 0.6"', model(2.0, n=n))

    found = result(judgement, "auc")
    assert (found.verdict, judgement.passed) == (verdict, verdict == "pass")
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    if verdict == "blocked":
        assert found.because == "199 labelled rows are too few to judge by, 200 are needed"


def test_a_comparison_needs_rows_of_both_classes() -> None:
    labels = np.array([1.0] * 9 + [0.0] * 400)
    outputs = np.random.default_rng(1).random(409)

    found = result(
        judged('"auc vs live" = ">= -1.0 absolute"', scored(labels, outputs), scored(labels, 1 - outputs)),
        "auc vs live",
    )

    assert (found.verdict, "a class has 9 rows" in found.because) == ("blocked", True)


@pytest.mark.capability("D5")
@pytest.mark.parametrize(
    ("outputs", "name", "because"),
    [
        (np.r_[np.nan, np.full(299, 0.4)], "sanity: finite", "1 of 300 outputs are not finite"),
        (np.r_[np.inf, np.full(299, 0.4)], "sanity: finite", "1 of 300 outputs are not finite"),
        (np.r_[1.5, -0.1, np.full(298, 0.4)], "sanity: in [0, 1]", "2 of 300 outputs are no probabilities"),
        (np.full(300, 0.25), "sanity: not constant", "all 300 outputs are 0.25"),
    ],
)
def test_nonsense_is_stopped_even_without_a_policy(outputs: Floats, name: str, because: str) -> None:
    labels = np.arange(300) % 2.0

    judgement = judge((), candidate=scored(labels, outputs), live=None, sanity=Sanity())

    assert not judgement.passed
    assert (result(judgement, name).verdict, result(judgement, name).because) == ("fail", because)
    assert because in judgement.summary


@pytest.mark.capability("D5")
def test_a_model_that_does_not_load_fails_and_nothing_else_is_judged() -> None:
    judgement = judged('auc = ">= 0.5"', None, sanity=Sanity(failure="model.txt does not match"))

    assert [(check.name, check.verdict) for check in judgement.checks] == [
        ("sanity: loads", "fail"),
        ("auc", "blocked"),
    ]
    assert "model.txt does not match" in judgement.summary


def test_a_window_without_rows_lets_nothing_through() -> None:
    judgement = judge(
        (), candidate=scored(np.zeros(0), np.zeros(0), unlabelled=50), live=None, sanity=Sanity()
    )

    assert [(check.name, check.verdict) for check in judgement.checks] == [
        ("sanity: loads", "pass"), ("sanity: rows", "blocked")
    ]  # fmt: skip


def test_without_bounds_the_sanity_gate_alone_decides() -> None:
    judgement = judge((), candidate=model(1.0), live=None, sanity=Sanity())

    assert judgement.passed
    assert judgement.summary == "all 5 checks passed; the policy sets no bounds"


def test_latency_is_held_against_its_bound_with_an_interval() -> None:
    timing = list(np.random.default_rng(1).gamma(3.0, size=1000))

    fast = judged('latency_p99_ms = "<= 20"', model(1.0), timing=timing)
    slow = judged('latency_p99_ms = "<= 2"', model(1.0), timing=timing)
    unmeasured = judged('latency_p99_ms = "<= 20"', model(1.0), timing=[])

    found = result(fast, "latency_p99_ms")
    assert fast.passed
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(np.quantile(timing, 0.99), rel=0.05)
    assert result(slow, "latency_p99_ms").verdict == "fail"
    assert result(unmeasured, "latency_p99_ms").verdict == "blocked"


def test_a_model_of_values_is_judged_by_its_errors() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=400)
    good = scored(truth, truth + 0.1 * rng.normal(size=400), output="value")
    poor = scored(truth, truth + rng.normal(size=400), output="value")
    text = 'rmse = "<= 0.2"\n"mae vs live" = "<= -0.1 absolute"'

    assert judged(text, good, poor).passed
    assert not judged(text, poor, good).passed
    assert result(judged('auc = ">= 0.5"', good), "auc").verdict == "blocked"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('accurracy = ">= 0.8"', "gate.accurracy is not a metric Andon knows; expected accuracy, auc"),
        ('"latency_p99_ms vs live" = "<= 1 absolute"', "a bound in milliseconds"),
    ],
)
def test_a_bound_that_no_model_can_meet_is_refused_before_a_run(text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        check_gate(gate(text))

    assert not judged(text, model(1.0), model(1.0)).passed


def test_every_known_metric_may_be_bounded() -> None:
    check_gate(
        gate('auc = ">= 0.5"\nlatency_p99_ms = "<= 5"\n"log_loss vs live" = "<= 0.1 relative"\nrmse = "<= 3"')
    )


@given(st.floats(-0.2, 0.2), st.floats(0, 0.2), st.integers(0, 30))
def test_a_laxer_bound_never_stops_what_a_stricter_one_lets_through(
    bound: float, slack: float, seed: int
) -> None:
    candidate, live = model(1.0, n=250, seed=seed), model(1.0, n=250, seed=seed + 1)

    def passes(value: float) -> bool:
        check = GateCheck(metric="auc", versus_live=True, operator=">=", bound=value)
        return judge((check,), candidate=candidate, live=live, sanity=Sanity()).passed

    assert passes(bound - slack) or not passes(bound)


def test_a_worthless_challenger_rarely_passes_for_better() -> None:
    """Rule 1 as an error rate: challengers as good as live claim `> 0` at most once in twenty times."""
    check = GateCheck(metric="auc", versus_live=True, operator=">", bound=0.0)
    trials = 400

    passed = sum(
        judge(
            (check,), candidate=model(1.0, n=300, seed=2 * trial, window=trial),
            live=model(1.0, n=300, seed=2 * trial + 1, window=trial), sanity=Sanity(),
        ).passed
        for trial in range(trials)
    )  # fmt: skip

    assert passed <= 0.05 * trials + 3 * math.sqrt(0.05 * 0.95 * trials)
    assert passed > 0
