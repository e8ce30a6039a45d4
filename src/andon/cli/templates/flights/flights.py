"""The model: what is known at scheduled departure, and a gradient-boosted tree on it. Plain Python, no Andon import."""

import lightgbm as lgb
import polars as pl

CATEGORIES = ("carrier", "origin", "dest")
NUMBERS = (
    "distance", "seats", "plane_year", "temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib",
)  # fmt: skip


def features(rows: pl.DataFrame) -> list[pl.Expr]:
    """Expressions over the raw columns; the codes of categories are learned from the rows given."""
    made = [minute("sched_dep_time").alias("dep_minute"), minute("sched_arr_time").alias("arr_minute")]
    made.append(pl.col("weekday").cast(pl.Float64).alias("weekday"))
    for name in CATEGORIES:
        levels = rows[name].drop_nulls().unique().sort().to_list()
        codes = {level: float(code) for code, level in enumerate(levels)}
        made.append(pl.col(name).replace_strict(codes, default=None, return_dtype=pl.Float64).alias(name))
    made += [pl.col(name).cast(pl.Float64).alias(name) for name in NUMBERS]
    return made


def minute(column: str) -> pl.Expr:
    """Minutes since midnight of a clock time written as hhmm."""
    return (pl.col(column) // 100 * 60 + pl.col(column) % 100).cast(pl.Float64)


def pipeline(
    rows: pl.DataFrame, *, seed: int, num_leaves: int = 31, rounds: int = 100, learning_rate: float = 0.05
) -> tuple[list[pl.Expr], lgb.Booster]:
    """Train on rows; what comes back answers live."""
    expressions = features(rows)
    table = rows.select(expressions)
    data = lgb.Dataset(
        table.to_numpy(),
        rows["late"].to_numpy(),
        feature_name=table.columns,
        categorical_feature=list(CATEGORIES),
    )
    settings = {
        "objective": "binary", "num_leaves": num_leaves, "learning_rate": learning_rate, "seed": seed,
        "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbose": -1,
    }  # fmt: skip
    return expressions, lgb.train(settings, data, num_boost_round=rounds)
