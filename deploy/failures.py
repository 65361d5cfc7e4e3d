"""Why a server was not reached, told from the error that a client raised."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import httpx

# Of OpenSSL's X509_V_ERR_*: see verify_code of ssl.SSLCertVerificationError.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME = (62, 63, 64)
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
_LOST = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


class Cause(StrEnum):
    """Why a server was not reached."""

    CA_FILE = "CA file"
    DNS = "DNS"
    NO_ROUTE = "no route"
    REFUSED = "connection refused"
    TIMEOUT = "timeout"
    LOST = "connection lost"
    NOT_TLS = "no TLS"
    UNKNOWN_CA = "unknown CA"
    EXPIRED = "certificate expired"
    NOT_YET_VALID = "certificate not yet valid"
    WRONG_NAME = "certificate for another name"
    TLS = "TLS"
    PROXY = "proxy"
    OTHER = "other"


@dataclass(frozen=True)
class Failure:
    """Why a server was not reached.

    Parameters
    ----------
    cause : Cause
        Of which kind.
    detail : str
        In the words of whoever noticed.
    """

    cause: Cause
    detail: str = ""


def failure_of(error: BaseException) -> Failure:
    """Return why an HTTP client failed, from the chain of errors behind its own."""
    for link in _chain(error):
        cause = _cause(link)
        if cause is not None:
            return Failure(cause, str(link) or type(link).__name__)
    return Failure(Cause.OTHER, str(error) or type(error).__name__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors behind `error`, the first one first, and `error` last."""
    links = []
    step: BaseException | None = error
    while step is not None and step not in links:
        links.append(step)
        step = step.__cause__ or step.__context__
    return reversed(links)


def _cause(error: BaseException) -> Cause | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_NAME:
            return Cause.WRONG_NAME
        return {_EXPIRED: Cause.EXPIRED, _NOT_YET_VALID: Cause.NOT_YET_VALID}.get(
            error.verify_code, Cause.UNKNOWN_CA
        )
    if isinstance(error, ssl.SSLError):
        plain = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
        wrong = any(word in (error.reason or "") for word in plain)
        return Cause.NOT_TLS if wrong else Cause.TLS
    if isinstance(error, httpx.ProxyError):
        return Cause.PROXY
    if isinstance(error, socket.gaierror):
        return Cause.DNS
    if isinstance(error, (TimeoutError, httpx.TimeoutException)):
        return Cause.TIMEOUT
    if isinstance(error, ConnectionRefusedError):
        return Cause.REFUSED
    if isinstance(error, OSError) and error.errno in _NO_ROUTE:
        return Cause.NO_ROUTE
    if isinstance(error, OSError) and error.errno in _LOST:
        return Cause.LOST
    if isinstance(error, httpx.RemoteProtocolError):
        return Cause.LOST
    return None
