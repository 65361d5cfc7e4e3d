"""What is remarkable about runs, in words, and what to change next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr_caesar.results.amounts import amount, times_fewer
from flwr_caesar.runner.outcome import Cell, named
from flwr_caesar.view.costs import (
    first_downloads,
    hottest,
    refused,
    seconds_of_work,
)
from flwr_caesar.view.rows import number

_REFUSED = 0.02
_WAITING = 0.3
_FIRST = 0.3
_HOT = 85.0  # boards throttle not far above
_POINTS = 0.01
_RISING = 0.005
_REASON = 160
_COMPRESSES_DOWN = ("caesar", "caesar_whole", "caesar_paper", "pruning", "uniform")


@dataclass(frozen=True)
class Finding:
    """One remark.

    Parameters
    ----------
    what : str
        What is remarkable, in a sentence.
    next : str
        What to change, in a sentence; empty if nothing.
    """

    what: str
    next: str = ""


def in_short(cells: Sequence[Cell]) -> list[str]:
    """Return a sentence for each cell on what it sent and how good it got."""
    said = []
    for name, cell in named(cells):
        up, down = cell.mean("bytes_up"), cell.mean("bytes_down")
        if up is None or down is None:
            said.append(f"{name}: no run came to a finished round.")
            continue
        accuracy, raw = cell.mean("accuracy"), cell.mean("raw_bytes")
        got = "" if accuracy is None else f" for {100 * accuracy:.2f} % accuracy"
        fewer = times_fewer(raw or 0.0, up + down)
        saved = "" if fewer is None else f", {fewer:.1f} × fewer than uncompressed"
        said.append(f"{name} sent {amount(up)} up and {amount(down)} down{got}{saved}.")
    return said


def findings(
    cells: Sequence[Cell], config: Mapping[str, Any], unfinished: Sequence[str]
) -> list[Finding]:
    """Return what is remarkable, the most serious first.

    Parameters
    ----------
    cells : sequence of Cell
        Runs that differ only in their seed are one.
    config : mapping
        Of the first run.
    unfinished : sequence of str
        Folders of runs that did not come to their end.
    """
    found = []
    if unfinished:
        count = len(unfinished)
        runs = "1 run" if count == 1 else f"{count} runs"
        found.append(
            Finding(
                f"{runs} did not come to the end; what is here is how far they got: "
                f"{', '.join(unfinished)}.",
                "Look at flower.log in their folders; flwr-caesar run resume=FOLDER "
                "goes on with one.",
            )
        )
    best = max((cell.mean("accuracy") or 0.0 for cell in cells), default=0.0)
    for name, cell in named(cells):
        if cell.runs:
            found += _of_cell(name, cell, config, best)
    seeds = max((len(cell.runs) for cell in cells), default=0)
    if seeds == 1 and len(cells) > 1:
        found.append(
            Finding(
                "Each setting was run once: differences of some tenths of a point are "
                "chance.",
                "Add seed=1,2,3 to the sweep.",
            )
        )
    return found


def _of_cell(
    name: str, cell: Cell, config: Mapping[str, Any], best: float
) -> list[Finding]:
    found = _refused(name, cell) + _accuracy(name, cell, best)
    found += _bytes(name, cell) + _seconds(name, cell, config)
    heat, throttled = hottest(cell)
    if heat > _HOT or throttled:
        found.append(
            Finding(
                f"{name}: boards got up to {heat:.0f} °C and were throttled for their "
                f"current {throttled} times.",
                "Give them a policy or another power mode: docs/jetson.md.",
            )
        )
    return found


def _refused(name: str, cell: Cell) -> list[Finding]:
    count, total, reasons = refused(cell)
    if not total or count / total < _REFUSED:
        return []
    most = max(reasons, key=lambda reason: reasons[reason])
    say = f"{name}: {100 * count / total:.0f} % of replies were not used"
    why = f"most often ({reasons[most]} of {count}) because of: {most[:_REASON]}"
    advice = "devices.csv has the reason of each; docs/trust.md says what they mean."
    if "before the round closed" in most:
        advice = "Give rounds more time with a longer deadline, or devices less to do."
    return [Finding(f"{say}, {why}.", advice)]


def _accuracy(name: str, cell: Cell, best: float) -> list[Finding]:
    own = cell.mean("accuracy")
    if own is None:
        return [
            Finding(
                f"{name}: no accuracy is known.",
                "Give start an evaluate_fn, or let devices evaluate, with a metric "
                "named accuracy.",
            )
        ]
    found = []
    curve = cell.curve("accuracy")
    rounds = curve.shape[1] if curve.size else 0
    tail = max(rounds // 5, 2)
    mean = curve.mean(axis=0) if curve.size else curve
    rise = float(mean[-1] - mean[-1 - tail]) if rounds > 2 * tail else 0.0
    if best - own > _POINTS:
        more = " and still rising" if rise > _RISING else ""
        found.append(
            Finding(
                f"{name}: its accuracy is {100 * (best - own):.1f} points below the "
                f"best one{more}.",
                "Run it for more rounds."
                if more
                else "Give it more bytes: a higher rate, density or a smaller bound.",
            )
        )
    elif rise > _RISING:
        found.append(
            Finding(
                f"{name}: accuracy still rose by {100 * rise:.1f} points over the last "
                f"{tail} rounds.",
                "Run it for more rounds before comparing.",
            )
        )
    missed = len(cell.runs) - cell.reached
    if any(run.target_accuracy for run in cell.runs) and missed:
        found.append(
            Finding(f"{name}: {missed} of {len(cell.runs)} runs missed the target.")
        )
    return found


def _bytes(name: str, cell: Cell) -> list[Finding]:
    up, down = cell.mean("bytes_up") or 0.0, cell.mean("bytes_down") or 0.0
    if cell.name == "fedavg" or not up:
        return []
    if down > 4 * up and cell.name.lower() not in _COMPRESSES_DOWN:
        return [
            Finding(
                f"{name}: {down / up:.0f} times as much went down as up.",
                'Compress the download too: downlink="lattice", or Caesar.',
            )
        ]
    share = first_downloads(cell)
    if share > _FIRST and cell.name.lower() in ("caesar", "caesar_whole"):
        return [
            Finding(
                f"{name}: {100 * share:.0f} % of the bytes down went to devices that "
                "came for the first time.",
                "Let them build the initial model locally: shared_start=True and "
                "CompressionMod(initial=...); or run more rounds.",
            )
        ]
    return []


def _seconds(name: str, cell: Cell, config: Mapping[str, Any]) -> list[Finding]:
    work = seconds_of_work(row for run in cell.runs for row in run.devices)
    total = sum(work.values())
    virtual = any(run.is_virtual for run in cell.runs)
    federation = config.get("federation")
    kind = federation.get("kind") if isinstance(federation, Mapping) else None
    if not total or (not virtual and kind in ("simulation", "inline")):
        return []  # simulated devices share a few cores: their seconds say little
    share = work["waiting"] / total
    if share < _WAITING:
        return []
    sized = any(
        number(row.get("batch_size")) for run in cell.runs for row in run.devices
    )
    advice = "Close rounds by a deadline or a quorum, or sample fewer slow devices."
    if not sized:
        advice = "Let Caesar fit batch sizes: local_steps and max_batch."
    what = f"{100 * share:.0f} % of a round waiting for slower ones"
    return [Finding(f"{name}: devices spent {what}.", advice)]
