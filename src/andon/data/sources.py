"""Where rows come from: files of a project (CSV, Parquet, NDJSON), or a Python function of it.

What comes back always has UTC microseconds in its time columns and only what was known at `until`: rows of that time or later
are left out, and a label that became known later is null.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from andon.core.errors import AndonError, Invalid, SourceError
from andon.core.policy import SourcePolicy
from andon.data.encoding import DATETIME, DURATION

NULLS = ("", "NA", "N/A", "null", "NULL")
"""Texts of a CSV cell that mean no value."""

_USER = re.compile(r"://.*@")
_SECRET = re.compile(
    r"(?i)\b(pass(?:word|wd)?|pwd|token|secret|api_?key|access_?key|sig(?:nature)?)=('[^']*'|[^&\s]+)"
)
_FUNCTION = re.compile(r"python:([A-Za-z_][\w.]*):([A-Za-z_]\w*)\Z")
_WILD = re.compile(r"[*?\[]")


def read_source(source: SourcePolicy, folder: Path, until: datetime | None = None) -> pl.DataFrame:
    """All rows that a source has before `until` (an aware time; None means all it has).

    A path is relative to the project's folder and names a file, a folder (its files, by name) or a glob.
    `python:module:function` is imported from that folder and called with `until`: user code, so call this only in a step's
    process.

    Raises:
        SourceError: it is not there, cannot be read, or has no row.
        Invalid: a column of key, time or label is missing, a time cannot be read as one, or the form of source is unknown.
    """
    text = source.source
    if text.startswith("python:"):
        frame = _call(text, folder, until)
    elif "://" in text:
        raise Invalid(
            f"data.{source.name}: this release cannot read {redact(text)!r}",
            hint="give a path, a glob or 'python:module:function'",
            field="source",
        )
    else:
        frame = _read_files(find_files(text, folder), text)
    _check_columns(frame, source)
    frame = as_of(utc_times(frame, _time_columns(source)), source, until)
    if frame.height == 0:
        before = f" before {until.isoformat()}" if until else ""
        raise SourceError(
            f"the source {redact(text)!r} has no row{before}", hint="check the file or the function"
        )
    return frame


def redact(text: str) -> str:
    """A source's text without user, password, token or key: what may be stored.

    >>> redact("postgresql://ann:p@ss@db/crm?table=t&token=abc")
    'postgresql://***@db/crm?table=t&token=***'
    """
    return _SECRET.sub(r"\1=***", _USER.sub("://***@", text))


def find_files(text: str, folder: Path) -> list[Path]:
    """The files that a path, folder or glob names, by name.

    Raises:
        SourceError: there is none.
        Invalid: a file is of a kind that cannot be read.
    """
    path = folder / text
    if path.is_file():
        return [_known(path)]
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and _reader(file) is not None)
        if not found:
            raise SourceError(f"the folder {path} holds no file to read", hint=f"it may hold {_kinds()}")
        return found
    if not _WILD.search(text):
        raise SourceError(f"the file {path} does not exist", hint=f"paths are relative to {folder}")
    root = Path(path.anchor)
    found = sorted(file for file in root.glob(str(path.relative_to(root))) if file.is_file())
    if not found:
        raise SourceError(f"no file matches {path}", hint=f"paths are relative to {folder}")
    return [_known(file) for file in found]


def utc_times(frame: pl.DataFrame, required: Sequence[str] = ()) -> pl.DataFrame:
    """Every datetime in UTC microseconds (naive ones are taken as UTC), and `required` columns made into datetimes.

    Raises:
        Invalid: a required column is neither a datetime, a date nor ISO 8601 text; the first value at fault is shown.

    >>> utc_times(pl.DataFrame({"at": ["2013-01-01T05:00:00Z"]}), ["at"]).schema
    Schema([('at', Datetime(time_unit='us', time_zone='UTC'))])
    """
    wanted = set(required)
    return frame.with_columns(
        [_utc(s, required=s.name in wanted) for s in frame.get_columns() if s.name in wanted or _is_time(s)]
    )


def as_of(frame: pl.DataFrame, source: SourcePolicy, until: datetime | None) -> pl.DataFrame:
    """What was known at a time: rows of before it (those without a time stay, for the contract to judge), late labels null."""
    if until is None:
        return frame
    if source.time is not None:
        at = pl.col(source.time)
        frame = frame.filter(at.is_null() | (at < until))
    if source.label_time is not None:
        known = pl.col(source.label_time) <= until
        frame = frame.with_columns(
            pl.when(known).then(pl.col(name)).alias(name) for name in (source.label, source.label_time)
        )
    return frame


def _time_columns(source: SourcePolicy) -> list[str]:
    return [name for name in (source.time, source.label_time) if name is not None]


def _check_columns(frame: pl.DataFrame, source: SourcePolicy) -> None:
    roles: dict[str, Sequence[str | None]] = {
        "label": [source.label],
        "key": list(source.key),
        "time": [source.time],
        "label_time": [source.label_time],
    }
    for role, names in roles.items():
        for name in names:
            if name is not None and name not in frame.columns:
                raise Invalid(
                    f"data.{source.name}.{role} is {name!r}, and the source has no such column",
                    hint=f"it has {', '.join(frame.columns) or 'none'}",
                    field=name,
                )


def _is_time(series: pl.Series) -> bool:
    return isinstance(series.dtype, pl.Datetime | pl.Duration) and series.dtype not in (DATETIME, DURATION)


def _utc(series: pl.Series, *, required: bool) -> pl.Series:
    dtype = series.dtype
    if isinstance(dtype, pl.Duration) and not required:
        return series.dt.cast_time_unit("us")
    if dtype in (pl.Date, pl.Null):
        return series.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype == pl.String:
        return _parsed(series)
    if not isinstance(dtype, pl.Datetime):
        raise Invalid(
            f"the time column {series.name!r} is {dtype}, not a time",
            hint="give it as ISO 8601 text, a date or a datetime",
            field=series.name,
        )
    series = series.dt.cast_time_unit("us")
    return (
        series.dt.replace_time_zone("UTC") if dtype.time_zone is None else series.dt.convert_time_zone("UTC")
    )


def _parsed(series: pl.Series) -> pl.Series:
    """ISO 8601 text as times, with or without a zone."""
    asked = pl.select(
        pl.coalesce(
            pl.lit(series).str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
            if zone
            else pl.lit(series)
            .str.to_datetime(form, time_unit="us", strict=False)
            .dt.replace_time_zone("UTC")
            for form, zone in _FORMS
        ).alias(series.name)
    ).to_series()
    bad = series.filter(asked.is_null() & series.is_not_null())
    if len(bad):
        raise Invalid(
            f"the time column {series.name!r} holds {bad[0]!r}, which is not a time ({len(bad)} such values)",
            hint="times are ISO 8601, such as 2013-01-31T17:00:00Z",
            field=series.name,
        )
    return asked


_FORMS = (
    ("%+", True),
    ("%Y-%m-%d %H:%M:%S%.f%#z", True),
    ("%Y-%m-%dT%H:%M:%S%.f", False),
    ("%Y-%m-%d %H:%M:%S%.f", False),
    ("%Y-%m-%dT%H:%M", False),
    ("%Y-%m-%d %H:%M", False),
    ("%Y-%m-%d", False),
)


def _read_files(files: Sequence[Path], text: str) -> pl.DataFrame:
    frames = [_read_file(file) for file in files]
    first = frames[0]
    for file, frame in zip(files, frames, strict=True):
        if set(frame.columns) != set(first.columns):
            odd = ", ".join(sorted(set(frame.columns) ^ set(first.columns)))
            raise SourceError(
                f"{file} and {files[0]} do not have the same columns: {odd}", hint="make them alike"
            )
    try:
        return pl.concat([frame.select(first.columns) for frame in frames], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"the files of {text!r} do not fit together: {_line(error)}", hint="make their types alike"
        ) from None


def _read_file(file: Path) -> pl.DataFrame:
    reader = _reader(file)
    assert reader is not None, "files were chosen by their reader"
    try:
        frame = reader(file)
    except pl.exceptions.NoDataError:
        raise SourceError(f"{file} is empty", hint="it needs a header and rows") from None
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise SourceError(
            f"{file} cannot be read: {_line(error)}", hint="open it and look at that place"
        ) from error
    if frame.width == 0:
        raise SourceError(f"{file} has no columns", hint="it needs a header and rows")
    return frame


def _reader(file: Path) -> Callable[[Path], pl.DataFrame] | None:
    name = file.name.lower()
    return next((read for suffix, read in _READERS.items() if name.endswith(suffix)), None)


def _known(file: Path) -> Path:
    if _reader(file) is None:
        raise Invalid(f"{file} is of a kind Andon cannot read", hint=f"files are {_kinds()}", field="source")
    return file


def _kinds() -> str:
    return ", ".join(_READERS)


def _read_csv(file: Path) -> pl.DataFrame:
    return _csv(file, ",")


def _read_tsv(file: Path) -> pl.DataFrame:
    return _csv(file, "\t")


def _csv(file: Path, separator: str) -> pl.DataFrame:
    return pl.read_csv(
        file,
        separator=separator,
        null_values=list(NULLS),
        infer_schema_length=None,
        try_parse_dates=True,
        glob=False,
    )


def _read_parquet(file: Path) -> pl.DataFrame:
    return pl.read_parquet(file, glob=False, hive_partitioning=False)


def _read_ndjson(file: Path) -> pl.DataFrame:
    return pl.read_ndjson(file, infer_schema_length=None)


_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".ndjson": _read_ndjson,
    ".jsonl": _read_ndjson,
}


def _call(text: str, folder: Path, until: datetime | None) -> pl.DataFrame:
    """Import and call the user's function; what goes wrong in it is told with its own words."""
    found = _FUNCTION.match(text)
    if found is None:
        raise Invalid(
            f"the source {text!r} names no function", hint="it is 'python:module:function'", field="source"
        )
    module, name = found[1], found[2]
    function = _function(module, name, folder)
    try:
        frame: Any = function(until)
        if isinstance(frame, pl.LazyFrame):
            frame = frame.collect()
    except AndonError:
        raise
    except Exception as error:
        raise SourceError(
            f"the source function {module}:{name} failed: {type(error).__name__}: {_line(error)}"
        ) from error
    if not isinstance(frame, pl.DataFrame):
        raise Invalid(
            f"the source function {module}:{name} returned a {type(frame).__name__}",
            hint="it returns a polars DataFrame",
            field="source",
        )
    return frame


def _function(module: str, name: str, folder: Path) -> Callable[[datetime | None], Any]:
    place = str(folder.absolute())
    if place not in sys.path:
        sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        function: Any = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise SourceError(
            f"the source module {module!r} cannot be imported: {type(error).__name__}: {_line(error)}",
            hint=f"it is looked for in {place}",
        ) from error
    if not callable(function):
        raise SourceError(
            f"the source module {module!r} has no function {name!r}", hint=f"add it to {module} in {place}"
        )
    return function  # type: ignore[no-any-return]  # the user's own function; what it returns is checked


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
