"""A filter means to Andon what it means to MLflow; what is no filter is refused with its place, in linear time."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from andon.core.errors import Invalid
from andon.core.search import Condition, DatasetScope, Field, Kind, Noun, Op, Order
from andon.tracking.grammar import (
    DATASET_KEYS,
    GRAMMARS,
    MAX_CONDITIONS,
    MAX_LENGTH,
    MAX_ORDER,
    Slot,
    logged_model_order,
    parse_filter,
    parse_order,
)

CASES = json.loads((Path(__file__).parent / "grammar_cases.json").read_text())
"""What MLflow 3.17.2 (its parser and its SQL store) made of a text: conditions or an order; null: refused."""
NOUNS: tuple[Noun, ...] = get_args(Noun)


def conditions(noun: Noun, text: str) -> list[list[Any]] | None:
    """The conditions as JSON has them, or None when they are refused."""
    try:
        found = parse_filter(noun, text)
    except Invalid:
        return None
    return [
        [
            one.field.kind,
            one.field.key,
            one.op,
            list(one.value) if isinstance(one.value, tuple) else one.value,
        ]
        for one in found
    ]


def attribute(noun: Noun, text: str) -> Condition:
    (found,) = parse_filter(noun, text)
    return found


def refusal(noun: Noun, text: str) -> str:
    with pytest.raises(Invalid) as caught:
        parse_filter(noun, text)
    assert (caught.value.code, caught.value.status, caught.value.field) == (
        "INVALID_PARAMETER_VALUE",
        400,
        "filter",
    )
    return str(caught.value)


# --- as MLflow has it ---


@pytest.mark.parametrize("noun", NOUNS)
def test_a_filter_means_what_it_means_to_mlflow(noun: Noun) -> None:
    cases = [(text, expected) for of, text, expected in CASES["filters"] if of == noun]

    assert len(cases) > 60
    assert {text: conditions(noun, text) for text, _ in cases} == dict(cases)


def test_an_order_means_what_it_means_to_mlflow() -> None:
    def order(noun: Noun, text: str) -> list[Any] | None:
        try:
            (one,) = parse_order(noun, [text])
        except Invalid:
            return None
        return [one.field.kind, one.field.key, one.down]

    cases = {(noun, text): expected for noun, text, expected in CASES["orders"]}

    assert len(cases) > 200
    assert {key: order(*key) for key in cases} == cases


def test_a_filter_of_many_kinds_is_read_in_its_order() -> None:
    text = (
        "metrics.auc > 0.8 AND params.`learning rate` != '0.1' and tags.mlflow.parentRunId IS NOT NULL"
        " AND status = 'FINISHED' and attributes.Created <= 1700000000000 And run_id in ('a', \"b\")"
        " AND datasets.context LIKE 'tr%'"
    )

    assert parse_filter("run", text) == (
        Condition(Field("metric", "auc"), ">", 0.8),
        Condition(Field("param", "learning rate"), "!=", "0.1"),
        Condition(Field("tag", "mlflow.parentRunId"), "IS NOT NULL"),
        Condition(Field("attribute", "status"), "=", "FINISHED"),
        Condition(Field("attribute", "start_time"), "<=", 1_700_000_000_000),
        Condition(Field("attribute", "run_id"), "IN", ("a", "b")),
        Condition(Field("dataset", "context"), "LIKE", "tr%"),
    )


@pytest.mark.parametrize("noun", NOUNS)
def test_every_attribute_takes_each_of_its_operators_and_no_other(noun: Noun) -> None:
    for name, slot in GRAMMARS[noun].attributes.items():
        for spelled in (name, *slot.aliases):
            for op in get_args(Op):
                text = f"`{spelled}` {op} {example(slot, op)}"
                taken = conditions(noun, text)
                assert (taken is not None) == (op in slot.ops), text
                assert taken is None or taken[0][:3] == ["attribute", name, op]


@pytest.mark.parametrize("noun", NOUNS)
def test_every_prefix_takes_the_operators_of_its_kind_and_no_other(noun: Noun) -> None:
    grammar = GRAMMARS[noun]
    for prefix, kind in grammar.prefixes.items():
        if kind == "attribute":
            assert conditions(noun, f"{prefix}.name = 'x'") == conditions(noun, "name = 'x'")
            continue
        slot = grammar.kinds[kind]
        for op in get_args(Op):
            text = f"{prefix}.name {op} {example(slot, op)}"
            taken = conditions(noun, text)
            assert (taken is not None) == (op in slot.ops), text
            assert taken is None or taken[0][:3] == [kind, "name", op]


def example(slot: Slot, op: Op) -> str:
    if op.endswith("NULL"):
        return ""
    if op.endswith("IN"):
        return "('1', '2')"
    return "'1'" if slot.type == "text" else "1"


@pytest.mark.parametrize(
    "spelled",
    [
        "1",
        "-1",
        "+1",
        "0",
        "007",
        "1.5",
        "-1.5",
        "1.",
        ".5",
        "-.5",
        "1e5",
        "1E-5",
        "1.5e-05",
        "1.5e+3",
        ".5e3",
    ],
)
def test_numbers_are_read_in_every_spelling(spelled: str) -> None:
    assert attribute("run", f"metrics.a>={spelled}").value == float(spelled)


def test_a_metric_beyond_all_floats_is_infinite() -> None:
    assert attribute("run", "metrics.a < 1e999").value == math.inf


@pytest.mark.parametrize(
    ("noun", "text", "value"),
    [
        ("run", "start_time > 5", 5),
        ("run", "start_time > 1.5", 1.5),
        ("run", f"start_time < {2**63 - 1}", 2**63 - 1),
        ("run", f"start_time > {-(2**63)}", -(2**63)),
        ("logged_model", "attributes.creation_time > 1.5e3", 1500.0),
        ("experiment", "creation_time > 5", 5),
        ("experiment", "experiment_id = '007'", "7"),
        ("experiment", "experiment_id IN ('1', ' 2 ')", ("1", "2")),
        ("model_version", "version_number = '3'", 3),
        ("model_version", 'version_number >= " 3 "', 3),
        ("logged_model", "params.lr = 0.01", "0.01"),
        ("logged_model", "name = lgbm-1", "lgbm-1"),
        ("logged_model", "tags.`team` IN ('a', \"b\",)", ("a", "b")),
    ],
)
def test_a_value_is_of_its_fields_type(noun: Noun, text: str, value: object) -> None:
    found = attribute(noun, text).value

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("tags.a = 'it''s'", "it''s"),
        (r"tags.a = 'it\'s'", r"it\'s"),
        ('tags.a = "it\'s"', "it's"),
        ("tags.a = '\"x\"'", '"x"'),
        ("tags.a = ''", ""),
        (r"tags.path = 'C:\dir\'", "C:\\dir\\"),
        ("tags.a = 'two\nlines\tand OR ( -- /* ; `'", "two\nlines\tand OR ( -- /* ; `"),
        (r"tags.a LIKE '100\%'", r"100\%"),
        ("tags.a = '\u00e9\U0001f600'", "\u00e9\U0001f600"),
    ],
)
def test_a_text_is_what_stands_between_its_quotes(text: str, value: str) -> None:
    assert attribute("run", text).value == value


def test_in_a_list_a_backslash_makes_quotes_and_backslashes_plain() -> None:
    assert attribute("run", r"run_id IN ('it\'s', 'a\\b', 'a\b')").value == ("it's", r"a\b", r"a\b")


@pytest.mark.parametrize(
    ("spelled", "key"),
    [
        ("a.b.c", "a.b.c"),
        ("val/loss", "val/loss"),
        ("top-1", "top-1"),
        ("0", "0"),
        ("a[0]", "a[0]"),
        ("\u635f\u5931", "\u635f\u5931"),
        ("and", "and"),
        ("in", "in"),
        ("`a b`", "a b"),
        ('"a b"', "a b"),
        ("'a b'", "a b"),
        ('`a"b`', 'a"b'),
        ('"a`b"', "a`b"),
        ("`a.b=c>d(e)`", "a.b=c>d(e)"),
    ],
)
def test_a_key_is_bare_or_whole_in_quotes(spelled: str, key: str) -> None:
    assert attribute("run", f"metrics.{spelled} > 1").field == Field("metric", key)
    assert attribute("run", f"`metrics`.{spelled}>1").field == Field("metric", key)
    assert parse_order("run", [f"metrics.{spelled} DESC"]) == (Order(Field("metric", key), down=True),)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "AND", " and AND "])
def test_nothing_asked_is_no_condition(text: str) -> None:
    assert parse_filter("run", text) == ()


def test_an_and_too_many_or_too_few_changes_nothing() -> None:
    one = parse_filter("run", "metrics.a > 1 AND tags.b = 'x'")

    assert parse_filter("run", "AND metrics.a > 1 and AND tags.b = 'x' And") == one
    assert parse_filter("run", "metrics.a > 1 tags.b = 'x'") == one
    assert parse_filter("run", "metrics.a > 1\u00a0and\ntags.b='x'AND") == one


# --- orders ---


def test_an_order_names_fields_first_one_first() -> None:
    texts = ["metrics.`val loss` desc", "params.lr", "tags.team ASC", " Created  DESC "]

    assert parse_order("run", texts) == (
        Order(Field("metric", "val loss"), down=True),
        Order(Field("param", "lr")),
        Order(Field("tag", "team")),
        Order(Field("attribute", "start_time"), down=True),
    )


@pytest.mark.parametrize("noun", NOUNS)
def test_an_order_takes_the_fields_that_are_sortable_and_no_other(noun: Noun) -> None:
    grammar = GRAMMARS[noun]
    by_prefix = {
        f"{prefix}.name": slot
        for prefix, kind in grammar.prefixes.items()
        for slot in [grammar.kinds.get(kind)]
    }
    for spelled, slot in {**grammar.attributes, **by_prefix}.items():
        if slot is None:
            continue
        if slot.sortable:
            assert parse_order(noun, [spelled])[0].field.key in (spelled, "name")
        else:
            with pytest.raises(Invalid, match="Invalid order_by entity"):
                parse_order(noun, [spelled])


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([""], "Invalid order_by clause at character 1: expected a field, found the end"),
        (
            ["metrics.a UP"],
            "Invalid order_by clause at character 13: after the field comes ASC, DESC or the end",
        ),
        (["metrics.a DESC NULLS LAST"], "after the field comes"),
        (["metrics.a, metrics.b"], "after the field comes"),
        (["metrics.a b"], "after the field comes"),
        (["metrics.`a DESC"], "never closed"),
        (["foo"], "Invalid attribute key 'foo' at character 1 of the order_by; runs are ordered by run_id, "),
        (["foo.a"], "Invalid entity type 'foo'"),
        (["datasets.name"], "Invalid order_by entity: dataset 'name'"),
        (["metrics.a", "params.a", "metric.`a` DESC"], "contains duplicate fields"),
        (["created", "start_time"], "contains duplicate fields"),
        ([f"metrics.m{number}" for number in range(MAX_ORDER + 1)], f"at most {MAX_ORDER} fields"),
        (
            ["metrics.a", "metrics." + "b" * MAX_LENGTH],
            f"at most {MAX_ORDER} fields and {MAX_LENGTH} characters",
        ),
        (["metrics.a\0"], "a character at 10 that is no text"),
    ],
)
def test_what_is_no_order_is_refused_with_its_place(texts: list[str], words: str) -> None:
    with pytest.raises(Invalid, match=re.escape(words)) as caught:
        parse_order("run", texts)

    assert caught.value.field == "order_by"


def test_logged_models_are_ordered_by_a_metric_on_a_dataset() -> None:
    assert logged_model_order("metrics.val/auc", False, "flights", "abc") == Order(
        Field("metric", "val/auc"), down=True, dataset=DatasetScope("flights", "abc")
    )
    assert logged_model_order("metrics.a b", True, "flights") == Order(
        Field("metric", "a b"), dataset=DatasetScope("flights")
    )
    assert logged_model_order("metrics.a.b") == Order(Field("metric", "a.b"))


def test_logged_models_are_ordered_by_attributes_whatever_the_dataset() -> None:
    for name, slot in GRAMMARS["logged_model"].attributes.items():
        for spelled in (name, *slot.aliases):
            assert logged_model_order(spelled, False, "flights") == Order(Field("attribute", name), down=True)


@pytest.mark.parametrize(
    "name", ["", "foo", "params.a", "tags.a", "metrics.", "metrics", ".a", "a" * (MAX_LENGTH + 1)]
)
def test_logged_models_are_ordered_by_nothing_else(name: str) -> None:
    with pytest.raises(Invalid):
        logged_model_order(name)


def test_a_digest_without_its_dataset_is_refused() -> None:
    with pytest.raises(Invalid, match="dataset_digest without a dataset_name"):
        logged_model_order("metrics.a", True, None, "abc")


# --- what is refused ---


@pytest.mark.parametrize(
    ("noun", "text", "words"),
    [
        ("run", "metrics.a > 1 OR metrics.b > 2", "at character 15: expected a condition, or AND and a condition, found 'OR"),
        ("run", "not metrics.a > 1", "there is no OR, NOT or grouping"),
        ("run", "(metrics.a > 1)", "there is no OR, NOT or grouping"),
        ("run", "metrics.a > 1;", "at character 14: expected a condition"),
        ("run", "metrics.a > 1 -- all", "Invalid attribute key '--' at character 15"),
        ("run", "1 < metrics.a", "Invalid attribute key '1' at character 1"),
        ("run", "foo = 'x'", "Invalid attribute key 'foo' at character 1 of the filter; runs have run_id, run_name"),
        ("run", "attr.foo = 'x'", "Invalid attribute key 'foo' at character 1"),
        ("run", "foo.a = 'x'", "Invalid entity type 'foo' at character 1 of the filter; runs have attribute, attributes"),
        ("run", "Metrics.a > 1", "Invalid entity type 'Metrics'"),
        ("run", "dataset.source = 'x'", "Invalid dataset key 'source' at character 1 of the filter; datasets have name, "),
        ("run", "metrics. a > 1", "at character 9: expected a key after the dot"),
        ("run", "tags.`` = 'x'", "expected a key after the dot"),
        ("run", "tags.`a`.b = 'x'", "quotes go around the whole key"),
        ("run", "tags.a.`b` = 'x'", "quotes go around the whole key"),
        ("run", "tags.`a = 'x'", "at character 6: the quote ` is never closed"),
        ("run", "tags.a = 'x", "at character 10: the quote ' is never closed"),
        ("run", "tags.a = 'x''", "the quote ' is never closed"),
        ("run", 'tags.a = "', 'the quote " is never closed'),
        ("run", "metrics.a", "at character 10: expected an operator after the field, found the end"),
        ("run", "metrics.a BETWEEN 1 AND 2", "at character 11: expected an operator after the field, found 'BETWEEN 1 AND 2'"),
        ("run", "tags.a IS 'x'", "expected an operator"),
        ("run", "tags.a LIKE2 'x'", "expected an operator"),
        ("run", "metrics.a == 1", "Invalid comparator '==' for metric 'a' at character 11 of the filter; it takes =, !=, <"),
        ("run", "params.a > '1'", "Invalid comparator '>' for param 'a'"),
        ("run", "tags.a NOT LIKE 'x'", "Invalid comparator 'NOT LIKE' for tag 'a'"),
        ("run", "status IN ('x')", "Invalid comparator 'IN' for attribute 'status'"),
        ("run", "metrics.a IS NULL", "Invalid comparator 'IS NULL' for metric 'a'"),
        ("run", "metrics.a > '1'", "Expected numeric value for metric 'a' at character 13 of the filter, found \"'1'\""),
        ("run", "metrics.a > nan", "Expected numeric value for metric 'a'"),
        ("run", "metrics.a > 1.2.3", "Expected numeric value for metric 'a'"),
        ("run", "metrics.a > 1and metrics.b > 1", "Expected numeric value for metric 'a'"),
        ("run", "metrics.a > \u0663", "Expected numeric value for metric 'a'"),
        ("run", "metrics.a > - 1", "Expected numeric value for metric 'a'"),
        ("run", "metrics.a > " + "1" * 500, "Expected numeric value for metric 'a'"),
        ("run", f"start_time < {2**63}", "Expected a number of 64 bits for attribute 'start_time'"),
        ("run", "start_time < 1e300", "Expected a number of 64 bits"),
        ("run", "start_time < '5'", "Expected numeric value for attribute 'start_time'"),
        ("run", "params.a = 1", "Expected a quoted string value for param 'a', found '1', at character 12 of the filter"),
        ("run", "params.a = x", "Expected a quoted string value for param 'a'"),
        ("run", "params.a = `x`", "Expected a quoted string value for param 'a'"),
        ("run", "params.a =", "Expected a quoted string value for param 'a', found the end,"),
        ("run", "run_id = ('a')", "Expected a quoted string value for attribute 'run_id'"),
        ("run", "run_id IN 'a'", "at character 11: expected a list such as ('a', 'b'), found \"'a'\""),
        ("run", "run_id IN ()", "expected texts in quotes"),
        ("run", "run_id IN (1)", "expected texts in quotes"),
        ("run", "run_id IN ('a' 'b')", "expected texts in quotes, with commas between, to the list's end, found \"'b')\""),
        ("run", "run_id IN ('a', 'b'", "found the end"),
        ("run", "run_id IN (,'a')", "expected texts in quotes"),
        ("experiment", "metrics.a > 1", "Invalid entity type 'metrics' at character 1 of the filter; experiments have "),
        ("experiment", "creation_time > 1.5", "Invalid value for numeric attribute: expected a whole number"),
        ("experiment", "experiment_id = 'x'", "Expected a whole number in quotes for attribute 'experiment_id', found 'x'"),
        ("model", "timestamp > 5", "at character 11 of the filter; registered models are only ordered by it"),
        ("model", "tags.a IS NULL", "Invalid comparator 'IS NULL' for tag 'a'"),
        ("model_version", "version_number = '1.0'", "Expected numeric value for attribute 'version_number'"),
        ("model_version", "version_number = 1e3", "expected a whole number"),
        ("model_version", "source = 'x'", "Invalid attribute key 'source'"),
        ("logged_model", "datasets.name = 'x'", "Invalid entity type 'datasets'"),
        ("logged_model", "name = AND", "Expected a quoted string value"),
        ("logged_model", "name = (1)", "Expected a quoted string value"),
        ("run", "tags.a = '\0'", "the filter has a character at 11 that is no text"),
        ("run", "tags.a = '\ud800'", "the filter has a character at 11 that is no text"),
        ("run", "metrics.a\x1b > 1", "expected an operator"),
        ("run", "'; DROP TABLE runs; --", "expected a condition"),
        ("run", "params.a = 'x' UNION SELECT 1", "Invalid attribute key 'UNION'"),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused_with_its_place(noun: Noun, text: str, words: str) -> None:
    message = refusal(noun, text)

    assert words in message
    assert len(message) < 600


def test_a_text_that_is_too_long_is_refused_before_it_is_read() -> None:
    longest = "tags.a = '" + "x" * (MAX_LENGTH - 11) + "'"

    assert len(parse_filter("run", longest)) == 1
    assert (
        refusal("run", longest + " ")
        == f"the filter has {MAX_LENGTH + 1} characters, at most {MAX_LENGTH} are read"
    )


def test_there_may_be_so_many_conditions_and_not_more() -> None:
    many = " AND ".join(["metrics.a > 1"] * MAX_CONDITIONS)

    assert len(parse_filter("run", many)) == MAX_CONDITIONS
    assert refusal("run", many + " AND metrics.a > 1") == f"a filter has at most {MAX_CONDITIONS} conditions"
    assert "at most" in refusal("run", "end_time=1 " * 9_000)


def test_a_list_may_be_as_long_as_the_text() -> None:
    ids = tuple(f"{number:032x}" for number in range(2_500))

    assert attribute("run", f"run_id IN ({', '.join(map(repr, ids))})").value == ids


# --- linear time ---

BOMBS: dict[str, Callable[[int], str]] = {
    "one word": lambda n: "a" * n,
    "dots": lambda n: "tags." + "." * n,
    "quotes in a row": lambda n: "tags.a = " + "'" * n,
    "an open text": lambda n: "tags.a = '" + "x" * n,
    "an open text of doubled quotes": lambda n: "tags.a = '" + "''" * (n // 2),
    "an open text of escaped quotes": lambda n: "tags.a = '" + "\\'" * (n // 2),
    "escaped and doubled quotes": lambda n: "tags.a = '" + "\\'''" * (n // 4),
    "backslashes": lambda n: "tags.a = '" + "\\" * n,
    "backticks": lambda n: "`" * n,
    "open keys": lambda n: "tags.`a " * (n // 8),
    "parentheses": lambda n: "run_id IN " + "(" * n,
    "a list that never ends": lambda n: "run_id IN (" + "'a'," * (n // 4),
    "digits": lambda n: "metrics.a > " + "1" * n + "x",
    "digits with a dot": lambda n: "metrics.a > " + "1" * (n // 2) + "." + "1" * (n // 2) + "x",
    "exponents": lambda n: "metrics.a > 1" + "e1" * (n // 2),
    "signs": lambda n: "metrics.a " + "=" * n,
    "space": lambda n: "tags.a IS NOT" + " " * n,
    "ands": lambda n: "AND " * (n // 4),
    "nots": lambda n: "tags.a " + "NOT " * (n // 4),
    "conditions": lambda n: "metrics.a > 1 AND " * (n // 18),
    "texts": lambda n: "tags.a = 'x'" * (n // 12),
    "ors": lambda n: "metrics.a > 1 OR " * (n // 17),
}


def steps(text: str) -> int:
    """Lines run and functions called, of Python and of C, to read a filter."""
    count = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return line

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(line)
    sys.setprofile(line)
    try:
        conditions("run", text)
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return count


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_text_twice_as_long_takes_at_most_twice_the_steps(bomb: str) -> None:
    text = BOMBS[bomb]

    assert steps(text(8_000)) <= 2 * steps(text(4_000)) + 100


@pytest.mark.parametrize("bomb", BOMBS)
def test_the_longest_text_takes_no_more_than_moments(bomb: str) -> None:
    """Steps inside C are not counted above. This takes some milliseconds, and a minute if one of them is quadratic."""
    text = BOMBS[bomb](MAX_LENGTH - 20)
    before = time.thread_time()

    conditions("run", text)

    assert time.thread_time() - before < 5


# --- round trips ---

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


def in_quotes(text: str, quotes: str, *, escaping: bool = True) -> str:
    """The text in the first of these quotes that it can be written in."""
    for quote in quotes:
        if quote not in text and not (escaping and text.endswith("\\")):
            return f"{quote}{text}{quote}"
    assume(False)
    raise AssertionError


def written(condition: Condition) -> str:
    """A filter that asks for this."""
    field = condition.field
    key = in_quotes(field.key, "`\"'")
    name = key if field.kind == "attribute" else f"{field.kind}s.{key}"
    match condition.value:
        case None:
            value = ""
        case str() as text:
            value = in_quotes(text, "'\"")
        case tuple() as several:
            value = "(" + ",".join(in_quotes(str(one), "'\"") for one in several) + ")"
        case number:
            value = repr(number)
    return f"{name} {condition.op} {value}"


@st.composite
def asked(draw: st.DrawFn, noun: Noun) -> Condition:
    """Any condition that can be asked of the noun."""
    grammar = GRAMMARS[noun]
    slots: list[tuple[Kind, str, Slot]] = [
        *(("attribute", name, slot) for name, slot in grammar.attributes.items() if slot.ops),
        *((kind, "", slot) for kind, slot in grammar.kinds.items()),
    ]
    kind, key, slot = draw(st.sampled_from(slots))
    if not key:
        key = draw(st.sampled_from(DATASET_KEYS) if kind == "dataset" else keys)
    op = draw(st.sampled_from(slot.ops))
    whole = st.integers(-(2**63), 2**63 - 1)
    words = whole.map(str) if slot.whole else texts
    if op.endswith("NULL"):
        return Condition(Field(kind, key), op)
    if op.endswith("IN"):
        several = st.lists(words.filter(lambda word: "\\" not in word), min_size=1, max_size=4)
        return Condition(Field(kind, key), op, tuple(draw(several)))
    value = {"text": words, "integer": whole, "number": st.floats(allow_nan=False, allow_infinity=False)}[
        slot.type
    ]
    return Condition(Field(kind, key), op, draw(value))


@pytest.mark.parametrize("noun", NOUNS)
@given(data=st.data())
def test_what_is_asked_can_be_written_and_read_back(noun: Noun, data: st.DataObject) -> None:
    several = tuple(data.draw(st.lists(asked(noun), max_size=4)))

    assert parse_filter(noun, " AND ".join(map(written, several))) == several


@pytest.mark.parametrize("noun", NOUNS)
@given(
    text=st.text(
        st.sampled_from("amr.`'\"<>=!()[],;\\ \n-+1eEtagsmetricsANDINLIKEISNULLNOTname\0\ud800\u00e9"),
        max_size=60,
    )
)
def test_any_text_is_read_or_refused(noun: Noun, text: str) -> None:
    assert conditions(noun, text) is None or all(
        isinstance(one, Condition) for one in parse_filter(noun, text)
    )


PIECES = [
    "metrics.",
    "tags.",
    "`a b`",
    "a",
    "name",
    "'x'",
    '"x"',
    "1",
    "(",
    ")",
    ",",
    " ",
    "\\",
    "'",
    "`",
    "=",
    ">",
]
WORDS = [" AND ", " IN ", " LIKE ", " IS NULL", " DESC"]


@given(words=st.lists(st.sampled_from(PIECES + WORDS), max_size=12))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    text = "".join(words)
    for noun in NOUNS:
        conditions(noun, text)
        try:
            orders = parse_order(noun, [text])
        except Invalid:
            continue
        assert len(orders) == 1


# --- the page ---

PAGE = (Path(__file__).parents[2] / "docs/reference/search.md").read_text()
TITLES: dict[Noun, str] = {
    "run": "Runs",
    "experiment": "Experiments",
    "model": "Registered models",
    "model_version": "Model versions",
    "logged_model": "Logged models",
}


def rows(noun: Noun) -> dict[str, list[str]]:
    """The rows of the tables of a noun's section, by what is named first."""
    (section,) = re.findall(rf"^## {TITLES[noun]}\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    cells = [re.split(r" *\| *", line.strip("| ")) for line in section.splitlines() if line.startswith("| `")]
    return {row[0]: row[1:] for row in cells}


def code(*words: str) -> str:
    return " ".join(f"`{word}`" for word in words)


def kind_of_value(slot: Slot) -> str:
    if slot.type == "text":
        return "text, a whole number" if slot.whole else "text, bare allowed" if slot.bare else "text"
    return slot.type + ", whole" * slot.whole + ", quotes allowed" * slot.quoted


@pytest.mark.parametrize("noun", NOUNS)
def test_the_page_says_what_can_be_asked(noun: Noun) -> None:
    grammar = GRAMMARS[noun]
    expected: dict[str, list[str]] = {}
    for name, slot in grammar.attributes.items():
        operators, order = code(*slot.ops) or "none", "yes" if slot.sortable else "no"
        expected[code(name)] = [
            kind_of_value(slot),
            operators,
            order,
            *([code(*slot.aliases)] if slot.aliases else []),
        ]
    for kind in dict.fromkeys(grammar.prefixes.values()):
        prefixes = code(*(prefix for prefix, of in grammar.prefixes.items() if of == kind))
        if kind == "attribute":
            expected[prefixes] = ["an attribute"]
            continue
        slot = grammar.kinds[kind]
        key = "`name`, `digest` or `context`" if kind == "dataset" else "a key"
        order = "yes" if slot.sortable else "no"
        expected[prefixes] = [key, kind_of_value(slot), code(*slot.ops), order]

    assert rows(noun) == expected


@pytest.mark.parametrize("noun", NOUNS)
def test_the_examples_of_the_page_can_be_asked(noun: Noun) -> None:
    (section,) = re.findall(rf"^## {TITLES[noun]}\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    examples = "".join(re.findall(r"^```text\n(.*?)^```", section, re.MULTILINE | re.DOTALL)).splitlines()

    assert examples
    assert all(parse_filter(noun, example) for example in examples)


def test_the_page_names_the_limits() -> None:
    for limit in (MAX_LENGTH, MAX_CONDITIONS, MAX_ORDER):
        assert f"| {limit:,}" in PAGE
