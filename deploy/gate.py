"""The gate: what devices may ask of the server, and nothing else.

Flower's SuperLink serves devices, the people who start runs, and its own processes on
one port, and asks only devices who they are. So it listens on loopback, and devices
reach this ASGI application instead, which passes on their calls and no others.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, field

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .device_status import HEADER as STATUS_HEADER
from .device_status import LONGEST as LONGEST_STATUS
from .enrolment_request import LARGEST_BYTES as LARGEST_ENROLMENT
from .enrolment_request import RequestError, read_request
from .fleet import Device, FleetError
from .flower import FLEET_HTTP_PUBLIC_KEY_HEADER, FLWR_PACKAGE_VERSION_METADATA_KEY
from .traffic import Traffic

_LOG = logging.getLogger(__name__)

FLEET = "/v1/fleet/"
ENROL = "/enrol"
HEALTH = "/health"
CALLS = frozenset(
    {
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    }
)
# Who is a device is decided by the fleet file, not by devices.
REFUSED_CALLS = frozenset({"register-node", "unregister-node"})
# Enough for whoever is not known to hear from Flower that it is not.
LARGEST_OF_STRANGERS = 65_536
STALLED_SECONDS = 120.0
# For all that a stranger may send.
STRANGERS_SECONDS = 60.0
# Requests being served at once. A SuperNode pushes and pulls two objects at a time.
MOST_OF_DEVICE = 32
MOST_OF_STRANGERS = 200
_PASSED_ON = ("content-type", "content-length", "accept")
_FLOWER = "flwr-"
_NOT_RETURNED = ("connection", "date", "keep-alive", "server", "transfer-encoding")


class _RefusedError(Exception):
    """An answer that the gate gives itself."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass
