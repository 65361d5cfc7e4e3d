"""Device states in a folder: durable, owner-only, one process at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from logging import INFO, WARNING
from pathlib import Path

from flwr_caesar.codec.contract.deferred import nbytes_of
from flwr_caesar.codec.contract.layout import Array, Arrays
from flwr_caesar.flower import log

from .aside import is_aside, oldest_aside, remove_aside, set_aside
from .disk import require_room, share_of_disk
from .errors import DamagedStateError, StateError
from .files import (
    fresh_name,
    remove_others,
    replace_durably,
    sync_folder,
    write_durably,
)
from .lock import FileLock
from .model_file import LEAST_BYTES, StoredModel, read_model, write_model
from .packing import (
    describe,
    pack_memory,
    seal,
    split_residual,
)
from .private import require_private
from .short import ShortResidual
from .sources import Sources
from .state import DeviceState
from .state_files import (
    MANIFEST,
    StateFiles,
    named,
    read_state,
    unchanging,
    unnamed,
    write_part,
)
from .tensors import Chunk, checksum, to_chunks

_LINEAGE_DIGITS, _LOCK = 16, ".lock"
_PROBE_BYTES = 4096
# Of a board without a clock of its own, files written before it asked for the time look
# old: no age is told by what is dated before 2020.
_CLOCK_IS_SET = 1_577_836_800.0
_ADVICE = {
    errno.ENOSPC: "free some space or point state-dir to another disk",
    errno.EDQUOT: "free some space or point state-dir to another disk",
    errno.EROFS: "make the folder writable or point state-dir to one that is",
    errno.EACCES: "make the folder writable or point state-dir to one that is",
    errno.EPERM: "make the folder writable or point state-dir to one that is",
    errno.EMFILE: "this process has too many files open: raise its limit (ulimit -n)",
    errno.ENFILE: "this machine has too many files open",
    errno.ENOMEM: "this machine has no memory left",
    errno.EEXIST: "remove what is there or point state-dir to a folder",
    errno.ENOTDIR: "remove what is there or point state-dir to a folder",
    errno.ELOOP: "replace the link by what it points to",
}


def default_state_dir() -> Path:
    """Return the folder used where the node config has no ``state-dir``."""
    home = os.environ.get("XDG_STATE_HOME", "")
    # The base directory specification: a relative path there is to be ignored.
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    return base / "flwr-caesar"


class FolderStore:
    """Keeps each lineage's state in a sub-folder; the manifest is the commit point.

    A lineage is locked from the first `load`, `prepare` or `save` until `close`. The
    folder says nothing of where it is: a device whose disk is moved, or whose system
    is made anew at each boot, stays itself, and of two copies the server finds the
    second by what it has sent (docs/sync.md).

    Parameters
    ----------
    root : path, optional
        The state folder of one device; `default_state_dir` if not given.
    max_bytes : int, optional
        What all lineages may take; beyond it, what is damaged and the other lineages
        are evicted, the longest unused first. The lineage in use is always kept. By
        default a tenth of the disk.
    max_days : float
        Other lineages that were not used for so many days are evicted.
    lock_seconds : float
        How long to wait for another process to let go of a lineage.
    now : callable
        Returns the date in nanoseconds since 1970.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int | None = None,
        max_days: float = 90.0,
        lock_seconds: float = 10.0,
        now: Callable[[], int] = Sources.now,
    ) -> None:
        self.root = default_state_dir() if root is None else Path(root).expanduser()
        self._max_bytes = max_bytes
        self._max_seconds = max_days * 24 * 3600
        self._lock_seconds = lock_seconds
        self._now = now
        self._locks: dict[str, FileLock] = {}
        self._files: dict[str, StateFiles] = {}
        self._known: dict[str, Array] = {}
        self._written: dict[str, Arrays] = {}

    def __enter__(self) -> FolderStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes use the lineages that this one used."""
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()
        self._files.clear()
        self._known.clear()
        self._written.clear()

    def load(self, lineage: int) -> DeviceState | None:
        """Return the state of a lineage; `None` if there is none.

        State that is damaged is put aside and said so in the log, and is none.

        Raises
        ------
        StateError
            If it cannot be read now, another process uses it, or others could change
            the folder. It is as it was.
        """
        name = _folder_name(lineage)
        self._files.pop(name, None)
        self._known.pop(name, None)
        self._written.pop(name, None)
        with self._explained("cannot be read now and is left as it is"):
            folder = self._claim(name)
            try:
                found = read_state(folder)
                if found and found[0].lineage != lineage:
                    raise DamagedStateError(f"it is of {found[0].lineage:016x}")
            except DamagedStateError as err:
                log(
                    WARNING,
                    "The state of lineage %s in %s is damaged: %s. It is kept as %s, "
                    "and the device starts anew: it fetches the whole model, and what "
                    "it had not sent yet is lost.",
                    name,
                    self.root,
                    err,
                    set_aside(folder),
                )
                return None
        if found is None:
            return None
        state, self._files[name], known = found
        if known is not None:
            self._known[name] = known
        with contextlib.suppress(OSError):
            remove_others(folder, self._files[name].names())
        return state

    def prepare(self, state: DeviceState) -> DeviceState:
        """Try the folder before the work, by writing the model that it starts from.

        What is written is what changed of the model that is kept, if that is less. If
        it is kept already, a few bytes are written instead and removed again.

        Returns
        -------
        DeviceState
            The same, with a model that nobody can write to; it is read from its file
            when it is used if it was written whole.

        Raises
        ------
        StateError
            If the folder cannot be written, or has no room for the outcome.
        """
        name = _folder_name(state.lineage)
        with self._explained("cannot be kept"):
            folder = self._claim(name)
            memory = sum(_nbytes(part) for part in (state.residual, state.codec_arrays))
            memory = max(memory + _nbytes(state.extras), _nbytes(state.model))
            self._make_room(name, _nbytes(state.model) + memory)
            before = self._files.get(name)
            chunks = to_chunks(named(state.model))
            sum_of = checksum(chunks)
            if before and before.model.holds(chunks, sum_of):
                probe = folder / fresh_name("probe", "tmp")
                write_durably(probe, [os.urandom(_PROBE_BYTES)])
                probe.unlink()
                model = before.model
            else:
                model = self._write_model(folder, chunks, sum_of, before)
            self._files[name] = replace(before or StateFiles(model), model=model)
            require_room(folder, memory)
            arrays = state.model
            if model.is_whole:
                arrays = unnamed(read_model(folder, model)[0])
            self._written[name] = unchanging(arrays)
            return replace(state, model=self._written[name])

    def save(self, state: DeviceState) -> None:
        """Keep a state durably: after a crash, either it or the one before loads.

        Only what differs from what was saved or loaded last is written.

        Raises
        ------
        StateError
            If it cannot be kept; then whichever state the folder has is whole.
        """
        name = _folder_name(state.lineage)
        with self._explained("could not be kept"):
            folder = self._claim(name)
            self._files[name] = self._commit(folder, state, self._files.pop(name, None))

    def _commit(
        self, folder: Path, state: DeviceState, last: StateFiles | None
    ) -> StateFiles:
        memory = pack_memory(state)
        self._make_room(folder.name, _nbytes(state.model) + _nbytes(memory))
        had = set(last.names() if last else ())
        kept: StateFiles | None = None
        try:
            if last is None or not self._is_written(folder.name, state.model):
                last = self._with_model(folder, state.model, last)
            kept = last
            rest, residual = split_residual(memory)
            if _nbytes(residual) < LEAST_BYTES:
                rest, residual = memory, {}
            kept = replace(kept, memory=write_part(folder, "memory", rest, kept.memory))
            file = None
            if residual:
                file = write_part(folder, "residual", residual, kept.residual)
            kept = replace(kept, residual=file)
            manifest = {**describe(state), "files": kept.to_json()}
            manifest["format"] = max(manifest["format"], kept.format)
            sealed = seal(manifest)
            sync_folder(folder)
            replace_durably(folder, MANIFEST, sealed)
        except (OSError, StateError):
            for name in set(kept.names() if kept else ()) - had:
                (folder / name).unlink(missing_ok=True)
            raise
        sync_folder(folder)
        with contextlib.suppress(OSError):
            remove_others(folder, kept.names())
        return kept

    def _is_written(self, name: str, model: Arrays) -> bool:
        """Whether a model is what `prepare` returned, which cannot have changed."""
        written = self._written.get(name, {})
        return model.keys() == written.keys() and all(
            array is written[key] for key, array in model.items()
        )

    def _with_model(
        self, folder: Path, model: Arrays, last: StateFiles | None
    ) -> StateFiles:
        """Write a model, if that is not the one of the files."""
        chunks = to_chunks(named(model))
        sum_of = checksum(chunks)
        if last is not None and last.model.holds(chunks, sum_of):
            return last
        written = self._write_model(folder, chunks, sum_of, last)
        return replace(last or StateFiles(written), model=written)

    def _write_model(
        self,
        folder: Path,
        chunks: Collection[Chunk],
        sum_of: int,
        last: StateFiles | None,
    ) -> StoredModel:
        before = last.model if last else None
        known = self._known.pop(folder.name, None)
        return write_model(folder, chunks, sum_of, before, known)

    def _claim(self, name: str) -> Path:
        """Lock a lineage and return its folder, which is there and private."""
        folder = self.root / name
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if name not in self._locks or not self._locks[name].is_held:
            require_private(
                self.root, self.root.stat(), option="state-dir", is_ours=_is_ours
            )
            lock = FileLock(
                self.root / f"{name}{_LOCK}",
                what=f"the state in {folder}; wait for it, or give each SuperNode a "
                "state-dir of its own in its node config",
            )
            lock.acquire(seconds=self._lock_seconds)
            self._locks[name] = lock
        try:
            found = folder.lstat()
        except FileNotFoundError:
            folder.mkdir(mode=0o700)
            sync_folder(self.root)
            found = folder.lstat()
        require_private(folder, found, option="state-dir", is_ours=lambda _: True)
        return folder

    def _make_room(self, name: str, needed: int) -> None:
        aside = []
        for path in oldest_aside(self.root):
            with contextlib.suppress(OSError):
                aside.append((path, _age_and_size(path)[1]))
        others = []
        for entry in os.scandir(self.root):
            if _is_lineage(entry.name) and entry.name != name:
                with contextlib.suppress(OSError):
                    others.append((*_age_and_size(Path(entry.path)), entry.name))
        total = needed + sum(size for *_, size in aside)
        total += sum(size for _, size, _ in others)
        most = share_of_disk(self.root) if self._max_bytes is None else self._max_bytes
        oldest = self._now() / 1e9 - self._max_seconds
        for path, size in aside:
            if total > most and remove_aside(path):
                total -= size
        for used, size, other in sorted(others):
            is_old = _CLOCK_IS_SET < used < oldest
            if total <= most and not is_old:
                continue
            if other not in self._locks and self._evict(other):
                total -= size

    def _evict(self, name: str) -> bool:
        lock = FileLock(self.root / f"{name}{_LOCK}", what=name)
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

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            code = err.errno or 0
            advice = _ADVICE.get(
                code, "check the disk or point state-dir to another one"
            )
            raise StateError(
                f"the device's state in {self.root} {what}: {err}; {advice}"
            ) from err


def _folder_name(lineage: int) -> str:
    if not 0 < lineage < 1 << 64:
        raise StateError(f"{lineage} is not a lineage")
    return f"{lineage:016x}"


def _nbytes(arrays: Arrays) -> int:
    if isinstance(arrays, ShortResidual):
        return arrays.nbytes
    return nbytes_of(arrays)


def _age_and_size(folder: Path) -> tuple[float, int]:
    files = list(os.scandir(folder))
    times = [file.stat().st_mtime for file in files if file.name == MANIFEST]
    sizes = [file.stat(follow_symlinks=False).st_size for file in files]
    return max(times, default=0.0), sum(sizes)


def _is_ours(name: str) -> bool:
    return _is_lineage(name.removesuffix(_LOCK)) or is_aside(name)


def _is_lineage(name: str) -> bool:
    return len(name) == _LINEAGE_DIGITS and not name.strip("0123456789abcdef")
