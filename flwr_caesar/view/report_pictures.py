"""The pictures of a report. They need matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context

from flwr_caesar.results.amounts import MB
from flwr_caesar.results.pictures import Line, draw_accuracy, draw_stacks, figure
from flwr_caesar.runner.outcome import Cell, named
from flwr_caesar.view.costs import by_class, megabytes_by_kind, seconds_of_work
from flwr_caesar.view.document import Picture

_HOUR = 3600.0
_BOTH = ("total_bytes_up", "total_bytes_down")
_MOST = 12  # bars that a picture can hold


def accuracy(cells: Sequence[Cell]) -> Picture | None:
    """Draw accuracy against bytes and against time; None if it is not known."""
    drawn = [(name, cell) for name, cell in named(cells) if cell.curve("accuracy").size]
    if not drawn:
        return None
    virtual = all(run.is_virtual for _, cell in drawn for run in cell.runs)
    time = ("virtual hours", _HOUR, ("total_virtual_seconds",))
    if not virtual:
        time = ("minutes", 60.0, ("seconds",))
    panels = [("megabytes, all devices, up and down", MB, _BOTH), time]
    made = figure(11.6, 4.4)
    plots = made.subplots(1, 2, sharey=True)
    for axes, (title, unit, columns) in zip(plots, panels, strict=True):
        lines = [
            Line(name, cell.curve(*columns).mean(axis=0) / unit, 100 * values)
            for name, cell in drawn
            if (values := cell.curve("accuracy")).size
        ]
        draw_accuracy(axes, lines, title, labelled=axes is plots[1])
    plots[0].set_ylabel("test accuracy (%)")
    says = "Test accuracy against megabytes up and down, and against time."
    return Picture("accuracy", _svg(made), says)


def megabytes(cells: Sequence[Cell]) -> Picture | None:
    """Draw bytes by direction and phase; None if no device was asked."""
    return _stacks(
        "megabytes",
        [(name, megabytes_by_kind(cell)) for name, cell in named(cells)],
        "megabytes, all devices",
        "Megabytes by direction and kind of phase.",
    )


def seconds(cells: Sequence[Cell]) -> Picture | None:
    """Draw what a device's time in a round goes to, waiting among it."""
    bars = []
    for name, cell in named(cells):
        rows = (row for run in cell.runs for row in run.devices)
        bars.append((name, seconds_of_work(rows)))
    return _stacks(
        "seconds",
        bars,
        "seconds of a device in a round",
        "Where a device's time in a round goes, mean over trainings; waiting is from "
        "its own end to the last device's.",
    )


def classes(cells: Sequence[Cell]) -> Picture | None:
    """Draw the same for each class of devices; None without classes."""
    bars = [
        (f"{name}: {kind}", work)
        for name, cell in named(cells)
        for kind, work in by_class(cell).items()
    ]
    return _stacks(
        "classes",
        bars,
        "seconds of a device in a round",
        "Where a device's time goes, by its class.",
    )


def _stacks(
    name: str, bars: list[tuple[str, dict[str, float]]], title: str, says: str
) -> Picture | None:
    shown = [(label, parts) for label, parts in bars if parts][: 2 * _MOST]
    if not shown:
        return None
    kinds = list(dict.fromkeys(kind for _, parts in shown for kind in parts))
    made = figure(9.0, 1.3 + 0.32 * len(shown))
    parts = {kind: [own.get(kind, 0.0) for _, own in shown] for kind in kinds}
    draw_stacks(made.subplots(), [label for label, _ in shown], parts, title)
    return Picture(name, _svg(made), says)


def _svg(made: Any) -> bytes:
    out = io.BytesIO()
    # Letters as text, which is a tenth as long as their outlines; without a date, and
    # with ids that are not drawn, the same run makes the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "flwr-caesar"}):
        made.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
