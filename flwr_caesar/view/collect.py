"""The runs that a report is about, and with which settings they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from flwr_caesar.results.files import DEVICES, ROUNDS
from flwr_caesar.runner.folder import OVERRIDES, configurations
from flwr_caesar.runner.outcome import Outcome
from flwr_caesar.runner.sweep import read_sweep
from flwr_caesar.view.read import read_run
from flwr_caesar.view.rows import last_rows, number, text, whole

_MOST_NAMED = 3
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
    YAMLError,
    OmegaConfBaseException,
)


class NoRunError(ValueError):
    """There is nothing to report on."""


@dataclass(frozen=True)
class Collected:
    """What a report is made of.

    Parameters
    ----------
    name : str
        Of the folder.
    outcomes : tuple of Outcome
        The runs.
    settings : mapping of str to str
        Configuration files of the first run, by name.
    config : mapping
        What the first of these says.
    unfinished : tuple of str
        Folders of runs that did not come to their end.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    settings: Mapping[str, str]
    config: Mapping[str, Any]
    unfinished: tuple[str, ...] = ()


def collect(*folders: Path) -> Collected:
    """Read the folders of runs, or of sweeps.

    Runs that did not come to their end are taken as far as they got. Runs of several
    folders may differ in anything: none is another seed of one in another folder.

    Raises
    ------
    NoRunError
        If there is no run with a finished round.
    """
    read = []
    for folder in folders:
        own = (folder.resolve().name,) if len(folders) > 1 else ()
        for place, one in _read(folder):
            read.append((place, replace(one, overrides=(*one.overrides, *own))))
    outcomes = [replace(one, summary=_clean(one.summary)) for _, one in read]
    places = [place for place, _ in read]
    unfinished = [
        p.name for p, o in zip(places, outcomes, strict=True) if not o.summary
    ]
    found = [
        outcome if outcome.summary else _so_far(place, outcome)
        for place, outcome in zip(places, outcomes, strict=True)
    ]
    if not any(outcome.summary for outcome in found):
        raise NoRunError(
            f"{folders[0]}: no run with a finished round is here; name a run's folder, "
            f"which has {ROUNDS}, or a sweep's{_below(folders[0])}"
        )
    told = read_run(places[0])
    return Collected(
        ", ".join(folder.resolve().name for folder in folders),
        tuple(_checked(outcome) for outcome in found),
        {one["file"]: one["text"] for one in told["settings"]},
        _config(places[0]),
        tuple(unfinished),
    )


def _read(folder: Path) -> list[tuple[Path, Outcome]]:
    if not folder.is_dir():
        raise NoRunError(f"{folder}: no such folder")
    try:
        if any(folder.glob(f"*/{OVERRIDES}")):
            return [(folder / one.folder, one) for one in read_sweep(folder)]
        return [(folder, Outcome.read(folder))]
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise NoRunError(f"{folder}: cannot be read: {reason}") from None


def _below(folder: Path) -> str:
    """Return the newest runs below a folder, to name one of them."""
    files = [*folder.glob(f"*/{ROUNDS}"), *folder.glob(f"*/*/{ROUNDS}")]
    found = sorted({file.parent for file in files})[-_MOST_NAMED:]
    return f", such as {' or '.join(map(str, found))}" if found else ""


def _so_far(place: Path, outcome: Outcome) -> Outcome:
    """Return a run without a summary with what its rounds add up to."""
    told = read_run(place)
    rounds = [row for row in told["rounds"] if row["accuracy"] is not None]
    rounds = rounds or told["rounds"]
    if not told["rounds"] or told["rounds"][-1]["round"] == 0:
        return outcome
    last = told["rounds"][-1]
    devices = last_rows(place / DEVICES)
    parts = ("seconds_encode", "seconds_decode")
    coding = sum(number(row.get(part)) or 0.0 for row in devices for part in parts)
    virtual = last["total_virtual_seconds"]
    summary = {
        "strategy": told["strategy"],
        "rounds": last["round"],
        "accuracy": rounds[-1]["accuracy"],
        "bytes_up": last["total_bytes_up"],
        "bytes_down": last["total_bytes_down"],
        "raw_bytes": last["total_raw_bytes"],
        "seconds": last["seconds"],
        "seconds_server": sum(row["seconds_server"] or 0.0 for row in told["rounds"]),
        "seconds_device": coding,
        "clock": "measured" if virtual is None else "virtual",
        "virtual_seconds": virtual,
    }
    return replace(
        outcome,
        summary=summary,
        rounds=tuple(last_rows(place / ROUNDS)),
        devices=tuple(devices),
    )


def _checked(outcome: Outcome) -> Outcome:
    """Return a run without the rows that are none."""
    needed = ["accuracy", "total_bytes_up", "total_bytes_down", "seconds"]
    needed += ["total_virtual_seconds"] if outcome.is_virtual else []
    rounds = tuple(
        row
        for row in outcome.rounds
        if all(number(row.get(name)) is not None for name in needed)
    )
    devices = tuple(
        {
            **row,
            "node_id": row.get("node_id", ""),
            "device_class": text(row.get("device_class", "")),
            "accuracy": "" if number(row.get("accuracy")) is None else row["accuracy"],
            "dropped": text(row.get("dropped", "")),
        }
        for row in outcome.devices
        if number(row.get("bytes_up")) is not None
    )
    return replace(outcome, rounds=rounds, devices=devices)


def _clean(summary: Any) -> dict[str, Any] | None:
    """Return a summary of which numbers are numbers; None if it is none."""
    if not isinstance(summary, dict) or whole(summary.get("rounds")) is None:
        return None
    found: dict[str, Any] = {"strategy": text(summary.get("strategy", "run"))}
    for key, value in summary.items():
        if key in ("machine", "versions") and isinstance(value, dict):
            found[key] = {text(k): text(v) for k, v in value.items()}
        elif key == "target" and isinstance(value, dict):
            figures = {str(k): number(v) for k, v in value.items()}
            figures["round"] = whole(value.get("round"))
            if figures.get("accuracy") is not None:
                found[key] = figures
        elif key == "clock":
            found[key] = text(value)
        elif key != "strategy":
            found[str(key)] = number(value)
    return found


def _config(place: Path) -> dict[str, Any]:
    for path in configurations(place)[-1:]:
        try:
            read = OmegaConf.to_container(OmegaConf.load(path))
        except UNREADABLE:
            break
        if isinstance(read, dict):
            return {str(key): value for key, value in read.items()}
    return {}
