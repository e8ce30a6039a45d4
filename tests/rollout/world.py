"""A real workspace whose releases roll, and answers to judge them by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from msgspec.structs import replace

from andon.core.canonical import digest_bytes
from andon.core.clock import to_us
from andon.core.entities import Release, Rollout, RouteRow
from andon.core.ids import OverrideId, PredictionId, ReleaseId, new_id, prediction_id
from andon.core.policy import ReleasePolicy
from andon.core.predictions import PredictionRecord
from andon.core.routes import EndpointRoute, Override, encode_override
from andon.core.workspace import Layout
from andon.registry import judging, start_rolling
from andon.rollout import Evidence, advance_step, finish, gather, rollout_of, route_file, start, switch, undo
from andon.store.files import append_line
from andon.store.keys import route_key
from andon.store.ports import Transaction
from tests.registry.world import RegistryWorld

START = datetime(2013, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)
EVIDENCE = digest_bytes(b"evidence")
POLICY = ReleasePolicy(endpoint="churn", steps=(10, 50, 100), min_requests=20)
OLD, NEW = ReleaseId("old"), ReleaseId("new")


class RolloutWorld(RegistryWorld):
    """Verbs of rollouts with the boring arguments filled in. Each call is one transaction."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.layout = Layout(root)

    def rolling(self, content: str = "") -> Release:
        """A release of a fresh version that passed its gates and may take traffic."""
        version = self.version(content)
        verdict = self.verdict(version)
        release = self.request(version)
        return self.do(start_rolling, self.do(judging, release), verdict)

    def start(self, release: Release, policy: ReleasePolicy = POLICY) -> Rollout:
        return self.do(start, release, policy, data_at=START)

    def advance(self, rollout: Rollout) -> Rollout:
        step = rollout.step + 1
        return self.do(advance_step, rollout, step, evidence=EVIDENCE, because="it does well", data_at=START)

    def switch(self, rollout: Rollout) -> Rollout:
        return self.do(switch, rollout, evidence=EVIDENCE, because="it is as good")

    def finish(self, rollout: Rollout) -> Rollout:
        return self.do(finish, rollout)

    def undo(self, **changes: Any) -> tuple[ReleaseId, ReleaseId]:
        return self.do(undo, "churn", **{"because": "it is wrong", "hold": True, **changes})

    def live(self, content: str = "") -> Release:
        """A release that went all the way."""
        release = self.rolling(content)
        rollout = self.start(release)
        if rollout.state == "canary":
            rollout = self.switch(rollout)
        self.finish(rollout)
        return self.release(release.id)

    def release(self, ident: ReleaseId) -> Release:
        return self.read(lambda reader: reader.releases.get(ident))

    def rollout(self, release: Release) -> Rollout:
        found = self.read(lambda reader: rollout_of(reader, release.id))
        assert found is not None
        return found

    def route(self) -> RouteRow:
        return self.read(lambda reader: reader.routes.get("churn"))

    def published(self) -> EndpointRoute:
        return self.read(route_file).endpoints["churn"]

    def new_epoch(self) -> int:
        """What a restore does to the epoch."""

        def work(tx: Transaction) -> int:
            row = tx.workspaces.get("workspace")
            return tx.workspaces.change(replace(row, epoch=row.epoch + 1)).epoch

        return self.write(work)

    def override(self, release: ReleaseId, **changes: Any) -> Override:
        """An undo that a gateway made on the route as it is published now."""
        route = self.published()
        settings: dict[str, Any] = {
            "id": OverrideId(new_id("override")), "endpoint": "churn", "epoch": route.epoch, "generation": route.generation,
            "release": release, "actor": "os:1000", "at_us": to_us(START), "reason": "it is wrong",
        }  # fmt: skip
        return Override(**{**settings, **changes})

    def journal(self, *overrides: Override) -> None:
        for override in overrides:
            append_line(self.layout.overrides, encode_override(override, route_key(self.layout)))


def answer(
    number: int, *, candidate: bool = False, share: float = 0.1, failed: bool = False, output: float = 0.2,
    entity: str | None = None, at: datetime = START, data_at: datetime | None = None, generation: int = 300,
    epoch: int = 1, release: ReleaseId | None = None,
) -> PredictionRecord:  # fmt: skip
    """One answer of either arm; `number` makes its id and moves its time by a millisecond."""
    at_us = to_us(at) + 1000 * number
    return PredictionRecord(
        v=1, id=UUID(prediction_id(at_us // 1000, 7, number)).bytes, at_us=at_us,
        data_at_us=None if data_at is None else to_us(data_at), endpoint="churn",
        release=release or (NEW if candidate else OLD), model="churn", version=1, epoch=epoch, generation=generation,
        arm="candidate" if candidate else "stable", propensity=share, entity=entity, status=500 if failed else 200,
        inputs={}, features=[], output=None if failed else output, error="it failed" if failed else None, micros=1,
    )  # fmt: skip


def gathered(
    records: Iterable[PredictionRecord], labels: dict[PredictionId, float] | None = None, **changes: Any
) -> Evidence:
    settings: dict[str, Any] = {
        "candidate": NEW, "stable": OLD, "began": (1, 100), "share": 0.1, "closed_until": START + 9 * DAY, "horizon": DAY,
        "margin_odds": 1.5, "expects_labels": labels is not None,
    }  # fmt: skip
    return gather(records, labels or {}, **{**settings, **changes})


def traffic(
    rng: np.random.Generator, count: int, *, first: int, share: float, failing: Sequence[float] = (0.0, 0.0),
    wrong: Sequence[float] = (0.2, 0.2), at: datetime = START,
) -> tuple[list[PredictionRecord], dict[PredictionId, float]]:  # fmt: skip
    """Requests assigned by chance, with rates of failures and of wrong decisions of (stable, candidate), and their labels."""
    records: list[PredictionRecord] = []
    labels: dict[PredictionId, float] = {}
    draws = rng.random((count, 4))
    for k, (assigned, fails, errs, output) in enumerate(draws):
        arm = int(assigned < share)
        record = answer(
            first + k,
            candidate=bool(arm),
            share=share,
            failed=bool(fails < failing[arm]),
            output=float(output),
            at=at,
        )
        records.append(record)
        right = float(output >= 0.5)
        labels[record.prediction_id] = 1.0 - right if errs < wrong[arm] else right
    return records, labels
