"""Files that whoever reads them finds whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"
SUMMARY = "summary.json"
ROUNDS = "rounds.csv"
DEVICES = "devices.csv"
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


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file by rows; nothing is written if there are none."""
    if not rows:
        return
    text = io.StringIO(newline="")
    # A folder that an older version began has rows without the columns of this one.
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, fieldnames=list(columns))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())
