"""The line that is tormented: a small made-up table, a small model, and a policy under which something always happens."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

NAME = "chaos"
FIRST_ROWS = 900

_POLICY = """\
[line]
name = "chaos"
entry = "churn:pipeline"
clock = "data"

[data.customers]
source = "customers.csv"
key = "customer"
label = "left"

[train]
seed = 7
holdout = 0.3
params = { rounds = 8 }

[gate]
auc = ">= 0.5"
"auc vs live" = ">= -0.4 absolute"

[release]
endpoint = "chaos"
strategy = "canary"
steps = [10, 40, 100]
min_requests = 5
noninferior_odds = 50.0
alpha = 0.2

[monitor]
drift = { false_alarms = "1 per 1000 windows", window = "10m" }
labels = { delay = "1m" }

[monitor.metrics]
auc = { over = "10m", drop = "0.4 absolute" }

[retrain]
when = ["data", "code"]
cooldown = "1m"
"""

_CODE = """\
import lightgbm as lgb
import polars as pl


def pipeline(rows, *, seed, rounds):
    plans = {"free": 0.0, "team": 1.0, "pro": 2.0}
    features = [
        pl.col("spend").cast(pl.Float64),
        pl.col("visits").cast(pl.Float64),
        pl.col("plan").replace_strict(plans, default=None, return_dtype=pl.Float64),
    ]
    table = rows.select(features)
    data = lgb.Dataset(table.to_numpy(), rows["left"].to_numpy(), feature_name=table.columns)
    settings = {
        "objective": "binary", "num_leaves": 7, "seed": seed, "deterministic": True, "force_row_wise": True,
        "num_threads": 1, "verbose": -1,
    }
    return features, lgb.train(settings, data, num_boost_round=rounds)
"""


def draw(rng: Random) -> tuple[dict[str, Any], int]:
    """A customer, and whether they left."""
    spend, visits, plan = (
        round(rng.lognormvariate(3.0, 0.7), 2),
        rng.randrange(0, 40),
        rng.choice(["free", "team", "pro"]),
    )
    pull = 1.2 - 0.12 * visits + (1.0 if plan == "free" else 0.0) + 0.01 * spend
    return {"spend": spend, "visits": visits, "plan": plan}, int(rng.random() < 1 / (1 + math.exp(-pull)))


class Source:
    """The table in its file. It only grows, and is replaced in whole, as a careful exporter would."""

    def __init__(self, path: Path, rng: Random) -> None:
        self._path = path
        self._rng = rng
        self._lines = ["customer,spend,visits,plan,left"]

    def grow(self, rows: int) -> None:
        for _ in range(rows):
            record, left = draw(self._rng)
            self._lines.append(",".join(map(str, [len(self._lines), *record.values(), left])))
        fresh = self._path.with_suffix(".new")
        fresh.write_text("\n".join(self._lines) + "\n")
        fresh.replace(self._path)


def make(folder: Path, rng: Random, *, clock: str = "data") -> Source:
    """The project in a folder, made when it is missing, with its first rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "andon.toml").write_text(_POLICY.replace('clock = "data"', f'clock = "{clock}"'))
    (folder / "churn.py").write_text(_CODE)
    source = Source(folder / "customers.csv", rng)
    source.grow(FIRST_ROWS)
    return source
