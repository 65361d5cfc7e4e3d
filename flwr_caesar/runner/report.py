"""The comparison of runs: one table, one picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr_caesar.runner.folder import ROUNDS, SUMMARY
from flwr_caesar.runner.progress import MB

_HEADER = (
    "strategy",
    "rounds",
    "test accuracy",
    "MB up",
    "MB down",
    "× fewer bytes up",
    "seconds",
)


@dataclass(frozen=True)
class Outcome:
    """A run that ended.

    Parameters
    ----------
    summary : dict or None
        Of ``summary.json``; None if the run failed.
    overrides : tuple of str
        What was set for it, as on the command line.
    rounds : tuple of dict
        Rows of ``rounds.csv``, numbers as text.
    """

    summary: dict[str, Any] | None
    overrides: tuple[str, ...] = ()
    rounds: tuple[dict[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, folder: Path, overrides: Sequence[str] = ()) -> Outcome:
        """Read a run folder; one without a summary is a run that failed."""
        summary = folder / SUMMARY
        if not summary.is_file():
            return cls(None, tuple(overrides))
        with (folder / ROUNDS).open(encoding="utf-8", newline="") as file:
            rows = tuple(csv.DictReader(file))
        return cls(json.loads(summary.read_text("utf-8")), tuple(overrides), rows)

    @property
    def name(self) -> str:
        """The strategy's name."""
        if self.summary is not None:
            return str(self.summary["strategy"])
        chosen = [o for o in self.overrides if o.startswith("strategy=")]
        return chosen[-1].partition("=")[2] if chosen else "run"

    @property
    def conditions(self) -> frozenset[str]:
        """What was set apart from the strategy: runs compare where this is equal."""
        return frozenset(o for o in self.overrides if not o.startswith("strategy"))


def labels(outcomes: Sequence[Outcome]) -> list[str]:
    """Name runs by strategy and by the settings that not all of them share."""
    common = frozenset.intersection(*(frozenset(o.overrides) for o in outcomes))
    names = []
    for outcome in outcomes:
        own = [
            o.removeprefix("strategy.")
            for o in outcome.overrides
            if o not in common and not o.startswith("strategy=")
        ]
        names.append(" ".join([outcome.name, *own]))
    return names


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the comparison as a Markdown table that also reads well as text.

    Parameters
    ----------
    outcomes : sequence of Outcome
        One row each, in this order.
    """
    rows = [_HEADER, *map(_row, outcomes, labels(outcomes), _savings(outcomes))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])


def _savings(outcomes: Sequence[Outcome]) -> list[float | None]:
    """Upload of plain FedAvg over each run's, where one ran in equal conditions."""
    plain = {
        outcome.conditions: outcome.summary["bytes_up"]
        for outcome in outcomes
        if outcome.summary is not None and outcome.name == "fedavg"
    }
    return [
        plain[o.conditions] / o.summary["bytes_up"]
        if o.summary is not None and o.conditions in plain and o.summary["bytes_up"]
        else None
        for o in outcomes
    ]


def _row(outcome: Outcome, label: str, saving: float | None) -> tuple[str, ...]:
    summary = outcome.summary
    if summary is None:
        return (label, "failed", *("–",) * (len(_HEADER) - 2))
    return (
        label,
        str(summary["rounds"]),
        f"{100 * summary['accuracy']:.2f} %",
        f"{summary['bytes_up'] / MB:.2f}",
        f"{summary['bytes_down'] / MB:.2f}",
        "–" if saving is None else f"{saving:.1f}",
        f"{summary['seconds']:.1f}",
    )


def picture(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw test accuracy against the megabytes sent, upward and both ways.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Those that failed are left out.
    path : Path
        A PNG file to write.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for outcome, label in zip(outcomes, labels(outcomes), strict=True):
        sent = [row for row in outcome.rounds if row["round"] != "0"]
        accuracy = [100 * float(row["accuracy"]) for row in sent]
        up = [float(row["total_bytes_up"]) / MB for row in sent]
        down = [float(row["total_bytes_down"]) / MB for row in sent]
        both = [u + d for u, d in zip(up, down, strict=True)]
        style = {"marker": "o", "markersize": 3.5, "linewidth": 1.6, "label": label}
        left.plot(up, accuracy, **style)
        right.plot(both, accuracy, **style)
    left.set_ylabel("test accuracy (%)")
    left.set_xlabel("megabytes uploaded, all devices")
    right.set_xlabel("megabytes uploaded and downloaded")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.grid(visible=True, which="both", alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    right.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)
