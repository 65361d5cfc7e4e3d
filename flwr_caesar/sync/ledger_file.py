"""The ledger's database: its tables, older formats of it, and damage to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from itertools import islice, zip_longest
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr_caesar.flower import log

from .aside import set_aside
from .checked import CheckedTable, is_good
from .errors import DamagedStateError, StateError
from .files import fresh_name, sync_folder
from .ledger_tables import CHECKPOINTS, DEVICES, META, NODES, TABLES, Lost

DATABASE = "ledger.sqlite"
FORMAT = 3
BUSY_SECONDS = 5.0
"""After how long a lock of another process is said in the log."""

NAMES = tuple(DATABASE + side for side in ("", "-wal", "-shm", "-journal"))
"""The database's files."""

DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What SQLite raises where its file is damaged; the latter of names in the schema."""

_APPLICATION = 0x43534152
_BATCH = 1000


def open_database(folder: Path) -> tuple[sqlite3.Connection, Lost]:
    """Open the database of a folder; create it, bring it up to date, or mend it.

    Returns
    -------
    tuple of Connection and mapping
        The database, and by table the keys of the rows that could not be mended.

    Raises
    ------
    DamagedStateError
        If it is no ledger, or of a newer format, or damaged beyond what is kept twice.
    StateError
        If a link is in its place.
    """
    path = folder / DATABASE
    for name in NAMES:
        _require_file(folder / name)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        sync_folder(folder)
    database = connect(path)
    try:
        _bring_up_to_date(database, path)
        if _is_whole(database):
            return database, dict.fromkeys(TABLES, ())
        lost = _mend(database, path)
    except BaseException:
        database.close()
        raise
    database = connect(path)
    _bring_up_to_date(database, path)
    return database, lost


def connect(path: Path) -> sqlite3.Connection:
    """Connect to a database file as all of this module expects it."""
    database = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    database.text_factory = bytes
    return database


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Do all of what follows, durably, or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _require_file(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise StateError(f"{path} is a link or no file; remove it")


def _bring_up_to_date(database: sqlite3.Connection, path: Path) -> None:
    application, found, tables = (
        database.execute(query).fetchone()[0]
        for query in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if tables and (application != _APPLICATION or found not in (2, FORMAT)):
        raise DamagedStateError(
            f"{path} is no ledger of format {FORMAT} (it says {found}); use the "
            "version of flwr-caesar that wrote it, or another folder"
        )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    if not tables:
        with transaction(database):
            _create(database)
    elif found == 2:
        with transaction(database):
            _migrate(database)
        log(WARNING, "%s was of format 2 and is of format %d now", path, FORMAT)


def _create(database: sqlite3.Connection) -> None:
    for table in TABLES:
        table.create(database)
    database.execute(f"PRAGMA application_id = {_APPLICATION}")
    database.execute(f"PRAGMA user_version = {FORMAT}")


def _migrate(database: sqlite3.Connection) -> None:
    """Take the rows of format 2, which had no checksums, as they are."""
    for name in ("meta", "devices", "nodes"):
        database.execute(f"ALTER TABLE {name} RENAME TO {name}_2")
    _create(database)
    head = "1, lineage, incarnation, phase, version, digest"
    last = "1, version, digest, round, model, strategy, strategy_tree, wrapper"
    for table, query in (
        (META, f"SELECT {head} FROM meta_2"),
        (DEVICES, "SELECT * FROM devices_2"),
        (NODES, "SELECT * FROM nodes_2"),
        (
            CHECKPOINTS,
            f"SELECT {last}, wrapper_tree, '{{}}' FROM meta_2 WHERE model IS NOT NULL",
        ),
    ):
        rows = iter(database.execute(query))
        while batch := list(islice(rows, _BATCH)):
            table.put(database, batch)
    for name in ("meta", "devices", "nodes"):
        database.execute(f"DROP TABLE {name}_2")


def _is_whole(database: sqlite3.Connection) -> bool:
    """Whether every row of every table is good, and the copies are equal."""
    try:
        for table in TABLES:
            # Both copies are in the order of the key.
            copies = (table.rows(database, name) for name in table.tables)
            for first, *others in zip_longest(*copies):
                if others not in ([], [first]) or not is_good(first):
                    return False
    except sqlite3.OperationalError:
        raise
    except DAMAGE:
        return False
    return True


def _mend(damaged: sqlite3.Connection, path: Path) -> Lost:
    """Put a database in place that has what is good in either copy; close the other."""
    fresh = path.with_name(fresh_name("ledger", "tmp"))
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    database = connect(fresh)
    try:
        with transaction(database):
            _create(database)
            lost = {
                table: _copy_good(table, damaged, database, path) for table in TABLES
            }
        database.close()
        with contextlib.suppress(sqlite3.DatabaseError):
            damaged.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        damaged.close()
        kept = set_aside(path, copy=True)
        for name in NAMES[1:]:
            (path.parent / name).unlink(missing_ok=True)
        os.replace(fresh, path)
        sync_folder(path.parent)
    except BaseException:
        database.close()
        fresh.unlink(missing_ok=True)
        raise
    log(
        WARNING,
        "The ledger %s was damaged and is mended from its second copy; what it was is "
        "kept as %s",
        path,
        kept,
    )
    return lost


def _copy_good(
    table: CheckedTable,
    damaged: sqlite3.Connection,
    database: sqlite3.Connection,
    path: Path,
) -> list[Any]:
    """Copy the good rows; return the keys of those of which no copy is good."""
    bad: set[Any] = set()
    good: set[Any] = set()
    most = unreadable = 0
    for name in table.tables:
        count = 0
        try:
            rows = table.rows(damaged, name)
            while batch := list(islice(rows, _BATCH)):
                whole = [row[:-1] for row in batch if is_good(row)]
                table.merge(database, whole)
                good.update(row[0] for row in whole)
                bad.update(row[0] for row in batch if not is_good(row))
                count += len(batch)
        except sqlite3.OperationalError:
            raise
        except DAMAGE:
            unreadable += 1
        most = max(most, count)
    # Where it is a key that was damaged, the row is in the other copy under its own.
    lost = sorted(bad - good, key=repr) if len(good) < most else []
    if (unreadable == len(table.tables) > 1) or (table is META and lost):
        raise DamagedStateError(
            f"the ledger {path} is damaged, and so is what it keeps twice; restore the "
            "folder from a backup or start a new run in another one"
        )
    return lost
