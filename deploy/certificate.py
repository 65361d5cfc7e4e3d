"""What a server's certificate says, valid or not."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from cryptography import x509

from .pki import names_of


@dataclass(frozen=True)
class Certificate:
    """Names and times of a certificate.

    Parameters
    ----------
    names : tuple of str
        Host names and addresses that it is for.
    issuer : str
        Who signed it.
    not_before, not_after : datetime
        When it begins and ends, in UTC.
    """

    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, der: bytes) -> Certificate:
        """Read one.

        Raises
        ------
        ValueError
            If it is none.
        """
        read = x509.load_der_x509_certificate(der)
        return cls(
            tuple(names_of(read)),
            read.issuer.rfc4514_string(),
            read.not_valid_before_utc,
            read.not_valid_after_utc,
        )

    def days_left(self, now: float) -> float:
        """Return the days from `now`, in seconds since 1970, to its end."""
        return (self.not_after.timestamp() - now) / 86400


def fetch_certificate(host: str, port: int, *, timeout: float) -> Certificate | None:
    """Return the certificate that a server shows, without judging it.

    `None` if nothing that speaks TLS answers. Only for telling what is wrong with a
    server that was refused already: nothing is sent.
    """
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as plain,
            _unverified().wrap_socket(plain, server_hostname=host) as secure,
        ):
            return Certificate.of(secure.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None


def fetch_skew(host: str, port: int, *, timeout: float) -> float | None:
    """Return how many seconds this clock is ahead of a server that is not trusted.

    Only for telling whether a certificate is out of date or this clock is; nothing but
    ``HEAD /`` is sent. `None` if the server does not tell.
    """
    connection = http.client.HTTPSConnection(
        host, port, timeout=timeout, context=_unverified()
    )
    try:
        connection.request("HEAD", "/")
        answer = connection.getresponse()
        return skew_of(answer.headers.get("Date"), time.time())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def skew_of(date: str | None, now: float) -> float | None:
    """Return the seconds that `now` is ahead of an HTTP date, which is cut to seconds.

    `None` if there is no date or it cannot be read.
    """
    try:
        told = parsedate_to_datetime(date or "")
    except (ValueError, IndexError, OverflowError):
        return None
    if told.tzinfo is None:
        told = told.replace(tzinfo=UTC)
    return now - told.timestamp() - 0.5


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
