"""Folders that nobody else may change what is in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from logging import WARNING
from pathlib import Path

from flwr_caesar.flower import log

from .errors import StateError


def require_private(
    folder: Path,
    found: os.stat_result,
    *,
    option: str,
    is_ours: Callable[[str], bool],
    closed_to: int = 0o077,
) -> None:
    """Take a folder as one of ours, with tighter permissions if they are too wide.

    Parameters
    ----------
    folder : Path
        The folder.
    found : os.stat_result
        Its status; of the link itself where a link is not to be followed.
    option : str
        What the user calls it, for the error.
    is_ours : callable
        Whether a name in the folder is one of ours: a folder that is open to others and
        has other things in it is the user's to close.
    closed_to : int
        Permission bits that must not be set.

    Raises
    ------
    StateError
        If it is no folder, or belongs to somebody else, or is open to others and has
        other things in it.
    """
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{folder} is not a folder; remove it or change {option}")
    if found.st_uid != os.geteuid():
        raise StateError(
            f"{folder} belongs to user {found.st_uid} and this process is user "
            f"{os.geteuid()}; change its owner or choose another {option}"
        )
    if not found.st_mode & closed_to:
        return
    if not all(map(is_ours, os.listdir(folder))):
        raise StateError(
            f"{folder} is open to other users and has other things in it; choose a "
            f"{option} of its own, or run: chmod 700 {folder}"
        )
    os.chmod(folder, 0o700)
    if found.st_mode & 0o022:
        log(
            WARNING,
            "Other users could change what is in %s until now; only its owner can",
            folder,
        )
