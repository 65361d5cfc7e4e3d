"""The server's folder: all that makes a fleet, and all that a backup has to keep.

What serves devices writes to `ServerFolder.state` only, so that it cannot put another
authority in the place of the fleet's.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from cryptography import x509

from .pki import Identity, load_certificate
from .toml_table import NodeFileError, Table
from .whole_file import write_whole

DEFAULT_FOLDER = Path("/var/lib/flwr-caesar")
SETTINGS = "server.toml"
LOOPBACK = "127.0.0.1"
CONNECTION = "fleet"
MIB = 1 << 20


class ServerFolderError(ValueError):
    """The folder cannot be used; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What ``server.toml`` says.

    Parameters
    ----------
    addresses : tuple of str
        DNS names and IP addresses by which devices dial the server; tickets carry the
        first one.
    port : int
        Of the gate, for devices.
    superlink_port : int
        Of Flower's SuperLink, on loopback.
    metrics_port : int
        Of the gate's metrics, on loopback.
    plain_port : int
        Of loopback: there the gate serves without TLS, behind a web server that has
        it, and not at `port`; 0 if there is none.
    largest_body : int
        Bytes of the largest request that a device may send.

    Raises
    ------
    ServerFolderError
        If a port is none, or two are the same.
    """

    addresses: tuple[str, ...]
    port: int = 8443
    superlink_port: int = 8000
    metrics_port: int = 9465
    plain_port: int = 0
    # Flower cuts arrays into pieces of 20 MiB.
    largest_body: int = 64 * MIB

    def __post_init__(self) -> None:
        ports = [self.port, self.superlink_port, self.metrics_port]
        ports += [self.plain_port] if self.plain_port else []
        for port in ports:
            if not 1 <= port <= 65535:
                raise ServerFolderError(f"{port} is no port: write one of 1 to 65535")
        if len(set(ports)) < len(ports):
            raise ServerFolderError(
                f"two of the ports {', '.join(map(str, ports))} are the same"
            )

    @property
    def address(self) -> str:
        """``host:port`` that devices dial."""
        host = self.addresses[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def superlink(self) -> str:
        """``host:port`` of the SuperLink."""
        return f"{LOOPBACK}:{self.superlink_port}"

    @classmethod
    def load(cls, path: Path) -> ServerSettings:
        """Read ``server.toml``.

        Raises
        ------
        ServerFolderError
            If it is missing or has something that cannot be right.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ServerFolderError(
                f"{path} does not exist: `flwr-caesar deploy server --address NAME` "
                "makes a server"
            ) from None
        except PermissionError:
            raise ServerFolderError(f"{path} is not yours to read: use sudo") from None
        except (OSError, ValueError) as err:
            raise ServerFolderError(f"{path} cannot be read: {err}") from err
        try:
            return cls._of(document)
        except NodeFileError as err:
            raise ServerFolderError(f"{path}: {err}") from err

    @classmethod
    def _of(cls, document: dict[str, object]) -> ServerSettings:
        top = Table("", document)
        server = top.table("server")
        defaults = cls(addresses=("",))
        port = 'write a port, such as "8443"'
        settings = cls(
            addresses=server.texts("addresses", 'write ["fleet.example"]'),
            port=server.integer("port", port, default=defaults.port),
            superlink_port=server.integer(
                "superlink-port", port, default=defaults.superlink_port
            ),
            metrics_port=server.integer(
                "metrics-port", port, default=defaults.metrics_port
            ),
            plain_port=server.integer("plain-port", port, default=defaults.plain_port),
            largest_body=server.integer(
                "largest-body", "write bytes", default=defaults.largest_body
            ),
        )
        server.end()
        top.end()
        if not settings.addresses:
            raise NodeFileError('[server] addresses is empty; write ["fleet.example"]')
        return settings

    def save(self, path: Path) -> None:
        """Write ``server.toml``."""
        table = {
            "addresses": list(self.addresses),
            "port": self.port,
            "superlink-port": self.superlink_port,
            "metrics-port": self.metrics_port,
            "plain-port": self.plain_port,
            "largest-body": self.largest_body,
        }
        write_whole(path, tomli_w.dumps({"server": table}))


@dataclass(frozen=True)
class ServerFolder:
    """Where everything is.

    Parameters
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def settings_file(self) -> Path:
        """Addresses, ports and limits."""
        return self.path / SETTINGS

    @property
    def settings(self) -> ServerSettings:
        """What `settings_file` says now."""
        return ServerSettings.load(self.settings_file)

    @property
    def authority_certificate(self) -> Path:
        """Of the fleet's authority; anyone may have it."""
        return self.path / "ca.crt"

    @property
    def authority_key(self) -> Path:
        """Of the authority; only who renews certificates needs it."""
        return self.path / "ca.key"

    @property
    def gate_identity(self) -> Path:
        """The gate's key, its certificate and the authority's, in one file."""
        return self.path / "gate.pem"

    @property
    def superlink_certificate(self) -> Path:
        """Of the SuperLink, for loopback only."""
        return self.path / "superlink.crt"

    @property
    def superlink_key(self) -> Path:
        """Of the SuperLink."""
        return self.path / "superlink.key"

    @property
    def state(self) -> Path:
        """What the SuperLink and the gate write."""
        return self.path / "state"

    @property
    def fleet_file(self) -> Path:
        """Devices and tickets; see `flwr_caesar.deploy.fleet`."""
        return self.state / "fleet.db"

    @property
    def database(self) -> Path:
        """Flower's own: runs, messages, registered keys."""
        return self.state / "superlink.db"

    @property
    def flower_home(self) -> Path:
        """Flower's configuration and bundles; `CONNECTION` in it is this server."""
        return self.state / ".flwr"

    def authority(self) -> Identity:
        """Read the authority with its key.

        Raises
        ------
        ServerFolderError
            If this user may not, or it is missing.
        """
        try:
            return Identity.load(
                self.authority_certificate.read_bytes(), self.authority_key.read_bytes()
            )
        except PermissionError:
            raise ServerFolderError(
                f"{self.authority_key} is not yours to read: use sudo"
            ) from None
        except FileNotFoundError as err:
            raise ServerFolderError(
                f"{err.filename} is missing: restore it from a backup"
            ) from None

    def gate_certificate(self) -> x509.Certificate:
        """Return the gate's certificate.

        Raises
        ------
        ServerFolderError
            If this user may not, or it is missing.
        """
        try:
            return load_certificate(self.gate_identity.read_bytes())
        except PermissionError:
            raise ServerFolderError(
                f"{self.gate_identity} is not yours to read: use sudo"
            ) from None
        except FileNotFoundError:
            raise ServerFolderError(
                f"{self.gate_identity} is missing: `flwr-caesar deploy renew` makes one"
            ) from None

    def authority_pem(self) -> bytes:
        """Return the authority's certificate, checked."""
        pem = self.authority_certificate.read_bytes()
        load_certificate(pem)
        return pem


def default_folder() -> Path:
    """Return where the server's folder is for this user.

    ``FLWR_CAESAR_SERVER`` names another one.
    """
    named = os.environ.get("FLWR_CAESAR_SERVER")
    if named:
        return Path(named)
    if os.geteuid() == 0 or (DEFAULT_FOLDER / SETTINGS).exists():
        return DEFAULT_FOLDER
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "flwr-caesar"


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Let a command take ``--folder``, the server's."""
    parser.add_argument(
        "--folder",
        type=Path,
        default=default_folder(),
        help="the server's (%(default)s)",
    )
