"""Following what is published: route file and override journal become the gateway's table, again and again.

A gateway needs nothing else: neither the database nor the control plane. Whatever it cannot read or load leaves the last good
route in force and is named as a problem. What it last served is kept in a file of its own, so that it comes back the same way
after a crash even when the published file was spoiled meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from andon.core.canonical import Digest
from andon.core.clock import Clock, to_us
from andon.core.errors import AndonError, Conflict, NotFound
from andon.core.ids import ModelVersionId, OverrideId, ReleaseId, new_id
from andon.core.routes import (
    EndpointRoute,
    Override,
    RouteFile,
    decode_routes,
    effective,
    encode_routes,
    newer,
)
from andon.core.workspace import Layout
from andon.serving.journal import Journal
from andon.serving.loader import Loader
from andon.serving.table import Problem, Runtime, Table, endpoints
from andon.store.files import read_or_none, write_atomic

POLL_S = 0.1
SAME_ACT_US = 10_000_000
"""An undo that names no release and comes again within this time, by the same actor for the same reason, is the same undo."""

_log = logging.getLogger("andon.gateway")
Faults = Callable[[Mapping[Digest, Runtime], Iterable[EndpointRoute]], Mapping[ModelVersionId, Runtime]]


class Follower:
    """Keeps `table` up to date. Any thread may read `table`; it is replaced in whole.

    `load` gives the runtime of a package's digest; `faults` gives the runtimes that rehearse a fault, by model version.
    """

    def __init__(
        self,
        layout: Layout,
        number: int,
        *,
        key: bytes,
        clock: Clock,
        load: Callable[[Digest], Runtime],
        faults: Faults,
    ) -> None:
        self.table = Table()
        self._layout = layout
        self._last_good = layout.routes.with_name(f"gateway-{number}.json")
        self._journal = Journal(layout.overrides, key)
        self._key = key
        self._clock = clock
        self._faults = faults
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._stamps: dict[Path, tuple[int, int, int] | None] = {}
        self._position = (0, 0)
        self._known = False
        self._base: dict[str, EndpointRoute] = {}
        self._pending: dict[str, EndpointRoute] = {}
        self._overrides: list[Override] = []
        self._problems: dict[tuple[str, str | None], Problem] = {}
        self._loader = Loader(load, clock, self._wake.set)
        self._seen = -1
        self._replaced: Mapping[ModelVersionId, Runtime] = {}

    def start(self) -> None:
        """Take up the last known routes and load their models; returns when each was loaded or has failed."""
        found = (self._read(self._last_good, "last good"), self._read(self._layout.routes, "route file"))
        self._read_journal()
        for routes in sorted(filter(None, found), key=lambda one: (one.epoch, one.seq)):
            self._accept(routes)
            self._want()
            self._loader.settle()
            self._take_up()
        self.look()

    def run(self, stop: threading.Event) -> None:
        """Look every `POLL_S` seconds, and at once when a model was loaded, until `stop` is set."""
        while not stop.is_set():
            self._wake.wait(POLL_S)
            self._wake.clear()
            try:
                self.look()
            except Exception:  # noqa: BLE001  # following must go on; the log says what happened
                _log.exception("looking at the routes failed; the last good ones go on")

    def stop(self) -> None:
        """Load and follow nothing more; returns at once, from any thread."""
        self._loader.stop()
        self._wake.set()

    def join(self, timeout_s: float = 5.0) -> None:
        """Wait, after `stop`, for a load that is under way."""
        self._loader.join(timeout_s)

    def look(self) -> None:
        """One look at everything that may have changed."""
        with self._lock:
            fresh = self._loader.version != self._seen
            if self._changed(self._layout.routes):
                fresh = True
                if routes := self._read(self._layout.routes, "route file"):
                    self._accept(routes)
            if self._changed(self._layout.overrides):
                fresh = True
                self._read_journal()
            if fresh:
                self._take_up()
            if fresh or self._rehearsed() != self._replaced:
                self._publish()

    def undo(
        self, endpoint: str, release: ReleaseId | None, *, actor: str, reason: str
    ) -> tuple[Override, Table]:
        """Take a release off an endpoint: on disk first, then in the table that every later answer uses.

        Without a release it is the published candidate, or stable when there is none. Undoing the same release again changes
        nothing and gives the first override.

        Raises:
            NotFound: no such endpoint, or the release is not on it.
            Conflict: no release was named and there is nothing to go back to.
            StorageFull: the journal cannot be written; nothing changed.
        """
        with self._lock:
            route = self._base.get(endpoint)
            if route is None:
                raise NotFound(
                    f"no endpoint {endpoint!r} here", hint="this gateway serves " + _names(self._base)
                )
            override = self._journal.add(lambda before: self._decide(before, route, release, actor, reason))
            self._read_journal()
            if override not in self._overrides:
                self._overrides.append(override)
            self._publish()
            return override, self.table

    def _decide(
        self,
        before: Sequence[Override],
        route: EndpointRoute,
        release: ReleaseId | None,
        actor: str,
        reason: str,
    ) -> Override:
        """The override that an undo makes, or the one that was made before. Decided on the published route, so that asking
        several gateways, or again after a lost answer, never takes off a second release."""
        now = to_us(self._clock.now())
        here = [one for one in before if (one.endpoint, one.epoch) == (route.endpoint, route.epoch)]
        if release is None:
            for one in reversed(here):
                if (one.actor, one.reason) == (actor, reason) and abs(now - one.at_us) < SAME_ACT_US:
                    return one
            arm = route.arm("candidate") or route.arm("stable")
            release = arm.release if arm else ReleaseId("")
        serves = any(arm.release == release for arm in route.arms)
        for one in here:
            if one.release == release and not (serves and one.id in route.adopted):
                return one
        if not serves:
            raise NotFound(
                f"release {release!r} is not on endpoint {route.endpoint!r}",
                hint="it has " + (", ".join(f"{arm.release} ({arm.role})" for arm in route.arms) or "none"),
            )
        override = Override(
            id=OverrideId(new_id("override")), endpoint=route.endpoint, epoch=route.epoch, generation=route.generation,
            release=release, actor=actor, at_us=now, reason=reason,
        )  # fmt: skip
        left = effective(route, [*here, override]).arm("stable")
        if left is None or left.digest not in self._loader.loaded():
            raise Conflict(
                f"endpoint {route.endpoint!r} has no release to go back to from {release}",
                hint="nothing was changed; stop the gateway to stop answering",
            )
        return override

    def _changed(self, path: Path) -> bool:
        """Whether a file is another one than at the last look."""
        try:
            stat = path.stat()
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except OSError:
            stamp = None
        if path in self._stamps and self._stamps[path] == stamp:
            return False
        self._stamps[path] = stamp
        return True

    def _read(self, path: Path, what: str) -> RouteFile | None:
        """A route file, None when it is missing or spoiled."""
        try:
            data = read_or_none(path)
            routes = None if data is None else decode_routes(data, self._key)
        except (AndonError, ValueError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, AndonError):
                self._stamps.pop(path, None)  # it is not the file's content: look again
            self._report(what, None, f"{path.name}: {error}; the last good routes stay in force")
            return None
        gone = routes is None and path == self._layout.routes
        self._report(
            what, None, f"{path.name} is not there; the last known routes stay in force" if gone else None
        )
        return routes

    def _accept(self, routes: RouteFile) -> None:
        """Note what a file publishes. An older epoch is refused whole, an older generation for its endpoint."""
        position = (routes.epoch, routes.seq)
        if routes.epoch < self._position[0]:
            self._report(
                "epoch",
                None,
                f"the route file is of epoch {routes.epoch} and this gateway follows epoch {self._position[0]}",
            )
            return
        self._report("epoch", None, None)
        for name, route in routes.endpoints.items():
            known = self._pending.get(name, self._base.get(name))
            if name == route.endpoint and newer(route, known):
                self._pending[name] = route
        if position >= self._position:
            self._position, self._known = position, True
            for gone in [name for name in (*self._base, *self._pending) if name not in routes.endpoints]:
                self._base.pop(gone, None)
                self._pending.pop(gone, None)
                self._report("model", gone, None)

    def _read_journal(self) -> None:
        try:
            self._overrides, bad = self._journal.read()
        except OSError as error:
            self._stamps.pop(self._layout.overrides, None)
            self._report(
                "journal",
                None,
                f"the override journal cannot be read: {error}; the overrides read before stay",
            )
            return
        lines = f"line {', '.join(map(str, bad[:5]))}" + (" and more" if len(bad) > 5 else "")
        self._report(
            "journal", None, f"the override journal holds no override in {lines}: ignored" if bad else None
        )

    def _want(self) -> None:
        """What is served comes first, then what is published and not yet served."""
        routes = (*self._base.values(), *self._pending.values())
        self._loader.want(arm.digest for route in routes for arm in route.arms)

    def _take_up(self) -> None:
        """Serve the published routes whose models are there. A missing warm standby holds nobody back."""
        self._want()
        self._seen = self._loader.version
        loaded, failures = self._loader.loaded(), self._loader.failures()
        taken = False
        for name, route in list(self._pending.items()):
            missing = [arm for arm in route.arms if arm.digest not in loaded]
            needed = [arm for arm in missing if arm.role != "previous"]
            failed = [arm for arm in needed if arm.digest in failures]
            if failed:
                self._report(
                    "model", name, _cannot(name, route, failed[0].digest, failures, self._base.get(name))
                )
            elif not needed and all(arm.digest in failures for arm in missing):
                self._base[name] = self._pending.pop(name)
                self._report("model", name, None)
                taken = True
        for name, route in self._base.items():
            spare = next(
                (arm for arm in route.arms if arm.role == "previous" and arm.digest in failures), None
            )
            said = (
                f"the warm standby {spare.model} v{spare.version} of {name!r} cannot be loaded: "
                if spare
                else ""
            )
            self._report("standby", name, said + failures[spare.digest] if spare else None)
        if taken:
            self._want()
            self._keep()

    def _keep(self) -> None:
        """Write down what is served, for the next start."""
        epoch, seq = self._position
        try:
            write_atomic(
                self._last_good,
                encode_routes(RouteFile(epoch=epoch, seq=seq, endpoints=self._base), self._key),
            )
        except (OSError, AndonError) as error:
            self._report(
                "last good", None, f"{self._last_good.name} cannot be written: {error}; serving goes on"
            )
        else:
            self._report("last good", None, None)

    def _publish(self) -> None:
        """Switch to a new table when it differs from the one in force."""
        loaded = self._loader.loaded()
        self._replaced = self._rehearsed()
        table = Table(
            epoch=self._position[0],
            seq=self._position[1],
            known=self._known,
            endpoints=endpoints(self._base.values(), self._overrides, loaded, self._replaced),
            waiting=tuple(sorted(name for name in self._pending if name not in self._base)),
            problems=tuple(self._problems.values()),
        )
        if table != self.table:
            for name, endpoint in table.endpoints.items():
                before = self.table.endpoints.get(name)
                if before is None or before.route != endpoint.route:
                    route = endpoint.route
                    _log.info(
                        "%s: generation %s of epoch %s is in force", name, route.generation, route.epoch
                    )
            self.table = table

    def _rehearsed(self) -> Mapping[ModelVersionId, Runtime]:
        """The runtimes of rehearsed faults, as their switches stand now."""
        return self._faults(self._loader.loaded(), self._base.values())

    def _report(self, what: str, endpoint: str | None, message: str | None) -> None:
        """Note a problem, or that it is over (None)."""
        before = self._problems.pop((what, endpoint), None)
        if message is None:
            if before is not None:
                _log.info("over: %s", before.message)
            return
        self._problems[what, endpoint] = Problem(what, message, endpoint)
        if before is None or before.message != message:
            _log.warning("%s", message)


def _cannot(
    name: str, route: EndpointRoute, digest: Digest, failures: Mapping[Digest, str], old: EndpointRoute | None
) -> str:
    arm = next(arm for arm in route.arms if arm.digest == digest)
    stays = (
        f"generation {old.generation} stays in force" if old else "the endpoint has nothing to answer with"
    )
    what = f"{arm.model} v{arm.version} for {name!r} (generation {route.generation})"
    return f"{what} cannot be loaded: {failures[digest]}; {stays}"


def _names(routes: Mapping[str, object]) -> str:
    return ", ".join(sorted(routes)) or "none"
