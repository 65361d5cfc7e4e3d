"""Frequencies that both sides rebuild exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.coding.tables import (
    SCALE,
    normalise,
    pack_tables,
    quantise_counts,
    unpack_tables,
)


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=512).filter(lambda c: any(c))
)
def test_frequencies_sum_to_the_scale_and_keep_every_symbol(counts):
    codes = quantise_counts(np.array([counts]))
    frequencies = normalise(codes)[0]
    assert int(frequencies.sum()) == SCALE
    assert ((frequencies > 0) == (np.array(counts) > 0)).all()


def test_normalisation_equals_its_statement_in_plain_integers():
    rng = np.random.default_rng(0)
    for size in (1, 2, 17, 200, 512):
        codes = rng.integers(0, 137, size).astype(np.uint8)
        codes[0] = 136
        plain = [int(c) - 1 for c in codes]
        weights = [0 if c < 0 else (8 + c % 8) << (c // 8) for c in plain]
        total = sum(weights)
        expected = [(2 * w * SCALE + total) // (2 * total) for w in weights]
        expected = [
            max(f, 1) if w else 0 for f, w in zip(expected, weights, strict=True)
        ]
        while sum(expected) != SCALE:
            i = expected.index(max(expected))
            expected[i] -= min(sum(expected) - SCALE, expected[i] - 1)
        assert normalise(codes[None])[0].tolist() == expected


def test_tables_round_trip():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 137, (9, 60)).astype(np.uint8)
    codes[3] = 0
    codes[5, 20:] = 0
    data = b"xx" + pack_tables(codes) + b"rest"
    found, offset = unpack_tables(data, 2, 9)
    assert (found == codes).all()
    assert data[offset:] == b"rest"
