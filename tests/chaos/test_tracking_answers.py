"""Answers that get lost: the client sends the same again, as MLflow's does, and what it meant happens once.

Some calls carry no key by which the server could know them again. They are named here, and what they do is that one row more
is there: nothing else, and nothing half.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from andon.pipelines.workspace import OpenWorkspace
from andon.web.mlflow.surface import surface
from tests.chaos.test_tracking_kills import new_database
from tests.chaos.tracking_client import API, FILES, RawClient
from tests.chaos.tracking_proxy import DeafProxy
from tests.chaos.tracking_server import ControlProcess, environ_on

pytestmark = pytest.mark.chaos

NOW = 1_700_000_000_000
Rows = dict[str, set[str]]


@dataclass(frozen=True)
class World:
    """What there is before a call, freshly made for each: ids that go into its path and form."""

    names: Mapping[str, str]

    def fill(self, value: Any) -> Any:
        """A form with the names in it."""
        if isinstance(value, str):
            for name, text in self.names.items():
                value = value.replace(f"<{name}>", text)
            return value
        if isinstance(value, list):
            return [self.fill(each) for each in value]
        if isinstance(value, dict):
            return {key: self.fill(each) for key, each in value.items()}
        return value


@dataclass(frozen=True)
class Call:
    """A call whose first answer is lost.

    Attributes:
        again: what the second answer is: 200, or the status and code of an error that says that it is done already.
        repeats: the tables in which the second call makes as many rows as the first; empty when it changes nothing.
    """

    method: str
    path: str
    form: Any = None
    again: int | tuple[int, str] = 200
    repeats: tuple[str, ...] = ()
    root: str = API
    first: tuple[Call, ...] = field(default=())


EXISTS, GONE = (400, "RESOURCE_ALREADY_EXISTS"), (404, "RESOURCE_DOES_NOT_EXIST")
RUN, MODEL = {"run_id": "<run>"}, {"name": "<model>"}
VERSION = {**MODEL, "version": "1"}
POINT = {"key": "loss", "value": 0.5, "timestamp": NOW, "step": 3}
DATASET = {"dataset": {"name": "d", "digest": "1", "source_type": "local", "source": "x"}}
PAIR = {"key": "k", "value": "v"}
ALIAS = Call("POST", "/registered-models/alias", {**VERSION, "alias": "champion"})
DELETED_RUN = Call("POST", "/runs/delete", RUN)
DELETED_EXPERIMENT = Call("POST", "/experiments/delete", {"experiment_id": "<experiment>"})

CALLS = (
    Call("POST", "/experiments/create", {"name": "<name>"}, again=EXISTS),
    Call("POST", "/experiments/update", {"experiment_id": "<experiment>", "new_name": "<name>"}),
    Call("POST", "/experiments/delete", {"experiment_id": "<experiment>"}, again=GONE),
    Call("POST", "/experiments/restore", {"experiment_id": "<experiment>"}, again=GONE, first=(DELETED_EXPERIMENT,)),
    Call("POST", "/experiments/set-experiment-tag", {"experiment_id": "<experiment>", **PAIR}),
    Call("POST", "/experiments/delete-experiment-tag", {"experiment_id": "<experiment>", "key": "t"}, again=GONE),
    Call("POST", "/runs/create", {"experiment_id": "<experiment>", "start_time": NOW, "tags": [PAIR]},
         repeats=("runs", "run_tags", "events", "edges")),
    Call("POST", "/runs/update", {**RUN, "status": "FINISHED", "end_time": NOW, "run_name": "done"}),
    Call("POST", "/runs/delete", RUN),
    Call("POST", "/runs/restore", RUN, first=(DELETED_RUN,)),
    Call("POST", "/runs/log-metric", {**RUN, **POINT}),
    Call("POST", "/runs/log-parameter", {**RUN, **PAIR}),
    Call("POST", "/runs/log-batch", {**RUN, "metrics": [{**POINT, "step": step} for step in range(50)], "params": [PAIR],
                                     "tags": [PAIR]}),
    Call("POST", "/runs/set-tag", {**RUN, **PAIR}),
    Call("POST", "/runs/delete-tag", {**RUN, "key": "t"}, again=GONE),
    Call("POST", "/runs/log-inputs", {**RUN, "datasets": [DATASET], "models": [{"model_id": "<logged>"}]}),
    Call("POST", "/runs/outputs", {**RUN, "models": [{"model_id": "<logged>", "step": 1}]}),
    Call("POST", "/runs/log-model", {**RUN, "model_json":
         '{"artifact_path": "m", "flavors": {}, "utc_time_created": "x", "run_id": "<run>"}'}, repeats=("in the run's tag",)),
    Call("POST", "/logged-models", {"experiment_id": "<experiment>", "name": "m", "tags": [PAIR]},
         repeats=("logged_models", "logged_model_tags", "events", "edges", "personal")),
    Call("PATCH", "/logged-models/<logged>", {"status": "LOGGED_MODEL_READY"}),
    Call("DELETE", "/logged-models/<logged>"),
    Call("POST", "/logged-models/<logged>/params", {"params": [PAIR]}),
    Call("PATCH", "/logged-models/<logged>/tags", {"tags": [PAIR]}),
    Call("DELETE", "/logged-models/<logged>/tags/t", again=GONE),
    Call("PUT", "/<experiment>/<run>/artifacts/new.bin", b"bytes", root=FILES),
    Call("PUT", "/<experiment>/<run>/artifacts/model/MLmodel", b"other bytes", root=FILES),
    Call("DELETE", "/<experiment>/<run>/artifacts/model", root=FILES),
    Call("POST", "/registered-models/create", {"name": "<name>"}, again=EXISTS),
    Call("PATCH", "/registered-models/update", {**MODEL, "description": "x"}, repeats=("events", "personal")),
    Call("POST", "/registered-models/rename", {**MODEL, "new_name": "<name>"}, again=GONE),
    Call("DELETE", "/registered-models/delete", MODEL, again=GONE),
    Call("POST", "/registered-models/set-tag", {**MODEL, **PAIR}),
    Call("DELETE", "/registered-models/delete-tag", {**MODEL, "key": "t"}),
    ALIAS,
    Call("DELETE", "/registered-models/alias", {**MODEL, "alias": "champion"}, first=(ALIAS,)),
    Call("POST", "/model-versions/create", {**MODEL, "source": "runs:/<run>/model", "run_id": "<run>", "tags": [PAIR]},
         repeats=("model_versions", "version_tags", "events", "edges")),
    Call("PATCH", "/model-versions/update", {**VERSION, "description": "x"}),
    Call("DELETE", "/model-versions/delete", VERSION, again=GONE),
    Call("POST", "/model-versions/set-tag", {**VERSION, **PAIR}),
    Call("DELETE", "/model-versions/delete-tag", {**VERSION, "key": "t"}),
    Call("POST", "/model-versions/transition-stage", {**VERSION, "stage": "Production"}),
)  # fmt: skip


class Database:
    """All rows of a server's database, read past the server and past the store."""

    def __init__(self, server: ControlProcess) -> None:
        with OpenWorkspace(server.layout, server.settings) as ws:
            self._tables = [
                name for name, _ in ws.store.tables() if name not in ("ledger_head", "schema_version")
            ]
        self._connection: Any
        if url := server.environ.get("ANDON_DATABASE_URL"):
            import psycopg

            self._connection = psycopg.connect(url, autocommit=True)
        else:
            self._connection = sqlite3.connect(server.layout.database, isolation_level=None)

    def rows(self) -> Rows:
        """Everything but what the server does by itself in the meantime, and when something changed last."""
        found: Rows = {}
        for table in self._tables:
            cursor = self._connection.execute(f"SELECT * FROM {table}")  # the store's own names
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
            found[table] = {
                repr([(name, value) for name, value in row.items() if name not in _UNTOLD])
                for row in rows
                if row.get("kind") != "run.sealed"
            }
        return found

    def close(self) -> None:
        self._connection.close()


