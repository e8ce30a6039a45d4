"""Contracts: inferred with slack, written for a person, read back exactly; clean rows never alarm and defects do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import Corrupt, Invalid, NotFound
from andon.core.policy import SourcePolicy
from andon.core.signature import Field
from andon.data.contracts import ColumnRule, Contract, from_toml, infer, read_contract, signature, to_toml
from andon.data.validation import Report, Violation, check, decode_report

SOURCE = SourcePolicy(
    name="people",
    source="people.csv",
    label="left",
    key=("id",),
    time="day",
    label_time="told",
    contract="people.toml",
)
ROWS = 4000


def people(seed: int = 0, rows: int = ROWS) -> pl.DataFrame:
    """Clean rows: every kind of column, some nulls, a rare level, labels of which some are not known yet."""
    rng = np.random.default_rng(seed)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    left = rng.random(rows) < 0.2
    known = rng.random(rows) < 0.7
    return pl.DataFrame(
        {
            "id": [f"p{seed}-{number}" for number in range(rows)],
            "day": [start + timedelta(minutes=int(minute)) for minute in rng.integers(0, 10**5, rows)],
            "age": rng.integers(18, 90, rows),
            "income": rng.lognormal(10, 0.5, rows),
            "balance": rng.normal(0, 100, rows),
            "city": rng.choice(["Bonn", "Lyon", "Oslo", "Rome"], rows, p=[0.5, 0.3, 0.19, 0.01]),
            "plan": pl.Series(rng.choice(["a", "b"], rows)).to_frame("p").select(
                pl.when(pl.Series(rng.random(rows) < 0.1)).then(None).otherwise(pl.col("p"))
            ).to_series(),
            "note": [f"call {number}" for number in rng.integers(0, 10**6, rows)],
            "member": rng.random(rows) < 0.5,
            "rare": (rng.random(rows) < 0.001).astype(int),
            "country": ["FR"] * rows,
            "told": [start if is_known else None for is_known in known],
            "left": [int(is_left) if is_known else None for is_left, is_known in zip(left, known, strict=True)],
        }
    )  # fmt: skip


CLEAN = people()
CONTRACT = infer(CLEAN, SOURCE)


def some(share: float, value: object) -> Callable[[str], pl.Expr]:
    """The first share of a column's rows replaced."""
    return lambda name: (
        pl.when(pl.int_range(pl.len()) < share * pl.len()).then(pl.lit(value)).otherwise(name).alias(name)
    )


