"""LoRA adapters of unequal rank: refused in words, and nobody else's round ends."""

from __future__ import annotations

import random

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.strategies import Caesar, TopK, Uncompressed
from flwr_caesar.transport import arrays_to_record

from .apps import numpy_app
from .local_grid import LocalGrid

RANK, LOW, WIDTH = 8, 4, 96
ODD_ONE = 2
A, B = "base_model.q_proj.lora_A.weight", "base_model.q_proj.lora_B.weight"


def adapters() -> ArrayRecord:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(RANK, WIDTH)).astype(np.float32)
    return arrays_to_record({A: a, B: np.zeros((WIDTH, RANK), np.float32)})


def trained(arrays, node, _server_round):
    return {name: array + np.float32(node) for name, array in arrays.items()}


def at_its_own_rank(arrays, node, server_round):
    arrays = trained(arrays, node, server_round)
    if node != ODD_ONE:
        return arrays
    return {A: arrays[A][:LOW], B: arrays[B][:, :LOW]}


def filled_up(arrays, node, server_round):
    arrays = at_its_own_rank(arrays, node, server_round)
    more = RANK - len(arrays[A])
    return {
        A: np.pad(arrays[A], ((0, more), (0, 0))),
        B: np.pad(arrays[B], ((0, 0), (0, more))),
    }


@pytest.mark.parametrize("make", [Uncompressed, TopK, Caesar])
def test_a_device_of_another_rank_is_refused_and_told_what_to_do(make) -> None:
    random.seed(0)
    strategy = make(FedAvg(fraction_evaluate=0.0))
    app = numpy_app(mods=[compression_mod], step=at_its_own_rank)
    initial = adapters()
    result = strategy.start(LocalGrid(app, 3), initial, num_rounds=2)
    for record in strategy.history:
        (reason,) = record.dropped.values()
        assert list(record.dropped) == [ODD_ONE]
        assert repr(A) in reason
        assert str((LOW, WIDTH)) in reason
        assert str((RANK, WIDTH)) in reason
        assert "with zeros" in reason
    # The two others moved it by 1 and 3, weighted with 1 and 3, a round.
    moved = result.arrays[A].numpy() - initial[A].numpy()
    assert moved.mean() == pytest.approx(2 * 2.5, rel=0.1)


def test_ranks_filled_up_with_zeros_count() -> None:
    random.seed(0)
    strategy = Uncompressed(FedAvg(fraction_evaluate=0.0))
    app = numpy_app(step=filled_up)
    result = strategy.start(LocalGrid(app, 3), adapters(), num_rounds=1)
    (record,) = strategy.history
    assert not record.dropped
    # Nodes 1 to 3 weigh as much as their number; the second has half of the columns.
    moved = result.arrays[B].numpy()
    assert moved[:, :LOW] == pytest.approx(14 / 6, rel=1e-5)
    assert moved[:, LOW:] == pytest.approx(10 / 6, rel=1e-5)