class Place:
    """A server, its database, and worlds in it as many as there are calls."""

    def __init__(self, server: ControlProcess, database: Database, client: RawClient) -> None:
        self.server, self.database, self.client = server, database, client
        self._numbers = iter(range(1000))

    def world(self) -> World:
        """An experiment with a run in it, a logged model and a registered one with a version; each with a tag t."""
        name, post, tags = (
            f"before {(number := next(self._numbers))}",
            self.client.post,
            [{"key": "t", "value": "v"}],
        )
        experiment = post("experiments/create", {"name": name, "tags": tags}).json["experiment_id"]
        run = post("runs/create", {"experiment_id": experiment, "tags": tags}).json["run"]["info"]["run_id"]
        logged = post("logged-models", {"experiment_id": experiment, "name": "m", "tags": tags}).json["model"]
        self.client.upload(f"{experiment}/{run}/artifacts/model/MLmodel", b"x")
        post("registered-models/create", {"name": name, "tags": tags})
        form = {"name": name, "source": f"runs:/{run}/model", "run_id": run, "tags": tags}
        assert post("model-versions/create", form).status == 200
        names = {"experiment": experiment, "run": run, "logged": logged["info"]["model_id"], "model": name}
        return World({**names, "name": f"after {number}"})


@contextmanager
def placed(folder: Path, url: str | None) -> Iterator[Place]:
    with (
        ControlProcess(folder, environ_on(url)) as server,
        closing(Database(server)) as database,
        closing(RawClient(server.port, server.token)) as client,
    ):
        yield Place(server, database, client)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("answers"), None) as found:
        yield found


