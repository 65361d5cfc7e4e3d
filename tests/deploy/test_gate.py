from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from uvicorn.server import ServerState

from flwr_caesar.deploy import gate as gate_module
from flwr_caesar.deploy import gate_protocol, gate_server
from flwr_caesar.deploy.device_key import public_pem
from flwr_caesar.deploy.device_status import HEADER, DeviceStatus
from flwr_caesar.deploy.enrolment_request import EnrolmentRequest, make_request
from flwr_caesar.deploy.fleet import Device, Fleet, FleetError
from flwr_caesar.deploy.gate import (
    CALLS,
    LARGEST_OF_STRANGERS,
    MOST_OF_DEVICE,
    MOST_OF_STRANGERS,
    REFUSED_CALLS,
    Gate,
)
from flwr_caesar.deploy.gate_protocol import GateProtocol
from flwr_caesar.deploy.gate_server import GateServer
from flwr_caesar.deploy.metrics import exposition
from flwr_caesar.deploy.server import make_server
from flwr_caesar.deploy.server_folder import ServerFolder, ServerSettings
from flwr_caesar.runner.superlink import free_port

KEY = ec.generate_private_key(ec.SECP384R1())
MINE = public_pem(KEY)
HEADERS = {
    "flwr-public-key": base64.b64encode(MINE).decode(),
    "flwr-package-version": "1.41.0",
    "content-type": "application/x-protobuf",
}
LIMIT = 100_000


class SuperLink:
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.down = False
        self.answers(200, b"answer")

    def answers(self, status: int, content: bytes, **headers: str) -> None:
        self.status, self.content, self.headers = status, content, headers

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused", request=request)
        self.asked.append(request)

        async def body() -> AsyncIterator[bytes]:
            yield self.content

        names = {name.replace("_", "-"): text for name, text in self.headers.items()}
        return httpx.Response(self.status, content=body(), headers=names)


