"""The comparison of runs: tables over seeds, and one picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from flwr_caesar.results.amounts import MB, column_unit, times_fewer
from flwr_caesar.results.markdown import markdown
from flwr_caesar.runner.outcome import Cell, Outcome, gather, named

_HOUR = 3600.0
_NONE = "–"
_REASON = 200


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the comparison as a Markdown table that also reads well as text.

    Runs that differ only in the seed are one row, with the mean over them and, of the
    accuracy, the lowest and the highest. Columns of the target, of virtual time and of
    seeds are there if a run has them.

    Parameters
    ----------
    outcomes : sequence of Outcome
        In the order of the rows.
    """
    cells = gather(outcomes)
    runs = [run for cell in cells for run in cell.runs]
    seeds = any(len(cell.runs) + cell.failed > 1 for cell in cells)
    target = any(run.summary and run.summary.get("target") for run in runs)
    virtual = any(run.is_virtual for run in runs)
    columns: list[tuple[str, Callable[[Cell], str]]] = []
    if seeds:
        columns.append(("seeds", lambda cell: str(len(cell.runs))))
    columns += [
        ("rounds", lambda cell: _number(cell.mean("rounds"), "{:.0f}")),
        ("test accuracy", _accuracy),
        _bytes_column(cells, "up"),
        _bytes_column(cells, "down"),
    ]
    if target:
        saved = _savings(cells, lambda cell: cell.megabytes_to_target)
        columns += [
            ("rounds to target", lambda cell: _to_target(cell, _rounds_to_target)),
            ("MB to target", lambda cell: _to_target(cell, _megabytes_to_target)),
            ("× fewer to target", lambda cell: _number(saved[id(cell)], "{:.1f}")),
        ]
    else:
        saved = _savings(cells, _both_ways)
        if any(saved[id(cell)] for cell in cells if cell.name != "fedavg"):
            columns.append(
                ("× fewer, both ways", lambda cell: _number(saved[id(cell)], "{:.1f}"))
            )
        else:
            columns.append(
                (
                    "× fewer than raw",
                    lambda cell: _number(_fewer_than_raw(cell), "{:.1f}"),
                )
            )
    if virtual and target:
        columns.append(
            ("virtual h to target", lambda cell: _to_target(cell, _hours_to_target))
        )
    if virtual:
        columns += [
            (
                "virtual h",
                lambda cell: _number(cell.mean("virtual_seconds"), "{:.2f}", _HOUR),
            ),
            (
                "waiting s",
                lambda cell: _number(cell.mean("waiting_mean"), "{:.1f}"),
            ),
        ]
    columns += [
        ("device s", lambda cell: _number(cell.mean("seconds_device"), "{:.1f}")),
        ("server s", lambda cell: _number(cell.mean("seconds_server"), "{:.1f}")),
        ("seconds", lambda cell: _number(cell.mean("seconds"), "{:.1f}")),
    ]
    header = ["strategy", *(name for name, _ in columns)]
    return markdown(
        [header, *([n, *(show(c) for _, show in columns)] for n, c in named(cells))]
    )


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Say what the columns of `table` mean in these runs, a sentence each."""
    cells = gather(outcomes)
    runs = [run for run in outcomes if run.summary is not None]
    said = []
    if any(len(cell.runs) > 1 for cell in cells):
        said.append("Means over seeds; the accuracy's lowest and highest in brackets.")
    targets = sorted({run.target_accuracy for run in runs} - {0.0})
    if targets:
        shown = ", ".join(f"{100 * target:g} %" for target in targets)
        said.append(
            f"Target: {shown}, reached at the end of the first round that tests so or "
            "better; MB to target are up and down."
        )
    if any(run.is_virtual for run in runs):
        said.append("Virtual hours and waiting are by the profile's clock.")
    if any(run.summary and run.summary.get("raw_bytes") for run in runs):
        said.append("Raw: the same messages with the model uncompressed, both ways.")
    said.append(
        "Device s: compressing and decompressing, summed over devices. Server s: "
        "planning, encoding, decoding, aggregating, without waiting for replies."
    )
    return said


def unused(outcomes: Sequence[Outcome]) -> list[str]:
    """Say how many replies of these runs were not used, and what is most often why."""
    said = []
    for name, cell in named(gather(outcomes)):
        rows = [row for run in cell.runs for row in run.devices]
        reasons = Counter(row["dropped"] for row in rows if row.get("dropped"))
        if reasons:
            ((reason, _),) = reasons.most_common(1)
            said.append(
                f"{name}: {reasons.total()} of {len(rows)} replies were not used, most "
                f"often because of: {reason[:_REASON]} (devices.csv has all)."
            )
    return said


def fairness(outcomes: Sequence[Outcome]) -> str | None:
    """Return a table of the accuracy that devices reported, by device class.

    Of each device the latest report of a run counts. The mean over devices, the mean of
    the worst tenth and of each class of the virtual clock, and the standard deviation
    between devices; all of them means over seeds.

    Returns
    -------
    str or None
        None if no device reported an accuracy; see ``federation.fraction_evaluate``.
    """
    cells = gather(outcomes)
    latest = {id(cell): [_latest(run) for run in cell.runs] for cell in cells}
    classes = sorted(
        {name for runs in latest.values() for run in runs for name, _ in run if name}
    )
    if not any(run for runs in latest.values() for run in runs):
        return None
    header = ["strategy", "devices", "mean", "worst tenth", "deviation", *classes]
    rows = [header]
    for name, cell in named(cells):
        runs = [run for run in latest[id(cell)] if run]
        figures = [_fairness_of([value for _, value in run]) for run in runs]
        row = [name, _number(fmean(map(len, runs)) if runs else None, "{:.0f}")]
        row += [
            _number(fmean(column), "{:.2f}") if runs else _NONE
            for column in (zip(*figures, strict=True) if runs else [()] * 3)
        ]
        for wanted in classes:
            means = [
                fmean(own)
                for run in runs
                if (own := [value for kind, value in run if kind == wanted])
            ]
            row.append(_number(fmean(means) if means else None, "{:.2f}"))
        rows.append(row)
    return markdown(rows)


def picture(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw test accuracy against megabytes, and against virtual time if there is any.

    A line is the mean over seeds, round by round; the band around it their lowest and
    highest accuracy.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Those that failed are left out.
    path : Path
        A PNG or SVG file to write.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    from flwr_caesar.results.pictures import Line, draw_accuracy, figure

    cells = [(name, cell) for name, cell in named(gather(outcomes)) if cell.runs]
    virtual = all(run.is_virtual for _, cell in cells for run in cell.runs)
    both = ("megabytes, all devices, up and down", MB, _BOTH)
    up = ("megabytes, all devices, up", MB, ("total_bytes_up",))
    hours = ("virtual hours", _HOUR, ("total_virtual_seconds",))
    panels = [both, hours] if virtual else [up, both]

    made = figure(11.6, 4.4)
    plots = made.subplots(1, 2, sharey=True)
    for axes, (title, unit, columns) in zip(plots, panels, strict=True):
        lines = [
            Line(name, cell.curve(*columns).mean(axis=0) / unit, accuracy)
            for name, cell in cells
            if (accuracy := 100 * cell.curve("accuracy")).size
        ]
        draw_accuracy(axes, lines, title, labelled=axes is plots[1])
        for target in {run.target_accuracy for _, c in cells for run in c.runs} - {0.0}:
            axes.axhline(100 * target, color="0.5", lw=0.8, ls=":")
    plots[0].set_ylabel("test accuracy (%)")
    made.savefig(path, dpi=150)


_BOTH = ("total_bytes_up", "total_bytes_down")


def _savings(
    cells: Sequence[Cell], cost: Callable[[Cell], float | None]
) -> dict[int, float | None]:
    """Cost of plain FedAvg over each cell's, where it ran in equal conditions."""
    plain = {cell.conditions: cost(cell) for cell in cells if cell.name == "fedavg"}
    savings: dict[int, float | None] = {}
    for cell in cells:
        base, own = plain.get(cell.conditions), cost(cell)
        savings[id(cell)] = base / own if base and own else None
    return savings


