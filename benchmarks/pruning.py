"""Tables and picture of docs/experiments/pruning.md, from the folders of its sweeps.

python benchmarks/pruning.py runs/…-sweep [runs/…-sweep …] --picture pruning.png
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml

LAST = 5


@dataclass(frozen=True)
class Run:
    """A run that ended: what was set, and what came out.

    Parameters
    ----------
    rate : float
        Prune rate; -1 for FedAvg without us.
    bits, epochs, seed : str, int, int
        Weights' format on the wire, local epochs, seed.
    last, late : float
        Test accuracy after the last round, and the mean over the last five.
    up, down : float
        Bytes of arrays over all rounds.
    messages : float
        Bytes of one device's upload, mean.
    parameters : int
        Of the model.
    """

    rate: float
    bits: str
    epochs: int
    seed: int
    last: float
    late: float
    up: int
    down: int
    messages: float
    parameters: int

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run folder."""
        spec = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        rows = list(csv.DictReader((folder / "rounds.csv").open(encoding="utf-8")))
        accuracy = [float(row["accuracy"]) for row in rows]
        plain = spec["strategy"]["name"] == "fedavg"
        bits = spec["train"]["weight_bits"]
        name = "float32" if bits is None else f"{bits} bit"
        if bits is not None and spec["train"]["weight_levels"] != "uniform":
            name += ", powers of two"
        return cls(
            -1.0 if plain else float(spec["strategy"]["prune_rate"]),
            name,
            spec["train"]["epochs"],
            spec["seed"],
            summary["accuracy"],
            fmean(accuracy[-LAST:]),
            summary["bytes_up"],
            summary["bytes_down"],
            summary["bytes_up"] / sum(int(row["devices"]) for row in rows),
            summary["parameters"],
        )


def claim(runs: Iterable[Run]) -> list[str]:
    """Return FedAvg beside pruning at one half, over the seeds they share."""
    lines = [
        "| local epochs | seed | FedAvg | pruning 50 % | points lost "
        "| over the last five rounds | fewer bytes up | fewer bytes down |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    found = [r for r in runs if r.bits == "float32"]
    plain = {(r.epochs, r.seed): r for r in found if r.rate < 0}
    half = {(r.epochs, r.seed): r for r in found if r.rate == 0.5}
    for key in sorted(plain.keys() & half.keys()):
        a, b = plain[key], half[key]
        lines.append(
            f"| {a.epochs} | {a.seed} | {a.last:.1%} | {b.last:.1%} "
            f"| {100 * (a.last - b.last):.1f} | {100 * (a.late - b.late):.2f} "
            f"| {1 - b.up / a.up:.1%} | {1 - b.down / a.down:.1%} |"
        )
    return lines


def rates(runs: list[Run]) -> list[str]:
    """Return accuracy and bytes of each prune rate, local epochs side by side."""
    found = [r for r in runs if r.bits == "float32" and r.seed == 1 and r.rate != 0]
    epochs = sorted({r.epochs for r in found})
    heads = [f"{e} epoch{'s' if e > 1 else ''}, last | last five" for e in epochs]
    lines = [
        f"| pruned | {' | '.join(heads)} | bytes a message | × fewer than FedAvg |",
        "| ---: |" + " ---: |" * (2 * len(epochs) + 2),
    ]
    at = {(r.rate, r.epochs): r for r in found}
    plain = next((r.messages for r in found if r.rate < 0), float("nan"))
    for rate in sorted({r.rate for r in found}):
        cells = []
        for e in epochs:
            run = at.get((rate, e))
            cells.append(f"{run.last:.1%} | {run.late:.1%}" if run else "– | –")
        size = fmean(r.messages for r in found if r.rate == rate)
        name = "FedAvg" if rate < 0 else f"{rate:.0%}"
        shown = " | ".join(cells)
        lines.append(f"| {name} | {shown} | {size:,.0f} | {plain / size:.1f} |")
    return lines


def grid(runs: list[Run]) -> list[str]:
    """Return accuracy and bits a parameter of prune rates by weight formats."""
    found = [r for r in runs if r.seed == 1 and r.epochs == 1 and r.rate >= 0]
    names = list(dict.fromkeys(r.bits for r in found))
    kept = sorted(
        rate
        for rate in {r.rate for r in found}
        if sum(r.rate == rate for r in found) > 1
    )
    heads = [f"{rate:.0%} pruned | bits a parameter" for rate in kept]
    lines = [
        f"| weights | {' | '.join(heads)} |",
        "| --- |" + " ---: |" * (2 * len(kept)),
    ]
    at = {(r.bits, r.rate): r for r in found}
    for name in names:
        cells = [
            f"{run.last:.1%} ({run.late:.1%}) | {8 * run.messages / run.parameters:.2f}"
            if (run := at.get((name, rate)))
            else "– | –"
            for rate in kept
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def picture(runs: list[Run], file: Path) -> None:
    """Draw accuracy against prune rate, and against bytes."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    first = [r for r in runs if r.seed == 1 and r.rate != 0]
    for epochs in sorted({r.epochs for r in first}):
        own = [r for r in first if r.epochs == epochs and r.bits == "float32"]
        line = sorted((100 * r.rate, 100 * r.late) for r in own if r.rate > 0)
        label = f"{epochs} local epoch{'s' if epochs > 1 else ''}"
        (drawn,) = left.plot(*zip(*line, strict=True), "o-", label=label)
        for r in own:
            if r.rate < 0:
                left.axhline(100 * r.late, color=drawn.get_color(), ls=":", lw=1)
    left.set_xlabel("weights pruned, %; dotted: FedAvg")
    left.set_ylabel("test accuracy, mean of the last five rounds, %")
    left.legend()
    one = [r for r in runs if r.seed == 1 and r.epochs == 1 and r.rate >= 0]
    for name in dict.fromkeys(r.bits for r in one):
        points = sorted(
            (8 * r.messages / r.parameters, 100 * r.late) for r in one if r.bits == name
        )
        right.plot(*zip(*points, strict=True), "o-", label=name)
    right.set_xscale("log")
    right.set_xlabel("bits a parameter of a message, 1 local epoch")
    right.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    """Print the tables and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweeps", type=Path, nargs="+", help="folders of sweeps")
    parser.add_argument("--picture", type=Path, help="file to draw")
    args = parser.parse_args()
    runs = [
        Run.read(summary.parent)
        for sweep in args.sweeps
        for summary in sorted(sweep.glob("*/summary.json"))
    ]
    # One setting may be in two sweeps; it is the same run to the bit.
    unique = list({(r.rate, r.bits, r.epochs, r.seed): r for r in runs}.values())
    for table in (claim, rates, grid):
        print("\n".join(table(unique)), end="\n\n")
    if args.picture:
        picture(unique, args.picture)


if __name__ == "__main__":
    main()
