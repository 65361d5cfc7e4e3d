"""Blocks cover what they divide, once and in order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.coding.blocks import (
    BLOCK,
    Shape3,
    blocks,
    long_axis,
    tensor_blocks,
)


@given(st.integers(0, 500), st.integers(1, 60))
def test_blocks_cover(n: int, size: int) -> None:
    parts = list(blocks(n, size))
    assert [i for part in parts for i in range(n)[part]] == list(range(n))
    assert all(len(range(n)[part]) <= size for part in parts)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 0),
        (1, 1, 1),
        (1, 1, 3 * BLOCK + 7),
        (1, 5, 2 * BLOCK),
        (1, 4000, 49),
        (3, 1, BLOCK + 1),
        (700, 300, 1),
        (90, 90, 9),
    ],
)
def test_pieces_of_a_tensor_are_its_elements_in_order(shape: Shape3) -> None:
    tensor = np.arange(math.prod(shape)).reshape(shape)
    seen = 0
    for at, flat in tensor_blocks(shape):
        piece = tensor[at]
        assert flat.start == seen
        assert np.array_equal(piece.reshape(-1), np.arange(flat.start, flat.stop))
        assert piece.size <= BLOCK or piece.shape[long_axis(shape)] == 1
        seen = flat.stop
    assert seen == tensor.size
