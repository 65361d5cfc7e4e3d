"""What a device says when it asks to be let in, signed with its key.

The signature shows that the device holds the private key and that nobody changed the
request on the way, also if it travels as a file.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from flwr_caesar import __version__

from .device_key import DeviceKeyError, load_public, pem_of, public_pem, sign, signed
from .node_file import NAME

LARGEST_BYTES = 16_384
_KIND = "flwr-caesar enrolment request 1"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[A-Za-z0-9.+!-]{1,64}")


class RequestError(ValueError):
    """A request is damaged or none; the message says so."""


@dataclass(frozen=True, kw_only=True)
class EnrolmentRequest:
    """A request whose signature is right.

    Parameters
    ----------
    name : str
        What the device is to be called.
    public_key : bytes
        Its public key, PEM.
    machine : str or None
        See `flwr_caesar.deploy.machine.machine_digest`.
    token : bytes or None
        Of its ticket; None if a person is to approve it.
    version : str
        Of flwr-caesar on the device.
    """

    name: str
    public_key: bytes
    machine: str | None
    token: bytes | None
    version: str


def make_request(
    key: ec.EllipticCurvePrivateKey,
    *,
    name: str,
    machine: str | None,
    token: bytes | None,
) -> str:
    """Return a signed request as JSON.

    Parameters
    ----------
    key : EllipticCurvePrivateKey
        The device's.
    name, machine, token
        See `EnrolmentRequest`.
    """
    body = {
        "kind": _KIND,
        "name": name,
        "public-key": public_pem(key).decode(),
        "machine": machine,
        "token": None if token is None else base64.b64encode(token).decode(),
        "version": __version__,
    }
    signature = base64.b64encode(sign(key, _canonical(body))).decode()
    return json.dumps({**body, "signature": signature}, indent=2) + "\n"


def read_request(data: bytes) -> EnrolmentRequest:
    """Read and check a request.

    Raises
    ------
    RequestError
        If it is no request, damaged, or not signed by the key that it names.
    """
    if len(data) > LARGEST_BYTES:
        raise RequestError(f"a request has at most {LARGEST_BYTES} bytes")
    try:
        body = json.loads(data)
        if not isinstance(body, dict) or body.get("kind") != _KIND:
            raise RequestError("this is no enrolment request of flwr-caesar")
        signature = base64.b64decode(body.pop("signature"), validate=True)
        request = _checked(body)
    except RequestError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise RequestError(f"the request cannot be read: {type(err).__name__}") from err
    if not signed(load_public(request.public_key), _canonical(body), signature):
        raise RequestError("the request was changed after the device had signed it")
    return request


def _checked(body: Mapping[str, Any]) -> EnrolmentRequest:
    name, machine, version = body["name"], body["machine"], body["version"]
    if not NAME.fullmatch(name):
        raise RequestError(f"the request has the name {name!r:.80}, which is none")
    if machine is not None and not _DIGEST.fullmatch(machine):
        raise RequestError("the request's machine is no digest")
    if not _VERSION.fullmatch(version):
        raise RequestError("the request's version is none")
    token = body["token"]
    try:
        key = load_public(body["public-key"].encode("ascii"))
    except DeviceKeyError as err:
        raise RequestError(str(err)) from err
    # P-256 is what a phone's safe hardware has.
    if not isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
        raise RequestError("the request's key is not on the curve P-256 or P-384")
    return EnrolmentRequest(
        name=name,
        # Flower compares keys by these bytes, so there is one form of each.
        public_key=pem_of(key),
        machine=machine,
        token=None if token is None else base64.b64decode(token, validate=True),
        version=version,
    )


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
