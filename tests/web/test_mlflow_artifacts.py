"""Artifacts over the MLflow wire, on a live control process: whole files, parts, listings, and what goes wrong on the way."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
import pytest

from andon.core.canonical import digest_bytes
from andon.core.entities import Run
from andon.core.ids import RunId, new_id
from andon.core.workspace import Layout
from andon.governance.access import read_token
from andon.store.blobs import storage_key
from andon.store.ports import Transaction
from andon.tracking.experiments import ensure_experiment
from andon.web.mlflow.artifacts import NO_MULTIPART
from tests.small_disk import small_disk
from tests.web.client import Client, Reply
from tests.web.conftest import Control, serving
from tests.web.world import opened

PROXY = "/api/2.0/mlflow-artifacts"
API = "/api/2.0/mlflow"
MIB = 2**20
CYCLES = int(os.environ.get("ANDON_CHAOS_CYCLES", "10"))
LARGE_MIB = 1024 if CYCLES >= 100 else 64
"""The long battery sends a gibibyte."""
TRICKS = {
    "parent": ["..", "../../up", "a/../../../up", "a/.."],
    "parent, encoded": ["%2e%2e/%2e%2e/up", "..%2f..%2fup", "a%2f..%2f..%2fup", "%2E%2E%2fup"],
    "parent, encoded twice": ["%252e%252e/up", "%252e%252e%252fup", "a%252f..%252fup", "%25252e%25252e/up"],
    "parent, with parameters": ["..;/up", "..%3b/up", "a/..;v=1/up"],
    "absolute": ["%2fetc%2fpasswd", "/etc/passwd", "%252fetc/passwd"],
    "backslash": ["..%5c..%5cup", "a%5cb", "%5c%5chost%5cshare", "a%255cb"],
    "drive": ["C:/windows", "a/C:/windows", "c%3a/windows", "%43%3A%2fwindows"],
    "address": ["file:///etc/passwd", "http:%2f%2fhost/x"],
    "fragment": ["a%23b", "a%2523b", "%23/../../up"],
    "control": ["a%00b", "a%0db", "a%1bb", "a%7fb", "a%2500b"],
    "not UTF-8": ["a%ffb", "%c0%ae%c0%ae/up", "a%ed%b3%bf"],
    "empty": ["a//b", "a/", "a/b//"],
    "long": ["a" * 256, "%c3%bc" * 128, "x/" * 600 + "x"],
}  # fmt: skip


class Wire:
    """What an MLflow client sends about the artifacts of one run."""

    def __init__(self, address: str, token: str, run: str, experiment: str = "0") -> None:
        self.client = Client(address, Authorization=f"Bearer {token}")
        self.run = run
        self.root = f"{experiment}/{run}/artifacts"

    def at(self, path: str) -> str:
        """The address of a path that is encoded already."""
        return f"{PROXY}/artifacts/{self.root}/{path}"

    def put(self, path: str, data: bytes = b"x") -> Reply:
        return self.client.ask("PUT", self.at(path), data)

    def get(self, path: str, **headers: str) -> Reply:
        return self.client.get(self.at(path), **headers)

    def delete(self, path: str) -> Reply:
        return self.client.ask("DELETE", self.at(path))

    def listed(self, path: str = "") -> list[tuple[str, int | None]]:
        reply = self.client.get(f"{PROXY}/artifacts?path={quote(f'{self.root}/{path}'.rstrip('/'))}")
        assert reply.status == 200, reply.text
        return [(file["path"], file.get("file_size")) for file in reply.json.get("files", [])]


def begin(control: Control) -> Wire:
    """A run of a client's in the default experiment."""
    ws, actor = control.world.ws, control.world.ws.actor().id

    def work(tx: Transaction) -> Run:
        at = ws.clock.now()
        experiment = ensure_experiment(tx, "Default", actor, at)
        return tx.runs.add(
            Run(
                id=RunId(new_id("run")), number=tx.counters.next("run"), experiment=experiment.id, state="running",
                cause=f"actor:{actor}", actor=actor, created_at=at, started_at=at,
            )
        )  # fmt: skip

    run = ws.store.write(work)
    return Wire(control.address, control.state.token, run.id, run.experiment)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """A server over a workspace in which nothing was."""
    with opened(tmp_path_factory.mktemp("artifacts")) as world, serving(world) as found:
        yield found