class Reading(httpx.MockTransport):
    """Reads bodies before it answers, as a server does."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return await super().handle_async_request(request)


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


def enrolled(request: EnrolmentRequest) -> Device:
    if request.name == "refused":
        raise FleetError("This ticket expired.")
    return Device(
        name=request.name,
        public_key=request.public_key,
        machine=request.machine,
        partition_id=7,
        num_partitions=40,
        enrolled_at=0.0,
    )


@pytest.fixture
def gate(superlink: SuperLink) -> Gate:
    return Gate(
        upstream="https://superlink",
        client=lambda: httpx.AsyncClient(transport=Reading(superlink)),
        enrol=enrolled,
        largest_body=LIMIT,
        keys={MINE},
    )


@pytest.fixture
def device(gate: Gate) -> Iterator[TestClient]:
    with TestClient(gate.application(), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("call", sorted(CALLS))
def test_calls_of_devices_are_passed_on_and_answered(
    device: TestClient, superlink: SuperLink, call: str
) -> None:
    superlink.answers(400, b"flower says", content_type="application/json")
    got = device.post(f"/v1/fleet/{call}", content=b"asked", headers=HEADERS)
    assert (got.status_code, got.content) == (400, b"flower says")
    assert got.headers["content-type"] == "application/json"
    (asked,) = superlink.asked
    assert str(asked.url) == f"https://superlink/v1/fleet/{call}"
    assert asked.content == b"asked"
    assert asked.headers["flwr-public-key"] == HEADERS["flwr-public-key"]


def test_every_call_of_flower_is_known_to_the_gate() -> None:
    from flwr.superlink.routers.fleet.router import router

    paths = {getattr(route, "path", "") for route in router.routes}
    calls = {path.removeprefix("/v1/fleet/") for path in paths}
    assert calls == CALLS | REFUSED_CALLS


def test_no_other_path_reaches_the_superlink(
    device: TestClient, superlink: SuperLink
) -> None:
    @settings(max_examples=300, deadline=None)
    @given(
        st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        st.sampled_from(["/v1/control/", "/v1/runtime/", "/v1/fleet/", "/", "/health"]),
        st.text(st.characters(codec="ascii", exclude_characters="?#"), max_size=30),
    )
    def ask(method: str, start: str, rest: str) -> None:
        superlink.asked.clear()
        try:
            got = device.request(
                method, start + rest, headers=HEADERS, follow_redirects=False
            )
        except (httpx.InvalidURL, ValueError):
            return
        reached = {asked.url.path for asked in superlink.asked}
        allowed = {f"/v1/fleet/{call}" for call in CALLS} | {"/health"}
        assert reached <= allowed & {start + rest}
        assert reached or got.status_code in (307, 400, 403, 404, 405)

    ask()


@pytest.mark.parametrize("call", sorted(REFUSED_CALLS))
def test_devices_cannot_register_themselves(
    device: TestClient, superlink: SuperLink, call: str
) -> None:
    assert device.post(f"/v1/fleet/{call}", headers=HEADERS).status_code == 403
    assert superlink.asked == []


def test_a_superlink_that_is_down_is_worth_another_try(
    device: TestClient, superlink: SuperLink
) -> None:
    superlink.down = True
    got = device.post("/v1/fleet/pull-messages", headers=HEADERS)
    assert got.status_code == 503
    assert device.get("/health").status_code == 503
    superlink.down = False
    assert device.get("/health").status_code == 200


def pieces(count: int, size: int = 1000) -> Iterator[bytes]:
    for _ in range(count):
        yield b"x" * size


def test_a_body_has_its_limit_whatever_it_declares(
    device: TestClient, superlink: SuperLink
) -> None:
    path = "/v1/fleet/push-object"
    assert device.post(path, content=b"x" * LIMIT, headers=HEADERS).is_success
    assert len(superlink.asked.pop().content) == LIMIT
    too_much = device.post(path, content=b"x" * (LIMIT + 1), headers=HEADERS)
    assert too_much.status_code == 413
    undeclared = device.post(path, content=pieces(101), headers=HEADERS)
    assert undeclared.status_code == 413
    assert superlink.asked == []
    assert device.post(path, content=pieces(100), headers=HEADERS).is_success


def test_a_stranger_may_send_little(device: TestClient, superlink: SuperLink) -> None:
    path = "/v1/fleet/push-object"
    for claimed in ({}, {"flwr-public-key": "?"}, {"flwr-public-key": "b3RoZXI="}):
        headers = {"content-type": "application/x-protobuf", **claimed}
        much = device.post(path, content=b"x" * LIMIT, headers=headers)
        assert much.status_code == 413
        little = device.post(path, content=b"x" * LARGEST_OF_STRANGERS, headers=headers)
        assert little.is_success  # passed on, so that Flower says who is not known


def test_only_what_flower_needs_of_headers_is_passed_on(
    device: TestClient, superlink: SuperLink
) -> None:
    superlink.answers(200, b"", date="yesterday", server="x", flwr_x="y")
    more = {"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "authorization": "Bearer x"}
    got = device.post(
        "/v1/fleet/get-run",
        content=b"",
        headers={**HEADERS, **more, "flwr-timestamp": "t"},
    )
    (asked,) = superlink.asked
    passed = set(asked.headers) - {"host", "content-length", "transfer-encoding"}
    assert passed == {"accept", "flwr-timestamp", *HEADERS}
    assert got.headers["flwr-x"] == "y"
    assert "server" not in got.headers
    assert got.headers.get("date") != "yesterday"


def test_bytes_are_counted_to_who_shows_the_key(
    device: TestClient, gate: Gate, superlink: SuperLink, tmp_path: Path
) -> None:
    fleet = Fleet.create(tmp_path / "fleet.db")
    status = DeviceStatus(version="0.1.0", power_mode="MAXN", state="online")
    path = "/v1/fleet/push-object"
    device.post(path, content=b"x" * 5000, headers={**HEADERS, **status.to_header()})
    superlink.answers(200, b"y" * 7000)
    device.post(path, content=b"", headers=HEADERS)
    superlink.answers(401, b"who are you")
    device.post(path, content=b"x" * 90_000, headers=HEADERS)
    gate.traffic.write(fleet)
    seen = fleet.seen()[MINE]
    assert 5000 < seen.bytes_up < 7000
    assert 7000 < seen.bytes_down < 8000
    assert abs(seen.last_seen - time.time()) < 60
    assert seen.flower_version == "1.41.0"
    assert DeviceStatus.from_header(seen.status) == status
    gate.traffic.write(fleet)  # nothing new
    assert fleet.seen()[MINE] == seen
    _, others, answers = gate.traffic.snapshot()
    assert others.up > 90_000
    assert answers == {200: 2, 401: 1}


def test_what_could_not_be_written_is_written_later(
    device: TestClient, gate: Gate, tmp_path: Path
) -> None:
    fleet = Fleet.create(tmp_path / "fleet.db")
    device.post("/v1/fleet/get-run", content=b"x" * 1000, headers=HEADERS)
    kept = fleet.path.read_bytes()
    fleet.path.write_bytes(b"broken" * 1000)
    with pytest.raises(FleetError):
        gate.traffic.write(fleet)
    fleet.path.write_bytes(kept)
    device.post("/v1/fleet/get-run", content=b"x" * 2000, headers=HEADERS)
    gate.traffic.write(fleet)
    assert fleet.seen()[MINE].bytes_up > 3000


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_status_is_read_and_printable(text: str) -> None:
    status = DeviceStatus.from_header(text)
    assert all(
        v.isprintable() for v in (status.version, status.power_mode, status.state)
    )


def test_a_long_status_says_that_it_goes_on() -> None:
    (header,) = (
        DeviceStatus(state="waiting; trying again in 15 s" * 4).to_header().values()
    )
    state = DeviceStatus.from_header(header).state
    assert len(state) == 80
    assert state.endswith("…")


def test_enrolment_is_answered_with_a_place_or_a_reason(device: TestClient) -> None:
    def ask(name: str) -> httpx.Response:
        text = make_request(KEY, name=name, machine=None, token=b"token")
        return device.post("/enrol", content=text)

    place = {"name": "jetson-07", "partition-id": 7, "num-partitions": 40}
    assert ask("jetson-07").json() == place
    refused = ask("refused")
    assert (refused.status_code, refused.json()) == (
        403,
        {"error": "This ticket expired."},
    )
    for bad in (b"", b"{}", b"\0" * 100, b"[" * 10_000):
        assert device.post("/enrol", content=bad).status_code == 400
    assert device.post("/enrol", content=b"x" * 20_000).status_code == 413
    assert device.get("/enrol").status_code == 405
    assert HEADER not in device.get("/enrol").headers


def test_metrics_are_prometheus_text_by_device(device: TestClient, gate: Gate) -> None:
    device.post("/v1/fleet/get-run", content=b"x" * 1000, headers=HEADERS)
    known = enrolled(
        EnrolmentRequest(
            name="a", public_key=MINE, machine=None, token=None, version="1"
        )
    )
    text = exposition(gate.traffic, [known], certificate_days=12.5)
    samples = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")
    )
    up = 'flwr_caesar_gate_bytes_total{device="a",direction="up"}'
    assert 1000 < int(samples[up]) < 2000
    assert samples['flwr_caesar_gate_answers_total{status="200"}'] == "1"
    assert samples["flwr_caesar_gate_certificate_days"] == "12.500"


# --- the real server ----------------------------------------------------------------


@contextmanager
def running(folder: ServerFolder) -> Iterator[int]:
    """Serve a folder's gate from a thread, without a SuperLink behind it."""
    server = GateServer(folder)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    port = folder.settings.port
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    try:
        yield port
    finally:
        server.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    made = ServerFolder(tmp_path / "server")
    ports = [free_port() for _ in range(3)]
    make_server(
        made,
        ServerSettings(
            addresses=("localhost",),
            port=ports[0],
            superlink_port=ports[1],
            metrics_port=ports[2],
        ),
    )
    return made


