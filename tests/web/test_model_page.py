"""The page of a model: what was live when, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from andon.core.entities import ModelVersion
from andon.registry.models import ensure_model, set_alias
from andon.store.ports import Transaction
from tests.web.conftest import Control, serving
from tests.web.test_pages import HOSTILE, Reader, words
from tests.web.world import ENDPOINT, World, fill, opened


def alias(world: World, number: int, name: str) -> None:
    def work(tx: Transaction) -> None:
        version: ModelVersion = tx.model_versions.select({"model": ENDPOINT, "number": number})[0]
        set_alias(tx, version, name, actor=world.person.id, at=world.ws.clock.now())

    world.ws.store.write(work)


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Control]:
    """The first version was live, then the second; an alias moved once."""
    with opened(tmp_path) as world:
        fill(world)
        alias(world, 1, "champion")
        alias(world, 2, "champion")
        with serving(world) as control:
            yield control


@pytest.mark.capability("E5")
def test_the_page_says_what_is_live_and_what_was(past: Control) -> None:
    reply = past.browser().get(f"/models/{ENDPOINT}")

    name = past.state.name_of(past.state.owner)
    text = words(reply.text)
    found = Reader(reply.text)
    assert (reply.status, "text/html" in reply.headers["content-type"]) == (200, True)
    assert "<title>flights - what was live when - Andon</title>" in reply.text
    assert "Version 2 is live on flights." in text
    assert "alias champion" in text
    assert f"{name} the alias was moved to version 2" in text
    assert "it lasts" in text
    cells = [attrs for tag, attrs in found.seen if tag == "td"]
    assert all(attrs.get("data-label") for attrs in cells)
    assert [attrs.get("scope") for tag, attrs in found.seen if tag == "th"].count(None) == 0


def test_the_now_page_leads_there_and_back(past: Control) -> None:
    browser = past.browser()

    assert 'href="/models/flights"' in browser.get("/").text
    assert '<a href="/">Now</a>' in browser.get("/models/flights").text


def test_programs_get_the_same_with_ids(past: Control) -> None:
    found = past.client.get(f"/api/models/{ENDPOINT}/history").json

    live = found["live"]
    assert [(row["version"], row["place"], row["release"], row["ended"]) for row in live] == [
        (2, ENDPOINT, "rel_2", None)
    ]
    assert live[0]["verdict"] == "auc 0.720 >= 0.65"
    assert [(row["version"], row["place"]) for row in found["pointers"]] == [(2, "champion"), (1, "champion")]
    assert found["next"] is None
    assert past.client.get("/api/models/nobody/history").status == 404
    assert past.browser().get("/models/nobody").status == 404
    assert past.client.get(f"/api/models/{ENDPOINT}/history?limit=0").status == 400


def test_a_hostile_name_is_only_a_name(past: Control) -> None:
    hostile = HOSTILE.replace("/", "|")
    ws = past.world.ws
    ws.store.write(lambda tx: ensure_model(tx, hostile, past.world.person.id, ws.clock.now()))
    reply = past.browser().get(f"/models/{quote(hostile, safe='')}")

    assert reply.status == 200
    assert "<script>alert" not in reply.text
    assert {tag for tag, _ in Reader(reply.text).seen} <= {
        tag for tag, _ in Reader(past.browser().get("/models/flights").text).seen
    }
