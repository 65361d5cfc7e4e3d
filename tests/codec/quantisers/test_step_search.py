"""The step that is found meets its rate or its error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.codec import get_codec
from flwr_caesar.codec.coding.contexts import fit_scales, scale_classes
from flwr_caesar.codec.quantisers.goal import Goal
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


def spread(kind):
    rng = np.random.default_rng(6)
    x = {
        "normal": rng.normal(size=30_000),
        "sparse": rng.normal(size=30_000) * (rng.random(30_000) < 0.05),
        "rows": np.exp(rng.normal(size=(60, 1))) * rng.laplace(size=(60, 500)),
    }[kind]
    x = x.astype(np.float32).reshape(60, 1, 500)
    reference = Step.near(float(np.sqrt(np.square(x).mean())))
    scales = fit_scales(x, np.float32(reference.value))
    classes = scale_classes(scales, x.shape).reshape(-1)
    return StepSearch(Pieces([x.reshape(-1)]), classes, reference)


def least_of_all(search, goal, near):
    """The least cost of 15 steps, and of 19 dead zones at each."""
    quantisers = (
        Quantiser(Step.of(near.quarter + i), float(dead_zone))
        for i in range(-7, 8)
        for dead_zone in np.linspace(0.5, 0.95, 19)
    )
    found = map(search.measure, quantisers)
    return min(goal.cost(each) for each in found if goal.is_met(goal.excess(each)))


@pytest.mark.parametrize("kind", ["normal", "sparse", "rows"])
@pytest.mark.parametrize(
    "goal",
    [
        Goal(0.3, is_rate=True),
        Goal(1.0, is_rate=True),
        Goal(0.4, is_rate=False),
        Goal(0.05, is_rate=False),
    ],
)
def test_few_measurements_find_what_all_would(kind, goal, monkeypatch):
    measured = []
    search = spread(kind)
    plain = search._measure
    monkeypatch.setattr(search, "_measure", lambda q: measured.append(q) or plain(q))
    wanted = search.for_rate if goal.is_rate else search.for_error
    quantiser = wanted(goal.target)
    assert len(measured) <= 18
    found = search.measure(quantiser)
    assert goal.is_met(goal.excess(found))
    assert goal.cost(found) < 1.01 * least_of_all(search, goal, quantiser.step)


@pytest.mark.parametrize("rate", [5.0, 8.0, 12.0, 16.0])
def test_rates_are_met_whose_integers_have_raw_bits(rate):
    x = {"w": np.random.default_rng(7).laplace(size=(300, 300)).astype(np.float32)}
    frame, _ = get_codec({"id": "lattice", "rate": rate}).encode(x)
    assert 0.95 * rate < 8 * len(frame) / x["w"].size < 1.01 * rate


@pytest.mark.parametrize("count", [1, 5, 40, 300])
def test_an_error_is_met_where_nearly_all_is_zero(count):
    rng = np.random.default_rng(8)
    x = np.zeros(400_000, np.float32)
    x[rng.choice(len(x), count, replace=False)] = rng.laplace(size=count) + 1
    codec = get_codec({"id": "lattice", "nmse": 0.1})
    xhat = codec.decode(codec.encode({"w": x})[0])[0]["w"]
    assert np.square(x - xhat).sum() <= 0.105 * np.square(x).sum()


@pytest.mark.parametrize("n", [40, 5000, 100_000])
@pytest.mark.parametrize("nmse", [0.9, 0.2, 0.001])
def test_an_error_at_a_dead_zone_needs_no_classes(n, nmse):
    x = np.random.default_rng(n).laplace(size=n).astype(np.float32)
    classes = np.full(n, 32, np.uint8)
    pieces, reference = Pieces([x]), Step.near(1.0)
    search = StepSearch(pieces, None, reference)
    other = StepSearch(pieces, classes, reference)
    found = search.for_error(nmse, 0.5)
    assert found == other.for_error(nmse, 0.5)
    assert search.measure(found)[1] == other.measure(found)[1]
