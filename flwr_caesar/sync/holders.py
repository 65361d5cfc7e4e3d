"""Which processes hold the lock on a file, to name them to an operator."""

from __future__ import annotations

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")
_COLUMNS = 8


def holders(*paths: Path, but: int = 0) -> str:
    """Return who else has locked one of these files, as `` (12, backup)``.

    Read from ``/proc/locks`` (proc_locks(5)), as opening a file and closing it again
    would drop every POSIX lock that this process has on it. Empty where Linux does not
    tell, as for a process in another container. A process with the id `but` is left
    out.
    """
    inodes = set()
    for path in paths:
        try:
            inodes.add(str(os.stat(path, follow_symlinks=False).st_ino))
        except OSError:
            continue
    try:
        lines = _LOCKS.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    found = set()
    for line in lines:
        # 1: POSIX  ADVISORY  WRITE 1234 fd:00:131 0 EOF; one that waits has "->".
        words = line.split()
        if len(words) == _COLUMNS and words[5].rpartition(":")[2] in inodes:
            found.add(int(words[4]))
    named = [_name(pid) for pid in sorted(found - {but}) if pid > 0]
    return f" ({'; '.join(named)})" if named else ""


def _name(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return str(pid)
    return f"{pid}, {command}"
