"""One process at a time in a run folder."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr_caesar.sync.errors import StateError
from flwr_caesar.sync.lock import FileLock
from flwr_caesar.tasks.errors import ConfigError

COMMAND = "command"
SERVER = "server"


@contextmanager
def held(folder: Path, name: str, *, seconds: float = 0.0) -> Iterator[None]:
    """Hold a run folder; the system lets go of it when the process dies.

    Parameters
    ----------
    folder : Path
        A run folder that exists.
    name : str
        `COMMAND` for who starts a run, `SERVER` for the ServerApp, which writes it:
        they may be on the same machine, and one may outlive the other.
    seconds : float
        How long to wait for another process that has it.

    Raises
    ------
    ConfigError
        If another process keeps it; says which, where and since when.
    OSError
        If the folder cannot be written.
    """
    # Not in the lock file: to close it once would drop the lock.
    holder = folder / f".{name}.holder"
    lock = FileLock(folder / f".{name}.lock", what=f"the run folder {folder}")
    try:
        lock.acquire(seconds=seconds)
    except StateError:
        raise ConfigError(
            "hydra.run.dir", f"{folder} is in use by {_read(holder)}: wait, or stop it"
        ) from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        holder.write_text(json.dumps(mine) + "\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _read(holder: Path) -> str:
    try:
        row = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {row['pid']} on {row['host']} since {row['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # it has just taken it
        return "another process"
