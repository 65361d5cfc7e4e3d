"""How fine uploads and models are: by how often devices took part, and by rounds."""

from __future__ import annotations

import math

import pytest

from flwr_caesar.plan.precision import (
    COARSEST,
    LAG,
    LARGEST_STEP,
    step_sigmas,
    upload_error,
)

LARGE = 10**7


@pytest.mark.parametrize("turns", [1, 1.5, 4, 10])
def test_half_of_the_lag_is_on_its_way_from_devices(turns: float) -> None:
    error = upload_error(turns, LARGE)
    assert error / (1 - error) == pytest.approx(LAG / 2 * turns, rel=1e-3)


@pytest.mark.parametrize(("devices", "asked"), [(40, 4), (5, 5), (100, 2)])
def test_a_model_lags_by_that_part_of_the_rounds(devices: int, asked: int) -> None:
    """Devices move by one a round, and send the part ``1 - q`` of what they owe."""
    owed, learnt, rounds = [0.0] * devices, 0.0, 8 * devices // asked
    for t in range(rounds):
        error = upload_error(t * asked // devices + 1, LARGE)
        for i in range(t * asked, (t + 1) * asked):
            owed[i % devices] += 1 / asked
            learnt += (1 - error) * owed[i % devices]
            owed[i % devices] *= error
    assert 1 - learnt / rounds == pytest.approx(LAG / 2, rel=0.1)


def test_nobody_owes_more_than_half_and_the_first_turn_is_the_least() -> None:
    errors = [upload_error(n, LARGE) for n in (0, 0.3, 1, 2, 5, 40, 10**9)]
    assert errors == sorted(errors)
    assert errors[0] == errors[2]
    assert errors[-1] == errors[-2] == COARSEST


def test_small_models_are_nearly_exact() -> None:
    errors = [upload_error(100, n) for n in (0, 1, 2048, 4096, 20_000, LARGE)]
    assert errors == pytest.approx([4**-8, 4**-8, 4**-8, 4**-4, 4**-1.2288, 0.5])


def test_models_are_published_the_finer_the_younger_the_run() -> None:
    steps = [step_sigmas(n) for n in (0, 1, 2, 10, 50, 10**6)]
    assert steps == sorted(steps)
    assert steps[0] == steps[1] == pytest.approx(math.sqrt(12 * 0.025 / 1.025))
    assert steps[3] == pytest.approx(math.sqrt(12 * 0.2))
    assert steps[-1] == LARGEST_STEP
