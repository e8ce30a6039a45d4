"""Talking to this machine's gateways over their private sockets: what they serve, and undo when nothing else answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from andon.core.clock import Clock
from andon.core.errors import Unavailable
from andon.core.workspace import Layout
from andon.serving.private_socket import connect

_TIMEOUT_S = 1.0
_POLL_S = 0.02


class GatewayState(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway as it answers itself; `routes` maps endpoint to what it serves."""

    name: str
    reachable: bool
    pid: int | None = None
    boot: str | None = None
    routes: dict[str, dict[str, Any]] = {}


def ask(path: Path, message: dict[str, Any]) -> dict[str, Any]:
    """Send one request to a gateway's socket; its answer comes back.

    Raises:
        Unavailable: nobody answers there.
    """
    try:
        with connect(path, timeout_s=_TIMEOUT_S) as connection:
            connection.sendall(msgspec.json.encode(message) + b"\n")
            with connection.makefile("rb") as answer:
                return msgspec.json.decode(answer.readline(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise Unavailable(f"the gateway at {path.name} does not answer: {error}") from None


def sockets(layout: Layout) -> list[Path]:
    """The sockets of gateways that run, or did until they were killed."""
    return sorted(layout.run.glob("gateway-*.sock"))


def states(layout: Layout) -> list[GatewayState]:
    """What each gateway serves just now."""
    return [_state(path) for path in sockets(layout)]


def wait_for(
    layout: Layout, endpoint: str, epoch: int, generation: int, clock: Clock, *, limit_s: float
) -> tuple[list[str], list[str]]:
    """Wait until gateways serve a generation: names of those that do, and of those that did not in time."""
    deadline = clock.monotonic_s() + limit_s
    waiting = {path.stem: path for path in sockets(layout)}
    reached: list[str] = []
    while waiting:
        for name, path in list(waiting.items()):
            route = _state(path).routes.get(endpoint, {})
            if (route.get("epoch", 0), route.get("generation", -1)) >= (epoch, generation):
                reached.append(name)
                del waiting[name]
        if not waiting or clock.monotonic_s() >= deadline:
            break
        time.sleep(_POLL_S)
    return sorted(reached), sorted(waiting)


def undo_at_gateways(
    layout: Layout, endpoint: str, *, actor: str, reason: str
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Undo without the control plane: ask each gateway; the first answer, names that did it, names not reached.

    Raises:
        Unavailable: no gateway answers.
    """
    message = {"verb": "undo", "endpoint": endpoint, "actor": actor, "reason": reason}
    answers: dict[str, dict[str, Any]] = {}
    unreached: list[str] = []
    for path in sockets(layout):
        try:
            answer = answers[path.stem] = ask(path, message)
            if answer.get("ok") and "release" not in message:
                # All undo the same one: who is asked second has perhaps heard of the first already.
                message["release"] = answer["release"]
        except Unavailable:
            unreached.append(path.stem)
    done = {name: answer for name, answer in answers.items() if answer.get("ok")}
    if not done:
        said = "; ".join(str(answer.get("message")) for answer in answers.values())
        raise Unavailable(
            f"no gateway undid {endpoint!r}", hint=said or "start the workspace with 'andon up'"
        )
    return (
        next(iter(done.values())),
        sorted(done),
        sorted(unreached + [name for name in answers if name not in done]),
    )


def _state(path: Path) -> GatewayState:
    try:
        answer = ask(path, {"verb": "routes"})
    except Unavailable:
        return GatewayState(name=path.stem, reachable=False)
    routes = answer.get("routes", {})
    if isinstance(routes, list):
        routes = {route["endpoint"]: route for route in routes}
    return GatewayState(
        name=path.stem, reachable=True, pid=answer.get("pid"), boot=str(answer.get("boot")), routes=routes
    )
