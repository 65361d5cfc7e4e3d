"""How much memory the server has, and what of it may go to what it remembers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_SHARE = 8
_UNKNOWN = 8 << 30
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")


def memory_bytes() -> int:
    """Return the bytes that this process may use.

    Those of the machine, or of the control groups that it is in where these are less;
    8 GiB where neither can be told.
    """
    found = [_UNKNOWN]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _limits():
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            found.append(int(path.read_text("ascii")))
    return min(found)


def remembered_bytes() -> int:
    """Return the most bytes that one thing that is remembered takes by default."""
    return memory_bytes() // _SHARE


def _limits() -> list[Path]:
    """Return the files that may hold a limit, of version 2 and of version 1."""
    folders = [_CGROUPS]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in _OWN_GROUP.read_text("utf-8").splitlines():
            if line.startswith("0::/"):
                own = _CGROUPS / line.removeprefix("0::/")
                folders += [own, *own.parents]
    own_kind = [f / "memory.max" for f in folders if f.is_relative_to(_CGROUPS)]
    return [*own_kind, _CGROUPS / "memory" / "memory.limit_in_bytes"]
