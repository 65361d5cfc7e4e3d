"""How much room there is on the disk of a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_UNKNOWN_SHARE = 4 << 30


def share_of_disk(folder: Path) -> int:
    """Return the bytes that states may take if nobody says: a tenth of the disk."""
    system = os.statvfs(folder)
    # Some network file systems say nothing of their size.
    return system.f_blocks * system.f_frsize // 10 or _UNKNOWN_SHARE


def require_room(folder: Path, size: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises
    ------
    OSError
        If fewer than `size` bytes are free for this user.
    """
    system = os.statvfs(folder)
    blocks = system.f_bavail if os.geteuid() else system.f_bfree
    free = blocks * system.f_frsize
    # Some network file systems say nothing of their size.
    if system.f_blocks and free < size:
        raise OSError(
            errno.ENOSPC,
            f"{size / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free",
        )
