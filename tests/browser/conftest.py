"""A browser with a fresh profile for each test, and eyes on everything it complains about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from andon.web.login import login_address
from tests.web.conftest import Control, canary, control, serving, world

__all__ = ["canary", "control", "serving", "world"]
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
Open = Callable[..., Page]


@pytest.fixture(scope="module")  # while it is open, no other event loop can run in this thread
def browser(chromium_path: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(chromium_path), args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture
def complaints() -> list[str]:
    """What pages complained about; a test that expects some empties it."""
    return []


@pytest.fixture
def visit(browser: Browser, complaints: list[str]) -> Iterator[Open]:
    """Open the Now page by a login link, as `andon up` prints it."""
    contexts: list[BrowserContext] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def visit(
        control: Control,
        *,
        width: int = 1600,
        scheme: str = "light",
        script: bool = True,
        context: BrowserContext | None = None,
    ) -> Page:
        inside = context or browser.new_context(
            viewport={"width": width, "height": 1000},
            color_scheme=scheme,
            java_script_enabled=script,  # type: ignore[arg-type]
        )
        inside.set_default_timeout(15_000)
        page = inside.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if context is None:
            contexts.append(inside)
            page.goto(login_address(control.address, control.world.ws.layout))
            page.wait_for_url(f"{control.address}/")
        else:
            page.goto(f"{control.address}/")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []
