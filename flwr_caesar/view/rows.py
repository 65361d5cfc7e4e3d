"""Rows and values of files that anybody may have written."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from flwr_caesar.runner.text import whole_lines

_MOST_BYTES = 1 << 25
_LONGEST = 500


def last_rows(path: Path, *, most: int = _MOST_BYTES) -> list[dict[str, str]]:
    """Return the last rows of a CSV file; those that are no rows of it are left out.

    Parameters
    ----------
    path : Path
        UTF-8, with a header.
    most : int
        Bytes to read from its end.
    """
    try:
        with path.open("rb") as file:
            head = file.readline(1 << 16).decode("utf-8", "replace")
        names = next(csv.reader([head]), [])
    except (OSError, csv.Error):
        return []
    body = whole_lines(path, most=most)
    if body.startswith(head.rstrip("\r\n")):
        body = body.partition("\n")[2]
    rows: list[dict[str, str]] = []
    reader = csv.reader(io.StringIO(body, newline=""))
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return rows
        except csv.Error:  # a field that does not end, or is longer than any of ours
            continue
        if len(cells) == len(names):
            rows.append(dict(zip(names, cells, strict=True)))


def number(value: object) -> float | None:
    """Return a finite number; None if it is none."""
    if not isinstance(value, (str, int, float)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """Return a whole number of at least 0; None if it is none."""
    found = number(value)
    if found is None or found < 0 or found > 1 << 53 or found != int(found):
        return None
    return int(found)


def text(value: Any) -> str:
    """Return a value as a printable text of at most 500 characters."""
    return "".join(c if c.isprintable() else " " for c in str(value)[:_LONGEST])
