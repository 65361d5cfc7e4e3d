"""The blog's top-k with error feedback: ``u = delta + e``, ``e = u - C(u)``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from flwr_caesar.strategies import TopK

from .federation import Scheduled, assert_same, largest, models_of, start, trained

DENSITY, ROUNDS = 0.1, 6


@pytest.mark.parametrize("feedback", [True, False])
def test_a_federation_is_the_recipe_step_by_step(feedback: bool) -> None:
    strategy = TopK(
        Scheduled([[1, 2, 3]] * ROUNDS),
        density=DENSITY,
        values="float32",
        error_feedback=feedback,
    )
    found = models_of(strategy, 3, ROUNDS)
    w = {name: array.astype(np.float64) for name, array in start().items()}
    left: list[dict[str, Any]] = [dict.fromkeys(w, 0.0) for _ in range(3)]
    weights = np.array([10, 20, 30]) / 60
    expected = []
    for _ in range(ROUNDS):
        mean = {name: np.zeros(array.shape) for name, array in w.items()}
        for node, e in enumerate(left):
            ended = trained(w, node + 1, 5)
            for name in w:
                u = ended[name] - w[name] + e[name]
                lossy = w[name].size >= 1024
                sent = largest(u, math.ceil(DENSITY * u.size)) if lossy else u
                e[name] = u - sent if feedback else 0.0
                mean[name] += weights[node] * sent
        w = {name: w[name] + mean[name] for name in w}
        expected.append(w)
    assert_same(found, expected)
