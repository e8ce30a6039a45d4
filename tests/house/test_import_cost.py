"""`import andon` is cheap: it loads nothing heavy and few modules."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "anyio", "asyncio", "click", "httptools", "jinja2", "lightgbm", "multiprocessing", "numpy", "pandas",
    "polars", "psycopg", "scipy", "sqlalchemy", "sqlite3", "starlette", "uvicorn", "uvloop",
}  # fmt: skip
PROBE = """
import json, resource, sys
before, start = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF)
import andon
end = resource.getrusage(resource.RUSAGE_SELF)
cpu_s = end.ru_utime - start.ru_utime + end.ru_stime - start.ru_stime
print(json.dumps({"cpu_s": cpu_s, "modules": sorted(set(sys.modules) - before)}))
"""


@pytest.fixture(scope="module")
def cost() -> dict:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.capability("O10")
def test_import_andon_loads_no_heavy_library(cost: dict) -> None:
    loaded = {name.partition(".")[0] for name in cost["modules"]}

    assert loaded & HEAVY == set()


def test_import_andon_loads_few_modules(cost: dict) -> None:
    assert len(cost["modules"]) < 100, cost["modules"]


def test_import_andon_costs_less_than_its_bar(cost: dict) -> None:
    assert cost["cpu_s"] < 0.15
