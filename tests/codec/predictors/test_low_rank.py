"""Low-rank factors: exact where the matrix is, better than noise, reproducible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec.predictors.low_rank import (
    FACTOR_BITS,
    Factors,
    add_product,
    factor_bits,
    factorise,
    largest_rank,
    matrix_shape,
)
from flwr_caesar.codec.quantisers.uniform import top_level

from ..library import Array, nmse

sides = st.integers(8, 14)


def product(factors: Factors) -> Array:
    target = np.zeros((factors.left.shape[1], factors.right.shape[1]), np.float32)
    add_product(target, factors)
    return target


def low_rank(rows: int, columns: int, rank: int, noise: float = 0.0) -> Array:
    rng = np.random.default_rng(rows * columns + rank)
    matrix = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
    matrix += noise * rng.normal(size=matrix.shape)
    return matrix.astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((), None),
        ((100,), None),
        ((7, 100), None),
        ((100, 7), None),
        ((8, 8), (8, 8)),
        ((16, 4, 3, 3), (16, 36)),
        ((0, 9), None),
    ],
)
def test_what_is_a_matrix(shape, seen) -> None:
    assert matrix_shape(shape) == seen


@given(sides, sides)
def test_factors_never_outgrow_the_matrix(rows: int, columns: int) -> None:
    rank = largest_rank(rows, columns)
    assert rank * (rows + columns) <= rows * columns
    assert (rank + 1) * (rows + columns) > rows * columns or rank == 32


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_low_rank_matrix_is_found_to_the_quantiser(rank: int) -> None:
    matrix = low_rank(60, 90, rank)
    factors = factorise(matrix, rank)
    assert factors is not None
    assert nmse(matrix, product(factors)) < 0.03


def test_factors_of_noise_are_nearly_the_best() -> None:
    matrix = low_rank(64, 96, 3, noise=0.5)
    values = np.linalg.svd(matrix, compute_uv=False)
    best = np.square(values[3:]).sum() / np.square(values).sum()
    factors = factorise(matrix, 3)
    assert factors is not None
    assert nmse(matrix, product(factors)) < best + 0.03


def test_a_warm_start_follows_a_slow_matrix() -> None:
    rng = np.random.default_rng(3)
    basis = rng.normal(size=(2, 96))
    warm = None
    errors = []
    for _ in range(4):
        basis += 0.05 * rng.normal(size=basis.shape)
        x = rng.normal(size=(64, 2)) @ basis + 0.8 * rng.normal(size=(64, 96))
        x = x.astype(np.float32)
        factors = factorise(x, 2, warm)
        assert factors is not None
        warm = factors.right_values()
        values = np.linalg.svd(x, compute_uv=False)
        best = np.square(values[2:]).sum() / np.square(values).sum()
        errors.append(nmse(x, product(factors)) - best)
    assert max(errors) < 0.03


@given(
    st.tuples(sides, sides).flatmap(
        lambda shape: hnp.arrays(
            np.float32, shape, elements=st.floats(-(2.0**120), 2.0**120, width=32)
        )
    ),
    st.integers(1, 4),
    st.booleans(),
)
def test_any_matrix_has_factors_or_none(matrix: Array, rank: int, again: bool) -> None:
    kept = matrix.copy()
    factors = factorise(matrix, rank)
    assert (matrix == kept).all()
    if factors is None:
        assert not matrix.any()
        return
    if again:
        factors = factorise(matrix, rank, factors.right_values())
        assert factors is not None
    top = top_level(FACTOR_BITS)
    for levels in (factors.left, factors.right):
        assert np.abs(levels.astype(int)).max() <= top
    assert factors.rank == rank
    assert factors.strongest(1).rank == 1
    repeated = factorise(matrix, rank)
    first = factorise(matrix, rank)
    assert repeated is not None
    assert first is not None
    assert product(repeated).tobytes() == product(first).tobytes()


@pytest.mark.parametrize("value", [0.0, 3e38, 1e-44])
def test_extreme_matrices(value: float) -> None:
    factors = factorise(np.full((9, 9), value, np.float32), 2)
    assert (factors is None) == (value == 0.0) or value == 3e38
    if factors is not None:
        assert np.isfinite(factors.right_steps).all()


def test_components_are_added_in_order_one_rounding_each() -> None:
    factors = factorise(low_rank(12, 20, 3, noise=1.0), 3)
    assert factors is not None
    target = np.full((12, 20), 0.1, np.float32)
    add_product(target, factors)
    left, right = factors.left_values(), factors.right_values()
    for a, b in ((0, 0), (11, 19), (5, 7)):
        x = np.float32(0.1)
        for i in range(3):
            x = np.float32(x + np.float32(left[i, a] * right[i, b]))
        assert x == target[a, b]


def test_what_factors_cost() -> None:
    assert factor_bits(2, 10, 30) == 4 * (2 * 40 + 7) + 2 * 2 * 32


@pytest.mark.parametrize("shape", [(300, 700), (9, 70_000), (2000, 8)])
def test_components_are_added_one_after_the_other_to_the_bit(shape):
    """In pieces of the matrix, each element in the order of the components."""
    rng = np.random.default_rng(5)
    factors = factorise(rng.normal(size=shape).astype(np.float32), 3)
    target = rng.normal(size=shape).astype(np.float32)
    expected = target.copy()
    for column, row in zip(factors.left_values(), factors.right_values(), strict=True):
        expected += np.multiply.outer(column, row)
    add_product(target, factors)
    assert target.tobytes() == expected.tobytes()
