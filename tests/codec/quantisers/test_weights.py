"""Weights on levels of a few bits stay there, to the bit, however often quantised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.codecs.prune import PruneCodec
from flwr_caesar.codec.quantisers.weights import (
    WEIGHT_BITS,
    WEIGHT_LEVELS,
    dequantize_weights,
    largest_level,
    quantize_weights,
)

from ..library import reseal

vectors = hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)).map(
    lambda x: np.nan_to_num(x, posinf=3e38, neginf=-3e38)
)
normals = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).normal(0, 0.05, 300).astype(np.float32)
)
every_bits = pytest.mark.parametrize("bits", WEIGHT_BITS)
every_levels = pytest.mark.parametrize("levels", WEIGHT_LEVELS)


def quantized(x: np.ndarray, bits: int, levels: str) -> np.ndarray:
    found, scale = quantize_weights(x, bits, levels)
    assert np.abs(found).max(initial=0) <= largest_level(bits)
    return dequantize_weights(found, scale, bits, levels)


@every_bits
@every_levels
@given(x=vectors | normals)
def test_quantising_again_changes_nothing(bits: int, levels: str, x: np.ndarray):
    once = quantized(x, bits, levels)
    np.testing.assert_array_equal(quantized(once, bits, levels), once)


@pytest.mark.parametrize("bits", range(2, 9))
@given(x=normals)
def test_uniform_levels_are_the_nearest_and_end_at_the_largest(bits: int, x):
    once = quantized(x, bits, "uniform")
    peak, top = np.abs(x).max(), 2 ** (bits - 1) - 1
    assert np.abs(once).max() == peak
    assert np.abs(x - once).max() <= (0.5 / top + 1e-6) * peak
    assert len(np.unique(once)) <= 2 * top + 1


@given(x=normals)
def test_power_of_two_levels_are_powers_of_two(x):
    once = quantized(x, 4, "power_of_two")
    assert set(np.frexp(np.abs(once[once != 0]))[0]) == {0.5}
    assert len(np.unique(once)) <= 15


def test_one_bit_is_the_sign_and_the_mean_magnitude_of_what_is_not_zero():
    x = np.array([1, -2, 0, 6], np.float32)
    np.testing.assert_array_equal(quantized(x, 1, "uniform"), [3, -3, 0, 3])


@every_bits
@every_levels
@given(seed=st.integers(0, 2**32))
def test_a_model_on_its_levels_comes_back_to_the_bit(bits: int, levels: str, seed: int):
    rng = np.random.default_rng(seed)
    model = {
        name: quantized(
            rng.normal(0, scale, 60).astype(np.float32), bits, levels
        ).reshape(shape)
        for name, scale, shape in (("a", 0.1, (6, 10)), ("b", 3, (3, 4, 5)))
    }
    model["bias"] = rng.normal(0, 1, 7).astype(np.float32)
    codec = PruneCodec(prune_rate=0, bits=bits, levels=levels)
    decoded, _ = codec.decode(codec.encode(model)[0])
    for name, array in model.items():
        np.testing.assert_array_equal(decoded[name], array)


@every_bits
@every_levels
def test_survivors_alone_make_the_levels_of_each_tensor(bits: int, levels: str):
    rng = np.random.default_rng(bits)
    model = {
        "a": rng.laplace(0, 1, (20, 30)).astype(np.float32),
        "b": rng.laplace(0, 2, (20, 30)).astype(np.float32),
        "none": rng.laplace(0, 1e-9, (20, 30)).astype(np.float32),
    }
    whole, bit_codec = (
        PruneCodec(prune_rate=0.6),
        PruneCodec(prune_rate=0.6, bits=bits, levels=levels),
    )
    kept, _ = whole.decode(whole.encode(model)[0])
    found, _ = bit_codec.decode(bit_codec.encode(model)[0])
    assert not kept["none"].any()
    for name, array in kept.items():
        survivors = array != 0
        expected = np.zeros_like(array)
        expected[survivors] = quantized(array[survivors], bits, levels)
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize(
    ("rate", "bits", "most"), [(0, 8, 6.9), (0, 4, 2.7), (0, 1, 1.02), (0.5, 4, 2.4)]
)
def test_the_cost_on_gaussian_weights(rate: float, bits: int, most: float):
    x = np.random.default_rng(0).standard_normal((1000, 500)).astype(np.float32)
    frame, _ = PruneCodec(prune_rate=rate, bits=bits).encode({"x": x})
    assert 8 * len(frame) / x.size < most


def test_a_level_beyond_the_largest_is_refused():
    x = np.array([[1, -0.5, 0.3], [0.2, 0.1, 0]], np.float32)
    frame, state = PruneCodec(prune_rate=0, bits=4).encode({"x": x})
    foreign = frame.replace(b'"bits":4', b'"bits":3')
    with pytest.raises(CodecError, match="larger than 3"):
        PruneCodec(prune_rate=0, bits=3).decode(reseal(foreign), state)


def test_at_32_bits_the_configuration_is_the_first_one():
    assert PruneCodec(prune_rate=0.5).config == {
        "id": "prune",
        "prune_rate": 0.5,
        "exclude_1d": True,
        "exact_below": 0,
    }
    assert PruneCodec(bits=4).config["bits"] == 4
