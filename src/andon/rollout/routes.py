"""From rows to the signed file that gateways read, and from their journal back to rows."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from andon.core.entities import Release, RouteRow
from andon.core.errors import AndonError, Conflict, Corrupt
from andon.core.events import EventDraft
from andon.core.ids import ActorId, ReleaseId, node
from andon.core.routes import (
    Arm,
    EndpointRoute,
    Override,
    Role,
    RouteFile,
    decode_override,
    decode_routes,
    encode_routes,
    newer,
)
from andon.core.workspace import Layout
from andon.rollout.rollouts import mark_adopted, undo
from andon.store.files import read_or_none, write_atomic
from andon.store.keys import route_key
from andon.store.ports import Reader, Store, Transaction

_PAGE = 1000


def route_file(reader: Reader) -> RouteFile:
    """The published form of all routes, in the workspace's present epoch."""
    seq, _ = reader.ledger.head()
    epoch = reader.workspaces.get("workspace").epoch
    endpoints: dict[str, EndpointRoute] = {}
    last: RouteRow | None = None
    while True:
        page = reader.routes.select(after=last, limit=_PAGE)
        wanted = {release for row in page for _, release in _roles(row)}
        releases = {row.id: row for row in reader.releases.select({"id": sorted(wanted)}, limit=3 * _PAGE)}
        endpoints |= {row.id: _endpoint(row, releases, epoch) for row in page}
        if len(page) < _PAGE:
            return RouteFile(epoch=epoch, seq=seq, endpoints=endpoints)
        last = page[-1]


def publish(layout: Layout, store: Store) -> bool:
    """Bring the route file up to date; whether it had to be written. Safe to call from several processes at once.

    The rows are read while the file is locked, so that older content never replaces newer.

    Raises:
        Conflict: the file is ahead of the database, which must then be an old copy.
    """
    key = route_key(layout)
    with _locked(layout.routes.with_suffix(".lock")):
        routes = store.read(route_file)
        known = _published(layout, key)
        if known is not None and known.epoch == routes.epoch and known.endpoints == routes.endpoints:
            return False
        if known is not None:
            _check_not_ahead(known, routes)
        write_atomic(layout.routes, encode_routes(routes, key))
        return True


def journal(layout: Layout) -> list[Override]:
    """The overrides of the journal, in order. A torn or foreign line counts for nothing."""
    key = route_key(layout)
    found: list[Override] = []
    for line in (read_or_none(layout.overrides) or b"").splitlines():
        try:
            found.append(decode_override(line, key))
        except AndonError:
            continue
    return found


def unadopted(reader: Reader, overrides: Sequence[Override]) -> list[Override]:
    """The overrides that `adopt` has something to do for: of this epoch, of an endpoint there is, and not taken in yet."""
    if not overrides:
        return []
    epoch = reader.workspaces.get("workspace").epoch
    routes = {name: reader.routes.find(name) for name in {override.endpoint for override in overrides}}
    return [override for override in overrides if _in_force(override, routes[override.endpoint], epoch)]


def adopt(tx: Transaction, override: Override, *, actor: ActorId, at: datetime) -> bool:
    """Take an undo that was made at a gateway into the ledger; whether there was anything to take.

    The endpoint is held. When the release has left the endpoint meanwhile, or there is nothing to go back to from it, that is
    all that happens.
    """
    route = tx.routes.find(override.endpoint)
    if not _in_force(override, route, tx.workspaces.get("workspace").epoch):
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
        mark_adopted(tx, override.endpoint, override.id, override.release, actor=actor, at=at)
    return True


def _in_force(override: Override, route: RouteRow | None, epoch: int) -> bool:
    if route is None or override.epoch != epoch or (route.stable is None and route.candidate is None):
        return False
    return route.epoch != epoch or override.id not in route.adopted


def _roles(row: RouteRow) -> list[tuple[Role, ReleaseId]]:
    roles: tuple[tuple[Role, ReleaseId | None], ...] = (
        ("stable", row.stable), ("candidate", row.candidate), ("previous", row.previous),
    )  # fmt: skip
    return [(role, release) for role, release in roles if release is not None]


def _endpoint(row: RouteRow, releases: dict[ReleaseId, Release], epoch: int) -> EndpointRoute:
    return EndpointRoute(
        endpoint=row.id, epoch=epoch, generation=row.generation, salt=row.salt,
        arms=tuple(_arm(role, releases[release]) for role, release in _roles(row)),
        weight=row.weight_percent / 100, held=row.held, adopted=row.adopted if row.epoch == epoch else (),
    )  # fmt: skip


def _arm(role: Role, release: Release) -> Arm:
    return Arm(
        release=release.id, role=role, model=release.model, version=release.number, model_version=release.model_version,
        digest=release.version_digest,
    )  # fmt: skip


def _published(layout: Layout, key: bytes) -> RouteFile | None:
    data = read_or_none(layout.routes)
    try:
        return None if data is None else decode_routes(data, key)
    except Corrupt:
        return None


def _check_not_ahead(known: RouteFile, routes: RouteFile) -> None:
    ahead = [
        name
        for name, route in known.endpoints.items()
        if name in routes.endpoints and newer(route, routes.endpoints[name])
    ]
    if known.epoch > routes.epoch or ahead:
        raise Conflict(
            f"the published routes are newer than the database (epoch {known.epoch} and {routes.epoch}"
            + (f", endpoint {ahead[0]!r})" if ahead else ")"),
            hint="is it an old copy? bring it back with 'andon restore', which begins a new epoch",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process or thread at a time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
