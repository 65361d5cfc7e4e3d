"""The server's memory: a SQLite ledger beside the checkpoint's array files.

A round is committed in one transaction; files are written before it under names never
used, and those that they replace are removed after it. So at every moment the database
refers to whole files.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr_caesar.codec.layout import Array

from .errors import DamagedStateError, StateError
from .files import StoredFile, read_arrays, remove_others, sync_folder, write_arrays
from .ledger_api import DeviceRow, Head
from .lock import FileLock
from .strategy_state import StrategyState

DATABASE = "ledger.sqlite"
FORMAT = 2
_APPLICATION = 0x43534152
_MAX_TERMS = 900  # of a query; older SQLite stops at 999
_SCHEMA = """
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  lineage BLOB NOT NULL,
  incarnation INTEGER NOT NULL,
  phase INTEGER NOT NULL,
  version INTEGER NOT NULL,
  digest BLOB NOT NULL,
  round INTEGER,
  model TEXT,
  strategy TEXT,
  strategy_tree TEXT,
  wrapper TEXT,
  wrapper_tree TEXT
);
CREATE TABLE devices (
  device TEXT PRIMARY KEY,
  held INTEGER,
  held_digest BLOB,
  applied BLOB NOT NULL,
  first_incarnation INTEGER NOT NULL,
  first_phase INTEGER NOT NULL,
  last_incarnation INTEGER NOT NULL,
  last_phase INTEGER NOT NULL,
  uploads INTEGER NOT NULL,
  refused INTEGER NOT NULL,
  resyncs INTEGER NOT NULL,
  facts BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE nodes (node INTEGER PRIMARY KEY, device TEXT NOT NULL);
"""
_PUT_HEAD = """
INSERT INTO meta (one, lineage, incarnation, phase, version, digest)
VALUES (1, ?, ?, ?, ?, ?)
ON CONFLICT (one) DO UPDATE SET lineage = excluded.lineage,
  incarnation = excluded.incarnation, phase = excluded.phase,
  version = excluded.version, digest = excluded.digest
"""
_PUT_FILES = """
UPDATE meta SET round = ?, model = ?, strategy = ?, strategy_tree = ?, wrapper = ?,
  wrapper_tree = ?
"""
_PUT_DEVICE = f"INSERT OR REPLACE INTO devices VALUES ({', '.join('?' * 12)})"
# Without the last condition every known node would dirty a page.
_PUT_NODE = """
INSERT INTO nodes VALUES (?, ?)
ON CONFLICT (node) DO UPDATE SET device = excluded.device
WHERE device != excluded.device
"""


@dataclass(frozen=True)
class Checkpoint:
    """What a resumed run goes on from; the head names the version.

    Parameters
    ----------
    round : int
        The last that was aggregated; 0 for the initial model.
    model : mapping of str to ndarray
        The global model after it.
    strategy : StrategyState, optional
        State of the inner strategy.
    wrapper : StrategyState, optional
        State of ours around it.
    """

    round: int
    model: Mapping[str, Array]
    strategy: StrategyState | None = None
    wrapper: StrategyState | None = None


class SqliteLedger:
    """The ledger of one lineage, for one server process at a time.

    Opening it checks the format and the last checkpoint's files.

    Parameters
    ----------
    folder : path
        The checkpoint; created, for its owner only, if it is not there.

    Raises
    ------
    StateError
        If another process uses the folder, or what it has cannot be trusted. Every
        method raises it when the disk fails.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._database: sqlite3.Connection | None = None
        self._lock = FileLock(
            self.folder / "ledger.lock",
            what=f"the checkpoint {self.folder}; stop that server first",
        )
        try:
            with self._explained():
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock.acquire(seconds=0.0)
                self._database = _open(self.folder / DATABASE)
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
        row = self._meta("lineage, incarnation, phase, version, digest")
        if row is None:
            return None
        lineage, incarnation, phase, version, digest = row
        number = int.from_bytes(lineage, "little")
        return Head(number, incarnation, phase, (version, digest))

    def checkpoint(self) -> Checkpoint | None:
        """Return the last committed checkpoint; `None` if there is none.

        Raises
        ------
        DamagedStateError
            If its files are not what was written.
        """
        row = self._meta("round, model, strategy, strategy_tree, wrapper, wrapper_tree")
        if row is None or row[1] is None:
            return None
        number, model, *states = row
        try:
            return Checkpoint(
                number,
                self._read(model),
                self._read_state(*states[:2]),
                self._read_state(*states[2:]),
            )
        except (DamagedStateError, OSError, ValueError) as err:
            raise DamagedStateError(
                f"the checkpoint {self.folder} cannot be resumed: {err}; restore it "
                "from a backup or start a new run in another folder"
            ) from err

    def at_nodes(self, node_ids: Collection[int]) -> dict[int, DeviceRow]:
        """Return the rows of the devices last seen at these nodes, by node id."""
        query = "SELECT node, device FROM nodes WHERE node IN"
        found = dict(self._select(query, [_signed(node) for node in node_ids]))
        rows = self.devices(set(found.values()))
        return {
            node & (1 << 64) - 1: rows[device]
            for node, device in found.items()
            if device in rows
        }

    def devices(self, ids: Collection[str]) -> dict[str, DeviceRow]:
        """Return the rows of those of these devices that are known."""
        rows = self._select("SELECT * FROM devices WHERE device IN", list(ids))
        return {row[0]: _from_sql(row) for row in rows}

    def facts(self) -> dict[str, bytes]:
        """Return the facts of all devices of which there are any."""
        query = "SELECT device, facts FROM devices WHERE length(facts)"
        with self._explained():
            return dict(self._connection().execute(query))

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
            Replaces the one before.
        """
        head_row = (
            head.lineage.to_bytes(8, "little"),
            head.incarnation,
            head.phase,
            *head.version,
        )
        with self._explained():
            files = None if checkpoint is None else self._write(checkpoint)
            with self._transaction() as database:
                database.execute(_PUT_HEAD, head_row)
                if files is not None:
                    database.execute(_PUT_FILES, files)
                database.executemany(_PUT_DEVICE, map(_to_sql, rows))
                pairs = ((_signed(node), dev) for node, dev in (nodes or {}).items())
                database.executemany(_PUT_NODE, pairs)
        if checkpoint is not None:
            self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        row = self._meta("model, strategy, wrapper") or ()
        names = [json.loads(file)[0] for file in row if file is not None]
        with contextlib.suppress(OSError):
            remove_others(self.folder, names)

    def _write(self, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Write a checkpoint's files; return what the database says of them."""
        self._remove_leftovers()
        model = write_arrays(self.folder, "model", checkpoint.model)
        row: list[Any] = [checkpoint.round, json.dumps(model.to_json())]
        for name in ("strategy", "wrapper"):
            state: StrategyState | None = getattr(checkpoint, name)
            if state is None:
                row += [None, None]
            else:
                file = write_arrays(self.folder, name, state.arrays)
                row += [json.dumps(file.to_json()), json.dumps(state.tree)]
        sync_folder(self.folder)
        return tuple(row)

    def _read_state(self, file: str | None, tree: str | None) -> StrategyState | None:
        if file is None or tree is None:
            return None
        return StrategyState(json.loads(tree), self._read(file))

    def _read(self, row: str) -> dict[str, Array]:
        return read_arrays(self.folder, StoredFile.from_json(json.loads(row)))

    def _meta(self, columns: str) -> tuple[Any, ...] | None:
        with self._explained():
            row = self._connection().execute(f"SELECT {columns} FROM meta").fetchone()
        return None if row is None else tuple(row)

    def _select(self, query: str, terms: list[Any]) -> Iterator[tuple[Any, ...]]:
        with self._explained():
            for start in range(0, len(terms), _MAX_TERMS):
                part = terms[start : start + _MAX_TERMS]
                marks = ", ".join("?" * len(part))
                yield from self._connection().execute(f"{query} ({marks})", part)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._connection()
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise StateError(f"the checkpoint {self.folder} is closed")
        return self._database

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as err:
            raise StateError(
                f"the checkpoint {self.folder} cannot be used: {err}; free some space "
                "or make the folder writable, then resume the run"
            ) from err
        except sqlite3.DatabaseError as err:
            raise DamagedStateError(
                f"the ledger {self.folder / DATABASE} is damaged: {err}; restore the "
                "folder from a backup or start a new run in another one"
            ) from err


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        sync_folder(path.parent)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        application, found, tables = (
            database.execute(query).fetchone()[0]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if tables and (application, found) != (_APPLICATION, FORMAT):
            raise DamagedStateError(
                f"{path} is no ledger of format {FORMAT} (it says {found}); use the "
                "version of flwr-caesar that wrote it, or another folder"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        if not tables:
            database.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; "
                f"PRAGMA user_version = {FORMAT}; COMMIT;"
            )
    except BaseException:
        database.close()
        raise
    return database


def _to_sql(row: DeviceRow) -> tuple[Any, ...]:
    held = row.held or (None, None)
    applied = struct.pack(f"<{len(row.applied)}Q", *row.applied)
    counts = (row.uploads, row.refused, row.resyncs)
    return (row.device, *held, applied, *row.first, *row.last, *counts, row.facts)


def _from_sql(row: tuple[Any, ...]) -> DeviceRow:
    device, held, digest, applied = row[:4]
    return DeviceRow(
        device,
        None if held is None else (held, digest),
        struct.unpack(f"<{len(applied) // 8}Q", applied),
        (row[4], row[5]),
        (row[6], row[7]),
        *row[8:],
    )


def _signed(node: int) -> int:
    """Flower's node ids are unsigned, SQLite's integers are not."""
    return node - (1 << 64) if node >> 63 else node
