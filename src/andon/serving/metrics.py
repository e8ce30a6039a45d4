"""The gateway's numbers for a Prometheus-compatible scraper, as OpenMetrics text (OpenMetrics 1.0).

Written by hand because it is two kinds of numbers and the request path pays for each: a counter is a dictionary entry, a
histogram a list of counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from andon.serving.table import Table

CONTENT_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_LABELS = ("endpoint", "model", "version", "arm", "code")
Key = tuple[str, str, str, str, str]


class Metrics:
    """Counts of one gateway process since it began. For the event loop's thread only."""

    def __init__(self, worker: int) -> None:
        self._worker = str(worker)
        self._requests: dict[Key, int] = {}
        self._durations: dict[str, tuple[list[int], list[float]]] = {}
        self.inflight = 0

    def count(self, endpoint: str, model: str, version: str, arm: str, code: int, number: int = 1) -> None:
        """Count answers. Only names that the gateway knows may be given: each new one is a new time series."""
        key = (endpoint, model, version, arm, str(code))
        self._requests[key] = self._requests.get(key, 0) + number

    def observe(self, endpoint: str, seconds: float) -> None:
        """Note how long an answer took, from the request's headers to the answer's."""
        if endpoint not in self._durations:
            self._durations[endpoint] = ([0] * (len(BUCKETS_S) + 1), [0.0])
        counts, total = self._durations[endpoint]
        counts[bisect_left(BUCKETS_S, seconds)] += 1
        total[0] += seconds

    def text(self, table: Table) -> bytes:
        """All families in OpenMetrics text."""
        lines = _family(
            "andon_requests", "counter", "Answers, by what gave them; a batch counts each record."
        )
        for key, number in sorted(self._requests.items()):
            lines.append(self._sample("andon_requests_total", dict(zip(_LABELS, key, strict=True)), number))
        lines += _family(
            "andon_request_duration_seconds", "histogram", "Time in the gateway.", unit="seconds"
        )
        for endpoint, (counts, total) in sorted(self._durations.items()):
            lines += self._histogram(
                "andon_request_duration_seconds", {"endpoint": endpoint}, counts, total[0]
            )
        lines += _family("andon_inflight_requests", "gauge", "Requests that are being read or answered.")
        lines.append(self._sample("andon_inflight_requests", {}, self.inflight))
        lines += self._routes(table)
        return "\n".join([*lines, "# EOF", ""]).encode()

    def _routes(self, table: Table) -> Iterable[str]:
        routes = [endpoint.route for _, endpoint in sorted(table.endpoints.items())]
        yield from _family("andon_route_generation", "gauge", "The generation of the route in force.")
        for route in routes:
            labels = {"endpoint": route.endpoint, "epoch": str(route.epoch)}
            yield self._sample("andon_route_generation", labels, route.generation)
        yield from _family("andon_model", "info", "The models that an endpoint's route names.")
        for route in routes:
            for arm in route.arms:
                labels = {
                    "endpoint": route.endpoint, "arm": arm.role, "model": arm.model, "version": str(arm.version),
                    "release": arm.release, "digest": arm.digest,
                }  # fmt: skip
                yield self._sample("andon_model_info", labels, 1)

    def _histogram(
        self, name: str, labels: Mapping[str, str], counts: list[int], total: float
    ) -> Iterable[str]:
        so_far = 0
        for bound, number in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
            so_far += number
            yield self._sample(f"{name}_bucket", {**labels, "le": bound}, so_far)
        yield self._sample(f"{name}_count", labels, so_far)
        yield self._sample(f"{name}_sum", labels, total)

    def _sample(self, name: str, labels: Mapping[str, str], value: float) -> str:
        shown = ",".join(
            f'{key}="{text.translate(_ESCAPES)}"' for key, text in (*labels.items(), ("worker", self._worker))
        )
        return f"{name}{{{shown}}} {value}"


def _family(name: str, kind: str, text: str, *, unit: str = "") -> list[str]:
    return [f"# TYPE {name} {kind}", *([f"# UNIT {name} {unit}"] if unit else []), f"# HELP {name} {text}"]
