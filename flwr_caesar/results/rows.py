"""Records as rows of ``rounds.csv`` and ``devices.csv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flwr_caesar.records import RoundRecord


def device_rows(record: RoundRecord) -> list[dict[str, Any]]:
    """Return a row for each device of a phase."""
    return [
        {"round": record.server_round, "phase": record.phase, **device.to_row()}
        for device in record.devices
    ]


def round_row(
    server_round: int,
    records: Sequence[RoundRecord],
    metrics: Mapping[str, Any],
    totals: Mapping[str, Any],
    *,
    seconds: float,
) -> dict[str, Any]:
    """Return the row of a round.

    Parameters
    ----------
    server_round : int
        Its number.
    records : sequence of RoundRecord
        Its phases.
    metrics : mapping
        ``"accuracy"`` and ``"loss"`` of the model after it, where they are known.
    totals : mapping
        ``"total_bytes_up"`` and the like of all rounds, this one included.
    seconds : float
        Since the run began.
    """
    trained = [record for record in records if record.phase == "train"]
    waiting_mean, waiting_max = trained[0].waiting if trained else (0.0, 0.0)
    return {
        "round": server_round,
        "accuracy": metrics.get("accuracy"),
        "loss": metrics.get("loss"),
        "bytes_up": sum(record.bytes_up for record in records),
        "bytes_down": sum(record.bytes_down for record in records),
        "total_bytes_up": totals["total_bytes_up"],
        "total_bytes_down": totals["total_bytes_down"],
        "devices": sum(len(record.devices) for record in trained),
        "dropped": sum(len(record.dropped) for record in records),
        "waiting_mean": waiting_mean,
        "waiting_max": waiting_max,
        "seconds_server": sum(record.seconds_server for record in records),
        "seconds": seconds,
        "total_raw_bytes": totals["total_raw_bytes"],
    }
