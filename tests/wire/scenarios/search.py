"""Runs found again: the whole grammar of filters, the order of answers, and pages."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from wire import client, experiment, refused, run


@cache
def world() -> tuple[str, dict[str, str]]:
    """An experiment of runs a to f, and their ids: some lack a metric, one has NaN, two tie."""
    made = experiment()
    rows: list[tuple[str, float | None, str | None, str]] = [
        ("a", 0.5, "adam", "x"), ("b", 0.9, "sgd", "y"), ("c", math.nan, "Adam", "x"), ("d", None, None, "z"),
        ("e", 0.5, "adamw", "y"), ("f", -math.inf, "sgd", "x"),
    ]  # fmt: skip
    ids = {}
    for number, (name, auc, optimiser, team) in enumerate(rows):
        run_id = ids[name] = run(made, start_time=1_700_000_000_000 + number, run_name=f"run-{name}")
        client.log_batch(
            run_id,
            metrics=[] if auc is None else [Metric("auc", auc, 1, 0), Metric("val/loss 1", number, 1, 0)],
            params=[] if optimiser is None else [Param("optimiser", optimiser), Param("number", str(number))],
            tags=[RunTag("team", team), RunTag("dotted.key with space", f"v{number}")],
        )
    client.set_terminated(ids["a"], "FINISHED", end_time=1_700_000_001_000)
    client.set_terminated(ids["b"], "FAILED", end_time=1_700_000_002_000)
    return made, ids


def found(text: str, order: list[str] | None = None, **more: Any) -> str:
    """The letters of the runs that a filter finds, in the order of the answer."""
    made, ids = world()
    letters = {run_id: letter for letter, run_id in ids.items()}
    return "".join(
        letters[r.info.run_id] for r in client.search_runs([made], text, order_by=order or [], **more)
    )


def expect(rows: dict[str, str]) -> None:
    """Each filter finds these letters, in any order."""
    wrong = {
        text: (got, want) for text, want in rows.items() if (got := "".join(sorted(found(text)))) != want
    }
    assert wrong == {}, wrong


def check_metrics_are_compared() -> None:
    expect({
        "metrics.auc = 0.5": "ae", "metrics.auc != 0.5": "bcf", "metrics.auc > 0.5": "b",
        "metrics.auc >= 0.5": "abe", "metrics.auc < 0.5": "f", "metrics.auc <= 0.5": "aef", "metric.auc > -1": "abe",
        "metrics.auc > 1e-3": "abe", "metrics.`val/loss 1` >= 4": "ef", 'metrics."val/loss 1" < 1': "a",
        "metrics.nothing > 0": "",
    })  # fmt: skip


def check_parameters_and_tags_are_compared() -> None:
    expect({
        "params.optimiser = 'adam'": "a", 'params.optimiser = "sgd"': "bf", "params.optimiser != 'sgd'": "ace",
        "params.optimiser LIKE 'adam%'": "ae", "params.optimiser ILIKE 'ADAM%'": "ace", "param.optimiser LIKE '_dam'": "ac",
        "parameter.optimiser = 'sgd'": "bf", "parameters.optimiser = 'sgd'": "bf",
        "tags.team = 'x'": "acf", "tag.team != 'x'": "bde", "tags.team LIKE '%y%'": "be", "tags.team ILIKE 'Z'": "d",
        "tags.`dotted.key with space` = 'v3'": "d", 'tags."dotted.key with space" = \'v4\'': "e",
        "tags.mlflow.runName = 'run-b'": "b", "tags.nothing = 'x'": "", "tags.nothing != 'x'": "",
    })  # fmt: skip


def check_runs_that_lack_a_key_are_found() -> None:
    expect({
        "params.optimiser IS NULL": "d", "params.optimiser IS NOT NULL": "abcef",
        "tags.nothing IS NULL": "abcdef", "tags.team IS NOT NULL": "abcdef",
    })  # fmt: skip


def check_attributes_are_compared() -> None:
    _, ids = world()
    expect({
        "attributes.status = 'RUNNING'": "cdef", "attributes.status != 'RUNNING'": "ab", "status = 'FAILED'": "b",
        "attribute.run_name = 'run-a'": "a", "attr.run_name LIKE 'run-%'": "abcdef", "run_name ILIKE 'RUN-F'": "f",
        "run.run_name = 'run-e'": "e", "attributes.`run name` = 'run-c'": "c", "attributes.\"Run name\" = 'run-c'": "c",
        "start_time > 1700000000003": "ef", "attributes.start_time <= 1700000000001": "ab",
        "start_time = 1700000000002": "c", "attributes.created = 1700000000002": "c", "end_time >= 1700000002000": "b",
        f"run_id = '{ids['d']}'": "d", f"attributes.run_id != '{ids['d']}'": "abcef",
        f"run_id IN ('{ids['a']}', '{ids['f']}')": "af", f"attributes.run_id NOT IN ('{ids['a']}','{ids['f']}')": "bcde",
        f"run_id IN ('{ids['a']}')": "a",
    })  # fmt: skip


def check_the_place_of_the_artifacts_is_compared() -> None:
    _, ids = world()
    place = client.get_run(ids["c"]).info.artifact_uri

    expect({f"artifact_uri = '{place}'": "c", f"attributes.artifact_uri LIKE '%{ids['d']}/artifacts'": "d"})


def check_conditions_are_joined_by_and() -> None:
    expect({
        "": "abcdef",
        "metrics.auc >= 0.5 AND params.optimiser LIKE 'adam%'": "ae",
        "metrics.auc >= 0.5 and params.optimiser LIKE 'adam%' and tags.team = 'x' AND status = 'FINISHED'": "a",
        "tags.team = 'x' AND tags.`dotted.key with space` = 'v2'": "c",
        "metrics.auc > 0.1 AND metrics.auc < 0.6": "ae",
        "tags.team = 'nobody AND somebody'": "",
    })  # fmt: skip


def check_quotes_and_wildcards_inside_values_mean_themselves() -> None:
    made = experiment()
    values = [
        "it's",
        'say "so"',
        "50%",
        "a_b",
        "back\\slash",
        "ünïcode",
        "x; DROP TABLE runs",
        "(paren)",
        "a = 'b",
    ]
    ids = {value: run(made, tags={"v": value}) for value in values}

    def one(text: str) -> list[str]:
        return [r.info.run_id for r in client.search_runs([made], text)]

    for value in ('say "so"', "50%", "a_b", "back\\slash", "ünïcode", "x; DROP TABLE runs", "(paren)"):
        assert one(f"tags.v = '{value}'") == [ids[value]], value
    assert one('tags.v = "it\'s"') == [ids["it's"]]
    assert set(one("tags.v LIKE '%o%'")) == {ids['say "so"'], ids["ünïcode"]}


def check_what_is_no_filter_is_refused() -> None:
    made, _ = world()
    for bad in (
        "nonsense", "metrics.auc", "metrics.auc >", "metrics.auc > 'a'", "metrics.auc LIKE '1'", "params.a > '1'",
        "params.optimiser = adam", "tags.team = 1", "attributes.colour = 'x'", "colours.a = 'x'", "status > 'RUNNING'",
        "metrics.auc > 0.5 OR metrics.auc < 0.1", "metrics.auc = NaN", "(metrics.auc > 0.5)",
        "not metrics.auc > 1", "METRICS.auc > 0.5", "metrics.auc > '0.5'", "tags.team IN ('x', 'y')", "status = RUNNING",
        "metrics.auc = 0.5;", "start_time LIKE '1%'", "start_time = 'x'", "metrics.auc IS NULL", "run_id IN ()",
        "params.optimiser == 'sgd'", "tags.team = 'x", "metrics.auc > 0.5; DROP TABLE runs",
    ):  # fmt: skip
        with refused("INVALID_PARAMETER_VALUE"):
            raise AssertionError(bad, len(client.search_runs([made], bad)))


def check_answers_come_in_the_order_asked_for() -> None:
    rows = {
        ("metrics.auc DESC",): "beafcd", ("metrics.auc ASC",): "feabcd", ("metrics.auc",): "feabcd",
        ("params.optimiser ASC", "start_time ASC"): "caebfd", ("param.optimiser DESC", "start_time ASC"): "bfeacd",
        ("tags.team", "metrics.auc DESC"): "afcbed", ("attributes.start_time ASC",): "abcdef", ("start_time DESC",): "fedcba",
        ("attribute.run_name DESC",): "fedcba", ("metrics.`val/loss 1` DESC",): "fecbad", (): "fedcba",
        ("end_time DESC", "start_time ASC"): "bacdef", ("status ASC", "start_time ASC"): "bacdef",
        ("metrics.nothing DESC",): "fedcba", ("tags.`dotted.key with space` DESC",): "fedcba",
    }  # fmt: skip
    wrong = {order: (got, want) for order, want in rows.items() if (got := found("", list(order))) != want}

    assert wrong == {}, wrong


def check_an_order_goes_with_a_filter() -> None:
    assert found("metrics.auc >= 0.5", ["metrics.auc DESC", "start_time ASC"]) == "bae"
    assert found("tags.team = 'x'", ["metrics.auc ASC"]) == "fac"
    assert found("tags.team = 'x'", ["metrics.auc ASC"], max_results=1) == "f"


def check_what_is_no_order_is_refused() -> None:
    made, _ = world()
    for bad in (
        "nonsense",
        "metrics.auc UP",
        "metrics",
        "attributes.colour",
        "metrics.auc DESC, start_time",
        "colours.a",
    ):
        with refused("INVALID_PARAMETER_VALUE"):
            assert not client.search_runs([made], order_by=[bad]), bad


def check_pages_hold_each_run_once() -> None:
    made, ids = world()
    letters = {run_id: letter for letter, run_id in ids.items()}

    def pages(order: list[str], size: int) -> list[str]:
        got, token = [], None
        while True:
            page = client.search_runs([made], order_by=order, max_results=size, page_token=token)
            got.append("".join(letters[r.info.run_id] for r in page))
            token = page.token
            if not token:
                return got

    assert [page for page in pages(["metrics.auc DESC"], 2) if page] == ["be", "af", "cd"]
    assert pages(["metrics.auc DESC"], 4) == ["beaf", "cd"]
    assert pages([], 4) == ["fedc", "ba"]
    assert pages(["tags.team ASC", "metrics.auc ASC"], 1)[:6] == list("fac" + "eb" + "d")
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_runs([made], page_token="not a token")


def check_limits_of_a_page_are_kept() -> None:
    made, _ = world()
    for bad in (0, -1, 50_001):
        with refused("INVALID_PARAMETER_VALUE"):
            client.search_runs([made], max_results=bad)
    assert len(client.search_runs([made], max_results=50_000)) == 6


def check_many_experiments_are_searched_at_once() -> None:
    made, other = experiment(), experiment()
    ids = {run(made, tags={"both": "1"}), run(other, tags={"both": "1"})}

    assert {r.info.run_id for r in client.search_runs([made, other], "tags.both = '1'")} == ids
    assert list(client.search_runs([], "tags.both = '1'")) == []


def check_a_found_run_is_whole() -> None:
    made, ids = world()
    (one,) = client.search_runs([made], "run_name = 'run-b'")

    assert one.to_dictionary() == client.get_run(ids["b"]).to_dictionary()


def check_the_answer_makes_a_table() -> None:
    made, _ = world()

    table = mlflow.search_runs([made], order_by=["start_time ASC"])

    assert table["tags.mlflow.runName"].tolist() == [f"run-{letter}" for letter in "abcdef"]
    assert table["metrics.auc"].tolist()[:2] == [0.5, 0.9]
    assert table["params.optimiser"].tolist()[:3] == ["adam", "sgd", "Adam"]
    assert table["status"].tolist()[:2] == ["FINISHED", "FAILED"]
