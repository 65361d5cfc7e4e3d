"""A device's key pair: made on the device, and only its public half leaves it."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .whole_file import PRIVATE, write_whole

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_ECDSA = ec.ECDSA(hashes.SHA256())


class DeviceKeyError(ValueError):
    """A key cannot be used; the message says why and what to do."""


def make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a key and write it, readable by its owner only.

    It is an ECDSA key on P-384 in the OpenSSH format without a passphrase: Flower's
    SuperNode reads no other format.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    write_whole(path, text, mode=PRIVATE)
    return key


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a device's private key.

    Raises
    ------
    DeviceKeyError
        If it cannot be read or is of a kind that Flower does not take.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise DeviceKeyError(f"the key {path} cannot be read: {err.strerror}") from err
    if not data.lstrip().startswith(_OPENSSH):
        raise DeviceKeyError(
            f"{path} is not in OpenSSH format, the only one that Flower reads; "
            f"`ssh-keygen -p -N '' -f {path}` converts a key"
        )
    try:
        key = serialization.load_ssh_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise DeviceKeyError(
            f"{path} cannot be read ({err}); Flower needs a key without a passphrase: "
            f"`ssh-keygen -p -N '' -f {path}` takes it off"
        ) from err
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        kind = type(key).__name__.removesuffix("PrivateKey").strip("_")
        raise DeviceKeyError(
            f"{path} is an {kind} key; Flower takes ECDSA only, such as `flwr-caesar "
            "join` makes"
        )
    return key


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half as Flower sends and keeps it."""
    return pem_of(key.public_key())


def pem_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key in the form in which Flower compares it."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def load_public(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Read a public key that a device sent.

    Raises
    ------
    DeviceKeyError
        If it is none that Flower takes.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError) as err:
        raise DeviceKeyError("the public key cannot be read") from err
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DeviceKeyError("the public key is no ECDSA key")
    return key


def sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign a message."""
    return key.sign(message, _ECDSA)


def signed(key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> bool:
    """Return whether the owner of a key signed a message."""
    try:
        key.verify(signature, message, _ECDSA)
    except InvalidSignature:
        return False
    return True
