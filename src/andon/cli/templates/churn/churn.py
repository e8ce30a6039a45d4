"""The model: plain Python on polars and LightGBM. Nothing here imports Andon, so it is tested like any other code."""

import lightgbm as lgb
import polars as pl

CATEGORIES = ("plan", "region")
NUMBERS = ("tenure_months", "monthly_fee", "tickets_90d", "usage_hours", "seats")


def features(rows: pl.DataFrame) -> list[pl.Expr]:
    """Expressions over the raw columns. The same ones make the training table and answer live requests."""
    made = [pl.col(name).cast(pl.Float64).alias(name) for name in NUMBERS]
    made.append((pl.col("monthly_fee") / (pl.col("usage_hours") + 1.0)).alias("fee_per_hour"))
    for name in CATEGORIES:
        levels = rows[name].drop_nulls().unique().sort().to_list()
        codes = {level: float(code) for code, level in enumerate(levels)}
        made.append(pl.col(name).replace_strict(codes, default=None, return_dtype=pl.Float64).alias(name))
    return made


def pipeline(
    rows: pl.DataFrame, *, seed: int, num_leaves: int = 15, rounds: int = 80
) -> tuple[list[pl.Expr], lgb.Booster]:
    """Train on rows. What comes back, expressions and model, is what goes live."""
    expressions = features(rows)
    table = rows.select(expressions)
    data = lgb.Dataset(
        table.to_numpy(),
        rows["churned"].to_numpy(),
        feature_name=table.columns,
        categorical_feature=list(CATEGORIES),
    )
    settings = {
        "objective": "binary", "num_leaves": num_leaves, "learning_rate": 0.05, "seed": seed,
        "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbose": -1,
    }  # fmt: skip
    return expressions, lgb.train(settings, data, num_boost_round=rounds)
