"""Pictures of what was learnt and what was sent. They need matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from flwr_caesar.frozen import frozen

from .amounts import MB
from .style import styles

UP, DOWN = "#0072B2", "#E69F00"
_WIDE = 8.0  # lines whose ends are further apart than this need a logarithmic axis
_FROM = 70.0  # percent; below it all lines look alike
_LINE_HEIGHT = 0.045
Floats = np.ndarray[Any, np.dtype[np.float64]]


@frozen
class Line:
    """One line of a picture.

    Parameters
    ----------
    name : str
        Its label.
    x : ndarray of float64, shape (n,)
        What it cost.
    y : ndarray of float64, shape (runs, n)
        Accuracy in percent, of each run.
    """

    name: str
    x: Floats
    y: Floats


def figure(width: float, height: float) -> Figure:
    """Return an empty figure that draws to files."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def draw_accuracy(
    axes: Any, lines: Sequence[Line], title: str, *, labelled: bool = True
) -> None:
    """Draw accuracy against a cost: means over runs, and bands of their extremes.

    The axis of accuracy begins at 70 % where all lines get so far: they differ there.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where.
    lines : sequence of Line
        What.
    title : str
        Of the axis of cost.
    labelled : bool
        Whether to write the names at the ends of the lines.
    """
    drawn = [line for line in lines if line.y.size]
    looks = styles([line.name for line in lines])
    look = {id(line): own for line, own in zip(lines, looks, strict=True)}
    for line in drawn:
        color, dash = look[id(line)]
        axes.plot(line.x, line.y.mean(axis=0), dash, color=color, lw=1.8)
        if len(line.y) > 1:
            low, high = line.y.min(axis=0), line.y.max(axis=0)
            axes.fill_between(line.x, low, high, color=color, alpha=0.15, lw=0)
    axes.set_xlabel(title)
    _scale(axes, [float(line.x[-1]) for line in drawn])
    best = [float(line.y.mean(axis=0).max()) for line in drawn]
    if best and min(best) > _FROM + 5:
        axes.set_ylim(_FROM, min(max(best) + 2, 100.5))
    if labelled and drawn:
        _label(axes, drawn, look)


def draw_stacks(
    axes: Any,
    names: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    title: str,
    *,
    colors: Sequence[str] = (UP, DOWN, "#009E73", "#CC79A7"),
) -> None:
    """Draw a horizontal bar for each name, stacked of named parts."""
    left = np.zeros(len(names))
    places = np.arange(len(names))[::-1]
    hatches = ("", "///", "...", "xx")
    for (part, values), color, hatch in zip(
        parts.items(), colors, hatches, strict=False
    ):
        axes.barh(
            places,
            values,
            left=left,
            color=color,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=part,
        )
        left = left + np.asarray(values, float)
    for place, total in zip(places, left, strict=True):
        axes.annotate(
            f"{total:,.3g}",
            (total, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes.set_yticks(places, names)
    axes.set_xlabel(title)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    if len(parts) > 1:
        axes.legend(
            frameon=False,
            fontsize="small",
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=len(parts),
        )


def draw_run(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw one run: its bytes by round, and its accuracy if that is known.

    Parameters
    ----------
    rows : sequence of mapping
        Of ``rounds.csv``, without round 0.
    path : Path
        A PNG or SVG file to write.
    """
    tested = [row for row in rows if row["accuracy"] not in (None, "")]
    made = figure(10.4 if tested else 5.6, 3.8)
    plots = made.subplots(1, 2 if tested else 1, squeeze=False)[0]
    number = [int(row["round"]) for row in rows]
    up = np.array([float(row["bytes_up"]) for row in rows]) / MB
    down = np.array([float(row["bytes_down"]) for row in rows]) / MB
    plots[0].bar(number, up, color=UP, label="up")
    plots[0].bar(number, down, bottom=up, color=DOWN, hatch="///", lw=0, label="down")
    plots[0].set_xlabel("round")
    plots[0].set_ylabel("megabytes, all devices")
    plots[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    plots[0].spines[["top", "right"]].set_visible(False)
    plots[0].legend(frameon=False, fontsize="small")
    if tested:
        sent = [
            (float(r["total_bytes_up"]) + float(r["total_bytes_down"])) / MB
            for r in tested
        ]
        accuracy = [100 * float(row["accuracy"]) for row in tested]
        plots[1].plot(sent, accuracy, "-", color=UP, lw=1.8, marker=".")
        plots[1].set_xlabel("megabytes so far, up and down")
        plots[1].set_ylabel("accuracy (%)")
        plots[1].grid(visible=True, alpha=0.3, linewidth=0.6)
        plots[1].spines[["top", "right"]].set_visible(False)
    made.savefig(path, dpi=150)


def _scale(axes: Any, ends: Sequence[float]) -> None:
    if ends and min(ends) > 0 and max(ends) / min(ends) > _WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.grid(visible=True, which="major", alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _label(
    axes: Any, lines: Sequence[Line], look: Mapping[int, tuple[str, str]]
) -> None:
    """Write each name beside its line's end, none over another."""
    low, high = axes.get_ylim()
    height = (high - low) * _LINE_HEIGHT
    ordered = sorted(lines, key=lambda line: float(line.y.mean(axis=0)[-1]))
    places: list[float] = []
    for line in ordered:
        wanted = float(np.clip(line.y.mean(axis=0)[-1], low, high))
        places.append(max([wanted, *([places[-1] + height] if places else [])]))
    over = max(places[-1] - high, 0.0) if places else 0.0
    beside = axes.get_yaxis_transform()
    for line, place in zip(ordered, places, strict=True):
        color, dash = look[id(line)]
        here = [place - over] * 2
        sample = {"transform": beside, "clip_on": False, "scalex": False}
        axes.plot([1.01, 1.06], here, dash, color=color, lw=1.8, scaley=False, **sample)
        axes.annotate(
            line.name,
            (1.06, place - over),
            xytext=(4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=color,
            fontsize="small",
            va="center",
            annotation_clip=False,
        )
        end = float(line.y.mean(axis=0)[-1])
        axes.plot([line.x[-1]], [end], marker="o", ms=4, color=color, ls="none")
