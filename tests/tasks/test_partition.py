from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.tasks.partition import partition_dirichlet, partition_iid

LABELS = np.repeat(np.arange(10), 400)


def dirichlet(alpha: float, *, num_partitions: int = 20, seed: int = 0, min_size=10):
    return partition_dirichlet(
        LABELS, num_partitions, alpha=alpha, min_size=min_size, seed=seed
    )


def skew(parts) -> float:
    """Mean share of a part's most frequent label."""
    return float(np.mean([np.bincount(LABELS[p]).max() / len(p) for p in parts]))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 600),
    num_partitions=st.integers(1, 40),
    alpha=st.floats(1e-3, 1e3),
    classes=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_dirichlet_puts_every_example_in_one_part_of_the_least_size(
    n, num_partitions, alpha, classes, seed, data
):
    n = max(n, num_partitions)
    min_size = data.draw(st.integers(0, n // num_partitions))
    labels = np.random.default_rng(seed).integers(0, classes, n)
    parts = partition_dirichlet(
        labels, num_partitions, alpha=alpha, min_size=min_size, seed=seed
    )
    assert len(parts) == num_partitions
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    assert min(map(len, parts)) >= min_size


@given(n=st.integers(1, 500), num_partitions=st.integers(1, 40), seed=st.integers(0))
def test_iid_puts_every_example_in_one_of_equal_parts(n, num_partitions, seed):
    parts = partition_iid(n, num_partitions, seed=seed)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_labels_grow_more_skewed_as_alpha_falls():
    skews = [
        np.mean([skew(dirichlet(alpha, seed=seed)) for seed in range(5)])
        for alpha in (100.0, 1.0, 0.3, 0.1)
    ]
    assert skews == sorted(skews)
    assert skews[0] < 0.2
    assert skews[-1] > 0.6


@pytest.mark.parametrize("seed", [0, 7])
def test_the_seed_names_the_partition(seed):
    same = zip(dirichlet(0.3, seed=seed), dirichlet(0.3, seed=seed), strict=True)
    assert all(np.array_equal(a, b) for a, b in same)
    other = zip(dirichlet(0.3, seed=seed), dirichlet(0.3, seed=seed + 1), strict=True)
    assert any(not np.array_equal(a, b) for a, b in other)


def test_filling_up_takes_few_examples_from_the_largest():
    loose = dirichlet(0.02, min_size=0)
    tight = dirichlet(0.02, min_size=10)
    missing = sum(max(0, 10 - len(part)) for part in loose)
    assert missing > 0
    moved = sum(len(np.setdiff1d(a, b)) for a, b in zip(tight, loose, strict=True))
    assert moved == missing
