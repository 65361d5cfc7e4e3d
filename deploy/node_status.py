"""What a device's node said last, kept beside its state for the doctor to read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .whole_file import PRIVATE, write_whole

FILE_NAME = "node.json"
_LONGEST = 500


@dataclass(frozen=True)
class NodeStatus:
    """What a node said last.

    Parameters
    ----------
    line : str
        In words.
    at : float
        When, in seconds since 1970.
    pid : int
        Of its process.
    """

    line: str
    at: float
    pid: int

    def running(self, root: Path = Path("/")) -> bool:
        """Whether that process is still there."""
        try:
            command = (root / "proc" / str(self.pid) / "cmdline").read_bytes()
        except OSError:
            return False
        return b"node" in command and b"flwr" in command


def save_status(folder: Path, line: str, now: float) -> None:
    """Keep what a node says; raises `OSError` if that fails."""
    told = {"line": line[:_LONGEST], "at": now, "pid": os.getpid()}
    write_whole(folder / FILE_NAME, json.dumps(told), mode=PRIVATE)


def load_status(folder: Path) -> NodeStatus | None:
    """Return what a node said last; `None` if it never did, or it cannot be read."""
    try:
        told: Any = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        status = NodeStatus(
            str(told["line"])[:_LONGEST], float(told["at"]), told["pid"]
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return status if type(status.pid) is int else None
