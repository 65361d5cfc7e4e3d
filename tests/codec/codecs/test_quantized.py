"""Uniform and power-of-two levels, and bits shared out by variance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.codecs.quantized import Quantized
from flwr_caesar.codec.conformance.mutate import Parts, seal
from flwr_caesar.codec.quantisers.uniform import (
    allocate_bits,
    dequantize_power_of_two,
    dequantize_uniform,
    quantize_power_of_two,
    quantize_uniform,
    top_level,
)

from ..library import Array

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
    for (n, v, b), (m, w, c) in itertools.permutations(
        zip(sizes, variances, bits, strict=True), 2
    ):
        if v > w and n <= m:
            assert b >= c


def test_the_codec_spends_its_bits() -> None:
    rng = np.random.default_rng(0)
    model = {
        "large": rng.normal(0, 1, (200, 200)).astype(np.float32),
        "small": rng.normal(0, 0.01, (200, 200)).astype(np.float32),
    }
    codec = Quantized(bits=5)
    frame, _ = codec.encode(model)
    assert 8 * len(frame) / 80_000 < 5.1
    decoded, _ = codec.decode(frame)
    for name, array in model.items():
        assert np.abs(array - decoded[name]).max() < np.abs(array).max()


def test_only_the_kept_are_sent() -> None:
    x = np.random.default_rng(0).standard_normal((1000, 300)).astype(np.float32)
    codec = Quantized(density=0.01)
    frame, _ = codec.encode({"x": x})
    assert np.count_nonzero(codec.decode(frame)[0]["x"]) <= 3000
    assert 8 * len(frame) / x.size < 0.17


@pytest.mark.filterwarnings("error")
def test_a_scale_that_overflows_is_refused_quietly() -> None:
    codec = Quantized(exact_below=0)
    frame, _ = codec.encode({"x": np.linspace(-1, 1, 9, dtype=np.float32)})
    parts = Parts.of(frame)
    for entry in parts.entries:
        if entry[0] == b"SCL\0":
            entry[4] = np.array([3e38], "<f4").tobytes()
    with pytest.raises(CodecError, match="infinity"):
        codec.decode(seal(parts.join()))
