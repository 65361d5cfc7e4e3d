"""FedComLoc-Global on a convex problem: what to do with what a sparse model leaves out.

Ten devices with logistic losses of their own, all of them in every round, through the
real strategy and mod; the model that devices get is compared with the optimum. Writes a
Markdown table. One thread: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from environment import describe
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.runner.inline import InlineGrid
from flwr_caesar.strategies import FedComLoc

Vector = np.ndarray[Any, np.dtype[np.float64]]

DEVICES, SAMPLES, FEATURES = 10, 60, 200
RIDGE = 0.01
LAST = 20
RULES: tuple[tuple[str, dict[str, float]], ...] = (
    ("`feedback=1`, the default", {}),
    ("`feedback=0.9`", {"feedback": 0.9}),
    ("`feedback=0.5`", {"feedback": 0.5}),
    ("`feedback=0`, as published", {"feedback": 0.0}),
)


class Logistic:
    """``f(x) = mean log(1 + exp(-a x)) + ridge |x|^2 / 2`` over the devices' rows."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=FEATURES) * rng.laplace(size=FEATURES)
        rows = []
        for _ in range(DEVICES):
            scales = np.exp(rng.normal(size=FEATURES) / 2)
            own = rng.normal(size=(SAMPLES, FEATURES)) * scales
            own = 4 * (own + 0.3 * rng.normal(size=FEATURES)) / np.sqrt(FEATURES)
            noise = 1.2 * (rng.normal(size=SAMPLES) + rng.normal())
            rows.append(own * np.sign(own @ truth + noise)[:, None])
        self.rows = np.array(rows)
        smoothness = max(np.linalg.norm(own, 2) ** 2 / SAMPLES / 4 for own in rows)
        self.lr = float(1 / (smoothness + RIDGE))

    def value(self, x: Vector) -> float:
        """Return ``f(x)``."""
        loss = np.logaddexp(0, -(self.rows @ x)).mean()
        return float(loss + RIDGE / 2 * x @ x)

    def gradient(self, device: int, x: Vector) -> Vector:
        """Return the gradient of one device's own loss."""
        rows = self.rows[device]
        wrong = np.exp(-np.logaddexp(0, rows @ x))
        return np.asarray(-(wrong @ rows) / len(rows) + RIDGE * x)

    def optimum(self) -> Vector:
        """Return the minimiser, by Newton's method."""
        rows = self.rows.reshape(-1, FEATURES)
        x = np.zeros(FEATURES)
        for _ in range(50):
            wrong = np.exp(-np.logaddexp(0, rows @ x))
            slope = -(wrong @ rows) / len(rows) + RIDGE * x
            curved = rows * (wrong * (1 - wrong))[:, None]
            x -= np.linalg.solve(
                curved.T @ rows / len(rows) + RIDGE * np.eye(FEATURES), slope
            )
        return x

    def app(self) -> ClientApp:
        """Return an app that takes the steps it is asked for, and the mod."""
        app = ClientApp(mods=[compression_mod])

        @app.train()
        def train(msg: Message, context: Context) -> Message:
            steps = int(msg.content.config_records["config"]["local-steps"])
            x = msg.content.array_records["arrays"]["x"].numpy().astype(np.float64)
            control = msg.content.array_records["control"]
            h = control["x"].numpy() if "x" in control else 0.0
            for _ in range(steps):
                x -= self.lr * (self.gradient(context.node_id - 1, x) - h)
            arrays = ArrayRecord({"x": Array(x.astype(np.float32))})
            metrics = MetricRecord({"num-examples": 1})
            content = RecordDict({"arrays": arrays, "metrics": metrics})
            return Message(content, reply_to=msg)

        return app


def gaps(
    problem: Logistic, rounds: int, density: float, **settings: Any
) -> list[float]:
    """Return ``f(x) - f*`` of the model that devices get after each round."""
    best = problem.value(problem.optimum())
    found: list[float] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        x = arrays["x"].numpy().astype(np.float64)
        found.append(problem.value(x) - best)
        return MetricRecord({"gap": found[-1]})

    strategy = FedComLoc(
        FedAvg(fraction_evaluate=0.0),
        lr=problem.lr,
        variant="global",
        density=density,
        exact_below=0,
        **settings,
    )
    start = ArrayRecord({"x": Array(np.zeros(FEATURES, np.float32))})
    grid = InlineGrid(problem.app(), DEVICES)
    strategy.start(grid, start, num_rounds=rounds, evaluate_fn=evaluate)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--densities", type=float, nargs="+", default=[0.3, 0.1])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    problem = Logistic(args.seed)
    optimum = problem.optimum()
    best = problem.value(optimum)
    heads = [f"density {density:g}" for density in args.densities]
    print(f"| | {' | '.join(heads)} |")
    print(f"| --- |{' ---: |' * len(heads)}")
    zero = problem.value(np.zeros(FEATURES)) - best
    print(f"| the zero model |{f' {zero:.3f} |' * len(heads)}")
    cells = []
    for density in args.densities:
        kept = optimum.copy()
        kept[np.argsort(-np.abs(kept))[round(density * FEATURES) :]] = 0
        cells.append(f"{problem.value(kept) - best:.3f}")
    print(f"| the optimum, thinned out once | {' | '.join(cells)} |")
    for name, settings in RULES:
        cells = []
        for density in args.densities:
            last = gaps(problem, args.rounds, density, **settings)[-LAST:]
            cells.append(f"{np.mean(last):.3f} ({min(last):.3f}–{max(last):.3f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    command = "python benchmarks/fedcomloc_global.py"
    print(f"\n{describe(command)} {args.rounds} rounds, mean of the last {LAST}.")


if __name__ == "__main__":
    main()
