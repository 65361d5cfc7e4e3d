"""Uniform and power-of-two levels, and bits shared out by variance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec.quantisers.uniform import (
    allocate_bits,
    dequantize_power_of_two,
    dequantize_uniform,
    quantize_power_of_two,
    quantize_uniform,
    top_level,
)

from ..library import Array

LARGEST = float(np.finfo(np.float32).max)

vectors = hnp.arrays(
    np.float32, st.integers(1, 40), elements=st.floats(-(2.0**99), 2.0**99, width=32)
)
bit_counts = st.integers(2, 8)


@given(vectors, bit_counts)
def test_uniform_errs_by_half_a_step(x: Array, bits: int) -> None:
    levels, step = quantize_uniform(x, bits)
    assert np.abs(levels.astype(int)).max() <= top_level(bits)
    error = np.abs(x.astype(float) - dequantize_uniform(levels, step, bits))
    assert error.max() <= 0.5 * step + 2e-7 * np.abs(x).max() + 1e-43


@given(vectors, bit_counts)
def test_powers_of_two_are_the_nearest(x: Array, bits: int) -> None:
    levels, peak = quantize_power_of_two(x, bits)
    got = dequantize_power_of_two(levels, peak, bits).astype(float)
    top = top_level(bits)
    powers = [float(np.ldexp(peak, -i)) for i in range(top)] if peak else []
    values = np.array([0.0, *powers, *(-p for p in powers)])
    best = np.abs(x.astype(float)[:, None] - values).min(1)
    np.testing.assert_array_equal(np.abs(x.astype(float) - got), best)


def distortion(sizes: tuple[int, ...], variances: tuple[float, ...], bits) -> float:
    return sum(n * v * 4.0**-b for n, v, b in zip(sizes, variances, bits, strict=True))


@pytest.mark.parametrize("budget", range(9, 25))
def test_equal_sizes_get_the_best_allocation(budget: int) -> None:
    sizes, variances = (1, 1, 1), (100.0, 1.0, 0.03)
    bits = allocate_bits(sizes, variances, budget)
    allowed = [
        choice
        for choice in itertools.product(range(2, 9), repeat=3)
        if sum(choice) <= budget
    ]
    best = min(distortion(sizes, variances, choice) for choice in allowed)
    assert sum(bits) <= budget
    assert distortion(sizes, variances, bits) == pytest.approx(best)


@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.floats(1e-6, 1e6)), min_size=1, max_size=8
    ),
    st.floats(2, 8),
)
def test_the_budget_holds_and_larger_variance_never_gets_less(
    tensors: list[tuple[int, float]], mean: float
) -> None:
    sizes, variances = zip(*tensors, strict=True)
    budget = int(mean * sum(sizes))
    bits = allocate_bits(sizes, variances, max(budget, 2 * sum(sizes)))
    assert sum(n * b for n, b in zip(sizes, bits, strict=True)) <= max(
        budget, 2 * sum(sizes)
    )
    assert all(2 <= b <= 8 for b in bits)
    for (v, b), (w, c) in itertools.permutations(zip(variances, bits, strict=True), 2):
        if v > w:
            assert b >= c


def test_a_tensor_below_one_that_cannot_pay_stays_at_its_bits() -> None:
    """The second costs 1,000 bits more and the third 1, of which there are 900."""
    sizes, variances = (10, 1000, 1), (9.0, 8.0, 7.0)
    bits = allocate_bits(sizes, variances, 2 * sum(sizes) + 900)
    assert bits == [8, 2, 2]
    bits = allocate_bits(sizes, variances, 2 * sum(sizes) + 1900)
    assert bits == [8, 3, 3]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bits", range(2, 9))
@given(st.floats(2.0**127, LARGEST, width=32))
def test_a_finite_vector_has_finite_levels(bits: int, peak: float) -> None:
    """Where rounding up the step takes its largest multiple beyond float32, too."""
    for largest in (peak, LARGEST):
        x = np.array([largest, -largest, largest / 3], np.float32)
        assert np.isfinite(dequantize_uniform(*quantize_uniform(x, bits), bits)).all()
        levels, top = quantize_power_of_two(x, bits)
        assert np.isfinite(dequantize_power_of_two(levels, top, bits)).all()
