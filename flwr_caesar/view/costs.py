"""Where bytes and seconds of runs went, from their devices' rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean

from flwr_caesar.results.amounts import MB
from flwr_caesar.runner.outcome import Cell
from flwr_caesar.view.rows import number

Rows = Iterable[Mapping[str, str]]


def megabytes_by_kind(cell: Cell) -> dict[str, float]:
    """Return megabytes by direction and phase, mean over seeds: ``"up, train"``."""
    found: dict[str, float] = defaultdict(float)
    for run in cell.runs:
        for row in run.devices:
            for way in ("up", "down"):
                sent = number(row.get(f"bytes_{way}")) or 0.0
                kind = f"{way}, {row.get('phase', '')[:20]}"
                found[kind] += sent / MB / len(cell.runs)
    return {kind: value for kind, value in found.items() if value}


def refused(cell: Cell) -> tuple[int, int, dict[str, int]]:
    """Return how many replies were not used, of how many, and by reason."""
    rows = [row for run in cell.runs for row in run.devices]
    reasons: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.get("dropped"):
            reasons[row["dropped"]] += 1
    return sum(reasons.values()), len(rows), dict(reasons)


def seconds_of_work(rows: Rows) -> dict[str, float]:
    """Return the mean seconds of a training on a device, by what they went to."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.get("phase") != "train" or row.get("dropped"):
            continue
        value = {name: number(row.get(name)) or 0.0 for name in _COLUMNS}
        virtual = value["virtual_download"] + value["virtual_upload"]
        if virtual > 0 or value["virtual_train"] > 0:
            parts = {
                "download": value["virtual_download"],
                "training": value["virtual_train"],
                "upload": value["virtual_upload"],
            }
        else:
            coding = value["seconds_encode"] + value["seconds_decode"]
            own = value["seconds_train"] + coding
            parts = {
                "training": value["seconds_train"],
                "coding": coding,
                "network, polling, start": max(value["seconds_round_trip"] - own, 0.0),
            }
        for name, seconds in {**parts, "waiting": value["waiting"]}.items():
            found[name].append(seconds)
    return {name: fmean(seconds) for name, seconds in found.items()}


_COLUMNS = (
    "virtual_download",
    "virtual_train",
    "virtual_upload",
    "seconds_train",
    "seconds_encode",
    "seconds_decode",
    "seconds_round_trip",
    "waiting",
)


def by_class(cell: Cell) -> dict[str, dict[str, float]]:
    """Return `seconds_of_work` of each class of devices; empty without classes."""
    rows: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for run in cell.runs:
        for row in run.devices:
            if row.get("device_class"):
                rows[row["device_class"]].append(row)
    return {
        name: found for name in sorted(rows) if (found := seconds_of_work(rows[name]))
    }


def first_downloads(cell: Cell) -> float:
    """Return the part of all bytes down that went to devices at their first time."""
    first = total = 0.0
    for run in cell.runs:
        met = set()
        for row in run.devices:
            down = number(row.get("bytes_down")) or 0.0
            total += down
            if row.get("node_id") not in met:
                first += down
                met.add(row.get("node_id"))
    return first / total if total else 0.0


def hottest(cell: Cell) -> tuple[float, int]:
    """Return the highest temperature told, and how often boards were throttled."""
    rows = [row for run in cell.runs for row in run.devices]
    heat = [v for row in rows if (v := number(row.get("celsius_max"))) is not None]
    throttled = sum(int(number(row.get("over_current")) or 0) for row in rows)
    return max(heat, default=0.0), throttled
