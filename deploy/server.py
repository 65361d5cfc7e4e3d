"""Making a server's folder, and renewing its certificate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from flwr_caesar.runner.superlink import executable, flower_environment

from .fleet import Fleet
from .pki import AUTHORITY_DAYS, SERVER_DAYS, Identity, issue, make_authority, names_of
from .server_folder import CONNECTION, LOOPBACK, ServerFolder, ServerSettings
from .whole_file import PRIVATE, write_whole

_LOOPBACK_NAMES = ("localhost", LOOPBACK, "::1")


def make_server(folder: ServerFolder, settings: ServerSettings) -> bool:
    """Make what is missing of a server's folder; what is there stays.

    With other addresses than before, the gate gets a certificate for these.

    Parameters
    ----------
    folder : ServerFolder
        Made if it is not there.
    settings : ServerSettings
        Of the server.

    Returns
    -------
    bool
        Whether the fleet's authority is new.
    """
    # Others may pass through, to the authority's certificate.
    folder.path.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = not folder.authority_certificate.exists()
    if new:
        authority = make_authority()
        write_whole(folder.authority_key, authority.key_pem, mode=PRIVATE)
        write_whole(folder.authority_certificate, authority.certificate_pem)
    if not folder.superlink_certificate.exists():
        # It is for loopback only, and the SuperLink takes a new one only by a restart.
        superlink = issue(folder.authority(), _LOOPBACK_NAMES, days=AUTHORITY_DAYS)
        write_whole(folder.superlink_key, superlink.key_pem, mode=PRIVATE)
        write_whole(folder.superlink_certificate, superlink.certificate_pem)
    if not _is_for(folder, settings):
        _renew(folder, settings, SERVER_DAYS)
    settings.save(folder.settings_file)
    if not folder.fleet_file.exists():
        Fleet.create(folder.fleet_file)
    folder.flower_home.mkdir(exist_ok=True)
    write_whole(folder.flower_home / "config.toml", connection(folder))
    return new


def renew(folder: ServerFolder, *, days: int = SERVER_DAYS) -> Identity:
    """Give the gate a new key and certificate; a running gate takes it by itself.

    Parameters
    ----------
    folder : ServerFolder
        Whose; this user needs to read its authority's key.
    days : int
        How long the certificate is valid.
    """
    return _renew(folder, folder.settings, days)


def _renew(folder: ServerFolder, settings: ServerSettings, days: int) -> Identity:
    authority = folder.authority()
    identity = issue(authority, gate_names(settings.addresses), days=days)
    write_whole(
        folder.gate_identity,
        identity.key_pem + identity.certificate_pem + authority.certificate_pem,
        mode=PRIVATE,
    )
    return identity


def _is_for(folder: ServerFolder, settings: ServerSettings) -> bool:
    """Return whether the gate has a certificate for all names of the settings."""
    if not folder.gate_identity.exists():
        return False
    names = names_of(folder.gate_certificate())
    return set(names) == set(gate_names(settings.addresses))


def gate_names(addresses: Sequence[str]) -> list[str]:
    """Return all names of the gate's certificate: those dialled, and loopback's."""
    return list(dict.fromkeys([*addresses, *_LOOPBACK_NAMES]))


def connection(folder: ServerFolder) -> str:
    """Return the lines of a Flower configuration that name this server."""
    return (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "{folder.settings.superlink}"\n'
        f'root-certificates = "{folder.authority_certificate.absolute()}"\n'
    )


def superlink_command(folder: ServerFolder) -> list[str]:
    """Return what starts Flower's SuperLink of a folder."""
    settings = folder.settings
    return [
        executable("flower-superlink"),
        *("--ssl-ca-certfile", str(folder.authority_certificate)),
        *("--ssl-certfile", str(folder.superlink_certificate)),
        *("--ssl-keyfile", str(folder.superlink_key)),
        "--enable-supernode-auth",
        *("--host", LOOPBACK, "--port", str(settings.superlink_port)),
        *("--database", str(folder.database)),
        "--disable-runtime-dependency-installation",
    ]


def superlink_environment(folder: ServerFolder) -> dict[str, str]:
    """Return the environment of the SuperLink and of what it starts."""
    return {**flower_environment(), "FLWR_HOME": str(folder.flower_home.absolute())}


def run_superlink(folder: ServerFolder) -> None:
    """Become Flower's SuperLink; does not return."""
    command = superlink_command(folder)
    os.chdir(folder.state)
    os.execve(Path(command[0]), command, superlink_environment(folder))
