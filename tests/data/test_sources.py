"""Sources: every file form and Python functions give the same rows; each thing that can be wrong says where and what to do."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from andon.core.errors import AndonError, Invalid, SourceError
from andon.core.policy import SourcePolicy
from andon.data.sources import read_source, redact

FRAME = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "city": ["Köln", None, "a,b"],
        "score": [0.5, None, -1.0],
        "at": [datetime(2024, 1, day, 12, tzinfo=UTC) for day in (1, 2, 3)],
        "told": [datetime(2024, 1, day, tzinfo=UTC) for day in (3, 4, 5)],
        "late": [0, 1, 0],
    }
)
CSV = (
    "id,city,score,at,told,late\n"
    "1,Köln,0.5,2024-01-01T12:00:00Z,2024-01-03T00:00:00Z,0\n2,NA,,2024-01-02T12:00:00Z,2024-01-04T00:00:00Z,1\n"
    '3,"a,b",-1.0,2024-01-03T12:00:00Z,2024-01-05T00:00:00Z,0\n'
)


def policy(source: str, **other: object) -> SourcePolicy:
    return SourcePolicy(name="trips", source=source, label="late", **other)  # type: ignore[arg-type]  # a test's short cut


@pytest.fixture
def imports() -> Iterator[None]:
    """Undo what importing a project's module leaves behind."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write_csv(path: Path) -> None:
    path.write_text(CSV)


def write_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(CSV.encode()))


def write_tsv(path: Path) -> None:
    path.write_text(CSV.replace('"a,b"', "a;b").replace(",", "\t").replace("a;b", "a,b"))


