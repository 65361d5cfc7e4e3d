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
    if not rows:
        return
    text = io.StringIO(newline="")
    # A folder that an older version began has rows without the columns of this one.
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, fieldnames=list(columns))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())
