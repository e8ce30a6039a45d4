"""From rows to the signed file that gateways read, and from their journal back to rows."""

from __future__ import annotations

from datetime import datetime

from andon.core.errors import Conflict, Corrupt
from andon.core.events import EventDraft
from andon.core.ids import ActorId, node
from andon.core.routes import Arm, EndpointRoute, Override, Role, RouteFile, decode_override, decode_routes, encode_routes
from andon.core.workspace import Layout
from andon.rollout.rollouts import mark_adopted, undo
from andon.store.files import read_or_none, write_atomic
from andon.store.keys import route_key
from andon.store.ports import Reader, Store, Transaction


def route_file(reader: Reader) -> RouteFile:
    """The published form of all routes."""
    seq, _ = reader.ledger.head()
    endpoints = {row.id: _endpoint(reader, row.id) for row in reader.routes.select()}
    return RouteFile(epoch=reader.workspaces.get("workspace").epoch, seq=seq, endpoints=endpoints)


def publish(layout: Layout, store: Store) -> bool:
    """Bring the route file up to date; whether it had to be written. Older content never replaces newer."""
    key = route_key(layout)
    routes = store.read(route_file)
    if _same(_published(layout, key), routes):
        return False
    write_atomic(layout.routes, encode_routes(routes, key))
    return True


def journal(layout: Layout) -> list[Override]:
    """The overrides of the journal, in order. A torn or foreign line counts for nothing."""
    key = route_key(layout)
    found: list[Override] = []
    for line in (read_or_none(layout.overrides) or b"").splitlines():
        try:
            found.append(decode_override(line, key))
        except Corrupt:
            continue
    return found


def adopt(tx: Transaction, override: Override, *, actor: ActorId, at: datetime) -> bool:
    """Take an undo that was made at a gateway into the ledger; whether there was anything to take."""
    route = tx.routes.find(override.endpoint)
    if route is None or override.epoch != route.epoch or override.id in route.adopted:
        return False
    tx.ledger.append(
        EventDraft(
            kind="override.adopted", actor=actor, at=at, subject=node("endpoint", override.endpoint),
            inputs=(node("release", override.release),),
            facts={"override": override.id, "by": override.actor, "generation": override.generation,
                   "made_at_us": override.at_us},
            note=override.reason or None,
        )
    )  # fmt: skip
    because = override.reason or "undone at a gateway"
    try:
        undo(
            tx, override.endpoint, actor=actor, at=at, because=because, hold=True,
            release=override.release, adopted=override.id,
        )  # fmt: skip
    except Conflict:
        mark_adopted(tx, override.endpoint, override.id, actor=actor, at=at)
    return True


def _endpoint(reader: Reader, endpoint: str) -> EndpointRoute:
    row = reader.routes.get(endpoint)
    roles: tuple[tuple[Role, str | None], ...] = (
        ("stable", row.stable), ("candidate", row.candidate), ("previous", row.previous),
    )  # fmt: skip
    arms = tuple(_arm(reader, role, release) for role, release in roles if release is not None)
    return EndpointRoute(
        endpoint=endpoint, epoch=row.epoch, generation=row.generation, salt=row.salt, arms=arms,
        weight=row.weight_percent / 100, held=row.held, adopted=row.adopted,
    )  # fmt: skip


def _arm(reader: Reader, role: Role, release: str) -> Arm:
    row = reader.releases.get(release)
    return Arm(
        release=row.id, role=role, model=row.model, version=row.number, model_version=row.model_version,
        digest=row.version_digest,
    )  # fmt: skip


def _published(layout: Layout, key: bytes) -> RouteFile | None:
    data = read_or_none(layout.routes)
    try:
        return None if data is None else decode_routes(data, key)
    except Corrupt:
        return None


def _same(old: RouteFile | None, new: RouteFile) -> bool:
    return old is not None and old.epoch == new.epoch and dict(old.endpoints) == dict(new.endpoints)
