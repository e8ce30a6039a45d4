"""What a client gets: predictions that the log holds, and for bad input an error that names the field."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from andon.core.ids import parse_prediction_id
from andon.serving.decode import MAX_RECORDS
from andon.serving.requests import DRAINED_BYTES, MAX_BODY_BYTES
from tests.serving.world import DEADLINE_S, ENDLESS, RECORD, STRICT, Answer, Client, Process, World


@pytest.fixture(scope="module")
def process(module_world: World) -> Process:
    module_world.publish(
        module_world.route(100, stable=1, candidate=2, weight=0.5, previous=3),
        module_world.route(100, stable=None, endpoint="empty"),
        module_world.route(100, stable=STRICT, endpoint="strict"),
        module_world.route(100, stable=1, candidate=ENDLESS, weight=0.5, endpoint="half"),
    )
    started = module_world.start(arguments=["--read-timeout-s", "0.5"])
    started.ready()
    return started


@pytest.fixture
def client(process: Process) -> Iterator[Client]:
    made = Client(process.port)
    yield made
    made.close()


def check_error(answer: Answer, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """The one shape of every error."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    said: dict[str, Any] = answer.json
    assert set(said) - {"field"} == {"error_code", "message", "hint", "request_id"}
    assert (said["error_code"], said.get("field")) == (code, field)
    assert said["message"]
    assert "Traceback" not in said["message"]
    return said


def test_an_answer_says_which_release_gave_it_and_is_in_the_log(client: Client, module_world: World) -> None:
    answer = client.predict(Andon_Time="2013-04-01T12:00:00Z", Andon_Entity="plane-7")

    assert answer.status == 200
    said = answer.json
    record = module_world.records()[said["prediction_id"]]
    assert said == {
        "prediction_id": record.prediction_id, "prediction": record.output, "endpoint": "delay", "model": "delay",
        "version": record.version, "release": record.release, "epoch": 1, "generation": 100,
    }  # fmt: skip
    assert 0 < said["prediction"] < 1
    assert record.inputs == RECORD
    assert len(record.features) == 4
    assert (record.data_at_us, record.entity, record.status, record.propensity) == (
        1364817600000000,
        "plane-7",
        200,
        0.5,
    )


def test_an_entity_keeps_its_arm_and_without_one_the_prediction_id_decides(client: Client) -> None:
    sticky = {
        client.predict(Andon_Entity="plane-é7".encode().decode("latin-1")).json["version"] for _ in range(20)
    }
    spread = {client.predict().json["version"] for _ in range(60)}

    assert len(sticky) == 1
    assert spread == {1, 2}


def test_the_same_record_gets_the_same_number_alone_and_in_a_batch(
    client: Client, module_world: World
) -> None:
    records = [RECORD | {"distance": 100 * number, "carrier": None} for number in range(1, 30)]

    together = client.predict({"records": records}, Andon_Entity="e").json["predictions"]
    alone = [client.predict(record, Andon_Entity="e").json for record in records]

    assert [one["prediction"] for one in together] == [one["prediction"] for one in alone]
    assert {one["version"] for one in together} == {alone[0]["version"]}
    logged = module_world.records()
    assert [logged[one["prediction_id"]].inputs for one in together] == records
    assert [logged[one["prediction_id"]].features for one in together] == [
        logged[one["prediction_id"]].features for one in alone
    ]


def test_records_of_a_batch_without_an_entity_are_assigned_one_by_one(client: Client) -> None:
    answers = client.predict({"records": [RECORD] * 100}).json["predictions"]

    assert {one["version"] for one in answers} == {1, 2}
    numbers = [parse_prediction_id(one["prediction_id"]).number for one in answers]
    assert numbers == list(range(numbers[0], numbers[0] + 100))


BAD = [
    ("distance", "NaN"), ("distance", "1.5"), ("distance", "null"), ("distance", '"12"'), ("distance", str(2**53)),
    ("distance", "9" * 5000), ("dep hour", "Infinity"), ("dep hour", "1e999"), ("dep hour", "true"), ("dep hour", "null"),
    ("carrier", "7"), ("carrier", json.dumps("x" * 257)), ("wet", "1"), ("wet", "null"), ("wet", "{}"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "literal"), BAD, ids=[f"{name}={literal[:12]}" for name, literal in BAD])
