"""What an MLflow client sends, by raw HTTP, and the one control process that most tests of the wire send it to."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from andon.store.ports import Store
from tests.web.client import Reply
from tests.web.conftest import Control, serving
from tests.web.world import opened

API = "/api/2.0/mlflow/"
INVALID, ABSENT, TAKEN = "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
STATUS = {INVALID: 400, ABSENT: 404, TAKEN: 400}
_NUMBERS = itertools.count(1)


class Wire:
    """A client of a control process; each test has experiments of its own."""

    def __init__(self, control: Control) -> None:
        self.control = control

    @property
    def store(self) -> Store:
        return self.control.world.ws.store

    def ask(
        self, method: str, path: str, form: Any = None, *, body: bytes | None = None, **headers: str
    ) -> Reply:
        """Send a form as a client does (GET: in the query), or a body as it is; a path with a slash in front is whole."""
        client, address = self.control.client, path if path.startswith("/") else API + path
        if method == "GET" and form:
            return client.ask("GET", f"{address}?{urlencode(form, doseq=True)}", **headers)
        data = body if body is not None or form is None else json.dumps(form).encode()
        return client.ask(method, address, data, **({"Content_Type": "application/json"} | headers))

    def get(self, path: str, **form: Any) -> Any:
        """The answer of a GET that must succeed."""
        return self._done(self.ask("GET", path, form))

    def post(self, path: str, **form: Any) -> Any:
        """The answer of a POST that must succeed."""
        return self._done(self.ask("POST", path, form))

    def _done(self, reply: Reply) -> Any:
        assert reply.status == 200, (reply.status, reply.text[:500])
        assert reply.headers["content-type"] == "application/json"
        return reply.json

    def refused(self, code: str, method: str, path: str, form: Any = None, **more: Any) -> str:
        """The message of a request that is refused with a code and its status."""
        reply = self.ask(method, path, form, **more)
        shown = (method, path, str(form)[:200], reply.text[:300])
        assert reply.headers["content-type"] == "application/json", shown
        assert set(reply.json) == {"error_code", "message"}, shown
        assert (reply.status, reply.json["error_code"]) == (STATUS[code], code), shown
        message: str = reply.json["message"]
        return message

    def experiment(self, **form: Any) -> str:
        """The id of a new experiment."""
        ident: str = self.post("experiments/create", name=self.unique(), **form)["experiment_id"]
        return ident

    def unique(self, stem: str = "experiment") -> str:
        """A name that no other test has."""
        return f"{stem} {next(_NUMBERS)}"

    def run(self, experiment: str | None = None, **form: Any) -> str:
        """The id of a new run."""
        made = self.post("runs/create", experiment_id=experiment or self.experiment(), **form)
        ident: str = made["run"]["info"]["run_id"]
        return ident

    def told(self, run: str) -> Any:
        """A run as it is told."""
        return self.get("runs/get", run_id=run)["run"]


@pytest.fixture(scope="session")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """One control process for all tests that only add to it."""
    with opened(tmp_path_factory.mktemp("wire")) as world, serving(world) as control:
        yield Wire(control)


__all__ = ["ABSENT", "API", "INVALID", "STATUS", "TAKEN", "Wire", "wire"]
