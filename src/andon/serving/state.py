"""What a gateway says about itself, the same over HTTP and over its private socket."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from andon.serving.follower import Follower
from andon.serving.predict import Predictor
from andon.serving.table import Endpoint, Table


class GatewayState:
    """One gateway's number, process, boot, and the table in force."""

    def __init__(self, number: int, follower: Follower, predictor: Predictor) -> None:
        self.number = number
        self._follower = follower
        self._predictor = predictor

    @property
    def table(self) -> Table:
        """The table in force. Read it once for a request."""
        return self._follower.table

    def identity(self) -> dict[str, Any]:
        """Which gateway speaks; `boot` is the one that its prediction ids carry."""
        return {"worker": self.number, "pid": os.getpid(), "boot": f"{self._predictor.boot:010x}"}

    def condition(self) -> dict[str, Any]:
        """What could not be followed."""
        table = self.table
        return {
            "ready": table.ready,
            "epoch": table.epoch,
            "seq": table.seq,
            "waiting": list(table.waiting),
            "problems": [
                {"what": one.what, "endpoint": one.endpoint, "message": one.message} for one in table.problems
            ],
        }

    def routes(self) -> dict[str, Any]:
        """The routes in force by endpoint, after overrides."""
        routes = {name: _route(endpoint) for name, endpoint in sorted(self.table.endpoints.items())}
        return {**self.identity(), **self.condition(), "routes": routes}


def _route(endpoint: Endpoint) -> dict[str, Any]:
    """A route as people and the control plane read it. The salt stays inside: who knows it can choose an arm."""
    route = endpoint.route
    return {
        "endpoint": route.endpoint,
        "epoch": route.epoch,
        "generation": route.generation,
        "weight": route.weight,
        "held": route.held,
        "adopted": list(route.adopted),
        "arms": [
            {**msgspec.to_builtins(arm), "loaded": arm.release in endpoint.runtimes} for arm in route.arms
        ],
    }
