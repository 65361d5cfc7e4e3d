"""Pieces are what concatenating the scaled vectors gives."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.quantisers.pieces import Pieces

octaves = st.integers(-20, 20)
vectors = st.lists(st.tuples(st.integers(0, 9), octaves), min_size=1, max_size=5)


@given(vectors, st.integers(0, 2**32), st.data())
def test_pieces_are_one_vector(sizes, seed, data):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=size).astype(np.float32) for size, _ in sizes]
    pieces = Pieces(parts, [own for _, own in sizes])
    scaled = [np.ldexp(x, own) for x, (_, own) in zip(parts, sizes, strict=True)]
    whole = np.concatenate(scaled)
    assert len(pieces) == len(whole)
    assert all(map(np.array_equal, pieces, scaled))
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert np.array_equal(pieces.part(slice(start, stop)), whole[start:stop])
    count = data.draw(st.integers(0, 9)) if len(whole) else 0
    positions = np.sort(rng.integers(0, max(len(whole), 1), count))
    assert np.array_equal(pieces.take(positions), whole[positions])


def test_without_octaves_they_are_as_they_are():
    parts = [np.array([1, 2], np.float32), np.array([3], np.float32)]
    assert np.array_equal(np.concatenate(list(Pieces(parts))), [1, 2, 3])


def test_positions_of_what_is_not_zero_are_those_of_the_whole():
    vectors = [np.array(v, np.float32) for v in ([0, 1, 0], [], [2, 0], [0])]
    assert Pieces(vectors).nonzero().tolist() == [1, 3]
    assert Pieces([]).nonzero().tolist() == []
