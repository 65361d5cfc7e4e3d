"""The fleet's certificate authority, and the certificates that it signs."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
# Boards without a clock of their own start with yesterday's time.
_BACKDATED = dt.timedelta(days=1)


class CertificateError(ValueError):
    """A certificate or key cannot be used; the message says why."""


@dataclass(frozen=True)
class Identity:
    """A certificate with its private key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        """The private key, unencrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def certificate_pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Identity:
        """Read both from PEM.

        Raises
        ------
        CertificateError
            If one cannot be read, or they do not belong together.
        """
        try:
            private = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as err:
            raise CertificateError(f"the private key cannot be read: {err}") from err
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise CertificateError("the private key is not one of an elliptic curve")
        public = load_certificate(certificate)
        if public.public_key() != private.public_key():
            raise CertificateError("the certificate belongs to another private key")
        return cls(private, public)


def load_certificate(pem: bytes) -> x509.Certificate:
    """Read the first certificate of a PEM file.

    Raises
    ------
    CertificateError
        If there is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as err:
        raise CertificateError(f"the certificate cannot be read: {err}") from err


def make_authority(*, days: int = AUTHORITY_DAYS) -> Identity:
    """Make the authority of a new fleet.

    Parameters
    ----------
    days : int
        How long its certificate is valid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    # Two fleets' authorities are to be told apart by their names.
    name = _name(f"flwr-caesar fleet {x509.random_serial_number() & 0xFFFFFFFF:08x}")
    builder = _builder(name, name, key.public_key(), days).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return Identity(key, builder.sign(key, hashes.SHA256()))


def issue(authority: Identity, names: Sequence[str], *, days: int) -> Identity:
    """Make a new key for a server and sign a certificate for it.

    Parameters
    ----------
    authority : Identity
        Who signs.
    names : sequence of str
        Every DNS name and IP address by which anyone dials the server.
    days : int
        How long it is valid, at most as long as the authority's.

    Raises
    ------
    CertificateError
        If a name is none.
    """
    if not names:
        raise CertificateError("a certificate needs at least one name or address")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    if days_left(issuer) < 1:
        raise CertificateError(
            "the fleet's authority has expired: a new one is needed, and every device "
            "joins again"
        )
    builder = _builder(
        _name("flwr-caesar server"),
        issuer.subject,
        key.public_key(),
        min(days, int(days_left(issuer))),
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority.key.public_key()
            ),
            False,
        ),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Identity(key, builder.sign(authority.key, hashes.SHA256()))


def days_left(certificate: x509.Certificate) -> float:
    """Return for how many days a certificate is still valid; negative if it is not."""
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    return left.total_seconds() / 86_400


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names and IP addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return []
    dns = found.value.get_values_for_type(x509.DNSName)
    return [*dns, *map(str, found.value.get_values_for_type(x509.IPAddress))]


def fingerprint(certificate: x509.Certificate) -> str:
    """Return a certificate's SHA-256 fingerprint, in hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        ascii_name = name.encode("idna").decode("ascii")
    except UnicodeError as err:
        raise CertificateError(f"{name!r:.80} is no DNS name: {err}") from err
    if not ascii_name or any(c in ascii_name for c in " /:@,"):
        raise CertificateError(
            f"{name!r:.80} is no DNS name or IP address: write it without scheme and "
            'port, such as "fleet.example" or "10.0.0.7"'
        )
    return x509.DNSName(ascii_name)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
