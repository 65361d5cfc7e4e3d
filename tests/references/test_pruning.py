"""Magnitude pruning, arXiv:2310.14693: models whose smallest weights are zero."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flwr_caesar.strategies import MagnitudePruning

from .federation import Scheduled, assert_same, largest, models_of, start, trained

RATE, ROUNDS = 0.6, 5


def pruned(model: dict[str, Any]) -> dict[str, Any]:
    """Prune by one threshold over all tensors."""
    flat = np.concatenate([array.reshape(-1) for array in model.values()])
    flat = largest(flat, flat.size - math.floor(RATE * flat.size))
    parts = np.split(flat, np.cumsum([array.size for array in model.values()])[:-1])
    shapes = [array.shape for array in model.values()]
    found = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return dict(zip(model, found, strict=True))


def test_a_federation_is_the_papers_step_by_step() -> None:
    strategy = MagnitudePruning(Scheduled([[1, 2, 3]] * ROUNDS), prune_rate=RATE)
    found = models_of(strategy, 3, ROUNDS)
    w = pruned({name: array.astype(np.float64) for name, array in start().items()})
    weights = np.array([10, 20, 30]) / 60
    expected = []
    for _ in range(ROUNDS):
        sent = [pruned(trained(w, node, 5)) for node in (1, 2, 3)]
        mean = {
            name: sum(
                weight * model[name]
                for weight, model in zip(weights, sent, strict=True)
            )
            for name in w
        }
        w = pruned(mean)
        expected.append(w)
    assert_same(found, expected)