def test_it_speaks_tls_from_1_2_and_never_plain(folder: ServerFolder) -> None:
    trusting = ssl.create_default_context(cafile=str(folder.authority_certificate))
    with running(folder) as port:
        url = f"https://localhost:{port}"
        with httpx.Client(verify=trusting, trust_env=False) as client:
            answer = client.get(f"{url}/health")
            assert answer.status_code == 503  # no SuperLink
            assert "date" in answer.headers  # by which devices check their clocks
            assert client.get(f"{url}/v1/control/list-runs").status_code == 404
            metrics = f"http://127.0.0.1:{folder.settings.metrics_port}/metrics"
            assert "certificate_days 397.0" in client.get(metrics).text
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://localhost:{port}/health", trust_env=False)
        old = ssl.create_default_context(cafile=str(folder.authority_certificate))
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with (
            socket.create_connection(("localhost", port)) as plain,
            pytest.raises(ssl.SSLError),
        ):
            old.wrap_socket(plain, server_hostname="localhost")


def test_a_request_that_breaks_off_leaves_the_gate_as_it_was(
    folder: ServerFolder,
) -> None:
    trusting = ssl.create_default_context(cafile=str(folder.authority_certificate))
    with running(folder) as port:
        for sent in (
            b"POST /enrol HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
            b"POST /v1/fleet/get-run HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: " + b"y" * 200_000,
            b"\0" * 1000,
        ):
            with (
                socket.create_connection(("localhost", port)) as plain,
                trusting.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(sent)
        with httpx.Client(verify=trusting, trust_env=False) as client:
            assert client.get(f"https://localhost:{port}/x").status_code == 404


@contextmanager
def connections(folder: ServerFolder, count: int) -> Iterator[list[ssl.SSLSocket]]:
    """Open some connections to a gate, one after the other, and say nothing."""
    trusting = ssl.create_default_context(cafile=str(folder.authority_certificate))
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            address = ("localhost", folder.settings.port)
            plain = stack.enter_context(socket.create_connection(address, timeout=20))
            opened.append(
                stack.enter_context(
                    trusting.wrap_socket(plain, server_hostname="localhost")
                )
            )
        yield opened


def is_closed(connection: ssl.SSLSocket) -> bool:
    """Return whether the other side closes; raises `TimeoutError` if it does not."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_head_that_does_not_come_ends_its_connection(
    folder: ServerFolder, monkeypatch: pytest.MonkeyPatch, sent: bytes, asks: bool
) -> None:
    monkeypatch.setattr(gate_protocol, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(gate_server, "KEEP_ALIVE_SECONDS", 30 if sent else 0.2)
    with running(folder), connections(folder, 1) as (silent,):
        answer = b""
        if asks:
            silent.sendall(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
            while not answer.endswith(b"\r\n\r\nNot Found"):
                answer += silent.recv(4096)
        silent.sendall(sent)
        assert is_closed(silent)


def test_who_opens_connections_and_keeps_silent_holds_nobody_off(
    folder: ServerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_server, "MOST_CONNECTIONS", 8)
    trusting = ssl.create_default_context(cafile=str(folder.authority_certificate))
    with (
        running(folder) as port,
        httpx.Client(verify=trusting, trust_env=False) as device,
        connections(folder, 20) as silent,
    ):
        for _ in range(3):
            assert device.get(f"https://localhost:{port}/x").status_code == 404
        assert is_closed(silent[0])


def test_connections_that_come_at_one_moment_all_make_room() -> None:
    """One that is aborted is lost in a later turn of the loop only."""

    async def come() -> list[int]:
        config = uvicorn.Config(lambda: None, limit_concurrency=4)
        config.load()
        state, aborted = ServerState(), []
        for i in range(6):
            transport = Mock(**{"get_extra_info.return_value": None})
            transport.abort.side_effect = partial(aborted.append, i)
            GateProtocol(config, state, {}).connection_made(transport)
            assert len(state.connections) < 4
        for connection in [*state.connections]:
            connection.connection_lost(None)
        return aborted

    assert asyncio.run(come()) == [0, 1, 2]


def test_one_device_or_stranger_has_so_many_requests_at_once(gate: Gate) -> None:
    held: list[Any] = []
    for key, most in ((MINE, MOST_OF_DEVICE), (None, MOST_OF_STRANGERS)):
        with ExitStack() as stack:
            for _ in range(most):
                stack.enter_context(gate._among_few(key))
            for other in {MINE, None} - {key}:
                with gate._among_few(other):
                    held.append(other)
            with pytest.raises(Exception, match="too many requests"):
                stack.enter_context(gate._among_few(key))
        with gate._among_few(key):
            held.append(key)
    assert held == [None, MINE, MINE, None]


def test_a_request_that_is_over_makes_room(
    device: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "MOST_OF_DEVICE", 1)
    for content in (b"x", b"x" * (LIMIT + 1), b"x"):
        got = device.post("/v1/fleet/get-run", content=content, headers=HEADERS)
        assert got.status_code == (200 if len(content) == 1 else 413)


@pytest.mark.parametrize(
    ("path", "name", "headers"),
    [
        ("/v1/fleet/push-object", "STALLED_SECONDS", HEADERS),
        ("/v1/fleet/push-object", "STRANGERS_SECONDS", {}),
        ("/enrol", "STRANGERS_SECONDS", {}),
    ],
)
def test_a_body_that_stops_coming_is_given_up(
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    name: str,
    headers: dict[str, str],
) -> None:
    monkeypatch.setattr(gate_module, name, 0.05)
    told: list[MutableMapping[str, Any]] = []
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> MutableMapping[str, Any]:
        if not pieces:
            await asyncio.Event().wait()
        return pieces.pop()

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    async def ask() -> None:
        async with gate.client() as gate._open:
            await gate.application()(
                {
                    "type": "http",
                    "method": "POST",
                    "path": path,
                    "query_string": b"",
                    "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
                },
                receive,
                send,
            )

    asyncio.run(asyncio.wait_for(ask(), 30))
    assert told[0]["status"] == 408
