"""Files that whoever reads them finds whole."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr_caesar.records import PhaseProgress

EVENTS = "events.jsonl"
SUMMARY = "summary.json"
ROUNDS = "rounds.csv"
DEVICES = "devices.csv"
NOW = "now.json"
MODEL = "model.safetensors"
REPORT = "report.md"
PICTURE = "picture.png"


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: whoever reads it, or a resumed run, finds it whole.

    The runner takes the summary's appearance as the sign of success.
    """
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, encoding="utf-8", newline="")
    partial.replace(path)


def write_now(folder: Path, progress: PhaseProgress) -> None:
    """Replace what says how far the phase is that a run is in."""
    told = {
        "round": progress.server_round,
        "phase": progress.phase,
        "asked": progress.asked,
        "answered": progress.answered,
        "refused": dict(progress.refused),
        "time": time.time(),
    }
    write_whole(folder / NOW, json.dumps(told) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file by rows; nothing is written if there are none."""
    if rows:
        columns = _columns(rows)
        write_whole(path, ",".join(columns) + "\r\n" + _lines(columns, rows))


class GrowingCsv:
    """A CSV file of rows that become more: each write adds the new ones only.

    A writer that is stopped leaves at most a torn last line: whoever reads the file
    while it grows leaves that out, as `runner.text.whole_rows` does.

    Parameters
    ----------
    path : Path
        Of the file. The first write replaces what is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []
        self._count = 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Make the file one of `rows`, which begin with those of the last call."""
        count, self._count = self._count, 0  # after an error the next one writes all
        new = rows[count:]
        if count and _columns(new) in ([], self._columns):
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(_lines(self._columns, new))
        else:
            write_csv(self._path, rows)
            self._columns = _columns(rows)
        self._count = len(rows)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    # A folder that an older version began has rows without the columns of this one.
    return list(dict.fromkeys(name for row in rows for name in row))


def _lines(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, fieldnames=columns).writerows(rows)
    return text.getvalue()
