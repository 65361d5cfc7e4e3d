"""Predictors: deterministic, from decoded values, and worth having."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.predictors.narrowed import narrow, widen
from flwr_caesar.codec.predictors.predict import (
    advance,
    fit_gain,
    fit_pair,
    kernel_shape,
    kernel_signs,
    normalised_magnitude,
    oscillation_shape,
    scaled_previous,
)


def gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=30))
def test_narrow_values_are_close_and_never_larger(values):
    x = np.array(values, np.float32)
    kept = widen(narrow(x))
    assert (np.abs(kept) <= np.abs(x)).all()
    assert (np.abs(x - kept) <= np.abs(x) / 128 + 1e-38).all()


def test_average_forgets_geometrically():
    average = np.zeros(3, np.float32)
    for _ in range(30):
        average = advance(average, np.ones(3, np.float32))
    assert average == pytest.approx(1, abs=1e-5)


def test_average_does_not_change_its_inputs():
    a, b = gaussian(0, 5), gaussian(1, 5)
    kept = a.copy(), b.copy()
    advance(a, b)
    assert (a == kept[0]).all()
    assert (b == kept[1]).all()


def test_magnitudes_are_in_units_of_the_step():
    x = np.array([-3.0, 0.5], np.float32)
    assert normalised_magnitude(x, np.float32(0.5)).tolist() == [6.0, 1.0]


def test_gain_is_least_squares_and_float16():
    shape = gaussian(2, 4000)
    x = np.float32(-0.7) * shape + np.float32(0.1) * gaussian(3, 4000)
    gain = fit_gain(x, shape)
    assert float(gain) == pytest.approx(-0.7, abs=0.01)
    assert gain == np.float32(np.float16(gain))
    assert fit_gain(x, np.zeros_like(shape)) == 0


def test_pair_recovers_both_gains_and_survives_parallel_shapes():
    a, b = gaussian(4, 4000), gaussian(5, 4000)
    g, h = fit_pair(np.float32(0.5) * a - np.float32(0.25) * b, a, b)
    assert (float(g), float(h)) == pytest.approx((0.5, -0.25), abs=1e-3)
    g, h = fit_pair(a, a, np.float32(2) * a)
    assert (g, h) == (1, 0)


def test_scaled_previous_follows_a_drift():
    drift = gaussian(6, 4000)
    rounds = [drift + np.float32(0.3) * gaussian(7 + i, 4000) for i in range(6)]
    average = rounds[0]
    for now in rounds[1:5]:
        average = advance(average, now)
    gains = fit_pair(rounds[5], rounds[4], average)
    left = rounds[5] - scaled_previous(rounds[4], average, gains)
    assert left.std() < 0.45 * rounds[5].std()


def test_oscillation_predicts_flipped_signs():
    previous = gaussian(20, 4000)
    shape = oscillation_shape(previous, np.abs(previous))
    assert fit_gain(-previous, shape) == -1


def test_kernel_signs_need_three_quarters():
    kernels = np.array(
        [[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1], [-1, -1, -1, 0]], np.float32
    )
    assert kernel_signs(kernels).tolist() == [1, 1, 0, -1]


def test_kernel_shape_is_zero_without_a_sign():
    magnitude = np.full((3, 4), 2, np.float32)
    shape = kernel_shape(np.array([1, 0, -1], np.int32), magnitude)
    assert shape[:, 0].tolist() == [2, 0, -2]
