"""What the page of a model shows: its past in words, with people by their names."""

from __future__ import annotations

from datetime import datetime

import msgspec

from andon.pipelines.workspace import OpenWorkspace
from andon.registry.history import Stay, history
from andon.store.ports import Reader
from andon.web.ui.words import Names


class StayView(msgspec.Struct, frozen=True, kw_only=True):
    """A row: which version was where, from when until when, by whom, and why it ended."""

    version: str
    place: str
    began: datetime
    ended: datetime | None
    asked_by: str
    approved_by: str
    verdict: str
    ended_because: str


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """The page. `next` leads to older releases, None at the end; `first` says that this is the first page."""

    model: str
    at: datetime
    now: str
    live: tuple[StayView, ...]
    pointers: tuple[StayView, ...]
    next: str | None
    first: bool


def model_view(ws: OpenWorkspace, model: str, after: str | None) -> ModelView:
    """A model's page from one view of the store.

    Raises:
        NotFound: there is no such model, or no such release.
    """
    at = ws.clock.now()

    def look(reader: Reader) -> ModelView:
        found, names = history(reader, model, after=after), Names(reader)
        lasting = [stay for stay in found.live if stay.ended is None]
        return ModelView(
            model=model, at=at, now=_now(lasting), live=tuple(_row(stay, names) for stay in found.live),
            pointers=tuple(_row(stay, names) for stay in found.pointers), next=found.next, first=after is None,
        )  # fmt: skip

    return ws.store.read(look)


def _now(lasting: list[Stay]) -> str:
    return "; ".join(f"Version {stay.version} is live on {stay.place}" for stay in lasting)


def _row(stay: Stay, names: Names) -> StayView:
    return StayView(
        version=f"v{stay.version}",
        place=stay.place if stay.kind == "endpoint" else f"{stay.kind} {stay.place}",
        began=stay.began,
        ended=stay.ended,
        asked_by=names.actor(stay.asked_by),
        approved_by=", ".join(names.actor(actor) for actor in stay.approved_by),
        verdict=stay.verdict or "",
        ended_because=stay.ended_because or "",
    )
