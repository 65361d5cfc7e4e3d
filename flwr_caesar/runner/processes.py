"""Finding and ending the processes that a process started, however they detached.

Flower and Ray put their children into sessions and process groups of their own, so a
signal to one group does not reach them all. A child is recognised here by descent, by
a session that a descendant leads, or by a variable in the environment it was born
with. Needs ``/proc``; without it only the first process's group is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NOBODY = -1  # no process has this id


@dataclass(frozen=True)
class Process:
    """One process; `started` (clock ticks since boot) tells a reused id apart."""

    pid: int
    started: int


@dataclass(frozen=True)
class _Entry:
    process: Process
    parent: int
    session: int


def _entries() -> list[_Entry]:
    found = []
    for folder in _PROC.iterdir() if _PROC.is_dir() else ():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            fields = stat.rpartition(")")[2].split()
            if fields[0] in "ZX":
                continue
            process = Process(pid=int(folder.name), started=int(fields[19]))
            found.append(_Entry(process, int(fields[1]), int(fields[3])))
    return found


def _born_with(pid: int, variable: bytes) -> bool:
    try:
        return variable in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def family(root: int, marker: str, known: set[Process] | None = None) -> set[Process]:
    """Return the living processes that `root` started, itself included.

    Parameters
    ----------
    root : int
        Id of the first process, the leader of its own session.
    marker : str
        ``NAME=value`` in its environment, which no other process has.
    known : set of Process, optional
        Members found before: their children count too.
    """
    entries = _entries()
    alive = {entry.process for entry in entries}
    variable = marker.encode()
    members = (known or set()) & alive
    members |= {
        e.process
        for e in entries
        if e.process.pid == root or _born_with(e.process.pid, variable)
    }
    while True:
        ids = {process.pid for process in members}
        grown = members | {
            e.process
            for e in entries
            if e.parent in ids or (e.session in ids and e.session != os.getsid(0))
        }
        grown = {process for process in grown if process.pid != os.getpid()}
        if grown == members:
            return members
        members = grown


def _signal(members: set[Process], number: signal.Signals) -> None:
    for process in members:
        with contextlib.suppress(OSError):
            os.kill(process.pid, number)


def end_family(
    root: subprocess.Popen[bytes], marker: str, *, grace_s: float = 5.0
) -> None:
    """End `root` and all that it started: ask, wait, then kill.

    Parameters
    ----------
    root : subprocess.Popen
        Started with ``start_new_session=True``.
    marker : str
        See `family`.
    grace_s : float
        Seconds that the processes have to end by themselves.
    """
    members = family(root.pid, marker)
    if root.poll() is None:
        root.terminate()
    asked = time.monotonic()
    killing = False
    while root.poll() is None or members:
        members = family(root.pid, marker, members)
        if root.poll() is None:
            late = time.monotonic() - asked > grace_s
        else:
            # Nobody is left to end the others.
            late = time.monotonic() - asked > grace_s / 2
            _signal(members, signal.SIGTERM)
        if late:
            _signal(members, signal.SIGKILL)
            if not _PROC.is_dir():
                with contextlib.suppress(OSError):
                    os.killpg(root.pid, signal.SIGKILL)
            if killing and time.monotonic() - asked > 3 * grace_s:
                break
            killing = True
        time.sleep(0.05)


def end_marked(marker: str, *, grace_s: float) -> None:
    """End the processes that were born with a variable, and all that they started.

    Parameters
    ----------
    marker : str
        See `family`.
    grace_s : float
        Seconds that they have to end by themselves; then they are killed.
    """
    members = family(_NOBODY, marker)
    asked = time.monotonic()
    number = signal.SIGTERM
    while members and time.monotonic() - asked < 3 * grace_s:
        _signal(members, number)
        time.sleep(0.05)
        if time.monotonic() - asked > grace_s:
            number = signal.SIGKILL
        members = family(_NOBODY, marker, members)
