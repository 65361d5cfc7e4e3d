"""A database that another process keeps locked is waited for, and the process named."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from logging import WARNING
from pathlib import Path
from typing import TypeVar

from flwr_caesar.flower import log

from .errors import StateError
from .holders import holders
from .ledger_file import NAMES

MOST_SECONDS = 600.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
T = TypeVar("T")


def patiently(act: Callable[[], T], folder: Path) -> T:
    """Do something with the ledger of a folder, as soon as others let us.

    A backup or a browser of databases may hold a lock for minutes. SQLite itself waits
    for `ledger_file.BUSY_SECONDS` each time.

    Raises
    ------
    StateError
        If that takes longer than `MOST_SECONDS`.
    """
    start = time.monotonic()
    is_said = False
    while True:
        try:
            return act()
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode & 0xFF not in _BUSY:
                raise
        who = holders(*map(folder.joinpath, NAMES), but=os.getpid())
        if time.monotonic() - start >= MOST_SECONDS:
            raise StateError(
                f"another process{who} has kept the ledger in {folder} locked for too "
                "long; end it, then resume the run"
            )
        if not is_said:
            log(
                WARNING,
                "Another process%s has locked the ledger in %s, perhaps a backup or a "
                "browser of databases; waiting for it",
                who,
                folder,
            )
            is_said = True
