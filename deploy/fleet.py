"""The fleet file: which devices there are, and which tickets are out.

A SQLite database, so that the gate and commands can use it at the same time, and a
ticket is taken once whatever happens meanwhile.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_VERSION = 1
_WAIT_SECONDS = 20.0
_SCHEMA = """
CREATE TABLE device (
    name TEXT PRIMARY KEY,
    public_key BLOB NOT NULL UNIQUE,
    machine TEXT UNIQUE,
    partition_id INTEGER NOT NULL,
    num_partitions INTEGER NOT NULL,
    enrolled_at REAL NOT NULL,
    node_id TEXT  -- of 64 bits without a sign, which SQLite has not
);
CREATE TABLE removed (
    public_key BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    partition_id INTEGER NOT NULL,
    removed_at REAL NOT NULL
);
CREATE TABLE ticket (
    digest TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    partition_id INTEGER NOT NULL,
    num_partitions INTEGER NOT NULL,
    expires_at REAL NOT NULL,
    used_by BLOB
);
CREATE TABLE seen (
    public_key BLOB PRIMARY KEY,
    last_seen REAL NOT NULL,
    bytes_up INTEGER NOT NULL,
    bytes_down INTEGER NOT NULL,
    flower_version TEXT NOT NULL,
    status TEXT NOT NULL
);
"""


class FleetError(ValueError):
    """Something cannot be done to the fleet; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device of the fleet.

    Parameters
    ----------
    name : str
        What people call it.
    public_key : bytes
        PEM, as Flower has it.
    machine : str or None
        Digest of what tells the machine from others.
    partition_id, num_partitions : int
        Which part of the data it has, of how many.
    enrolled_at : float
        When, in seconds since 1970.
    node_id : int or None
        Flower's; None until the SuperLink knows the key.
    """

    name: str
    public_key: bytes
    machine: str | None
    partition_id: int
    num_partitions: int
    enrolled_at: float
    node_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the gate saw of a device.

    Parameters
    ----------
    last_seen : float
        When it last asked for something, in seconds since 1970.
    bytes_up, bytes_down : int
        HTTP bytes from and to the device, headers included, TLS and TCP not.
    flower_version : str
        Of its SuperNode; empty if it never told.
    status : str
        The latest header `flwr_caesar.deploy.device_status.HEADER`; empty without one.
    """

    last_seen: float
    bytes_up: int = 0
    bytes_down: int = 0
    flower_version: str = ""
    status: str = ""


class Fleet:
    """The fleet file.

    Parameters
    ----------
    path : Path
        The file; `create` makes a new one.

    Raises
    ------
    FleetError
        If it is missing or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise FleetError(f"{path} is missing: restore it from a backup")
        with self._open() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise FleetError(
                f"{path} has version {version}, and this flwr-caesar knows {_VERSION}: "
                "use the flwr-caesar that wrote it, or a later one"
            )

    @classmethod
    def create(cls, path: Path) -> Fleet:
        """Make an empty fleet; readable by its owner only."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        database = sqlite3.connect(path)
        try:
            database.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA user_version={_VERSION};END;"
            )
        finally:
            database.close()
        return cls(path)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(
                self.path, timeout=_WAIT_SECONDS, isolation_level=None
            )
        except sqlite3.OperationalError as err:
            raise FleetError(f"{self.path} cannot be opened: {err}") from err
        try:
            yield database
        except sqlite3.DatabaseError as err:
            raise FleetError(f"{self.path} cannot be used: {err}") from err
        finally:
            database.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the only right to write; what is written holds if nothing is raised."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                database.execute("ROLLBACK")
                raise

    def devices(self) -> list[Device]:
        """Return all devices, by name."""
        with self._open() as database:
            return devices_where(database, "TRUE ORDER BY name")

    def device(self, name: str) -> Device:
        """Return one device.

        Raises
        ------
        FleetError
            If there is none of that name.
        """
        with self._open() as database:
            found = devices_where(database, "name = ?", name)
        if not found:
            raise FleetError(
                f"there is no device {name!r}; `flwr-caesar fleet status` lists them"
            )
        return found[0]

    def registered(self, public_key: bytes, node_id: int) -> None:
        """Keep which node Flower made of a key."""
        with self.transaction() as database:
            database.execute(
                "UPDATE device SET node_id = ? WHERE public_key = ?",
                (str(node_id), public_key),
            )

    def remove(self, name: str) -> Device:
        """Remove a device; its key never returns, its machine may.

        Raises
        ------
        FleetError
            If there is none of that name.
        """
        device = self.device(name)
        with self.transaction() as database:
            key = (device.public_key,)
            database.execute("DELETE FROM device WHERE public_key = ?", key)
            database.execute("DELETE FROM seen WHERE public_key = ?", key)
            database.execute(
                "INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?)",
                (device.public_key, name, device.partition_id, time.time()),
            )
        return device

    def removed_keys(self) -> set[bytes]:
        """Return the keys that were removed."""
        with self._open() as database:
            rows = database.execute("SELECT public_key FROM removed")
            return {bytes(key) for (key,) in rows}

    def saw(self, observed: dict[bytes, Seen]) -> None:
        """Add what was seen of devices, by key, since the last call."""
        with self.transaction() as database:
            for key, seen in observed.items():
                database.execute(
                    "INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (public_key) DO UPDATE SET"
                    " last_seen = max(last_seen, excluded.last_seen),"
                    " bytes_up = bytes_up + excluded.bytes_up,"
                    " bytes_down = bytes_down + excluded.bytes_down,"
                    " flower_version = iif(excluded.flower_version = '',"
                    "  flower_version, excluded.flower_version),"
                    " status = iif(excluded.status = '', status, excluded.status)",
                    (
                        key,
                        seen.last_seen,
                        seen.bytes_up,
                        seen.bytes_down,
                        seen.flower_version,
                        seen.status,
                    ),
                )

    def seen(self) -> dict[bytes, Seen]:
        """Return what was seen of each device, by key, in all its time."""
        with self._open() as database:
            rows = database.execute(
                "SELECT public_key, last_seen, bytes_up, bytes_down, flower_version,"
                " status FROM seen"
            )
            return {
                bytes(key): Seen(
                    last_seen=last,
                    bytes_up=up,
                    bytes_down=down,
                    flower_version=flower,
                    status=status,
                )
                for key, last, up, down, flower, status in rows
            }


def devices_where(
    database: sqlite3.Connection, condition: str, *values: object
) -> list[Device]:
    """Return devices for which a condition in SQL holds."""
    rows = database.execute(
        "SELECT name, public_key, machine, partition_id, num_partitions, enrolled_at,"
        f" node_id FROM device WHERE {condition}",
        values,
    )
    return [
        Device(
            name=name,
            public_key=bytes(key),
            machine=machine,
            partition_id=partition,
            num_partitions=partitions,
            enrolled_at=enrolled,
            node_id=None if node is None else int(node),
        )
        for name, key, machine, partition, partitions, enrolled, node in rows
    ]
