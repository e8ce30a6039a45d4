"""`andon.toml`: what is read, and that everything wrong with it is said with line, key and what was expected."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from andon.core.canonical import digest_bytes
from andon.core.errors import PolicyError
from andon.core.policy import (
    GateCheck,
    MetricRule,
    MonitorPolicy,
    Policy,
    ReleasePolicy,
    RetrainPolicy,
    SourcePolicy,
    TrainPolicy,
    parse_policy,
    read_policy,
)

SMALL = """\
[line]
name = "churn"
entry = "churn:pipeline"

[data.customers]
source = "customers.csv"
label = "left"
"""
WHOLE = """\
# a comment
[line]
name = "flights"
entry = "lines.flights:pipeline"
clock = "data"
note = "The weather is the hour's own."

[data.departures]
source = "python:flights:departures"
label = "late"
key = ["carrier", "flight"]
time = "scheduled"
label_time = "landed"
contract = "contracts/departures.toml"

[train]
seed = 11
holdout = "14d"
window = "90d"
[train.params]
rounds = 200
rate = 0.05
boosting = "gbdt"
early = true

[gate]
auc = ">= 0.60"
"auc vs live" = [">= -0.005 absolute", "> -0.01 relative"]

[release]
endpoint = "delays"
approvals = 0
strategy = "canary"
steps = [5, 25, 100]
min_requests = 40
noninferior_odds = 2
alpha = 0.01
alias = "live"
stage = "Staging"
waiting = "accept"

[monitor.drift]
window = "24h"
false_alarms = "1 per 500 windows"
materiality = 0.2
[monitor.labels]
delay = "36h"
[monitor.metrics]
auc = { over = "7d", drop = "0.03 absolute" }

