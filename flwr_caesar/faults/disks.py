"""Devices' disks that fail, move, and are locked by what a killed app left behind."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from flwr_caesar.codec.contract.layout import Array
from flwr_caesar.sync.folder import FolderStore
from flwr_caesar.sync.state import DeviceState

from .chance import Chance
from .odds import DISK_FAULTS

CANNOT_READ = (
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
    errno.ENOMEM,
    errno.EACCES,
)
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_MACHINE_FILES = frozenset(
    {
        "/etc/machine-id",
        "/var/lib/dbus/machine-id",
        "/proc/sys/kernel/random/boot_id",
    }
)
_MOST_OPENED = 4  # Files that a store opens to load a state.
# No wait for the disk is to be measured here: the law is about what is written.
_QUICK = Path("/dev/shm")


@contextmanager
def quick_folder() -> Iterator[Path]:
    """Make a folder for a run, in memory where there is such a place, and remove it."""
    place = _QUICK if os.access(_QUICK, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="flwr-caesar-faults-", dir=place) as made:
        yield Path(made)


class Disk:
    """The state folder of one device, a real one.

    Parameters
    ----------
    root : Path
        The folder.
    chance : Chance
        Decides how something fails.
    """

    def __init__(self, root: Path, chance: Chance) -> None:
        self.root = root
        self._chance = chance
        self._kept: DeviceState | None = None

    def put(self, state: DeviceState | None) -> None:
        """Bring the disk to what a device's state is, if an operator changed that."""
        if state is self._kept:
            return
        if state is None:
            shutil.rmtree(self.root)
        else:
            with FolderStore(self.root) as store:
                store.save(state)
        self._kept = state

    def draw(self) -> str:
        """Return what strikes it; empty for nothing, and if nothing is on it."""
        kind = self._chance.pick(DISK_FAULTS, count=False)
        if not kind or self._kept is None:
            return ""
        self._chance.faults[kind] += 1
        return kind

    def load(self, lineage: int) -> DeviceState | None:
        """Return what is on the disk, as a healthy machine reads it."""
        with FolderStore(self.root) as store:
            self._kept = store.load(lineage)
        return self._kept

    def saved(self, state: DeviceState | None) -> None:
        """Learn what a device has just written."""
        self._kept = state

    @contextmanager
    def struck(self, kind: str) -> Iterator[None]:
        """Let a fault of `odds.DISK_FAULTS` strike while a device works.

        Parameters
        ----------
        kind : str
            The fault; empty for none.
        """
        with ExitStack() as stack:
            if kind == "disk-read-error":
                left = self._chance.random.randrange(_MOST_OPENED)
                stack.enter_context(self._failing(CANNOT_READ, os.O_RDONLY, left))
            elif kind == "disk-write-error":
                stack.enter_context(self._failing(_CANNOT_WRITE, os.O_WRONLY, 0))
            elif kind == "disk-moved":
                self._move()
                stack.enter_context(_another_machine(self._chance))
            elif kind == "app-killed-with-child" and self._kept is not None:
                stack.enter_context(_left_by_a_killed_app(self.root, self._kept))
            yield

    @contextmanager
    def _failing(self, codes: tuple[int, ...], mode: int, left: int) -> Iterator[None]:
        """Let one file not be opened, after some that are."""
        code, real, within = self._chance.random.choice(codes), os.open, str(self.root)

        def fail(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            nonlocal left
            if str(path).startswith(within) and flags & os.O_ACCMODE == mode:
                left -= 1
                if left == -1:
                    raise OSError(code, os.strerror(code), str(path))
            return real(path, flags, *rest, **options)

        with mock.patch.object(os, "open", fail):
            yield

    def _move(self) -> None:
        """Make every file anew, as a system does whose disk is an overlay."""
        if not self.root.exists():
            return
        copy = self.root.with_name(self.root.name + ".moved")
        shutil.copytree(self.root, copy)
        shutil.rmtree(self.root)
        copy.rename(self.root)


@contextmanager
def _another_machine(chance: Chance) -> Iterator[None]:
    """Let the system tell another id, boot, name and network address."""
    number = chance.random.getrandbits(48)

    def redirected(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *rest: Any, **options: Any) -> Any:
            if str(path) not in _MACHINE_FILES:
                return real(path, *rest, **options)
            handle, name = tempfile.mkstemp()
            os.write(handle, f"{number:032x}\n".encode())
            os.close(handle)
            try:
                return real(name, *rest, **options)
            finally:
                os.unlink(name)

        return opened

    with (
        mock.patch.object(os, "open", redirected(os.open)),
        mock.patch.object(io, "open", redirected(io.open)),
        mock.patch("builtins.open", redirected(open)),
        mock.patch.object(uuid, "getnode", return_value=number),
        mock.patch.object(socket, "gethostname", return_value=f"machine-{number}"),
    ):
        yield


@contextmanager
def _left_by_a_killed_app(root: Path, state: DeviceState) -> Iterator[None]:
    """Let an app be killed that holds the state's lock and has forked a child."""
    ready, alive = os.pipe(), os.pipe()
    app = os.fork()
    if app == 0:
        os.close(ready[0])
        os.close(alive[1])
        store = FolderStore(root, lock_seconds=0)
        store.load(state.lineage)
        if os.fork() == 0:
            os.write(ready[1], b"x")
            os.read(alive[0], 1)  # until this process is done with it
            os._exit(0)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.close(ready[1])
        os.close(alive[0])
        os.read(ready[0], 1)
        os.kill(app, signal.SIGKILL)
        os.waitpid(app, 0)
        yield
    finally:
        os.close(ready[0])
        os.close(alive[1])


def same_state(left: DeviceState | None, right: DeviceState | None) -> bool:
    """Whether two states say the same, to the last bit."""
    if left is None or right is None:
        return left is right
    told, other = vars(left), vars(right)
    return all(_equal(told[name], other[name]) for name in told)


def _equal(left: Any, right: Any) -> bool:
    if not isinstance(left, Mapping):
        return bool(left == right)
    arrays: Mapping[str, Array] = right
    return left.keys() == arrays.keys() and all(
        np.array_equal(value, arrays[name]) for name, value in left.items()
    )
