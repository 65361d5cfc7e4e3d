"""The step that is found meets its rate or its error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec.quantisers.pieces import Pieces
from flwr_caesar.codec.quantisers.quantise import quantise_dead_zone
from flwr_caesar.codec.quantisers.step_search import Quantiser, Step, StepSearch


@given(st.integers(-300, 300))
def test_steps_are_numbered_in_order(quarter):
    step = Step.of(quarter)
    assert step.quarter == quarter
    assert Step.near(step.value) == step
    assert step.value < Step.of(quarter + 1).value <= 1.25 * step.value


@pytest.mark.parametrize("exponent", range(-20, 21))
def test_powers_of_two_are_steps(exponent):
    assert Step.near(2.0**exponent).value == 2.0**exponent


def test_rate_and_error_are_met_on_the_whole():
    rng = np.random.default_rng(3)
    x = rng.laplace(size=300_000).astype(np.float32)
    classes = np.full(len(x), 32, np.uint8)
    search = StepSearch(Pieces([x]), classes, Step.near(1.0))
    whole = StepSearch(Pieces([x[:131_072]]), classes[:131_072], Step.near(1.0))
    for rate in (0.3, 1.0, 3.0):
        bits, _ = whole.measure(search.for_rate(rate))
        assert 0.93 * rate < bits < 1.03 * rate
    for target in (0.6, 0.2, 0.01):
        _, nmse = whole.measure(search.for_error(target))
        assert 0.9 * target < nmse < 1.05 * target


def test_an_error_is_met_where_few_elements_hold_the_energy():
    rng = np.random.default_rng(5)
    x = rng.laplace(size=400_000).astype(np.float32)
    x[rng.choice(len(x), 60, replace=False)] *= 300
    classes = np.full(len(x), 32, np.uint8)
    search = StepSearch(Pieces([x]), classes, Step.near(1.0))
    for target in (0.05, 0.01):
        found = search.for_error(target)
        q = quantise_dead_zone(x, found.step.value, found.dead_zone)
        lost = np.square(x - q * np.float32(found.step.value), dtype=np.float64).sum()
        nmse = lost / np.square(x, dtype=np.float64).sum()
        assert 0.9 * target < nmse < 1.05 * target


def test_one_bit_is_within_ten_percent_of_ideal_at_any_scale():
    """0.262 is the ideal entropy-coded dead-zone quantiser's error for Laplace."""
    x = np.random.default_rng(4).laplace(size=200_000).astype(np.float32)
    classes = np.full(len(x), 32, np.uint8)
    for scale in (1.0, 1.2, 1.5, 1.8):
        search = StepSearch(Pieces([x * np.float32(scale)]), classes, Step.near(1.0))
        _, nmse = search.measure(search.for_rate(1.0))
        assert nmse <= 1.1 * 0.262


def test_what_is_measured_is_so():
    x = np.array([0.0, 0.6, 0.7, -1.2], np.float32)
    search = StepSearch(Pieces([x]), np.full(4, 32, np.uint8), Step.near(1.0))
    _, nmse = search.measure(Quantiser(Step.near(1.0), 0.65))
    xhat = np.array([0, 0, 1, -1])
    assert nmse == pytest.approx(((x - xhat) ** 2).sum() / (x**2).sum(), rel=1e-5)