def test_a_bad_value_is_a_400_that_names_the_field(client: Client, name: str, literal: str) -> None:
    fields = [f'"{key}": {literal if key == name else json.dumps(value)}' for key, value in RECORD.items()]

    check_error(
        client.predict(("{" + ", ".join(fields) + "}").encode()), 400, "INVALID_PARAMETER_VALUE", name
    )


def test_a_missing_and_an_extra_field_are_named(client: Client) -> None:
    missing = {key: value for key, value in RECORD.items() if key != "carrier"}

    check_error(client.predict(missing), 400, "INVALID_PARAMETER_VALUE", "carrier")
    said = check_error(client.predict(RECORD | {"price": 1}), 400, "INVALID_PARAMETER_VALUE", "price")
    assert "dep hour (number)" in said["hint"]


def test_a_bad_record_of_a_batch_is_named_and_nothing_of_the_batch_is_logged(
    client: Client, module_world: World
) -> None:
    before = len(module_world.records())

    answer = client.predict({"records": [RECORD, RECORD | {"wet": "yes"}]})

    check_error(answer, 400, "INVALID_PARAMETER_VALUE", "records[1].wet")
    assert len(module_world.records()) == before


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000], ids=str)
def test_what_is_no_record_is_a_400(client: Client, body: bytes) -> None:
    check_error(client.predict(body), 400, "INVALID_PARAMETER_VALUE")


def test_too_many_records_are_a_413(client: Client) -> None:
    check_error(client.predict({"records": [{}] * (MAX_RECORDS + 1)}), 413, "PAYLOAD_TOO_LARGE", "records")


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_a_body_over_the_limit_is_a_413_that_the_client_sees(client: Client, chunked: bool) -> None:
    big = b" " * (3 * MAX_BODY_BYTES)
    body: Any = (big[start : start + 50_000] for start in range(0, len(big), 50_000)) if chunked else big

    answer = client.ask("POST", "/predict/delay", body, chunked=chunked)

    check_error(answer, 413, "PAYLOAD_TOO_LARGE")
    assert client.predict().status == 200


def test_a_body_at_the_limit_and_a_chunked_one_are_read(client: Client) -> None:
    whole = json.dumps(RECORD).encode()
    padded = whole + b" " * (MAX_BODY_BYTES - len(whole))

    assert client.predict(padded).status == 200
    check_error(client.predict(padded + b" "), 413, "PAYLOAD_TOO_LARGE")
    assert client.ask("POST", "/predict/delay", iter([whole[:9], whole[9:]]), chunked=True).status == 200


def raw(process: Process, sent: bytes) -> bytes:
    """What comes back for raw bytes until the gateway closes."""
    with socket.create_connection(("127.0.0.1", process.port), timeout=DEADLINE_S) as connection:
        connection.sendall(sent)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


POST = b"POST /predict/delay HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (2 * MAX_BODY_BYTES), 413),
        (POST + b"Content-Length: %d\r\n\r\n" % (2 * DRAINED_BYTES), 413),
        (POST + b"Content-Length: 100\r\n\r\n{", 408),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", 408),
        (POST, 408),
        (b"", 408),
        (b"rubbish\r\n\r\n", 400),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"X-Fill: " + b"x" * 300_000, 431),
    ],
    ids=[
        "too long, asks first", "far too long", "slow body", "slow chunks", "slow headers", "says nothing", "no HTTP",
        "length is no number", "two lengths", "bad chunk", "endless headers",
    ],
)  # fmt: skip
def test_a_connection_that_cannot_go_on_is_told_why_and_closed(
    process: Process, sent: bytes, status: int
) -> None:
    head, _, body = raw(process, sent).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"connection: close" in head
    assert set(json.loads(body)) == {"error_code", "message", "hint", "request_id"}


def test_a_slow_client_makes_nobody_wait(process: Process, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", process.port), timeout=DEADLINE_S) as slow:
        slow.sendall(POST + b"Content-Length: 100\r\n\r\n{")

        assert client.predict().status == 200
        assert slow.recv(12) == b"HTTP/1.1 408"


def test_a_request_in_many_small_pieces_is_answered(process: Process) -> None:
    body = json.dumps(RECORD).encode()
    with socket.create_connection(("127.0.0.1", process.port), timeout=DEADLINE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body):
            connection.sendall(bytes([byte]))

        assert connection.recv(12) == b"HTTP/1.1 200"


def test_requests_sent_ahead_are_answered_in_order(process: Process) -> None:
    body = json.dumps(RECORD).encode()
    one = POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)

    answer = raw(process, one * 20 + last)

    assert answer.count(b"HTTP/1.1 200 OK") == 21
    numbers = [
        parse_prediction_id(found.decode()).number
        for found in re.findall(rb'prediction_id":"([^"]+)', answer)
    ]
    assert numbers == sorted(numbers)


