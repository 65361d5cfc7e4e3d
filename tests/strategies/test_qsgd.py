"""QSGD: fewer bits, and on average what exact updates would have made."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import get_codec
from flwr_caesar.strategies import QSGD, Uncompressed
from flwr_caesar.transport import record_to_frame

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid

ROUNDS = 3


def run(factory: Any, **settings: Any) -> tuple[Any, LocalGrid, np.ndarray]:
    random.seed(0)
    grid = LocalGrid(numpy_app(mods=[compression_mod]), 4)
    strategy = factory(FedAvg(fraction_evaluate=0.0, min_train_nodes=4), **settings)
    result = strategy.start(grid, initial_model(), num_rounds=ROUNDS, timeout=0.01)
    return strategy, grid, result.arrays["weight"].numpy()


def error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("downlink", ["whole", "lattice", "rounded"])
def test_it_learns_what_exact_updates_teach(downlink: str) -> None:
    _, _, exact = run(Uncompressed)
    strategy, _, found = run(QSGD, downlink=downlink)
    assert not any(record.dropped for record in strategy.history)
    assert error(found, exact) < 0.02
    start = initial_model()["weight"].numpy()
    assert error(start, exact) > 0.2


def test_fewer_levels_are_fewer_bytes_and_more_error() -> None:
    _, _, exact = run(Uncompressed)
    many, _, fine = run(QSGD, levels=127)
    few, _, coarse = run(QSGD, levels=3)
    assert few.history[0].bytes_up < 0.7 * many.history[0].bytes_up
    assert error(coarse, exact) > 3 * error(fine, exact)


def test_rounded_models_are_on_levels_and_shorter() -> None:
    whole, _, _ = run(QSGD)
    rounded, grid, _ = run(QSGD, downlink="rounded")
    assert rounded.history[-1].bytes_down < 0.5 * whole.history[-1].bytes_down
    (frame,) = {
        bytes(record_to_frame(content["arrays"])) for _, content in grid.sent[-4:]
    }
    codec = get_codec({"id": "qsgd", "levels": 127, "norm": "linf", "bucket": 512})
    weight = codec.decode(frame)[0]["weight"].reshape(-1, 512)
    level = weight / np.abs(weight).max(axis=1, keepdims=True) * 127
    np.testing.assert_allclose(level, np.rint(level), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 0}, "levels"),
        ({"norm": "l1"}, "norm"),
        ({"bucket": -1}, "bucket"),
        ({"downlink": "half"}, "downlink must be one of whole, lattice, rounded"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QSGD(FedAvg(), **settings)