Change = Callable[[pl.DataFrame], pl.DataFrame]
DEFECTS: list[tuple[str, Change, tuple[str, str, str]]] = [
    ("missing column", lambda f: f.drop("age"), ("age", "missing", "block")),
    ("new column", lambda f: f.with_columns(extra=1), ("extra", "new", "warn")),
    ("number became text", lambda f: f.with_columns(pl.col("age").cast(pl.String)), ("age", "type", "block")),
    ("text became number", lambda f: f.with_columns(city=pl.lit(1)), ("city", "type", "block")),
    ("integer became float", lambda f: f.with_columns(pl.col("age").cast(pl.Float64)), ("age", "type", "block")),
    ("boolean became integer", lambda f: f.with_columns(pl.col("member").cast(pl.Int8)), ("member", "type", "block")),
    ("time became text", lambda f: f.with_columns(pl.col("day").cast(pl.String)), ("day", "type", "block")),
    ("null burst", lambda f: f.with_columns(some(0.2, None)("age")), ("age", "nulls", "block")),
    ("a few nulls", lambda f: f.with_columns(some(0.005, None)("age")), ("age", "nulls", "warn")),
    ("more nulls than usual", lambda f: f.with_columns(some(0.4, None)("plan")), ("plan", "nulls", "block")),
    ("NaN burst", lambda f: f.with_columns(some(0.2, float("nan"))("income")), ("income", "nulls", "block")),
    ("column went empty", lambda f: f.with_columns(income=None), ("income", "nulls", "block")),
    ("negated", lambda f: f.with_columns(-pl.col("age")), ("age", "range", "block")),
    ("another unit", lambda f: f.with_columns(pl.col("balance") * 1000), ("balance", "range", "block")),
    ("infinite", lambda f: f.with_columns(some(0.05, float("inf"))("income")), ("income", "range", "block")),
    ("one wild value", lambda f: f.with_columns(some(0.0002, 10**6)("age")), ("age", "range", "warn")),
    ("unseen category", lambda f: f.with_columns(some(0.05, "Kyiv")("city")), ("city", "domain", "block")),
    ("rare unseen category", lambda f: f.with_columns(some(0.005, "Kyiv")("city")), ("city", "domain", "warn")),
    ("another case", lambda f: f.with_columns(pl.col("city").str.to_uppercase()), ("city", "domain", "block")),
    ("double keys", lambda f: pl.concat([f, f.head(1)]), ("id", "key", "block")),
    ("a null key", lambda f: f.with_columns(some(0.0002, None)("id")), ("id", "key", "block")),
    ("no time", lambda f: f.with_columns(some(0.0002, None)("day")), ("day", "time", "block")),
    ("no rows", lambda f: f.head(0), ("", "rows", "block")),
    ("too long", lambda f: f.with_columns(some(0.05, "x" * 500)("note")), ("note", "length", "block")),
    ("constant number", lambda f: f.with_columns(age=pl.lit(40, pl.Int64)), ("age", "constant", "warn")),
    ("constant text", lambda f: f.with_columns(city=pl.lit("Bonn")), ("city", "constant", "warn")),
    ("label of 2", lambda f: f.with_columns(some(0.0002, 2)("left")), ("left", "label", "block")),
    ("label in words", lambda f: f.with_columns(left=pl.lit("yes")), ("left", "type", "block")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"), [case[1:] for case in DEFECTS], ids=[case[0] for case in DEFECTS]
)
def test_a_defect_is_caught_and_nothing_else_is(change: Change, expected: tuple[str, str, str]) -> None:
    report = check(change(CLEAN), CONTRACT)

    assert [(found.column, found.rule, found.severity) for found in report.violations] == [expected]
    assert report.passed == (expected[2] == "warn")


def test_clean_rows_never_alarm() -> None:
    """100 resamples of the rows the contract was inferred from say nothing at all."""
    rng = np.random.default_rng(1)
    kept = CONTRACT
    for _ in range(100):
        drawn = CLEAN[rng.integers(0, ROWS, int(rng.integers(300, ROWS)))]
        report = check(drawn.with_columns(id=pl.int_range(pl.len()).cast(pl.String)), kept)
        assert report.violations == ()


def test_fresh_rows_of_the_same_kind_never_block() -> None:
    for seed in range(1, 31):
        assert check(people(seed, 1500), CONTRACT).passed


def test_a_report_shows_the_first_failing_rows_with_their_keys() -> None:
    frame = CLEAN.with_columns(
        pl.when(pl.int_range(pl.len()) % 100 == 7).then(-5).otherwise("age").alias("age")
    )

    report = check(frame, CONTRACT)

    [found] = report.violations
    assert (found.bad, found.share, found.severity, found.expected) == (40, 0.01, "warn", "0 to 125")
    assert [row.row for row in found.rows] == [7 + 100 * number for number in range(10)]
    assert msgspec.to_builtins(found.rows[0]) == {"row": 7, "key": {"id": "p0-7"}, "value": "-5"}


def test_a_report_is_stored_and_read_again() -> None:
    report = check(CLEAN.drop("age").with_columns(some(0.5, "x" * 999)("note")), CONTRACT)

    again = decode_report(report.encode())

    assert again == report
    assert report.contract == CONTRACT.digest
    assert report.summary() == "age: missing (4000 rows, block); note: length (2000 rows, block)"
    assert len(report.violations[1].rows[0].value or "") == 200
    with pytest.raises(Corrupt, match="a validation report cannot be read"):
        decode_report(b"{}")


def test_a_report_without_faults_says_how_much_was_checked() -> None:
    report = check(CLEAN, CONTRACT)

    assert report.passed
    assert report.summary() == f"all {report.checks} checks of 4000 rows passed"
    assert report.checks > 2 * CLEAN.width


def test_a_person_can_loosen_a_column() -> None:
    loose = [
        msgspec.structs.replace(rule, severity="warn", required=rule.name != "note")
        for rule in CONTRACT.columns
    ]
    contract = msgspec.structs.replace(CONTRACT, columns=tuple(loose))

    report = check(CLEAN.drop("age", "note").with_columns(-pl.col("income")), contract)

    assert [(found.column, found.severity) for found in report.violations] == [
        ("age", "warn"),
        ("income", "warn"),
    ]


def test_whole_numbers_are_accepted_where_numbers_are() -> None:
    frame = CLEAN.with_columns(pl.col("balance").round().cast(pl.Int64))

    assert check(frame, CONTRACT).violations == ()


@pytest.mark.parametrize("dtype", [pl.Boolean, pl.Float64, pl.UInt8])
def test_a_label_may_be_boolean_or_any_number_of_zero_and_one(dtype: pl.DataType) -> None:
    frame = CLEAN.with_columns(pl.col("left").cast(dtype))

    assert check(frame, infer(frame, SOURCE)).violations == ()


def test_a_label_in_words_or_nan_is_no_label() -> None:
    words = CLEAN.with_columns(left=pl.lit("yes"))
    nan = CLEAN.with_columns(left=pl.lit(float("nan")))

    for frame in (words, nan):
        report = check(frame, infer(frame, SOURCE))
        assert [(found.rule, found.severity) for found in report.violations] == [("label", "block")]


def test_what_is_inferred_has_slack_and_keeps_signs() -> None:
    rules = {rule.name: rule for rule in CONTRACT.columns}

    assert rules["age"] == ColumnRule(name="age", kind="integer", min=0, max=125, varies=True)
    assert rules["city"].domain == ("Bonn", "Lyon", "Oslo", "Rome")
    assert rules["balance"].min < -350 < 350 < rules["balance"].max
    assert rules["income"].min == 0
    assert (rules["plan"].nulls, rules["plan"].kind) == (pytest.approx(0.25, abs=0.02), "string")
    assert (rules["note"].domain, rules["note"].max_length) == (None, 32)
    assert (rules["left"].nulls, rules["told"].nulls, rules["left"].max) == (1.0, 1.0, None)
    assert (rules["rare"].varies, rules["country"].varies) == (False, False)


def test_an_empty_frame_infers_nothing() -> None:
    with pytest.raises(Invalid, match=r"data.people: there is no row to infer a contract from"):
        infer(CLEAN.head(0), SOURCE)


def test_the_signature_of_a_request_follows_from_the_contract() -> None:
    fields = signature(CONTRACT, ["plan", "age", "balance", "member"])

    assert fields == (
        Field(name="plan", kind="string", nullable=True, max_length=32),
        Field(name="age", kind="integer"),
        Field(name="balance", kind="number"),
        Field(name="member", kind="boolean"),
    )
    with pytest.raises(
        Invalid, match="'day' is of the kind 'time', which a request cannot bring; make numbers or text of it"
    ):
        signature(CONTRACT, ["day"])
    with pytest.raises(NotFound, match="has no column 'hat'; it has id, day"):
        signature(CONTRACT, ["hat"])


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(-1e300, 1e300)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Contracts with any names and bounds."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    rules = []
    for name in names:
        kind = draw(st.sampled_from(["integer", "number", "string", "boolean", "time", "any"]))
        bounds = sorted(draw(st.tuples(NUMBERS, NUMBERS))) if kind in ("integer", "number") else (None, None)
        domain = tuple(draw(st.lists(NAMES, max_size=3))) if kind == "string" else None
        length = draw(st.none() | st.integers(1, 1000)) if kind == "string" else None
        rules.append(
            ColumnRule(
                name=name, kind=kind, required=draw(st.booleans()), nulls=draw(st.floats(0, 1)), min=bounds[0], max=bounds[1],
                domain=domain, max_length=length, varies=draw(st.booleans()), severity=draw(st.sampled_from(["block", "warn"])),
            )
        )  # fmt: skip
    key = tuple(draw(st.lists(st.sampled_from(names), unique=True)))
    return Contract(
        dataset=draw(NAMES), label=names[0], columns=tuple(rules), key=key, time=draw(st.none() | st.sampled_from(names)),
        label_time=draw(st.none() | st.sampled_from(names)), tolerance=draw(st.floats(0, 1)),
    )  # fmt: skip


@given(contracts())
def test_a_written_contract_is_read_back_exactly(contract: Contract) -> None:
    text = to_toml(contract)

    assert from_toml(text) == contract
    assert to_toml(from_toml(text)) == text


def test_comments_and_spaces_are_not_part_of_a_contracts_id(tmp_path: Path) -> None:
    path = tmp_path / "people.toml"
    path.write_text(to_toml(CONTRACT).replace("[columns.age]", "\n# agreed with Ann\n[columns.age]   "))

    assert read_contract(path).digest == CONTRACT.digest
    path.write_text(to_toml(CONTRACT).replace("max = 125", "max = 110"))
    assert read_contract(path).digest != CONTRACT.digest


PLAIN = """format = "andon.contract/1"
dataset = "people"
label = "left"
key = ["id"]

[columns.id]
kind = "string"

[columns.left]
kind = "integer"
min = 0
"""
FAULTS = [
    ("kind = \"string\"", "kind = \"text\"", "line 7: columns.id.kind is 'text'; expected integer, number, string"),
    ("kind = \"string\"", "", "line 6: columns.id.kind is missing; expected integer"),
    ("min = 0", "min = true", "line 11: columns.left.min is True; expected a number"),
    ("min = 0", "min = 5\nmax = 1", "line 11: columns.left.min is 5, above max; expected at most 1"),
    ("min = 0", "max_length = 5", "line 11: columns.left.max_length does not go with the kind 'integer'; expected it on"),
    ("min = 0", "nulls = 2", "line 11: columns.left.nulls is 2; expected a share from 0 to 1"),
    ("min = 0", "required = 1", "line 11: columns.left.required is 1; expected true or false"),
    ("min = 0", "severity = \"stop\"", "line 11: columns.left.severity is 'stop'; expected block, warn"),
    ("min = 0", "mim = 0", "line 11: columns.left.mim is not a key Andon knows; expected domain, kind, max"),
    ("kind = \"string\"", "kind = \"string\"\ndomain = [1]", r"line 8: columns.id.domain is \[1\]; expected a list of texts"),
    ("kind = \"string\"", "kind = \"string\"\nmax_length = 0", "line 8: columns.id.max_length is 0; expected a whole number"),
    ("label = \"left\"", "label = \"gone\"", "line 3: label names 'gone'; expected one of id, left"),
    ("key = [\"id\"]", "key = \"id\"", "line 4: key is 'id'; expected a list of texts"),
    ("key = [\"id\"]", "key = [\"no\"]", "line 4: key names 'no'; expected one of id, left"),
    ("key = [\"id\"]", "tolerance = 3", "line 4: tolerance is 3; expected a share from 0 to 1"),
    ("key = [\"id\"]", "keys = []", "line 4: keys is not a key Andon knows; expected columns, dataset"),
    ("andon.contract/1", "andon.contract/7", "line 1: format is 'andon.contract/7'; expected 'andon.contract/1'"),
    ("dataset = \"people\"", "", "dataset is missing; expected a name"),
    ("min = 0", "min = ", "is not valid TOML: .*line 11"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "says"), FAULTS, ids=[fault[1] or fault[0] + " gone" for fault in FAULTS]
)
def test_a_fault_in_a_contract_is_told_with_its_line(old: str, new: str, says: str) -> None:
    with pytest.raises(Invalid, match=f"people.toml.*{says}"):
        from_toml(PLAIN.replace(old, new), where="people.toml")


def test_a_contract_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "people.toml").write_bytes(b"\xff\xfe\xff")

    with pytest.raises(NotFound, match=r"none.toml does not exist; a first run without it infers one"):
        read_contract(tmp_path / "none.toml")
    with pytest.raises(Invalid, match=r"people.toml is not UTF-8 text"):
        read_contract(tmp_path / "people.toml")
    with pytest.raises(Invalid, match=r"columns is missing; expected a table \[columns.NAME\]"):
        from_toml('format = "andon.contract/1"\ndataset = "d"\nlabel = "y"\n')


def test_worst_faults_come_first_in_the_summary() -> None:
    def fault(column: str, severity: str, bad: int) -> Violation:
        return Violation(column=column, rule="range", severity=severity, bad=bad, share=bad / 10, expected="")  # type: ignore[arg-type]

    faults = (fault("a", "warn", 9), fault("b", "block", 1), fault("c", "block", 5), fault("", "warn", 1))

    assert Report(contract=CONTRACT.digest, rows=10, checks=9, violations=faults).summary() == (
        "c: range (5 rows, block); b: range (1 rows, block); a: range (9 rows, warn); and 1 more"
    )
