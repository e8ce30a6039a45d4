"""Evaluation: candidate and live model answer the same rows, and what follows is judged and kept as evidence.

Takes frames and loaded models; reads and writes nothing. The evidence is a JSON blob with every number behind the verdict,
so that a judgement can be read again years later.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version

import msgspec
import numpy as np
import polars as pl

from andon.core.canonical import Digest
from andon.core.errors import Invalid
from andon.core.policy import GateCheck
from andon.registry.gates import LEVEL, MIN_ROWS, CheckResult, Judgement, Sanity, judge
from andon.registry.metrics import LATENCY, THRESHOLD, Floats, Scores, known_metrics, quantile_interval
from andon.registry.packaging import LoadedModel, conform
from andon.stats import Interval

FORMAT = "andon.evidence/1"
TIMINGS = 1000
_WARM = 50


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A metric with its 95 % interval; an end that cannot be bounded is null."""

    value: float
    low: float
    high: float
    n: int


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was scored: its package and its figures."""

    digest: Digest
    metrics: Mapping[str, Figure]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that judged: their domain time, how many had a label, and the digest that both models shared."""

    rows: int
    unlabelled: int
    digest: Digest
    data_from: datetime | None
    data_until: datetime | None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that a verdict rests on, as its blob holds it."""

    policy: Digest
    window: Window
    candidate: Judged
    live: Judged | None
    checks: tuple[CheckResult, ...]
    passed: bool
    summary: str
    rules: Mapping[str, float]
    versions: Mapping[str, str]
    format: str = FORMAT


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement, its evidence as JSON bytes, and the candidate's figures as flat metrics of its run."""

    judgement: Judgement
    evidence: bytes
    metrics: Mapping[str, float]


def evaluate(
    checks: tuple[GateCheck, ...],
    *,
    candidate: LoadedModel,
    live: LoadedModel | None,
    frame: pl.DataFrame,
    label: str,
    policy: Digest,
    unlabelled: int = 0,
    data_from: datetime | None = None,
    data_until: datetime | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> Evaluation:
    """Score both models on a window and judge the candidate by a policy's checks.

    Args:
        checks: the policy's gate.
        candidate, live: loaded models; `live` is None when the endpoint serves none.
        frame: raw rows that neither model was trained on, with the label's column.
        label: that column.
        policy: digest of the policy.
        unlabelled: rows that were left out of `frame` because they have no label.
        data_from, data_until: domain time of the window.
        timer: seconds that only grow; what latency is measured with.

    Raises:
        Invalid: the frame does not fit a model's signature, or has no such label.
    """
    digest = frame_digest(frame)
    scored = score(candidate, frame, label, digest=digest)
    rival = score(live, frame, label, digest=digest) if live else None
    timing = time_predictions(candidate, frame, timer) if scored.n else []
    judgement = judge(checks, candidate=scored, live=rival, sanity=Sanity(), timing=timing)
    figures = _figures(scored)
    if timing:
        figures[LATENCY] = _figure(quantile_interval(timing, 0.99))
    evidence = Evidence(
        policy=policy,
        window=Window(
            rows=scored.n, unlabelled=scored.unlabelled + unlabelled, digest=digest, data_from=data_from, data_until=data_until
        ),
        candidate=Judged(digest=candidate.digest, metrics=figures),
        live=Judged(digest=live.digest, metrics=_figures(rival)) if live and rival else None,
        checks=judgement.checks, passed=judgement.passed, summary=judgement.summary,
        rules={"decision_threshold": THRESHOLD, "confidence": LEVEL, "least_rows": MIN_ROWS},
        versions=_versions(),
    )  # fmt: skip
    return Evaluation(judgement=judgement, evidence=msgspec.json.encode(evidence), metrics=_flat(figures))


def score(model: LoadedModel, frame: pl.DataFrame, label: str, *, digest: Digest | None = None) -> Scores:
    """What a model says of the labelled rows of a frame; rows without a label are counted and left out.

    Args:
        model: a loaded model.
        frame: raw rows with the label's column.
        label: that column: 0 and 1, booleans, or values.
        digest: of the frame, when the caller has it.

    Raises:
        Invalid: the frame does not fit the signature, or the label is missing or no number.
    """
    found = frame.schema.get(label)
    if found is None or not (found.is_numeric() or found in (pl.Boolean, pl.Null)):
        raise Invalid(f"the label {label!r} is {'missing' if found is None else f'a {found}'}", field=label)
    known = frame.filter(pl.col(label).is_not_null())
    return Scores(
        labels=known[label].cast(pl.Float64).to_numpy(),
        scores=model.predict(model.features(known)),
        digest=digest or frame_digest(frame),
        unlabelled=len(frame) - len(known),
        output=model.signature.output,
    )


def time_predictions(model: LoadedModel, frame: pl.DataFrame, timer: Callable[[], float]) -> list[float]:
    """Milliseconds of 1,000 single predictions, features included, on rows of a frame in turn, after a short warm-up."""
    records = conform(frame.head(64), model.signature).to_dicts()
    taken = []
    for turn in range(_WARM + TIMINGS):
        record = records[turn % len(records)]
        begun = timer()
        model.predict_one(record)
        taken.append((timer() - begun) * 1e3)
    return taken[_WARM:]


def frame_digest(frame: pl.DataFrame) -> Digest:
    """The digest of a frame's values: columns by name with their types, rows in order.

    >>> one = pl.DataFrame({"a": [1, None], "b": ["x", "y"]})
    >>> (
    ...     frame_digest(one) == frame_digest(one.select("b", "a")),
    ...     frame_digest(one) == frame_digest(one.reverse()),
    ... )
    (True, False)
    """
    state = hashlib.sha256(f"andon.window/1 {len(frame)}\n".encode())
    for name in sorted(frame.columns):
        column = frame[name]
        state.update(f"{len(name)} {name} {column.dtype}\n".encode())
        state.update(np.packbits(column.is_null().to_numpy()).tobytes())
        state.update(_values(column))
    return Digest(f"sha256:{state.hexdigest()}")


def _values(column: pl.Series) -> bytes:
    """The values of a column one after the other, strings with their lengths in front."""
    if column.dtype.is_numeric() and not column.dtype.is_decimal():
        return column.fill_null(0).to_numpy().tobytes()
    if column.dtype.is_temporal():
        return column.to_physical().fill_null(0).to_numpy().tobytes()
    if column.dtype == pl.Boolean:
        return np.packbits(column.fill_null(value=False).to_numpy()).tobytes()
    texts = [str(value).encode() for value in column.to_list()]
    return np.array([len(text) for text in texts], dtype=np.int64).tobytes() + b"".join(texts)


def _figures(scores: Scores) -> dict[str, Figure]:
    return {name: _figure(interval) for name, interval in known_metrics(scores).items()}


def _figure(interval: Interval) -> Figure:
    return Figure(value=interval.value, low=interval.low, high=interval.high, n=interval.n)


def _flat(figures: Mapping[str, Figure]) -> dict[str, float]:
    """`auc`, `auc_low`, `auc_high`, ...: the figures as metrics of a run, ends that are not bounded left out."""
    flat = {}
    for name, figure in figures.items():
        for suffix, value in (("", figure.value), ("_low", figure.low), ("_high", figure.high)):
            if np.isfinite(value):
                flat[name + suffix] = value
    return flat


def _versions() -> dict[str, str]:
    return {
        "andon": version("andon"),
        "numpy": np.__version__,
        "polars": pl.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }


__all__ = ["Evaluation", "Evidence", "Floats", "evaluate", "frame_digest", "score", "time_predictions"]
