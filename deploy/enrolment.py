"""Who may join: tickets are given out and taken back, each once, for one device."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Sequence

from cryptography import x509

from .enrolment_request import EnrolmentRequest
from .fleet import Device, Fleet, FleetError, devices_where
from .node_file import NAME
from .ticket import Ticket, new_token, token_digest

DAYS = 7.0
_DAY_SECONDS = 86_400
_TRAILING_NUMBER = re.compile(r"(.*?)([0-9]+)")


class RefusedError(FleetError):
    """A device is not let in; the message is for whom sits before it."""


def numbered(name: str, count: int) -> list[str]:
    """Return `count` names that go on from the first one.

    ``jetson-07`` is followed by ``jetson-08``; a name without a number at its end gets
    ``-00``, ``-01`` and so on.
    """
    if count < 1:
        raise FleetError(f"--count is {count}; make at least one ticket")
    if count == 1:
        return [name]
    found = _TRAILING_NUMBER.fullmatch(name)
    stem, first = found.groups() if found else (f"{name}-", "00")
    return [f"{stem}{int(first) + i:0{len(first)}d}" for i in range(count)]


def issue_tickets(
    fleet: Fleet,
    names: Sequence[str],
    *,
    address: str,
    authority: x509.Certificate,
    partition: int | None = None,
    partitions: int | None = None,
    days: float = DAYS,
) -> list[Ticket]:
    """Make a ticket for each name; it takes the place of an older one of that name.

    Parameters
    ----------
    fleet : Fleet
        Keeps a digest of each ticket.
    names : sequence of str
        What the devices will be called.
    address : str
        ``host:port`` of the gate.
    authority : x509.Certificate
        Of the fleet.
    partition : int, optional
        Of the first one, and the others follow; by default the lowest free ones, or
        that which the name had before it was removed.
    partitions : int, optional
        Of how many; by default as many as the fleet has with these.
    days : float
        How long the tickets are good.

    Raises
    ------
    FleetError
        If a name is taken or none, or the partitions do not fit.
    """
    if len(set(names)) != len(names):
        raise FleetError("two tickets of one batch have the same name")
    if days <= 0:
        raise FleetError(f"--days is {days:g}; a ticket needs some time")
    expires = int(time.time() + days * _DAY_SECONDS)
    with fleet.transaction() as database:
        for name in names:
            _require_free(database, name)
        chosen = _partitions(database, names, partition)
        total = partitions or max([*_totals(database), *(i + 1 for i in chosen)])
        if max(chosen) >= total:
            raise FleetError(
                f"partition {max(chosen)} of {total}: partitions count from 0; write "
                f"--partitions {max(chosen) + 1} or more"
            )
        tickets = [
            Ticket(
                address=address,
                name=name,
                partition_id=number,
                num_partitions=total,
                token=new_token(),
                expires_at=expires,
                authority=authority,
            )
            for name, number in zip(names, chosen, strict=True)
        ]
        database.executemany(
            "INSERT INTO ticket VALUES (?, ?, ?, ?, ?, NULL)",
            [
                (token_digest(t.token), t.name, t.partition_id, total, expires)
                for t in tickets
            ],
        )
    return tickets


def enrol(fleet: Fleet, request: EnrolmentRequest) -> Device:
    """Take a ticket back and let its device in.

    Asking again with the same ticket and key gives the same answer, so a device whose
    first answer was lost may ask again.

    Raises
    ------
    RefusedError
        If the ticket is unknown, expired, used, or another's, or if the key or the
        machine is in the fleet.
    """
    if request.token is None:
        raise RefusedError(
            "The request has no ticket: `flwr-caesar enrol approve FILE` on the server "
            "lets it in by hand."
        )
    with fleet.transaction() as database:
        row = database.execute(
            "SELECT name, partition_id, num_partitions, expires_at, used_by FROM ticket"
            " WHERE digest = ?",
            (token_digest(request.token),),
        ).fetchone()
        if row is None:
            raise RefusedError(
                "The server does not know this ticket: it is of another fleet, or a "
                "newer one took its place."
            )
        name, partition, partitions, expires, used_by = row
        if used_by is not None:
            return _again(database, name, bytes(used_by), request)
        if time.time() >= expires:
            raise RefusedError(
                f"This ticket expired {_ago(expires)}: `flwr-caesar enrol ticket "
                f"{name}` on the server makes a new one."
            )
        if name != request.name:
            raise RefusedError(f"This ticket is for {name}, not for {request.name}.")
        _require_new(database, request)
        database.execute(
            "UPDATE ticket SET used_by = ? WHERE digest = ?",
            (request.public_key, token_digest(request.token)),
        )
        return _add(database, request, partition, partitions)


def approve(
    fleet: Fleet,
    request: EnrolmentRequest,
    *,
    address: str,
    authority: x509.Certificate,
    partition: int | None = None,
    partitions: int | None = None,
) -> tuple[Device, Ticket]:
    """Let in a device that asked without a ticket.

    Returns
    -------
    tuple of Device and Ticket
        The device, and a ticket that only this device can use, to learn its place.

    Raises
    ------
    RefusedError
        If the key or the machine is in the fleet.
    FleetError
        As `issue_tickets`.
    """
    with fleet.transaction() as database:
        _require_new(database, request)
    (ticket,) = issue_tickets(
        fleet,
        [request.name],
        address=address,
        authority=authority,
        partition=partition,
        partitions=partitions,
    )
    bound = EnrolmentRequest(
        name=request.name,
        public_key=request.public_key,
        machine=request.machine,
        token=ticket.token,
        version=request.version,
    )
    return enrol(fleet, bound), ticket


def _require_free(database: sqlite3.Connection, name: str) -> None:
    if not NAME.fullmatch(name):
        raise FleetError(
            f'{name!r:.80} is no name: write 1 to 64 letters, digits, ".", "_" or "-", '
            'such as "jetson-07"'
        )
    if devices_where(database, "name = ?", name):
        raise FleetError(
            f"{name} is in the fleet: to replace the device, first "
            f"`flwr-caesar fleet remove {name}`"
        )
    database.execute("DELETE FROM ticket WHERE name = ? AND used_by IS NULL", (name,))


def _partitions(
    database: sqlite3.Connection, names: Sequence[str], first: int | None
) -> list[int]:
    if first is not None:
        if first < 0:
            raise FleetError(f"--partition is {first}; partitions count from 0")
        return [first + i for i in range(len(names))]
    taken = {
        number
        for (number,) in database.execute(
            "SELECT partition_id FROM device UNION SELECT partition_id FROM ticket"
            " WHERE used_by IS NULL AND expires_at > ?",
            (time.time(),),
        )
    }
    chosen = []
    for name in names:
        before = database.execute(
            "SELECT partition_id FROM removed WHERE name = ?"
            " ORDER BY removed_at DESC LIMIT 1",
            (name,),
        ).fetchone()
        number = before[0] if before and before[0] not in taken else 0
        while number in taken:
            number += 1
        taken.add(number)
        chosen.append(number)
    return chosen


def _totals(database: sqlite3.Connection) -> list[int]:
    rows = database.execute(
        "SELECT num_partitions FROM device UNION SELECT num_partitions FROM ticket"
        " WHERE used_by IS NULL"
    )
    return [total for (total,) in rows]


def _again(
    database: sqlite3.Connection, name: str, used_by: bytes, request: EnrolmentRequest
) -> Device:
    if used_by != request.public_key:
        raise RefusedError(
            f"This ticket was used already, by another device, which is {name} now. "
            "Each device needs a ticket of its own: `flwr-caesar enrol ticket NAME`."
        )
    found = devices_where(database, "public_key = ?", request.public_key)
    if not found:
        _require_new(database, request)
        raise RefusedError(f"{name} was removed from the fleet.")
    return found[0]


def _require_new(database: sqlite3.Connection, request: EnrolmentRequest) -> None:
    key = (request.public_key,)
    if database.execute("SELECT 1 FROM removed WHERE public_key = ?", key).fetchone():
        raise RefusedError(
            "This key was removed from the fleet and cannot return: delete the key "
            "file on the device and join again, with a new ticket."
        )
    for device in devices_where(database, "public_key = ?", *key):
        raise RefusedError(
            f"This key is in the fleet as {device.name}. If it was copied with an "
            "image, delete the key file on this device and join again."
        )
    for device in devices_where(database, "machine = ?", request.machine):
        raise RefusedError(
            f"This machine is in the fleet as {device.name}. If the device was set "
            f"up anew, first `flwr-caesar fleet remove {device.name}` on the server. "
            "If it is another one with the same image, give it a machine id of its "
            "own (`rm /etc/machine-id; systemd-machine-id-setup`)."
        )


def _add(
    database: sqlite3.Connection,
    request: EnrolmentRequest,
    partition: int,
    partitions: int,
) -> Device:
    device = Device(
        name=request.name,
        public_key=request.public_key,
        machine=request.machine,
        partition_id=partition,
        num_partitions=partitions,
        enrolled_at=time.time(),
    )
    try:
        database.execute(
            "INSERT INTO device VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (
                device.name,
                device.public_key,
                device.machine,
                partition,
                partitions,
                device.enrolled_at,
            ),
        )
    except sqlite3.IntegrityError:
        raise RefusedError(f"{device.name} is in the fleet by now.") from None
    return device


def _ago(moment: float) -> str:
    return time.strftime("on %Y-%m-%d at %H:%M UTC", time.gmtime(moment))
