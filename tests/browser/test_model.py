"""From what is live to what was, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.web.conftest import Control

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1600, 390])
def test_the_live_version_leads_to_its_past_and_back(
    control: Control, visit: Open, scheme: str, width: int
) -> None:
    page = visit(control, scheme=scheme, width=width)

    page.locator("#endpoint-flights .arms a").first.click()

    expect(page).to_have_title("flights - what was live when - Andon")
    expect(page.get_by_role("heading", level=1)).to_have_text("flights")
    expect(page.locator("#live tbody tr")).to_have_count(1)
    expect(page.locator("#live tbody")).to_contain_text("auc 0.720 >= 0.65")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("link", name="Now").click()
    expect(page).to_have_title("Now - what is live - Andon")


def test_the_page_needs_no_script(control: Control, visit: Open) -> None:
    page = visit(control, script=False)

    page.locator("#endpoint-flights .arms a").first.click()

    expect(page.locator("#live tbody")).to_contain_text("v2")
