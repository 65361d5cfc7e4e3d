"""SignEF: the published recursion, in a bit an element."""

from __future__ import annotations

import random

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import SignEF
from flwr_caesar.transport import record_to_arrays

from .apps import drift, initial_model, numpy_app
from .local_grid import LocalGrid

NODES, ROUNDS = 3, 4


def published(*, feedback: bool) -> np.ndarray:
    """Return the weights of EF-signSGD, Algorithm 2, with an update as its g."""
    x = record_to_arrays(initial_model())["weight"]
    left = dict.fromkeys(range(1, NODES + 1), np.float32(0))
    weights = [10.0 * node for node in left]
    for server_round in range(1, ROUNDS + 1):
        sent = []
        for node in left:
            p = drift({"weight": x}, node, server_round)["weight"] - x + left[node]
            sent.append(np.abs(p).mean() * np.where(p < 0, -1, 1))
            left[node] = p - sent[-1] if feedback else np.float32(0)
        x = (x + np.average(sent, axis=0, weights=weights)).astype(np.float32)
    return x


@pytest.mark.parametrize("feedback", [True, False])
def test_it_is_the_published_recursion(feedback: bool) -> None:
    random.seed(0)

    def step(arrays, node, server_round):
        own = drift({"weight": arrays["weight"]}, node, server_round)
        return {**arrays, **own}

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=step), NODES)
    strategy = SignEF(FedAvg(fraction_evaluate=0.0), error_feedback=feedback)
    result = strategy.start(grid, initial_model(), num_rounds=ROUNDS, timeout=1)
    found = record_to_arrays(result.arrays)["weight"]
    np.testing.assert_allclose(found, published(feedback=feedback), atol=1e-5)


def test_a_large_model_goes_up_in_a_bit_an_element() -> None:
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 2)
    model = record_to_arrays(initial_model())
    elements = sum(a.size for n, a in model.items() if n in ("weight", "half"))
    strategy = SignEF(FedAvg(fraction_evaluate=0.0))
    strategy.start(grid, initial_model(), num_rounds=1, timeout=1)
    (record,) = strategy.history
    most = 2 * (elements / 8 + 4 * model["bias"].size + 500)
    assert record.bytes_up < most
