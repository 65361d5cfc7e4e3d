"""How far models of 1 to 50,000 elements get in six rounds, and in how many bytes.

Four devices pull a model 40 % of the way a round towards goals of their own, which are
multiples of one Gaussian vector; what is left of the way to their mean is exact to
compute, and no element of it matters less than another, so nothing can be left out.
Bytes are those of all records of all messages. The page is written to
docs/benchmarks/small-models.md.

    python benchmarks/small_models.py
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.apps.goal import app_of
from tests.apps.grid import DOWN, UP
from tests.apps.run import run
from tests.apps.strategies import OURS, PLAIN

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "small-models.md"
SHAPES = {
    1: (1,),
    11: (11,),
    100: (10, 10),
    1000: (20, 50),
    4096: (64, 64),
    20000: (100, 200),
    50000: (200, 250),
    80000: (250, 320),
}
NAMES = [PLAIN, *(name for name in OURS if name != "FedComLoc")]
# Chosen by these goals, and measured on others.
CHOOSING, MEASURING = (1,), (101, 102, 103)
SETTINGS: dict[str, list[dict[str, float]]] = {
    "Caesar": [
        {"rate": rate, "step_sigmas": sigmas}
        for rate, sigmas in (
            (0.3, 3.0),
            (1.0, 3.0),
            (1.0, 1.0),
            (1.5, 1.0),
            (2.0, 3.0),
            (2.0, 1.0),
            (3.0, 1.0),
            (4.0, 0.5),
        )
    ],
    "TopK": [{"density": d} for d in (0.1, 0.2, 0.3, 0.4, 0.5)],
    "CorrelationAware": [{"density": d} for d in (0.01, 0.1, 0.2, 0.3, 0.4, 0.5)],
    "MagnitudePruning": [{"prune_rate": r} for r in (0.5, 0.25, 0.1, 0.0)],
}
CHOSEN_AT = 50000

Measured = tuple[float, float, float]


def measure(
    size: int, name: str, draws: tuple[int, ...], options: Mapping[str, Any]
) -> Measured:
    """Return what is left of the way, and the bytes of a message up and down."""
    found = []
    for draw in draws:
        app = replace(app_of("", SHAPES[size], draw=draw), options={name: options})
        outcome = run(app, name, draw)
        count = app.rounds * app.nodes
        grid = outcome.grid
        found.append(
            (1 - outcome.scores[-1], grid.total(UP) / count, grid.total(DOWN) / count)
        )
    left, up, down = np.mean(found, axis=0).tolist()
    return left, up, down


def defaults(sizes: list[int]) -> list[str]:
    lines = [
        f"| elements | {' | '.join(NAMES)} |",
        f"| ---: |{' ---: |' * len(NAMES)}",
    ]
    for size in sizes:
        cells: list[str] = []
        plain: Measured | None = None
        for name in NAMES:
            own = measure(size, name, MEASURING, {})
            plain = plain or own
            share = 100 * (own[1] + own[2]) / (plain[1] + plain[2])
            cells.append(f"{own[0]:.3f}, {share:.0f} %")
            print(size, name, own, flush=True)
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    return lines


def settings(size: int) -> list[str]:
    lines = [
        "| strategy | settings | left | kB up | kB down |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, choices in SETTINGS.items():
        for options in choices:
            left, up, down = measure(size, name, CHOOSING, options)
            named = ", ".join(f"{key}={value:g}" for key, value in options.items())
            lines.append(
                f"| {name} | {named} | {left:.3f} | {up / 1e3:.1f} | {down / 1e3:.1f} |"
            )
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SHAPES))
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    plain = measure(CHOSEN_AT, PLAIN, CHOOSING, {})
    lines = [
        "# Small models",
        "",
        "Four devices pull a model 40 % of the way a round towards goals of their own, "
        "multiples of one Gaussian vector. No element of that matters less than "
        "another: it is the hardest there is for whoever leaves something out. Plain "
        f"FedAvg has {plain[0]:.3f} of the way left after six rounds, whatever the "
        "size.",
        "",
        "## With the defaults",
        "",
        "What is left of the way after six rounds, and the bytes of all messages, all "
        "their records counted, over plain Flower's; mean of three goals "
        f"({', '.join(map(str, MEASURING))}).",
        "",
        *defaults(options.sizes),
        "",
        "`Caesar` asks for uploads of one error, and of less below some ten thousand "
        "elements (`flwr_caesar.plan.precision`). Other defaults are of the model's "
        "size (`flwr_caesar.plan.by_size`): up to 50,000 elements `TopK` and "
        "`CorrelationAware` send 40 % of the elements instead of 10 % and 1 %, and "
        "`MagnitudePruning` prunes none instead of half. From 80,000 on nothing is "
        "different, and in between each is interpolated. What the caller sets is used "
        "at every size. "
        "`Caesar paper` is as published: a device drops the smallest 10 to 60 % of its "
        "update for good. Below about a hundred elements our records in a message cost "
        "more than they save.",
        "",
        f"## How they were chosen: {CHOSEN_AT:,} elements",
        "",
        f"One goal ({CHOOSING[0]}). Plain Flower sends {plain[1] / 1e3:.1f} kB each "
        "way, a message.",
        "",
        *settings(CHOSEN_AT),
        "",
        describe("python benchmarks/small_models.py", ("flwr", "numpy")),
    ]
    options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
