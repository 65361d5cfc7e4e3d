"""Ratios become rates: precise where importance is high, the mean kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import PlanError, rate_for


def test_hand_computed() -> None:
    mean = (2 - 0.5) / (2 * math.log(2))
    found = rate_for([0.1, 0.35, 0.6], base_rate=0.5, spread=2)
    assert found == pytest.approx([1 / mean, 0.5 / mean, 0.25 / mean])


def test_spread_one_and_equal_bounds_are_uniform() -> None:
    assert rate_for([0.1, 0.6], base_rate=0.7, spread=1).tolist() == [0.7, 0.7]
    bounds = {"theta_min": 0.3, "theta_max": 0.3}
    assert rate_for([0.3], base_rate=0.7, spread=4, **bounds).tolist() == [0.7]


@given(st.floats(0.01, 8), st.floats(1, 16), st.floats(0, 0.5), st.floats(0.51, 1))
def test_the_mean_over_ranks_is_the_base(base, spread, low, high) -> None:
    theta = low + (high - low) * (np.arange(1000) + 0.5) / 1000
    rate = rate_for(theta, base_rate=base, spread=spread, theta_min=low, theta_max=high)
    assert rate.mean() == pytest.approx(base, rel=1e-4)
    assert (np.diff(rate) <= 0).all()
    assert rate[0] / rate[-1] <= spread**2 * (1 + 1e-9)
    outside = rate_for(
        [0, 1], base_rate=base, spread=spread, theta_min=low, theta_max=high
    )
    assert outside[0] / outside[1] == pytest.approx(spread**2)


@pytest.mark.parametrize(
    ("theta", "options"),
    [
        (0.3, {"base_rate": 0}),
        (0.3, {"spread": 0.5}),
        (0.3, {"theta_min": 0.9}),
        (float("nan"), {}),
    ],
)
def test_refused(theta, options) -> None:
    with pytest.raises(PlanError):
        rate_for([theta], **{"base_rate": 1, "spread": 2, **options})
