"""Text that another process may be writing: only its whole lines and rows count."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

_TAIL_BYTES = 1 << 18
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_BOX = "╭╮╰╯│─"  # Flower draws boxes around its errors, and wraps them
_EXCEPTION = re.compile(
    r"(?:^|[:)] +)((?:[A-Za-z_]\w*\.)*"
    r"(?:[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt)|Exception)(?::.*|))$"
)
# What Flower's simulation engine says on top of the exception that ended it.
_NO_REASON = ("Simulation Runtime crashed.", "Ending simulation.")
_LEVEL = re.compile(r"^[A-Z]+ *: +")
_LONGEST = 600


def whole_lines(path: Path, *, most: int | None = None) -> str:
    """Return what a file has up to its last line end; nothing if it is not there.

    Parameters
    ----------
    path : Path
        UTF-8; what is not is replaced.
    most : int, optional
        Bytes to read from its end; what then is no whole line is left out.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            start = 0 if most is None else max(size - most, 0)
            file.seek(max(start - 1, 0))
            data = file.read()
    except FileNotFoundError:
        return ""
    if start:
        data = data[data.find(b"\n") + 1 :] if b"\n" in data else b""
    return data[: data.rfind(b"\n") + 1].decode("utf-8", "replace")


def whole_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file up to the first that is torn or of no round.

    None if it is not there.
    """
    text = io.StringIO(whole_lines(path), newline="")
    rows: list[dict[str, str]] = []
    try:
        for row in csv.DictReader(text, strict=True):
            if None in row or None in row.values():
                break
            if not row.get("round", "").isdecimal():  # damaged, or another table
                break
            rows.append(row)
    except csv.Error:  # a quoted field does not end
        pass
    return rows


def entries(log: Path) -> list[str]:
    """Return the last entries of a Flower log: its lines, and its boxes as one line.

    Parameters
    ----------
    log : Path
        At most its last 256 kB are read, from the start of a line.
    """
    found: list[str] = []
    box: list[str] | None = None
    for raw in _ANSI.sub("", whole_lines(log, most=_TAIL_BYTES)).split("\n"):
        line = raw.strip()
        if line.startswith("╭"):
            box = []
        elif line.startswith("╰"):
            found += [" ".join(box)] if box else []
            box = None
        elif line.strip(_BOX):
            inner = line.strip(_BOX).strip() if line.startswith("│") else line
            (found if box is None else box).append(inner)
    return found


def last_entry(log: Path) -> str:
    """Return the last entry of a Flower log, or that there is none."""
    return shortened(next(reversed(entries(log)), "nothing yet"))


def reason(log: Path) -> str:
    """Find why a run failed: the last exception in its log, else the last entry."""
    said = next(reversed(entries(log)), "it said nothing")
    return exception_in(log) or shortened(_LEVEL.sub("", said))


def exception_in(log: Path) -> str:
    """Return the last exception in a Flower log; empty if there is none.

    One that only says that the simulation ended counts if there is no other.
    """
    said = [_LEVEL.sub("", entry) for entry in entries(log)]
    matches = filter(None, map(_EXCEPTION.search, reversed(said)))
    found = [match.group(1) for match in matches]
    telling = (text for text in found if not text.endswith(_NO_REASON))
    return shortened(next(telling, found[0] if found else ""))


def shortened(text: str) -> str:
    """Return a text as one line of at most 600 characters, cut after a word."""
    line = " ".join(text.split())
    if len(line) <= _LONGEST:
        return line
    return line[:_LONGEST].rpartition(" ")[0] + " …"


def span(seconds: float) -> str:
    """Return how long something takes, as people say it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
