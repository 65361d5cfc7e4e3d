"""Asking the server who it takes this device for, without changing anything there.

The question is Flower's own ``ActivateNode``, signed with the device's key, with a
heartbeat interval that Flower refuses. It checks the time of the signature first (401),
then looks the key up (2004: unknown), then refuses the interval (2003: known) before it
touches the node: see ``activate_node`` in Flower 1.41's ``fleet_handlers``. So the
answer tells clock and key apart, and the question needs no node id.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from .certificate import Certificate, fetch_certificate, fetch_skew, skew_of
from .failures import Cause, Failure, failure_of
from .flower import (
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_TOLERANCE,
    ActivateNodeRequest,
    ApiErrorCode,
    FleetHttpClient,
    FlowerError,
    NodeAuthHttpInterceptor,
    ProtobufCall,
    ProtobufRequestContext,
    public_key_to_bytes,
)

TIMEOUT = 10.0
# Seconds that a device may be ahead of and behind the server.
MOST_AHEAD = float(SYSTEM_TIME_TOLERANCE)
MOST_BEHIND = float(TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)


_REFUSED_INTERVAL = 0.0


class Standing(StrEnum):
    """What a server takes a device for."""

    ENROLLED = "enrolled"
    UNKNOWN_KEY = "unknown key"
    WRONG_CLOCK = "wrong clock"
    REFUSED = "refused"
    NOT_FLOWER = "not Flower"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a probe found.

    Parameters
    ----------
    standing : Standing
        What the server takes the device for.
    skew : float, optional
        Seconds that the device's clock is ahead of the server's, within half a second;
        `None` if the server did not tell its time.
    failure : Failure, optional
        Why the server was not reached, if it was not.
    certificate : Certificate, optional
        That the server showed, valid or not.
    status : int
        Of the HTTP answer; 0 without one.
    seconds : float
        From the question to the answer.
    """

    standing: Standing
    skew: float | None = None
    failure: Failure | None = None
    certificate: Certificate | None = None
    status: int = 0
    seconds: float = 0.0


def probe(
    host: str,
    port: int,
    *,
    ca: Path,
    key: ec.EllipticCurvePrivateKey,
    headers: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> Probed:
    """Ask the server once.

    Parameters
    ----------
    host, port
        Of the server.
    ca : Path
        Certificate of the authority that signed the server's.
    key : ec.EllipticCurvePrivateKey
        Of the device.
    headers : mapping, optional
        To send along.
    timeout : float
        Seconds for each step of the exchange.

    Returns
    -------
    Probed
        Also for every way in which a server cannot be reached.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except OSError as err:
        failure = Failure(Cause.CA_FILE, f"{ca}: {err}")
        return Probed(standing=Standing.UNREACHABLE, failure=failure)
    exchange = _Exchange(headers or {})
    sign = NodeAuthHttpInterceptor(key, key.public_key())
    # Flower's own path from here on, so that what it meets is met here.
    try:
        with FleetHttpClient(
            f"https://{f'[{host}]' if ':' in host else host}:{port}",
            interceptors=[exchange, sign],
            verify=context,
            timeout=timeout,
        ) as client:
            client.ActivateNode(
                ActivateNodeRequest(
                    public_key=public_key_to_bytes(key.public_key()),
                    heartbeat_interval=_REFUSED_INTERVAL,
                )
            )
    except httpx.HTTPStatusError as err:
        return exchange.probed(_standing(err.response, exchange.skew))
    except (httpx.HTTPError, OSError) as err:
        return _unreachable(host, port, failure_of(err), timeout)
    except ValueError:
        pass
    # Nobody who speaks Flower's protocol takes this interval.
    return exchange.probed(Standing.NOT_FLOWER)


_STANDINGS: dict[int, Standing] = {
    ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL: Standing.ENROLLED,
    ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED: Standing.UNKNOWN_KEY,
}


@dataclass
class _Exchange:
    """Sends more headers along, and keeps what the answer told beside its body."""

    headers: Mapping[str, str]
    skew: float | None = None
    certificate: Certificate | None = None
    status: int = 0
    seconds: float = 0.0
    _start: float = field(default_factory=time.monotonic)

    def intercept(
        self, context: ProtobufRequestContext, call_next: ProtobufCall
    ) -> httpx.Response:
        context.request.headers.update(self.headers)
        self._start = time.monotonic()
        response = call_next(context)
        self.seconds = time.monotonic() - self._start
        self.status = response.status_code
        self.skew = skew_of(response.headers.get("Date"), time.time())
        self.certificate = _shown(response)
        return response

    def probed(self, standing: Standing) -> Probed:
        return Probed(
            standing=standing,
            skew=self.skew,
            certificate=self.certificate,
            status=self.status,
            seconds=self.seconds,
        )


def _shown(response: httpx.Response) -> Certificate | None:
    stream = response.extensions.get("network_stream")
    secure = stream.get_extra_info("ssl_object") if stream is not None else None
    shown = secure.getpeercert(True) if secure is not None else None
    return Certificate.of(shown) if shown else None


def _standing(response: httpx.Response, skew: float | None) -> Standing:
    if response.status_code == httpx.codes.UNAUTHORIZED:
        # Within a second and a half of the edge the clock may still be the reason.
        fits = skew is not None and -MOST_BEHIND + 1.5 < skew < MOST_AHEAD - 1.5
        return Standing.REFUSED if fits else Standing.WRONG_CLOCK
    error = FlowerError.from_json(response.text)
    return _STANDINGS.get(error.code if error else 0, Standing.NOT_FLOWER)


def _unreachable(host: str, port: int, failure: Failure, timeout: float) -> Probed:
    """Return a failure, with what an untrusted server shows where that explains it."""
    shown = {Cause.EXPIRED, Cause.NOT_YET_VALID, Cause.WRONG_NAME, Cause.UNKNOWN_CA}
    if failure.cause not in shown:
        return Probed(standing=Standing.UNREACHABLE, failure=failure)
    return Probed(
        standing=Standing.UNREACHABLE,
        failure=failure,
        certificate=fetch_certificate(host, port, timeout=timeout),
        skew=fetch_skew(host, port, timeout=timeout),
    )
