"""What one device says of itself does not change what others are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.plan import Estimate, Estimates
from flwr_caesar.plan.batch import batch_sizes, fitting_batch


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
