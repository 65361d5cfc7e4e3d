"""FedComLoc on a non-convex problem: how far the gradient falls at each density.

Ten devices with a small tanh network and rows of their own, all of them in every round,
full gradients, through the real strategy and mod. Writes a Markdown table of the length
of the gradient of the mean loss, at the model that devices get. One thread: set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from environment import describe
from fedcomloc_global import DEVICES, Logistic, Vector
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import FedComLoc

HIDDEN = 8
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("density 1 (Scaffnew)", {"density": 1.0}),
    ("`com`, density 0.5", {"density": 0.5}),
    ("`com`, density 0.3", {"density": 0.3}),
    ("`com`, density 0.1", {"density": 0.1}),
    ("`com`, `qsgd` of 7 levels", {"codec": {"id": "qsgd", "levels": 7}}),
    ("`global`, density 0.3", {"density": 0.3, "variant": "global"}),
    (
        "`global` as published, density 0.3",
        {"density": 0.3, "variant": "global", "feedback": 0.0},
    ),
)


class TanhNetwork(Logistic):
    """``f(W, v) = mean log(1 + exp(-v tanh(W a)))``, and a small ridge."""

    def __init__(self, seed: int, lr: float) -> None:
        super().__init__(seed)
        self.lr = lr
        self.features = self.rows.shape[-1]
        self.size = HIDDEN * (self.features + 1)

    def start(self, seed: int) -> Vector:
        """Return an initial model."""
        return np.random.default_rng(seed).normal(size=self.size) / 4

    def gradient(self, device: int, x: Vector) -> Vector:
        """Return the gradient of one device's own loss."""
        rows = self.rows[device]
        weights = x[:-HIDDEN].reshape(HIDDEN, self.features)
        top = x[-HIDDEN:]
        inner = np.tanh(rows @ weights.T)
        wrong = -np.exp(-np.logaddexp(0, inner @ top)) / len(rows)
        below = (wrong[:, None] * top * (1 - inner**2)).T @ rows
        return np.concatenate([below.reshape(-1), wrong @ inner]) + 0.001 * x

    def slope(self, x: Vector) -> float:
        """Return the length of the gradient of the mean loss."""
        mean = np.mean([self.gradient(i, x) for i in range(DEVICES)], axis=0)
        return float(np.linalg.norm(mean))


def slopes(
    problem: TanhNetwork, rounds: int, seed: int, **settings: Any
) -> list[float]:
    """Return the gradient's length at the model that devices get after each round."""
    found: list[float] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        found.append(problem.slope(arrays["x"].numpy().astype(np.float64)))
        return MetricRecord({"slope": found[-1]})

    strategy = FedComLoc(
        FedAvg(fraction_evaluate=0.0), lr=problem.lr, exact_below=0, **settings
    )
    start = ArrayRecord({"x": Array(problem.start(seed).astype(np.float32))})
    grid = InlineGrid(problem.app(), DEVICES)
    strategy.start(grid, start, num_rounds=rounds, evaluate_fn=evaluate)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, nargs="+", default=[10, 50, 150, 400])
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    heads = [f"round {number}" for number in args.rounds]
    print(f"| | at the start | {' | '.join(heads)} |")
    print(f"| --- | ---: |{' ---: |' * len(heads)}")
    for name, settings in SETTINGS:
        runs = []
        for seed in args.seeds:
            problem = TanhNetwork(seed, args.lr)
            runs.append(slopes(problem, max(args.rounds), seed, **settings))
        cells = []
        for number in (0, *args.rounds):
            kept = slice(max(number - 9, 0), number + 1)
            last = [float(np.mean(run[kept])) for run in runs]
            cells.append(f"{np.mean(last):.2g} ({min(last):.2g}–{max(last):.2g})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{describe('python benchmarks/fedcomloc_gradient.py')}")


if __name__ == "__main__":
    main()
