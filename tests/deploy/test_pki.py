from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest

from flwr_caesar.deploy.gate_server import Certificate
from flwr_caesar.deploy.pki import (
    CertificateError,
    Identity,
    days_left,
    fingerprint,
    issue,
    load_certificate,
    make_authority,
    names_of,
)
from flwr_caesar.deploy.server import make_server, renew
from flwr_caesar.deploy.server_folder import ServerFolder, ServerSettings

NAMES = ["fleet.example", "10.0.0.7", "2001:db8::7", "localhost", "127.0.0.1"]


def test_a_certificate_is_for_every_name_and_signed_by_its_authority() -> None:
    authority = make_authority()
    server = issue(authority, NAMES, days=397)
    assert names_of(server.certificate) == [
        *("fleet.example", "localhost", "10.0.0.7", "2001:db8::7", "127.0.0.1")
    ]
    server.certificate.verify_directly_issued_by(authority.certificate)
    assert 396 < days_left(server.certificate) <= 397
    # A board whose clock starts a few hours early trusts it too.
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(hours=20)
    assert server.certificate.not_valid_before_utc < earlier


def test_two_fleets_have_two_authorities() -> None:
    one, other = make_authority(), make_authority()
    assert one.certificate.subject != other.certificate.subject
    assert fingerprint(one.certificate) != fingerprint(other.certificate)


def test_a_certificate_never_outlives_its_authority() -> None:
    authority = make_authority(days=30)
    server = issue(authority, NAMES, days=397)
    assert (
        server.certificate.not_valid_after_utc
        <= authority.certificate.not_valid_after_utc
    )


def test_an_expired_authority_signs_nothing() -> None:
    with pytest.raises(CertificateError, match="has expired"):
        issue(make_authority(days=0), NAMES, days=10)


@pytest.mark.parametrize("name", ["", "https://fleet.example", "fleet.example:8443"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(CertificateError, match="DNS name"):
        issue(make_authority(), [name], days=10)


def test_a_key_of_another_certificate_is_refused() -> None:
    one, other = make_authority(), make_authority()
    with pytest.raises(CertificateError, match="another private key"):
        Identity.load(one.certificate_pem, other.key_pem)
    assert Identity.load(one.certificate_pem, one.key_pem).certificate == (
        one.certificate
    )


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    made = ServerFolder(tmp_path / "server")
    make_server(made, ServerSettings(addresses=("localhost",)))
    return made


def handshake(context: ssl.SSLContext, folder: ServerFolder) -> bytes:
    """Return the certificate that a client gets which trusts the fleet's authority."""
    trusting = ssl.create_default_context(cafile=str(folder.authority_certificate))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            accepted, _ = listening.accept()
            with accepted, context.wrap_socket(accepted, server_side=True):
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            socket.create_connection(listening.getsockname()) as plain,
            trusting.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
        thread.join()
    assert shown is not None
    return shown


def test_a_renewed_certificate_is_served_by_the_same_context(
    folder: ServerFolder,
) -> None:
    certificate = Certificate(folder.gate_identity)
    before = handshake(certificate.context, folder)
    assert not certificate.follow()
    renew(folder, days=30)
    assert certificate.follow()
    assert handshake(certificate.context, folder) != before
    assert 29 < certificate.days_left <= 30


def test_a_bad_certificate_file_leaves_the_old_one_served(
    folder: ServerFolder, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = Certificate(folder.gate_identity)
    before = handshake(certificate.context, folder)
    good = folder.gate_identity.read_bytes()
    key = good[: good.index(b"-----BEGIN CERT")]
    for bad in (b"", good[:200], key + make_authority().certificate_pem):
        folder.gate_identity.write_bytes(bad)
        assert not certificate.follow()
        assert "the old one goes on" in caplog.text
        caplog.clear()
        assert handshake(certificate.context, folder) == before
    folder.gate_identity.write_bytes(good)
    assert certificate.follow()


def test_secrets_are_their_owners_only(folder: ServerFolder) -> None:
    for secret in (
        folder.authority_key,
        folder.gate_identity,
        folder.superlink_key,
        folder.fleet_file,
    ):
        assert secret.stat().st_mode & 0o077 == 0, secret
    assert folder.authority_certificate.stat().st_mode & 0o044 == 0o044


def test_making_a_server_again_keeps_what_devices_trust(folder: ServerFolder) -> None:
    authority = folder.authority_certificate.read_bytes()
    gate = folder.gate_identity.read_bytes()
    assert not make_server(folder, ServerSettings(addresses=("localhost",)))
    assert folder.gate_identity.read_bytes() == gate
    assert not make_server(folder, ServerSettings(addresses=("moved", "localhost")))
    assert folder.authority_certificate.read_bytes() == authority
    assert "moved" in names_of(load_certificate(_leaf(folder)))


def _leaf(folder: ServerFolder) -> bytes:
    text = folder.gate_identity.read_bytes()
    return text[text.index(b"-----BEGIN CERT") :]
