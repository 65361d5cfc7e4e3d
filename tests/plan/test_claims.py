"""What one device says of itself does not change what others are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import Estimate, Estimates
from flwr_caesar.plan.batch import batch_sizes, fitting_batch
from flwr_caesar.plan.deadline import fit_deadline
from flwr_caesar.plan.fleet import Fleet

counts = st.integers(0, (1 << 32) - 1)
volumes = counts | st.integers(0, 300)
labels = st.tuples(*[st.integers(0, 60)] * 3).filter(any)
honest = st.lists(st.tuples(volumes, labels), min_size=3, max_size=12)
claims = st.tuples(volumes, st.lists(counts, max_size=6).map(tuple))
seconds = st.floats(1e-4, 1e2)


def sizes(mu: list[float]) -> list[int]:
    return batch_sizes(
        seconds_per_sample=mu,
        comm_seconds=np.zeros(len(mu)),
        local_steps=10,
        max_batch=64,
        min_batch=1,
    ).tolist()


@pytest.mark.parametrize("claim", [1e-3, 1e-9, 1e-300])
def test_a_claim_of_speed_costs_others_at_most_half_of_their_batch(claim) -> None:
    honest = sizes([0.01, 0.011, 0.02, 0.04])
    assert honest == [64, 58, 32, 16]
    with_liar = sizes([claim, 0.01, 0.011, 0.02, 0.04])
    assert with_liar[0] == 64
    assert with_liar[1:] == honest


def test_who_is_a_little_faster_leads() -> None:
    assert sizes([0.006, 0.01, 0.02]) == [64, 38, 19]
    assert sizes([0.001, 0.01]) == [64, 6]


def test_a_batch_that_just_fits_is_not_lost_to_rounding() -> None:
    seconds = np.array([0.3])
    assert fitting_batch(seconds, np.array([0.1]), min_batch=1, max_batch=9) == [3]


def test_an_estimate_is_a_device_s_own_from_its_third_observation_on() -> None:
    estimate = Estimate(prior=1.0)
    estimate.observe([1], [1.0])
    estimate.observe([2], [1.0])
    for expected in (2.0, 4.0, 4.0):
        estimate.observe([0], [4.0])
        assert estimate.predict([0])[0] == pytest.approx(expected)
    estimate = Estimate(prior=1.0)
    estimate.observe([1], [1.0])
    estimate.observe([2], [1.0])
    estimate.observe([0], [4.0])
    estimate.observe([0], [1024.0])
    # With two, the prior still has a vote: the median of 1, 4 and 1024.
    assert estimate.predict([0])[0] == pytest.approx(4.0)


def test_each_direction_is_learnt_from_its_own_bytes() -> None:
    found = Estimates()
    for _ in range(3):
        found.observe_link(
            [0],
            bytes_down=[8e6],
            seconds_down=[2.0],
            bytes_up=[1e6],
            seconds_up=[1.0],
        )
    assert found.down_bytes_per_second.predict([0])[0] == pytest.approx(4e6)
    assert found.up_bytes_per_second.predict([0])[0] == pytest.approx(1e6)


def ranks(data: list[tuple[int, tuple[int, ...]]]) -> np.ndarray:
    fleet = Fleet()
    names = [f"device-{i}" for i in range(len(data))]
    half = len(data) // 2  # they come in two rounds
    for server_round, part in ((1, slice(0, half)), (2, slice(half, None))):
        fleet.learn(
            names[part],
            server_round,
            volumes=[volume for volume, _ in data[part]],
            labels=[labels for _, labels in data[part]],
        )
    return fleet.population.ranks(fleet.slots(names))


@given(honest, claims, claims)
def test_no_claim_of_data_moves_another_by_more_than_a_rank(fleet, one, other) -> None:
    """Whatever a device says of its examples, and of labels of whatever number."""
    for place in (0, len(fleet)):
        with_one, with_other = (
            ranks([*fleet[:place], claim, *fleet[place:]]) for claim in (one, other)
        )
        moved = np.delete(with_one - with_other, place)
        assert np.abs(moved).max() <= 1


@given(st.lists(seconds, min_size=3, max_size=9), seconds | st.floats(1e-300, 1e300))
def test_no_claim_of_speed_moves_the_pace_by_more_than_a_rank(others, claim) -> None:
    """The fastest or the second sets it, or a claim of at most twice the fastest."""
    fastest, second = sorted(others)[:2]
    mu = np.array(others)
    beside = np.array(sizes([*others, claim])[:-1])
    assert (beside >= np.floor(32 * fastest / mu * (1 - 1e-9))).all()
    assert (beside <= np.floor(64 * second / mu * (1 + 1e-9)).clip(1, 64)).all()


@given(st.lists(seconds, min_size=2, max_size=6), seconds, seconds)
def test_a_deadline_is_fitted_to_each_device_alone(others, one, other) -> None:
    def fitted(claim: float) -> list[np.ndarray]:
        mu = np.array([claim, *others])
        plan = fit_deadline(
            60.0,
            fixed_seconds=mu,
            seconds_per_sample=mu / 100,
            up_bytes_per_second=1e6 / mu,
            parameters=100_000,
            local_steps=10,
            max_batch=32,
            max_rate=np.full(len(mu), 1.0),
        )
        return [plan.batch_sizes[1:], plan.rates[1:]]

    for a, b in zip(fitted(one), fitted(other), strict=True):
        np.testing.assert_array_equal(a, b)
