"""Run an app under a strategy, and tell what came of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from flwr.serverapp.strategy import Result, Strategy

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import StrategyWrapper

from .app import App
from .grid import DOWN, UP, CountingGrid
from .strategies import PLAIN, wrapped

ALLOWANCE = 200  # bytes that a message of ours may be larger than Flower's


@dataclass
class Outcome:
    """What came of a run."""

    scores: list[float]
    observed: object
    grid: CountingGrid
    dropped: list[str] = field(default_factory=list)

    def nbytes(self) -> int:
        """Bytes of all messages, both ways."""
        return self.grid.total(UP) + self.grid.total(DOWN)


def run(app: App, name: str, seed: int = 0) -> Outcome:
    """Run an app under plain Flower or one of ours."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    ours: list[StrategyWrapper] = []

    def wrap(inner: Strategy) -> Strategy:
        if name == PLAIN:
            return inner
        ours.append(wrapped(app, name, inner))
        return ours[-1]

    strategy = app.strategy(wrap)
    mods = [] if name == PLAIN else [compression_mod]
    grid = CountingGrid(app.client_app(mods), app.nodes)
    initial = app.initial_arrays(seed)
    result = app.serve(grid, strategy, initial, app.rounds, app.score)
    return Outcome(
        scores_of(result),
        app.observe(strategy, result),
        grid,
        [why for own in ours for r in own.history for why in r.dropped.values()],
    )


def scores_of(result: Result) -> list[float]:
    """Return the score after each round, from the first model's on."""
    return [float(m["score"]) for m in result.evaluate_metrics_serverapp.values()]


@cache
def plainly(app: App, seed: int = 0) -> Outcome:
    """Run an app under plain Flower, once for all strategies."""
    return run(app, PLAIN, seed)


def oversized(ours: Outcome, plain: Outcome) -> dict[tuple[str, str], int]:
    """Return by how many bytes a message may not, but does, exceed Flower's.

    Messages that plain Flower does not send, such as FedComLoc's that settle a round,
    are compared with its messages of training.
    """
    largest = {kind: max(sizes) for kind, sizes in plain.grid.sizes.items()}
    over = {}
    for (phase, way), sizes in ours.grid.sizes.items():
        limit = largest.get((phase, way), largest["train", way]) + ALLOWANCE
        if max(sizes) > limit:
            over[phase, way] = max(sizes) - limit
    return over
