"""Device states in a folder: durable, owner-only, one process at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

from flwr.supercore import log

from .errors import DamagedStateError, StateError
from .files import (
    StoredFile,
    checksum,
    read_arrays,
    remove_others,
    replace_durably,
    sync_folder,
    to_chunks,
    write_arrays,
)
from .lock import FileLock
from .packing import describe, pack_memory, restore, seal, unseal
from .state import DeviceState

MANIFEST = "state.json"
_MAX_MANIFEST_BYTES = 1 << 20
_LINEAGE = re.compile(r"[0-9a-f]{16}")
_LOCK = re.compile(r"[0-9a-f]{16}\.lock")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def default_state_dir() -> Path:
    """Return the folder used where the node config has no ``state-dir``."""
    home = os.environ.get("XDG_STATE_HOME", "")
    # The base directory specification: a relative path there is to be ignored.
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    return base / "flwr-caesar"


@dataclass(frozen=True)
class _Saved:
    state: DeviceState
    model: StoredFile
    memory: StoredFile


class FolderStore:
    """Keeps each lineage's state in a sub-folder; the manifest is the commit point.

    A lineage is locked from the first `load` or `save` until `close`. The manifest
    carries the sub-folder's inode number and a hash of the machine's id, so a copy of
    a folder is not taken for the device that it was copied from.

    Parameters
    ----------
    root : path, optional
        The state folder of one device; `default_state_dir` if not given.
    max_bytes : int
        What all lineages may take; beyond it `save` evicts the other lineages, the
        longest unused first. The lineage that is saved is always kept.
    lock_seconds : float
        How long to wait for another process to let go of a lineage.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int = 4 << 30,
        lock_seconds: float = 10.0,
    ) -> None:
        self.root = default_state_dir() if root is None else Path(root).expanduser()
        self._max_bytes = max_bytes
        self._lock_seconds = lock_seconds
        self._locks: dict[str, FileLock] = {}
        self._saved: dict[str, _Saved] = {}

    def __enter__(self) -> FolderStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes use the lineages that this one used."""
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()
        self._saved.clear()

    def load(self, lineage: int) -> DeviceState | None:
        """Return the state of a lineage; `None`, with a log line, if unusable.

        Raises
        ------
        StateError
            If another process uses it, or others could read or change the folder.
        """
        name = _folder_name(lineage)
        self._saved.pop(name, None)
        try:
            folder = self._claim(name)
            if not (folder / MANIFEST).exists():
                return None
            saved = _read(folder)
        except (DamagedStateError, OSError) as err:
            log(
                WARNING,
                "State of lineage %s in %s is not usable: %s. The device starts anew: "
                "it fetches the whole model and what it had not sent yet is lost.",
                name,
                self.root,
                err,
            )
            return None
        if saved.state.lineage != lineage:
            log(WARNING, "State in %s is of another lineage; ignored", folder)
            return None
        self._saved[name] = saved
        with contextlib.suppress(OSError):
            remove_others(folder, (saved.model.name, saved.memory.name))
        return saved.state

    def save(self, state: DeviceState) -> None:
        """Keep a state durably: after a crash, either it or the one before loads.

        The model is written again only if the version changed, the rest only if it
        differs from what was saved or loaded last.

        Raises
        ------
        StateError
            If it cannot be kept; then whichever state the folder has is whole.
        """
        name = _folder_name(state.lineage)
        try:
            self._saved[name] = self._commit(
                self._claim(name), state, self._saved.pop(name, None)
            )
        except OSError as err:
            raise StateError(
                f"the device's state could not be kept in {self.root}: {err}; "
                f"{_advice(err)}"
            ) from err

    def _commit(self, folder: Path, state: DeviceState, last: _Saved | None) -> _Saved:
        memory = pack_memory(state)
        self._make_room(
            folder.name,
            sum(
                array.nbytes
                for part in (state.model, memory)
                for array in part.values()
            ),
        )
        new: list[StoredFile] = []
        try:
            if last and _same_model(last.state, state):
                model = last.model
            else:
                named = {f"model/{name}": array for name, array in state.model.items()}
                new.append(model := write_arrays(folder, "model", named))
            if last and _same_memory(last, state):
                stored = last.memory
            else:
                new.append(stored := write_arrays(folder, "memory", memory))
            manifest = {
                **describe(state),
                "owner": _owner(folder),
                "files": {"model": model.to_json(), "memory": stored.to_json()},
            }
            sync_folder(folder)
            replace_durably(folder, MANIFEST, seal(manifest))
        except OSError:
            for file in new:
                (folder / file.name).unlink(missing_ok=True)
            raise
        sync_folder(folder)
        with contextlib.suppress(OSError):
            remove_others(folder, (model.name, stored.name))
        return _Saved(state, model, stored)

    def _claim(self, name: str) -> Path:
        """Lock a lineage and return its folder, which is there and private."""
        folder = self.root / name
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if name not in self._locks:
            _make_private(self.root, self.root.stat())
            lock = FileLock(
                self.root / f"{name}.lock",
                what=f"the state in {folder}; wait for it, or give each SuperNode a "
                "state-dir of its own in its node config",
            )
            lock.acquire(seconds=self._lock_seconds)
            self._locks[name] = lock
        if not os.path.lexists(folder):
            folder.mkdir(mode=0o700)
            sync_folder(self.root)
        _make_private(folder, folder.lstat())
        return folder

    def _make_room(self, name: str, needed: int) -> None:
        others = []
        for entry in os.scandir(self.root):
            if _LINEAGE.fullmatch(entry.name) and entry.name != name:
                with contextlib.suppress(OSError):
                    others.append((*_age_and_size(Path(entry.path)), entry.name))
        total = needed + sum(size for _, size, _ in others)
        for _, size, other in sorted(others):
            if total <= self._max_bytes:
                return
            if other not in self._locks and self._evict(other):
                total -= size

    def _evict(self, name: str) -> bool:
        lock = FileLock(self.root / f"{name}.lock", what=name)
        try:
            lock.acquire(seconds=0.0)
            (self.root / name / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.root / name)
            lock.release(remove=True)
        except (StateError, OSError) as err:
            log(WARNING, "Could not evict lineage %s: %s", name, err)
            lock.release()
            return False
        log(INFO, "Evicted the state of lineage %s from %s", name, self.root)
        return True


def _folder_name(lineage: int) -> str:
    if not 0 < lineage < 1 << 64:
        raise StateError(f"{lineage} is not a lineage")
    return f"{lineage:016x}"


def _read(folder: Path) -> _Saved:
    with open(folder / MANIFEST, "rb") as file:
        manifest = unseal(file.read(_MAX_MANIFEST_BYTES))
    try:
        model = StoredFile.from_json(manifest["files"]["model"])
        memory = StoredFile.from_json(manifest["files"]["memory"])
        owner = manifest["owner"]
        inode, machine = owner["inode"], owner["machine"]
    except (KeyError, TypeError) as err:
        raise DamagedStateError(f"the manifest lacks {err}") from err
    here = _owner(folder)
    moved = machine and here["machine"] and machine != here["machine"]
    if moved or inode != here["inode"]:
        raise DamagedStateError("it was copied here from another folder or machine")
    named = read_arrays(folder, model)
    state = restore(
        manifest,
        {name.removeprefix("model/"): array for name, array in named.items()},
        read_arrays(folder, memory),
    )
    return _Saved(state, model, memory)


def _same_model(old: DeviceState, new: DeviceState) -> bool:
    named = bool(new.digest) and bool(old.model) == bool(new.model)
    return named and (old.version, old.digest) == (new.version, new.digest)


def _same_memory(last: _Saved, new: DeviceState) -> bool:
    old = last.state
    same = (
        old.residual is new.residual
        and old.codec_arrays is new.codec_arrays
        and old.extras is new.extras
        and old.pending == new.pending
    )
    # The mapping may be the same object and yet its arrays changed.
    return same and checksum(to_chunks(pack_memory(new))) == last.memory.checksum


def _owner(folder: Path) -> dict[str, Any]:
    try:
        machine = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        machine = b""
    # The id itself is not to leave /etc (machine-id(5)).
    hashed = hashlib.sha256(b"flwr-caesar" + machine).hexdigest()[:16]
    return {"inode": folder.stat().st_ino, "machine": hashed if machine else ""}


def _age_and_size(folder: Path) -> tuple[float, int]:
    files = list(os.scandir(folder))
    times = [file.stat().st_mtime for file in files if file.name == MANIFEST]
    sizes = [file.stat(follow_symlinks=False).st_size for file in files]
    return max(times, default=0.0), sum(sizes)


def _make_private(folder: Path, found: os.stat_result) -> None:
    """Tighten the permissions of a folder of ours, or refuse it."""
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{folder} is not a folder; remove it or change state-dir")
    if found.st_uid != os.geteuid():
        raise StateError(
            f"{folder} belongs to user {found.st_uid} and this process is user "
            f"{os.geteuid()}; change its owner or choose another state-dir"
        )
    if not found.st_mode & 0o077:
        return
    names = os.listdir(folder)
    if not (_LINEAGE.fullmatch(folder.name) or all(map(_is_ours, names))):
        raise StateError(
            f"{folder} is open to other users and has other things in it; choose a "
            f"state-dir of its own, or run: chmod 700 {folder}"
        )
    os.chmod(folder, 0o700)


def _is_ours(name: str) -> bool:
    return bool(_LINEAGE.fullmatch(name) or _LOCK.fullmatch(name))


def _advice(err: OSError) -> str:
    if err.errno in _FULL:
        return "free some space or point state-dir to another disk"
    if err.errno in _REFUSED:
        return "make the folder writable or point state-dir to one that is"
    return "check the disk or point state-dir to another one"
