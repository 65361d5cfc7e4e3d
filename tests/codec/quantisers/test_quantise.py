"""Quantisers keep their bounds, float32 rounding included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_caesar.codec import CodecError
from flwr_caesar.codec.quantisers.planner import Plan, Planner, Step
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


@given(st.integers(-300, 300))
def test_steps_are_numbered_in_order(quarter):
    step = Step.of(quarter)
    assert step.quarter == quarter
    assert Step.near(step.value) == step
    assert step.value < Step.of(quarter + 1).value <= 1.25 * step.value


@pytest.mark.parametrize("exponent", range(-20, 21))
def test_powers_of_two_are_steps(exponent):
    assert Step.near(2.0**exponent).value == 2.0**exponent


def test_planned_rate_and_error_are_met_on_the_whole():
    rng = np.random.default_rng(3)
    x = rng.laplace(size=300_000).astype(np.float32)
    classes = np.full(len(x), 32, np.uint8)
    planner = Planner(x, classes, Step.near(1.0))
    whole = Planner(x[:131_072], classes[:131_072], Step.near(1.0))
    for rate in (0.3, 1.0, 3.0):
        bits, _ = whole.measure(planner.for_rate(rate))
        assert 0.93 * rate < bits < 1.03 * rate
    for target in (0.6, 0.2, 0.01):
        _, nmse = whole.measure(planner.for_error(target))
        assert 0.9 * target < nmse < 1.05 * target


def test_an_error_is_met_where_few_elements_hold_the_energy():
    rng = np.random.default_rng(5)
    x = rng.laplace(size=400_000).astype(np.float32)
    x[rng.choice(len(x), 60, replace=False)] *= 300
    classes = np.full(len(x), 32, np.uint8)
    planner = Planner(x, classes, Step.near(1.0))
    for target in (0.05, 0.01):
        plan = planner.for_error(target)
        q = quantise_dead_zone(x, plan.step.value, plan.dead_zone)
        lost = np.square(x - q * np.float32(plan.step.value), dtype=np.float64).sum()
        nmse = lost / np.square(x, dtype=np.float64).sum()
        assert 0.9 * target < nmse < 1.05 * target


def test_one_bit_is_within_ten_percent_of_ideal_at_any_scale():
    """0.262 is the ideal entropy-coded dead-zone quantiser's error for Laplace."""
    x = np.random.default_rng(4).laplace(size=200_000).astype(np.float32)
    classes = np.full(len(x), 32, np.uint8)
    for scale in (1.0, 1.2, 1.5, 1.8):
        planner = Planner(x * np.float32(scale), classes, Step.near(1.0))
        _, nmse = planner.measure(planner.for_rate(1.0))
        assert nmse <= 1.1 * 0.262


def test_lattice_values_are_exact():
    q = np.array([-(2**24), -1, 0, 3, 2**24], np.int32)
    assert (lattice_values(q, -7) == q.astype(np.float64) / 128).all()


def test_a_plan_measures_what_it_says():
    x = np.array([0.0, 0.6, 0.7, -1.2], np.float32)
    planner = Planner(x, np.full(4, 32, np.uint8), Step.near(1.0))
    _, nmse = planner.measure(Plan(Step.near(1.0), 0.65))
    xhat = np.array([0, 0, 1, -1])
    assert nmse == pytest.approx(((x - xhat) ** 2).sum() / (x**2).sum(), rel=1e-5)
