"""Exact selection: the right number, the largest, ties by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec.quantisers.select import (
    count_kept,
    count_pruned,
    prune_mask,
    top_k,
    top_k_mask,
)

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


tied = hnp.arrays(
    np.float32,
    st.integers(0, 60),
    elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-45, -3e38]),
)


def first_of_equals(x: Array, k: int) -> list[int]:
    """Return what a stable sort by falling magnitude would keep."""
    return sorted(sorted(range(len(x)), key=lambda i: (-abs(float(x[i])), i))[:k])


@given(tied, st.integers(-1, 61))
def test_top_k_is_exact_with_ties_in_order(x: Array, k: int) -> None:
    assert top_k(x, k).tolist() == first_of_equals(x, max(k, 0))
    assert int(top_k_mask(x, k).sum()) == min(max(k, 0), len(x))


@given(tied, st.floats(0, 1))
def test_prune_drops_the_exact_share_and_all_zeros(x: Array, rate: float) -> None:
    kept = np.flatnonzero(prune_mask(x, rate)).tolist()
    share = first_of_equals(x, len(x) - count_pruned(len(x), rate))
    assert kept == [i for i in share if x[i] != 0]


@pytest.mark.parametrize(("rate", "kept"), [(0, 3), (0.5, 2), (0.75, 1), (1, 0)])
def test_prune_by_hand(rate: float, kept: int) -> None:
    x = np.array([2, -2, 2, 0], np.float32)
    assert prune_mask(x, rate).tolist() == [i < kept for i in range(4)]


def test_global_selection_crosses_tensors() -> None:
    whole = np.concatenate([np.full(10, 5), np.ones(10)]).astype(np.float32)
    assert top_k(whole, 10).tolist() == list(range(10))
