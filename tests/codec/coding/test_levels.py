"""Small integers survive, cost about their entropy, and hostile ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.coding.levels import pack_levels, unpack_levels
from flwr_caesar.codec.contract.frame import FrameReader, write_frame
from flwr_caesar.codec.contract.layout import TensorSpec

from ..library import Array


def specs(*sizes: int) -> list[TensorSpec]:
    return [TensorSpec(str(i), "float32", (n,)) for i, n in enumerate(sizes)]


def through_a_frame(
    levels: Array, tensors: list[TensorSpec], limit: int, read_limit: int
) -> tuple[Array, int]:
    sections = pack_levels(levels, tensors, limit)
    frame = write_frame(config={"id": "x"}, layout_digest=bytes(16), sections=sections)
    return unpack_levels(FrameReader(frame), tensors, read_limit), len(frame)


@given(
    st.lists(st.integers(0, 300), max_size=5), st.integers(1, 255), st.integers(0, 99)
)
def test_few_levels_survive(sizes: list[int], limit: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(-limit, limit + 1, sum(sizes)).astype(np.int16)
    got, _ = through_a_frame(levels, specs(*sizes), limit, limit)
    np.testing.assert_array_equal(got, levels)


@pytest.mark.parametrize("spread", [0.3, 1, 5])
def test_many_levels_cost_their_entropy_in_each_tensor(spread: float) -> None:
    rng = np.random.default_rng(0)
    sizes = (300_000, 200_000, 50)
    parts = [
        np.clip(np.rint(rng.normal(0, spread * 4**i, n)), -255, 255)
        for i, n in enumerate(sizes)
    ]
    levels = np.concatenate(parts).astype(np.int16)
    got, size = through_a_frame(levels, specs(*sizes), 255, 255)
    np.testing.assert_array_equal(got, levels)
    entropy = 0.0
    for part in parts:
        p = np.unique(part, return_counts=True)[1] / part.size
        entropy -= part.size * (p @ np.log2(p))
    assert 8 * size < 1.02 * entropy


@pytest.mark.parametrize(("n", "level"), [(100, 9), (100, -9), (20_000, 9)])
def test_levels_beyond_the_limit_are_refused(n: int, level: int) -> None:
    with pytest.raises(CodecError, match="exceeds"):
        through_a_frame(np.full(n, level, np.int16), specs(n), 9, 8)
