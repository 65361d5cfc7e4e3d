"""All checks of a server: its certificates, its two processes, who can reach what."""

from __future__ import annotations

import ssl
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from cryptography import x509

from flwr_caesar.deploy.board import read_text
from flwr_caesar.deploy.fleet import Fleet, FleetError
from flwr_caesar.deploy.pki import (
    CertificateError,
    days_left,
    load_certificate,
    names_of,
)
from flwr_caesar.deploy.server_folder import (
    LOOPBACK,
    ServerFolder,
    ServerFolderError,
    ServerSettings,
)
from flwr_caesar.deploy.words import RENEW, SET_CLOCK, Advice, duration

from .finding import Finding, failure, ok, warning
from .link import SOON_DAYS
from .software import check_codec, check_commands, check_flower, check_python
from .storage import check_free

_SILENT_SECONDS = 600.0
_LISTENS = "0A"  # the kernel's number for a TCP socket that listens
_LOCAL = ("0100007F", "00000000000000000000000001000000")


def check_server(path: Path, root: Path = Path("/")) -> Iterator[Finding]:
    """Yield what is found on a server.

    Parameters
    ----------
    path : Path
        Its folder.
    root : Path
        Where the machine's file system begins.
    """
    yield from (check_python(), check_flower(), check_commands(), check_codec())
    folder = ServerFolder(path)
    try:
        settings = folder.settings
    except ServerFolderError as err:
        yield failure("server.toml", Advice(str(err), ""))
        return
    yield ok("server.toml", f"devices dial {settings.address}")
    yield check_free(path)
    yield check_synchronized(root)
    yield from check_secrets(folder)
    yield from check_certificate("CA", folder.authority_certificate, ())
    yield from check_certificate(
        "certificate", folder.gate_identity, settings.addresses
    )
    trusted = _trust(folder)
    if trusted is None:
        return
    yield check_superlink(settings, trusted)
    yield check_listening(settings, root)
    yield from check_gate(settings, trusted)
    yield from check_fleet(folder, time.time())


def check_synchronized(root: Path) -> Finding:
    """Whether this clock, which all devices have to follow, follows another."""
    daemons = ("run/systemd/timesync/synchronized", "run/chrony", "run/ntpd.pid")
    if any((root / sign).exists() for sign in daemons):
        return ok("clock", "synchronised")
    return warning(
        "clock",
        Advice(
            "No service that sets the clock was found; devices more than 5 s ahead of "
            "it are refused",
            SET_CLOCK,
        ),
    )


def check_secrets(folder: ServerFolder) -> Iterator[Finding]:
    """Yield keys that others on this machine can read."""
    secrets = (folder.authority_key, folder.gate_identity, folder.superlink_key)
    loose = []
    for file in secrets:
        try:
            if stat.S_IMODE(file.stat().st_mode) & 0o077:
                loose.append(str(file))
        except OSError:
            continue
    if loose:
        names = " ".join(loose)
        yield failure(
            "keys",
            Advice(f"Others on this machine can read {names}", f"chmod 600 {names}"),
        )
    else:
        yield ok("keys", "readable by their owners only")


def check_certificate(
    check: str, file: Path, addresses: Sequence[str]
) -> Iterator[Finding]:
    """Yield how long a certificate lasts, and whether it names all addresses."""
    try:
        shown: x509.Certificate = load_certificate(file.read_bytes())
    except (OSError, CertificateError) as err:
        yield failure(check, Advice(f"{file}: {err}", "restore it from a backup"))
        return
    days, names = days_left(shown), names_of(shown)
    fix = RENEW if addresses else "make a new server; every device joins it anew"
    missing = [name for name in addresses if name not in names]
    if days <= 0:
        yield failure(check, Advice(f"It expired {-days:.0f} days ago: {file}", fix))
    elif missing:
        problem = f"It is not for {', '.join(missing)}, only for {', '.join(names)}"
        yield failure(check, Advice(problem, RENEW))
    elif days < SOON_DAYS:
        yield warning(check, Advice(f"It expires in {days:.0f} days: {file}", fix))
    else:
        yield ok(check, f"valid for {days:.0f} days")


