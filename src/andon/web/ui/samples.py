"""A call that works, for an endpoint: a real row of the model's golden rows as a curl line."""

from __future__ import annotations

import contextlib
import shlex
from functools import lru_cache

import msgspec

from andon.core.canonical import Digest
from andon.core.errors import AndonError
from andon.core.routes import EndpointRoute
from andon.pipelines.workspace import OpenWorkspace
from andon.registry.packaging.package import read_manifest
from andon.store.files import read_or_none
from andon.store.ports import Blobs

Record = dict[str, str | int | float | bool | None]


class _Supervisor(msgspec.Struct):
    gateway: str


class _Golden(msgspec.Struct):
    rows: list[Record]


def sample_call(ws: OpenWorkspace, route: EndpointRoute) -> str:
    """A curl line that the endpoint answers; when the model's package is not at hand, one with a record to fill in."""
    arm = route.arm("stable") or route.arm("candidate")
    try:
        record = _record(ws.blobs, arm.digest) if arm is not None else {}
    except AndonError:
        record = {}
    body = msgspec.json.encode(record).decode() if record else '{"column": "value"}'
    return (
        f"curl {gateway_address(ws)}/predict/{route.endpoint} \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
    )


def gateway_address(ws: OpenWorkspace) -> str:
    """Where gateways answer: as the supervisor says, else as the settings ask for."""
    said = read_or_none(ws.layout.run / "supervisor.json")
    if said is not None:
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(said, type=_Supervisor).gateway
    host = f"[{ws.settings.host}]" if ":" in ws.settings.host else ws.settings.host
    return f"http://{host}:{ws.settings.gateway_port}"


@lru_cache(maxsize=64)
def _record(blobs: Blobs, digest: Digest) -> Record:
    """The first golden row of a package. Packages never change, so it is read once."""
    manifest = read_manifest(blobs.get(digest))
    return msgspec.json.decode(blobs.get(manifest.files["golden.json"]), type=_Golden).rows[0]
