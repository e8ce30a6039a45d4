"""The person on call: what is live, is it healthy, what changed, why, undo. In a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from andon.core.workspace import Settings
from tests.browser.conftest import Open
from tests.web.conftest import Control, serving
from tests.web.world import fill, opened

pytestmark = pytest.mark.browser

UNDO = "Undo: 100% to v2"


def plain(text: str) -> re.Pattern[str]:
    """Text on a page, whatever kind of space parts its words."""
    return re.compile(re.escape(text).replace(r"\ ", r"\s+"))


def live(page: Page) -> None:
    """Wait until the page is told of changes."""
    expect(page.locator("#stream")).to_have_text("Live")


def row(page: Page) -> Locator:
    return page.locator("#endpoint-flights")


@pytest.mark.capability("E6")
def test_who_is_on_call_finds_out_and_undoes(canary: Control, visit: Open) -> None:
    canary.world.alert()
    page = visit(canary)

    expect(page).to_have_title("Now - what is live - Andon")
    expect(page.get_by_role("heading", level=1)).to_have_text("flights needs a look")
    expect(row(page).locator(".arms li")).to_have_text(
        [plain("90 % flights v2 stable"), plain("10 % flights v3 candidate")]
    )
    expect(row(page).locator(".health")).to_contain_text("440 requests in 5 min, 0 failed.")
    expect(row(page).locator(".change")).to_contain_text("flights v3 rolling out")
    expect(row(page).locator(".change")).to_contain_text("auc 0.730 >= 0.65")
    expect(page.locator("#alerts")).to_contain_text("AUC 0.612")
    expect(page.locator("#rollouts")).to_contain_text("104 requests, no evidence of harm")
    name = page.locator(".who span").inner_text()
    expect(row(page).locator(".act")).to_contain_text(
        plain(f"Takes v3 off and holds flights there. On record: {name}.")
    )

    page.get_by_label("Reason").fill("late arrivals look wrong")
    page.get_by_role("button", name=UNDO).click()

    expect(page.locator("#notice")).to_contain_text("Undone: flights v3")
    expect(row(page).locator(".arms li")).to_have_text([plain("100 % flights v2 stable")])
    expect(row(page).locator(".state")).to_have_text("Held")
    expect(row(page).locator(".change")).to_contain_text("late arrivals look wrong")
    expect(page.locator("#changes li").first).to_contain_text(re.compile(f"{name} (undid|sent)"))
    expect(page.locator("#changes")).to_contain_text(f"{name} undid flights v3")
    routes = canary.client.get("/api/status").json["endpoints"][0]
    assert (routes["live"]["number"], routes["candidate"], routes["held"]) == (2, None, True)


def test_resume_is_one_press_away(control: Control, visit: Open) -> None:
    page = visit(control)
    page.get_by_role("button", name="Undo: 100% to v1").click()

    page.get_by_role("button", name="Resume releases").click()

    expect(page.locator("#notice")).to_contain_text("Resumed: releases to flights may move again")
    expect(row(page).locator(".state")).not_to_have_text("Held")


def test_a_change_arrives_without_a_reload(control: Control, visit: Open) -> None:
    page = visit(control)
    live(page)
    page.evaluate("window.loadedOnce = true")
    icon = page.locator("#icon").get_attribute("href")

    control.world.alert()

    expect(page.get_by_role("heading", level=1)).to_have_text("flights needs a look")
    expect(page.locator("#alerts")).to_contain_text("AUC 0.612")
    assert page.evaluate("window.loadedOnce") is True
    assert page.locator("#icon").get_attribute("href") != icon


def test_what_one_tab_undoes_the_other_shows(canary: Control, visit: Open) -> None:
    one = visit(canary)
    two = visit(canary, context=one.context)
    live(two)

    one.get_by_role("button", name=UNDO).click()

    expect(row(two).locator(".state")).to_have_text("Held")
    expect(two.get_by_role("button", name=UNDO)).to_have_count(0)


def test_a_press_on_a_page_that_is_out_of_date_undoes_nothing_more(
    canary: Control, visit: Open, complaints: list[str]
) -> None:
    page = visit(canary)
    page.route("**/now/stream", lambda route: route.abort())
    page.reload()
    canary.client.post("/api/endpoints/flights/undo", {})

    page.get_by_role("button", name=UNDO).click()

    expect(page.locator("#notice")).to_contain_text("is not on endpoint")
    expect(row(page)).to_be_visible()
    assert canary.client.get("/api/status").json["endpoints"][0]["live"]["number"] == 2
    complaints.clear()


def test_what_is_typed_and_focused_stays_through_a_change(control: Control, visit: Open) -> None:
    page = visit(control)
    live(page)
    reason = page.get_by_label("Reason")
    reason.press_sequentially("it drif")

    control.world.alert()
    expect(page.locator("#alerts")).to_contain_text("AUC 0.612")
    page.keyboard.type("ts")

    expect(reason).to_be_focused()
    expect(reason).to_have_value("it drifts")


def test_everything_works_from_the_keyboard(canary: Control, visit: Open) -> None:
    page = visit(canary)
    live(page)

    seen: list[str] = []
    while "Undo" not in "".join(seen[-1:]):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.innerText || document.activeElement.name || ''"))
        assert len(seen) < 30
        if seen[-1] == "reason":
            page.keyboard.type("by keyboard")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", seen[-1]
    page.keyboard.press("Enter")

    expect(page.locator("#notice")).to_contain_text("Undone: flights v3")
    expect(page.locator("#notice")).to_be_focused()
    expect(row(page).locator(".change")).to_contain_text("by keyboard")
    page.keyboard.press("Enter")
    assert canary.client.get("/api/status").json["endpoints"][0]["live"]["number"] == 2
    assert seen[0] == "Skip to content"


def test_the_page_works_without_script(canary: Control, visit: Open) -> None:
    page = visit(canary, script=False)

    page.get_by_label("Reason").fill("no script here")
    page.get_by_role("button", name=UNDO).click()

    expect(page.locator("#notice")).to_contain_text("Undone: flights v3")
    expect(row(page).locator(".arms li")).to_have_text([plain("100 % flights v2 stable")])
    expect(row(page).locator(".change")).to_contain_text("no script here")
    page.reload()
    expect(page.locator("#notice")).not_to_contain_text("Undone")


def test_logging_out_shows_the_way_back_in(control: Control, visit: Open, complaints: list[str]) -> None:
    page = visit(control)

    page.get_by_role("button", name="Log out").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    assert [text for text in complaints if "401" not in text] == []
    complaints.clear()
    page.get_by_label("Code or token").fill(control.state.token)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_title("Now - what is live - Andon")


def test_the_page_says_when_it_is_not_live(tmp_path: Path, visit: Open, complaints: list[str]) -> None:
    with opened(tmp_path) as world:
        fill(world)
        with serving(world) as control:
            page = visit(control)
            live(page)
        expect(page.locator("#stream")).to_contain_text("Not live, as of")
        expect(row(page)).to_be_visible()

        with serving(world, port=int(control.address.rsplit(":", 1)[1])):
            expect(page.locator("#stream")).to_contain_text("Logged out")
        expect(row(page)).to_be_visible()
    complaints.clear()


# --- how it looks ---

CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const weak = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("svg, .skip") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parse(style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push([walker.currentNode.data.trim(), ratio]);
  }
  return weak;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1600, 420])
def test_it_reads_well_in_light_and_dark_on_wide_and_narrow(
    canary: Control, visit: Open, scheme: str, width: int
) -> None:
    canary.world.alert()
    page = visit(canary, width=width, scheme=scheme)
    live(page)

    beyond = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert beyond == []
    assert page.evaluate(CONTRAST) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 128")
    assert dark == (scheme == "dark")


def test_every_control_has_a_name(canary: Control, visit: Open) -> None:
    page = visit(canary)

    nameless = page.evaluate(
        "[...document.querySelectorAll('a, button, input:not([type=hidden])')]"
        ".filter(e => !(e.innerText || e.labels?.length)).map(e => e.outerHTML)"
    )

    assert nameless == []
    assert (
        page.evaluate(
            "[...document.querySelectorAll('svg')].filter(e => !e.ariaHidden && !e.ariaLabel).length"
        )
        == 0
    )


def test_an_empty_workspace_shows_how_to_begin(tmp_path: Path, visit: Open) -> None:
    with opened(tmp_path, settings=Settings()) as world, serving(world) as control:
        page = visit(control, width=420)

        expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is live yet")
        expect(page.locator("#empty")).to_contain_text("andon init churn")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_first_page_is_within_its_budget(canary: Control, visit: Open) -> None:
    start = visit(canary)
    page = start.context.new_page()
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes: list[float] = []
    asked: list[str] = []
    network.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    network.on("Network.dataReceived", lambda event: sizes.append(event["encodedDataLength"]))
    network.on("Network.responseReceived", lambda event: sizes.append(event["response"]["encodedDataLength"]))

    page.goto(f"{canary.address}/")
    live(page)

    assert len(asked) <= 20
    assert 10_000 < sum(sizes) <= 100_000
    assert page.evaluate("document.querySelectorAll('*').length") <= 2500
    assert not [url for url in asked if not url.startswith(canary.address)]