def test_an_unknown_endpoint_is_a_404_that_names_the_known_ones(client: Client) -> None:
    said = check_error(client.predict(endpoint="nope"), 404, "RESOURCE_DOES_NOT_EXIST")

    assert "delay" in said["hint"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/predict",
        "/predict/",
        "/predict/delay/",
        "/predict/delay/x",
        "/nope",
        "/predict/a%2Fb",
        "//predict/delay",
    ],
)
def test_a_path_that_is_nothing_is_a_404(client: Client, path: str) -> None:
    check_error(client.ask("POST", path, RECORD), 404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict/delay", "POST"), ("PUT", "/predict/delay", "POST"), ("DELETE", "/predict/delay", "POST"),
        ("OPTIONS", "/predict/delay", "POST"), ("POST", "/routes", "GET, HEAD"), ("PATCH", "/metrics", "GET, HEAD"),
    ],
)  # fmt: skip
def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    client: Client, method: str, path: str, allowed: str
) -> None:
    answer = client.ask(method, path)

    check_error(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allowed


def test_an_endpoint_without_a_stable_release_is_a_503(client: Client) -> None:
    answer = client.predict(endpoint="empty")

    check_error(answer, 503, "TEMPORARILY_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403), ({"Host": "127.0.0.1.evil.example:80"}, 403), ({"Host": ""}, 403),
        ({"Host": "LOCALHOST:1234"}, 200), ({"Host": "[::1]:8080"}, 200), ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403), ({"Origin": "http://localhost.evil.example"}, 403), ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:5000"}, 200), ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
    ids=str,
)  # fmt: skip
def test_a_page_from_elsewhere_cannot_ask(client: Client, headers: dict[str, str], status: int) -> None:
    answer = client.ask("POST", "/predict/delay", RECORD, headers)

    assert answer.status == status
    if status == 403:
        check_error(answer, 403, "PERMISSION_DENIED")


def test_reading_is_guarded_by_the_host_too(client: Client) -> None:
    for path in ("/routes", "/metrics", "/health/live", "/health/ready"):
        check_error(client.ask("GET", path, headers={"Host": "evil.example"}), 403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    "given", ["yesterday", "2013-04-01T12:00:00", "", "1364817600", "9999-12-31T23:59:59-23:59"]
)
def test_a_bad_time_is_a_400(client: Client, given: str) -> None:
    check_error(client.predict(Andon_Time=given), 400, "INVALID_PARAMETER_VALUE", "Andon-Time")


@pytest.mark.parametrize("given", ["", "x" * 257, "\xff"])
def test_a_bad_entity_is_a_400(client: Client, given: str) -> None:
    check_error(client.predict(Andon_Entity=given), 400, "INVALID_PARAMETER_VALUE", "Andon-Entity")


def test_a_compressed_body_is_a_415(client: Client) -> None:
    check_error(client.predict(Content_Encoding="gzip"), 415, "UNSUPPORTED_ENCODING")


def test_a_model_that_fails_is_a_500_that_the_log_holds(client: Client, module_world: World) -> None:
    said = check_error(client.predict(RECORD | {"carrier": "ZZ"}, "strict"), 500, "MODEL_FAILED")

    record = module_world.records()[said["request_id"]]
    assert (record.status, record.output, record.release) == (500, None, f"rel_{STRICT}")
    assert "replace_strict" in (record.error or "")
    assert client.predict(endpoint="strict").status == 200


def test_a_number_that_is_not_finite_is_a_failure_of_the_arm_that_gave_it(
    client: Client, module_world: World
) -> None:
    answer = client.predict({"records": [RECORD] * 50}, "half")

    first = check_error(answer, 500, "MODEL_FAILED")["request_id"]
    number = parse_prediction_id(first).number
    batch = [
        one
        for name, one in module_world.records().items()
        if abs(parse_prediction_id(name).number - number) < 50
    ]
    outcomes = {(one.version, one.status, one.error) for one in batch if one.endpoint == "half"}
    assert outcomes == {(1, 200, None), (ENDLESS, 500, "the model gave inf")}