def _fewer_than_raw(cell: Cell) -> float | None:
    """Bytes of the same messages uncompressed over those sent, both ways."""
    raw, sent = cell.mean("raw_bytes"), _both_ways(cell)
    return None if raw is None or sent is None else times_fewer(raw, sent)


def _both_ways(cell: Cell) -> float | None:
    up, down = cell.mean("bytes_up"), cell.mean("bytes_down")
    return None if up is None or down is None else up + down


def _bytes_column(cells: Sequence[Cell], way: str) -> tuple[str, Callable[[Cell], str]]:
    """Return a column of bytes, in kB where MB would read 0.00."""
    unit, name = column_unit([cell.mean(f"bytes_{way}") for cell in cells])
    return (
        f"{name} {way}",
        lambda cell: _number(cell.mean(f"bytes_{way}"), "{:.2f}", unit),
    )


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return _NONE if value is None else form.format(value / unit)


def _accuracy(cell: Cell) -> str:
    values = [100 * value for value in cell.values("accuracy")]
    if not values:
        return _NONE if cell.runs else "failed"
    if len(values) == 1:
        return f"{values[0]:.2f} %"
    return f"{fmean(values):.2f} % ({min(values):.2f}–{max(values):.2f})"


def _to_target(cell: Cell, show: Callable[[Cell], str]) -> str:
    if 0 < cell.reached < len(cell.runs):
        return f"{cell.reached} of {len(cell.runs)}"
    return show(cell)


def _rounds_to_target(cell: Cell) -> str:
    return _number(cell.mean("target", "round"), "{:.0f}")


def _megabytes_to_target(cell: Cell) -> str:
    return _number(cell.megabytes_to_target, "{:.2f}")


def _hours_to_target(cell: Cell) -> str:
    return _number(cell.mean("target", "virtual_seconds"), "{:.2f}", _HOUR)


def _latest(run: Outcome) -> list[tuple[str, float]]:
    """Class and last reported accuracy, in percent, of each device of a run."""
    found = {
        row["node_id"]: (row["device_class"], 100 * float(row["accuracy"]))
        for row in run.devices
        if row.get("accuracy")
    }
    return list(found.values())


def _fairness_of(values: Sequence[float]) -> tuple[float, float, float]:
    ordered = np.sort(np.asarray(values))
    worst = ordered[: max(len(ordered) // 10, 1)]
    return float(ordered.mean()), float(worst.mean()), float(ordered.std())
