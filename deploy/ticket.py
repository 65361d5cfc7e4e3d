"""Tickets: one line of text that lets one device into the fleet, once.

A ticket holds the fleet's own authority, so that a device trusts that server from the
first byte on and needs no connection to be set up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from .node_file import split_address
from .pki import fingerprint
from .toml_table import NodeFileError

_PREFIX = "fct1."
_SCHEME = "flwr-caesar:"
_BYTE_ORDER_MARK = "\ufeff"
_CHECK_BYTES = 4
_TOKEN_BYTES = 16
_LONGEST = 8192


class TicketError(ValueError):
    """A ticket cannot be used; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What a device needs to know to join.

    Parameters
    ----------
    address : str
        ``host:port`` of the server's gate.
    name : str
        What the device will be called.
    partition_id, num_partitions : int
        Which part of the data it has, of how many.
    token : bytes
        The secret that the server takes once.
    expires_at : int
        Until when, in seconds since 1970.
    authority : x509.Certificate
        Of the fleet: who has to have signed the server's certificate.
    """

    address: str
    name: str
    partition_id: int
    num_partitions: int
    token: bytes
    expires_at: int
    authority: x509.Certificate

    @property
    def authority_pem(self) -> bytes:
        """The authority's certificate, as a file has it."""
        return self.authority.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, in hexadecimal digits."""
        return fingerprint(self.authority)

    def expired(self, now: float | None = None) -> bool:
        """Return whether its time is over, by this machine's clock."""
        return (time.time() if now is None else now) >= self.expires_at

    def to_text(self) -> str:
        """Return the line that is given to the device."""
        head = {
            "address": self.address,
            "name": self.name,
            "partition": [self.partition_id, self.num_partitions],
            "token": base64.b64encode(self.token).decode(),
            "expires": self.expires_at,
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        payload = len(text).to_bytes(2, "big") + text
        payload += self.authority.public_bytes(Encoding.DER)
        payload += hashlib.sha256(payload).digest()[:_CHECK_BYTES]
        return _PREFIX + base64.urlsafe_b64encode(payload).decode().rstrip("=")

    def to_uri(self) -> str:
        """Return the line as a URI, with which a phone opens the app that takes it."""
        return _SCHEME + self.to_text()

    @classmethod
    def from_text(cls, text: str) -> Ticket:
        """Read such a line or URI, as it is typed, pasted or scanned.

        Raises
        ------
        TicketError
            If it is damaged, or none.
        """
        text = "".join(text.replace(_BYTE_ORDER_MARK, "").split())
        if text[: len(_SCHEME)].lower() == _SCHEME:
            text = text[len(_SCHEME) :].removeprefix("//")
        if not text.startswith(_PREFIX) or len(text) > _LONGEST:
            raise TicketError(
                f"this is no ticket: one begins with {_PREFIX!r}; "
                "`flwr-caesar enrol ticket NAME` on the server makes one"
            )
        try:
            return cls._of(text.removeprefix(_PREFIX))
        except TicketError:
            raise
        except (ValueError, KeyError, TypeError, NodeFileError) as err:
            raise TicketError(f"the ticket cannot be read: {err}") from err

    @classmethod
    def _of(cls, encoded: str) -> Ticket:
        try:
            payload = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except binascii.Error:
            payload = b""
        payload, check = payload[:-_CHECK_BYTES], payload[-_CHECK_BYTES:]
        if hashlib.sha256(payload).digest()[:_CHECK_BYTES] != check:
            raise TicketError("the ticket is damaged: copy the whole line")
        end = 2 + int.from_bytes(payload[:2], "big")
        head: dict[str, Any] = json.loads(payload[2:end])
        partition, partitions = head["partition"]
        split_address(head["address"])
        return cls(
            address=head["address"],
            name=str(head["name"]),
            partition_id=int(partition),
            num_partitions=int(partitions),
            token=base64.b64decode(head["token"]),
            expires_at=int(head["expires"]),
            authority=x509.load_der_x509_certificate(payload[end:]),
        )


def new_token() -> bytes:
    """Return a secret that nobody can guess."""
    return secrets.token_bytes(_TOKEN_BYTES)


def token_digest(token: bytes) -> str:
    """Return what the server keeps of a token: enough to know it again."""
    return hashlib.sha256(token).hexdigest()
