"""The paper's predictors: what its formulas say, in float32."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.codec.predictors.predict import Mode
from flwr_caesar.codec.predictors.published import (
    advance_scores,
    agreement,
    majority_signs,
    published_gains,
    published_mode,
    published_prediction,
    statistics,
)

SHAPE = (6, 5, 3, 3)


def tensor(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.laplace(size=SHAPE).astype(np.float32).reshape(6, 5, 9)


def test_scores_average_z_scores_of_magnitudes() -> None:
    rounds = [tensor(seed) for seed in range(4)]
    scores, expected = None, np.zeros(rounds[0].shape)
    for x in rounds:
        scores = advance_scores(scores, x, statistics(x))
        size = np.abs(x.astype(np.float64))
        expected = 0.93 * expected + 0.07 * (size - size.mean()) / size.std()
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_a_tensor_of_one_magnitude_moves_no_score() -> None:
    x = np.full((2, 2, 4), -3, np.float32)
    assert not advance_scores(None, x, statistics(x)).any()


@pytest.mark.parametrize("flips", [False, True])
def test_the_prediction_is_the_papers(flips) -> None:
    before, x = tensor(1), tensor(2)
    scores = advance_scores(None, before, statistics(before))
    step = np.float32(0.01)
    size = np.abs(x)
    expected = np.abs(scores * size.std() + size.mean())
    kernels = majority_signs(x.reshape(30, 9))
    assert np.count_nonzero(kernels) not in (0, 30)
    gains = published_gains(Mode.PAPER_KERNELS, x, step, flips=flips)
    found = published_prediction(
        Mode.PAPER_KERNELS, gains, step, scores, before, kernels
    )
    signed = expected * kernels.reshape(6, 5, 1)
    np.testing.assert_allclose(found, signed, rtol=2e-3, atol=1e-6)
    gains = published_gains(Mode.PAPER_OSCILLATION, x, step, flips=flips)
    found = published_prediction(
        Mode.PAPER_OSCILLATION, gains, step, scores, before, None
    )
    signed = expected * np.sign(before) * (-1 if flips else 1)
    np.testing.assert_allclose(found, signed, rtol=2e-3, atol=1e-6)


def test_a_kernel_agrees_from_three_quarters_on_and_zeros_are_of_the_majority() -> None:
    rows = np.array(
        [
            [1, 1, 1, -1],
            [1, 1, -1, -1],
            [-1, -1, 0, 1],
            [0, 0, 0, 0],
            [-1, -1, -1, -1],
            [0, 1, -1, -1],
        ],
        np.float32,
    )
    assert majority_signs(rows).tolist() == [1, 0, -1, 1, -1, -1]


def test_agreement_counts_what_is_beyond_the_bound() -> None:
    x = np.array([3, -3, 3, 0.5], np.float32)
    before = np.array([1, -1, -1, -1], np.float32)
    assert agreement(x, before, 1) == pytest.approx(2 / 3)
    assert agreement(x, before, 9) == 0.5


def test_the_paper_takes_its_mode_by_agreement_and_by_shape() -> None:
    x = tensor(0)
    assert published_mode("paper", x, 0.8) is Mode.PAPER_OSCILLATION
    assert published_mode("paper", x, 0.2) is Mode.PAPER_OSCILLATION
    assert published_mode("paper", x, 0.5) is Mode.PAPER_KERNELS
    assert published_mode("paper_kernels", x, 0.9) is Mode.PAPER_KERNELS
    linear = x.reshape(1, 1, -1)
    assert published_mode("paper", linear, 0.9) is Mode.NONE
    pointwise = x.reshape(30, 9, 1)
    assert published_mode("paper", pointwise, 0.9) is Mode.NONE
