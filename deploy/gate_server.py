"""Running the gate: TLS, a certificate that is renewed in place, and housekeeping."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.concurrency import run_in_threadpool

from .control import SuperLinkDownError, connect
from .enrolment import enrol
from .enrolment_request import EnrolmentRequest
from .fleet import Device, Fleet, FleetError
from .gate import Gate
from .gate_protocol import GateProtocol
from .metrics import MetricsServer, exposition
from .pki import days_left, load_certificate
from .registration import reconcile
from .server_folder import LOOPBACK, ServerFolder

_LOG = logging.getLogger(__name__)

# How often the certificate's file and the fleet file are looked at, and Flower's list.
LOOK_SECONDS = 5.0
RECONCILE_SECONDS = 30.0
# A device that polls more rarely keeps its connection: a handshake is kilobytes.
KEEP_ALIVE_SECONDS = 75
MOST_CONNECTIONS = 2_000
# Flower's SuperLink closes connections that rest for 5 seconds.
_UPSTREAM_REST_SECONDS = 3.0
# After this long without an answer to what was sent, a device is gone.
_DEAD_SECONDS = 180


class Certificate:
    """A TLS context whose certificate follows a file.

    Connections that are open go on with the old certificate; new ones get the new one.

    Parameters
    ----------
    path : Path
        The private key, the certificate and the authority's, in one file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.context = _server_context(path)
        self._stamp = _stamp(path)
        self.days_left = days_left(load_certificate(path.read_bytes()))

    def follow(self) -> bool:
        """Take the file's certificate if it changed; return whether it did.

        A file that cannot be used changes nothing.
        """
        try:
            stamp = _stamp(self.path)
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            # A context that takes half of a bad file would serve nobody.
            _server_context(self.path)
            self.context.load_cert_chain(self.path)
            self.days_left = days_left(load_certificate(self.path.read_bytes()))
        except (OSError, ValueError) as err:
            _LOG.error("%s cannot be used, the old one goes on: %s", self.path, err)
            return False
        _LOG.info("the certificate of %s is served from now on", self.path)
        return True


def _server_context(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(path)
    return context


def _stamp(path: Path) -> tuple[int, int]:
    known = path.stat()
    return known.st_mtime_ns, known.st_ino


class GateServer:
    """The gate of a server's folder.

    Parameters
    ----------
    folder : ServerFolder
        Whose; its settings say where.
    """

    def __init__(self, folder: ServerFolder) -> None:
        self.folder = folder
        self.settings = folder.settings
        self.fleet = Fleet(folder.fleet_file)
        self._certificate = Certificate(folder.gate_identity)
        self._authority = folder.authority_pem()
        self._server: uvicorn.Server | None = None
        self.gate = Gate(
            upstream=f"https://{self.settings.superlink}",
            client=self._client,
            enrol=self._enrol,
            largest_body=self.settings.largest_body,
        )
        self._metrics = MetricsServer(
            self.settings.metrics_port,
            lambda: exposition(
                self.gate.traffic,
                self.fleet.devices(),
                certificate_days=self._certificate.days_left,
            ),
        )

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        plain = self.settings.plain_port
        listening = _listen(LOOPBACK if plain else "", plain or self.settings.port)
        config = uvicorn.Config(
            self.gate.application(self._housekeeping),
            http=GateProtocol,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=20,
        )
        config.load()
        if not plain:
            config.ssl = self._certificate.context
        self._server = uvicorn.Server(config)
        _LOG.info("the gate is open at %s, port %d", *listening.getsockname()[:2])
        self._metrics.start()
        try:
            self._server.run(sockets=[listening])
        finally:
            self._metrics.stop()
            with contextlib.suppress(FleetError):
                self.gate.traffic.write(self.fleet)

    def stop(self) -> None:
        """Let `run` return, from another thread."""
        if self._server is not None:
            self._server.should_exit = True

    @asynccontextmanager
    async def _housekeeping(self) -> AsyncIterator[None]:
        self._look()
        tasks = [
            asyncio.create_task(_repeat(self._look, LOOK_SECONDS)),
            asyncio.create_task(_repeat(self._reconcile, RECONCILE_SECONDS)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    def _client(self) -> httpx.AsyncClient:
        context = ssl.create_default_context(cadata=self._authority.decode())
        return httpx.AsyncClient(
            verify=context,
            trust_env=False,
            # An upload's own pace is the device's; an answer may wait for a database.
            timeout=httpx.Timeout(None, connect=10.0, read=300.0),
            limits=httpx.Limits(
                max_connections=None, keepalive_expiry=_UPSTREAM_REST_SECONDS
            ),
        )

    def _look(self) -> None:
        self._certificate.follow()
        self.gate.traffic.write(self.fleet)
        self.gate.keys = frozenset(d.public_key for d in self.fleet.devices())

    def _reconcile(self) -> None:
        with connect(self.folder) as control:
            changes = reconcile(self.fleet, control)
        if changes:
            _LOG.info("registered or unregistered %d keys with Flower", changes)

    def _enrol(self, request: EnrolmentRequest) -> Device:
        device = enrol(self.fleet, request)
        try:
            self._reconcile()
        except SuperLinkDownError:
            _LOG.warning("%s will be registered when the SuperLink is up", device.name)
        self._look()
        return device


async def _repeat(work: Callable[[], None], seconds: float) -> None:
    """Do something again and again; what it cannot do now it may later."""
    while True:
        try:
            await run_in_threadpool(work)
        except SuperLinkDownError as err:
            _LOG.warning("%s", err)
        except Exception:
            _LOG.exception("the gate goes on")
        await asyncio.sleep(seconds)


def _listen(host: str, port: int) -> socket.socket:
    if host:
        listening = socket.create_server((host, port), backlog=512)
    elif socket.has_dualstack_ipv6():
        listening = socket.create_server(
            ("::", port), family=socket.AF_INET6, backlog=512, dualstack_ipv6=True
        )
    else:
        listening = socket.create_server(("", port), backlog=512)
    # Accepted sockets take these over, so that a device that lost power is forgotten.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_SECONDS * 1000
    )
    return listening
