"""What a run's devices did last, a row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flwr_caesar.view.rows import number, text, whole

_MOST_DEVICES = 2_000
_MOST_REFUSALS = 100
_BITS = 32  # of a parameter that is not compressed


def devices_of(rows: Sequence[Mapping[str, str]], latest: int) -> list[dict[str, Any]]:
    """Return what is known of each device, those that were asked last at first.

    Parameters
    ----------
    rows : sequence of mapping
        Of ``devices.csv``, oldest first.
    latest : int
        The last round.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        server_round = whole(row.get("round"))
        if server_round is None:
            continue
        node = text(row.get("node_id", ""))
        device = found.setdefault(node, _new(node))
        _update(device, row, server_round)
    for device in found.values():
        trained = device.pop("trained")
        device["age"] = None if trained is None else max(latest - trained, 0)
    ordered = sorted(found.values(), key=lambda device: -device["round"])
    return ordered[:_MOST_DEVICES]


def refusals_of(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the last replies that were not used, oldest first."""
    found = []
    for row in reversed(rows):
        if row.get("dropped"):
            where = f"round {text(row.get('round'))}, device {text(row.get('node_id'))}"
            what = f"{where}: {text(row['dropped'])}"
            found.append({"kind": "not used", "text": what})
            if len(found) == _MOST_REFUSALS:
                break
    return found[::-1]


def _new(node: str) -> dict[str, Any]:
    names = ("model", "rate", "batch", "link", "watts", "celsius", "trained")
    return {
        "node": node,
        "class": "",
        "round": 0,
        "refusals": 0,
        "reason": "",
        "bytes_up": 0.0,
        "bytes_down": 0.0,
        **dict.fromkeys(names),
    }


def _update(device: dict[str, Any], row: Mapping[str, str], server_round: int) -> None:
    up, down = number(row.get("bytes_up")) or 0, number(row.get("bytes_down")) or 0
    device["round"] = server_round
    device["bytes_up"] += up
    device["bytes_down"] += down
    device["class"] = text(row.get("device_class", "")) or device["class"]
    for name, column in (("watts", "watts_mean"), ("celsius", "celsius_max")):
        told = number(row.get(column))
        device[name] = device[name] if told is None else told
    if row.get("dropped"):
        device["refusals"] += 1
        device["reason"] = text(row["dropped"])
        return
    trains = row.get("phase") == "train"
    # It was sent the model of the round before, to train on; after it, to test.
    device["model"] = server_round - 1 if trains else server_round
    link = _bytes_per_second(row, up, down)
    device["link"] = device["link"] if link is None else link
    if not trains:
        return
    device["trained"] = server_round
    raw = number(row.get("raw_bytes_up"))
    device["rate"] = _BITS * up / raw if raw else device["rate"]
    device["batch"] = whole(row.get("batch_size")) or device["batch"]


def _bytes_per_second(row: Mapping[str, str], up: float, down: float) -> float | None:
    """Return how fast a device's link was; what is measured includes waiting."""
    virtual = [number(row.get(f"virtual_{way}")) or 0 for way in ("download", "upload")]
    if sum(virtual) > 0:
        return (up + down) / sum(virtual)
    left = number(row.get("seconds_round_trip")) or 0.0
    for part in ("train", "encode", "decode", "start"):
        left -= number(row.get(f"seconds_{part}")) or 0.0
    return (up + down) / left if left > 0 else None
