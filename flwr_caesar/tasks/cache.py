"""Arrays that take long to make, in the user's cache folder, mapped into memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from .examples import Array

Check = Callable[[Mapping[str, Array]], None]


def cached_arrays(
    key: str,
    names: Sequence[str],
    make: Callable[[], Mapping[str, Array]],
    check: Check,
) -> Mapping[str, Array]:
    """Return arrays from the user's cache folder, or make them and put them there.

    Every process on a device reads the same pages of the same files. Processes that
    make the arrays at the same time write equal files, each of which appears whole. A
    copy that is missing or damaged is made anew; a folder that cannot be written costs
    the time to make the arrays, and nothing else.

    Parameters
    ----------
    key : str
        Names the data set, its source and the form of its arrays: another source or
        another form has another key.
    names : sequence of str
        Names of the arrays.
    make : callable
        Returns the arrays by name; asked only if there is no usable copy.
    check : callable
        Raises ValueError for arrays that are not such as `make` returns.

    Returns
    -------
    mapping of str to ndarray
        Read-only.
    """
    folder = cache_folder() / key
    with suppress(OSError, ValueError, EOFError):
        found = {name: _read(folder / f"{name}.npy") for name in names}
        check(found)
        return found
    made = make()
    check(made)
    with suppress(OSError):
        for name in names:
            _write(folder / f"{name}.npy", made[name])
    for array in made.values():
        array.setflags(write=False)
    return made


def key_of(name: str, facts: object) -> str:
    """Return a key for something with this name and, in its ``repr``, these facts."""
    return f"{name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def cache_folder() -> Path:
    """Return the folder in which this user's copies are; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flwr-caesar"


def _read(path: Path) -> Array:
    return np.lib.format.open_memmap(path, mode="r")


def _write(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
