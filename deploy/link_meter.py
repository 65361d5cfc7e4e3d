"""How many bytes passed through a metered interface, today and this month."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .whole_file import PRIVATE, write_whole

FILE_NAME = "link.json"
_LARGEST = 1 << 62


class LinkError(ValueError):
    """An interface's bytes cannot be counted; the message says why."""


def default_interface(root: Path = Path("/")) -> str:
    """Return the interface of the default route.

    Raises
    ------
    LinkError
        If there is none.
    """
    try:
        rows = (root / "proc/net/route").read_text("ascii").splitlines()[1:]
    except OSError as err:
        raise LinkError(f"the routes cannot be read: {err}") from err
    for fields in map(str.split, rows):
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            return fields[0]
    raise LinkError("no default route: write [metered] interface")


def read_counter(interface: str, root: Path = Path("/")) -> int:
    """Return the bytes in and out of an interface since it came up.

    Raises
    ------
    LinkError
        If there is no such interface.
    """
    folder = root / "sys/class/net" / interface / "statistics"
    try:
        return sum(int((folder / f"{way}_bytes").read_text()) for way in ("rx", "tx"))
    except (OSError, ValueError) as err:
        raise LinkError(
            f"the bytes of {interface} cannot be read: {err}; check [metered] interface"
        ) from err


@dataclass(frozen=True)
class Used:
    """Bytes that passed through an interface.

    Parameters
    ----------
    counter : int
        What the interface's own counter said last.
    day, month : str
        ``"2026-11-26"`` and ``"2026-11"``: since when the others count.
    today, this_month : int
        Bytes since then.
    """

    counter: int
    day: str
    month: str
    today: int = 0
    this_month: int = 0

    def after(self, counter: int, now: datetime) -> Used:
        """Return what was used when the counter says `counter`.

        A counter that went back started anew, at a boot or when the link came up.
        """
        more = counter - self.counter if counter >= self.counter else counter
        day, month = f"{now:%Y-%m-%d}", f"{now:%Y-%m}"
        today = self.today if day == self.day else 0
        this_month = self.this_month if month == self.month else 0
        return Used(counter, day, month, today + more, this_month + more)


def load_used(folder: Path, counter: int, now: datetime) -> Used:
    """Read what was kept; starts from zero where nothing usable is.

    Parameters
    ----------
    folder : Path
        The device's state folder.
    counter : int
        What the interface's counter says now.
    now : datetime
        By the clock on the wall.
    """
    fresh = Used(counter, f"{now:%Y-%m-%d}", f"{now:%Y-%m}")
    try:
        kept: Any = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        used = Used(**kept)
    except (OSError, ValueError, TypeError, RecursionError):
        return fresh
    counts = (used.counter, used.today, used.this_month)
    sound = all(type(n) is int and 0 <= n < _LARGEST for n in counts)
    if not (sound and isinstance(used.day, str) and isinstance(used.month, str)):
        return fresh
    return used.after(counter, now)


def save_used(folder: Path, used: Used) -> None:
    """Keep what was used; raises `OSError` if that fails."""
    write_whole(folder / FILE_NAME, json.dumps(vars(used)), mode=PRIVATE)
