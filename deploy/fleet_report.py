"""The fleet as a table: what was enrolled, what the gate saw, what Flower says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .control import Node
from .device_status import DeviceStatus
from .fleet import Device, Seen
from .words import duration

UNKNOWN = "unknown"
PENDING = "not registered yet"
_HEAD = ("name", "state", "seen", "flwr-caesar", "flwr", "power", "up", "down", "part")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A device.

    Parameters
    ----------
    name : str
        What people call it.
    state : str
        Flower's ``registered``, ``online`` or ``offline``; ``not registered yet``;
        ``unknown`` while the SuperLink is down.
    told : str
        What the device says it does; empty if it never did.
    last_seen : float or None
        Seconds since it asked for something; None if it never did.
    version, flower_version : str
        Of flwr-caesar and flwr on the device.
    power_mode : str
        Of the board.
    bytes_up, bytes_down : int
        HTTP bytes from and to it.
    partition_id, num_partitions : int
        Which part of the data it has, of how many.
    node_id : int or None
        Flower's.
    """

    name: str
    state: str
    told: str
    last_seen: float | None
    version: str
    flower_version: str
    power_mode: str
    bytes_up: int
    bytes_down: int
    partition_id: int
    num_partitions: int
    node_id: int | None

    def to_json(self) -> dict[str, Any]:
        """Return all of it; the node id as text, as it has 64 bits."""
        fields = asdict(self)
        fields["node_id"] = None if self.node_id is None else str(self.node_id)
        return fields


def rows(
    devices: Iterable[Device],
    seen: Mapping[bytes, Seen],
    nodes: Mapping[bytes, Node] | None,
    *,
    now: float,
) -> list[Row]:
    """Bring together what is known of each device.

    Parameters
    ----------
    devices : iterable of Device
        The fleet.
    seen : mapping of bytes to Seen
        By key.
    nodes : mapping of bytes to Node, optional
        By key; None while the SuperLink is down.
    now : float
        In seconds since 1970.
    """
    listed = []
    for device in devices:
        last = seen.get(device.public_key)
        told = DeviceStatus.from_header(last.status if last else "")
        node = (nodes or {}).get(device.public_key)
        state = UNKNOWN if nodes is None else PENDING if node is None else node.state
        listed.append(
            Row(
                name=device.name,
                state=state,
                told=told.state,
                last_seen=None if last is None else max(now - last.last_seen, 0.0),
                version=told.version,
                flower_version=last.flower_version if last else "",
                power_mode=told.power_mode,
                bytes_up=last.bytes_up if last else 0,
                bytes_down=last.bytes_down if last else 0,
                partition_id=device.partition_id,
                num_partitions=device.num_partitions,
                node_id=node.node_id if node else device.node_id,
            )
        )
    return listed


def table(listed: Sequence[Row]) -> str:
    """Return the rows as lines of text, in columns."""
    lines = [_HEAD, *map(_cells, listed)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        _state(row),
        "never" if row.last_seen is None else f"{duration(row.last_seen)} ago",
        row.version or "-",
        row.flower_version or "-",
        row.power_mode or "-",
        _bytes(row.bytes_up),
        _bytes(row.bytes_down),
        f"{row.partition_id}/{row.num_partitions}",
    )


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _state(row: Row) -> str:
    news = row.told and row.told != row.state
    return f"{row.state}: {row.told}" if news else row.state
