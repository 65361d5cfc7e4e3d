"""What fits into a deadline is the best that fits, and what does not is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_caesar.plan import PlanError, fit_deadline

# 8 million parameters: a rate of r bits is r megabytes.
FIXED = {
    "parameters": 8_000_000,
    "local_steps": 10,
    "max_batch": 32,
    "max_rate": 2.0,
    "min_rate": 0.1,
}


def fit(deadline, fixed, mu, up, **options):
    return fit_deadline(
        deadline,
        fixed_seconds=fixed,
        seconds_per_sample=mu,
        up_bytes_per_second=up,
        **{**FIXED, **options},
    )


def test_hand_computed() -> None:
    # 9 s left: 4.5 s buy a batch of 9 at 0.5 s each and 0.9 bits at 5 s a bit.
    plan = fit(10, [1], [0.05], [2e5])
    assert plan.batch_sizes.tolist() == [9]
    assert plan.rates == pytest.approx([0.9])
    assert plan.seconds == pytest.approx([10])
    assert plan.fits.all()


def test_what_one_leaves_the_other_gets() -> None:
    # Fast link: 2 bits cost 1 s, 8 s buy a batch of 16. Fast device: a batch of 32
    # costs 3.2 s, 5.8 s buy 1.16 bits.
    plan = fit(10, [1, 1], [0.05, 0.01], [2e6, 2e5])
    assert plan.batch_sizes.tolist() == [16, 32]
    assert plan.rates == pytest.approx([2.0, 1.16])


def test_ample_time_gives_everything() -> None:
    plan = fit(1e6, [1, 1], [0.05, 0.01], [2e6, 2e5], max_rate=[2.0, 1.0])
    assert plan.batch_sizes.tolist() == [32, 32]
    assert plan.rates.tolist() == [2.0, 1.0]
    assert (plan.seconds < 20).all()


def test_what_cannot_fit_is_flagged() -> None:
    plan = fit(10, [12, 1, 1], [0.05, 0.05, 1.0], [2e5, 1e4, 2e5], min_batch=2)
    assert plan.fits.tolist() == [False, False, False]
    assert plan.batch_sizes.tolist() == [2, 2, 2]
    assert plan.rates.tolist() == [0.1] * 3
    assert plan.seconds == pytest.approx([12 + 1 + 0.5, 1 + 1 + 10, 1 + 20 + 0.5])


def test_weights_put_one_first() -> None:
    training = fit(10, [1], [0.05], [2e5], compute_weight=1)
    assert training.batch_sizes.tolist() == [17]
    upload = fit(10, [1], [0.05], [2e5], compute_weight=0)
    assert upload.batch_sizes.tolist() == [1]
    assert upload.rates == pytest.approx([1.7])


def test_nobody() -> None:
    assert fit(10, [], [], []).rates.shape == (0,)


@given(
    st.floats(0.1, 100),
    st.floats(0, 20),
    st.floats(1e-4, 1),
    st.floats(1e4, 1e7),
    st.integers(1, 8),
    st.floats(0.1, 2),
    st.floats(0.05, 0.95),
)
def test_nothing_better_fits(deadline, fixed, mu, up, least, most, weight) -> None:
    plan = fit(
        deadline,
        [fixed],
        [mu],
        [up],
        min_batch=least,
        max_rate=most,
        compute_weight=weight,
    )
    batches = np.arange(least, 33)
    left = deadline - fixed - 10 * batches * mu
    rates = np.minimum(left * up / 1e6, most)
    possible = rates >= 0.1
    if not plan.fits[0]:
        # To rounding: what just fits may be counted either way.
        assert (rates < 0.1 * (1 + 1e-6)).all()
        return
    assert plan.seconds[0] <= deadline * (1 + 1e-9)
    assert least <= plan.batch_sizes[0] <= 32
    assert 0.1 <= plan.rates[0] <= most
    utility = weight * np.log(batches) + (1 - weight) * np.log(np.maximum(rates, 0.1))
    ours = weight * np.log(plan.batch_sizes[0]) + (1 - weight) * np.log(plan.rates[0])
    assert ours >= utility[possible].max(initial=-np.inf) - 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"deadline": 0},
        {"min_batch": 0},
        {"min_batch": 33},
        {"max_rate": 0.01},
        {"min_rate": 0},
        {"compute_weight": 2},
        {"local_steps": 0},
        {"parameters": 0},
        {"mu": [0.0]},
        {"up": [0.0]},
        {"fixed": [-1.0]},
        {"fixed": [1.0, 1.0], "mu": [1.0, 1.0, 1.0]},
    ],
)
def test_refused(options) -> None:
    with pytest.raises(PlanError):
        fit(**{"deadline": 10, "fixed": [1], "mu": [0.1], "up": [1e5], **options})
