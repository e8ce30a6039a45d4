"""The real, unmodified MLflow client plays every scenario against a live server, on both back ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire.battery import Check, battery


@pytest.mark.parametrize("check", battery(), ids=str)
def test_the_client_works_unchanged(check: Check, errors_of: Callable[[Check], str | None]) -> None:
    error = errors_of(check)

    assert error is None, error
