"""Exactly k of the largest magnitudes are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec.quantisers.select import count_kept, top_k

from ..strategies import Array

vectors = hnp.arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.floats(-(2.0**99), 2.0**99, width=32)
    | st.sampled_from([0.0, -0.0, 1.0, -1.0]),
)


@given(vectors, st.integers(0, 70))
def test_the_kept_are_the_largest(x: Array, k: int) -> None:
    before = x.copy()
    kept = top_k(x, k)
    assert len(kept) == min(k, len(x))
    assert (np.diff(kept, prepend=-1) > 0).all()
    dropped = np.delete(np.abs(x), kept)
    if len(kept) and len(dropped):
        assert np.abs(x[kept]).min() >= dropped.max()
    assert x.tobytes() == before.tobytes()


@pytest.mark.parametrize(
    ("n", "density", "k"),
    [(1, 0.01, 1), (100, 0.01, 1), (101, 0.01, 2), (10, 1.0, 10), (7, 1e-300, 1)],
)
def test_a_density_keeps_the_ceiling(n: int, density: float, k: int) -> None:
    assert count_kept(n, density) == k
