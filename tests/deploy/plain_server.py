"""Servers on loopback that are not what a device looks for."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from flwr_caesar.deploy.pki import Identity

HOST = "127.0.0.1"


def write_identity(identity: Identity, folder: Path) -> None:
    """Write a certificate and its key as a server reads them."""
    (folder / "server.crt").write_bytes(identity.certificate_pem)
    (folder / "server.key").write_bytes(identity.key_pem)


def redated(
    authority: Identity, identity: Identity, begin: datetime, end: datetime
) -> Identity:
    """Return the same certificate for another time."""
    old = identity.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return Identity(identity.key, builder.sign(authority.key, hashes.SHA256()))


class PlainServer:
    """A TLS server with any certificate that answers every request with a status."""

    def __init__(
        self, identity: Identity | None, folder: Path, *, status: int = 404
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def parse_request(self) -> bool:
                known = super().parse_request()
                self.command = "POST" if known else ""
                return known

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.port = self._server.server_address[1]
        if identity is not None:
            write_identity(identity, folder)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "server.crt", folder / "server.key")
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True
            )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> PlainServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class Silent:
    """A port that takes connections and never says a word."""

    def __enter__(self) -> Silent:
        self._socket = socket.socket()
        self._socket.bind((HOST, 0))
        self._socket.listen()
        self.port = int(self._socket.getsockname()[1])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
