"""Histories of metrics over the MLflow wire: of one run whole or in pages, of several at once, thinned out for charts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial

import msgspec
from msgspec import field

from andon.core.entities import Point, Run
from andon.core.errors import Invalid
from andon.governance.access import Permission
from andon.store.ports import Reader
from andon.tracking import limits, searching
from andon.tracking import runs as verbs
from andon.web.mlflow.forms import Metric, RunForm, run_id
from andon.web.mlflow.wire import Ask, Message, WireEndpoint, number

MOST_POINTS = 25_000
"""Points of a page, and of one answer about many runs."""
MOST_RUNS = 100
MOST_SAMPLED = 2500


class HistoryForm(RunForm):
    metric_key: str | None = None
    max_results: int | None = None
    page_token: str | None = None


class HistoryAnswer(Message):
    metrics: list[Metric] = field(default_factory=list)
    next_page_token: str | None = None


def _history(ask: Ask) -> HistoryAnswer:
    """The points of a metric. What fits one answer comes in the order of its times, as MLflow gives it; pages of more
    come in the order of steps."""
    form: HistoryForm = ask.form
    ident, key = run_id(form), form.metric_key
    if not key:
        raise limits.missing("metric_key")
    limit = None
    if form.max_results is not None:
        limit = searching.check_page(form.max_results, default=0, most=2**31)
    after = _place(form.page_token, key)

    def look(reader: Reader) -> tuple[list[Point], str | None]:
        run = reader.runs.find(ident)
        if run is None:
            return [], None
        points = reader.metrics.history(run, key, after=after, limit=10**9 if limit is None else limit + 1)
        if limit is not None and len(points) > limit:
            return points[:limit], _token(points[limit - 1])
        return points if after is not None else by_time(points), None

    points, token = ask.ws.store.read(look)
    return HistoryAnswer(
        metrics=[
            Metric(key=key, value=number(each.value), timestamp=each.at_ms, step=each.step) for each in points
        ],
        next_page_token=token,
    )


def by_time(points: list[Point]) -> list[Point]:
    """Points that are in the order of steps, in the order of times."""
    times = [each.at_ms for each in points]
    if times == sorted(times):
        return points
    return sorted(points, key=lambda each: each.at_ms)


def _token(point: Point) -> str:
    raw = msgspec.msgpack.encode((point.step, point.at_ms, point.value))
    return base64.urlsafe_b64encode(raw).decode()


def _place(token: str | None, key: str) -> Point | None:
    if not token:
        return None
    try:
        raw = base64.urlsafe_b64decode(token.encode())
        step, at_ms, value = msgspec.msgpack.decode(raw, type=tuple[int, int, float])
    except (ValueError, msgspec.DecodeError):
        raise Invalid("Invalid page token", hint="begin again without one", field="page_token") from None
    return Point(key, value, at_ms, step)


class BulkForm(Message):
    run_id: list[str] | None = None
    metric_key: str | None = None
    max_results: int | None = None


class RunMetric(Metric, gc=False):
    """A point of one of several runs."""

    run_id: str


class BulkAnswer(Message):
    metrics: list[RunMetric]


def _bulk(ask: Ask) -> BulkAnswer:
    form: BulkForm = ask.form
    given = form.run_id or []
    if not 1 <= len(given) <= MOST_RUNS:
        raise Invalid(
            f"GetMetricHistoryBulk request must specify at least one and at most {MOST_RUNS} run_ids, not {len(given)}",
            field="run_id",
        )
    if form.metric_key is None:
        raise limits.missing("metric_key")
    key = form.metric_key
    limit = min(searching.check_page(form.max_results, default=MOST_POINTS, most=2**31), MOST_POINTS)

    def look(reader: Reader) -> list[RunMetric]:
        found: list[RunMetric] = []
        for run in reader.runs.select({"id": sorted(set(given))}, limit=MOST_RUNS):
            points = reader.metrics.history(run, key, limit=limit - len(found))
            found += _of_run(run, by_time(points))
            if len(found) == limit:
                break
        return found

    return BulkAnswer(metrics=ask.ws.store.read(look))


def _of_run(run: Run, points: Sequence[Point]) -> list[RunMetric]:
    return [
        RunMetric(key=each.key, value=number(each.value), timestamp=each.at_ms, step=each.step, run_id=run.id)
        for each in points
    ]


class IntervalForm(Message):
    run_ids: list[str] | None = None
    metric_key: str | None = None
    start_step: int | None = None
    end_step: int | None = None
    max_results: int | None = None


class IntervalAnswer(Message):
    metrics: list[RunMetric] = field(default_factory=list)


def _interval(ask: Ask) -> IntervalAnswer:
    form: IntervalForm = ask.form
    given = form.run_ids or []
    if not 1 <= len(given) <= MOST_RUNS:
        raise Invalid(
            f"GetMetricHistoryBulkInterval request must specify at least one and at most {MOST_RUNS} run_ids, "
            f"not {len(given)}",
            field="run_ids",
        )
    if not form.metric_key:
        raise limits.missing("metric_key")
    first, last = form.start_step, form.end_step
    if (first is None) != (last is None):
        raise Invalid("If either start_step or end_step is given, both must be", field="start_step")
    if first is not None and last is not None and first > last:
        raise Invalid(f"end_step must not be less than start_step: {first} and {last}", field="end_step")
    key = form.metric_key
    limit = searching.check_page(form.max_results, default=MOST_SAMPLED, most=MOST_SAMPLED)
    found: list[RunMetric] = []
    for ident in given:
        run, points = ask.ws.store.read(partial(_stretch, ident=ident, key=key, first=first, last=last))
        found += _of_run(run, thinned(points, limit))
    return IntervalAnswer(metrics=found)


def _stretch(
    reader: Reader, ident: str, key: str, first: int | None, last: int | None
) -> tuple[Run, list[Point]]:
    """The points of a run between two steps, both included."""
    run = verbs.find_run(reader, ident)
    if first is None or last is None:
        return run, reader.metrics.history(run, key, limit=10**9)
    after = Point(key, float("-inf"), -(2**63), max(first, -(2**63)))
    return run, [
        each for each in reader.metrics.history(run, key, after=after, limit=10**9) if each.step <= last
    ]


def thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    """So many of the points, evenly spread, the first and the last among them; only the last if one is asked for.

    >>> [point.step for point in thinned([Point("m", 0.0, 0, step) for step in range(101)], 3)]
    [0, 50, 100]
    """
    if len(points) <= most:
        return points
    if most == 1:
        return points[-1:]
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


ENDPOINTS: tuple[WireEndpoint, ...] = (
    WireEndpoint(
        method="GET", path="/metrics/get-history", permission=Permission.READ, form=HistoryForm, read=_history,
        summary="All points of a metric of a run.",
    ),
    WireEndpoint(
        method="GET", path="/metrics/get-history-bulk", permission=Permission.READ, form=BulkForm, read=_bulk,
        summary="All points of a metric of several runs.",
    ),
    WireEndpoint(
        method="GET", path="/metrics/get-history-bulk-interval", permission=Permission.READ, form=IntervalForm,
        read=_interval, summary="Points of a metric of several runs, evenly thinned out.",
    ),
)  # fmt: skip
