"""The results of a strategy's rounds: a report, and the files of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from flwr_caesar.frozen import frozen
from flwr_caesar.records import RoundRecord

from .amounts import amount, times_fewer
from .files import DEVICES, PICTURE, REPORT, ROUNDS, SUMMARY, write_csv, write_whole
from .markdown import markdown
from .rows import device_rows, round_row
from .versions import machine, versions

_MOST_ROWS = 30
_REASON = 200


@frozen
class Results:
    """A history, and how good the model was.

    Parameters
    ----------
    strategy : str
        Its name.
    history : sequence of RoundRecord
        In order.
    metrics : mapping of int to mapping
        ``"accuracy"`` in [0, 1] and ``"loss"`` by round, where they are known. Round 0
        is the initial model.
    parameters : int
        Elements of the model.
    notes : sequence of str
        What limits cost, in whole sentences.
    """

    strategy: str
    history: Sequence[RoundRecord]
    metrics: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    parameters: int = 0
    notes: Sequence[str] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of ``rounds.csv``."""
        by_round: dict[int, list[RoundRecord]] = {n: [] for n in sorted(self.metrics)}
        for record in self.history:
            by_round.setdefault(record.server_round, []).append(record)
        rows = []
        up = down = raw = 0
        seconds = virtual = 0.0
        has_clock = any(record.virtual_seconds is not None for record in self.history)
        for number, records in sorted(by_round.items()):
            up += sum(record.bytes_up for record in records)
            down += sum(record.bytes_down for record in records)
            raw += sum(r.raw_bytes_up + r.raw_bytes_down for r in records)
            seconds += sum(record.seconds for record in records)
            totals = {
                "total_bytes_up": up,
                "total_bytes_down": down,
                "total_raw_bytes": raw,
            }
            metrics = self.metrics.get(number, {})
            row = round_row(number, records, metrics, totals, seconds=seconds)
            if has_clock:
                own = sum(record.virtual_seconds or 0.0 for record in records)
                virtual += own
                row |= {"virtual_seconds": own, "total_virtual_seconds": virtual}
            rows.append(row)
        return rows

    def summary(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds."""
        rows = self.rows()
        last = rows[-1] if rows else {}
        tested = [m for _, m in sorted(self.metrics.items()) if "accuracy" in m]
        devices = [device for record in self.history for device in record.devices]
        trained = [d for r in self.history if r.phase == "train" for d in r.devices]
        waits = [d.waiting for d in trained if d.seconds_round_trip > 0]
        virtual = last.get("total_virtual_seconds")
        return {
            "strategy": self.strategy,
            "rounds": last.get("round", 0),
            "accuracy": tested[-1]["accuracy"] if tested else None,
            "loss": tested[-1].get("loss") if tested else None,
            "bytes_up": last.get("total_bytes_up", 0),
            "bytes_down": last.get("total_bytes_down", 0),
            "raw_bytes": last.get("total_raw_bytes", 0),
            "seconds": last.get("seconds", 0.0),
            "dropped": sum(bool(device.dropped) for device in devices),
            "seconds_server": sum(record.seconds_server for record in self.history),
            "seconds_device": sum(d.seconds_encode + d.seconds_decode for d in devices),
            "clock": "measured" if virtual is None else "virtual",
            "virtual_seconds": virtual,
            "waiting_mean": sum(waits) / len(waits) if waits else 0.0,
            "waiting_max": max(waits, default=0.0),
            "target": None,
            "seed": None,
            "parameters": self.parameters,
            "notes": list(self.notes),
            "machine": machine(),
            "versions": versions(),
        }

    def report(self) -> str:
        """Return a table of the rounds and what they come to, as Markdown.

        Of more than 30 rounds some are shown, among them the first and the last.
        """
        rows = [row for row in self.rows() if row["round"]]
        if not rows:
            return f"{self.strategy}: no rounds yet."
        fewer = _fewer(rows[-1])
        saved = "" if fewer is None else f": {fewer:.1f} × fewer than uncompressed"
        told = [
            f"{self.strategy}, {len(rows)} rounds{_accuracy_of(self.summary())}.",
            f"{amount(rows[-1]['total_bytes_up'])} up, "
            f"{amount(rows[-1]['total_bytes_down'])} down, all devices{saved}.",
        ]
        said = [*filter(None, [self.unused()]), *self.notes]
        return "\n\n".join([" ".join(told), _table(rows), *said])

    def unused(self) -> str:
        """Return how many replies were not used and what is most often why."""
        devices = [device for record in self.history for device in record.devices]
        reasons = Counter(device.dropped for device in devices if device.dropped)
        if not reasons:
            return ""
        ((reason, _),) = reasons.most_common(1)
        return (
            f"{reasons.total()} of {len(devices)} replies were not used, most often "
            f"because of: {reason[:_REASON]}"
        )

    def save(self, folder: Path) -> None:
        """Write the files of a run into a folder.

        ``rounds.csv``, ``devices.csv``, ``summary.json``, ``report.md``, and a picture
        if matplotlib is installed.

        Parameters
        ----------
        folder : Path
            Made if it is not there; these files of it are replaced.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        self.save_rows(folder)
        write_whole(folder / REPORT, self.report() + "\n")
        write_whole(folder / SUMMARY, json.dumps(self.summary(), indent=2) + "\n")
        rows = [row for row in self.rows() if row["round"]]
        if rows:
            try:
                from .pictures import draw_run

                draw_run(rows, folder / PICTURE)
            except ImportError:
                pass

    def save_rows(self, folder: Path) -> None:
        """Write ``rounds.csv`` and ``devices.csv``, as they are so far."""
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / ROUNDS, self.rows())
        devices = [row for record in self.history for row in device_rows(record)]
        write_csv(folder / DEVICES, devices)


def _fewer(row: Mapping[str, Any]) -> float | None:
    sent = row["total_bytes_up"] + row["total_bytes_down"]
    return times_fewer(row["total_raw_bytes"], sent)


def _accuracy_of(summary: Mapping[str, Any]) -> str:
    accuracy = summary["accuracy"]
    return "" if accuracy is None else f", {100 * accuracy:.2f} % accuracy"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    every = -(-len(rows) // _MOST_ROWS)
    shown = [
        row for i, row in enumerate(rows, 1) if i % every == 0 or i in (1, len(rows))
    ]
    tested = any(row["accuracy"] is not None for row in rows)
    head = ["round", "devices", "not used", "up", "down", "× fewer so far", "seconds"]
    if tested:
        head.insert(1, "accuracy")
    table = [head]
    for row in shown:
        fewer = _fewer(row)
        cells = [
            str(row["round"]),
            str(row["devices"]),
            str(row["dropped"]),
            amount(row["bytes_up"]),
            amount(row["bytes_down"]),
            "–" if fewer is None else f"{fewer:.1f}",
            f"{row['seconds']:.1f}",
        ]
        if tested:
            known = row["accuracy"] is not None
            cells.insert(1, f"{100 * row['accuracy']:.2f} %" if known else "–")
        table.append(cells)
    return markdown(table)
