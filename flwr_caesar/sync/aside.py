"""Damaged state is kept beside the good one, for somebody to look at."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from logging import WARNING
from pathlib import Path

from flwr_caesar.flower import log

from .files import sync_folder

MOST_KEPT = 2
"""How many damaged folders or files are kept; older ones are removed."""

_MARK = ".damaged-"


def is_aside(name: str) -> bool:
    """Whether a name was given by `set_aside`."""
    return _when(name) is not None


def _when(name: str) -> int | None:
    """Return the date in the name of what was set aside; `None` for other names."""
    if _MARK not in name:
        return None
    match = re.fullmatch(rf"[\w.-]+{re.escape(_MARK)}(\d+)", name, re.ASCII)
    return int(match[1]) if match else None


def set_aside(path: Path, *, copy: bool = False) -> Path:
    """Rename a damaged file or folder, and return what it is called now.

    Parameters
    ----------
    path : Path
        What is damaged.
    copy : bool
        Whether to copy a file instead, where something must stay in its place.

    Raises
    ------
    OSError
        If it cannot be kept; it is as it was then.
    """
    kept = path.with_name(f"{path.name}{_MARK}{time.time_ns()}")
    if copy:
        shutil.copyfile(path, kept)
        shutil.copymode(path, kept)
    else:
        os.rename(path, kept)
    _keep_newest(path.parent)
    return kept


def set_files_aside(folder: Path, what: str, files: Iterable[Path]) -> Path:
    """Move files, those that are there, to a new folder; return it.

    Raises
    ------
    OSError
        If they cannot be moved.
    """
    kept = folder / f"{what}{_MARK}{time.time_ns()}"
    kept.mkdir(mode=0o700)
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            os.rename(file, kept / file.name)
    _keep_newest(folder)
    return kept


def oldest_aside(folder: Path) -> list[Path]:
    """Return what was set aside in a folder, the oldest first."""
    found = []
    for entry in os.scandir(folder):
        when = _when(entry.name)
        if when is not None:
            found.append((when, Path(entry.path)))
    return [path for _, path in sorted(found)]


def remove_aside(path: Path) -> bool:
    """Remove what was set aside; return whether it is gone, and log it if not."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as err:
        log(WARNING, "Could not remove %s: %s", path, err)
        return False
    return True


def _keep_newest(folder: Path) -> None:
    sync_folder(folder)
    for old in oldest_aside(folder)[:-MOST_KEPT]:
        remove_aside(old)