def test_requests_that_come_together_get_what_they_get_alone(process: Process, module_world: World) -> None:
    records = [
        RECORD | {"distance": 10 * number, "carrier": ("AA", "ZZ")[number % 7 == 0]} for number in range(120)
    ]
    with contextlib.closing(Client(process.port)) as client:
        alone = [client.predict(record, "strict") for record in records]

    def ask(start: int) -> list[Answer]:
        with contextlib.closing(Client(process.port)) as client:
            return [client.predict(record, "strict") for record in records[start::12]]

    with ThreadPoolExecutor(12) as pool:
        lanes = list(pool.map(ask, range(12)))

    together = {
        start + 12 * place: answer for start, lane in enumerate(lanes) for place, answer in enumerate(lane)
    }
    for number, answer in enumerate(alone):
        same = together[number]
        assert same.status == answer.status == (500 if number % 7 == 0 else 200)
        assert same.json.get("prediction") == answer.json.get("prediction")
    logged = module_world.records()
    for answer in together.values():
        said = answer.json
        record = logged[said["prediction_id" if answer.status == 200 else "request_id"]]
        assert record.status == answer.status


def test_health_and_routes_say_what_is_in_force(client: Client, process: Process) -> None:
    live, ready, routes = (
        client.ask("GET", path).json for path in ("/health/live", "/health/ready", "/routes")
    )

    assert live["pid"] == ready["pid"] == routes["pid"] == process.process.pid
    assert (ready["ready"], ready["problems"], ready["waiting"]) == (True, [], [])
    route = routes["routes"]["delay"]
    assert {key: route[key] for key in ("endpoint", "epoch", "generation", "weight", "held")} == {
        "endpoint": "delay", "epoch": 1, "generation": 100, "weight": 0.5, "held": False,
    }  # fmt: skip
    assert [(arm["role"], arm["version"], arm["loaded"]) for arm in route["arms"]] == [
        ("stable", 1, True), ("candidate", 2, True), ("previous", 3, True),
    ]  # fmt: skip
    assert "salt" not in route
    assert client.ask("HEAD", "/health/ready").body == b""


SAMPLE = re.compile(r'^(\w+)\{((?:\w+="(?:[^"\\\n]|\\.)*",?)*)\} (\S+)$')


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The samples of OpenMetrics text, which must be well formed."""
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""]
    found = {}
    for line in lines[:-2]:
        if not line.startswith("# "):
            match = SAMPLE.match(line)
            assert match, line
            key = (match[1], frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2])))
            assert key not in found
            found[key] = float(match[3])
    return found


def test_the_metrics_count_what_happened(client: Client) -> None:
    def count(name: str, **labels: str) -> float:
        text = client.ask("GET", "/metrics").body.decode()
        return sum(
            value
            for (key, own), value in samples(text).items()
            if key == name and labels.items() <= dict(own).items()
        )

    good = count("andon_requests_total", endpoint="delay", code="200")
    bad = count("andon_requests_total", endpoint="delay", code="400")
    nowhere = count("andon_requests_total", endpoint="", code="404")
    timed = count("andon_request_duration_seconds_count", endpoint="delay")

    client.predict()
    client.predict({"records": [RECORD] * 10})
    client.predict({})
    client.predict(endpoint="surprise")

    assert count("andon_requests_total", endpoint="delay", code="200") == good + 11
    assert count("andon_requests_total", endpoint="delay", code="400") == bad + 1
    assert count("andon_requests_total", endpoint="", code="404") == nowhere + 1
    assert count("andon_request_duration_seconds_count", endpoint="delay") == timed + 3
    assert count("andon_request_duration_seconds_bucket", endpoint="delay", le="+Inf") == timed + 3
    assert count("andon_inflight_requests") == 1
    assert count("andon_model_info", endpoint="delay", arm="candidate", version="2") == 1
    assert client.ask("GET", "/metrics").headers["content-type"].startswith("application/openmetrics-text")


def test_a_connection_is_kept_through_errors(process: Process, client: Client) -> None:
    client.predict()
    mine = client.connection.sock

    for body, headers in ((b"{", {}), (b"{}", {"Host": "evil.example"}), (b"[]", {"Andon-Time": "x"})):
        assert client.ask("POST", "/predict/delay", body, headers).status >= 400

    assert client.predict().status == 200
    assert client.connection.sock is mine


def test_nothing_was_logged_as_a_fault_of_the_gateway(process: Process) -> None:
    assert "trace" not in process.log.read_text()
