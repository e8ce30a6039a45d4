"""A live control process on a free port, over a workspace with a past."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from andon.core.workspace import Settings
from andon.web.__main__ import Server, configure, listen
from andon.web.app import create_app
from andon.web.state import State
from tests.web.client import Client, cookie_of
from tests.web.world import World, fill, opened


@dataclass(frozen=True)
class Control:
    """A control process that answers in a thread of the test."""

    address: str
    world: World
    state: State

    @property
    def anonymous(self) -> Client:
        return Client(self.address)

    @property
    def client(self) -> Client:
        """Who holds the token."""
        return Client(self.address, Authorization=f"Bearer {self.state.token}")

    def browser(self, role: str = "owner") -> Client:
        """A browser that is logged in, as it speaks when its own page asks."""
        reply = self.anonymous.get(f"/login?code={self.state.codes.mint(role)}")
        return Client(
            self.address, Cookie=cookie_of(reply), Origin=self.address, Sec_Fetch_Site="same-origin"
        )


@contextmanager
def serving(world: World, *, port: int = 0) -> Iterator[Control]:
    """Serve a world until the block ends; on a free port if none is given."""
    sock = listen("127.0.0.1", port)
    app = create_app(world.ws)
    server = Server(configure(app), app.state.andon)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
    thread.start()
    try:
        yield Control(f"http://127.0.0.1:{sock.getsockname()[1]}", world, app.state.andon)
    finally:
        server.handle_exit(15, None)
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A workspace in which a line has made three versions; the second is live."""
    with opened(tmp_path, settings=Settings(gateway_port=18080)) as made:
        fill(made)
        yield made


@pytest.fixture
def control(world: World) -> Iterator[Control]:
    with serving(world) as found:
        yield found


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """One control process for all tests that change nothing."""
    with opened(tmp_path_factory.mktemp("shared")) as made:
        fill(made)
        with serving(made) as found:
            yield found


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Control]:
    """The third version is tried on a tenth of the requests."""
    with opened(tmp_path) as made:
        fill(made, candidate=True)
        with serving(made) as found:
            yield found
