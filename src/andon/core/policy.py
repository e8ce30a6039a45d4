"""`andon.toml`, parsed once into types. Everything wrong with it is said with its file, line, key and what was expected."""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from andon.core.canonical import Digest, digest_bytes
from andon.core.errors import AndonError, PolicyError
from andon.core.ids import check_name

FILE = "andon.toml"
When = Literal["data", "drift", "performance", "code"]
_DURATION = re.compile(r"(\d+)(m|h|d)\Z")
_CHECK = re.compile(r"(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)(?:\s+(absolute|relative))?\Z")
_ENTRY = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)\Z")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
_WORDS = {str: "a string", int: "a whole number", float: "a number"}
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class SourcePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`[data.NAME]`: where rows come from and what their columns mean.

    `source` is a path (file, folder or glob of CSV, Parquet or NDJSON) or `python:module:function`, a function of the
    time up to which rows are wanted. `label_time` is the column that says when a row's label was known.
    """

    name: str
    source: str
    label: str
    key: tuple[str, ...] = ()
    time: str | None = None
    label_time: str | None = None
    contract: str | None = None


class TrainPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`[train]`: seed, parameters given to the entry, how much history to use and how much to hold back.

    `holdout` is the newest stretch of rows (by the source's time), never seen by the entry: a duration, or a share of
    rows in (0, 1) when the source has no time column. `window` limits training rows to the newest before the holdout.
    """

    seed: int = 7
    params: dict[str, str | int | float | bool] = {}
    holdout: timedelta | float = 0.25
    window: timedelta | None = None


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One bound of `[gate]`: `metric` [`vs live`] `operator` `bound` [absolute | relative]."""

    metric: str
    versus_live: bool
    operator: Literal[">=", "<=", ">", "<"]
    bound: float
    scale: Literal["absolute", "relative"] = "absolute"


class ReleasePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`[release]`. `steps` are percent of requests, rising to 100; each step needs `min_requests` of the candidate.

    `noninferior_odds` is the margin: a rollout goes to 100 % only with evidence that the candidate fails less than
    this many times as often as stable. `alpha` bounds the chance that a harmless release is undone, and that a release at the
    margin passes.

    `alias` and `stage` are what means live to MLflow's clients: setting one is a request to release. While that waits the
    client is refused with the release's id, or (`waiting`) told that it was accepted.
    """

    endpoint: str
    approvals: int = 0
    strategy: Literal["canary", "direct"] = "canary"
    steps: tuple[int, ...] = (1, 10, 50, 100)
    min_requests: int = 100
    noninferior_odds: float = 1.5
    alpha: float = 0.05
    alias: str = "production"
    stage: Literal["Staging", "Production"] = "Production"
    waiting: Literal["refuse", "accept"] = "refuse"


class MetricRule(msgspec.Struct, frozen=True, kw_only=True):
    """`[monitor.metrics]`: alarm when the metric over a window is below the reference's interval, or by more than `drop`."""

    metric: str
    over: timedelta
    drop: float | None = None
    scale: Literal["absolute", "relative"] = "absolute"


class MonitorPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`[monitor]`. `false_alarms_per` N means one false drift alarm in N windows at most; `label_horizon` is how long
    after a prediction its label may take before it counts as never coming."""

    window: timedelta = timedelta(hours=1)
    false_alarms_per: int = 1000
    materiality: float = 0.1
    label_horizon: timedelta = timedelta(days=1)
    metrics: tuple[MetricRule, ...] = ()


class RetrainPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`[retrain]`: what starts a run by itself, and the shortest domain time between two such runs."""

    when: tuple[When, ...] = ()
    cooldown: timedelta = timedelta(hours=24)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A whole `andon.toml`. `clock` is `wall`, or `data` in a replay: domain time then follows the told watermark.

    `note` is a sentence for whoever reads the line's page: what a stranger must know of it.
    """

    name: str
    entry: str
    clock: Literal["wall", "data"]
    note: str
    source: SourcePolicy
    train: TrainPolicy
    gate: tuple[GateCheck, ...]
    release: ReleasePolicy
    monitor: MonitorPolicy
    retrain: RetrainPolicy
    text: str

    @property
    def digest(self) -> Digest:
        """The digest of the file's bytes: verdicts and approvals hold for this one only."""
        return digest_bytes(self.text.encode())


