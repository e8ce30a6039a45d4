"""A real workspace that answered for a while: a version with its profile, predictions in a real log, labels in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import polars as pl

from andon.core.canonical import digest_bytes, digest_value
from andon.core.clock import SystemClock, to_us
from andon.core.entities import Feedback, ModelVersion, MonitorWindow, Point
from andon.core.ids import ActorId, PredictionId, ReleaseId, prediction_id
from andon.core.policy import MetricRule, MonitorPolicy
from andon.core.predictions import VERSION, PredictionRecord
from andon.data.profiles import build_profile
from andon.monitoring.recent import Recent
from andon.monitoring.watch import Watch, Watched
from andon.registry import register_version
from andon.store.blobs import LocalBlobs
from andon.store.ports import Reader, Transaction
from andon.store.predictions import SegmentLog
from andon.store.predictions_writer import SegmentWriter
from tests.registry.world import RegistryWorld

T = TypeVar("T")
DAY = timedelta(days=1)
START = datetime(2013, 4, 4, tzinfo=UTC)  # a Thursday, as the first day of 1970: weeks of the grid begin here
POLICY = MonitorPolicy(
    window=DAY,
    false_alarms_per=100,
    label_horizon=DAY,
    metrics=(MetricRule(metric="auc", over=7 * DAY, drop=0.03),),
)


def scored(rng: np.random.Generator, rows: int, *, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels with a base rate of 0.3 and scores that rank them: AUC is about 0.76 at skill 1, 0.5 at 0."""
    truth = (rng.random(rows) < 0.3).astype(float)
    raw = rng.normal(size=rows) + skill * truth
    return truth, 1 / (1 + np.exp(-raw))


class MonitoringWorld:
    """Verbs with the boring arguments filled in."""

    def __init__(self, root: Path) -> None:
        self.registry = RegistryWorld(root)
        self.store = self.registry.store
        self.actor: ActorId = self.registry.line_actor
        self.blobs = LocalBlobs(root / "blobs")
        self.folder = root / "predictions"
        self.folder.mkdir(exist_ok=True)
        self.log = SegmentLog(self.folder, self.store, self.blobs, SystemClock())
        self.writer = SegmentWriter(self.folder, SystemClock())

    def close(self) -> None:
        self.writer.close()
        self.registry.close()

    def write(self, work: Callable[[Transaction], T]) -> T:
        return self.store.write(work)

    def read(self, work: Callable[[Reader], T]) -> T:
        return self.store.read(work)

    def recent(self, **settings: Any) -> Recent:
        return Recent(self.store, self.log, **{"span": 60 * DAY, **settings})

    def version(
        self, rng: np.random.Generator, *, auc: tuple[float, float, float] | None = None
    ) -> ModelVersion:
        """A version trained on 90 days of two columns, `x` and `c`, with the AUC of its holdout."""
        rows = 90 * 300
        frame = pl.DataFrame(
            {
                "at": [START - 90 * DAY + 90 * DAY * (number / rows) for number in range(rows)],
                "x": rng.normal(size=rows),
                "c": rng.choice(["a", "b", "c"], rows),
            }
        )
        profile = build_profile(frame, ["x", "c"], time="at", window=DAY)
        run = self.registry.run()
        if auc:
            at_ms = to_us(self.registry.now()) // 1000
            points = [
                Point(key, value, at_ms)
                for key, value in zip(("auc", "auc_low", "auc_high"), auc, strict=True)
            ]
            self.write(lambda tx: tx.metrics.log(tx.runs.get(run), points))
        return self.registry.do(
            register_version, model="churn", run=run, digest=digest_bytes(run.encode()), dataset_version=digest_bytes(b"data"),
            profile=self.blobs.put(profile.to_bytes()), data_from=START - 90 * DAY, data_until=START,
        )  # fmt: skip

    def watched(self, version: ModelVersion, until: datetime = START) -> Watched:
        return Watched(line="churn", endpoint="churn", version=version, since=START, until=until)

    def watch(self, version: ModelVersion, policy: MonitorPolicy = POLICY) -> Watch:
        return Watch(self.store, self.blobs, self.watched(version), policy)

    def records(
        self, times: Iterable[datetime | None], *, version: int = 1, endpoint: str = "churn", status: int = 200,
        inputs: Iterable[Mapping[str, Any]] | None = None, outputs: Iterable[float] | None = None, at: datetime = START,
    ) -> list[PredictionRecord]:  # fmt: skip
        """Answers at domain times, in one append; wall times count up from `at` by a millisecond."""
        moments = list(times)
        given = list(inputs) if inputs is not None else [{"x": 0.0, "c": "a"}] * len(moments)
        scores = list(outputs) if outputs is not None else [0.5] * len(moments)
        number = self.writer.next_number()
        at_ms = to_us(at) // 1000
        made = [
            PredictionRecord(
                v=VERSION, id=UUID(prediction_id(at_ms + k, self.writer.boot, number + k)).bytes, at_us=(at_ms + k) * 1000,
                data_at_us=None if moment is None else to_us(moment), endpoint=endpoint, release=ReleaseId("rel_1"),
                model="churn", version=version, epoch=1, generation=100, arm="stable", propensity=0.0, entity=None,
                status=status, inputs=dict(given[k]), features=[], output=None if status >= 500 else scores[k],
                error="it failed" if status >= 500 else None, micros=50,
            )
            for k, moment in enumerate(moments)
        ]  # fmt: skip
        self.writer.append(made)
        return made

    def another_boot(self) -> None:
        """Another gateway, or the same one after a restart."""
        self.writer.close()
        self.writer = SegmentWriter(self.folder, SystemClock())

    def label(
        self,
        prediction: PredictionId,
        label: float,
        *,
        received_at: datetime,
        data_at: datetime | None = None,
    ) -> Feedback:
        said = [prediction, label.hex(), None if data_at is None else to_us(data_at)]
        return Feedback(
            id=digest_value("test", said), prediction=prediction, label=label, source="test", actor=self.actor,
            received_at=received_at, data_at=data_at,
        )  # fmt: skip

    def tell(self, rows: Iterable[Feedback]) -> None:
        """Commit feedback, in one transaction."""
        kept = list(rows)
        self.write(lambda tx: [tx.feedback.add(row) for row in kept])

    def windows(self, monitor: str) -> list[MonitorWindow]:
        return self.read(
            lambda reader: reader.monitor_windows.select({"monitor": monitor}, order=("data_from",))
        )
