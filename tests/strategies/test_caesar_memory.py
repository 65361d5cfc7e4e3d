"""Caesar with a memory: both sides code by the last update, or both without it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg

from flwr_caesar.clients import compression_mod
from flwr_caesar.codec import Layout
from flwr_caesar.codec.codecs.lattice import LatticeCodec
from flwr_caesar.strategies import Caesar
from flwr_caesar.transport import record_to_arrays

from .apps import initial_model, numpy_app
from .local_grid import LocalGrid
from .memories import (
    assert_lock_step,
    device_state,
    dropped,
    predicted,
    run_in_lock_step,
)


def drift(arrays, node, server_round):
    """Go where the round before went, and a little elsewhere."""
    own = np.random.default_rng(node).normal(size=(64, 48))
    noise = np.random.default_rng([node, server_round]).normal(size=(64, 48))
    out = {name: np.array(value) for name, value in arrays.items()}
    out["weight"] = arrays["weight"] + (own + 0.2 * noise).astype(np.float32)
    return out


def strategy_of(nodes: int, fraction: float = 1.0, **options) -> Caesar:
    inner = FedAvg(
        fraction_train=fraction,
        fraction_evaluate=0.0,
        min_train_nodes=1,
        min_available_nodes=nodes,
    )
    options = {"upload_memory": 1 << 20, **options}
    return Caesar(inner, rate=2.0, importance_aware=False, **options)


def test_the_next_update_is_coded_by_the_last_one_and_is_shorter() -> None:
    sizes = {}
    for memory in (1 << 20, 0):
        random.seed(0)
        grid = LocalGrid(numpy_app(mods=[compression_mod], step=drift), 3)
        strategy = strategy_of(3, upload_memory=memory)
        strategy.start(grid, initial_model(), num_rounds=4)
        assert not any(dropped(strategy))
        assert predicted(grid) == [False] * 3 + [memory > 0] * 9
        assert_lock_step(strategy, grid, forgotten=0)
        sizes[memory] = strategy.history[-1].bytes_up
        codec = LatticeCodec(exact_below=0, compact=True, memory=True)
        size = codec.memory_nbytes(Layout.of(record_to_arrays(initial_model())))
        assert strategy._exchange.memory.nbytes == (3 * size if memory else 0)
    assert sizes[1 << 20] < 0.9 * sizes[0]


def test_memories_stay_in_step_when_few_take_part_and_replies_are_lost() -> None:
    random.seed(3)
    grid = LocalGrid(numpy_app(mods=[compression_mod], step=drift), 6)
    run_in_lock_step(strategy_of(6, fraction=0.5), grid, 12)


@pytest.mark.parametrize("lost", [(2,), (2, 3), (1, 4, 5)])
def test_what_a_lost_reply_carried_comes_with_the_next(lost: tuple[int, ...]) -> None:
    count = 0

    def lose(reply: Message, node: int) -> Message | None:
        nonlocal count
        count += 1
        return None if count in lost else reply

    computed = np.zeros((64, 48))

    def work(arrays, node, server_round):
        nonlocal computed
        out = drift(arrays, node, server_round)
        computed = computed + out["weight"] - arrays["weight"]
        return out

    grid = LocalGrid(numpy_app(mods=[compression_mod], step=work), 1, tamper=lose)
    strategy = strategy_of(1)
    result = strategy.start(grid, initial_model(), num_rounds=7, timeout=0.1)
    assert any(dropped(strategy))
    assert any(predicted(grid))
    start = initial_model()["weight"].numpy()
    kept = device_state(grid, 1).residual["weight"]
    applied = result.arrays["weight"].numpy().astype(np.float64) - start
    np.testing.assert_allclose(applied + kept, computed, atol=0.05)


def test_a_codec_of_the_paper_has_no_memory() -> None:
    with pytest.raises(ValueError, match="upload_memory"):
        Caesar(FedAvg(), codec="paper", upload_memory=1)
    with pytest.raises(ValueError, match="upload_memory"):
        Caesar(FedAvg(), upload_memory=-1)