[retrain]
when = ["drift", "performance"]
cooldown = "7d"
"""


def changed(old: str, new: str, text: str = WHOLE) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def line_of(part: str, text: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def test_a_small_policy_has_defaults_for_the_rest() -> None:
    assert parse_policy(SMALL) == Policy(
        name="churn",
        entry="churn:pipeline",
        clock="wall",
        note="",
        source=SourcePolicy(name="customers", source="customers.csv", label="left"),
        train=TrainPolicy(),
        gate=(),
        release=ReleasePolicy(endpoint="churn"),
        monitor=MonitorPolicy(),
        retrain=RetrainPolicy(),
        text=SMALL,
    )


def test_a_whole_policy_is_read_into_types() -> None:
    assert parse_policy(WHOLE) == Policy(
        name="flights",
        entry="lines.flights:pipeline",
        clock="data",
        note="The weather is the hour's own.",
        source=SourcePolicy(
            name="departures",
            source="python:flights:departures",
            label="late",
            key=("carrier", "flight"),
            time="scheduled",
            label_time="landed",
            contract="contracts/departures.toml",
        ),
        train=TrainPolicy(
            seed=11,
            params={"rounds": 200, "rate": 0.05, "boosting": "gbdt", "early": True},
            holdout=timedelta(days=14),
            window=timedelta(days=90),
        ),
        gate=(
            GateCheck(metric="auc", versus_live=False, operator=">=", bound=0.6),
            GateCheck(metric="auc", versus_live=True, operator=">=", bound=-0.005, scale="absolute"),
            GateCheck(metric="auc", versus_live=True, operator=">", bound=-0.01, scale="relative"),
        ),
        release=ReleasePolicy(
            endpoint="delays",
            approvals=0,
            strategy="canary",
            steps=(5, 25, 100),
            min_requests=40,
            noninferior_odds=2.0,
            alpha=0.01,
            alias="live",
            stage="Staging",
            waiting="accept",
        ),
        monitor=MonitorPolicy(
            window=timedelta(hours=24),
            false_alarms_per=500,
            materiality=0.2,
            label_horizon=timedelta(hours=36),
            metrics=(MetricRule(metric="auc", over=timedelta(days=7), drop=0.03),),
        ),
        retrain=RetrainPolicy(when=("drift", "performance"), cooldown=timedelta(days=7)),
        text=WHOLE,
    )


def test_one_key_column_may_be_a_plain_word() -> None:
    assert parse_policy(changed('["carrier", "flight"]', '"id"')).source.key == ("id",)


def test_a_metric_without_a_drop_alarms_below_the_reference() -> None:
    rules = parse_policy(changed('over = "7d", drop = "0.03 absolute"', 'over = "7d"')).monitor.metrics

    assert rules == (MetricRule(metric="auc", over=timedelta(days=7), drop=None),)


def test_the_digest_is_of_the_file_s_bytes(tmp_path: Path) -> None:
    (tmp_path / "andon.toml").write_bytes(WHOLE.encode())

    assert read_policy(tmp_path).digest == digest_bytes(WHOLE.encode()) != parse_policy(WHOLE + "\n").digest


FAULTS = [
    # (what is in the whole policy, what stands there instead, the line's text, key, expected)
    ('name = "flights"', 'name = "1st flight"', None, "line.name", "a name is a letter"),
    ('name = "flights"\n', "", "[line]", "line.name is missing", "a string"),
    ('name = "flights"', "name = 7", None, "line.name is 7", "a string"),
    ('entry = "lines.flights:pipeline"\n', "", "[line]", "line.entry is missing", "a string"),
    ('"lines.flights:pipeline"', '"lines/flights.py"', None, "line.entry is 'lines/flights.py'", "'module:function'"),
    ('clock = "data"', 'clock = "sun"', None, "line.clock is 'sun'", "'wall' or 'data'"),
    ('clock = "data"', 'colour = "red"', None, "line.colour", "clock, entry, name, note"),
    ("note = \"The weather is the hour's own.\"", "note = 3", None, "line.note is 3", "a string"),
    ("[data.departures]", '[data."1 x"]', None, "data.1 x", "a name is a letter"),
    ('source = "python:flights:departures"\n', "", "[data.departures]", "data.departures.source is missing", "a string"),
    ('label = "late"\n', "", "[data.departures]", "data.departures.label is missing", "a string"),
    ('label = "late"', "label = 3", None, "data.departures.label is 3", "a string"),
    ('["carrier", "flight"]', "[1]", None, "data.departures.key is [1]", "a column's name or a list of them"),
    ('time = "scheduled"', "time = 5", "time = 5", "data.departures.time is 5", "a string"),
    ('label_time = "landed"', "label_time = false", None, "data.departures.label_time is False", "a string"),
    ('contract = "', 'contrakt = "', None, "data.departures.contrakt", "contract, key, label"),
    ("seed = 11", "seed = 1.5", None, "train.seed is 1.5", "a whole number"),
    ("seed = 11", "seed = true", None, "train.seed is True", "a whole number"),
    ('holdout = "14d"', 'holdout = "two weeks"', None, "train.holdout is 'two weeks'", "'14d', or a share in (0, 1)"),
    ('holdout = "14d"', "holdout = 1.5", None, "train.holdout is 1.5", "a share in (0, 1)"),
    ('window = "90d"', 'window = "0d"', None, "train.window is '0d'", "'30m', '24h' or '7d'"),
    ("rounds = 200", "rounds = [200]", None, "train.params.rounds is [200]", "a string, number or boolean"),
    ("seed = 11", "sead = 11", None, "train.sead", "holdout, params, seed, window"),
    ('auc = ">= 0.60"', 'auc = "about 0.6"', 'auc = "about', "gate.auc is 'about 0.6'", "'>= 0.80'"),
    ('auc = ">= 0.60"', "auc = 0.6", "auc = 0.6", "gate.auc is 0.6", "'>= 0.80'"),
    ('auc = ">= 0.60"', 'auc = ">= 0.60 absolute"', ">= 0.60", "gate.auc says absolute or relative", "'>= 0.80'"),
    ('"auc vs live"', '"auc vs last year"', None, "gate.auc vs last year compares with 'last year'", "'METRIC vs live'"),
    ("-0.005 absolute", "-0.005", '"auc vs live"', "gate.auc vs live does not say absolute or relative", "'>= 0.80'"),
    ('endpoint = "delays"', 'endpoint = "de/lays"', None, "release.endpoint is 'de/lays'", "a name is a letter"),
    ("approvals = 0", "approvals = 101", None, "release.approvals is 101", "a whole number from 0 to 100"),
    ("approvals = 0", "approvals = -1", None, "release.approvals is -1", "a whole number from 0"),
    ('alias = "live"', 'alias = "v1"', None, "release.alias is 'v1'", "not 'latest' or 'v1'"),
    ('alias = "live"', 'alias = "Latest"', None, "release.alias is 'Latest'", "not 'latest' or 'v1'"),
    ('alias = "live"', 'alias = "a b"', None, "release.alias is 'a b'", "letters, digits, '_' and '-'"),
    ('alias = "live"', "alias = 1", None, "release.alias is 1", "a string"),
    ('stage = "Staging"', 'stage = "Live"', None, "release.stage is 'Live'", "'Staging' or 'Production'"),
    ('waiting = "accept"', 'waiting = "maybe"', None, "release.waiting is 'maybe'", "'refuse' or 'accept'"),
    ('strategy = "canary"', 'strategy = "yolo"', None, "release.strategy is 'yolo'", "'canary' or 'direct'"),
    ("[5, 25, 100]", "[5, 25]", None, "release.steps is [5, 25]", "percents that rise to 100"),
    ("[5, 25, 100]", "[25, 5, 100]", None, "release.steps is [25, 5, 100]", "percents that rise to 100"),
    ("[5, 25, 100]", "[0, 100]", None, "release.steps is [0, 100]", "percents that rise to 100"),
    ("[5, 25, 100]", "[0.5, 100]", None, "release.steps is [0.5, 100]", "percents that rise to 100"),
    ("[5, 25, 100]", '"fast"', None, "release.steps is 'fast'", "percents that rise to 100"),
    ("min_requests = 40", "min_requests = 0", None, "release.min_requests is 0", "a whole number from 1"),
    ("noninferior_odds = 2", "noninferior_odds = 1", None, "release.noninferior_odds is 1", "a number from 1.0001"),
    ("alpha = 0.01", "alpha = 0.9", None, "release.alpha is 0.9", "a number from 1e-06 to 0.5"),
    ("alpha = 0.01", "alpha = nan", None, "release.alpha is nan", "a number from"),
    ("approvals = 0", "approvalz = 0", None, "release.approvalz", "alias, alpha, approvals"),
    ('window = "24h"', 'window = "1 day"', None, "monitor.drift.window is '1 day'", "'30m', '24h' or '7d'"),
    ("1 per 500 windows", "some", None, "monitor.drift.false_alarms is 'some'", "'1 per N windows'"),
    ("1 per 500 windows", "1 per 0 windows", None, "monitor.drift.false_alarms", "'1 per N windows'"),
    ("materiality = 0.2", "materiality = 2.0", None, "monitor.drift.materiality is 2.0", "a number from 0 to 1"),
    ("materiality = 0.2", "sensitivity = 2.0", None, "monitor.drift.sensitivity", "false_alarms, materiality, window"),
    ('delay = "36h"', 'delay = "soon"', None, "monitor.labels.delay is 'soon'", "'30m', '24h' or '7d'"),
    ('delay = "36h"', 'horizon = "36h"', None, "monitor.labels.horizon", "delay"),
    ('auc = { over = "7d", drop = "0.03 absolute" }', "f1 = { over = '7d' }", None, "monitor.metrics.f1", "auc"),
    ('auc = { over = "7d", drop = "0.03 absolute" }', "auc = 'low'", "auc = 'low'", "monitor.metrics.auc is 'low'", "a table"),
    ('over = "7d", ', "", "drop =", "monitor.metrics.auc.over is missing", "'30m', '24h' or '7d'"),
    ('drop = "0.03 absolute"', "drop = 0.03", "drop =", "monitor.metrics.auc.drop is 0.03", "a number and 'absolute'"),
    ('over = "7d"', 'ovr = "7d"', "ovr =", "monitor.metrics.auc.ovr", "drop, over"),
    ('["drift", "performance"]', '["rain"]', None, "retrain.when is ['rain']", "data, drift, performance, code"),
    ('["drift", "performance"]', "[[1]]", None, "retrain.when is [[1]]", "data, drift, performance, code"),
    ('["drift", "performance"]', '"drift"', None, "retrain.when is 'drift'", "a list of data"),
    ('cooldown = "7d"', "cooldown = 7", None, "retrain.cooldown is 7", "'30m', '24h' or '7d'"),
    ('cooldown = "7d"', 'cooling = "7d"', None, "retrain.cooling", "cooldown, when"),
    ("[retrain]", "[retrane]", None, "[retrane] is not a table", "data, gate, line"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "key", "expected"), FAULTS, ids=[f"{row[3]}" for row in FAULTS])
def test_what_is_wrong_is_said_with_line_key_and_what_was_expected(
    old: str, new: str, at: str | None, key: str, expected: str
) -> None:
    text = changed(old, new)
    tomllib.loads(text)

    with pytest.raises(PolicyError) as caught:
        parse_policy(text)

    message = str(caught.value)
    assert message.startswith(f"andon.toml, line {line_of(at or new, text)}: {key}"), message
    assert expected in message.split("; expected ", 1)[1], message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "[line] is missing; expected a [line] table"),
        ("line = 3\n", "line is 3; expected a [line] table"),
        (
            SMALL.partition("[data")[0],
            "[data.NAME] is missing; expected a table that says where rows come from",
        ),
        (SMALL + "\n[data.other]\nsource = 'x'\nlabel = 'y'\n", "line 9: data.other is a second source"),
        (SMALL + "\n[train]\nparams = 3\n", "line 10: train.params is 3; expected a [train.params] table"),
        (SMALL + "\n[line]\n", "is not valid TOML"),
        (
            "[line\n",
            "is not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 6)",
        ),
        (SMALL + "data.x = [\n", "is not valid TOML"),
    ],
)
def test_a_file_of_the_wrong_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)

    assert message in str(caught.value)


def test_a_table_that_should_be_one_is_named() -> None:
    text = SMALL.replace("[data.customers]\nsource", "[data]\ncustomers = 3\nsource")

    with pytest.raises(
        PolicyError,
        match=r"line 6: data\.customers is a second source|line 6: data\.customers is not a table",
    ):
        parse_policy(text.replace('source = "customers.csv"\nlabel = "left"\n', ""))


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(
        PolicyError,
        match=r"there is no andon\.toml in .*; write one, or start a project with 'andon init NAME'",
    ):
        read_policy(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "andon.toml").write_bytes(b"\xff\xfe[line]")

    with pytest.raises(PolicyError, match=r"andon\.toml is not UTF-8 text"):
        read_policy(tmp_path)


def test_a_fault_names_the_file_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "andon.toml").write_text(changed("seed = 11", "seed = 'x'"))

    with pytest.raises(PolicyError, match=rf"^{tmp_path}/andon\.toml, line 17: train\.seed is 'x'"):
        read_policy(tmp_path)