class Gate:
    """What the application works with.

    Parameters
    ----------
    upstream : str
        URL of the SuperLink.
    client : Callable
        Makes the HTTP client that reaches it.
    enrol : Callable
        Takes a checked request to join, and returns the device or raises `FleetError`.
    largest_body : int
        Bytes of the largest request of a device of the fleet.
    keys : collection of bytes
        Public keys of the fleet, PEM.
    traffic : Traffic
        Counts.
    """

    upstream: str
    client: Callable[[], httpx.AsyncClient]
    enrol: Callable[..., Device]
    largest_body: int
    keys: Collection[bytes] = frozenset()
    traffic: Traffic = field(default_factory=Traffic)
    _served: Counter[bytes | None] = field(default_factory=Counter)

    def application(
        self, beside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    ) -> Starlette:
        """Return the ASGI application.

        Parameters
        ----------
        beside : callable
            Makes a context that is open while the application serves.
        """

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with self.client() as client, beside():
                self._open = client
                yield

        routes = [
            Route(FLEET + "{call}", self._fleet, methods=["POST"]),
            Route(ENROL, self._enrol, methods=["POST"]),
            Route(HEALTH, self._health, methods=["GET"]),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    async def _fleet(self, request: Request) -> Response:
        call = request.path_params["call"]
        claimed = _claimed_key(request)
        key = claimed if claimed in self.keys else None
        sizes = _Sizes(up=_head_bytes(request))
        try:
            if call in REFUSED_CALLS:
                raise _RefusedError(403, "only the server registers devices")
            if call not in CALLS:
                raise _RefusedError(404, "there is no such call")
            with ExitStack() as stack:
                stack.enter_context(self._among_few(key))
                answer = await self._ask(call, request, sizes, key)
                place = stack.pop_all()
        except _RefusedError as err:
            self.traffic.answered(err.status)
            self.traffic.add(None, up=sizes.up, down=0)
            return JSONResponse({"detail": err.reason}, err.status)
        if answer.status_code == 401:
            key = None  # it knows a public key, and has not shown that it holds it
        self.traffic.answered(answer.status_code)
        return self._passed_back(answer, request, key, sizes, place)

    @contextmanager
    def _among_few(self, key: bytes | None) -> Iterator[None]:
        """Refuse a request if its device has too many already, or strangers have."""
        if self._served[key] >= (MOST_OF_STRANGERS if key is None else MOST_OF_DEVICE):
            raise _RefusedError(503, "too many requests at once")
        self._served[key] += 1
        try:
            yield
        finally:
            self._served[key] -= 1
            if not self._served[key]:
                del self._served[key]

    async def _ask(
        self, call: str, request: Request, sizes: _Sizes, key: bytes | None
    ) -> httpx.Response:
        limit = LARGEST_OF_STRANGERS if key is None else self.largest_body
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            raise _RefusedError(413, f"the request is larger than {limit} bytes")
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name in _PASSED_ON or name.startswith(_FLOWER)
        ]
        question = httpx.Request(
            "POST",
            f"{self.upstream}{FLEET}{call}",
            headers=headers,
            content=_body(request, sizes, limit, known=key is not None),
        )
        try:
            return await self._open.send(question, stream=True)
        except httpx.HTTPError as err:
            # Flower's SuperNode tries again after 503.
            _LOG.warning("the SuperLink does not answer: %s", err or type(err).__name__)
            raise _RefusedError(503, "the server is starting or down") from err
        except ClientDisconnect as err:
            raise _RefusedError(400, "the request ended early") from err

    def _passed_back(
        self,
        answer: httpx.Response,
        request: Request,
        key: bytes | None,
        sizes: _Sizes,
        place: ExitStack,
    ) -> Response:
        headers = [
            (name, value)
            for name, value in answer.headers.raw
            if name.lower().decode("latin-1") not in _NOT_RETURNED
        ]
        sizes.down = sum(len(name) + len(value) + 4 for name, value in headers)
        told = request.headers.get(STATUS_HEADER, "")

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in answer.aiter_raw():
                sizes.down += len(piece)
                yield piece

        async def end() -> None:
            place.close()
            self.traffic.add(
                key,
                up=sizes.up,
                down=sizes.down,
                flower_version=_short(
                    request.headers.get(FLWR_PACKAGE_VERSION_METADATA_KEY, "")
                ),
                status=told if len(told) <= LONGEST_STATUS else "",
            )
            await answer.aclose()

        response = _Passed(pieces(), answer.status_code)
        response.raw_headers = headers
        response.end = end
        return response

    async def _enrol(self, request: Request) -> Response:
        sizes = _Sizes()
        try:
            with self._among_few(None):
                data = b""
                async for piece in _body(request, sizes, LARGEST_ENROLMENT):
                    data += piece
                asked = read_request(data)
                device = await run_in_threadpool(self.enrol, asked)
        except (_RefusedError, ClientDisconnect, RequestError) as err:
            status = err.status if isinstance(err, _RefusedError) else 400
            self.traffic.answered(status)
            return JSONResponse({"error": str(err)}, status)
        except FleetError as err:
            where = request.client.host if request.client else "?"
            _LOG.warning("%s at %s was not let in: %s", asked.name, where, err)
            self.traffic.answered(403)
            return JSONResponse({"error": str(err)}, 403)
        _LOG.info("%s joined", device.name)
        self.traffic.answered(200)
        return JSONResponse(
            {
                "name": device.name,
                "partition-id": device.partition_id,
                "num-partitions": device.num_partitions,
            }
        )

    async def _health(self, _: Request) -> Response:
        try:
            answer = await self._open.get(f"{self.upstream}{HEALTH}")
        except httpx.HTTPError:
            return Response(status_code=503)
        return Response(status_code=200 if answer.is_success else 503)


class _Passed(StreamingResponse):
    """An answer that is passed on; `end` is awaited however that ends."""

    end: Callable[[], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.end()


@dataclass
class _Sizes:
    up: int = 0
    down: int = 0


async def _body(
    request: Request, sizes: _Sizes, limit: int, *, known: bool = False
) -> AsyncIterator[bytes]:
    pieces = aiter(request.stream())
    clock = asyncio.get_running_loop().time
    end = None if known else clock() + STRANGERS_SECONDS
    taken = 0
    while True:
        try:
            async with asyncio.timeout_at(end or clock() + STALLED_SECONDS):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _RefusedError(408, "the request stopped coming") from None
        taken += len(piece)
        sizes.up += len(piece)
        if taken > limit:
            raise _RefusedError(413, f"the request is larger than {limit} bytes")
        yield piece


def _claimed_key(request: Request) -> bytes | None:
    try:
        return base64.b64decode(request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER])
    except (KeyError, binascii.Error, ValueError):
        return None


def _head_bytes(request: Request) -> int:
    line = len(request.method) + len(request.url.path) + len("  HTTP/1.1\r\n\r\n")
    return line + sum(len(name) + len(value) + 4 for name, value in request.headers.raw)


def _short(text: str) -> str:
    return json.dumps(text)[1:-1][:40]
