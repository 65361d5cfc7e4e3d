"""One process at a time: an advisory lock that ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path

from .errors import StateError

_POLL_SECONDS = 0.05
_guard = threading.Lock()
_held: set[tuple[int, int]] = set()


class FileLock:
    """An exclusive POSIX lock on a file that nobody writes to.

    The system drops it when its holder dies, however that happens, and a child that
    the holder forked does not have it: a data loader that outlives a killed app keeps
    nobody out. As the system lets one process lock a file twice, and drops the lock
    when the process closes any descriptor of the file, the locks of this process are
    also kept in a list (fcntl_locking(2)).

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
        self._key = (0, 0)
        self._pid = 0

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock; a forked child of it has not."""
        return self._fd is not None and self._pid == os.getpid()

    def acquire(self, *, seconds: float) -> None:
        """Take the lock, waiting at most `seconds`.

        Raises
        ------
        StateError
            If another holder keeps it; it is named where the system tells.
        OSError
            If the file cannot be opened.
        """
        deadline = time.monotonic() + seconds
        while not self._try():
            if time.monotonic() >= deadline:
                from .holders import holders

                who = holders(self.path)
                raise StateError(f"another process{who} uses {self._what}")
            time.sleep(_POLL_SECONDS)

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back, and with `remove` its file; harmless if not held."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with _guard:
            try:
                if remove and self._pid == os.getpid():
                    os.unlink(self.path)
            finally:
                if self._pid == os.getpid():
                    _held.discard(self._key)
                os.close(fd)

    def _try(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with _guard:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(self.path, follow_symlinks=False)
                if (found.st_dev, found.st_ino) in _held:
                    return False
            fd = os.open(self.path, flags, 0o600)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A holder that removed the file leaves waiters with a lock on nothing.
                found = os.stat(self.path, follow_symlinks=False)
                if os.path.samestat(found, os.fstat(fd)):
                    self._fd, self._pid = fd, os.getpid()
                    self._key = found.st_dev, found.st_ino
                    _held.add(self._key)
                    return True
            except (BlockingIOError, FileNotFoundError):
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            return False


def _start_as_child() -> None:
    _held.clear()
    _guard.release()


os.register_at_fork(
    before=_guard.acquire,
    after_in_parent=_guard.release,
    after_in_child=_start_as_child,
)