def read_policy(folder: Path) -> Policy:
    """Read the `andon.toml` of a project folder.

    Raises:
        PolicyError: it is missing or malformed; the message names line, key and what was expected.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PolicyError(
            f"there is no {FILE} in {folder}", hint="write one, or start a project with 'andon init NAME'"
        ) from None
    except UnicodeDecodeError:
        raise PolicyError(f"{path} is not UTF-8 text") from None
    return parse_policy(text, where=str(path))


def parse_policy(text: str, *, where: str = FILE) -> Policy:
    """Parse the text of an `andon.toml`.

    Raises:
        PolicyError: it is malformed.

    >>> parse_policy('[line]\\nname = "x"\\nentry = "x:f"\\n')
    Traceback (most recent call last):
    andon.core.errors.PolicyError: andon.toml: [data.NAME] is missing; expected a table that says where rows come from
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{where} is not valid TOML: {error}") from None
    return _Reading(text, where).policy(document)


class _Reading:
    """One pass over a document; knows how to say where a fault is."""

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        self.where = where

    def policy(self, document: dict[str, Any]) -> Policy:
        known = {"line", "data", "train", "gate", "release", "monitor", "retrain"}
        for table in document:
            if table not in known:
                raise self._fault(f"[{table}]", "is not a table Andon knows", ", ".join(sorted(known)))
        line = self._table(document, "line")
        name = self._name(line, "line", "name")
        clock = self._word(line, "line", "clock", ("wall", "data"), "wall")
        entry = self._get(line, "line", "entry", str, None)
        if not _ENTRY.match(entry):
            raise self._fault("line.entry", f"is {entry!r}", "'module:function'")
        self._unknown(line, "line", {"name", "entry", "clock", "note"})
        return Policy(
            name=name, entry=entry, clock=clock,
            note=self._optional(line, "line", "note") or "", source=self._source(document), train=self._train(document),
            gate=self._gate(document), release=self._release(document, name), monitor=self._monitor(document),
            retrain=self._retrain(document), text=self.text,
        )  # fmt: skip

    def _source(self, document: dict[str, Any]) -> SourcePolicy:
        sources = document.get("data")
        if not isinstance(sources, dict) or not sources:
            raise self._fault("[data.NAME]", "is missing", "a table that says where rows come from")
        if len(sources) > 1:
            raise self._fault(
                "data." + sorted(sources)[1], "is a second source", "one source a line in this release"
            )
        name, table = next(iter(sources.items()))
        where = f"data.{name}"
        if not isinstance(table, dict):
            raise self._fault(where, "is not a table", f"[{where}] with source = ...")
        self._unknown(table, where, {"source", "label", "key", "time", "label_time", "contract"})
        key = table.get("key", [])
        key = [key] if isinstance(key, str) else key
        if not isinstance(key, list) or not all(isinstance(item, str) for item in key):
            raise self._fault(f"{where}.key", f"is {key!r}", "a column's name or a list of them")
        return SourcePolicy(
            name=self._checked("dataset", name, where),
            source=self._get(table, where, "source", str, None),
            label=self._get(table, where, "label", str, None),
            key=tuple(key),
            time=self._optional(table, where, "time"),
            label_time=self._optional(table, where, "label_time"),
            contract=self._optional(table, where, "contract"),
        )

    def _train(self, document: dict[str, Any]) -> TrainPolicy:
        table = dict(self._table(document, "train", {}))
        seed = self._get(table, "train", "seed", int, 7)
        raw = table.get("holdout", 0.25)
        holdout: timedelta | float
        if isinstance(raw, float) and 0 < raw < 1:
            holdout = raw
        else:
            holdout = self._duration(raw, "train.holdout", "a duration such as '14d', or a share in (0, 1)")
        window = self._duration(table["window"], "train.window") if "window" in table else None
        params = self._table(table, "params", {}, where="train.params")
        for key, value in params.items():
            if not isinstance(value, str | int | float | bool):
                raise self._fault(f"train.params.{key}", f"is {value!r}", "a string, number or boolean")
        self._unknown(table, "train", {"seed", "holdout", "window", "params"})
        return TrainPolicy(seed=seed, params=params, holdout=holdout, window=window)

    def _gate(self, document: dict[str, Any]) -> tuple[GateCheck, ...]:
        checks: list[GateCheck] = []
        for key, value in self._table(document, "gate", {}).items():
            checks += [self._check(key, bound) for bound in (value if isinstance(value, list) else [value])]
        return tuple(checks)

    def _check(self, key: str, bound: object) -> GateCheck:
        expected = "a bound such as '>= 0.80', or '>= -0.005 absolute' for a difference"
        found = _CHECK.match(bound) if isinstance(bound, str) else None
        if found is None:
            raise self._fault(f"gate.{key}", f"is {bound!r}", expected)
        metric, _, live = key.partition(" vs ")
        if live not in ("", "live"):
            raise self._fault(f"gate.{key}", f"compares with {live!r}", "'METRIC vs live'")
        if bool(live) != (found[3] is not None):
            wrong = (
                "does not say absolute or relative"
                if live
                else "says absolute or relative, and compares with nothing"
            )
            raise self._fault(f"gate.{key}", wrong, expected)
        return msgspec.convert(
            {"metric": metric.strip(), "versus_live": bool(live), "operator": found[1], "bound": float(found[2]),
             "scale": found[3] or "absolute"},
            GateCheck,
        )  # fmt: skip

    def _release(self, document: dict[str, Any], line: str) -> ReleasePolicy:
        table = self._table(document, "release", {})
        plain = ReleasePolicy(endpoint=line)
        known = set(ReleasePolicy.__struct_fields__)
        self._unknown(table, "release", known)
        steps = table.get("steps", list(plain.steps))
        rising = (
            isinstance(steps, list) and bool(steps) and all(type(s) is int and 0 < s <= 100 for s in steps)
        )
        if not rising or sorted(set(steps)) != steps or steps[-1] != 100:
            raise self._fault(
                "release.steps", f"is {steps!r}", "percents that rise to 100, such as [1, 10, 50, 100]"
            )
        return ReleasePolicy(
            endpoint=self._name({"endpoint": line, **table}, "release", "endpoint"),
            approvals=self._number(table, "release", "approvals", int, 0, low=0, high=100),
            strategy=self._word(table, "release", "strategy", ("canary", "direct"), plain.strategy),
            steps=tuple(steps),
            min_requests=self._number(table, "release", "min_requests", int, plain.min_requests, low=1),
            noninferior_odds=self._number(
                table, "release", "noninferior_odds", float, plain.noninferior_odds, low=1.0001
            ),
            alpha=self._number(table, "release", "alpha", float, plain.alpha, low=1e-6, high=0.5),
            alias=self._alias({"alias": plain.alias, **table}),
            stage=self._word(table, "release", "stage", ("Staging", "Production"), plain.stage),
            waiting=self._word(table, "release", "waiting", ("refuse", "accept"), plain.waiting),
        )

    def _alias(self, table: dict[str, Any]) -> str:
        alias: str = self._get(table, "release", "alias", str, None)
        if not _ALIAS.match(alias) or alias.lower() == "latest" or re.match(r"[vV]\d+\Z", alias):
            raise self._fault(
                "release.alias", f"is {alias!r}", "letters, digits, '_' and '-', and not 'latest' or 'v1'"
            )
        return alias

    def _monitor(self, document: dict[str, Any]) -> MonitorPolicy:
        table = self._table(document, "monitor", {})
        plain = MonitorPolicy()
        self._unknown(table, "monitor", {"drift", "labels", "metrics"})
        drift = self._table(table, "drift", {}, where="monitor.drift")
        self._unknown(drift, "monitor.drift", {"false_alarms", "window", "materiality"})
        labels = self._table(table, "labels", {}, where="monitor.labels")
        self._unknown(labels, "monitor.labels", {"delay"})
        rate = drift.get("false_alarms", f"1 per {plain.false_alarms_per} windows")
        found = re.match(r"1 per (\d+) windows\Z", rate) if isinstance(rate, str) else None
        if found is None or int(found[1]) < 1:
            raise self._fault("monitor.drift.false_alarms", f"is {rate!r}", "'1 per N windows'")
        rules = self._table(table, "metrics", {}, where="monitor.metrics")
        return MonitorPolicy(
            window=self._duration(drift.get("window", "1h"), "monitor.drift.window"),
            false_alarms_per=int(found[1]),
            materiality=self._number(
                drift, "monitor.drift", "materiality", float, plain.materiality, low=0.0, high=1.0
            ),
            label_horizon=self._duration(labels.get("delay", "1d"), "monitor.labels.delay"),
            metrics=tuple(self._rule(metric, rule) for metric, rule in rules.items()),
        )

    def _rule(self, metric: str, rule: object) -> MetricRule:
        where = f"monitor.metrics.{metric}"
        if metric != "auc":
            raise self._fault(where, "is not a metric this release watches", "auc")
        if not isinstance(rule, dict):
            raise self._fault(
                where, f"is {rule!r}", "a table such as { over = '7d', drop = '0.03 absolute' }"
            )
        self._unknown(rule, where, {"over", "drop"})
        over = self._duration(rule.get("over"), f"{where}.over")
        if "drop" not in rule:
            return MetricRule(metric=metric, over=over)
        found = re.match(r"(\d+(?:\.\d+)?) (absolute|relative)\Z", str(rule["drop"]))
        if found is None:
            raise self._fault(
                f"{where}.drop", f"is {rule['drop']!r}", "a number and 'absolute' or 'relative'"
            )
        scale: Literal["absolute", "relative"] = "absolute" if found[2] == "absolute" else "relative"
        return MetricRule(metric=metric, over=over, drop=float(found[1]), scale=scale)

    def _retrain(self, document: dict[str, Any]) -> RetrainPolicy:
        table = self._table(document, "retrain", {})
        self._unknown(table, "retrain", {"when", "cooldown"})
        when = table.get("when", [])
        words = ("data", "drift", "performance", "code")
        if not isinstance(when, list) or any(word not in words for word in when):
            raise self._fault("retrain.when", f"is {when!r}", "a list of " + ", ".join(words))
        cooldown = self._duration(table.get("cooldown", "24h"), "retrain.cooldown")
        return RetrainPolicy(when=tuple(when), cooldown=cooldown)

    def _table(
        self,
        table: dict[str, Any],
        key: str,
        default: dict[str, Any] | None = None,
        *,
        where: str | None = None,
    ) -> dict[str, Any]:
        value = table.get(key, default)
        if value is None:
            raise self._fault(f"[{where or key}]", "is missing", f"a [{where or key}] table")
        if not isinstance(value, dict):
            raise self._fault(where or key, f"is {value!r}", f"a [{where or key}] table")
        return value

    def _get(self, table: dict[str, Any], where: str, key: str, kind: type, default: Any) -> Any:
        value = table.get(key, default)
        if value is None:
            raise self._fault(f"{where}.{key}", "is missing", _WORDS[kind], table=where)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._fault(f"{where}.{key}", f"is {value!r}", _WORDS[kind])
        return value

    def _number(
        self,
        table: dict[str, Any],
        where: str,
        key: str,
        kind: type,
        default: Any,
        *,
        low: float,
        high: float = 1e12,
    ) -> Any:
        value = table.get(key, default)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or not (isinstance(value, int | float) and low <= value <= high):
            raise self._fault(f"{where}.{key}", f"is {value!r}", f"{_WORDS[kind]} from {low:g} to {high:g}")
        return value

    def _optional(self, table: dict[str, Any], where: str, key: str) -> str | None:
        return None if key not in table else str(self._get(table, where, key, str, None))

    def _word(self, table: dict[str, Any], where: str, key: str, words: tuple[str, ...], default: str) -> Any:
        value = table.get(key, default)
        if value not in words:
            raise self._fault(f"{where}.{key}", f"is {value!r}", " or ".join(f"'{word}'" for word in words))
        return value

    def _name(self, table: dict[str, Any], where: str, key: str) -> str:
        return self._checked(key, self._get(table, where, key, str, None), f"{where}.{key}")

    def _checked(self, kind: str, value: str, where: str) -> str:
        try:
            return check_name(kind, value)
        except AndonError as error:
            raise self._fault(where, f"is {value!r}", error.hint) from None

    def _duration(
        self, value: object, where: str, expected: str = "a duration such as '30m', '24h' or '7d'"
    ) -> timedelta:
        found = _DURATION.match(value) if isinstance(value, str) else None
        if found is None or not int(found[1]):
            raise self._fault(where, "is missing" if value is None else f"is {value!r}", expected)
        return int(found[1]) * _UNITS[found[2]]

    def _unknown(self, table: dict[str, Any], where: str, known: set[str]) -> None:
        for key in table:
            if key not in known:
                raise self._fault(f"{where}.{key}", "is not a key Andon knows", ", ".join(sorted(known)))

    def _fault(self, key: str, wrong: str, expected: str, *, table: str | None = None) -> PolicyError:
        line = self._line_of(key) or (self._line_of(f"[{table}]") if table else None)
        at = f"{self.where}, line {line}" if line else self.where
        return PolicyError(f"{at}: {key} {wrong}; expected {expected}")

    def _line_of(self, key: str) -> int | None:
        """The line of a dotted key or of a [table], by reading the text as a person would."""
        wanted, current = key.strip("[]"), ""
        for number, line in enumerate(self.text.splitlines(), start=1):
            stripped = line.strip()
            if found := re.match(r"\[([^\]]+)\]", stripped):
                current = re.sub(r"[\"']", "", found[1]).strip()
                if wanted == current:
                    return number
            elif found := re.match(r"[\"']?([^\"'=]+?)[\"']?\s*=", stripped):
                full = f"{current}.{found[1].strip()}"
                if wanted == full or wanted.startswith(full + "."):
                    return number
        return None
