"""One process at a time: an advisory lock that ends with its process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from .errors import StateError

_POLL_SECONDS = 0.05


class FileLock:
    """An exclusive `flock` on a file that nobody writes to.

    The system drops the lock when its holder dies, however that happens.

    Parameters
    ----------
    path : Path
        The lock file, created if it is not there.
    what : str
        What the lock protects and what to do if it is taken, for the error.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self.path = path
        self._what = what
        self._fd: int | None = None

    def acquire(self, *, seconds: float) -> None:
        """Take the lock, waiting at most `seconds`.

        Raises
        ------
        StateError
            If another holder keeps it.
        OSError
            If the file cannot be opened.
        """
        deadline = time.monotonic() + seconds
        while not self._try():
            if time.monotonic() >= deadline:
                raise StateError(f"another process uses {self._what}")
            time.sleep(_POLL_SECONDS)

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back, and with `remove` its file; harmless if not held."""
        if self._fd is None:
            return
        try:
            if remove:
                os.unlink(self.path)
        finally:
            # Explicitly: a forked child that lives on shares the descriptor.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def _try(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder that removed the file leaves waiters with a lock on nothing.
            found = os.stat(self.path, follow_symlinks=False)
            if os.path.samestat(found, os.fstat(fd)):
                self._fd = fd
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return False
