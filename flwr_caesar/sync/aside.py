"""Damaged state is kept beside the good one, for somebody to look at."""

from __future__ import annotations

import os
import re
import shutil
import time
from logging import WARNING
from pathlib import Path

from flwr.supercore import log

from .files import sync_folder

MOST_KEPT = 2
"""How many damaged folders or files are kept; older ones are removed."""

_ASIDE = re.compile(r"[\w.-]+\.damaged-(\d+)", re.ASCII)


def is_aside(name: str) -> bool:
    """Whether a name was given by `set_aside`."""
    return bool(_ASIDE.fullmatch(name))


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder, and return what it is called now.

    Raises
    ------
    OSError
        If it cannot be renamed; it is as it was then.
    """
    kept = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    os.rename(path, kept)
    sync_folder(path.parent)
    for old in oldest_aside(path.parent)[:-MOST_KEPT]:
        if old != kept:
            remove_aside(old)
    return kept


def oldest_aside(folder: Path) -> list[Path]:
    """Return what was set aside in a folder, the oldest first."""
    found = []
    for entry in os.scandir(folder):
        match = _ASIDE.fullmatch(entry.name)
        if match:
            found.append((int(match[1]), Path(entry.path)))
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
