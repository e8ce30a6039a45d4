"""The ctypes runtime answers as LightGBM's own Booster does, bit for bit, and refuses what it cannot answer."""

from __future__ import annotations

import gc
import importlib.util
import resource
import subprocess
import sys

import numpy as np
import pytest

from andon.core.errors import Corrupt, Invalid, MissingExtra
from andon.registry.packaging import lightgbm as runtime
from andon.registry.packaging.lightgbm import Booster, tree_digest
from tests.registry.packaging.models import Floats, matrix, train

CASES = {
    "binary": {},
    "binary, unbalanced": {"is_unbalance": True},
    "cross entropy": {"objective": "cross_entropy"},
    "regression": {"objective": "regression"},
    "absolute": {"objective": "regression_l1"},
    "poisson": {"objective": "poisson"},
    "quantile": {"objective": "quantile"},
    "random forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "dart": {"boosting": "dart"},
    "linear trees": {"objective": "regression", "linear_tree": True},
    "zero as missing": {"zero_as_missing": True},
    "categorical": {"categorical": [0, 1]},
}


def same_bits(a: Floats, b: Floats) -> bool:
    return a.dtype == b.dtype == np.float64 and a.tobytes() == b.tobytes()


def table(case: str, rows: int = 600) -> tuple[Floats, Floats]:
    values = matrix(rows, 6)
    rng = np.random.default_rng(5)
    if case == "categorical":
        values[:, :2] = rng.integers(0, 30, (rows, 2))
    label = (
        np.nan_to_num(values[:, 2]) + values[:, 0].round().clip(-3, 3) * 0.1 + rng.normal(size=rows) > 0
    ).astype(float)
    return values, label


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_lightgbm_bit_for_bit(case: str) -> None:
    values, label = table(case)
    booster = train(values, label, **CASES[case])
    odd = np.full((4, 6), [[np.nan], [np.inf], [-np.inf], [0.0]])
    strange = np.vstack([matrix(300, 6, seed=9, missing=0.3), odd])
    strange[:40, :2] = np.arange(80).reshape(40, 2)

    ours = Booster(booster.model_to_string())

    expected = booster.predict(strange, num_threads=1)
    assert same_bits(ours.predict(strange), expected)
    assert same_bits(np.array([ours.predict_row(list(row)) for row in strange]), expected)
    ours.close()


def test_early_stopping_keeps_the_best_round() -> None:
    import lightgbm

    values, label = table("binary")
    data = lightgbm.Dataset(values, label=label, params={"verbosity": -1})
    held = lightgbm.Dataset(matrix(200, 6, seed=4), label=np.arange(200) % 2, reference=data)
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1}, data, num_boost_round=60, valid_sets=[held],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )  # fmt: skip

    ours = Booster(booster.model_to_string())

    assert 0 < ours.rounds == booster.best_iteration < 60
    assert same_bits(ours.predict(values), booster.predict(values, num_threads=1))


def test_a_matrix_in_any_layout_gives_the_same_answers() -> None:
    values, label = table("binary")
    ours = Booster(train(values, label).model_to_string())
    expected = ours.predict(values)

    assert same_bits(ours.predict(np.asfortranarray(values)), expected)
    assert same_bits(ours.predict(np.repeat(values, 2, axis=0)[::2]), expected)
    assert ours.predict(values[:0]).shape == (0,)


def test_names_and_kind_of_output_come_from_the_text() -> None:
    values, label = table("binary")
    names = [f"a_rather_long_name_of_feature_number_{i}" for i in range(6)]

    classifier = Booster(train(values, label, names=names).model_to_string())
    regressor = Booster(train(values, label, objective="regression").model_to_string())

    assert (classifier.features, classifier.output) == (tuple(names), "probability")
    assert (regressor.features, regressor.output) == (tuple(f"Column_{i}" for i in range(6)), "value")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"objective": "multiclass", "num_class": 3}, "'multiclass' cannot be served"),
        ({"objective": "multiclassova", "num_class": 3}, "'multiclassova' cannot be served"),
    ],
)
def test_models_of_several_numbers_are_refused(params: dict[str, object], said: str) -> None:
    values, _ = table("binary")

    with pytest.raises(Invalid, match=said):
        Booster(train(values, np.arange(600) % 3.0, **params).model_to_string())


def test_a_ranking_model_is_refused() -> None:
    import lightgbm

    values, label = table("binary")
    data = lightgbm.Dataset(values, label=label, group=[100] * 6, params={"verbosity": -1})
    booster = lightgbm.train({"objective": "lambdarank", "verbosity": -1}, data, num_boost_round=3)

    with pytest.raises(Invalid, match="'lambdarank' cannot be served"):
        Booster(booster.model_to_string())


def test_a_model_that_needs_pandas_categories_is_refused() -> None:
    values, label = table("binary")
    text = (
        train(values, label)
        .model_to_string()
        .replace("pandas_categorical:null", 'pandas_categorical:[["a","b"]]')
    )

    with pytest.raises(Invalid, match="pandas categories"):
        Booster(text)


@pytest.mark.parametrize("text", ["tree\nobjective=binary sigmoid:1\n", "objective=regression\nrubbish\n"])
def test_a_text_that_is_no_model_is_corrupt(text: str) -> None:
    with pytest.raises(Corrupt, match="cannot read the model text"):
        Booster(text)


@pytest.mark.parametrize("shape", [(3, 5), (3, 7), (6,)])
def test_a_matrix_of_another_width_is_refused(shape: tuple[int, ...]) -> None:
    values, label = table("binary")
    ours = Booster(train(values, label).model_to_string())

    with pytest.raises(Invalid, match="6 features"):
        ours.predict(np.zeros(shape))
    with pytest.raises(ValueError, match="size"):
        ours.predict_row([1.0] * 5)


def test_a_closed_model_refuses_to_answer() -> None:
    values, label = table("binary")
    ours = Booster(train(values, label).model_to_string())

    ours.close()
    ours.close()

    with pytest.raises(Invalid, match="closed"):
        ours.predict(values)
    with pytest.raises(Invalid, match="closed"):
        ours.predict_row([0.0] * 6)


def test_opening_and_closing_models_leaks_no_memory() -> None:
    values, label = table("binary")
    text = train(values, label, rounds=40, num_leaves=31).model_to_string()

    def cycles(number: int) -> int:
        for _ in range(number):
            Booster(text).close()
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = cycles(100)
    grown_kb = cycles(500) - before

    assert grown_kb < 500 * len(text) / 1024 / 10


def test_the_digest_of_trees_ignores_the_machine_that_trained_them() -> None:
    values, label = table("binary")
    one, two = (train(values, label, num_threads=threads).model_to_string() for threads in (1, 2))
    other = train(values, 1 - label).model_to_string()

    assert one != two
    assert tree_digest(one) == tree_digest(two)
    assert tree_digest(one) != tree_digest(other)


def test_answering_imports_neither_lightgbm_nor_scipy() -> None:
    values, label = table("binary")
    text = train(values, label).model_to_string()
    program = (
        "import sys, numpy as np\n"
        "from andon.registry.packaging.lightgbm import Booster\n"
        "Booster(sys.stdin.read()).predict(np.zeros((2, 6)))\n"
        "print([name for name in ('lightgbm', 'scipy', 'sklearn', 'pandas', 'sqlalchemy') if name in sys.modules])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], input=text, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_without_lightgbm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    values, label = table("binary")
    text = train(values, label).model_to_string()
    runtime._library.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(MissingExtra, match=r'pip install "andon\[lightgbm\]"'):
        Booster(text)

    runtime._library.cache_clear()