@pytest.fixture(scope="module")
def postgres(
    postgres_server: str, postgres_names: Iterator[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with placed(
        tmp_path_factory.mktemp("answers"), new_database(postgres_server, next(postgres_names))
    ) as found:
        yield found


def send(client: RawClient, call: Call, world: World, patience: Callable[[], bool] = lambda: True) -> Any:
    form = world.fill(call.form)
    body = form if isinstance(form, bytes) else None if form is None else json.dumps(form).encode()
    return client.ask(call.method, world.fill(call.root + call.path), body, patience=patience)


_UNTOLD = {"rev", "changed_at", "seal", "seals"}


def new_rows(before: Rows, after: Rows) -> dict[str, int]:
    """How many rows of each table are new or other than before, or gone."""
    return {
        name: len(after[name] - before[name]) or -len(before[name] - after[name])
        for name in after
        if after[name] != before[name]
    }


ON_POSTGRES = [call for call in CALLS if call.path.startswith("/runs/") or call.repeats]
"""Those whose rows are written in other words there."""


@pytest.mark.capability("C1", "C5", "E1", "L7")
@pytest.mark.parametrize("call", CALLS, ids=[f"{call.method} {call.path}" for call in CALLS])
def test_a_call_whose_answer_was_lost_is_sent_again(sqlite: Place, call: Call) -> None:
    is_done_once(sqlite, call)


@pytest.mark.parametrize("call", ON_POSTGRES, ids=[f"{call.method} {call.path}" for call in ON_POSTGRES])
def test_a_call_whose_answer_was_lost_is_sent_again_on_postgres(postgres: Place, call: Call) -> None:
    is_done_once(postgres, call)


def is_done_once(place: Place, call: Call) -> None:
    """Lose the first answer to a call, send it again, and compare all rows before, between and after."""
    world, database = place.world(), place.database
    for one in call.first:
        assert send(place.client, one, world).status == 200
    before = database.rows()
    done: list[Rows] = []

    def done_once() -> bool:
        done.append(database.rows())
        return True

    with DeafProxy(place.server.port) as proxy:
        proxy.lose = 1
        client = RawClient(proxy.port, place.server.token)
        told = send(client, call, world, done_once)
        client.close()
    after = database.rows()

    assert told.sent == 2
    assert proxy.lost[0].startswith(b"HTTP/1.1 200 ")
    assert call.again == (told.status if told.status == 200 else told.error)
    once, twice = new_rows(before, done[0]), new_rows(done[0], after)
    assert once, "the first request did nothing"
    if not call.repeats:
        assert twice == {}
    elif call.repeats == ("in the run's tag",):
        assert once == twice == {"run_tags": 1}
    else:
        assert {name: twice[name] for name in call.repeats} == {name: once[name] for name in call.repeats}
        assert set(twice) <= {*call.repeats, "counters", "models"}


def test_every_call_that_writes_is_among_them() -> None:
    """A new endpoint has to say what happens when its answer is lost."""
    writing = {
        (endpoint.method, endpoint.root + endpoint.path)
        for endpoint in surface()
        if endpoint.method != "GET"
        and not any(word in endpoint.path for word in ("search", "get-latest-versions", "/mpu/"))
    }
    tried = set()
    for call in CALLS:
        root = "/api/2.0/mlflow-artifacts" if call.root == FILES else API
        path = "/artifacts/{path:path}" if call.root == FILES else call.path
        tried.add(
            (
                call.method,
                root + path.replace("<logged>", "{model_id}").replace("/tags/t", "/tags/{key:path}"),
            )
        )

    assert tried == writing
