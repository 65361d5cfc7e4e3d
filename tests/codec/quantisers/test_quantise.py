"""Quantisers keep their bounds, float32 rounding included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.quantisers.quantise import (
    bounded_step,
    lattice_values,
    quantise_bounded,
    quantise_dead_zone,
    reconstruct,
)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.integers(-30, 30),
    offset=st.sampled_from([0.0, 1.0, 1e3, -1e6]),
    rel=st.sampled_from([1e-7, 1e-6, 1e-5, 1e-3, 0.1]),
)
def test_every_element_keeps_the_bound(seed, scale, offset, rel):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=500) + offset).astype(np.float32) * np.float32(2.0**scale)
    prediction = x + rng.normal(size=500).astype(np.float32) * np.float32(2.0**scale)
    bound = rel * (float(x.max()) - float(x.min()))
    step = bounded_step(bound)
    indices, xhat, raw = quantise_bounded(x, prediction, step, bound)
    assert (np.abs(x.astype(np.float64) - xhat) <= bound).all()
    assert (xhat[raw] == x[raw]).all()
    assert (indices[raw] == 0).all()
    again = reconstruct(indices, step, prediction)
    assert (again[~raw] == xhat[~raw]).all()


def test_no_element_is_sent_raw_at_usual_bounds():
    x = np.random.default_rng(0).normal(size=10**5).astype(np.float32)
    bound = 1e-3 * float(np.ptp(x))
    zero = np.zeros_like(x)
    raw = quantise_bounded(x, zero, bounded_step(bound), bound)[2]
    assert not raw.any()


def test_steps_that_float32_cannot_use_are_zero():
    assert bounded_step(0.0) == 0
    assert bounded_step(1e-40) == 0
    assert bounded_step(1e38) == 0


@given(
    x=st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=50),
    dead_zone=st.floats(0.5, 1),
)
def test_dead_zone_rounds_towards_zero(x, dead_zone):
    x = np.array(x, np.float32)
    q = quantise_dead_zone(x, 0.5, dead_zone)
    error = np.abs(x) - 0.5 * np.abs(q)
    assert (np.sign(q) * np.sign(x) >= 0).all()
    assert (error <= 0.5 * dead_zone + 1e-4).all()
    assert (error >= 0.5 * (dead_zone - 1) - 1e-4).all()


def test_too_small_a_step_is_refused():
    with pytest.raises(CodecError, match="too small"):
        quantise_dead_zone(np.array([1e30], np.float32), 1e-9, 0.5)


def test_lattice_values_are_exact():
    q = np.array([-(2**24), -1, 0, 3, 2**24], np.int32)
    expected = q.astype(np.float64) * 5 / 128
    assert (lattice_values(q, -7, 5) == expected).all()
