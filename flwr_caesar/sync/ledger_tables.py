"""The tables of the ledger, and what a row of each says."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from logging import WARNING
from typing import Any

from flwr_caesar.flower import log

from .checked import CheckedTable, Row
from .ledger_api import DeviceRow, Head

# Before the facts of a device that said what it can; no method's begin like this.
_CAN = b"\xffcan\0"
_SIZE = struct.Struct("<H")

NOT_KNOWN = (1 << 64) - 1
"""An id of no upload: a device whose row is lost finds that it did not make it."""

META = CheckedTable(
    "meta",
    {
        "one": "INTEGER PRIMARY KEY CHECK (one = 1)",
        "lineage": "BLOB NOT NULL",
        "incarnation": "INTEGER NOT NULL",
        "phase": "INTEGER NOT NULL",
        "version": "INTEGER NOT NULL",
        "digest": "BLOB NOT NULL",
    },
    grows=("incarnation", "phase"),
)
DEVICES = CheckedTable(
    "devices",
    {
        "device": "TEXT PRIMARY KEY",
        "held": "INTEGER",
        "held_digest": "BLOB",
        "applied": "BLOB NOT NULL",
        "first_incarnation": "INTEGER NOT NULL",
        "first_phase": "INTEGER NOT NULL",
        "last_incarnation": "INTEGER NOT NULL",
        "last_phase": "INTEGER NOT NULL",
        "uploads": "INTEGER NOT NULL",
        "refused": "INTEGER NOT NULL",
        "resyncs": "INTEGER NOT NULL",
        "facts": "BLOB NOT NULL",
    },
    grows=("last_incarnation", "last_phase", "uploads"),
)
# One that is lost costs its device a whole model.
NODES = CheckedTable(
    "nodes", {"node": "INTEGER PRIMARY KEY", "device": "TEXT NOT NULL"}, is_twin=False
)
CHECKPOINTS = CheckedTable(
    "checkpoints",
    {
        "number": "INTEGER PRIMARY KEY",
        "version": "INTEGER NOT NULL",
        "digest": "BLOB NOT NULL",
        "round": "INTEGER NOT NULL",
        "model": "TEXT NOT NULL",
        "strategy": "TEXT",
        "strategy_tree": "TEXT",
        "wrapper": "TEXT",
        "wrapper_tree": "TEXT",
        "uploads": "TEXT NOT NULL",
    },
)
# Uploads that are in the newest checkpoint and not in the one before.
NEWEST = CheckedTable(
    "newest", {"device": "TEXT PRIMARY KEY", "upload": "BLOB NOT NULL"}
)
TABLES = (META, DEVICES, NODES, CHECKPOINTS, NEWEST)
Lost = Mapping[CheckedTable, Collection[Any]]
"""By table, the keys of rows of which no copy is good."""


def unknown_device(device: str) -> DeviceRow:
    """Return the row of a device of which nothing can be trusted."""
    log(
        WARNING,
        "What is known of device %s is damaged in the ledger, in both copies: it "
        "starts anew, and what it had not sent yet is lost.",
        device,
    )
    return DeviceRow(device, applied=(NOT_KNOWN,))


def head_to_sql(head: Head) -> Row:
    """Return the row of `META`."""
    lineage = head.lineage.to_bytes(8, "little")
    return (1, lineage, head.incarnation, head.phase, *head.version)


def device_to_sql(row: DeviceRow) -> Row:
    """Return the row of `DEVICES`."""
    held = row.held or (None, None)
    applied = struct.pack(f"<{len(row.applied)}Q", *row.applied)
    counts = (row.uploads, row.refused, row.resyncs)
    facts = _with_can(row.facts, row.can)
    return (row.device, *held, applied, *row.first, *row.last, *counts, facts)


def device_from_sql(row: Row) -> DeviceRow:
    """Take a row of `DEVICES`."""
    device, held, digest, applied = row[:4]
    return DeviceRow(
        device.decode(),
        None if held is None else (held, digest),
        struct.unpack(f"<{len(applied) // 8}Q", applied),
        (row[4], row[5]),
        (row[6], row[7]),
        *(row[8], row[9], row[10]),
        *_without_can(row[11]),
    )


def _with_can(facts: bytes, can: bytes) -> bytes:
    """Return facts behind what a device can, where it said so; see `_CAN`."""
    if not can and not facts.startswith(_CAN):
        return facts
    return b"".join([_CAN, _SIZE.pack(len(can)), can, facts])


def _without_can(data: bytes) -> tuple[bytes, bytes]:
    """Return the facts, and what the device can."""
    if not data.startswith(_CAN) or len(data) < (start := len(_CAN) + _SIZE.size):
        return data, b""
    (size,) = _SIZE.unpack_from(data, len(_CAN))
    return data[start + size :], data[start : start + size]


def signed(node: int) -> int:
    """Flower's node ids are unsigned, SQLite's integers are not."""
    return node - (1 << 64) if node >> 63 else node


def head_from_sql(row: Row) -> Head:
    """Take the row of `META`."""
    _, lineage, incarnation, phase, version, digest = row
    number = int.from_bytes(lineage, "little")
    return Head(number, incarnation, phase, (version, digest))