@pytest.fixture
def wire(control: Control) -> Wire:
    return begin(control)


def blob(control: Control, data: bytes) -> Path:
    return control.world.ws.layout.blobs / storage_key(digest_bytes(data))


def error(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json["error_code"]


# --- whole files ---


@pytest.mark.capability("C6")
@pytest.mark.parametrize("size", [0, 1, 65_536, MIB - 1, MIB, MIB + 1, 5 * MIB + 7])
def test_a_file_comes_back_as_it_was(wire: Wire, size: int) -> None:
    data = hashlib.shake_128(b"%d" % size).digest(size)

    sent = wire.put("data.bin", data)
    found = wire.get("data.bin")

    assert (sent.status, sent.json) == (200, {})
    assert (found.status, found.body) == (200, data)
    assert wire.listed() == [("data.bin", size)]


def test_a_file_is_sent_to_be_saved_and_never_shown(wire: Wire) -> None:
    wire.put("page.html", b"<script>alert(1)</script>")
    wire.put(quote('ü "x".svg'), b"<svg/>")

    found, odd = wire.get("page.html"), wire.get(quote('ü "x".svg'))

    assert {
        name: found.headers[name] for name in ("content-type", "content-disposition", "etag", "accept-ranges")
    } == {
        "content-type": "application/octet-stream",
        "content-disposition": "attachment; filename=page.html; filename*=UTF-8''page.html",
        "etag": f'"{digest_bytes(b"<script>alert(1)</script>")}"',
        "accept-ranges": "bytes",
    }
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-length"] == "25"
    assert odd.headers["content-disposition"].endswith("; filename*=UTF-8''%C3%BC%20%22x%22.svg")


def test_a_part_of_a_file_is_sent(wire: Wire) -> None:
    data = bytes(range(256)) * 9000
    wire.put("data.bin", data)

    def part(asked: str, **headers: str) -> tuple[int, str | None, bytes]:
        found = wire.get("data.bin", Range=asked, **headers)
        assert int(found.headers["content-length"]) == len(found.body)
        return found.status, found.headers.get("content-range"), found.body

    size = len(data)
    assert part("bytes=5-9") == (206, f"bytes 5-9/{size}", data[5:10])
    assert part("bytes=1000000-2200000") == (206, f"bytes 1000000-2200000/{size}", data[1_000_000:2_200_001])
    assert part("bytes=2303990-") == (206, f"bytes 2303990-2303999/{size}", data[-10:])
    assert part("bytes=-3") == (206, f"bytes 2303997-2303999/{size}", data[-3:])
    assert part("bytes=5-99999999999") == (206, f"bytes 5-2303999/{size}", data[5:])
    assert part("bytes=2304000-") == (416, "bytes */2304000", b"")
    for asked in (
        "bytes=9-5",
        "bytes=1-2,5-6",
        "lines=1-2",
        "bytes=-",
        "bytes=x-y",
        "bytes=" + "9" * 4000 + "-",
    ):
        assert part(asked) == (200, None, data), asked
    etag = f'"{digest_bytes(data)}"'
    assert part("bytes=0-1", If_Range=etag)[0] == 206
    assert part("bytes=0-1", If_Range='"other"')[0] == 200
    assert wire.get("data.bin", If_None_Match=etag).status == 304
    assert wire.get("data.bin", If_None_Match=etag).body == b""


def test_a_head_is_an_answer_without_its_bytes(wire: Wire) -> None:
    wire.put("data.bin", b"0123456789")

    found = wire.client.ask("HEAD", wire.at("data.bin"))

    assert (found.status, found.body, found.headers["content-length"]) == (200, b"", "10")
    assert wire.client.ask("HEAD", wire.at("none.bin")).status == 404


def test_a_file_is_replaced_and_putting_it_again_after_a_lost_answer_changes_nothing(
    control: Control, wire: Wire
) -> None:
    replies = [wire.put("a.txt", data) for data in (b"first", b"second", b"second")]

    row = control.world.ws.store.read(lambda reader: reader.artifacts.get(f"{wire.root}/a.txt"))
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert wire.get("a.txt").body == b"second"
    assert (row.rev, row.actor) == (1, control.world.person.id)


def test_an_answer_that_never_arrives_leaves_the_file(wire: Wire) -> None:
    head = f"PUT {wire.at('lost.bin')} HTTP/1.1\r\nHost: {wire.client.host}\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in wire.client.headers.items()
    )
    host, port = wire.client.host.rsplit(":", 1)

    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b"Content-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        until(lambda: wire.listed() == [("lost.bin", 3_000_000)])

    assert wire.put("lost.bin", bytes(3_000_000)).status == 200
    assert wire.get("lost.bin").body == bytes(3_000_000)