def write_ndjson(path: Path) -> None:
    FRAME.with_columns(pl.col("at", "told").dt.to_string("iso:strict")).write_ndjson(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.csv", write_csv),
        ("t.csv.gz", write_gzip),
        ("t.tsv", write_tsv),
        ("t.parquet", FRAME.write_parquet),
        ("t.ndjson", write_ndjson),
        ("t.jsonl", write_ndjson),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(name: str, write: object, tmp_path: Path) -> None:
    write(tmp_path / name)  # type: ignore[operator]  # each writes one file

    found = read_source(policy(name, time="at", label_time="told", key=("id",)), tmp_path)

    assert_frame_equal(found, FRAME)


@pytest.mark.parametrize("source", ["days", "days/*.parquet", "da*/part-[0-9].parquet"])
def test_a_folder_or_glob_is_all_its_files_by_name(source: str, tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    for number in (2, 0, 1):
        FRAME.slice(number, 1).write_parquet(tmp_path / "days" / f"part-{number}.parquet")
    (tmp_path / "days" / "README").write_text("not data")

    assert read_source(policy(source), tmp_path)["id"].to_list() == [1, 2, 3]


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "t.parquet")

    assert read_source(policy(str(tmp_path / "*.parquet")), tmp_path / "elsewhere").height == 3


def test_only_what_was_known_by_then_is_read(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "t.parquet")
    source = policy("t.parquet", time="at", label_time="told")

    found = read_source(source, tmp_path, until=datetime(2024, 1, 3, tzinfo=UTC))

    assert found.select("id", "late").rows() == [(1, 0), (2, None)]
    assert found["told"].to_list() == [datetime(2024, 1, 3, tzinfo=UTC), None]


def test_a_row_without_a_time_stays_for_the_contract_to_judge(tmp_path: Path) -> None:
    FRAME.with_columns(pl.when(pl.col("id") == 3).then(None).otherwise("at").alias("at")).write_parquet(
        tmp_path / "t.parquet"
    )

    found = read_source(policy("t.parquet", time="at"), tmp_path, until=datetime(2024, 1, 2, tzinfo=UTC))

    assert found["id"].to_list() == [1, 3]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2013-01-01T05:00:00Z", datetime(2013, 1, 1, 5, tzinfo=UTC)),
        ("2013-01-01T05:00:00+02:00", datetime(2013, 1, 1, 3, tzinfo=UTC)),
        ("2013-01-01 05:00:00.25+02:00", datetime(2013, 1, 1, 3, 0, 0, 250_000, tzinfo=UTC)),
        ("2013-01-01 05:00:00", datetime(2013, 1, 1, 5, tzinfo=UTC)),
        ("2013-01-01T05:00:00.5", datetime(2013, 1, 1, 5, 0, 0, 500_000, tzinfo=UTC)),
        ("2013-01-01 05:00", datetime(2013, 1, 1, 5, tzinfo=UTC)),
        ("2013-01-01", datetime(2013, 1, 1, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.ndjson"])
def test_a_time_may_be_written_in_any_iso_form_and_a_naive_one_is_utc(
    text: str, instant: datetime, name: str, tmp_path: Path
) -> None:
    body = f'at,late\n"{text}",1\n' if name == "t.csv" else f'{{"at":"{text}","late":1}}\n'
    (tmp_path / name).write_text(body)

    assert read_source(policy(name, time="at"), tmp_path)["at"].to_list() == [instant]


def test_times_of_other_columns_become_utc_microseconds_too(tmp_path: Path) -> None:
    at = pl.Series([1_700_000_000_123_456_789]).cast(pl.Datetime("ns", "Asia/Tokyo"))
    pl.DataFrame({"seen": at, "took": at.cast(pl.Int64).cast(pl.Duration("ns")), "late": [1]}).write_parquet(
        tmp_path / "t.parquet"
    )

    found = read_source(policy("t.parquet"), tmp_path)

    assert found["seen"].to_list() == [
        datetime.fromtimestamp(1_700_000_000, UTC).replace(microsecond=123_456)
    ]
    assert found["took"].dtype == pl.Duration("us")


def test_a_function_is_called_with_the_time_and_may_be_lazy(tmp_path: Path, imports: None) -> None:
    (tmp_path / "trips_eager.py").write_text(
        "import polars as pl\n\n\n"
        "def rows(until):\n"
        "    return pl.LazyFrame({'late': [0], 'until': [str(until)], 'at': ['2024-01-01']})\n"
    )

    found = read_source(
        policy("python:trips_eager:rows", time="at"), tmp_path, until=datetime(2024, 5, 1, tzinfo=UTC)
    )

    assert found["until"].to_list() == ["2024-05-01 00:00:00+00:00"]


BAD_FUNCTIONS = [
    ("def rows(until): return [1]", Invalid, "returned a list; it returns a polars DataFrame"),
    ("def rows(until): raise KeyError('home')", SourceError, "functions_x:rows failed: KeyError: 'home'"),
    ("def other(until): pass", SourceError, "has no function 'rows'; add it to functions_x"),
    ("import nothing_of_that_name", SourceError, "'functions_x' cannot be imported: ModuleNotFoundError"),
    ("def rows(:", SourceError, "cannot be imported: SyntaxError"),
]


@pytest.mark.parametrize(
    ("code", "error", "says"), BAD_FUNCTIONS, ids=[case[2][:20] for case in BAD_FUNCTIONS]
)
def test_a_faulty_function_says_what_and_where(
    code: str, error: type[AndonError], says: str, tmp_path: Path, imports: None
) -> None:
    (tmp_path / "functions_x.py").write_text(code)

    with pytest.raises(error, match=says):
        read_source(policy("python:functions_x:rows"), tmp_path)


BAD_FILES = [
    ("gone.csv", None, SourceError, "gone.csv does not exist; paths are relative to"),
    ("day-*.csv", None, SourceError, r"no file matches .*day-\*.csv"),
    ("empty", ..., SourceError, "the folder .*empty holds no file to read; it may hold .csv"),
    ("t.csv", b"", SourceError, "t.csv is empty"),
    ("t.csv", b"id,late\n", SourceError, "the source 't.csv' has no row"),
    ("t.csv", b"id,late\n1,2,3,4\n", SourceError, "t.csv cannot be read"),
    ("t.csv", b"id,late\n\xff\xfe,1\n", SourceError, "t.csv cannot be read"),
    ("t.parquet", b"PAR1 not really", SourceError, "t.parquet cannot be read"),
    ("t.ndjson", b'{"late": 1}\n{"late": \n', SourceError, "t.ndjson cannot be read"),
    ("t.xlsx", b"x", Invalid, "t.xlsx is of a kind Andon cannot read; files are .csv"),
    (
        "t.csv",
        b"id,lat\n1,2\n",
        Invalid,
        "data.trips.label is 'late', and the source has no such column; it has id, lat",
    ),
    ("mysql://ann:secret@db/crm", None, Invalid, r"cannot read 'mysql://\*\*\*@db/crm'"),
    ("python:x", None, Invalid, "'python:module:function'"),
]


@pytest.mark.parametrize(
    ("source", "data", "error", "says"), BAD_FILES, ids=[f"{c[0]}-{n}" for n, c in enumerate(BAD_FILES)]
)
def test_a_faulty_source_says_what_and_where(
    source: str, data: object, error: type[AndonError], says: str, tmp_path: Path
) -> None:
    if data is ...:
        (tmp_path / source).mkdir()
    elif isinstance(data, bytes):
        (tmp_path / source).write_bytes(data)

    with pytest.raises(error, match=says):
        read_source(policy(source), tmp_path)


@pytest.mark.parametrize("role", ["key", "time", "label_time"])
def test_a_missing_column_is_named_with_its_role(role: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("late\n1\n")

    with pytest.raises(
        Invalid, match=f"data.trips.{role} is 'when', and the source has no such column; it has late"
    ):
        read_source(policy("t.csv", **{role: ("when",) if role == "key" else "when"}), tmp_path)


def test_a_value_that_is_no_time_is_shown(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at,late\n2024-01-01,1\nsoon,1\n")
    (tmp_path / "n.csv").write_text("at,late\n17,1\n")

    with pytest.raises(Invalid, match=r"'at' holds 'soon', which is not a time \(1 such values\)"):
        read_source(policy("t.csv", time="at"), tmp_path)
    with pytest.raises(Invalid, match="the time column 'at' is Int64, not a time"):
        read_source(policy("n.csv", time="at"), tmp_path)


def test_files_with_different_columns_or_types_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,late\n1,1\n")
    (tmp_path / "b.csv").write_text("id,latte\n1,1\n")
    with pytest.raises(SourceError, match=r"b.csv and .*a.csv do not have the same columns: late, latte"):
        read_source(policy("*.csv"), tmp_path)

    pl.DataFrame({"id": [b"x"], "late": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"id": [1.5], "late": [1]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(SourceError, match=r"files of '\*.parquet' do not fit together"):
        read_source(policy("*.parquet"), tmp_path)


def test_whole_numbers_and_fractions_of_two_files_go_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,late\n1,1\n")
    (tmp_path / "b.csv").write_text("late,id\n0,1.5\n")

    assert read_source(policy("*.csv"), tmp_path).rows() == [(1.0, 1), (1.5, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:hunter2@db/crm",
        "postgresql://ann:hunter2@x/y@db/crm",
        "https://db/rows?token=hunter2&day=1",
        "host=db user=ann password='hunter2 x' dbname=crm",
        "s3://bucket/x?AccessKey=hunter2",
    ],
)
def test_secrets_are_taken_out_of_a_source_text(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize("text", ["data/*.csv", "python:churn:rows", "/srv/a@b.csv"])
def test_a_source_without_secrets_keeps_its_text(text: str) -> None:
    assert redact(text) == text
