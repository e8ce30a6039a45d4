"""Routes: what a gateway serves, as one signed file; overrides: an undo made at a gateway without the control plane.

Every route has (epoch, generation). Generations of one endpoint only grow within an epoch and are published in steps of
`GENERATION_STEP`; a gateway adds the number of overrides in force, so two different splits of traffic never share a
generation. A route of a newer epoch wins over everything of an older one.

`effective` and `pick` are pure: the gateway, the reconciler and the tests use the same two functions.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

import msgspec

from andon.core.canonical import Digest
from andon.core.errors import Corrupt
from andon.core.ids import ModelVersionId, OverrideId, ReleaseId

FORMAT = "andon.routes/1"
OVERRIDE_FORMAT = "andon.override/1"
GENERATION_STEP = 100
_T = TypeVar("_T")
Role = Literal["stable", "candidate", "previous"]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """A release that an endpoint can answer with. `previous` is the warm standby: loaded, and without traffic."""

    release: ReleaseId
    role: Role
    model: str
    version: int
    model_version: ModelVersionId
    digest: Digest


class EndpointRoute(msgspec.Struct, frozen=True, kw_only=True):
    """How an endpoint's requests are split. `weight` is the candidate's share of requests in [0, 1]."""

    endpoint: str
    epoch: int
    generation: int
    salt: str
    arms: tuple[Arm, ...]
    weight: float = 0.0
    held: bool = False
    adopted: tuple[OverrideId, ...] = ()

    def arm(self, role: Role) -> Arm | None:
        """The arm of a role, if the route has one."""
        return next((arm for arm in self.arms if arm.role == role), None)


class RouteFile(msgspec.Struct, frozen=True, kw_only=True):
    """All endpoints of a workspace at ledger position `seq`."""

    epoch: int
    seq: int
    endpoints: Mapping[str, EndpointRoute]
    format: str = FORMAT


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """An undo at a gateway: `release` gets no traffic on `endpoint` from now on. Void in another epoch."""

    id: OverrideId
    endpoint: str
    epoch: int
    generation: int
    release: ReleaseId
    actor: str
    at_us: int
    reason: str = ""
    format: str = OVERRIDE_FORMAT


class _Signed(msgspec.Struct, frozen=True):
    alg: str
    body: str
    mac: str


def encode_routes(routes: RouteFile, key: bytes) -> bytes:
    """The bytes of a route file, authenticated with the workspace's route key."""
    return _sign(msgspec.json.encode(routes), key)


def decode_routes(data: bytes, key: bytes) -> RouteFile:
    """Read a route file.

    Raises:
        Corrupt: it was not written with this key, was changed or cut, or has a format that this release does not read.
    """
    routes = _decode(data, key, RouteFile, "route file")
    if routes.format != FORMAT:
        raise Corrupt(f"the route file has the format {routes.format!r}, this gateway reads {FORMAT!r}")
    return routes


def encode_override(override: Override, key: bytes) -> bytes:
    """One line of the override journal, without its line break."""
    return _sign(msgspec.json.encode(override), key)


def decode_override(data: bytes, key: bytes) -> Override:
    """Read one line of the override journal.

    Raises:
        Corrupt: it was not written with this key, was changed or cut, or has a format that this release does not read.
    """
    override = _decode(data, key, Override, "override")
    if override.format != OVERRIDE_FORMAT:
        raise Corrupt(
            f"the override has the format {override.format!r}, this Andon reads {OVERRIDE_FORMAT!r}"
        )
    return override


def newer(new: EndpointRoute, old: EndpointRoute | None) -> bool:
    """Whether a route replaces another: epoch first, then generation."""
    return old is None or (new.epoch, new.generation) > (old.epoch, old.generation)


def effective(route: EndpointRoute, overrides: Iterable[Override]) -> EndpointRoute:
    """The route with the overrides that are in force: those of its endpoint and epoch that it has not adopted.

    A withdrawn candidate's share goes back to stable. When stable itself is withdrawn, the warm standby answers; with no
    standby either the route has no stable arm and the endpoint answers 503.
    """
    in_force = {
        override.id: override.release
        for override in overrides
        if override.endpoint == route.endpoint
        and override.epoch == route.epoch
        and override.id not in route.adopted
    }
    if not in_force:
        return route
    gone = set(in_force.values())
    left = tuple(arm for arm in route.arms if arm.release not in gone)
    if not any(arm.role == "stable" for arm in left):
        left = tuple(
            msgspec.structs.replace(arm, role="stable") if arm.role == "previous" else arm for arm in left
        )
    keeps_candidate = any(arm.role == "candidate" for arm in left)
    return msgspec.structs.replace(
        route,
        generation=route.generation + min(len(in_force), GENERATION_STEP - 1),
        arms=left,
        weight=route.weight if keeps_candidate else 0.0,
        held=True,
    )


def share(salt: str, unit: str) -> float:
    """Where a unit (entity, or prediction id) falls in [0, 1) for a salt: uniform, and sticky for the same unit.

    >>> share("s", "customer-1") == share("s", "customer-1")
    True
    """
    return int.from_bytes(hashlib.blake2b(f"{salt}\n{unit}".encode(), digest_size=7).digest()) / 2**56


def pick(route: EndpointRoute, unit: str) -> Arm | None:
    """The arm that answers a unit: the candidate when the unit falls below its weight, so a growing weight keeps all before.

    None when the route has no arm to answer with.
    """
    candidate = route.arm("candidate")
    if candidate is not None and share(route.salt, unit) < route.weight:
        return candidate
    return route.arm("stable")


def _sign(body: bytes, key: bytes) -> bytes:
    mac = hmac.new(key, body, hashlib.sha256).hexdigest()
    return msgspec.json.encode(_Signed("hmac-sha256", body.decode(), mac))


def _decode(data: bytes, key: bytes, form: type[_T], what: str) -> _T:
    try:
        signed = msgspec.json.decode(data, type=_Signed)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"the {what} cannot be read: {error}") from None
    if signed.alg != "hmac-sha256":
        raise Corrupt(f"the {what} is signed with {signed.alg!r}, which this release does not know")
    want = hmac.new(key, signed.body.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(want, signed.mac):
        raise Corrupt(f"the {what} was not written with this workspace's key")
    try:
        return msgspec.json.decode(signed.body, type=form)
    except msgspec.DecodeError as error:
        raise Corrupt(
            f"the {what} cannot be read: {error}", hint="was it written by another release?"
        ) from None
