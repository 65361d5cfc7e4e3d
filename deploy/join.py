"""Joining a fleet: what a device does with a ticket."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from .device_key import load_key, make_key
from .enrolment_request import make_request
from .failures import Cause
from .gate import ENROL
from .node_file import NodeFile, split_address
from .probe import probe
from .ticket import Ticket
from .whole_file import write_whole
from .words import explain

STATE = Path("/var/lib/flwr-caesar-node")
_SECONDS = 60.0


class JoinError(RuntimeError):
    """The device did not join; the message says why and what to do."""


@dataclass(frozen=True)
class DeviceFolder:
    """Where a device keeps what makes it part of a fleet.

    Parameters
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def node_file(self) -> Path:
        """See `flwr_caesar.deploy.node_file`."""
        return self.path / "node.toml"

    @property
    def key(self) -> Path:
        """The private key."""
        return self.path / "device.key"

    @property
    def authority(self) -> Path:
        """Certificate of the fleet's authority."""
        return self.path / "ca.crt"

    def joined_as(self) -> str | None:
        """Return the name under which this device joined; None if it did not."""
        return NodeFile.load(self.node_file).name if self.node_file.exists() else None

    def prepare(self, *, anew: bool) -> ec.EllipticCurvePrivateKey:
        """Return the device's key; make one if there is none, or if it is to be new.

        A key without ``node.toml`` is of a device whose joining was cut short: it goes
        on with that key, which the server may know already.
        """
        self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        if self.key.exists() and not anew:
            return load_key(self.key)
        return make_key(self.key)


def ask(
    ticket: Ticket, key: ec.EllipticCurvePrivateKey, *, machine: str | None
) -> Ticket:
    """Hand a ticket to its server, and return what the server makes of it.

    Parameters
    ----------
    ticket : Ticket
        Whose authority the server has to have.
    key : EllipticCurvePrivateKey
        The device's.
    machine : str or None
        See `flwr_caesar.deploy.machine.machine_digest`.

    Raises
    ------
    JoinError
        If the server is not the ticket's, cannot be reached, or refuses.
    """
    body = make_request(key, name=ticket.name, machine=machine, token=ticket.token)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ticket.authority_pem.decode())
    try:
        answer = httpx.post(
            f"https://{ticket.address}{ENROL}",
            content=body,
            headers={"content-type": "application/json"},
            verify=context,
            timeout=_SECONDS,
        )
    except (httpx.HTTPError, OSError) as err:
        raise JoinError(str(err)) from err
    told = _told(answer)
    if answer.status_code != httpx.codes.OK:
        raise JoinError(
            told.get("error")
            or f"{ticket.address} answers with HTTP {answer.status_code}: if it is a "
            "gate of flwr-caesar, its log says more"
        )
    return replace(
        ticket,
        partition_id=int(told["partition-id"]),
        num_partitions=int(told["num-partitions"]),
    )


def write_node(
    folder: DeviceFolder, ticket: Ticket, *, state: Path, port: int | None
) -> NodeFile:
    """Write ``node.toml`` for a ticket's place; other settings of an older one stay.

    Parameters
    ----------
    folder : DeviceFolder
        Where.
    ticket : Ticket
        Of the fleet.
    state : Path
        Folder for what must survive a restart.
    port : int, optional
        Of the SuperNode on loopback; two on one machine need different ones.
    """
    place: dict[str, Any] = {
        "address": ticket.address,
        "ca": folder.authority,
        "name": ticket.name,
        "key": folder.key,
        "partition_id": ticket.partition_id,
        "num_partitions": ticket.num_partitions,
    }
    if port is not None:
        place["port"] = port
    if folder.node_file.exists():
        node = replace(NodeFile.load(folder.node_file), **place)
    else:
        node = NodeFile(state_dir=state, **place)
    write_whole(folder.authority, ticket.authority_pem)
    node.save(folder.node_file)
    return node


def why_not(
    ticket: Ticket, folder: DeviceFolder, key: ec.EllipticCurvePrivateKey
) -> str | None:
    """Return in words what keeps this device from its server; None if nothing does."""
    host, port = split_address(ticket.address)
    write_whole(folder.authority, ticket.authority_pem)
    probed = probe(host, port, ca=folder.authority, key=key)
    if probed.failure is not None and probed.failure.cause is Cause.UNKNOWN_CA:
        return (
            f"{ticket.address} is not the server that this ticket is for: its "
            "certificate was signed by another authority, and the ticket's has the "
            f"SHA-256 {ticket.fingerprint}; nothing was sent"
        )
    advice = explain(probed, name=ticket.name, host=host, port=port)
    return None if advice is None else str(advice)


def _told(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