def check_superlink(settings: ServerSettings, trusted: ssl.SSLContext) -> Finding:
    """Whether the SuperLink answers on loopback."""
    status = _ask(f"https://{settings.superlink}/health", trusted)
    if status == 200:
        return ok("SuperLink", f"answers on {settings.superlink}")
    return failure(
        "SuperLink",
        Advice(
            f"The SuperLink does not answer on {settings.superlink} ({status})",
            "run: systemctl restart flwr-caesar-superlink; "
            "journalctl -u flwr-caesar-superlink says why it ended",
        ),
    )


def check_listening(settings: ServerSettings, root: Path) -> Finding:
    """Whether the SuperLink, which lets anyone control it, is on loopback only."""
    port = f"{settings.superlink_port:04X}"
    for table in ("tcp", "tcp6"):
        for line in read_text(root / "proc/net" / table).splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if number == port and fields[3] == _LISTENS and address not in _LOCAL:
                return failure(
                    "loopback",
                    Advice(
                        f"Port {settings.superlink_port} listens beyond loopback: "
                        "whoever reaches it controls the fleet",
                        "start the SuperLink with --host 127.0.0.1, as `flwr-caesar "
                        "deploy superlink` does",
                    ),
                )
    return ok("loopback", f"port {settings.superlink_port} is not open to others")


def check_gate(settings: ServerSettings, trusted: ssl.SSLContext) -> Iterator[Finding]:
    """Yield whether the gate answers, and keeps devices from the Control API."""
    gate = f"{LOOPBACK}:{settings.port}"
    # It is dialled on loopback, which its certificate need not name.
    anyhow = ssl.create_default_context()
    anyhow.check_hostname = False
    anyhow.verify_mode = ssl.CERT_NONE
    status = _ask(f"https://{gate}/health", anyhow)
    if not isinstance(status, int):
        yield failure(
            "gate",
            Advice(
                f"The gate does not answer on port {settings.port} ({status})",
                "run: systemctl restart flwr-caesar-gate; journalctl -u "
                "flwr-caesar-gate says why it ended",
            ),
        )
        return
    yield ok("gate", f"answers on port {settings.port}")
    control = _ask(f"https://{gate}/v1/control/list-nodes", anyhow)
    if control in (403, 404):
        yield ok("control API", "closed to devices")
    else:
        yield failure(
            "control API",
            Advice(
                f"Control API reachable through port {settings.port} (HTTP {control})",
                "let only /v1/fleet/, /enrol and /health through",
            ),
        )


def check_fleet(folder: ServerFolder, now: float) -> Iterator[Finding]:
    """Yield what the fleet file tells of the devices."""
    try:
        fleet = Fleet(folder.fleet_file)
        devices, seen = fleet.devices(), fleet.seen()
    except FleetError as err:
        yield failure("fleet", Advice(str(err), ""))
        return
    silent = [
        f"{device.name} ({duration(now - seen[device.public_key].last_seen)})"
        for device in devices
        if device.public_key in seen
        and now - seen[device.public_key].last_seen > _SILENT_SECONDS
    ]
    never = [device.name for device in devices if device.public_key not in seen]
    if silent or never:
        told = [f"silent: {', '.join(silent)}"] if silent else []
        told += [f"never seen: {', '.join(never)}"] if never else []
        fix = "on each of them: flwr-caesar doctor"
        yield warning("devices", Advice("; ".join(told), fix))
    else:
        yield ok("devices", f"{len(devices)} enrolled, none silent")


def _trust(folder: ServerFolder) -> ssl.SSLContext | None:
    try:
        return ssl.create_default_context(cafile=str(folder.authority_certificate))
    except OSError:
        return None


def _ask(url: str, trusted: ssl.SSLContext) -> int | str:
    try:
        return httpx.get(url, verify=trusted, timeout=10).status_code
    except (httpx.HTTPError, OSError) as err:
        return str(err) or type(err).__name__
