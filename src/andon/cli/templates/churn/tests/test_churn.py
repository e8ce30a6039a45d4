"""Run with pytest in this folder."""

import polars as pl
from churn import features, pipeline


def test_the_model_is_made_of_the_features_it_names() -> None:
    rows = pl.read_csv("customers.csv").head(500)

    expressions, model = pipeline(rows, seed=7)

    assert model.feature_name() == [expression.meta.output_name() for expression in features(rows)]
    assert rows.select(expressions).height == 500
