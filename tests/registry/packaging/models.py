"""Small models and tables that the tests of packaging share."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from lightgbm import Booster

Floats = npt.NDArray[np.float64]

PLAIN = {"verbosity": -1, "num_threads": 1, "deterministic": True, "seed": 7, "min_data_in_leaf": 5}


def train(matrix: Floats, label: Floats, *, rounds: int = 12, **params: Any) -> Booster:
    """A small booster; `names` and `categorical` go to the dataset, all else to LightGBM."""
    import lightgbm

    data = lightgbm.Dataset(
        matrix,
        label=label,
        feature_name=params.pop("names", "auto"),
        categorical_feature=params.pop("categorical", "auto"),
        params={"verbosity": -1},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM warns of its own aliases; what it trains is what is tested
        return lightgbm.train({**PLAIN, "objective": "binary", **params}, data, num_boost_round=rounds)


def matrix(rows: int, columns: int, *, seed: int = 1, missing: float = 0.1) -> Floats:
    """Random features, some of them missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns))
    values[rng.random(values.shape) < missing] = np.nan
    return values


def flights(rows: int = 400, *, seed: int = 3) -> pl.DataFrame:
    """A made-up table with a column of each kind and a label that depends on them."""
    rng = np.random.default_rng(seed)
    distance = rng.integers(90, 3000, rows)
    wind = rng.gamma(2.0, 5.0, rows)
    carrier = rng.choice(["AA", "B6", "UA", "WN"], rows)
    heavy = rng.random(rows) < 0.3
    odds = 0.08 * wind - 0.0005 * distance + 0.8 * (carrier == "UA") + 0.5 * heavy - 0.6
    return pl.DataFrame(
        {
            "distance": distance,
            "wind": [
                None if gone else float(value)
                for gone, value in zip(rng.random(rows) < 0.1, wind, strict=True)
            ],
            "carrier": carrier,
            "heavy": heavy,
            "late": (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int64),
        }
    )


CARRIERS = {"AA": 0, "B6": 1, "UA": 2}


def expressions() -> list[pl.Expr]:
    """Feature expressions over `flights`: arithmetic, a missing value, a category map, a branch, a learned number."""
    return [
        (pl.col("distance") / 1000).alias("thousand_miles"),
        pl.col("wind"),
        ((pl.col("wind") - 10.043216546216546) / 7.000000000000001).alias("wind_z"),
        pl.col("wind").is_null().alias("wind_unknown"),
        pl.col("carrier").replace_strict(CARRIERS, default=None, return_dtype=pl.Float64).alias("carrier"),
        pl.when(pl.col("heavy")).then(pl.col("distance").log()).otherwise(0.0).alias("heavy_distance"),
    ]


def flight_booster(rows: pl.DataFrame | None = None, **params: Any) -> Booster:
    """A booster on `expressions()` of flights."""
    table = flights() if rows is None else rows
    features = table.select(expression.cast(pl.Float64) for expression in expressions())
    return train(
        features.to_numpy(), table["late"].to_numpy().astype(np.float64), names=features.columns, **params
    )
