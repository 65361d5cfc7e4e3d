"""The server's memory: a SQLite ledger beside the checkpoint's array files.

A round is committed in one transaction; files are written before it under names never
used, and those that nothing refers to any more are removed after it. So at every moment
the database refers to whole files. The checkpoint before the newest is kept: where the
newest turns out to be damaged, the history goes back by one round.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from logging import WARNING
from pathlib import Path

from flwr_caesar.flower import log

from .aside import is_aside, set_files_aside
from .checked import CheckedTable, Row, is_good
from .checkpoint import (
    Checkpoint,
    StoredCheckpoint,
    read_checkpoint,
    write_checkpoint,
)
from .errors import DamagedStateError, StateError
from .files import is_fresh_name, remove_others, sync_folder
from .ledger_api import DeviceRow, Head
from .ledger_file import DAMAGE, DATABASE, NAMES, open_database
from .ledger_tables import (
    CHECKPOINTS,
    DEVICES,
    META,
    NEWEST,
    NODES,
    Lost,
    device_from_sql,
    device_to_sql,
    head_from_sql,
    head_to_sql,
    signed,
    unknown_device,
)
from .lock import FileLock
from .patience import T, patiently
from .private import require_private

__all__ = ["DATABASE", "Checkpoint", "SqliteLedger"]

LOCK = "ledger.lock"
_CANNOT = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
)


class SqliteLedger:
    """The ledger of one lineage, for one server process at a time.

    Opening it verifies every row and the newest checkpoint. A row of which one copy is
    damaged is read from the other; a checkpoint whose files are damaged gives way to
    the one before it; either is said in the log.

    Parameters
    ----------
    folder : path
        The checkpoint; created, for its owner only, if it is not there.

    Raises
    ------
    StateError
        If another process uses the folder, others may change what is in it, or what it
        has cannot be trusted. Every method raises it when the disk fails, and when
        another process keeps the database locked for longer than ten minutes.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._database: sqlite3.Connection | None = None
        self._lock = FileLock(
            self.folder / LOCK,
            what=f"the checkpoint {self.folder}; stop that server first",
        )
        try:
            with self._explained():
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                require_private(
                    self.folder,
                    self.folder.stat(),
                    option="checkpoint folder",
                    is_ours=_is_ours,
                    closed_to=0o022,
                )
                self._lock.acquire(seconds=0.0)
                self._database, lost = self._patiently(
                    lambda: open_database(self.folder)
                )
                self._replace_lost(lost)
            self.checkpoint()
            self._remove_leftovers()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SqliteLedger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and let another process use the folder."""
        if self._database is not None:
            self._database.close()
            self._database = None
        self._lock.release()

    def head(self) -> Head | None:
        """Return where the history stands; `None` if nothing was committed yet."""
        rows, lost = self._get(META, [1])
        if lost:
            raise DamagedStateError(f"the ledger of {self.folder} has lost its head")
        if not rows:
            return None
        return head_from_sql(rows[0])

    def checkpoint(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; `None` if there is none.

        If that is not the newest, the ledger goes back to it for good: the uploads that
        only the newest had are not applied any more, so that devices send them again.

        Raises
        ------
        DamagedStateError
            If there are checkpoints and none is what was written.
        StateError
            If its files cannot be read now.
        """
        reasons = []
        with self._explained():
            for stored in self._checkpoints():
                try:
                    found = read_checkpoint(self.folder, stored)
                except DamagedStateError as err:
                    reasons.append(str(err))
                    continue
                if reasons:
                    self._go_back(stored, reasons[0])
                return found
        if not reasons:
            return None
        raise DamagedStateError(
            f"the checkpoint {self.folder} cannot be resumed: {reasons[0]}; restore it "
            "from a backup or start a new run in another folder"
        )

    def at_nodes(self, node_ids: Collection[int]) -> dict[int, DeviceRow]:
        """Return the rows of the devices last seen at these nodes, by node id."""
        found, lost = self._get(NODES, [signed(node) for node in node_ids])
        if lost:
            log(WARNING, "Who was at %d nodes is damaged in the ledger", len(lost))
        rows = self.devices({device.decode() for _, device in found})
        return {
            node & (1 << 64) - 1: rows[device.decode()]
            for node, device in found
            if device.decode() in rows
        }

    def devices(self, ids: Collection[str]) -> dict[str, DeviceRow]:
        """Return the rows of those of these devices that are known."""
        found, lost = self._get(DEVICES, list(ids))
        rows = [
            *map(device_from_sql, found),
            *(unknown_device(str(device)) for device in lost),
        ]
        return {row.device: row for row in rows}

    def facts(self) -> dict[str, bytes]:
        """Return the facts of all devices of which there are any."""

        def read() -> dict[str, bytes]:
            table = DEVICES.tables[0]
            rows = DEVICES.rows(self._connection(), table)
            found = (device_from_sql(row[:-1]) for row in rows if is_good(row))
            return {row.device: row.facts for row in found if row.facts}

        with self._explained():
            return self._patiently(read)

    def commit(
        self,
        head: Head,
        rows: Iterable[DeviceRow] = (),
        nodes: Mapping[int, str] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Write all of it, or nothing: one transaction, durable on return.

        If the process dies before it returns, the next one finds all of it or nothing.

        Parameters
        ----------
        head : Head
            Replaces the one before.
        rows : iterable of DeviceRow
            New or replacing those of the same device.
        nodes : mapping of int to str
            Device last seen at a node; others stay.
        checkpoint : Checkpoint, optional
            The newest from now on; the one before it is kept.
        """
        rows = list(rows)
        pairs = [(signed(node), device) for node, device in (nodes or {}).items()]
        with self._explained():
            stored, newest = None, []
            if checkpoint is not None:
                self._remove_leftovers()
                newest = self._newest_uploads(rows)
                stored = self._write(checkpoint, head.version)
            with self._transaction() as database:
                META.put(database, [head_to_sql(head)])
                if stored is not None:
                    CHECKPOINTS.put(database, [stored.to_row()])
                    CHECKPOINTS.clear(database, stored.number - 1)
                    NEWEST.clear(database)
                    NEWEST.put(database, newest)
                DEVICES.put(database, [device_to_sql(row) for row in rows])
                NODES.put(database, pairs)
        if checkpoint is not None:
            self._remove_leftovers()

    def _write(
        self, checkpoint: Checkpoint, version: tuple[int, bytes]
    ) -> StoredCheckpoint:
        before = self._checkpoints()
        number = max((old.number for old in before), default=0) + 1
        stored = write_checkpoint(self.folder, checkpoint, number, version, before)
        sync_folder(self.folder)
        return stored

    def _newest_uploads(self, rows: Iterable[DeviceRow]) -> list[Row]:
        """Return what a commit applies of each device, to take it back if need be."""
        before = self.devices([row.device for row in rows])
        newest = []
        for row in rows:
            known = before[row.device].applied if row.device in before else ()
            if row.applied and row.applied[-1] not in known:
                newest.append((row.device, struct.pack("<Q", row.applied[-1])))
        return newest

    def _checkpoints(self) -> list[StoredCheckpoint]:
        """Return the rows of the checkpoints, the newest first."""

        def read() -> list[StoredCheckpoint]:
            database = self._connection()
            rows, numbers = {}, set()
            for table in CHECKPOINTS.tables:
                for row in CHECKPOINTS.rows(database, table):
                    numbers.add(row[0])
                    if is_good(row):
                        rows[row[0]] = row[:-1]
            return [
                StoredCheckpoint.from_row(rows[number])
                for number in sorted(rows, reverse=True)
            ]

        return self._patiently(read)

    def _go_back(self, to: StoredCheckpoint, reason: str) -> None:
        """Make a checkpoint the newest, as those after it are damaged."""
        kept = {file.name for file in to.files()}
        later = [
            self.folder / file.name
            for old in self._checkpoints()
            for file in old.files()
            if old.number > to.number and file.name not in kept
        ]
        head = self.head()
        with self._transaction() as database:
            newest = [row[:-1] for row in NEWEST.rows(database, NEWEST.tables[0])]
            uploads = {device.decode(): upload for device, upload in newest}
            rows = [
                replace(row, applied=row.applied[:-1], uploads=row.uploads - 1)
                for row in self.devices(list(uploads)).values()
                if row.applied[-1:] == struct.unpack("<Q", uploads[row.device])
            ]
            DEVICES.put(database, [device_to_sql(row) for row in rows])
            NEWEST.clear(database)
            CHECKPOINTS.clear(database)
            CHECKPOINTS.put(database, [to.to_row()])
            if head is not None:
                META.put(database, [head_to_sql(replace(head, version=to.version))])
        aside = set_files_aside(self.folder, "checkpoint", later)
        log(
            WARNING,
            "The newest checkpoint in %s is damaged: %s. It is kept as %s, and the "
            "training goes on after round %d, with the uploads of %d devices since to "
            "come again.",
            self.folder,
            reason,
            aside.name,
            to.round,
            len(rows),
        )

    def _replace_lost(self, lost: Lost) -> None:
        """See that nothing is applied twice where both copies of a row are damaged."""
        devices = [
            unknown_device(key.decode("ascii", "replace")) for key in lost[DEVICES]
        ]
        if devices:
            with self._transaction() as database:
                DEVICES.put(database, [device_to_sql(row) for row in devices])
        stored = self._checkpoints()
        numbers = [number for number in lost[CHECKPOINTS] if isinstance(number, int)]
        if lost[CHECKPOINTS] and not stored:
            raise DamagedStateError(
                f"the ledger of {self.folder} has lost its checkpoints; restore it "
                "from a backup or start a new run in another folder"
            )
        if stored and max(numbers, default=0) > stored[0].number:
            self._go_back(stored[0], "its row is lost")

    def _remove_leftovers(self) -> None:
        names = [file.name for old in self._checkpoints() for file in old.files()]
        with contextlib.suppress(OSError):
            remove_others(self.folder, names)

    def _get(
        self, table: CheckedTable, keys: Collection[str | int]
    ) -> tuple[list[Row], list[str | int]]:
        with self._explained():
            return self._patiently(lambda: table.get(self._connection(), keys))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._connection()
        self._patiently(lambda: database.execute("BEGIN IMMEDIATE"))
        try:
            yield database
            self._patiently(lambda: database.execute("COMMIT"))
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise

    def _patiently(self, act: Callable[[], T]) -> T:
        return patiently(act, self.folder)

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise StateError(f"the checkpoint {self.folder} is closed")
        return self._database

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (*DAMAGE, OSError) as err:
            code = getattr(err, "sqlite_errorcode", 0) & 0xFF
            if isinstance(err, OSError) or code in _CANNOT:
                raise StateError(
                    f"the checkpoint {self.folder} cannot be used now: {err}; free "
                    "some space or make the folder writable, then resume the run"
                ) from err
            raise DamagedStateError(
                f"the ledger {self.folder / DATABASE} is damaged: {err}; restore the "
                "folder from a backup or start a new run in another one"
            ) from err


def _is_ours(name: str) -> bool:
    names = (LOCK, *NAMES)
    return name in names or is_fresh_name(name) or is_aside(name)
