"""How fine uploads and published models are: one error both ways, less of few bytes."""

from __future__ import annotations

import numpy as np
import pytest

from flwr_caesar.plan.precision import (
    ERROR,
    SMALL_ERROR,
    step_sigmas,
    upload_error,
)


@pytest.mark.parametrize("elements", [50_000, 65_000, 10**6])
def test_a_step_has_the_error_of_an_upload(elements: int) -> None:
    x = np.random.default_rng(0).normal(size=100_000)
    step = step_sigmas(elements) * x.std()
    left = x - step * np.rint(x / step)
    assert np.square(left).mean() == pytest.approx(upload_error(elements), rel=0.02)


def test_small_models_are_nearly_exact() -> None:
    errors = [upload_error(n) for n in (0, 1, 2048, 4096, 50_000, 80_000, 10**7)]
    found = [4**-8, 4**-8, 4**-8, 4**-4, SMALL_ERROR, ERROR, ERROR]
    assert errors == pytest.approx(found)