@pytest.mark.parametrize("size", [10, 3 * MIB])
def test_a_body_without_a_length_is_taken(wire: Wire, size: int) -> None:
    connection = http.client.HTTPConnection(wire.client.host, timeout=30)
    pieces = (b"z" * part for part in (size // 3, size // 3, size - 2 * (size // 3)))
    connection.request("PUT", wire.at("c.bin"), pieces, wire.client.headers, encode_chunked=True)

    assert connection.getresponse().read() == b"{}"
    connection.close()
    assert wire.get("c.bin").body == b"z" * size


# --- names ---


@pytest.mark.parametrize(
    ("kind", "trick"), [(kind, trick) for kind, tricks in TRICKS.items() for trick in tricks]
)
def test_a_name_that_may_mean_another_place_is_refused_and_nothing_is_written(
    control: Control, wire: Wire, kind: str, trick: str
) -> None:
    ws = control.world.ws
    before = (ws.store.read(lambda reader: reader.artifacts.count()), len(list(ws.blobs.digests())))

    sent = wire.put(trick, b"evil")
    if kind != "empty":  # a folder may be named with a slash at its end
        assert error(wire.delete(trick)) == (400, "INVALID_PARAMETER_VALUE")
    read = wire.get(trick)

    assert (error(sent), error(read)) == ((400, "INVALID_PARAMETER_VALUE"),) * 2
    assert sent.json["message"].startswith("Invalid path")
    assert (ws.store.read(lambda reader: reader.artifacts.count()), len(list(ws.blobs.digests()))) == before


def test_a_line_break_in_a_name_is_refused(wire: Wire) -> None:
    for reply in (wire.put("a%0ab"), wire.get("a%0ab"), wire.delete("a%0a")):
        assert reply.status in (400, 404)
    assert wire.listed() == []


@pytest.mark.parametrize(
    "path", ["..", "../..", "/etc", "a/../../..", "%2e%2e/%2e%2e", "..\\..", "C:\\", "a\0", "#", "a//b"]
)
def test_a_listing_looks_nowhere_else(wire: Wire, path: str) -> None:
    asked = [
        f"{PROXY}/artifacts?path={quote(path)}",
        f"{PROXY}/artifacts?path={quote(f'{wire.root}/{path}')}",
        f"{API}/artifacts/list?run_id={wire.run}&path={quote(path)}",
        f"/ajax-api/2.0/mlflow/get-artifact?run_id={wire.run}&path={quote(path)}",
    ]
    for address in asked:
        if address.count("//etc") or (path == "/etc" and wire.root in address):
            continue
        assert error(wire.client.get(address)) == (400, "INVALID_PARAMETER_VALUE"), address


@pytest.mark.parametrize(
    "name",
    [
        "with space.txt", "ünïcode-名前.txt", "e\u0301", "\u00e9", "100%.txt", "a+b&c=d,e.txt", "(r) [s] {c}.txt", "q'u\"o.txt",
        ".hidden", "~t", "a:b@c!d$e.txt", "two..dots", "semi;colon", "what?.txt", "50%25.txt",
    ],
)  # fmt: skip
def test_any_other_name_is_kept_as_it_is(wire: Wire, name: str) -> None:
    path = f"odd folder/{name}"

    assert wire.put(quote(path), name.encode()).status == 200

    assert wire.get(quote(path)).body == name.encode()
    assert wire.listed("odd folder") == [(name, len(name.encode()))]
    assert wire.delete(quote(path)).status == 200
    assert wire.listed("odd folder") == []


def test_composed_and_decomposed_letters_are_two_names(wire: Wire) -> None:
    wire.put(quote("\u00e9"), b"one")
    wire.put(quote("e\u0301"), b"two")

    assert (wire.get(quote("\u00e9")).body, wire.get(quote("e\u0301")).body) == (b"one", b"two")


def test_a_file_is_no_folder_and_a_folder_no_file(wire: Wire) -> None:
    wire.put("a/b", b"b")

    refused = [wire.put("a"), wire.put("a/b/c"), wire.put("a", bytes(2 * MIB)), wire.get("a")]

    assert [error(reply) for reply in refused] == [(400, "INVALID_PARAMETER_VALUE")] * 4
    assert wire.listed() == [("a", None)]
    assert error(wire.get("a/b/c")) == (404, "RESOURCE_DOES_NOT_EXIST")


# --- listings and deletion ---


def test_a_folder_of_thousands_is_listed_whole_and_in_pages_where_pages_are(
    control: Control, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("andon.web.mlflow.artifacts.PAGE", 1500)
    store, digest = control.world.ws.store, control.world.ws.blobs.put(b"x")
    names = [f"f{number:05d}" for number in range(4000)] + ["sub"]

    def work(tx: Transaction) -> None:
        for name in names:
            path = f"{wire.root}/many/{name}" + ("/below" if name == "sub" else "")
            tx.artifacts.add(
                type(row)(id=path, digest=digest, size_bytes=1, actor=row.actor, changed_at=row.changed_at)
            )

    wire.put("one")
    row = store.read(lambda reader: reader.artifacts.get(f"{wire.root}/one"))
    store.write(work)

    pages, token = [], ""
    while token is not None:
        reply = wire.client.get(
            f"{API}/artifacts/list?run_id={wire.run}&path=many" + (f"&page_token={token}" if token else "")
        )
        pages.append([file["path"] for file in reply.json["files"]])
        token = reply.json.get("next_page_token")

    assert wire.listed("many") == [(name, None if name == "sub" else 1) for name in names]
    assert [len(page) for page in pages] == [1500, 1500, 1001]
    assert [path for page in pages for path in page] == [f"many/{name}" for name in names]
    for wrong in ("x", "!!", "Li4vLi4=", "L2V0Yw=="):
        refused = wire.client.get(f"{API}/artifacts/list?run_id={wire.run}&page_token={quote(wrong)}")
        assert error(refused) == (400, "INVALID_PARAMETER_VALUE")


def test_a_run_lists_and_sends_its_artifacts_by_its_id(wire: Wire) -> None:
    wire.put("folder/a.txt", b"hello")

    listed = wire.client.get(f"{API}/artifacts/list?run_uuid={wire.run}&path=folder").json
    top = wire.client.get(f"{API}/artifacts/list?run_id={wire.run}").json
    sent = wire.client.get(f"/ajax-api/2.0/mlflow/get-artifact?run_uuid={wire.run}&path=folder/a.txt")

    assert listed == {
        "files": [{"path": "folder/a.txt", "is_dir": False, "file_size": 5}],
        "root_uri": f"mlflow-artifacts:/{wire.root}",
    }
    assert top["files"] == [{"path": "folder", "is_dir": True}]
    assert (sent.status, sent.body, sent.headers["content-type"]) == (
        200,
        b"hello",
        "application/octet-stream",
    )
    for address in (
        f"{API}/artifacts/list?run_id={'f' * 32}",
        f"{API}/get-artifact?run_id={'f' * 32}&path=a",
    ):
        assert error(wire.client.get(address)) == (404, "RESOURCE_DOES_NOT_EXIST")
    for address in (
        f"{API}/artifacts/list",
        f"{API}/get-artifact?run_id={wire.run}",
        f"{API}/get-artifact?path=a",
    ):
        assert error(wire.client.get(address)) == (400, "INVALID_PARAMETER_VALUE")


def test_artifacts_that_are_elsewhere_are_not_fetched(control: Control, wire: Wire) -> None:
    def away(tx: Transaction) -> None:
        found = tx.runs.get(wire.run)
        made = ensure_experiment(tx, "away", found.actor, found.created_at)
        tx.experiments.change(_with(made, artifact_location="s3://bucket/x"))
        tx.runs.change(_with(found, experiment=made.id))

    control.world.ws.store.write(away)

    for address in (
        f"{API}/artifacts/list?run_id={wire.run}",
        f"{API}/get-artifact?run_id={wire.run}&path=a",
    ):
        reply = wire.client.get(address)
        assert error(reply) == (501, "NOT_IMPLEMENTED")
        assert f"s3://bucket/x/{wire.run}/artifacts" in reply.json["message"]


def _with(row, **changes):  # type: ignore[no-untyped-def]
    return type(row)(**{name: getattr(row, name) for name in row.__struct_fields__} | changes)


def test_files_and_folders_are_deleted_on_record(control: Control, wire: Wire) -> None:
    for name in ("a.txt", "f/b.txt", "f/c.txt", "g/d.txt"):
        wire.put(name)
    before = control.world.ws.store.read(lambda reader: reader.ledger.head()[0])

    replies = [wire.delete(path) for path in ("a.txt", "f", "never", "")]

    events = control.world.ws.store.read(lambda reader: reader.ledger.after(before))
    assert [(reply.status, reply.json) for reply in replies] == [(200, {})] * 4
    assert wire.listed() == []
    assert [(event.kind, event.subject, event.facts) for event in events] == [
        ("artifacts.deleted", f"run:{wire.run}", {"files": count}) for count in (1, 2, 1)
    ]
    assert error(wire.client.ask("DELETE", f"{PROXY}/artifacts/0")) == (400, "INVALID_PARAMETER_VALUE")


# --- files of registered versions ---


@pytest.mark.capability("E10")
def test_a_versions_files_stay_what_they_were_and_cannot_be_written(control: Control, wire: Wire) -> None:
    wire.put("model/MLmodel", b"flavors: {}\n")
    wire.put("model/data/weights.bin", bytes(2 * MIB))
    name = f"churn-{wire.run}"
    wire.client.post(f"{API}/registered-models/create", {"name": name})
    form = {"name": name, "source": f"runs:/{wire.run}/model", "run_id": wire.run}
    made = wire.client.post(f"{API}/model-versions/create", form)
    assert made.status == 200, made.text
    found = wire.client.get(f"{API}/model-versions/get-download-uri?name={name}&version=1").json[
        "artifact_uri"
    ]
    root = found.removeprefix("mlflow-artifacts:/")
    wire.put("model/MLmodel", b"another")
    wire.delete("model/data")

    def listed(path: str) -> object:
        return wire.client.get(f"{PROXY}/artifacts?path={path}").json.get("files")

    assert listed(root) == [
        {"path": "MLmodel", "is_dir": False, "file_size": 12},
        {"path": "data", "is_dir": True},
    ]
    assert listed(f"{root}/data") == [{"path": "weights.bin", "is_dir": False, "file_size": 2 * MIB}]
    assert (listed(f"{root}/none"), listed(f"{root}/MLmodel")) == (None, None)
    assert wire.client.get(f"{PROXY}/artifacts/{root}/MLmodel").body == b"flavors: {}\n"
    assert wire.client.get(f"{PROXY}/artifacts/{root}/data/weights.bin").body == bytes(2 * MIB)
    assert error(wire.client.get(f"{PROXY}/artifacts/{root}/none")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert error(wire.client.get(f"{PROXY}/artifacts/{root}/data")) == (400, "INVALID_PARAMETER_VALUE")
    for method, path in (("PUT", "MLmodel"), ("PUT", "new"), ("DELETE", "MLmodel"), ("DELETE", "")):
        refused = wire.client.ask(
            method, f"{PROXY}/artifacts/{root}/{path}".rstrip("/"), b"x" if method == "PUT" else None
        )
        assert error(refused) == (400, "INVALID_PARAMETER_VALUE")
        assert "never changes" in refused.json["message"]
    path = blob(control, bytes(2 * MIB))
    path.chmod(0o600)
    path.write_bytes(b"!" + bytes(2 * MIB - 1))
    assert error(wire.client.get(f"{PROXY}/artifacts/{root}/data/weights.bin")) == (422, "DATA_LOSS")
    path.write_bytes(bytes(2 * MIB))


# --- what is not there ---


@pytest.mark.parametrize("verb", ["create", "complete", "abort"])
def test_a_client_is_told_to_send_a_file_whole(wire: Wire, verb: str) -> None:
    reply = wire.client.post(f"{PROXY}/mpu/{verb}/{wire.root}/folder", {"path": "big.bin", "num_parts": 3})

    assert error(reply) == (501, "NOT_IMPLEMENTED")
    assert reply.json["message"].startswith(NO_MULTIPART)


def test_there_are_no_presigned_addresses(wire: Wire) -> None:
    for address in (f"{PROXY}/presigned/{wire.root}/a", f"{API}/artifacts/presigned-download-url?path=a"):
        assert error(wire.client.get(address)) == (501, "NOT_IMPLEMENTED")


def test_nobody_reads_or_writes_without_the_token(wire: Wire) -> None:
    stranger = Client(f"http://{wire.client.host}", Authorization="Bearer guess")
    wire.put("a.txt", b"mine")

    replies = [
        stranger.ask(method, wire.at("a.txt"), b"theirs" if method == "PUT" else None)
        for method in ("GET", "HEAD", "PUT", "DELETE")
    ]

    assert [reply.status for reply in replies] == [401] * 4
    assert wire.get("a.txt").body == b"mine"


def test_a_page_of_another_site_changes_nothing(wire: Wire) -> None:
    wire.put("a.txt", b"mine")

    for method in ("PUT", "DELETE", "GET"):
        reply = wire.client.ask(method, wire.at("a.txt"), b"x", Origin="http://evil.example")
        assert error(reply) == (403, "PERMISSION_DENIED")

    assert wire.get("a.txt").body == b"mine"


# --- damage ---


@pytest.mark.capability("E10", "C6")
@pytest.mark.parametrize("size", [100, 4 * MIB])
@pytest.mark.parametrize("way", ["changed", "cut", "longer", "gone", "changed and dated back"])
def test_changed_bytes_are_never_given_out(control: Control, wire: Wire, size: int, way: str) -> None:
    data = hashlib.shake_128(f"{size} {way}".encode()).digest(size)
    wire.put("model.bin", data)
    assert wire.get("model.bin", Range="bytes=0-9").body == data[:10]
    path = blob(control, data)
    before = path.stat()
    path.chmod(0o600)
    if way == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"cut": data[:-1], "longer": data + b"x"}.get(way, data[:-1] + bytes([data[-1] ^ 1]))
        )
    if way == "changed and dated back":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    replies = [wire.get("model.bin"), wire.get("model.bin", Range="bytes=0-9")]

    assert [error(reply) for reply in replies] == [(422, "DATA_LOSS")] * 2
    assert "'model.bin'" in replies[0].json["message"]
    assert str(path) not in replies[0].text
    assert wire.put("model.bin", data).status == 200, "writing it again heals it"
    assert wire.get("model.bin").body == data


def test_a_file_that_is_changed_while_it_is_sent_is_cut_off(control: Control, wire: Wire) -> None:
    data = hashlib.shake_128(b"sent").digest(MIB) * 32
    wire.put("large.bin", data)
    path = blob(control, data)
    path.chmod(0o600)
    connection = http.client.HTTPConnection(wire.client.host, timeout=30)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.request("GET", wire.at("large.bin"), headers=wire.client.headers)
    answer = connection.getresponse()
    found = answer.read(1000)

    with path.open("r+b") as file:
        file.seek(len(data) - 10)
        file.write(b"!")
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        while chunk := answer.read(MIB):
            found += chunk

    assert len(found) < len(data)
    assert data.startswith(found)
    connection.close()


# --- clients that go away, servers that die, disks that are full ---


def until(done: Callable[[], bool], limit_s: float = 60) -> None:
    """Look until something is so."""
    deadline, pause = time.monotonic() + limit_s, threading.Event()
    while not done():
        assert time.monotonic() < deadline, "it did not come to be"
        pause.wait(0.005)


@contextlib.contextmanager
def half_sent(wire: Wire, path: str, size: int, sent: int) -> Iterator[socket.socket]:
    """An upload in the middle."""
    head = (
        f"PUT {wire.at(path)} HTTP/1.1\r\nHost: {wire.client.host}\r\nContent-Length: {size}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in wire.client.headers.items())
    )
    host, port = wire.client.host.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b"\r\n")
        block = bytes(MIB)
        for start in range(0, sent, MIB):
            connection.sendall(block[: sent - start])
        yield connection


@pytest.mark.capability("C6")
@pytest.mark.parametrize(("size", "sent"), [(MIB // 2, MIB // 4), (8 * MIB, 5 * MIB)])
def test_a_client_that_goes_away_in_the_middle_leaves_nothing(
    control: Control, wire: Wire, size: int, sent: int
) -> None:
    folder = control.world.ws.layout.blobs / "tmp"
    wire.put("model.bin", b"before")
    before = sorted(control.world.ws.blobs.digests())

    with half_sent(wire, "model.bin", size, sent), half_sent(wire, "other.bin", size, sent):
        if sent > MIB:
            until(lambda: len(list(folder.iterdir())) == 2)
        assert wire.listed() == [("model.bin", 6)]
    until(lambda: list(folder.iterdir()) == [])

    assert wire.listed() == [("model.bin", 6)]
    assert wire.get("model.bin").body == b"before"
    assert sorted(control.world.ws.blobs.digests()) == before


def test_a_client_that_stops_reading_holds_no_thread_and_no_descriptor(control: Control, wire: Wire) -> None:
    data = bytes(32 * MIB)
    wire.put("large.bin", data)
    open_before = psutil.Process().num_fds()
    requests = []
    for _ in range(50):  # more than there are threads
        connection = http.client.HTTPConnection(wire.client.host, timeout=30)
        connection.request("GET", wire.at("large.bin"), headers=wire.client.headers)
        requests.append((connection, connection.getresponse()))

    assert wire.put("other.txt", b"x").status == 200
    assert wire.get("other.txt").body == b"x"
    for connection, answer in requests:
        answer.close()
        connection.close()

    until(lambda: psutil.Process().num_fds() <= open_before)


class Process:
    """A control process of its own, over a folder."""

    def __init__(self, folder: Path, python: list[str] | None = None) -> None:
        self.layout = Layout(folder / ".andon")
        self._command = [
            *(python or [sys.executable]),
            "-m",
            "andon.web",
            "--workspace",
            str(self.layout.root),
        ]
        self.start()

    def start(self) -> None:
        self.popen = subprocess.Popen([*self._command, "--port", "0"], stderr=subprocess.PIPE, text=True)
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            if found := re.search(r"control answers on (\S+)", line):
                self.address = found[1]
                break

    def wire(self, run: str = "a" * 32) -> Wire:
        return Wire(self.address, read_token(self.layout.token), run)

    def end(self, number: int = signal.SIGKILL) -> None:
        self.popen.send_signal(number)
        self.popen.communicate(timeout=30)

    def most_memory(self) -> int:
        """The most it ever had, in bytes."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.popen.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    found = Process(tmp_path)
    yield found
    found.end()


@pytest.mark.capability("C6")
def test_a_large_file_goes_both_ways_in_bounded_memory(process: Process) -> None:
    wire, block = process.wire(), hashlib.shake_128(b"block").digest(MIB)
    wire.put("small.bin", bytes(2 * MIB))
    assert wire.get("small.bin").status == 200
    before = process.most_memory()

    connection = http.client.HTTPConnection(wire.client.host, timeout=300)
    headers = {**wire.client.headers, "Content-Length": str(LARGE_MIB * MIB)}
    connection.request("PUT", wire.at("large.bin"), (block for _ in range(LARGE_MIB)), headers)
    assert connection.getresponse().read() == b"{}"
    connection.request("GET", wire.at("large.bin"), headers=wire.client.headers)
    answer, count, digest = connection.getresponse(), 0, hashlib.sha256()
    while chunk := answer.read(MIB):
        digest.update(chunk)
        count += len(chunk)
    connection.close()

    assert count == LARGE_MIB * MIB
    assert answer.headers["etag"] == f'"sha256:{digest.hexdigest()}"'
    assert process.most_memory() - before < 24 * MIB


@pytest.mark.capability("C6")
def test_what_was_answered_is_there_after_a_kill_and_what_was_not_never_shows(process: Process) -> None:
    wire = process.wire()
    assert wire.put("done.bin", bytes(3 * MIB)).status == 200
    assert wire.put("small.txt", b"done").status == 200

    with half_sent(wire, "half.bin", 8 * MIB, 5 * MIB), half_sent(wire, "done.bin", 8 * MIB, 5 * MIB):
        until(lambda: len(list((process.layout.blobs / "tmp").iterdir())) == 2)
        process.end()
    process.start()
    wire = process.wire()

    assert wire.listed() == [("done.bin", 3 * MIB), ("small.txt", 4)]
    assert (wire.get("done.bin").body, wire.get("small.txt").body) == (bytes(3 * MIB), b"done")
    assert wire.get("half.bin").status == 404
    assert wire.put("half.bin", bytes(8 * MIB)).status == 200


@pytest.mark.chaos
@pytest.mark.capability("C6", "L7")
def test_no_kill_loses_an_artifact_that_was_acknowledged(process: Process) -> None:
    kept: dict[str, bytes] = {}
    for cycle in range(CYCLES):
        wire = process.wire()
        for number in range(cycle % 7 + 1):
            data = hashlib.shake_128(f"{cycle} {number}".encode()).digest(1 + (number % 3) * 900_000)
            if wire.put(f"{cycle}/{number}", data).status == 200:
                kept[f"{cycle}/{number}"] = data
        with half_sent(wire, f"{cycle}/half", 4 * MIB, 2 * MIB):
            process.end()
        process.start()
        wire = process.wire()
        for path, data in list(kept.items())[-20:]:
            assert wire.get(path).body == data
        assert wire.listed(str(cycle)) == [(str(n), len(kept[f"{cycle}/{n}"])) for n in range(cycle % 7 + 1)]


@pytest.mark.chaos
@pytest.mark.capability("C6", "L7")
def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", disk_bytes=24 * MIB, file_bytes=6 * MIB) as python:
        process = Process(tmp_path / "disk", python)
        try:
            wire = process.wire()
            assert wire.put("kept.bin", bytes(5 * MIB)).status == 200

            refused = wire.put("large.bin", b"x" * (40 * MIB))

            assert error(refused) == (507, "RESOURCE_EXHAUSTED")
            assert list((process.layout.blobs / "tmp").iterdir()) == []
            assert wire.listed() == [("kept.bin", 5 * MIB)]
            assert wire.get("kept.bin").body == bytes(5 * MIB)
            assert wire.put("small.bin", b"small").status == 200
        finally:
            process.end()


def test_a_refused_upload_leaves_the_connection_in_order(wire: Wire) -> None:
    connection = http.client.HTTPConnection(urlsplit(f"http://{wire.client.host}").netloc, timeout=30)
    found = []
    for path, data in (("../up", bytes(100_000)), ("a.txt", b"a"), ("b/", b"x"), ("b.txt", b"b")):
        connection.request("PUT", wire.at(path), data, wire.client.headers)
        answer = connection.getresponse()
        found.append((answer.status, json.loads(answer.read()).get("error_code")))
    connection.close()

    assert found == [(400, "INVALID_PARAMETER_VALUE"), (200, None)] * 2
    assert wire.listed() == [("a.txt", 1), ("b.txt", 1)]
