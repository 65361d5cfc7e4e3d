"""Bits against error of codecs, as a picture. It needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .codec_bench import Measurement
from .results.pictures import figure
from .results.style import styles


def draw(results: Sequence[tuple[str, Measurement]], path: Path) -> None:
    """Draw bits a parameter against the error, a line for each codec.

    Parameters
    ----------
    results : sequence of tuple of str and Measurement
        Name and all rounds together. What a name has behind its first word are
        settings: codecs of one first word are points of one line.
    path : Path
        Where to write; the suffix says which kind of file.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, measured in results:
        if measured.nmse:  # on a logarithmic axis there is no place for none
            points = lines.setdefault(name.partition(" ")[0], [])
            points.append((measured.bits_per_param, measured.nmse))
    made = figure(7.0, 4.6)
    axes = made.add_subplot()
    for (name, points), (color, dash) in zip(
        lines.items(), styles(list(lines)), strict=True
    ):
        bits, errors = zip(*sorted(points), strict=True)
        axes.plot(bits, errors, dash, color=color, marker="o", ms=3.5, lw=1.5)
        axes.annotate(
            name,
            (bits[-1], errors[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            color=color,
            fontsize=8,
            va="center",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.2)
    axes.set_xlabel("bits a parameter")
    axes.set_ylabel("error: ||x - decoded||² / ||x||²")
    axes.grid(alpha=0.3)
    made.savefig(path, dpi=150)
