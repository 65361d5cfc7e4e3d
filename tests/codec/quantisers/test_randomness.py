"""Draws that follow from a seed and the data: published words, unbiased rounding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.quantisers.randomness import (
    generator,
    random_bits,
    round_at_random,
    splitmix64,
)


def test_splitmix64_is_the_published_generator() -> None:
    assert splitmix64(1234567, 0, 3).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    assert splitmix64(1234567, 2, 1)[0] == splitmix64(1234567, 0, 3)[2]


def test_bits_are_the_words_least_significant_first() -> None:
    word = int(splitmix64(9, 1, 1)[0])
    assert random_bits(9, 64, 64).tolist() == [word >> i & 1 for i in range(64)]
    assert random_bits(9, 64, 5).tolist() == [word >> i & 1 for i in range(5)]


@given(st.floats(0, 256, width=32), st.integers(0, 2**63))
def test_rounding_goes_to_a_neighbour(x: float, seed: int) -> None:
    rounded = round_at_random(np.full(50, x, np.float32), generator(seed))
    assert set(rounded.tolist()) <= {np.floor(x), np.floor(x) + 1}
    if x == np.floor(x):
        assert (rounded == x).all()
