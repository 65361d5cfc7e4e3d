"""Run an app under a strategy, and tell what came of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from flwr.serverapp.strategy import Result, Strategy

from flwr_caesar.clients import compression_mod

from .app import App
from .grid import DOWN, UP, CountingGrid
from .strategies import PLAIN, wrapped


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


def run(
    app: App,
    name: str,
    seed: int = 0,
    *,
    watch: Callable[[CountingGrid], None] = lambda grid: None,
) -> Outcome:
    """Run an app under plain Flower or one of ours; `watch` is told the grid."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    ours: list[Any] = []

    def wrap(inner: Strategy) -> Strategy:
        if name == PLAIN:
            return inner
        ours.append(wrapped(app, name, inner))
        return ours[-1]

    strategy = app.strategy(wrap)
    mods = [] if name == PLAIN else [compression_mod]
    grid = CountingGrid(app.client_app(mods), app.nodes)
    watch(grid)
    initial = app.initial_arrays(seed)
    result = app.serve(grid, strategy, initial, app.rounds, app.score)
    return Outcome(
        scores_of(result),
        app.observe(strategy, result),
        grid,
        [why for o in ours for r in o.history for why in r.dropped.values()],
    )


def scores_of(result: Result) -> list[float]:
    """Return the score after each round, from the first model's on."""
    return [float(m["score"]) for m in result.evaluate_metrics_serverapp.values()]


@cache
def plainly(app: App, seed: int = 0) -> Outcome:
    """Run an app under plain Flower, once for all strategies."""
    return run(app.like or app, PLAIN, seed)
