"""The reference names what the gateway has: routes, permissions, errors, metrics, arguments."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from andon.core.clock import SystemClock
from andon.core.errors import Invalid
from andon.serving import app, connection, inference, predict, requests
from andon.serving.app import OPEN, ROUTES, Gateway, Route
from andon.serving.metrics import Metrics
from andon.serving.table import Table

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "gateway.md"


def test_every_route_and_its_permission_are_in_the_reference() -> None:
    rows = re.findall(r"^\| `(\w+) (/[^`]*)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)

    assert rows == [(route.methods[0], route.path, route.permission) for route in ROUTES]


def test_every_error_code_is_in_the_reference() -> None:
    sources = [
        Path(module.__file__ or "").read_text() for module in (app, connection, inference, predict, requests)
    ]
    codes = set(re.findall(r'"([A-Z]{3,}_[A-Z_]+)"', "\n".join(sources))) - {"ANDON_ALLOWED_HOSTS"}

    documented = set(re.findall(r"^\| \d{3} \| `(\w+)`", PAGE.read_text(), re.MULTILINE))
    assert codes <= documented
    assert {"MODEL_FAILED", "REQUEST_TIMEOUT", "NOT_READY"} <= codes


def test_every_metric_is_in_the_reference() -> None:
    text = Metrics(1).text(Table()).decode()

    families = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    assert re.findall(r"^\| `(andon_\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE) == families


def test_every_argument_is_in_the_reference() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "andon.serving", "--help"], capture_output=True, text=True, check=True
    ).stdout

    given = set(re.findall(r"^  (--[a-z-]+)", shown, re.MULTILINE))
    assert given == set(re.findall(r"^\| `(--[a-z-]+) ", PAGE.read_text(), re.MULTILINE))


@pytest.mark.parametrize("permission", [None, "", "admin"])
def test_a_route_without_a_permission_stops_the_start(permission: str | None) -> None:
    route = Route("/debug", ("GET",), permission, app.live)  # type: ignore[arg-type]

    with pytest.raises(Invalid, match="/debug"):
        Gateway(None, None, Metrics(1), SystemClock(), hosts=["localhost"], routes=[*ROUTES, route])  # type: ignore[arg-type]
    assert {route.permission for route in ROUTES} == OPEN
